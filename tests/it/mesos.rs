//! Frameworks and tools of Mesos', unmodified, from PyPI (`make clients`); and what its API says to what is wrong.

use crate::cluster::Cluster;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tasks that a framework places and that end by themselves.
const SHORT: usize = 40;

/// Where the clients are; `None`, said, where they could not be installed.
fn clients() -> Option<PathBuf> {
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
    let output = Command::new(clients.join("python")).arg(script).args([&cluster.mesos, &SHORT.to_string()]).output().unwrap();
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
            let output = command.output().unwrap();
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
    let output = command.args(["-m", "avmesos.cli.mesos-cli", "agent", "list"]).env("MESOS_CLI_CONFIG", &config).output().unwrap();
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
}

impl Stream {
    fn subscribe(mesos: &str, name: &str) -> Self {
        let body = format!(r#"{{"type":"SUBSCRIBE","subscribe":{{"framework_info":{{"user":"root","name":"{name}"}}}}}}"#);
        let socket = send(mesos, "POST", "/api/v1/scheduler", &[("Content-Type", "application/json")], &body);
        let mut stream = Self { socket, heard: String::new(), id: String::new(), stream: String::new() };
        stream.until("SUBSCRIBED");
        let header = stream.heard.lines().find(|line| line.to_ascii_lowercase().starts_with("mesos-stream-id:")).unwrap();
        stream.stream = header.split_once(':').unwrap().1.trim().to_owned();
        let (_, rest) = stream.heard.split_once(r#""framework_id":{"value":""#).unwrap();
        stream.id = rest.split('"').next().unwrap().to_owned();
        stream
    }

    /// Reads until it was said.
    fn until(&mut self, what: &str) {
        let mut buffer = [0; 4_096];
        while !self.heard.contains(what) {
            let n = self.socket.read(&mut buffer).unwrap();
            assert!(n > 0, "{what} was not said before the end: {}", self.heard);
            self.heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }
}

fn send(mesos: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let address = mesos.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(crate::cluster::PATIENCE)).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).unwrap();
    socket
}

/// The whole answer.
fn ask(mesos: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut answer = Vec::new();
    send(mesos, method, path, headers, body).read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
