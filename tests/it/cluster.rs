//! Real processes for the tests: masters, agents and commands of the binary under test, each cluster in a folder of its own.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take until a test gives up: far longer than it takes, since machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The same for the end of a command, which may wait for the end of what it started.
const COMMAND_PATIENCE: Duration = Duration::from_secs(360);

/// The built sample `name`; its absence fails the test.
pub fn sample(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/dist").join(name);
    assert!(path.exists(), "{} is missing: run samples/build", path.display());
    path
}

/// A new empty folder.
pub fn folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("skep-it-{}-{number}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    folder
}

pub fn skep() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skep"));
    command.stdin(Stdio::null());
    command
}

/// Commands of which a test waits for the end.
pub trait Ends {
    /// Runs it to its end, as `output` does; where that does not come, the test fails with what it said until then.
    fn ends(&mut self) -> Output;
}

impl Ends for Command {
    fn ends(&mut self) -> Output {
        let child = self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{self:?}: {error}"));
        ended(child, &format!("{self:?}"))
    }
}

/// What a process said until its end, which has to come.
pub fn ended(child: Child, what: &str) -> Output {
    let id = child.id().to_string();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    receiver.recv_timeout(COMMAND_PATIENCE).unwrap_or_else(|_| {
        let _ = Command::new("kill").args(["-9", &id]).status();
        let said = receiver.recv_timeout(PATIENCE).ok();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = said.map(|output| text(&[output.stdout, output.stderr].concat()));
        panic!("{what}: not ended after {} s; it said {said:?}", COMMAND_PATIENCE.as_secs())
    })
}

/// What a command printed, standard error last, and its exit code.
pub fn said(cluster: &Cluster, args: &[&str]) -> (String, Option<i32>) {
    let output = cluster.run(args);
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.code())
}

/// A master and agents in processes of their own.
pub struct Cluster {
    pub folder: PathBuf,
    pub url: String,
    pub token: String,
    pub quic: String,
    /// Where Mesos' API is, where it is.
    pub mesos: String,
    /// Where names are, where they are.
    pub dns: String,
    /// Where Marathon's API is, where it is.
    pub marathon: String,
    master_flags: Vec<String>,
    /// What masters find in their environment.
    pub master_environment: Vec<(String, String)>,
    pub master: Option<Child>,
    agents: Vec<(String, String, Option<Child>)>,
    /// What agents are started with beside the usual, by name.
    agent_flags: BTreeMap<String, Vec<String>>,
}

impl Cluster {
    /// A master with these flags, and no agent.
    pub fn master(flags: &[&str]) -> Self {
        Self::master_in(flags, &[])
    }

    /// The same, in an environment with these variables.
    pub fn master_in(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut cluster = Self {
            folder: folder(),
            url: String::new(),
            token: String::new(),
            quic: "127.0.0.1:0".into(),
            mesos: String::new(),
            dns: String::new(),
            marathon: String::new(),
            master_flags: flags.iter().map(ToString::to_string).collect(),
            master_environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            master: None,
            agents: vec![],
            agent_flags: BTreeMap::new(),
        };
        cluster.start_master();
        cluster
    }

    /// A master and one agent that promises `resources`.
    pub fn of_one(resources: &str) -> Self {
        let mut cluster = Self::master(&[]);
        cluster.add_agent("a1", resources);
        cluster
    }

    /// Starts the master, again where it was before.
    pub fn start_master(&mut self) {
        let http = self.url.strip_prefix("https://").unwrap_or("127.0.0.1:0");
        let mut command = skep();
        command.args(["--output", "json", "master", "--http", http, "--quic", &self.quic, "--data"]).arg(self.folder.join("master"));
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("master.log")).unwrap();
        let mut child = command
            .args(&self.master_flags)
            .envs(self.master_environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(self.folder.join("master.log")).unwrap_or_default();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the master said {line:?}\n{}", log()));
        let text = |name: &str| ready[name].as_str().unwrap().to_owned();
        (self.url, self.token, self.quic) = (text("url"), text("token"), text("quic"));
        self.mesos = ready["mesos"].as_str().unwrap_or("").to_owned();
        self.dns = ready["dns"].as_str().unwrap_or("").to_owned();
        self.marathon = ready["marathon"].as_str().unwrap_or("").to_owned();
        std::fs::write(self.ca(), text("ca_pem")).unwrap();
        self.master = Some(child);
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.join("root.pem")
    }

    /// Process id of its master.
    pub fn master_id(&self) -> u32 {
        self.master.as_ref().unwrap().id()
    }

