//! Ports of an app: `portDefinitions`, `ports` and `container.portMappings`, each of which says how many ports a task has, what they are called and,
//! where it must be so, which they are; and the ports that balancers serve an app at.

use super::app::Reader;
use super::id::AppId;
use super::words::Object;
use protocol::Name;
use protocol::resources::PORTS_PER_TASK_MAX;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Ports that balancers serve apps at, unless an app says which: Marathon's default for `--local_port_min` and `--local_port_max`.
pub const SERVICE_PORTS: std::ops::RangeInclusive<u16> = 10_000..=20_000;
/// Highest port.
const PORT_MAX: f64 = 65_535.0;

/// One port of an app's tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What it is called in the job; where that is a number, the agent gives just that port.
    pub name: Name,
    /// What the app calls it.
    pub label: Option<String>,
    /// What balancers serve it at.
    pub service: u16,
}

impl Port {
    /// True where each task has just this one.
    pub fn is_fixed(&self) -> bool {
        self.name.as_str().bytes().all(|byte| byte.is_ascii_digit())
    }
}

/// The fields that say something of ports.
pub fn read<'a>(reader: &mut Reader<'a>, has_ports: bool) {
    networks(reader);
    let fixed = reader.flag("requirePorts", false);
    let mappings = reader.body.get("container").and_then(|container| {
        let of = |value: Option<&'a Value>, place| Some((value?.get("portMappings")?.as_array().filter(|list| !list.is_empty())?, place));
        of(Some(container), "/container").or_else(|| of(container.get("docker"), "/container/docker"))
    });
    if let Some((mappings, place)) = mappings {
        let list = json!({ "portMappings": mappings });
        let Value::Object(body) = &list else { return };
        let mut of = Reader::new(body, place, reader.faults);
        let read = of.objects("portMappings", mapping);
        count(reader, "container/portMappings", read.len());
        differ(reader, "container/portMappings", read.iter().map(|port| number(port, "hostPort")));
        differ(reader, "container/portMappings", read.iter().map(|port| number(port, "servicePort")));
        if let Some(Value::Object(container)) = reader.out.get_mut("container") {
            container.insert("portMappings".into(), read.into_iter().map(Value::Object).collect());
        }
        return;
    }
    let definitions = reader.objects("portDefinitions", definition);
    let numbers: Vec<Object> = reader.list("ports").iter().filter_map(Value::as_u64).map(|port| plain(port, None)).collect();
    if numbers.len() != reader.list("ports").len() {
        reader.say_type("ports", "jsnumber");
    }
    let same = |one: &Object, other: &Object| one.get("port") == other.get("port");
    let are_same = definitions.len() == numbers.len() && definitions.iter().zip(&numbers).all(|(one, other)| same(one, other));
    if reader.has("portDefinitions") && reader.has("ports") && !are_same {
        reader.say("ports", "cannot specify both ports and portDefinitions, where they are not the same");
    }
    let given = match (reader.has("portDefinitions"), reader.has("ports")) {
        (true, _) => definitions,
        (false, true) => numbers,
        (false, false) if has_ports && !is_alone(&reader.out) => vec![plain(0, Some("default"))],
        (false, false) => vec![],
    };
    count(reader, "portDefinitions", given.len());
    differ(reader, if reader.has("portDefinitions") { "portDefinitions" } else { "ports" }, given.iter().map(|port| number(port, "port")));
    if fixed && given.iter().any(|port| number(port, "port") == 0) {
        reader.say("requirePorts", "a port is 0, which is any: which is required?");
    }
    let ports: Vec<Value> = given.iter().filter_map(|port| port.get("port").cloned()).collect();
    reader.out.insert("portDefinitions".into(), given.into_iter().map(Value::Object).collect());
    reader.out.insert("ports".into(), ports.into());
}

/// True where a container is to have no network.
fn is_alone(fields: &Object) -> bool {
    let docker = fields.get("container").and_then(|container| container.get("docker"));
    docker.and_then(|docker| docker.get("network")).and_then(Value::as_str) == Some("NONE")
}

fn count(reader: &mut Reader<'_>, name: &str, n: usize) {
    if n > usize::from(PORTS_PER_TASK_MAX) {
        reader.say(name, format!("a task has at most {PORTS_PER_TASK_MAX} ports"));
    }
}

