//! Faults, one after another, drawn by a seed: each is done, lasts, and is healed until the masters say that they are whole.

use crate::Flags;
use crate::api::Api;
use crate::cluster::{Cluster, Daemon, MASTERS, REPLACE_AFTER_MS};
use crate::disk::Disk;
use crate::history::{Done, History};
use crate::random::Random;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long the masters may take to be whole once nothing is wrong any more.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);
/// How long a master may take to end in good order.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// All kinds. Some are there more than once: they are done more often.
const KINDS: [Kind; 17] = [
    Kind::KillLeader,
    Kind::KillLeader,
    Kind::KillMaster,
    Kind::PauseMaster,
    Kind::PauseMaster,
    Kind::CutMasters,
    Kind::CutMastersOneWay,
    Kind::Isolate,
    Kind::IsolateOneWay,
    Kind::Unplug,
    Kind::CutAgent,
    Kind::Loss,
    Kind::KillAgent,
    Kind::Roll,
    Kind::PowerCut,
    Kind::DiskFull,
    Kind::SyncError,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    KillLeader,
    KillMaster,
    PauseMaster,
    CutMasters,
    CutMastersOneWay,
    Isolate,
    IsolateOneWay,
    Unplug,
    CutAgent,
    Loss,
    KillAgent,
    Roll,
    PowerCut,
    DiskFull,
    SyncError,
    AllDown,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::KillLeader => "kill-leader",
            Self::KillMaster => "kill-master",
            Self::PauseMaster => "pause-master",
            Self::CutMasters => "cut-masters",
            Self::CutMastersOneWay => "cut-masters-one-way",
            Self::Isolate => "isolate-master",
            Self::IsolateOneWay => "isolate-master-one-way",
            Self::Unplug => "unplug-master",
            Self::CutAgent => "cut-agent",
            Self::Loss => "loss",
            Self::KillAgent => "kill-agent",
            Self::Roll => "roll-masters",
            Self::PowerCut => "power-cut",
            Self::DiskFull => "disk-full",
            Self::SyncError => "sync-error",
            Self::AllDown => "all-masters-down",
        }
    }
}

/// Whoever does faults.
pub struct Nemesis {
    random: Random,
    history: Arc<History>,
    clock: Handle,
    all: Vec<Kind>,
    deck: Vec<Kind>,
}

impl Nemesis {
    /// With the faults that can be done here.
    pub fn new(flags: &Flags, history: Arc<History>, clock: Handle) -> Self {
        let mut all: Vec<Kind> = KINDS.into_iter().chain([Kind::AllDown]).collect();
        let has_strace = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        let missing = [(Kind::SyncError, has_strace, "strace"), (Kind::PowerCut, Disk::has_switch(), "python3")];
        for (kind, is_there, program) in missing {
            if !is_there {
                history.note(format!("left out: {}, which needs {program}", kind.name()));
                all.retain(|other| *other != kind);
            }
        }
        if !flags.only.is_empty() {
            all.retain(|kind| flags.only.iter().any(|name| name == kind.name()));
        }
        assert!(!all.is_empty(), "no such fault can be done here");
        Self { random: Random::new(flags.seed), history, clock, all, deck: Vec::new() }
    }

    /// Does the next one, and waits until all is well again.
    pub fn strike(&mut self, cluster: &mut Cluster) {
        sleep(self.ms(300, 2_000));
        let kind = self.draw();
        let from = self.history.ms();
        let what = self.inflict(kind, cluster);
        let healed = self.history.ms();
        self.history.note(format!("healed  {what}"));
        let begun = Instant::now();
        while !self.clock.block_on(cluster.api().is_whole()) {
            if begun.elapsed() > WHOLE_WITHIN {
                let page = self.clock.block_on(cluster.api().any("/v1/masters")).unwrap_or_default();
                self.history.violated(format!("the masters are not whole {} s after {what}: {page}", WHOLE_WITHIN.as_secs()));
                break;
            }
            for (place, master) in cluster.masters.iter_mut().enumerate() {
                if !master.is_up() {
                    self.history.violated(format!("master {} ended by itself after {what}", place + 1));
                    master.start();
                }
            }
            sleep(Duration::from_millis(100));
        }
        let whole = self.history.ms();
        self.history.records().faults.push(Done { kind: kind.name(), what, from, healed, whole });
    }

