//! Native and container tasks against what does the same without a cluster, in the same run: a bare spawn loop, and `crun run` of the same files,
//! each on two threads. And what their executors hold, and how fast a new agent owns them.

use super::cluster::{Cluster, executors};
use super::figure::{Figures, What, quantile};
use super::{RESOURCES, SHARE_CPU, upload_bytes};
use crate::busybox::busybox;
use crate::submit::{Answer, Submission, line};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What peers are measured with: as many threads, each with so many processes.
const THREADS: u32 = 2;
const PEER_EACH: u32 = 300;
/// Tasks that are run before the clock counts.
const WARM: u32 = 20;
/// How many where nobody says.
pub const COUNT: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(300);
const SCRIPT: &[u8] = b"#!/bin/sh\nexec \"$@\"\n";

/// A kind of task that is a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program of the host's in a jail.
    Native,
    /// A program of an image in the same jail.
    Container,
}

impl Kind {
    /// By its name.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        match name {
            "native" => Ok(Self::Native),
            "container" => Ok(Self::Container),
            other => bail!("--kind {other}: expected wasm, native or container"),
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Container => "container",
        }
    }

    async fn upload(self, cluster: &Cluster) -> anyhow::Result<String> {
        match self {
            Self::Native => upload_bytes(&cluster.client, SCRIPT.to_vec()).await,
            Self::Container => upload_bytes(&cluster.client, busybox().map_err(anyhow::Error::msg)?).await,
        }
    }

    fn job(self, bundle: &str, command: &[&str], count: u32) -> Value {
        let mut job = json!({
            "kind": "batch", "count": count, "task": { "command": command },
            "resources": { "cpu": SHARE_CPU, "memory": "4MiB" },
        });
        job["task"][if self == Self::Native { "native" } else { "image" }] = json!(bundle);
        job
    }

    const fn noop(self) -> &'static [&'static str] {
        match self {
            Self::Native => &["/bin/true"],
            Self::Container => &["/bin/busybox", "true"],
        }
    }
}

async fn ended(submission: &mut Submission) -> anyhow::Result<Value> {
    loop {
        if let Answer::Ended { job, .. } = submission.next().await? {
            return Ok(job);
        }
    }
}

/// `count` no-op tasks as one job, from its submission until the client knows that all ended; and the peer in the same run.
pub async fn whole(figures: &mut Figures, run: u32, count: u32, kind: Kind) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    let bundle = kind.upload(&cluster).await?;
    let mut submission = Submission::open(&cluster.client).await?;
    submission.send(line("warm", &kind.job(&bundle, kind.noop(), WARM), true)).await?;
    ended(&mut submission).await?;
    let start = Instant::now();
    submission.send(line("all", &kind.job(&bundle, kind.noop(), count), true)).await?;
    let end = ended(&mut submission).await?;
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    if end["tasks"]["finished"] != count {
        bail!("{count} no-op tasks were to finish: {end}");
    }
    let what = What { bench: "tasks", kind: kind.text(), n: u64::from(count), run };
    figures.add(&what, "throughput", rate, "tasks/s");
    drop(cluster);
    match peer(kind)? {
        Some((name, peer_rate, _)) => {
            figures.add(&What { kind: name, n: u64::from(THREADS * PEER_EACH), ..what }, "throughput", peer_rate, "tasks/s");
            figures.add(&What { n: u64::from(count), ..what }, "ratio", rate / peer_rate, "");
        }
        None => eprintln!("skep bench: no peer: crun is not installed, or does not run here"),
    }
    Ok(())
}

/// One task at a time over one connection, from the line that submits it to the line that says it ended.
pub async fn latency(figures: &mut Figures, run: u32, count: u32, kind: Kind) -> anyhow::Result<()> {
    let cluster = Cluster::start(RESOURCES).await?;
    let job = kind.job(&kind.upload(&cluster).await?, kind.noop(), 1);
    let mut submission = Submission::open(&cluster.client).await?;
    let mut times = vec![];
    for index in 0..WARM + count {
        let start = Instant::now();
        submission.send(line(&format!("latency-{index}"), &job, true)).await?;
        let end = ended(&mut submission).await?;
        if end["tasks"]["finished"] != 1 {
            bail!("a no-op task did not finish: {end}");
        }
        if index >= WARM {
            times.push(start.elapsed().as_nanos() as f64 / 1_000.0);
        }
    }
    times.sort_by(f64::total_cmp);
    let what = What { bench: "latency", kind: kind.text(), n: u64::from(count), run };
    figures.add(&what, "latency_p50", quantile(&times, 0.5), "us");
    figures.add(&what, "latency_p99", quantile(&times, 0.99), "us");
    drop(cluster);
    if let Some((name, _, p50)) = peer(kind)? {
        figures.add(&What { kind: name, n: u64::from(THREADS * PEER_EACH), ..what }, "latency_p50", p50, "us");
    }
    Ok(())
}