/// Refuses a port that stands there twice; 0 is any.
fn differ(reader: &mut Reader<'_>, name: &str, ports: impl Iterator<Item = u16>) {
    let mut seen = BTreeSet::new();
    if let Some(port) = ports.filter(|port| *port > 0).find(|port| !seen.insert(*port)) {
        reader.say(name, format!("Elements must be unique: {port} stands there twice"));
    }
}

fn plain(port: u64, name: Option<&str>) -> Object {
    let mut object = Object::new();
    object.insert("port".into(), port.into());
    object.insert("protocol".into(), "tcp".into());
    if let Some(name) = name {
        object.insert("name".into(), name.into());
    }
    object
}

fn definition(port: &mut Reader<'_>) {
    port.number("port", 0.0, (0.0, PORT_MAX), true);
    name_and_protocol(port);
}

fn mapping(port: &mut Reader<'_>) {
    port.number("hostPort", 0.0, (0.0, PORT_MAX), true);
    port.number("servicePort", 0.0, (0.0, PORT_MAX), true);
    port.number("containerPort", 0.0, (0.0, PORT_MAX), true);
    let (inside, outside) = (number(&port.out, "containerPort"), number(&port.out, "hostPort"));
    if inside != 0 && inside != outside {
        port.say(
            "containerPort",
            "ports are not mapped yet: the port that a task is given is the one it listens at (0, or the same as hostPort)",
        );
    }
    name_and_protocol(port);
}

fn name_and_protocol(port: &mut Reader<'_>) {
    port.word("protocol", &["tcp", "udp", "udp,tcp"], "tcp");
    if let Some(name) = port.text("name").filter(|name| name.is_empty() || name.len() > 63 || name.chars().any(char::is_control)) {
        port.say("name", format!("{name:?} is no name of a port"));
    }
    if port.has("labels") {
        port.pairs("labels", "a label is a text");
    }
}

fn networks(reader: &mut Reader<'_>) {
    let networks = reader.objects("networks", |network| {
        let mode = network.word("mode", &["host", "container", "container/bridge"], "container");
        if mode != "host" {
            network.say("mode", "tasks have the host's network or none yet: host");
        }
    });
    if networks.len() > 1 {
        reader.say("networks", "a task has one network");
    }
    reader.out.insert("networks".into(), json!([{ "mode": "host" }]));
}

fn number(object: &Object, name: &str) -> u16 {
    object.get(name).and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok()).unwrap_or(0)
}

/// The list that says which ports an app has, and how a service port is called in it.
fn list(fields: &Object) -> (&[Value], &'static str) {
    let mappings = fields.get("container").and_then(|container| container.get("portMappings")).and_then(Value::as_array);
    match mappings {
        Some(mappings) => (mappings, "servicePort"),
        None => (fields.get("portDefinitions").and_then(Value::as_array).map_or(&[], Vec::as_slice), "port"),
    }
}

/// The ports of an app whose defaults are filled in.
pub fn of(fields: &Object) -> Vec<Port> {
    let (list, service) = list(fields);
    let fixed = fields.get("requirePorts").and_then(Value::as_bool).unwrap_or(false);
    let mut taken = BTreeSet::new();
    let mut port = |(at, value): (usize, &Value)| {
        let none = Object::new();
        let object = value.as_object().unwrap_or(&none);
        let host = if service == "servicePort" {
            number(object, "hostPort")
        } else if fixed {
            number(object, "port")
        } else {
            0
        };
        let label = object.get("name").and_then(Value::as_str).map(str::to_owned);
        // A name that is a number would ask for that port.
        let own = label.as_deref().map(str::to_ascii_lowercase).filter(|name| !name.bytes().all(|byte| byte.is_ascii_digit()));
        let named = own.and_then(|name| Name::new(&name).ok()).filter(|name| !taken.contains(name));
        let text = if host > 0 { host.to_string() } else { format!("port{at}") };
        let name = named.filter(|_| host == 0).or_else(|| Name::new(&text).ok())?;
        taken.insert(name.clone());
        Some(Port { name, label, service: number(object, service) })
    };
    list.iter().enumerate().filter_map(&mut port).collect()
}

