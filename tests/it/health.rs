//! Health checks through the whole cluster, in each of their forms: what is not well is ended, says why, and is started again; what is well stays, whoever
//! of agent and master is killed; a roll waits until the new ones are ready.

use crate::cluster::{Cluster, said};
use crate::processes::write;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// What an agent promises: no two tests have the same ports, since their servers listen on one machine.
fn resources() -> String {
    static NUMBER: AtomicU16 = AtomicU16::new(0);
    let first = 21_500 + 20 * NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("cpu=64,memory=64GiB,disk=4GiB,ports={first}-{}", first + 19)
}

/// A server that answers with the status that it was told last: `GET /set/STATUS`; `hang` is no answer, `late` none to begin with.
pub const SERVER: &str = r#"#!/usr/bin/perl
use strict;
use IO::Socket::INET;
$| = 1;
my ($status, @kept) = ($ENV{STATUS} || 200);
sleep 2 if $status eq "late";
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ENV{PORT_HTTP}, Listen => 64, ReuseAddr => 1) or die "listen: $!";
$status = 200 if $status eq "late";
print "listening\n";
while (my $client = $server->accept) {
    my $asked = <$client> // "";
    while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n$/; }
    if ($asked =~ m{^GET /set/(\w+)}) { $status = $1; print $client "HTTP/1.1 200 OK\r\n\r\n"; close $client; next; }
    if ($status eq "hang") { push @kept, $client; next; }
    print $client "HTTP/1.1 $status X\r\nlocation: http://192.0.2.1/\r\n\r\n";
    close $client;
}
"#;

/// A cluster whose default role may use the host's network.
fn cluster() -> Cluster {
    let cluster = Cluster::of_one(&resources());
    cluster.text(&["roles", "set", "default", "--host-network", "true"]);
    write(&cluster, "server", SERVER);
    cluster
}

/// Puts a service of the server on record, with these lines of checks.
fn serve(cluster: &Cluster, count: u32, status: &str, checks: &str) {
    let text = format!(
        "name = \"web\"\nkind = \"service\"\ncount = {count}\n[task]\nnative = \"server\"\nenv = {{ STATUS = \"{status}\" }}\n\
         [resources]\ncpu = 0.1\nmemory = \"32MiB\"\nports = [\"http\"]\n[limits]\negress = \"host\"\n[restart]\nbackoff = {{ first = \"100ms\" }}\n{checks}\n"
    );
    let file = write(cluster, "web.toml", text);
    cluster.text(&["apply", "--detach", "--force", file.to_str().unwrap()]);
}

fn task(cluster: &Cluster, index: usize) -> Value {
    cluster.all_tasks("web")[index].clone()
}

fn healthy(cluster: &Cluster, count: u64) -> bool {
    cluster.json(&["status", "web"])["health"]["healthy"] == count
}

