//! An app as a client writes it → the same with every default filled in, in the fields that clients know, or all that is wrong with it
//! (`docs/docs/rest-api/public/api/v2/types/app.raml` of Marathon). What it means here is `job.rs`'s.

use super::id::{AppId, RESERVED};
use super::words::Object;
use super::wrong::{Faults, Wrong};
use super::{container, ports};
use protocol::job::COUNT_MAX;
use serde_json::{Number, Value, json};

/// An app, every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// How many tasks it has.
    pub instances: u32,
    /// All else but what changes by itself.
    pub fields: Object,
}

/// What of an app is read at the moment: fields in, faults and fields out.
pub struct Reader<'a> {
    /// The object that is read.
    pub body: &'a Object,
    /// Where it stands in the app, as `/container`.
    pub place: String,
    /// What was read.
    pub out: Object,
    /// What was wrong.
    pub faults: &'a mut Faults,
}

impl<'a> Reader<'a> {
    /// Reads `body`, which stands at `place`.
    pub fn new(body: &'a Object, place: impl Into<String>, faults: &'a mut Faults) -> Self {
        Self { body, place: place.into(), out: Object::new(), faults }
    }

    /// Something about a field cannot be so.
    pub fn say(&mut self, name: &str, message: impl Into<String>) {
        let path = format!("{}/{name}", self.place);
        self.faults.say(path, message);
    }

    /// A field is of another type than it must be.
    pub fn say_type(&mut self, name: &str, expected: &str) {
        let path = format!("{}/{name}", self.place);
        self.faults.say_type(path, expected);
    }

    /// True where something is said of a field.
    pub fn has(&self, name: &str) -> bool {
        self.body.get(name).is_some_and(|value| !value.is_null())
    }

    /// Refuses a field that has a value, since nothing here would do what it says.
    pub fn refuse(&mut self, name: &str, why: &str) {
        let empty = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if self.body.get(name).is_some_and(|value| !empty(value)) {
            self.say(name, why);
        }
    }

    /// A text, where there is one.
    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.body.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => {
                self.out.insert(name.into(), text.as_str().into());
                Some(text.clone())
            }
            Some(_) => {
                self.say_type(name, "jsstring");
                None
            }
        }
    }

    /// One of a few words.
    pub fn word(&mut self, name: &str, words: &[&str], otherwise: &str) -> String {
        let word = self.text(name).unwrap_or_else(|| otherwise.to_owned());
        if !words.contains(&word.as_str()) {
            self.say(name, format!("error.unknown.enum.literal: {word:?} is none of {}", words.join(", ")));
        }
        self.out.insert(name.into(), word.as_str().into());
        word
    }

    /// A number from `least` to `most`; `whole` where it has no fraction.
    pub fn number(&mut self, name: &str, otherwise: f64, (least, most): (f64, f64), whole: bool) -> f64 {
        let default = || if otherwise.fract() == 0.0 { Some(Number::from(otherwise as i64)) } else { Number::from_f64(otherwise) };
        let number = match self.body.get(name) {
            None | Some(Value::Null) => default(),
            Some(Value::Number(number)) => Some(number.clone()),
            Some(_) => {
                self.say_type(name, "jsnumber");
                return otherwise;
            }
        };
        let number = number.unwrap_or_else(|| 0.into());
        let amount = number.as_f64().unwrap_or(f64::NAN);
        if whole && amount.fract() != 0.0 {
            self.say_type(name, "int");
        } else if !(least..=most).contains(&amount) {
            let side = if amount < least {
                format!("got {number}, expected {least} or more")
            } else {
                format!("got {number}, expected {most} or less")
            };
            self.say(name, side);
        }
        let kept = if whole && amount.fract() == 0.0 { Value::from(amount as i64) } else { Value::Number(number) };
        self.out.insert(name.into(), kept);
        amount
    }

    /// True or false.
    pub fn flag(&mut self, name: &str, otherwise: bool) -> bool {
        let flag = match self.body.get(name) {
            None | Some(Value::Null) => otherwise,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.say_type(name, "jsboolean");
                otherwise
            }
        };
        self.out.insert(name.into(), flag.into());
        flag
    }

    /// A list; nothing where there is none.
    pub fn list(&mut self, name: &str) -> &'a [Value] {
        match self.body.get(name) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.say_type(name, "jsarray");
                &[]
            }
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, name: &str) -> Vec<String> {
        let mut texts = vec![];
        for (at, value) in self.list(name).iter().enumerate() {
            match value.as_str() {
                Some(text) => texts.push(text.to_owned()),
                None => self.say_type(&format!("{name}({at})"), "jsstring"),
            }
        }
        texts
    }

    /// An object; `None` where there is none.
    pub fn object(&mut self, name: &str) -> Option<&'a Object> {
        match self.body.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map),
            Some(_) => {
                self.say_type(name, "jsobject");
                None
            }
        }
    }

    /// Texts by name.
    pub fn pairs(&mut self, name: &str, wrong: &str) {
        let mut pairs = Object::new();
        for (key, value) in self.object(name).into_iter().flatten() {
            match value {
                Value::String(text) => drop(pairs.insert(key.clone(), text.as_str().into())),
                Value::Object(_) => self.say(&format!("{name}/{key}"), wrong),
                _ => self.say_type(&format!("{name}/{key}"), "jsstring"),
            }
        }
        self.out.insert(name.into(), pairs.into());
    }

    /// The objects of a list, each by `read`, by the names of their places.
    pub fn objects(&mut self, name: &str, read: impl Fn(&mut Reader<'_>)) -> Vec<Object> {
        let mut all = vec![];
        for (at, value) in self.list(name).iter().enumerate() {
            let place = format!("{}/{name}({at})", self.place);
            match value {
                Value::Object(body) => {
                    let mut reader = Reader::new(body, place, self.faults);
                    read(&mut reader);
                    all.push(reader.out);
                }
                _ => self.faults.say_type(place, "jsobject"),
            }
        }
        all
    }
}

