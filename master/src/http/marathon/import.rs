//! Apps as job files: what of an app a job can be, and what was left out of it.

use super::app::normal;
use super::container::bundle_of;
use super::id::AppId;
use super::words::{Object, without_nulls};
use super::wrong::Wrong;
use super::{apps, job, ports};
use crate::admit::update::UpdateSpec;
use crate::admit::{JobSpec, Source};
use protocol::Digest;
use protocol::job::Network;
use serde_json::{Value, json};

/// Most things that are left out of one app until it is given up.
const TRIES_MAX: usize = 64;
/// Most groups in groups that are read.
const DEPTH_MAX: usize = 16;
/// What an app says and no job does.
const UNSAID: [(&str, &str); 5] = [
    ("unreachableStrategy", "tasks of a silent agent are replaced after the master's --replace-after-ms"),
    ("taskKillGracePeriodSeconds", "`skep stop --grace` says it"),
    ("acceptedResourceRoles", "a job has what is kept for its role, and what is kept for nobody"),
    ("residency", "it means nothing here"),
    ("storeUrls", "it means nothing here"),
];

/// A job file made of an app.
#[derive(Debug)]
pub struct Imported {
    /// What its files are called, without their endings.
    pub stem: String,
    /// The job file, TOML.
    pub text: String,
    /// The script that stands beside it as `STEM.sh`, where it has one.
    pub script: Option<Vec<u8>>,
    /// What of the app the job has not, and what is to be done, a sentence each.
    pub notes: Vec<String>,
}

/// The job files of an app, a list of apps, or a group, as clients write them or get them.
///
/// # Errors
/// Why it is none of that.
pub fn import(text: &str) -> Result<Vec<Imported>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let mut found = vec![];
    collect(&without_nulls(value), &AppId::root(), 0, &mut found)?;
    match found.is_empty() {
        true => Err("there is no app in it: an app has an id".into()),
        false => found.into_iter().map(|(id, body)| one(&id, body)).collect(),
    }
}