/// Has the server answer so from now on.
fn set(cluster: &Cluster, index: usize, status: &str) {
    let port = task(cluster, index)["ports"][0].as_u64().expect("it runs") as u16;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET /set/{status} HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

const QUICK: &str = "every = \"100ms\"\ntimeout = \"3s\"\ngrace = \"60s\"";

#[test]
fn an_http_service_that_is_not_well_says_why_is_ended_and_is_started_again() {
    let cluster = cluster();
    let (follower, events) = follow(&cluster);
    serve(&cluster, 2, "200", &format!("[health]\nhttp = \"/healthz\"\n{QUICK}\nfailures = 5"));
    cluster.until("both are well", |cluster| healthy(cluster, 2));
    assert!(cluster.text(&["ps", "web"]).contains("healthy") && cluster.text(&["ps"]).contains("2 running (2 healthy)"));
    let attempts = |cluster: &Cluster| cluster.all_tasks("web").iter().map(|task| task["attempt"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(attempts(&cluster), [1, 1]);
    // A redirect is an answer as good as another, and nobody goes where it leads.
    set(&cluster, 0, "302");
    set(&cluster, 1, "503");
    cluster.until("it is started again", |cluster| attempts(cluster) == [1, 2] && healthy(cluster, 2));
    let told = events();
    drop(follower);
    let unwell = told.iter().find(|event| event["event"] == "health" && event["health"] == "unhealthy").expect("it was told");
    assert!(unwell["attempts"][0]["reason"].as_str().unwrap().starts_with("HTTP 503 from :"), "{unwell}");
    let failed = told.iter().any(|event| event["event"] == "tasks" && event["phase"] == "failed");
    assert!(failed && told.iter().any(|event| event["health"] == "healthy"), "{told:?}");
    set(&cluster, 1, "hang");
    cluster.until("nobody answers", |cluster| attempts(cluster)[1] == 3);
    assert_eq!(attempts(&cluster)[0], 1);
}

/// What is told on `/v1/events` from now on.
fn follow(cluster: &Cluster) -> (std::process::Child, impl Fn() -> Vec<Value> + use<>) {
    let heard = cluster.folder.join("events");
    let mut curl = Command::new("curl");
    curl.args(["-sN", "--cacert"]).arg(cluster.ca()).arg("-H").arg(format!("authorization: Bearer {}", cluster.token));
    let output = fs::File::create(&heard).unwrap();
    let child = curl.arg(format!("{}/v1/events", cluster.url)).stdout(output).stderr(Stdio::null()).spawn().unwrap();
    cluster.until("events come", |_| fs::read_to_string(&heard).is_ok_and(|text| text.contains(": skep")));
    let read = move || {
        let lines = BufReader::new(fs::File::open(&heard).unwrap()).lines();
        let data = lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok());
        data.collect()
    };
    (child, read)
}

#[test]
fn why_a_task_is_not_well_is_shown_and_stands_in_its_end() {
    let cluster = cluster();
    serve(&cluster, 1, "503", "[health]\nhttp = \"/healthz\"\nevery = \"100ms\"\ngrace = \"3s\"\nfailures = 2\n");
    // Until it listens it is not, for another reason; and it is ended for it now and then, and begins again with another port.
    let reason = |port: &Value| format!("HTTP 503 from :{port}/healthz");
    cluster.until("it is not ready", |cluster| {
        let task = task(cluster, 0);
        task["health"]["state"] == "unready" && task["health"]["reason"] == reason(&task["ports"][0]).as_str()
    });
    for args in [&["ps", "web"][..], &["status", "web"], &["status", "web.0"], &["explain", "web"], &["explain", "web.0"]] {
        cluster.until(&format!("{args:?} says why"), |cluster| cluster.text(args).contains("HTTP 503 from :"));
    }
    // It ends again and again: after the third time that is said while it waits, with what it printed last.
    let shown = std::cell::RefCell::new(String::new());
    cluster.until("it is a loop", |cluster| {
        *shown.borrow_mut() = cluster.text(&["status", "web"]);
        shown.borrow().contains("web.0 ends again and again")
    });
    let text = shown.into_inner();
    assert!(text.contains("unhealthy: HTTP 503 from :") && text.contains("printed last:\n  listening"), "{text}");
    let job = cluster.json(&["status", "web"]);
    assert!(job["restarts"].as_u64() >= Some(2) && job["spec"]["tasks"][0]["health"]["path"] == "/healthz", "{job}");
    assert_eq!(job["spec"]["tasks"][0]["env"], serde_json::json!({ "STATUS": "503" }));
}

#[test]
fn a_server_that_begins_late_has_its_grace_and_a_port_that_takes_connections_is_well() {
    let cluster = cluster();
    serve(&cluster, 1, "late", "[health]\ntcp = \"http\"\nevery = \"100ms\"\nfailures = 1\ngrace = \"60s\"\n[readiness]\nhttp = \"/\"\n");
    cluster
        .until("it is refused", |cluster| task(cluster, 0)["health"]["reason"].as_str().is_some_and(|reason| reason.contains("refused")));
    cluster.until("it is well", |cluster| healthy(cluster, 1));
    assert_eq!(task(&cluster, 0)["attempt"], 1);
    // It was ready once, and a connection is all that is asked of its health.
    set(&cluster, 0, "503");
    assert!(healthy(&cluster, 1) && task(&cluster, 0)["attempt"] == 1);
}

#[test]
fn a_program_beside_the_task_says_how_it_is() {
    let cluster = Cluster::of_one(&resources());
    write(&cluster, "sleeper", "#!/bin/sh\ntouch /sandbox/well\nexec sleep 600\n");
    let job = |failures: u32, timeout: &str, exec: &str| {
        let text = format!(
            "name = \"web\"\nkind = \"service\"\n[task]\nnative = \"sleeper\"\n[restart]\nbackoff = {{ first = \"100ms\" }}\n\
             [health]\nexec = {exec}\nevery = \"200ms\"\ntimeout = \"{timeout}\"\ngrace = \"30s\"\nfailures = {failures}\n"
        );
        write(&cluster, "web.toml", text)
    };
    let file = job(1_000, "30s", "[\"sh\", \"-c\", \"echo it is gone; test -e /sandbox/well\"]");
    cluster.text(&["apply", "--force", file.to_str().unwrap()]);
    assert!(healthy(&cluster, 1), "apply waits until it is well");
    // It comes and goes, and nobody ends it for that.
    for _ in 0..3 {
        cluster.text(&["exec", "web.0", "--", "rm", "/sandbox/well"]);
        cluster.until("it is unwell", |cluster| task(cluster, 0)["health"]["state"] == "unhealthy");
        assert_eq!(task(&cluster, 0)["health"]["reason"], "sh: exit code 1: it is gone");
        cluster.text(&["exec", "web.0", "--", "touch", "/sandbox/well"]);
        cluster.until("it is well", |cluster| healthy(cluster, 1));
    }
    assert_eq!(task(&cluster, 0)["attempt"], 1);
    // One that hangs is ended with its check, and so is what it began.
    let file = job(2, "3s", "[\"sh\", \"-c\", \"test -e /sandbox/well || sleep 1000\"]");
    cluster.text(&["apply", "--force", file.to_str().unwrap()]);
    let before = task(&cluster, 0)["attempt"].as_u64().unwrap();
    cluster.text(&["exec", "web.0", "--", "rm", "/sandbox/well"]);
    cluster.until("it is ended", |cluster| task(cluster, 0)["attempt"].as_u64() > Some(before) && healthy(cluster, 1));
    let left = cluster.text(&["exec", "web.0", "--", "sh", "-c", "ps ax 2>/dev/null | grep -c 'sleep 100[0]' || true"]);
    assert_eq!(left.trim(), "0");
}

/// Sleeps; says that it is well, ill, or nothing.
const EXPORTS: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func $sleep
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 600000000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))))
    (func (export "_start") (call $sleep))
    (func (export "well") (result i32) (i32.const 0))
    (func (export "ill") (result i32) (i32.const 7))
    (func (export "trap") unreachable)
    (func (export "spin") (loop $on (br $on)))
    (func (export "sleep") (call $sleep))
    (func (export "wrong") (param i32)))"#;