/// The app that `body` is, of which the id is known; `has_ports` where one that says nothing of ports has one.
///
/// # Errors
/// All that is wrong with it.
pub fn normal(id: &AppId, body: &Object, has_ports: bool) -> Result<App, Wrong> {
    let mut faults = Faults::default();
    if let Err(why) = id.place() {
        faults.say("/id", why);
    } else if id.parts().next_back().is_some_and(|last| RESERVED.contains(&last)) {
        faults.say("/id", format!("must not end with {}", RESERVED.join(", ")));
    }
    let mut reader = Reader::new(body, "", &mut faults);
    let instances = reader.number("instances", 1.0, (0.0, f64::from(COUNT_MAX)), true);
    reader.out.clear();
    reader.out.insert("id".into(), id.as_str().into());
    what_runs(&mut reader);
    amounts(&mut reader);
    container::read(&mut reader);
    ports::read(&mut reader, has_ports);
    roles(&mut reader, id);
    placing(&mut reader, id);
    ends(&mut reader);
    checks(&mut reader);
    refused(&mut reader);
    let fields = std::mem::take(&mut reader.out);
    faults.none()?;
    // A cast of a float saturates.
    Ok(App { id: id.clone(), instances: instances as u32, fields })
}

fn what_runs(reader: &mut Reader<'_>) {
    let (cmd, args) = (reader.text("cmd"), reader.texts("args"));
    if cmd.as_ref().is_some_and(|cmd| cmd.trim().is_empty()) {
        reader.say("cmd", "must not be empty");
    }
    if reader.has("args") {
        reader.out.insert("args".into(), args.clone().into());
    }
    if cmd.is_some() && !args.is_empty() {
        reader.faults.say("/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.");
    }
    reader.pairs("env", "secrets are not kept yet: give the variable a text");
    reader.text("user");
    let executor = reader.text("executor").unwrap_or_default();
    if !["", "//cmd"].contains(&executor.as_str()) {
        reader.say("executor", "executors of an app's own are not run: leave it out, or say //cmd");
    }
    reader.out.insert("executor".into(), executor.into());
    fetch(reader);
}

