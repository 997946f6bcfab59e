//! Three masters with a disk and a host each, and agents on hosts of theirs: started, killed, stopped, and looked at from outside.

use crate::api::Api;
use crate::disk::Disk;
use crate::network::{self, Host};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The binary under test.
const SKEP: &str = env!("CARGO_BIN_EXE_skep");
/// How many masters.
pub const MASTERS: usize = 3;
/// Silence after which an agent's tasks are replaced, in milliseconds.
pub const REPLACE_AFTER_MS: u64 = 8_000;
/// What an agent promises: long tasks are on two of them at least, and one of three can be missed.
const RESOURCES: &str = "cpu=3,memory=64GiB,disk=1GiB,ports=20000-20099";
/// How long the cluster may take until it stands.
const BEGIN_WITHIN: Duration = Duration::from_secs(90);

/// A daemon: a master, or an agent.
#[derive(Debug)]
pub struct Daemon {
    /// Where it runs.
    pub host: Host,
    /// Its disk, where it has one of its own.
    pub disk: Option<Disk>,
    program: &'static str,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// The cluster.
pub struct Cluster {
    /// The masters, by number less one.
    pub masters: Vec<Daemon>,
    /// The agents.
    pub agents: Vec<Daemon>,
    folder: PathBuf,
    api: Api,
}

impl Daemon {
    fn command(&self) -> Command {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.host.command(self.program);
        let words = "warn,master=info,agent=info,openraft=off";
        command.args(&self.args).env("SKEP_LOG", words).env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts it, again where it was before.
    pub fn start(&mut self) {
        self.child = Some(self.command().spawn().unwrap());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        let _ = child.kill();
        child.wait().unwrap();
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, signal: &str) {
        network::must("kill", &[signal, &self.id().to_string()]);
    }

    /// Ends it as an operator does; by force where it does not end in time, and then false.
    pub fn stop(&mut self, within: Duration) -> bool {
        self.signal("-TERM");
        let until = Instant::now() + within;
        while self.is_up() {
            if Instant::now() > until {
                self.kill();
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let code = self.child.take().unwrap().wait().unwrap();
        code.success()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// True while its process lives.
    pub fn is_up(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }
}

impl Cluster {
    /// Starts all of it in `folder`.
    pub fn start(folder: &Path, agents: usize, runtime: &Runtime) -> Self {
        std::fs::create_dir(folder).unwrap();
        network::begin();
        let masters: Vec<Daemon> = (1..=MASTERS).map(|number| master(folder, number)).collect();
        let urls = masters.iter().map(|master| format!("https://{}:7070", master.host.address)).collect();
        let mut cluster = Self { masters, agents: Vec::new(), folder: folder.to_owned(), api: Api::unknown(urls) };
        let ready = cluster.begin(0, &[]);
        cluster.api.admit(ready["token"].as_str().unwrap(), ready["ca_pem"].as_str().unwrap());
        for place in 1..MASTERS {
            let token = cluster.token("join-master", runtime);
            let to = quic(&cluster.masters[..place]);
            cluster.begin(place, &["--to", &to, "--join", &token]);
        }
        let until = Instant::now() + BEGIN_WITHIN;
        while !runtime.block_on(cluster.api.is_whole()) {
            assert!(Instant::now() < until, "the masters do not come together");
            std::thread::sleep(Duration::from_millis(50));
        }
        for number in 1..=agents {
            let token = cluster.token("join", runtime);
            let mut agent = agent(folder, number, &quic(&cluster.masters));
            agent.child = Some(agent.command().env("SKEP_JOIN", token).spawn().unwrap());
            cluster.agents.push(agent);
        }
        while runtime.block_on(cluster.api.reachable()) != Some(agents) {
            assert!(Instant::now() < until, "the agents do not come");
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    /// The first start of a master: what it says.
    fn begin(&mut self, place: usize, flags: &[&str]) -> Value {
        let daemon = &mut self.masters[place];
        let mut child = daemon.command().args(flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        daemon.child = Some(child);
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("master {} said {line:?}: see {}", place + 1, daemon.log.display()))
    }

    fn token(&self, level: &str, runtime: &Runtime) -> String {
        let until = Instant::now() + BEGIN_WITHIN;
        loop {
            let made = runtime.block_on(self.api.call(0, Method::POST, "/v1/tokens", Some(json!({ "level": level })), None));
            if let Some(token) = made.done().and_then(|made| made["token"].as_str().map(str::to_owned)) {
                return token;
            }
            assert!(Instant::now() < until, "no token is made");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The way in for clients.
    pub fn api(&self) -> Api {
        self.api.clone()
    }

    /// The executors on these agents, each with the time of its start.
    pub fn executors(&self, agents: &BTreeSet<String>) -> BTreeSet<(u32, String)> {
        let ids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let ours = |id: u32| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
            let words: Vec<_> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            let holds = words.get(1)? == "executor"
                && words.len() > 2
                && agents.iter().any(|name| Path::new(&words[2]).starts_with(self.folder.join(name)));
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // proc_pid_stat(5): the start is the 22nd field, the 20th after the name, which ends with the last bracket.
            let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
            holds.then_some((id, start))
        };
        ids.filter_map(ours).collect()
    }

    /// Ends all of it.
    pub fn end(&mut self) {
        for daemon in self.agents.iter_mut().chain(&mut self.masters).filter(|daemon| daemon.child.is_some()) {
            daemon.kill();
        }
        self.masters.iter().filter_map(|master| master.disk.as_ref()).for_each(Disk::end);
    }
}

fn quic(masters: &[Daemon]) -> String {
    let all: Vec<String> = masters.iter().map(|master| format!("{}:7071", master.host.address)).collect();
    all.join(",")
}

fn master(folder: &Path, number: usize) -> Daemon {
    let name = format!("m{number}");
    let at = folder.join(&name);
    let disk = Disk::make(&folder.join(format!("{name}.disk")), &at);
    std::fs::create_dir_all(&at).unwrap();
    let host = Host::make(&name, u8::try_from(number).unwrap());
    let (http, quic) = (format!("{}:7070", host.address), format!("{}:7071", host.address));
    let replace = REPLACE_AFTER_MS.to_string();
    let data = at.join("data").to_string_lossy().into_owned();
    let args = ["--output", "json", "master", "--replace-after-ms", &replace, "--http", &http, "--quic", &quic, "--data", &data];
    let args = args.iter().map(ToString::to_string).collect();
    Daemon { host, disk, program: SKEP, args, log: folder.join(format!("{name}.log")), child: None }
}

fn agent(folder: &Path, number: usize, to: &str) -> Daemon {
    let name = format!("a{number}");
    let host = Host::make(&name, u8::try_from(100 + number).unwrap());
    let data = folder.join(&name).to_string_lossy().into_owned();
    // Its processes have mounts of their own, in which a disk of a master would live on after its power was cut.
    let disks: Vec<String> = (1..=MASTERS).map(|number| folder.join(format!("m{number}")).to_string_lossy().into_owned()).collect();
    let script = format!("umount {} 2>/dev/null; exec \"$0\" \"$@\"", disks.join(" "));
    let args =
        ["--mount", "--", "sh", "-c", &script, SKEP, "agent", "--to", to, "--name", &name, "--resources", RESOURCES, "--data", &data];
    let args = args.iter().map(ToString::to_string).collect();
    Daemon { host, disk: None, program: "unshare", args, log: folder.join(format!("{name}.log")), child: None }
}
