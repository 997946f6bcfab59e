//! Frameworks and tools of Mesos', unmodified, from PyPI (`make clients`); and what its API says to what is wrong.

mod files;
mod lists;
mod logging;
mod maintenance;
mod messages;
mod reserved;
mod wrong;

use crate::cluster::{Cluster, Ends, PATIENCE};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Tasks that a framework places and that end by themselves.
const SHORT: usize = 40;

/// Where the clients are; `None`, said, where they could not be installed.
pub fn clients() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    if !folder.join("have").exists() {
        eprintln!("skipped: there are no clients of Mesos' API here: make clients");
        return None;
    }
    Some(folder.join("bin"))
}

fn pool() -> Cluster {
    let mut cluster = Cluster::master(&["--mesos", "127.0.0.1:0"]);
    for agent in ["a1", "a2"] {
        cluster.add_agent(agent, "cpu=2,memory=2GiB,ports=31000-31099");
    }
    cluster
}

#[test]
fn a_framework_that_knows_only_mesos_runs_its_whole_life() {
    let Some(clients) = clients() else { return };
    let cluster = pool();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mesos/scheduler.py");
    let output = Command::new(clients.join("python")).arg(script).args([&cluster.mesos, &SHORT.to_string()]).ends();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("\"done\": true"), "{text}\n{errors}");
    let said: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ends = |state: &str| said.iter().filter(|line| line["state"] == state).count();
    assert_eq!((ends("TASK_FINISHED"), ends("TASK_FAILED"), ends("TASK_KILLED")), (SHORT + 1, 1, 1), "{text}");
    let ids: Vec<&Value> = said.iter().filter_map(|line| line.get("subscribed")).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "it came back under its id: {text}");
    let (listed, code) = crate::cluster::said(&cluster, &["ps"]);
    assert_eq!(code, Some(0), "{listed}");
}

#[test]
fn a_framework_over_another_client_runs_groups_of_tasks_and_an_operator_watches_it() {
    let Some(clients) = clients() else { return };
    let cluster = pool();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mesos/pymesos_walk.py");
    let output = Command::new(clients.join("python")).arg(script).arg(&cluster.mesos).ends();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("\"done\": true"), "{text}\n{errors}");
    let said: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let state = said.iter().find(|line| line["agents"] == 2).expect("there are two agents");
    assert_eq!((&state["tasks"], said.iter().any(|line| line["roles"] == json!(["*"]))), (&json!(["alone"]), true), "{text}");
    for what in ["task added", "task updated", "framework added"] {
        assert!(said.iter().any(|line| line["watched"] == what), "{what}: {text}");
    }
    let wrong = said.iter().filter(|line| line["state"] == "TASK_ERROR");
    assert!(wrong.clone().count() == 2 && wrong.clone().all(|line| line["reason"] == "REASON_TASK_GROUP_INVALID"), "{text}");
}

#[test]
fn the_command_line_of_mesos_lists_agents_frameworks_and_tasks() {
    let Some(clients) = clients() else { return };
    let cluster = pool();
    let mut framework = Stream::subscribe(&cluster.mesos, "lister");
    framework.until("OFFERS");
    let listed = cluster.text(&["frameworks"]);
    assert!(listed.contains("lister") && listed.contains("subscribed"), "{listed}");
    let config = cluster.folder.join("mesos.toml");
    let open = format!("[master]\naddress = \"{}\"\n", cluster.mesos);
    let guarded = format!("[master]\naddress = \"{}\"\nprincipal = \"anybody\"\nsecret = \"{}\"\n", cluster.url, cluster.token);
    for text in [open, guarded] {
        std::fs::write(&config, text).unwrap();
        for (what, expected) in [("agent", "a1"), ("framework", "lister"), ("task", "There are no tasks")] {
            let mut command = Command::new(clients.join("python"));
            command.args(["-m", "avmesos.cli.mesos-cli", what, "list"]).env("MESOS_CLI_CONFIG", &config);
            let output = command.ends();
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(text.contains(expected), "{what}: {text}");
        }
    }
    let wrong = format!("[master]\naddress = \"{}\"\nprincipal = \"a\"\nsecret = \"b\"\n", cluster.mesos);
    std::fs::write(&config, wrong).unwrap();
    let mut command = Command::new(clients.join("python"));
    let ended = cluster.text(&["frameworks", "end", &framework.id]);
    assert!(ended.contains("is ended"), "{ended}");
    framework.until("an operator has ended the framework");
    let output = command.args(["-m", "avmesos.cli.mesos-cli", "agent", "list"]).env("MESOS_CLI_CONFIG", &config).ends();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("a1"), "who shows a token has to show a good one");
}