fn fetch(reader: &mut Reader<'_>) {
    let mut all: Vec<Object> = vec![];
    if reader.has("fetch") {
        all = reader.objects("fetch", |artifact| {
            if artifact.text("uri").is_none() && !artifact.has("uri") {
                artifact.say("uri", "is missing");
            }
            artifact.flag("extract", true);
            artifact.flag("executable", false);
            artifact.flag("cache", false);
            artifact.text("destPath");
        });
    } else {
        for uri in reader.texts("uris") {
            let artifact = json!({ "uri": uri, "extract": true, "executable": false, "cache": false });
            all.extend(artifact.as_object().cloned());
        }
    }
    for (at, artifact) in all.iter().enumerate() {
        let uri = artifact.get("uri").and_then(Value::as_str).unwrap_or("");
        if container::bundle_of(uri).is_none() {
            reader.say(&format!("fetch({at})/uri"), container::ONLY_UPLOADED);
        }
    }
    if all.len() > 1 {
        reader.say("fetch(1)", "an app fetches one bundle at most yet: put all into one archive");
    }
    reader.out.insert("fetch".into(), all.into_iter().map(Value::Object).collect());
}

fn amounts(reader: &mut Reader<'_>) {
    reader.number("cpus", 1.0, (0.001, 4_096.0), false);
    reader.number("mem", 128.0, (0.0, 16_777_216.0), false);
    reader.number("disk", 0.0, (0.0, 1_073_741_824.0), false);
    reader.number("gpus", 0.0, (0.0, 1_024.0), true);
    let mem = reader.out.get("mem").and_then(Value::as_f64).unwrap_or(0.0);
    let Some(limits) = reader.object("resourceLimits") else { return };
    let mut of = Reader::new(limits, "/resourceLimits", reader.faults);
    match of.body.get("cpus") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text == "unlimited" => drop(of.out.insert("cpus".into(), text.as_str().into())),
        Some(_) => of.say("cpus", "only \"unlimited\" is kept: what others leave of a processor is there for all"),
    }
    match of.body.get("mem") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text == "unlimited" => of.say("mem", "no task is without a limit yet: say how much"),
        Some(_) => drop(of.number("mem", mem, (mem, 16_777_216.0), false)),
    }
    let read = std::mem::take(&mut of.out);
    reader.out.insert("resourceLimits".into(), read.into());
}

/// The app is counted for its groups: that is its role, whatever it says otherwise.
fn roles(reader: &mut Reader<'_>, id: &AppId) {
    let group = id.parts().next().filter(|_| !id.parent().is_root()).unwrap_or("*").to_owned();
    let role = reader.text("role").unwrap_or_else(|| group.clone());
    if role != group && role != "*" {
        reader.say("role", format!("an app is counted for its group: {group:?}, or leave it out"));
    }
    reader.out.insert("role".into(), group.as_str().into());
    let accepted = reader.texts("acceptedResourceRoles");
    if accepted.iter().any(|role| role != "*" && *role != group) {
        reader.say("acceptedResourceRoles", format!("an app has what is kept for {group:?} and what is kept for nobody: \"*\""));
    }
    if reader.has("acceptedResourceRoles") {
        reader.out.insert("acceptedResourceRoles".into(), accepted.into());
    }
}