#[test]
fn an_export_of_a_wasm_program_says_how_it_is() {
    let cluster = Cluster::of_one(&resources());
    fs::write(cluster.folder.join("exports.wasm"), wat::parse_str(EXPORTS).unwrap()).unwrap();
    let apply = |name: &str, count: u32, export: &str, more: &str| {
        let text = format!(
            "name = \"{name}\"\nkind = \"service\"\ncount = {count}\n[task]\nwasm = \"exports.wasm\"\n[resources]\ncpu = 0.01\nmemory = \"1MiB\"\n{more}\n\
             [health]\nwasm = \"{export}\"\nevery = \"200ms\"\ntimeout = \"1s\"\ngrace = \"60s\"\n"
        );
        let file = write(&cluster, &format!("{name}.toml"), text);
        cluster.text(&["apply", "--detach", "--force", file.to_str().unwrap()]);
    };
    apply("fine", 200, "well", "");
    apply("timed", 1, "well", "[limits]\ncpu_time = \"60s\"");
    for name in ["fine", "timed"] {
        let all = cluster.json(&["status", name])["count"].clone();
        cluster.until("all are well", |cluster| cluster.json(&["status", name])["health"]["healthy"] == all);
    }
    for (export, reason) in [
        ("ill", "ill says 7"),
        ("trap", "trap: "),
        ("spin", "spin: out of fuel"),
        ("sleep", "no answer of sleep in"),
        ("wrong", "wrong says nothing: it is no function"),
        ("nothing", "nothing says nothing: there is no such export"),
    ] {
        apply("unwell", 1, export, "");
        cluster.until(reason, |cluster| {
            let health = cluster.all_tasks("unwell")[0]["health"].clone();
            health["reason"].as_str().is_some_and(|said| said.starts_with(reason))
        });
    }
    let fine = cluster.all_tasks("fine");
    assert!(fine.iter().all(|task| task["attempt"] == 1 && task["health"]["state"] == "healthy"));
}

