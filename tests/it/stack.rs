//! Redis, etcd and nginx from Debian's packages beside containers and wasm, from the files in `samples/stack` as they are: found by name, well, and back
//! after `kill -9`.

use crate::cluster::{Cluster, Ends};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

/// What is applied, with how many tasks it has, in the order of `samples/stack/README.md`.
const SERVICES: [(&str, u64); 5] = [("redis", 1), ("etcd", 1), ("hello", 2), ("nginx", 1), ("idle", 3)];

/// What an agent promises: no two clusters have the same ports, since their servers listen on one machine.
fn resources() -> String {
    static NUMBER: AtomicU16 = AtomicU16::new(0);
    let first = 22_100 + 20 * NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("cpu=64,memory=64GiB,disk=4GiB,ports={first}-{}", first + 19)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A cluster in which these of them are well; `None`: something is not installed.
fn stack(services: &[(&str, u64)]) -> Option<Cluster> {
    for (program, package) in [
        ("redis-server", "redis-server"),
        ("etcd", "etcd-server"),
        ("nginx", "nginx-light"),
        ("dig", "bind9-dnsutils"),
        ("mkfs.ext4", "e2fsprogs"),
    ] {
        let found = Command::new("sh").args(["-c", &format!("PATH=$PATH:/usr/sbin:/sbin command -v {program}")]).ends();
        if found.stdout.is_empty() {
            println!("skipped: no {program} (Debian: {package})");
            return None;
        }
    }
    if !root().join("target/images/debian.tar").exists() {
        println!("skipped: target/images/debian.tar is not there (make images)");
        return None;
    }
    let mut cluster = Cluster::master(&["--dns", "127.0.0.1:0"]);
    let dns = cluster.dns.clone();
    cluster.add_agent_with("a1", &resources(), &["--dns", &dns]);
    cluster.text(&["roles", "set", "default", "--host-network", "true"]);
    let file = |name: &str| -> PathBuf { root().join(format!("samples/stack/{name}.toml")) };
    for (name, _) in services {
        cluster.text(&["apply", "--detach", file(name).to_str().unwrap()]);
    }
    for (name, count) in services {
        cluster.until(&format!("{name} is well"), |cluster| healthy(cluster, name) == *count);
    }
    Some(cluster)
}

fn healthy(cluster: &Cluster, name: &str) -> u64 {
    cluster.json(&["status", name])["health"]["healthy"].as_u64().unwrap_or(0)
}

fn attempts(cluster: &Cluster, name: &str) -> Vec<u64> {
    cluster.all_tasks(name).iter().map(|task| task["attempt"].as_u64().unwrap()).collect()
}

/// What is answered to a question, as anybody may ask it: over DNS.
fn dig(cluster: &Cluster, kind: &str, name: &str) -> String {
    let at: SocketAddr = cluster.dns.parse().unwrap();
    let mut dig = Command::new("dig");
    dig.args([&format!("@{}", at.ip()), "-p", &at.port().to_string(), "+short", "+tries=2", kind, name]);
    String::from_utf8_lossy(&dig.ends().stdout).into_owned()
}

/// The ports that a name stands for.
fn ports(cluster: &Cluster, port: &str, name: &str) -> Vec<u16> {
    let text = dig(cluster, "SRV", &format!("_{port}._tcp.{name}.default.skep"));
    text.lines().filter_map(|line| line.split(' ').nth(2)?.parse().ok()).collect()
}

/// What a server answers until it closes the connection; nothing where it does not. Ours stays open: nginx drops what it is asked on one that is not.
fn ask(port: u16, question: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(question.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// What redis answers, wherever it is.
fn redis(cluster: &Cluster, command: &str) -> Option<String> {
    ask(*ports(cluster, "redis", "redis").first()?, &format!("{command}\r\nQUIT\r\n"))
}

/// The body that nginx answers with, wherever it is.
fn through_nginx(cluster: &Cluster, path: &str) -> Option<String> {
    let answer = ask(*ports(cluster, "http", "nginx").first()?, &format!("GET {path} HTTP/1.0\r\n\r\n"))?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.trim_end().to_owned())
}

/// All that answer at nginx's `/`, one after the other.
fn greeters(cluster: &Cluster) -> BTreeSet<String> {
    (0..4).filter_map(|_| through_nginx(cluster, "/")).collect()
}

/// The process of the cluster's task `index` that has this name for the kernel: of several the first one, whose children the others are.
fn process(cluster: &Cluster, index: usize, name: &str) -> String {
    let folder = cluster.folder.to_str().unwrap();
    let is_it = |id: &u32| {
        let read = |file: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{id}/{file}")).unwrap_or_default()).into_owned();
        // Redis and nginx write their titles over their environment; there is one of each.
        let environment = read("environ");
        let is_index = environment.contains(&format!("SKEP_TASK_INDEX={index}\0")) || !environment.contains("SKEP_TASK_INDEX=");
        // What it sees of files lies below the cluster's folder.
        read("comm").trim_end() == name && is_index && read("mountinfo").contains(folder)
    };
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(is_it).min().unwrap_or_else(|| panic!("no {name} runs")).to_string()
}

fn signal(which: &str, id: &str) {
    assert!(Command::new("kill").args([which, id]).status().unwrap().success());
}

#[test]
fn services_of_debian_run_beside_the_others_are_found_by_name_and_come_back() {
    let Some(cluster) = stack(&SERVICES) else { return };
    found_by_name(&cluster);
    back_after_a_kill(&cluster);
}

fn found_by_name(cluster: &Cluster) {
    assert_eq!(redis(cluster, "SET a 1\r\nGET a").as_deref(), Some("+OK\r\n$1\r\n1\r\n+OK\r\n"));
    // nginx knows the others by their names alone.
    let both = ["hello from hello.0", "hello from hello.1"].map(str::to_owned).into();
    cluster.until("both containers answer through nginx", |cluster| greeters(cluster) == both);
    let version = through_nginx(cluster, "/etcd/version").unwrap();
    assert!(version.contains("etcdserver"), "{version}");
    let text = cluster.text(&["ps"]);
    for (name, count) in SERVICES {
        assert!(text.contains(name) && healthy(cluster, name) == count, "{text}");
        assert_eq!(dig(cluster, "A", &format!("{name}.default.skep")), "127.0.0.1\n", "{name}");
    }
    // One that is stopped leaves its name, and nginx that knew it; scaled up again it is found by both.
    cluster.text(&["scale", "hello", "1"]);
    let one = ["hello from hello.0".to_owned()].into();
    cluster.until("one is left", |cluster| ports(cluster, "http", "hello").len() == 1 && greeters(cluster) == one);
    cluster.text(&["scale", "hello", "2"]);
    cluster.until("both are back", |cluster| ports(cluster, "http", "hello").len() == 2 && greeters(cluster) == both);
}

fn back_after_a_kill(cluster: &Cluster) {
    let before = attempts(cluster, "hello");
    for (job, index, program, port) in
        [("redis", 0, "redis-server", "redis"), ("etcd", 0, "etcd", "client"), ("nginx", 0, "nginx", "http"), ("hello", 1, "perl", "http")]
    {
        let attempt = attempts(cluster, job)[index];
        let count = cluster.all_tasks(job).len();
        signal("-9", &process(cluster, index, program));
        cluster.until(&format!("{job} is back"), |cluster| {
            attempts(cluster, job)[index] == attempt + 1
                && healthy(cluster, job) == count as u64
                && ports(cluster, port, job).len() == count
        });
    }
    assert_eq!(attempts(cluster, "hello"), [before[0], before[1] + 1], "its neighbour did not notice");
    assert_eq!(attempts(cluster, "idle"), [1, 1, 1]);
    assert_eq!(redis(cluster, "PING").as_deref(), Some("+PONG\r\n+OK\r\n"));
    let both = ["hello from hello.0", "hello from hello.1"].map(str::to_owned).into();
    cluster.until("nginx has found all of them again", |cluster| {
        greeters(cluster) == both && through_nginx(cluster, "/etcd/health").is_some_and(|text| text.contains("true"))
    });
}

#[test]
fn a_service_of_debian_that_does_not_answer_leaves_its_name_and_is_started_again() {
    let Some(cluster) = stack(&SERVICES[..1]) else { return };
    let stopped = process(&cluster, 0, "redis-server");
    signal("-STOP", &stopped);
    cluster.until("it has no name", |cluster| ports(cluster, "redis", "redis").is_empty());
    let reason = cluster.text(&["status", "redis.0"]);
    cluster.until("another is named", |cluster| attempts(cluster, "redis")[0] > 1 && ports(cluster, "redis", "redis").len() == 1);
    assert_eq!(redis(&cluster, "PING").as_deref(), Some("+PONG\r\n+OK\r\n"), "{reason}");
    assert!(!Path::new(&format!("/proc/{stopped}")).exists(), "the one that hung is gone");
}