fn placing(reader: &mut Reader<'_>, id: &AppId) {
    let mut constraints = vec![];
    for (at, value) in reader.list("constraints").iter().enumerate() {
        match constraint(value) {
            Ok(parts) => constraints.push(Value::from(parts)),
            Err(why) => reader.say(&format!("constraints({at})"), why),
        }
    }
    reader.out.insert("constraints".into(), constraints.into());
    reader.pairs("labels", "a label is a text");
    let mut dependencies = vec![];
    for text in reader.texts("dependencies") {
        match id.parent().resolve(&text) {
            Ok(other) if other == *id => reader.say("dependencies", format!("{text}: an app cannot wait for itself")),
            Ok(other) => dependencies.push(Value::from(other.as_str())),
            Err(why) => reader.say("dependencies", format!("{text:?}: {why}")),
        }
    }
    reader.out.insert("dependencies".into(), dependencies.into());
    let none = Object::new();
    let strategy = reader.object("upgradeStrategy").unwrap_or(&none);
    let mut of = Reader::new(strategy, "/upgradeStrategy", reader.faults);
    of.number("minimumHealthCapacity", 1.0, (0.0, 1.0), false);
    of.number("maximumOverCapacity", 1.0, (0.0, 1.0), false);
    let read = std::mem::take(&mut of.out);
    reader.out.insert("upgradeStrategy".into(), read.into());
    if reader.word("killSelection", &["YOUNGEST_FIRST", "OLDEST_FIRST"], "YOUNGEST_FIRST") == "OLDEST_FIRST" {
        reader.say("killSelection", "the task of the highest number goes first: only YOUNGEST_FIRST is kept");
    }
}

/// A constraint's parts: texts, of which the last may have been a number.
fn constraint(value: &Value) -> Result<Vec<String>, String> {
    let parts = match value {
        Value::Array(parts) => parts.clone(),
        // As in the newer form of pods.
        Value::Object(map) => ["fieldName", "operator", "value"].iter().filter_map(|name| map.get(*name).cloned()).collect(),
        _ => return Err("a constraint is a list: a field, an operator, and what that takes".into()),
    };
    let text = |part: &Value| match part {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let parts: Option<Vec<String>> = parts.iter().filter(|part| !part.is_null()).map(text).collect();
    let parts = parts.ok_or("a constraint is a list of texts")?;
    super::job::constraint(&parts).map(|_| parts)
}

fn ends(reader: &mut Reader<'_>) {
    reader.number("backoffSeconds", 1.0, (0.0, 86_400.0), true);
    reader.number("backoffFactor", 1.15, (1.0, 100.0), false);
    reader.number("maxLaunchDelaySeconds", 300.0, (0.0, 86_400.0), true);
    if reader.has("taskKillGracePeriodSeconds") {
        reader.number("taskKillGracePeriodSeconds", 0.0, (0.0, 3_600.0), true);
    }
    let strategy = match reader.body.get("unreachableStrategy") {
        Some(Value::String(text)) if text == "disabled" => {
            reader.say("unreachableStrategy", "the tasks of a machine that is gone are replaced: \"disabled\" is not kept");
            return;
        }
        Some(Value::Null) | None => Object::new(),
        Some(_) => reader.object("unreachableStrategy").cloned().unwrap_or_default(),
    };
    let mut of = Reader::new(&strategy, "/unreachableStrategy", reader.faults);
    let inactive = of.number("inactiveAfterSeconds", 0.0, (0.0, 31_536_000.0), true);
    of.number("expungeAfterSeconds", inactive, (inactive, 31_536_000.0), true);
    let read = std::mem::take(&mut of.out);
    reader.out.insert("unreachableStrategy".into(), read.into());
}

fn checks(reader: &mut Reader<'_>) {
    let checks = reader.objects("healthChecks", super::health::read);
    reader.out.insert("healthChecks".into(), checks.into_iter().map(Value::Object).collect());
    let checks = reader.objects("readinessChecks", super::health::read_readiness);
    if checks.len() > 1 {
        reader.say("readinessChecks", "an app has one at most");
    }
    reader.out.insert("readinessChecks".into(), checks.into_iter().map(Value::Object).collect());
}

/// What would be taken for done and is not.
fn refused(reader: &mut Reader<'_>) {
    reader.refuse("secrets", "secrets are not kept yet");
    reader.refuse("ipAddress", "tasks have no address of their own: leave it out");
    reader.refuse("tty", "tasks have no terminal yet");
    reader.refuse("check", "checks that only report are not made yet: use healthChecks");
    reader.refuse("executorResources", "there is no executor of an app's own");
    reader.out.insert("storeUrls".into(), Value::Array(vec![]));
}