    /// Each kind comes once before one comes again.
    fn draw(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.all);
            for at in (1..self.deck.len()).rev() {
                let other = self.random.below(at as u64 + 1) as usize;
                self.deck.swap(at, other);
            }
        }
        self.deck.pop().expect("it was filled above")
    }

    fn ms(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.random.between(low, high))
    }

    fn place(&mut self, count: usize) -> usize {
        self.random.below(count as u64) as usize
    }

    fn leader(&self, cluster: &Cluster) -> usize {
        let page = self.clock.block_on(cluster.api().any("/v1/masters")).unwrap_or_default();
        page["groups"][0]["leader"].as_u64().map_or(0, |leader| leader as usize - 1)
    }

    /// Mostly the master that leads shard 0.
    fn victim(&mut self, cluster: &Cluster) -> usize {
        let other = self.place(MASTERS);
        if self.random.chance(600) { self.leader(cluster) } else { other }
    }

    fn say(&self, what: String) -> String {
        self.history.note(format!("fault   {what}"));
        what
    }

    fn inflict(&mut self, kind: Kind, cluster: &mut Cluster) -> String {
        match kind {
            Kind::KillLeader => self.kill(self.leader(cluster), cluster),
            Kind::KillMaster => {
                let place = self.place(MASTERS);
                self.kill(place, cluster)
            }
            Kind::PauseMaster => self.pause(cluster),
            Kind::CutMasters | Kind::CutMastersOneWay => self.cut(kind == Kind::CutMasters, cluster),
            Kind::Isolate | Kind::IsolateOneWay | Kind::Unplug => self.isolate(kind, cluster),
            Kind::CutAgent => self.cut_agent(cluster),
            Kind::Loss => self.lose(cluster),
            Kind::KillAgent => self.kill_agent(cluster),
            Kind::Roll => self.roll(cluster),
            Kind::PowerCut => self.cut_power(cluster),
            Kind::DiskFull => self.fill(cluster),
            Kind::SyncError => self.fail_sync(cluster),
            Kind::AllDown => self.all_down(cluster),
        }
    }

    fn kill(&mut self, place: usize, cluster: &mut Cluster) -> String {
        let (lasts, master) = (self.ms(0, 3_500), &mut cluster.masters[place]);
        let what = self.say(format!("kill -9 of master {} for {} ms", place + 1, lasts.as_millis()));
        master.kill();
        sleep(lasts);
        master.start();
        what
    }

    fn pause(&mut self, cluster: &Cluster) -> String {
        let (place, lasts) = (self.victim(cluster), self.ms(300, 5_000));
        let what = self.say(format!("SIGSTOP of master {} for {} ms", place + 1, lasts.as_millis()));
        cluster.masters[place].signal("-STOP");
        sleep(lasts);
        cluster.masters[place].signal("-CONT");
        what
    }

    fn cut(&mut self, both: bool, cluster: &Cluster) -> String {
        let (one, lasts) = (self.victim(cluster), self.ms(1_000, 6_000));
        let other = (one + 1 + self.place(MASTERS - 1)) % MASTERS;
        let way = if both { "between" } else { "one way: first deaf to second:" };
        let what = self.say(format!("cut {way} masters {} and {} for {} ms", one + 1, other + 1, lasts.as_millis()));
        let (one, other) = (&cluster.masters[one].host, &cluster.masters[other].host);
        one.deaf_to(other);
        if both {
            other.deaf_to(one);
        }
        sleep(lasts);
        one.heal();
        other.heal();
        what
    }

    /// Shorter than agents may be silent: their shards are led by others meanwhile.
    fn isolate(&mut self, kind: Kind, cluster: &Cluster) -> String {
        let (place, lasts, mute) = (self.victim(cluster), self.ms(1_000, 6_000), self.random.chance(500));
        let way = match (kind, mute) {
            (Kind::Unplug, _) => "unplugged",
            (Kind::Isolate, _) => "cut off from everybody",
            (_, true) => "mute",
            (_, false) => "deaf",
        };
        let what = self.say(format!("master {} {way} for {} ms", place + 1, lasts.as_millis()));
        let host = &cluster.masters[place].host;
        match way {
            "unplugged" => host.unplug(),
            "mute" => host.mute(),
            "deaf" => host.deaf(),
            _ => {
                host.deaf();
                host.mute();
            }
        }
        sleep(lasts);
        host.heal();
        what
    }

    /// How long an agent is silent: mostly for less than it may be, now and then for more.
    fn silence(&mut self) -> Duration {
        if self.random.chance(250) { self.ms(REPLACE_AFTER_MS + 2_000, REPLACE_AFTER_MS + 5_000) } else { self.ms(500, 4_000) }
    }

    fn silent(&self, agent: &Daemon, from: u64) {
        // It is heard again only once it has found its way back.
        let to = self.history.ms() + 500;
        self.history.records().silences.push((agent.host.name.clone(), from, to));
    }

    fn cut_agent(&mut self, cluster: &Cluster) -> String {
        let (agent, lasts, from) = (&cluster.agents[self.place(cluster.agents.len())], self.silence(), self.history.ms());
        let from_whom = if self.random.chance(500) { Some(self.place(MASTERS)) } else { None };
        let ways = self.random.below(3);
        let whom = from_whom.map_or("all masters".to_owned(), |place| format!("master {}", place + 1));
        let way = ["both ways", "deaf", "mute"][ways as usize];
        let what = self.say(format!("agent {} cut off from {whom}, {way}, for {} ms", agent.host.name, lasts.as_millis()));
        let masters: Vec<&Daemon> =
            cluster.masters.iter().enumerate().filter(|(at, _)| from_whom.is_none_or(|only| only == *at)).map(|(_, it)| it).collect();
        for master in &masters {
            if ways != 2 {
                agent.host.deaf_to(&master.host);
            }
            if ways != 1 {
                master.host.deaf_to(&agent.host);
            }
        }
        self.history.records().silences.push((agent.host.name.clone(), from, u64::MAX));
        sleep(lasts);
        agent.host.heal();
        masters.iter().for_each(|master| master.host.heal());
        self.history.records().silences.pop();
        self.silent(agent, from);
        what
    }

    fn lose(&mut self, cluster: &Cluster) -> String {
        let (percent, lasts) = (self.random.between(5, 30), self.ms(2_000, 7_000));
        let victims: Vec<&Daemon> = cluster.masters.iter().chain(&cluster.agents).filter(|_| self.random.chance(500)).collect();
        let names: Vec<&str> = victims.iter().map(|daemon| daemon.host.name.as_str()).collect();
        let what = self.say(format!("{percent} % of packets to {} lost for {} ms", names.join(", "), lasts.as_millis()));
        victims.iter().for_each(|daemon| daemon.host.lossy(percent));
        sleep(lasts);
        victims.iter().for_each(|daemon| daemon.host.heal());
        what
    }

    fn kill_agent(&mut self, cluster: &mut Cluster) -> String {
        let place = self.place(cluster.agents.len());
        let (lasts, from, agent) = (self.silence(), self.history.ms(), &mut cluster.agents[place]);
        let what = self.say(format!("kill -9 of agent {} for {} ms", agent.host.name, lasts.as_millis()));
        agent.kill();
        self.history.records().silences.push((agent.host.name.clone(), from, u64::MAX));
        sleep(lasts);
        agent.start();
        self.history.records().silences.pop();
        self.silent(&cluster.agents[place], from);
        what
    }

    fn roll(&mut self, cluster: &mut Cluster) -> String {
        let what = self.say("all masters restarted in turn by SIGTERM".into());
        for place in 0..MASTERS {
            if !cluster.masters[place].stop(STOP_WITHIN) {
                self.history.violated(format!("master {} did not end well within {} s of SIGTERM", place + 1, STOP_WITHIN.as_secs()));
            }
            cluster.masters[place].start();
            let begun = Instant::now();
            while !self.clock.block_on(cluster.api().is_whole()) && begun.elapsed() < WHOLE_WITHIN {
                sleep(Duration::from_millis(50));
            }
        }
        what
    }

    fn cut_power(&mut self, cluster: &mut Cluster) -> String {
        let (place, lasts) = (self.victim(cluster), self.ms(0, 2_000));
        let what = self.say(format!("power of master {} cut for {} ms", place + 1, lasts.as_millis()));
        let master = &mut cluster.masters[place];
        if let Some(disk) = &master.disk {
            disk.cut_power();
        }
        // What it acknowledges between the cut and its end must hold too.
        sleep(Duration::from_millis(self.random.between(0, 300)));
        master.kill();
        sleep(lasts);
        if let Some(disk) = &master.disk {
            disk.restore();
        }
        master.start();
        what
    }

    fn fill(&mut self, cluster: &mut Cluster) -> String {
        let (place, lasts) = (self.victim(cluster), self.ms(2_000, 6_000));
        let what = self.say(format!("disk of master {} full for {} ms", place + 1, lasts.as_millis()));
        let master = &mut cluster.masters[place];
        if let Some(disk) = &master.disk {
            disk.fill();
            sleep(lasts);
            disk.free();
        }
        master.kill();
        master.start();
        what
    }

    fn fail_sync(&mut self, cluster: &mut Cluster) -> String {
        let (place, lasts) = (self.victim(cluster), self.ms(1_500, 4_000));
        let what = self.say(format!("fsync of master {} fails for {} ms", place + 1, lasts.as_millis()));
        let master = &mut cluster.masters[place];
        let id = master.id().to_string();
        let calls = "fsync,fdatasync";
        let args = ["-f", "-p", &id, "-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error=EIO"), "-o", "/dev/null"];
        let mut tracer = Command::new("strace").args(args).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(lasts);
        let status = self.clock.block_on(cluster.api().get(place, "/v1/masters"));
        self.history.note(format!("        master {} says {}", place + 1, short(&status.done())));
        let _ = tracer.kill();
        tracer.wait().unwrap();
        let master = &mut cluster.masters[place];
        master.kill();
        master.start();
        what
    }

    fn all_down(&mut self, cluster: &mut Cluster) -> String {
        let what = self.say("all masters down for 5 s".into());
        // One that has had no task for a while ends by itself.
        let holding = self.clock.block_on(holding(&cluster.api())).unwrap_or_default();
        let before = cluster.executors(&holding);
        cluster.masters.iter_mut().for_each(Daemon::kill);
        sleep(Duration::from_secs(5));
        let after = cluster.executors(&holding);
        if !before.iter().all(|executor| after.contains(executor)) {
            self.history.violated(format!("while all masters were down, executors ended: {before:?}, then {after:?}"));
        }
        cluster.masters.iter_mut().for_each(Daemon::start);
        what
    }
}

/// The names of agents that hold long tasks; nothing where no master says so.
async fn holding(api: &Api) -> Option<BTreeSet<String>> {
    let mut holding = BTreeSet::new();
    let agents = api.any("/v1/agents").await?;
    for kind in ["service", "batch"] {
        let page = api.any(&format!("/v1/jobs/sleepers-{kind}/tasks?limit=1000")).await?;
        for task in page["tasks"].as_array()?.iter().filter(|task| task["phase"] == "running") {
            let name = agents["agents"].as_array()?.iter().find(|agent| agent["id"] == task["agent"])?["name"].as_str()?;
            holding.insert(name.to_owned());
        }
    }
    Some(holding)
}

fn short(value: &Option<Value>) -> String {
    value.as_ref().map_or("nothing".into(), |value| value["groups"].to_string().chars().take(100).collect())
}
