//! Several masters: a cluster of three in processes of their own goes on through the loss of any one, loses nothing that was acknowledged,
//! restarts no task, and can be changed while it works.

use crate::cluster::{Cluster, Ends, PATIENCE, ended, sample, skep};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const RESOURCES: &str = "cpu=64,memory=64GiB,disk=1GiB,ports=20000-20099";
const TASKS: usize = 200;

/// A cluster of several masters.
pub struct Masters {
    pub cluster: Cluster,
    seats: BTreeMap<u64, Seat>,
}

/// Where a master is, and its process while it runs.
struct Seat {
    http: String,
    quic: String,
    child: Option<Child>,
}

impl Masters {
    /// Three of them and an agent.
    pub fn three() -> Self {
        Self::three_in(&[])
    }

    /// The same, in an environment with these variables.
    pub fn three_in(environment: &[(&str, &str)]) -> Self {
        let mut cluster = Cluster::master_in(&["--replace-after-ms", "20000"], environment);
        let http = cluster.url.strip_prefix("https://").unwrap().to_owned();
        let first = Seat { http, quic: cluster.quic.clone(), child: cluster.master.take() };
        let mut masters = Self { cluster, seats: BTreeMap::from([(1, first)]) };
        masters.join();
        masters.join();
        masters.until_led(3);
        masters.cluster.add_agent("a1", RESOURCES);
        masters
    }

    /// Another one joins; returns its number.
    fn join(&mut self) -> u64 {
        let token = self.cluster.text(&["tokens", "create", "--level", "join-master"]);
        let to: Vec<&str> = self.seats.values().filter(|seat| seat.child.is_some()).map(|seat| seat.quic.as_str()).collect();
        let next = self.seats.keys().max().unwrap() + 1;
        let data = format!("m{next}");
        let flags = ["--to", &to.join(","), "--join", token.trim()];
        let (child, ready) = self.spawn(&data, "127.0.0.1:0", "127.0.0.1:0", &flags);
        let number = ready["number"].as_u64().unwrap();
        assert_eq!(number, next);
        let http = ready["url"].as_str().unwrap().strip_prefix("https://").unwrap().to_owned();
        self.seats.insert(number, Seat { http, quic: ready["quic"].as_str().unwrap().to_owned(), child: Some(child) });
        self.name_all();
        number
    }

    fn name_all(&mut self) {
        let urls: Vec<String> = self.seats.values().map(|seat| format!("https://{}", seat.http)).collect();
        self.cluster.url = urls.join(",");
    }