#[test]
fn what_is_well_stays_so_whoever_is_killed_and_what_is_not_is_found() {
    let mut cluster = cluster();
    serve(&cluster, 3, "200", &format!("[health]\nhttp = \"/\"\n{QUICK}\nfailures = 3"));
    cluster.until("all are well", |cluster| healthy(cluster, 3));
    cluster.kill_agent("a1");
    cluster.start_agent("a1");
    cluster.until("the agent is back", |cluster| cluster.reachable().contains(&"a1".to_owned()) && healthy(cluster, 3));
    cluster.kill_master();
    cluster.start_master();
    cluster.until("the new leader hears of it", |cluster| healthy(cluster, 3));
    let attempts: Vec<Value> = cluster.all_tasks("web").iter().map(|task| task["attempt"].clone()).collect();
    assert_eq!(attempts, [1, 1, 1]);
    set(&cluster, 1, "500");
    cluster.until("it is started again", |cluster| task(cluster, 1)["attempt"] == 2 && healthy(cluster, 3));
    cluster.kill_agent("a1");
    cluster.kill_master();
    cluster.start_master();
    cluster.start_agent("a1");
    cluster.until("both are back", |cluster| healthy(cluster, 3));
    let attempts: Vec<Value> = cluster.all_tasks("web").iter().map(|task| task["attempt"].clone()).collect();
    assert_eq!(attempts, [1, 2, 1]);
}

#[test]
fn a_roll_waits_for_readiness_and_a_new_version_that_is_never_ready_takes_no_more_than_its_part() {
    let cluster = cluster();
    let ready = "[readiness]\nhttp = \"/ready\"\nevery = \"100ms\"\n";
    serve(&cluster, 3, "200", ready);
    cluster.until("all are ready", |cluster| healthy(cluster, 3));
    serve(&cluster, 3, "503", ready);
    let versions = |cluster: &Cluster| cluster.all_tasks("web").iter().map(|task| task["version"].as_u64().unwrap()).collect::<Vec<_>>();
    cluster.until("the first is new, and not ready", |cluster| {
        let job = cluster.json(&["status", "web"]);
        let asked = cluster.all_tasks("web")[0]["health"]["reason"].to_string().contains("HTTP 503");
        job["health"]["healthy"] == 2 && job["health"]["unready"] == 1 && asked
    });
    assert_eq!(versions(&cluster), [2, 1, 1]);
    let (text, code) = said(&cluster, &["status", "web"]);
    assert!(code == Some(0) && text.contains("web.0 is unready: HTTP 503"), "{text}");
    set(&cluster, 0, "200");
    cluster.until("the second is new", |cluster| versions(cluster) == [2, 2, 1]);
    assert_eq!(task(&cluster, 0)["attempt"], 2, "what is not ready was not ended");
    // A version that is better goes over the one that is not ready.
    serve(&cluster, 3, "200", ready);
    cluster.until("all are of the last version", |cluster| versions(cluster) == [3, 3, 3] && healthy(cluster, 3));
}

#[test]
fn https_is_asked_whatever_the_certificate_is() {
    let cluster = cluster();
    let folder = cluster.folder.join("tls");
    fs::create_dir(&folder).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=nobody", "-keyout"])
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"))
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: there is no openssl");
        return;
    }
    let text = "name = \"web\"\nkind = \"service\"\n[task]\nnative = \"tls\"\ncommand = [\"sh\", \"-c\", \"exec openssl s_server -www -accept 127.0.0.1:$PORT_HTTP -cert /bundle/cert.pem -key /bundle/key.pem\"]\n\
        [resources]\nports = [\"http\"]\n[limits]\negress = \"host\"\n[health]\nhttps = \"/\"\nevery = \"200ms\"\n";
    let file = write(&cluster, "web.toml", text);
    cluster.text(&["apply", "--detach", "--force", file.to_str().unwrap()]);
    cluster.until("it is well", |cluster| healthy(cluster, 1));
}