fn collect(value: &Value, group: &AppId, depth: usize, found: &mut Vec<(AppId, Object)>) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("groups are at most {DEPTH_MAX} deep"));
    }
    match value {
        Value::Array(list) => list.iter().try_for_each(|value| collect(value, group, depth + 1, found)),
        Value::Object(body) if body.get("app").is_some_and(Value::is_object) => collect(&body["app"], group, depth + 1, found),
        Value::Object(body) if ["apps", "groups"].iter().any(|name| body.get(*name).is_some_and(Value::is_array)) => {
            let own = body.get("id").and_then(Value::as_str).unwrap_or("");
            let group = group.resolve(own).map_err(|why| format!("{own:?}: {why}"))?;
            for name in ["apps", "groups"] {
                body.get(name).into_iter().try_for_each(|list| collect(list, &group, depth + 1, found))?;
            }
            Ok(())
        }
        Value::Object(body) if body.contains_key("id") => {
            let id = apps::own_id(body, group).map_err(|wrong| said(&wrong))?;
            found.push((id, body.clone()));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn said(wrong: &Wrong) -> String {
    let all: Vec<String> = wrong.faults_said().iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
    all.join("; ")
}

fn one(id: &AppId, mut body: Object) -> Result<Imported, String> {
    let stem = id.parts().collect::<Vec<_>>().join("-");
    let mut notes = vec![];
    let file = elsewhere(&mut body, &mut notes);
    let has_ports = ["ports", "portDefinitions"].iter().any(|name| body.contains_key(*name));
    for (name, why) in UNSAID {
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        if body.get(name).is_some_and(|value| !is_empty(value)) {
            notes.push(format!("left out: {name} ({why})"));
            body.remove(name);
        }
    }
    for _ in 0..TRIES_MAX {
        let made = normal(id, &body, has_ports).and_then(|app| Ok((job::made(&app, !ports::of(&app.fields).is_empty())?, app)));
        let wrong = match made {
            Ok((made, app)) => {
                let job::Made { mut spec, script } = made;
                spec.origin = None;
                notes.extend(unlike(&app.fields, &mut spec));
                if spec.tasks.iter().any(|task| task.limits.egress == Some(Network::None)) {
                    notes.push(
                        "its tasks reach nothing: say limits.egress = \"host\" where they need to, which its role must be allowed".into(),
                    );
                }
                let task = spec.tasks.first_mut().ok_or("an app has a task")?;
                task.env.retain(|(name, _)| name != "MARATHON_APP_VERSION");
                if let Some(file) = &file {
                    let sources = [&mut task.image, &mut task.native, &mut task.wasm];
                    sources.into_iter().flatten().for_each(|source| *source = Source::File(file.clone()));
                } else if script.is_some() {
                    task.native = Some(Source::File(format!("{stem}.sh")));
                }
                let text = toml(&spec.to_json(), id)?;
                return Ok(Imported { stem, text, script, notes });
            }
            Err(wrong) => wrong,
        };
        let faults = wrong.faults_said();
        let mut removed = false;
        for fault in faults {
            if remove(&mut body, &fault.path) {
                notes.push(format!("left out: {} ({})", fault.path, fault.message));
                removed = true;
            }
        }
        if !removed {
            return Err(format!("{id}: {}", said(&wrong)));
        }
    }
    Err(format!("{id}: too much of it cannot be a job"))
}

/// Makes it be replaced as job files usually are, within the bounds of the app, and says what of it is otherwise than with Marathon.
fn unlike(fields: &Object, spec: &mut JobSpec) -> Vec<String> {
    let (min_healthy_milli, max_over_milli) = (spec.update.min_healthy_milli, spec.update.max_over_milli);
    spec.update = UpdateSpec { min_healthy_milli, max_over_milli, ..UpdateSpec::default() };
    let mut notes =
        vec!["a version that does not prove itself goes back by itself: say update.auto_rollback = false where it is not to".to_owned()];
    let all = fields.get("dependencies").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let is_kept = |text: &&str| {
        let place = AppId::parse(text).ok().and_then(|id| id.place().ok());
        place.is_some_and(|(role, name)| Some(role) == spec.role && spec.after.contains(&name))
    };
    let lost = all.filter(|text| !is_kept(text));
    notes.extend(lost.map(|text| format!("left out: dependencies, {text} (a service waits for others of its own role)")));
    notes
}

/// Puts a file in place of what would be fetched or pulled from elsewhere; gives back what that is called.
fn elsewhere(body: &mut Object, notes: &mut Vec<String>) -> Option<String> {
    let placeholder = format!("sha256:{}", Digest::of(b""));
    let image = body.get_mut("container").and_then(|container| container.get_mut("docker")).and_then(|docker| docker.get_mut("image"));
    if let Some(Value::String(image)) = image
        && bundle_of(image).is_none()
    {
        let last = image.rsplit('/').next().unwrap_or(image);
        let file = format!("{}.tar", last.replace([':', '@'], "-"));
        notes.push(format!("images are not pulled yet: docker save {image} > {file}"));
        *image = placeholder;
        return Some(file);
    }
    let uri = match body.get("fetch").or_else(|| body.get("uris")).and_then(|list| list.get(0)) {
        Some(Value::String(uri)) => uri.clone(),
        Some(artifact) => artifact.get("uri")?.as_str()?.to_owned(),
        None => return None,
    };
    if bundle_of(&uri).is_some() {
        return None;
    }
    let file = uri.rsplit('/').next().filter(|file| !file.is_empty()).unwrap_or("bundle").to_owned();
    notes.push(format!("nothing is fetched from elsewhere yet: put {uri} beside the job file as {file}"));
    let rest = body.get("fetch").or_else(|| body.get("uris")).and_then(Value::as_array).map_or(0, |list| list.len() - 1);
    if rest > 0 {
        notes.push(format!("left out: {rest} more to be fetched (a job has one bundle: put all into one archive)"));
    }
    body.remove("uris");
    let suffix = if file.ends_with(".wasm") { ".wasm" } else { "" };
    body.insert("fetch".into(), json!([{ "uri": format!("{placeholder}{suffix}") }]));
    Some(file)
}

/// Takes out what stands at a path, `/container/docker/image` or `/constraints(0)`, of a list the whole element; false where nothing does.
fn remove(body: &mut Object, path: &str) -> bool {
    let path = path.trim_start_matches('/');
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    match (split(first), rest) {
        ((name, Some(at)), _) => match body.get_mut(name) {
            Some(Value::Array(list)) if at < list.len() => {
                list.remove(at);
                true
            }
            _ => false,
        },
        ((name, None), "") => body.remove(name).is_some(),
        ((name, None), rest) => match body.get_mut(name) {
            Some(Value::Object(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

fn split(part: &str) -> (&str, Option<usize>) {
    match part.strip_suffix(')').and_then(|part| part.rsplit_once('(')) {
        Some((name, at)) => (name, at.parse().ok()),
        None => (part, None),
    }
}

fn toml(json: &str, id: &AppId) -> Result<String, String> {
    let value: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let text = toml::to_string_pretty(&value).map_err(|error| error.to_string())?;
    Ok(format!("# Made of the Marathon app {id} by `skep import marathon`.\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::{Format, parse};
    use protocol::Name;

    #[test]
    fn an_app_becomes_a_job_file_and_what_it_has_not_is_said() {
        let app = json!({
            "id": "/web/shop", "cmd": "python3 -m http.server $PORT0", "cpus": 0.5, "mem": 64, "instances": 2, "ports": [0],
            "constraints": [["rack", "NEAR"], ["hostname", "UNIQUE"]], "healthChecks": [{ "path": "/up", "delaySeconds": 15, "ignoreHttp1xx": true }, { "path": "/" }], "user": "root", "secrets": { "a": { "source": "b" } },
            "env": { "A": "b" }, "labels": { "team": "x" }, "tasksRunning": 2, "dependencies": ["db", "/other/x"],
            "upgradeStrategy": { "minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.25 },
        });
        let [made] = &import(&app.to_string()).unwrap()[..] else { panic!() };
        let spec = parse(&made.text, Format::Toml).unwrap_or_else(|problems| panic!("{problems:?}\n{}", made.text));
        assert_eq!((spec.name.unwrap().as_str(), spec.role.unwrap().as_str(), spec.count), ("shop", "web", Some(2)));
        assert_eq!((spec.tasks[0].native.clone(), spec.place.constraints.len()), (Some(Source::File("web-shop.sh".into())), 1));
        assert_eq!(made.script.as_deref(), Some(&b"#!/bin/sh\npython3 -m http.server $PORT0\n"[..]));
        let health = spec.tasks[0].health.clone().unwrap();
        assert_eq!((health.http.as_deref(), health.every_ms, health.failures), (Some("/up"), Some(60_000), Some(3)), "{}", made.text);
        assert_eq!((health.delay_ms, health.ignore_1xx), (Some(15_000), Some(true)), "{}", made.text);
        let update = UpdateSpec { min_healthy_milli: Some(500), max_over_milli: Some(250), ..UpdateSpec::default() };
        assert_eq!((spec.update, spec.after.iter().map(Name::as_str).collect::<Vec<_>>()), (update, vec!["db"]), "{}", made.text);
        for what in ["/healthChecks(1)", "/constraints(0)", "/user", "/secrets", "/other/x"] {
            assert!(made.notes.iter().any(|note| note.contains(what)), "{what}: {:?}", made.notes);
        }
    }

    #[test]
    fn a_group_becomes_a_job_file_for_each_app() {
        let group = json!({ "id": "/", "apps": [], "groups": [{ "id": "g", "apps": [
            { "id": "redis", "container": { "type": "DOCKER", "docker": { "image": "library/redis:7", "network": "BRIDGE", "portMappings": [{ "containerPort": 6379 }] } } },
            { "id": "/g/b", "cmd": "./b", "uris": ["http://a/b.tgz", "http://a/c"] },
        ] }] });
        let made = import(&group.to_string()).unwrap();
        assert_eq!(made.iter().map(|made| made.stem.as_str()).collect::<Vec<_>>(), ["g-redis", "g-b"]);
        assert!(
            made[0].text.contains("image = \"redis-7.tar\"")
                && made[0].notes.iter().any(|note| note.contains("docker save library/redis:7"))
        );
        assert!(made[0].notes.iter().any(|note| note.contains("/container/docker/network")), "{:?}", made[0].notes);
        assert!(made[1].text.contains("native = \"b.tgz\"") && made[1].script.is_none(), "{}", made[1].text);
        for wrong in ["", "{", "[]", "{}", "3", r#"{"id":"/A"}"#, r#"{"id":"/a"}"#] {
            assert!(import(wrong).is_err(), "{wrong}");
        }
    }
}