    fn spawn(&self, data: &str, http: &str, quic: &str, flags: &[&str]) -> (Child, Value) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.cluster.folder.join("master.log")).unwrap();
        let mut command = skep();
        command.args(["--output", "json", "master", "--replace-after-ms", "20000", "--http", http, "--quic", quic, "--data"]);
        command.arg(self.cluster.folder.join(data)).args(flags).env("SKEP_LOG", "warn,master=info,openraft=off");
        command.envs(self.cluster.master_environment.iter().cloned());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(self.cluster.folder.join("master.log")).unwrap_or_default();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the master said {line:?}\n{}", log()));
        (child, ready)
    }

    pub fn start(&mut self, number: u64) {
        let data = if number == 1 { "master".to_owned() } else { format!("m{number}") };
        let seat = &self.seats[&number];
        let (child, _) = self.spawn(&data, &seat.http, &seat.quic, &[]);
        self.seats.get_mut(&number).unwrap().child = Some(child);
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: u64) {
        let mut child = self.seats.get_mut(&number).unwrap().child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn signal(&self, number: u64, signal: &str) {
        let id = self.seats[&number].child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Ends one as an operator does, and waits.
    fn stop(&mut self, number: u64) {
        self.signal(number, "-TERM");
        let child = self.seats.get_mut(&number).unwrap().child.take().unwrap();
        assert!(ended(child, "a master that is to end").status.success());
    }

    /// Where one serves HTTP.
    pub fn url(&self, number: u64) -> String {
        format!("https://{}", self.seats[&number].http)
    }

    fn page(&self) -> Value {
        self.cluster.json(&["masters"])
    }

    /// Waits until each of so many masters leads some shard, all shards are led, and all have a vote in all.
    pub fn until_led(&self, count: usize) {
        self.cluster.until("leaders are spread", |cluster| {
            let page = cluster.json(&["masters"]);
            let (masters, groups) = (page["masters"].as_array().unwrap(), page["groups"].as_array().unwrap());
            let leads = |master: &Value| !master["leads"].as_array().unwrap().is_empty();
            let voted = |group: &Value| group["voters"].as_array().unwrap().len() == count && !group["leader"].is_null();
            masters.iter().filter(|master| leads(master)).count() == count && groups.iter().all(voted)
        });
    }

    /// A master that leads something.
    pub fn leader(&self) -> u64 {
        self.page()["groups"][0]["leader"].as_u64().unwrap()
    }

    fn sleepers(&self, ms: &str) {
        let (sleep, count) = (sample("sleep.wasm"), TASKS.to_string());
        let sleep = sleep.to_str().unwrap();
        let flags = ["run", "--detach", "--name", "sleepers", "--count", &count, "--cpu", "0.01", "--memory", "1MiB", sleep, "--", ms];
        self.cluster.text(&flags);
        self.cluster.until("all run", |cluster| cluster.tasks("sleepers", "running") == TASKS as u64);
    }

    fn none_was_started_again(&self) {
        let again = self.cluster.all_tasks("sleepers").iter().filter(|task| task["attempt"] != 1).count();
        assert_eq!(again, 0, "tasks were started again");
    }
}

impl Drop for Masters {
    fn drop(&mut self) {
        for child in self.seats.values_mut().filter_map(|seat| seat.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Says numbers, one after the other, for about fifteen seconds.
const COUNTS: &str = "#!/bin/sh\nn=0; while [ $n -lt 600 ]; do echo $n; n=$((n+1)); sleep 0.02; done\n";

#[test]
fn who_follows_output_or_waits_for_a_job_notices_nothing_of_masters_that_are_killed() {
    let mut masters = Masters::three();
    let script = masters.cluster.folder.join("count");
    std::fs::write(&script, COUNTS).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (script, file) = (script.to_str().unwrap(), masters.cluster.folder.join("count.toml"));
    std::fs::write(&file, "name = \"applied\"\nkind = \"batch\"\n[task]\nnative = \"./count\"\n").unwrap();
    let id = masters.cluster.text(&["run", "--detach", script]).trim().to_owned();
    let users = [vec!["logs", "--follow", &id], vec!["run", script], vec!["apply", file.to_str().unwrap()]];
    let users = users.map(|args| (masters.cluster.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), args));
    std::thread::sleep(Duration::from_secs(1));
    // The first is the one that all of them speak with, and then the second.
    for number in [1, 2] {
        masters.kill(number);
        std::thread::sleep(Duration::from_secs(1));
        masters.start(number);
        masters.until_led(3);
    }
    let all: String = (0..600).map(|n| format!("{n}\n")).collect();
    for (user, args) in users {
        let output = ended(user, &format!("{args:?}"));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{args:?}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
        match args[0] {
            "logs" => {
                assert_eq!(said.lines().map(|line| line.rsplit_once(' ').unwrap().1).collect::<Vec<_>>(), all.lines().collect::<Vec<_>>())
            }
            "run" => assert_eq!(said, all),
            _ => assert!(said.contains("applied: "), "{said}"),
        }
    }
}

#[test]
fn any_master_may_be_killed_while_tasks_run_and_jobs_come() {
    let mut masters = Masters::three();
    masters.sleepers("60000");
    let hello = sample("hello.wasm");
    let mut ids = Vec::new();
    for round in 0..3 {
        let gone = masters.leader();
        masters.kill(gone);
        for _ in 0..5 {
            ids.push(masters.cluster.text(&["run", "--detach", hello.to_str().unwrap(), "--", "x"]).trim().to_owned());
        }
        for id in &ids {
            masters.cluster.until("every acknowledged job ends", |cluster| cluster.tasks(id, "finished") == 1);
        }
        assert_eq!(masters.cluster.tasks("sleepers", "running"), TASKS as u64, "round {round}");
        masters.start(gone);
        masters.until_led(3);
    }
    masters.none_was_started_again();
}

#[test]
fn one_that_is_stopped_in_good_order_hands_over_what_it_leads() {
    let mut masters = Masters::three();
    masters.sleepers("60000");
    let hello = sample("hello.wasm");
    for number in [1, 2, 3] {
        masters.stop(number);
        assert_eq!(masters.cluster.text(&["run", hello.to_str().unwrap(), "--", "world"]), "hello, world\n");
        let page = masters.page();
        let led = page["groups"].as_array().unwrap().iter().all(|group| !group["leader"].is_null() && group["leader"] != number);
        assert!(led, "{page}");
        masters.start(number);
        masters.until_led(3);
    }
    assert_eq!(masters.cluster.tasks("sleepers", "running"), TASKS as u64);
    masters.none_was_started_again();
}

/// Has whoever looks at it stop, also where a test fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// As an operator exchanges the program on a whole cluster: every master and every agent is stopped and started, one after the other.
#[test]
fn all_are_started_again_in_turn_while_jobs_come_and_no_task_is() {
    let mut masters = Masters::three();
    masters.cluster.add_agent("a2", RESOURCES);
    masters.cluster.until("both agents are there", |cluster| cluster.reachable().len() == 2);
    masters.sleepers("600000");
    let script = masters.cluster.folder.join("stays");
    std::fs::write(&script, "#!/bin/sh\nexec sleep 1000000\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let small = ["--name", "stays", "--count", "20", "--cpu", "0.1", "--memory", "16MiB"];
    masters.cluster.text(&[&["run", "--detach"], &small[..], &[script.to_str().unwrap()]].concat());
    masters.cluster.until("processes run", |cluster| cluster.tasks("stays", "running") == 20);
    let (hello, stop) = (sample("hello.wasm"), AtomicBool::new(false));
    let (url, token, ca) = (masters.cluster.url.clone(), masters.cluster.token.clone(), masters.cluster.ca());
    let submit = || {
        let mut command = skep();
        command.env("SKEP_MASTER", &url).env("SKEP_TOKEN", &token).env("SKEP_CA", &ca);
        let output = command.args(["run", "--detach", hello.to_str().unwrap(), "--", "x"]).ends();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let ids = std::thread::scope(|scope| {
        let jobs = scope.spawn(|| std::iter::repeat_with(submit).take_while(|_| !stop.load(Ordering::SeqCst)).collect::<Vec<_>>());
        let stops = Stops(&stop);
        for number in [1, 2, 3] {
            masters.stop(number);
            masters.start(number);
            masters.until_led(3);
        }
        for agent in ["a1", "a2"] {
            masters.cluster.stop_agent(agent);
            masters.cluster.start_agent(agent);
            masters.cluster.until("it is there again", |cluster| cluster.reachable().len() == 2);
        }
        drop(stops);
        jobs.join().unwrap()
    });
    assert!(!ids.is_empty());
    for id in &ids {
        masters.cluster.until("every acknowledged job ends", |cluster| cluster.tasks(id, "finished") == 1);
    }
    masters
        .cluster
        .until("all run still", |cluster| cluster.tasks("sleepers", "running") == TASKS as u64 && cluster.tasks("stays", "running") == 20);
    masters.none_was_started_again();
    let again = masters.cluster.all_tasks("stays").iter().filter(|task| task["attempt"] != 1).count();
    assert_eq!(again, 0, "processes were started again");
}

#[test]
fn one_that_sleeps_and_wakes_finds_that_others_lead() {
    let masters = Masters::three();
    masters.sleepers("60000");
    let hello = sample("hello.wasm");
    let asleep = masters.leader();
    masters.signal(asleep, "-STOP");
    // Its own port takes connections and never answers: the others are asked.
    let awake: Vec<String> =
        masters.seats.iter().filter(|(number, _)| **number != asleep).map(|(_, seat)| format!("https://{}", seat.http)).collect();
    let ask = |urls: &str, args: &[&str]| {
        let output = masters.cluster.command(args).env("SKEP_MASTER", urls).ends();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(ask(&awake.join(","), &["run", hello.to_str().unwrap(), "--", "x"]), "hello, x\n");
    ask(&awake.join(","), &["run", "--detach", "--name", "while-asleep", hello.to_str().unwrap()]);
    masters.signal(asleep, "-CONT");
    // The first that it answers is no older than what was acknowledged meanwhile.
    let own = format!("https://{}", masters.seats[&asleep].http);
    let status: Value = serde_json::from_str(&ask(&own, &["--output", "json", "status", "while-asleep"])).unwrap();
    assert_eq!(status["name"], "while-asleep", "{status}");
    masters.until_led(3);
    assert_eq!(masters.cluster.tasks("sleepers", "running"), TASKS as u64);
    masters.none_was_started_again();
}

#[test]
fn one_that_is_lost_for_good_is_replaced_while_tasks_run() {
    let mut masters = Masters::three();
    masters.sleepers("60000");
    masters.kill(2);
    assert_eq!(masters.join(), 4);
    masters.cluster.text(&["masters", "remove", "2"]);
    masters.seats.remove(&2);
    masters.name_all();
    masters.until_led(3);
    // Two of the three that are there now are enough, and one of them is new.
    masters.kill(1);
    let hello = sample("hello.wasm");
    assert_eq!(masters.cluster.text(&["run", hello.to_str().unwrap(), "--", "world"]), "hello, world\n");
    assert_eq!(masters.cluster.tasks("sleepers", "running"), TASKS as u64);
    masters.none_was_started_again();
}

/// What a master says of what changes.
struct Events {
    answer: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(cluster: &Cluster, http: &str, last: Option<&str>) -> Self {
        protocol::link::install_crypto();
        let root = reqwest::Certificate::from_pem(&std::fs::read(cluster.ca()).unwrap()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([root]).no_proxy().build().unwrap();
        let get = client.get(format!("https://{http}/v1/events")).bearer_auth(&cluster.token);
        let get = last.into_iter().fold(get, |get, last| get.header("last-event-id", last));
        let answer = get.send().await.unwrap();
        assert!(answer.status().is_success());
        Self { answer, text: String::new() }
    }

    /// The next event's id and data.
    async fn next(&mut self) -> (String, Value) {
        tokio::time::timeout(PATIENCE, self.next_whole()).await.expect("an event within a bound")
    }

    async fn next_whole(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let line = |start: &str| event.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned);
                let found = line("id: ").zip(line("data: "));
                self.text = rest.to_owned();
                if let Some((id, data)) = found {
                    return (id, serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let piece = self.answer.chunk().await.unwrap();
            self.text.push_str(std::str::from_utf8(&piece.expect("the events go on")).unwrap());
        }
    }

    /// All until the job of this name has ended and, where that is waited for, until something is missed; and the last id.
    async fn until_ended(&mut self, name: &str, until_missed: bool) -> (Vec<Value>, String) {
        let mut heard = vec![];
        loop {
            let (id, data) = self.next().await;
            heard.push(data);
            let ended = heard.iter().any(|data| data["title"] == name && data["what"] == "ended");
            if ended && (!until_missed || heard.iter().any(|data| data["event"] == "missed")) {
                return (heard, id);
            }
        }
    }
}

#[test]
fn who_reads_events_goes_on_at_any_master_and_is_told_where_something_is_missing() {
    let mut masters = Masters::three();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hello = sample("hello.wasm");
    let run = |masters: &Masters, name: &str| {
        masters.cluster.text(&["run", "--name", name, hello.to_str().unwrap(), "--", "x"]);
    };
    let open = |masters: &Masters, number: u64, last: Option<&str>| {
        runtime.block_on(Events::open(&masters.cluster, &masters.seats[&number].http, last))
    };
    let mut reader = open(&masters, 1, None);
    run(&masters, "one");
    let (_, mut last) = runtime.block_on(reader.until_ended("one", false));
    drop(reader);
    let before = masters.page()["groups"].clone();
    run(&masters, "two");
    // At each of them what came since, once, and nothing of what was heard before.
    for number in [1, 2, 3] {
        let (heard, _) = runtime.block_on(open(&masters, number, Some(&last)).until_ended("two", false));
        let jobs = heard.iter().filter(|data| data["event"] == "job").map(|data| (&data["title"], &data["what"]));
        let said: Vec<_> = jobs.map(|(title, what)| (title.as_str().unwrap(), what.as_str().unwrap())).collect();
        assert_eq!(said, [("two", "submitted"), ("two", "ended")], "at {number}");
        // A shard that is led anew is all that may be said to be missing.
        let terms = |groups: &Value| groups.as_array().unwrap().iter().map(|group| group["term"].clone()).collect::<Vec<_>>();
        if terms(&before) == terms(&masters.page()["groups"]) {
            assert!(heard.iter().all(|data| data["event"] != "missed"), "at {number}: {heard:?}");
        }
    }
    // What a killed master told last is known to nobody.
    masters.kill(1);
    run(&masters, "three");
    (_, last) = runtime.block_on(open(&masters, 2, Some(&last)).until_ended("three", true));
    // One that has just started knows nothing of what was before.
    masters.start(1);
    let (id, first) = runtime.block_on(open(&masters, 1, Some(&last)).next());
    assert_eq!(first["event"], "missed");
    // Whoever has heard that goes on from there.
    run(&masters, "four");
    let (heard, _) = runtime.block_on(open(&masters, 3, Some(&id)).until_ended("four", false));
    assert!(heard.iter().all(|data| data["title"] != "two"), "{heard:?}");
}

#[test]
fn all_killed_at_once_lose_nothing() {
    let mut masters = Masters::three();
    masters.sleepers("40000");
    for number in [1, 2, 3] {
        masters.kill(number);
    }
    for number in [3, 1, 2] {
        masters.start(number);
    }
    masters.until_led(3);
    masters.cluster.until("the agent is back", |cluster| cluster.tasks("sleepers", "running") == TASKS as u64);
    masters.cluster.until("all have ended", |cluster| cluster.tasks("sleepers", "finished") == TASKS as u64);
    masters.none_was_started_again();
}

#[test]
fn a_cluster_that_is_gone_is_made_again_from_a_backup() {
    let mut masters = Masters::three();
    masters.sleepers("90000");
    let hello = sample("hello.wasm");
    let before = masters.cluster.text(&["run", "--detach", "--name", "before", hello.to_str().unwrap(), "--", "x"]);
    masters.cluster.until("it ends", |cluster| cluster.tasks("before", "finished") == 1);
    let file = masters.cluster.folder.join("cluster.backup");
    masters.cluster.text(&["masters", "backup", file.to_str().unwrap()]);
    let after = masters.cluster.text(&["run", "--detach", "--name", "after", hello.to_str().unwrap(), "--", "x"]);
    assert_ne!(before, after);
    for number in [1, 2, 3] {
        masters.kill(number);
    }

    let data = masters.cluster.folder.join("restored");
    let data = data.to_str().unwrap();
    let half = masters.cluster.folder.join("half.backup");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let elsewhere = masters.cluster.folder.join("elsewhere");
    let refused = masters.cluster.run(&["masters", "restore", half.to_str().unwrap(), "--data", elsewhere.to_str().unwrap()]);
    assert!(!refused.status.success(), "half a backup");
    masters.cluster.text(&["masters", "restore", file.to_str().unwrap(), "--data", data]);
    let refused = masters.cluster.run(&["masters", "restore", file.to_str().unwrap(), "--data", data]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not empty"));

    // Where one of the old masters was, agents find it.
    let (http, quic) = (masters.seats[&1].http.clone(), masters.seats[&1].quic.clone());
    let (child, _) = masters.spawn("restored", &http, &quic, &[]);
    masters.seats = BTreeMap::from([(1, Seat { http, quic, child: Some(child) })]);
    masters.name_all();
    masters.cluster.until("the agent is back", |cluster| cluster.tasks("sleepers", "running") == TASKS as u64);
    assert_eq!(masters.cluster.tasks("before", "finished"), 1);
    assert!(!masters.cluster.run(&["status", "after"]).status.success(), "what came after the backup is not there");
    // Its bundles are there, and what runs anew has ids that no agent knows.
    assert_eq!(masters.cluster.text(&["run", hello.to_str().unwrap(), "--", "again"]), "hello, again\n");
    masters.none_was_started_again();
    // It grows again: numbers that were given are not given again.
    let token = masters.cluster.text(&["tokens", "create", "--level", "join-master"]);
    let flags = ["--to", &masters.seats[&1].quic, "--join", token.trim()];
    let (child, ready) = masters.spawn("m4", "127.0.0.1:0", "127.0.0.1:0", &flags);
    assert_eq!(ready["number"], 4);
    masters.seats.insert(4, Seat { http: String::new(), quic: String::new(), child: Some(child) });
    masters.cluster.until("it has caught up", |cluster| {
        let page = cluster.json(&["masters"]);
        let fourth = page["masters"].as_array().unwrap().iter().find(|master| master["number"] == 4).cloned();
        fourth.is_some_and(|fourth| fourth["lag"].as_u64().is_some_and(|lag| lag < 10))
    });
}