/// Gives each port that may be any a service port: the one that it had `before`, or one that `is_taken` says nothing against.
pub fn assign(id: &AppId, fields: &mut Object, before: &[u16], is_taken: impl Fn(u16) -> bool) {
    let wanted: Vec<u16> = of(fields).iter().map(|port| port.service).collect();
    let mut given: Vec<u16> = vec![];
    for (at, port) in wanted.iter().enumerate() {
        let known = before.get(at).copied().filter(|port| SERVICE_PORTS.contains(port) && !wanted.contains(port));
        let free = |port: &u16| !is_taken(*port) && !given.contains(port) && !wanted.contains(port);
        given.push(match *port {
            0 => known.or_else(|| candidates(id, at).find(free)).unwrap_or(0),
            port => port,
        });
    }
    let set = |value: &mut Value, name: &str, port: u16| {
        if let Some(object) = value.as_object_mut() {
            object.insert(name.into(), port.into());
        }
    };
    let mappings = fields.get_mut("container").and_then(|container| container.get_mut("portMappings")).and_then(Value::as_array_mut);
    if let Some(mappings) = mappings {
        mappings.iter_mut().zip(given).for_each(|(value, port)| set(value, "servicePort", port));
        return;
    }
    if let Some(definitions) = fields.get_mut("portDefinitions").and_then(Value::as_array_mut) {
        definitions.iter_mut().zip(&given).for_each(|(value, port)| set(value, "port", *port));
    }
    fields.insert("ports".into(), given.into());
}

/// Service ports in an order of the app's own, so that two apps seldom want the same.
fn candidates(id: &AppId, at: usize) -> impl Iterator<Item = u16> {
    let protocol::Digest(bytes) = protocol::Digest::of(format!("{id}#{at}").as_bytes());
    let (first, n) = (u16::from_le_bytes([bytes[0], bytes[1]]), SERVICE_PORTS.end() - SERVICE_PORTS.start() + 1);
    (0..n).map(move |step| SERVICE_PORTS.start() + (first % n + step) % n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::marathon::app::normal;

    fn app(body: &Value) -> Object {
        let mut body = body.clone();
        body["cmd"] = "x".into();
        normal(&AppId::parse("/a").unwrap(), body.as_object().unwrap(), true).unwrap().fields
    }

    fn names(body: &Value) -> Vec<String> {
        of(&app(body)).iter().map(|port| port.name.to_string()).collect()
    }

    #[test]
    fn ports_have_names_of_their_own_or_are_the_ones_that_are_required() {
        assert_eq!(names(&json!({})), ["default"]);
        assert_eq!(names(&json!({ "ports": [] })), [""; 0]);
        assert_eq!(names(&json!({ "ports": [0, 8080] })), ["port0", "port1"]);
        assert_eq!(names(&json!({ "ports": [8080, 31000], "requirePorts": true })), ["8080", "31000"]);
        let definitions = json!({ "portDefinitions": [{ "port": 0, "name": "HTTP" }, { "port": 0, "name": "http" }, { "name": "12" }, { "name": "a b" }] });
        assert_eq!(names(&definitions), ["http", "port1", "port2", "port3"]);
        let mappings =
            json!({ "container": { "type": "MESOS", "portMappings": [{ "hostPort": 31005, "containerPort": 31005 }, { "name": "x" }] } });
        assert_eq!(names(&mappings), ["31005", "x"]);
    }

    #[test]
    fn what_is_any_gets_a_service_port_and_keeps_it() {
        let id = AppId::parse("/a").unwrap();
        let mut fields = app(&json!({ "portDefinitions": [{ "port": 0 }, { "port": 9000 }, { "port": 0 }] }));
        assign(&id, &mut fields, &[], |_| false);
        let first: Vec<u16> = of(&fields).iter().map(|port| port.service).collect();
        assert!(SERVICE_PORTS.contains(&first[0]) && first[1] == 9_000 && SERVICE_PORTS.contains(&first[2]) && first[0] != first[2]);
        assert_eq!(fields["ports"], json!(first));
        let mut again = app(&json!({ "ports": [0] }));
        assign(&id, &mut again, &first, |_| true);
        assert_eq!(of(&again)[0].service, first[0]);
        let mut other = app(&json!({ "ports": [0] }));
        assign(&id, &mut other, &[], |port| port == first[0]);
        assert_ne!(of(&other)[0].service, first[0]);
    }
}