    /// `kill -9`.
    pub fn kill_master(&mut self) {
        let mut child = self.master.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// An agent with these flags joins.
    pub fn add_agent_with(&mut self, name: &str, resources: &str, flags: &[&str]) {
        self.agent_flags.insert(name.to_owned(), flags.iter().map(ToString::to_string).collect());
        self.add_agent(name, resources);
    }

    /// Agents join at once: the name, what it promises and the flags of each.
    pub fn add_agents(&mut self, all: &[(String, &str, Vec<String>)]) {
        for (name, resources, flags) in all {
            let token = self.text(&["tokens", "create", "--level", "join"]);
            self.agent_flags.insert(name.clone(), flags.clone());
            self.agents.push((name.clone(), (*resources).to_owned(), None));
            self.start_agent_with(name, Some(token.trim()));
        }
        let names: Vec<&String> = all.iter().map(|(name, ..)| name).collect();
        self.until("all agents register", |cluster| {
            let reachable = cluster.reachable();
            names.iter().all(|name| reachable.contains(name))
        });
    }

    /// An agent joins.
    pub fn add_agent(&mut self, name: &str, resources: &str) {
        self.agents.push((name.to_owned(), resources.to_owned(), None));
        let token = self.text(&["tokens", "create", "--level", "join"]);
        self.start_agent_with(name, Some(token.trim()));
        self.until("the agent registers", |cluster| cluster.reachable().contains(&name.to_owned()));
    }

    /// Starts an agent that joined before.
    pub fn start_agent(&mut self, name: &str) {
        self.start_agent_with(name, None);
    }

    fn start_agent_with(&mut self, name: &str, join: Option<&str>) {
        let (data, quic) = (self.folder.join(name), self.quic.clone());
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join(format!("{name}.log"))).unwrap();
        let slot = self.agents.iter_mut().find(|(known, ..)| known == name).unwrap();
        let mut command = skep();
        command.args(["agent", "--to", &quic, "--name", name, "--resources", &slot.1, "--data"]).arg(data);
        command.args(self.agent_flags.get(name).into_iter().flatten());
        if let Some(join) = join {
            command.env("SKEP_JOIN", join);
        }
        slot.2 = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap());
    }

    /// `kill -9`; its executors live on.
    pub fn kill_agent(&mut self, name: &str) {
        let slot = self.agents.iter_mut().find(|(known, ..)| known == name).unwrap();
        let mut child = slot.2.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Process id of an agent.
    pub fn agent_id(&self, name: &str) -> u32 {
        self.agents.iter().find(|(known, ..)| known == name).and_then(|slot| slot.2.as_ref()).unwrap().id()
    }

    /// Has an agent end, as an operator does; its executors live on.
    pub fn stop_agent(&mut self, name: &str) {
        let id = self.agent_id(name).to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.agent_ended(name).success());
    }

    /// Waits until an agent's process has ended by itself.
    pub fn agent_ended(&mut self, name: &str) -> std::process::ExitStatus {
        let slot = self.agents.iter_mut().find(|(known, ..)| known == name).unwrap();
        let mut child = slot.2.take().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{name} has not ended by itself");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.wait().unwrap()
    }

    pub fn reachable(&self) -> Vec<String> {
        let answer = self.json(&["agents"]);
        let rows = answer["agents"].as_array().cloned().unwrap_or_default();
        rows.iter().filter(|row| row["state"] == "reachable").map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    }

    /// A command that knows this cluster.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = skep();
        command.env("SKEP_MASTER", &self.url).env("SKEP_TOKEN", &self.token).env("SKEP_CA", self.ca());
        command.args(args);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).ends()
    }

    /// Its standard output; it must end with 0.
    pub fn text(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "skep {args:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the API answered; the command must end with 0.
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = ["--output", "json"].iter().chain(args).copied().collect();
        serde_json::from_str(&self.text(&args)).unwrap()
    }

    /// How many tasks of a job are in a state.
    pub fn tasks(&self, job: &str, phase: &str) -> u64 {
        self.json(&["status", job])["tasks"][phase].as_u64().unwrap_or(0)
    }

    /// Waits until it is so.
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            if start.elapsed() > PATIENCE {
                let log = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
                panic!("{what}: not after {} s\nmaster: {}\nagent: {}", PATIENCE.as_secs(), log("master.log"), log("a1.log"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Process ids of its executors.
    pub fn executors(&self) -> Vec<u32> {
        self.processes(|verb, name| verb == "executor" || name == "skep-executor")
    }

    /// Process ids of its agents' templates, two for each: one waits, and the other one, which was forked from it, works.
    pub fn templates(&self) -> Vec<u32> {
        self.processes(|verb, name| verb == "template" && name != "skep-executor")
    }

    /// Those that agents started, by their verb and the kernel's name for them.
    fn processes(&self, which: impl Fn(&str, &str) -> bool) -> Vec<u32> {
        let ids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let ours = |id: &u32| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            words.get(1).is_some_and(|verb| ["executor", "template"].contains(&&**verb) && which(verb, name.trim()))
                && words.get(2).is_some_and(|dir| Path::new(dir).starts_with(&self.folder))
        };
        let mut found: Vec<u32> = ids.filter(ours).collect();
        found.sort_unstable();
        found
    }

    /// All tasks of a job, whatever their number.
    pub fn all_tasks(&self, job: &str) -> Vec<Value> {
        let answer = self.json(&["ps", job]);
        answer["tasks"].as_array().unwrap().clone()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.agents.iter_mut().filter_map(|slot| slot.2.as_mut()).chain(self.master.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        for id in self.processes(|_, _| true) {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        }
        for (name, ..) in &self.agents {
            let _ = runtime::executor::process::sweep(&self.folder.join(name));
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
