//! A cluster with an honest agent and honest tasks, on which something is tried: after each try the tasks still run, each in its first
//! attempt, a new one runs to its end, and the master is the same process, not much larger.

use crate::cluster::{Cluster, sample};
use protocol::JobId;
use std::fs;
use std::time::Instant;

/// How many honest tasks there are.
pub const HONEST: u64 = 3;
/// By how much a master may grow, whatever is tried (G17).
const GROWTH_BYTES_MAX: u64 = 32 << 20;

pub struct Scene {
    pub cluster: Cluster,
    pub honest: JobId,
    runtime: tokio::runtime::Runtime,
    before_bytes: u64,
}

impl Scene {
    pub fn new() -> Self {
        let mut cluster = Cluster::master(&["--bundle-mib", "64"]);
        cluster.add_agent("a1", "cpu=64,memory=64GiB,disk=1GiB,ports=20000-20099");
        let file = cluster.folder.join("honest.toml");
        let text = format!(
            "name = \"honest\"\nkind = \"service\"\ncount = {HONEST}\n[task]\nwasm = {:?}\nargs = [\"600000\"]\n[resources]\ncpu = 0.01\nmemory = \"1MiB\"\n",
            sample("sleep.wasm")
        );
        fs::write(&file, text).unwrap();
        cluster.text(&["apply", file.to_str().unwrap()]);
        let honest = cluster.json(&["status", "honest"])["id"].as_str().unwrap().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut scene = Self { cluster, honest, runtime, before_bytes: 0 };
        scene.check("nothing was tried yet");
        scene.before_bytes = memory_bytes(scene.cluster.master_id());
        scene
    }

    /// Has something tried, and looks whether all is well.
    pub fn attempt(&self, what: &str, tried: impl Future<Output = ()>) {
        let start = Instant::now();
        self.runtime.block_on(tried);
        let took = start.elapsed();
        self.check(what);
        println!("{what}: {took:.1?}, the master has {} KiB more", self.growth_bytes() >> 10);
    }

    pub fn check(&self, what: &str) {
        let hello = self.cluster.run(&["run", sample("hello.wasm").to_str().unwrap(), "--", "world"]);
        let (said, errors) = (String::from_utf8_lossy(&hello.stdout), String::from_utf8_lossy(&hello.stderr));
        assert_eq!((hello.status.code(), said.trim_end()), (Some(0), "hello, world"), "{what}: {errors}");
        let tasks = self.cluster.all_tasks("honest");
        let undisturbed = tasks.iter().filter(|task| task["phase"] == "running" && task["attempt"] == 1).count() as u64;
        assert_eq!((undisturbed, tasks.len() as u64), (HONEST, HONEST), "{what}: {tasks:?}");
    }

    fn growth_bytes(&self) -> u64 {
        memory_bytes(self.cluster.master_id()).saturating_sub(self.before_bytes)
    }

    /// The end of all tries: the master is still the process that it was, and not much larger.
    pub fn end(&self) {
        self.end_within(GROWTH_BYTES_MAX);
    }

    /// As [`Scene::end`], with another bound.
    pub fn end_within(&self, growth_bytes_max: u64) {
        let growth = self.growth_bytes();
        assert!(growth < growth_bytes_max, "the master has {} KiB more than before", growth >> 10);
        let log = fs::read_to_string(self.cluster.folder.join("master.log")).unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// What of a process is in memory; fails where it does not live.
pub fn memory_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is no zombie");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