#[test]
fn calls_that_are_wrong_are_told_so_with_the_codes_of_mesos() {
    let cluster = pool();
    let framework = Stream::subscribe(&cluster.mesos, "strict");
    let json = "application/json";
    let (id, stream) = (framework.id.as_str(), framework.stream.as_str());
    let call = |kind: &str, rest: &str| format!(r#"{{"type":"{kind}","framework_id":{{"value":"{id}"}}{rest}}}"#);
    let subscribe = r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"x"}}}"#;
    let nobody = r#"{"type":"REVIVE","framework_id":{"value":"f123456"}}"#;
    let negative = r#","accept":{"offer_ids":[{"value":"o0-1"}],"operations":[{"type":"LAUNCH","launch":{"task_infos":[{"task_id":{"value":"t"},"resources":[{"name":"cpus","scalar":{"value":-1}}]}]}}]}"#;
    for (headers, body, expected) in [
        (vec![("Accept", json)], subscribe.to_owned(), 400),
        (vec![("Content-Type", "application/x-protobuf")], subscribe.to_owned(), 415),
        (vec![("Content-Type", json)], "{".to_owned(), 400),
        (vec![("Content-Type", json)], "{}".to_owned(), 400),
        (vec![("Content-Type", json), ("Accept", "text/html")], subscribe.to_owned(), 406),
        (vec![("Content-Type", json), ("Mesos-Stream-Id", stream)], subscribe.to_owned(), 400),
        (vec![("Content-Type", json)], call("REVIVE", ""), 400),
        (vec![("Content-Type", json), ("Mesos-Stream-Id", "00000000-0000-4000-8000-000000000000")], call("REVIVE", ""), 400),
        (vec![("Content-Type", json), ("Mesos-Stream-Id", stream)], nobody.to_owned(), 400),
        (vec![("Content-Type", json), ("Mesos-Stream-Id", stream)], call("NEVER", ""), 501),
        (vec![("Content-Type", json), ("Mesos-Stream-Id", stream)], call("KILL", ""), 400),
        (vec![("Content-Type", json), ("Mesos-Stream-Id", stream)], call("ACCEPT", negative), 202),
        (vec![("Content-Type", "application/json; charset=utf-8"), ("Mesos-Stream-Id", stream)], call("REVIVE", ""), 202),
        (vec![("Content-Type", json), ("Mesos-Stream-Id", stream)], call("REQUEST", ""), 202),
    ] {
        let answer = ask(&cluster.mesos, "POST", "/api/v1/scheduler", &headers, &body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{headers:?} {body}: {answer}");
    }
    let answer = ask(&cluster.mesos, "GET", "/api/v1/scheduler", &[], "");
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.to_ascii_lowercase().contains("allow: post"), "{answer}");
    assert!(ask(&cluster.mesos, "GET", "/version", &[], "").contains("\"version\":\"1.11.0\""));
    assert!(ask(&cluster.mesos, "GET", "/v1/jobs", &[], "").starts_with("HTTP/1.1 404 "), "our own API asks for tokens");
    assert!(ask(&cluster.mesos, "GET", "/master/redirect", &[], "").starts_with("HTTP/1.1 307 "));
    drop(framework);
    cluster.until("the framework is told to be gone", |cluster| {
        let state = ask(&cluster.mesos, "POST", "/api/v1", &[("Content-Type", json)], r#"{"type":"GET_FRAMEWORKS"}"#);
        !state.contains("strict")
    });
}

/// A subscription.
struct Stream {
    socket: TcpStream,
    heard: String,
    id: String,
    stream: String,
    /// Since when something is waited for, or news came last; heartbeats are none.
    since: Instant,
}

impl Stream {
    fn subscribe(mesos: &str, name: &str) -> Self {
        Self::subscribe_with(mesos, &json!({ "framework_info": { "user": "root", "name": name } }))
    }