/// `count` running native tasks: what each executor holds, and how long a new agent takes to own all of them after its predecessor was killed.
pub async fn recover(figures: &mut Figures, run: u32, count: u32) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(RESOURCES).await?;
    let kind = Kind::Native;
    let bundle = kind.upload(&cluster).await?;
    let mut submission = Submission::open(&cluster.client).await?;
    submission.send(line("recover", &kind.job(&bundle, &["/bin/sleep", "600"], count), false)).await?;
    let Answer::Submitted { job: id } = submission.next().await? else { bail!("a sleeping job has ended") };
    running(&cluster, &id, count).await?;
    let held: Vec<u64> = executors(&cluster.place).into_iter().filter_map(|id| proportional_bytes(id).ok()).collect();
    if held.len() < count as usize {
        bail!("{} executors were found of {count} tasks", held.len());
    }
    let what = What { bench: "recover", kind: kind.text(), n: u64::from(count), run };
    figures.add(&what, "executor_pss", held.iter().sum::<u64>() as f64 / held.len() as f64 / 1_024.0, "KiB");
    // An agent says who it is once it has found all its tasks, and before it has a master to tell.
    let took = cluster.restart_agent("a1", RESOURCES)?;
    figures.add(&what, "owned_again", took.as_secs_f64() * 1_000.0, "ms");
    running(&cluster, &id, count).await?;
    let job = cluster.client.get(&format!("/v1/jobs/{id}")).await?;
    figures.add(&what, "lost", job["restarts"].as_f64().unwrap_or(-1.0), "tasks");
    Ok(())
}

async fn running(cluster: &Cluster, id: &str, count: u32) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let job = cluster.client.get(&format!("/v1/jobs/{id}")).await?;
        if job["tasks"]["running"] == count {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("{count} tasks were to run: {job}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The proportional set size (proc_pid_smaps(5)) of an executor of a process that is not inside a task.
fn proportional_bytes(id: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:")).is_some_and(|ids| ids.split_whitespace().count() > 1);
    if inside || !fs::read_to_string(format!("/proc/{id}/comm"))?.starts_with("skep-executor") {
        bail!("no executor of a process");
    }
    let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1_024)
}

/// What does the same without a cluster: its name, its rate on two threads, and the mean of one at a time in microseconds.
fn peer(kind: Kind) -> anyhow::Result<Option<(&'static str, f64, f64)>> {
    match kind {
        Kind::Native => spawn_loops().map(|(rate, mean)| Some(("spawn loop", rate, mean))),
        Kind::Container => {
            let place = super::temporary("skep-peer")?;
            let measured = crun(&place);
            let _ = fs::remove_dir_all(&place);
            measured
        }
    }
}

/// `/bin/true`, started and waited for.
fn spawn_loops() -> anyhow::Result<(f64, f64)> {
    let one = || (0..PEER_EACH).try_for_each(|_| Command::new("/bin/true").status().map(drop));
    let start = Instant::now();
    one()?;
    let mean = start.elapsed().as_secs_f64() * 1e6 / f64::from(PEER_EACH);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked"))))
    })?;
    Ok((f64::from(THREADS * PEER_EACH) / start.elapsed().as_secs_f64(), mean))
}

/// `crun run` of the same program in the namespaces of crun's own spec, with limits of memory, processor and processes.
fn crun(place: &Path) -> anyhow::Result<Option<(&'static str, f64, f64)>> {
    let root = place.join("rootfs");
    for name in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
        fs::create_dir_all(root.join(name))?;
    }
    let made = Command::new("crun").arg("spec").current_dir(place).stderr(Stdio::null()).status();
    if fs::copy("/bin/busybox", root.join("bin/busybox")).is_err() || !made.is_ok_and(|made| made.success()) {
        return Ok(None);
    }
    let config = place.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/busybox", "true"]);
    spec["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864 }, "cpu": { "shares": 10 }, "pids": { "limit": 64 } });
    fs::write(&config, spec.to_string())?;
    let Some(alone) = crun_loops(place, 1)? else { return Ok(None) };
    let Some(together) = crun_loops(place, THREADS)? else { return Ok(None) };
    Ok(Some(("crun", f64::from(THREADS * PEER_EACH) / together, alone * 1e6 / f64::from(PEER_EACH))))
}

/// The seconds that so many loops take beside each other; `None`: crun does not run here. It refuses where versions 1 and 2 of control groups are
/// mounted at once, so it has mounts of its own with version 1 alone.
fn crun_loops(place: &Path, loops: u32) -> anyhow::Result<Option<f64>> {
    let script = format!(
        "umount /sys/fs/cgroup/unified 2>/dev/null; crun run --bundle . warm-$$ || exit 1; date +%s%N\n\
         each() {{ i=0; while [ $i -lt {PEER_EACH} ]; do crun run --bundle . peer-$$-$1-$i || exit 1; i=$((i+1)); done; }}\n\
         n=0; while [ $n -lt {loops} ]; do each $n & n=$((n+1)); done; wait; date +%s%N"
    );
    let mut shell = Command::new("unshare");
    shell.args(["-m", "--propagation", "private", "sh", "-c", &script]).current_dir(place).stderr(Stdio::null());
    let output = shell.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let times: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    Ok(output.status.success().then(|| times.last().zip(times.first()).map(|(end, begin)| (end - begin) / 1e9)).flatten())
}