    fn subscribe_with(mesos: &str, subscribe: &Value) -> Self {
        let body = json!({ "type": "SUBSCRIBE", "subscribe": subscribe }).to_string();
        let socket = send(mesos, "POST", "/api/v1/scheduler", &[("Content-Type", "application/json")], &body);
        let mut stream = Self { socket, heard: String::new(), id: String::new(), stream: String::new(), since: Instant::now() };
        stream.until("SUBSCRIBED");
        let header = stream.heard.lines().find(|line| line.to_ascii_lowercase().starts_with("mesos-stream-id:")).unwrap();
        stream.stream = header.split_once(':').unwrap().1.trim().to_owned();
        let (_, rest) = stream.heard.split_once(r#""framework_id":{"value":""#).unwrap();
        stream.id = rest.split('"').next().unwrap().to_owned();
        stream
    }

    /// A framework, and the first offer that it hears of.
    fn offered(mesos: &str, name: &str) -> (Self, Value) {
        let mut framework = Self::subscribe(mesos, name);
        framework.until("OFFERS");
        let offer = framework.offers()[0].clone();
        (framework, offer)
    }

    /// Places these tasks in an offer.
    fn launch(&self, mesos: &str, offer: &Value, tasks: &[Value]) {
        let launch = json!({ "type": "LAUNCH", "launch": { "task_infos": tasks } });
        let accept = json!({ "accept": { "offer_ids": [offer["id"]], "operations": [launch] } });
        assert_eq!(self.call(mesos, "ACCEPT", accept).0, 202);
    }

    /// Says something; gives back the status of the answer, and the answer.
    fn call(&self, mesos: &str, kind: &str, mut rest: Value) -> (u16, String) {
        rest["type"] = kind.into();
        rest["framework_id"] = json!({ "value": self.id });
        let headers = [("Content-Type", "application/json"), ("Mesos-Stream-Id", self.stream.as_str())];
        let answer = ask(mesos, "POST", "/api/v1/scheduler", &headers, &rest.to_string());
        (answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0), answer)
    }

    /// The records that were heard so far, of this type.
    fn records(&self, kind: &str) -> Vec<Value> {
        let lines = self.heard.split(['\n', '\r']).filter_map(|line| {
            let json = line.find('{').map(|at| &line[at..])?;
            let mut values = serde_json::Deserializer::from_str(json).into_iter::<Value>();
            values.next()?.ok()
        });
        lines.filter(|value| value["type"] == kind).collect()
    }

    /// The offers that were heard of so far.
    fn offers(&self) -> Vec<Value> {
        let offers = self.records("OFFERS");
        offers.iter().flat_map(|event| event["offers"]["offers"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// Reads until it was said.
    fn until(&mut self, what: &str) {
        self.since = Instant::now();
        while !self.heard.contains(what) {
            self.until_more();
        }
    }

    /// Reads until a task was told to be in this state, and acknowledges all that it is told.
    fn until_state(&mut self, mesos: &str, task: &str, state: &str) {
        let mut taken = 0;
        self.since = Instant::now();
        loop {
            let updates = self.records("UPDATE");
            for status in updates.iter().skip(taken).map(|event| &event["update"]["status"]) {
                taken += 1;
                if status["uuid"].is_string() {
                    let acknowledge = json!({ "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"] });
                    assert_eq!(self.call(mesos, "ACKNOWLEDGE", json!({ "acknowledge": acknowledge })).0, 202);
                }
                if status["task_id"]["value"] == task && status["state"] == state {
                    return;
                }
            }
            self.until_more();
        }
    }

    /// Reads until something more was said.
    fn until_more(&mut self) {
        let mut buffer = [0; 4_096];
        let n = loop {
            match self.socket.read(&mut buffer) {
                // Children of other tests end, and a read with a bound does not begin again by itself.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                n => break n.unwrap(),
            }
        };
        assert!(n > 0, "nothing follows: {}", self.heard);
        let more = String::from_utf8_lossy(&buffer[..n]);
        if !more.contains("HEARTBEAT") {
            self.since = Instant::now();
        }
        self.heard.push_str(&more);
        assert!(self.since.elapsed() < PATIENCE, "nothing but heartbeats follows: {}", self.heard);
    }
}

fn send(mesos: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let address = mesos.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).unwrap();
    socket
}

/// A task of Mesos'.
fn task(name: &str, command: &str) -> Value {
    let resources =
        [("cpus", 0.1), ("mem", 32.0)].map(|(name, amount)| json!({ "name": name, "type": "SCALAR", "scalar": { "value": amount } }));
    json!({ "name": name, "task_id": { "value": name }, "resources": resources, "command": { "value": command } })
}

/// The body of the answer to a GET, as JSON.
fn get(mesos: &str, path: &str) -> Value {
    let answer = ask(mesos, "GET", path, &[], "");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
}

/// The body of the answer to a call of the operator API.
fn operator(mesos: &str, call: &Value) -> Value {
    let answer = ask(mesos, "POST", "/api/v1", &[("Content-Type", "application/json")], &call.to_string());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{call}: {answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{call}: {error}: {answer}"))
}

/// The whole answer.
pub fn ask(mesos: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut answer = Vec::new();
    send(mesos, method, path, headers, body).read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
