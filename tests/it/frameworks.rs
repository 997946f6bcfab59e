//! Frameworks over the API of offers, in another language: the sample scheduler beside the cluster's own jobs, and through the loss of a master.

pub mod caller;
pub mod messages;
mod rust;
mod wants;
mod wrong;

use crate::cluster::{Cluster, ended, sample};
use crate::masters::Masters;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Bounds below which primes are counted, each by a task.
const BOUNDS: u32 = 60;

/// Tasks that a framework in another language places.
const TASKS: u32 = 60;

/// The sample scheduler, at work.
fn primes(cluster: &Cluster) -> Child {
    sample("sieve.wasm");
    let mut command = Command::new("python3");
    command.arg(source("primes.py")).arg(BOUNDS.to_string()).env("PYTHONDONTWRITEBYTECODE", "1");
    start(cluster, command)
}

/// A file of the samples.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/frameworks").join(name)
}

/// Starts a framework that finds its cluster by what `skep` itself would find it by.
pub fn start(cluster: &Cluster, mut command: Command) -> Child {
    command.env("SKEP_MASTER", &cluster.url).env("SKEP_TOKEN", &cluster.token).env("SKEP_CA", cluster.ca());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What it is to find: how many primes there are below so many bounds, 10,000, 20,000 and so on, together.
pub fn expected(bounds: u32) -> usize {
    let most = 10_000 * bounds as usize;
    let mut composite = vec![false; most + 1];
    let mut primes = vec![];
    for n in 2..=most {
        if !composite[n] {
            primes.push(n);
            (n * n..=most).step_by(n).for_each(|multiple| composite[multiple] = true);
        }
    }
    (1..=bounds as usize).map(|n| primes.partition_point(|prime| *prime <= 10_000 * n)).sum()
}

fn check(child: Child) {
    let text = printed(child);
    assert_eq!(text.split(' ').next(), Some(expected(BOUNDS).to_string().as_str()), "{text}");
}

/// What a framework printed, which ended well.
pub fn printed(child: Child) -> String {
    let output = ended(child, "a framework");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

/// Compiles a framework in Java or C++; `None`, said, where what compiles it is not here.
fn compiled(name: &str, compiler: &str, needs: &str, arguments: &[&str]) -> Option<()> {
    let found = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found(compiler) || !found(needs) {
        eprintln!("skipped: there is no {compiler} or no {needs} here: make clients");
        return None;
    }
    let output =
        Command::new(compiler).args(arguments).arg(source(name)).args(if compiler == "g++" { &["-lcurl"][..] } else { &[] }).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// A framework places [`TASKS`] tasks, and two of three masters are lost on the way.
fn places_all(mut command: Command) {
    let mut masters = Masters::three();
    command.arg(sample("nap.wasm")).args([TASKS.to_string(), "1500".to_owned()]);
    let framework = start(&masters.cluster, command);
    for number in [1, 2] {
        std::thread::sleep(Duration::from_millis(700));
        masters.kill(number);
        masters.start(number);
        masters.until_led(3);
    }
    assert_eq!(printed(framework), format!("{TASKS} tasks finished\n"));
}

#[test]
fn a_framework_in_java_places_tasks_through_the_loss_of_masters() {
    let folder = crate::cluster::folder();
    if compiled("Batch.java", "javac", "java", &["-d", folder.to_str().unwrap()]).is_some() {
        let mut command = Command::new("java");
        command.args(["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", folder.to_str().unwrap(), "Batch"]);
        places_all(command);
    }
}

#[test]
fn a_framework_in_cpp_places_tasks_through_the_loss_of_masters() {
    let program = crate::cluster::folder().join("batch");
    let arguments = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1", "-o", program.to_str().unwrap()];
    if compiled("batch.cpp", "g++", "curl-config", &arguments).is_some() {
        places_all(Command::new(program));
    }
}

#[test]
fn a_pool_of_workers_grows_and_shrinks_as_is_asked() {
    let mut cluster = Cluster::of_one("cpu=1,memory=1GiB");
    cluster.add_agent("a2", "cpu=1,memory=1GiB");
    sample("sleep.wasm");
    let mut command = Command::new("python3");
    command.arg(source("elastic.py")).args(["3", "15", "2", "0", "5"]).env("PYTHONDONTWRITEBYTECODE", "1");
    let pool = start(&cluster, command);
    assert_eq!(printed(pool), "3 run\n15 run\n2 run\n0 run\n5 run\n");
    cluster
        .until("its last workers are gone with it", |cluster| cluster.json(&["frameworks"])["frameworks"].as_array().unwrap().is_empty());
}

#[test]
fn a_framework_shares_the_pool_with_jobs_and_adds_up_what_its_tasks_found() {
    let mut cluster = Cluster::of_one("cpu=2,memory=1GiB");
    cluster.add_agent("a2", "cpu=2,memory=1GiB");
    let framework = primes(&cluster);
    let noop = sample("noop.wasm");
    cluster.text(&["run", "--count", "300", "--cpu", "0.1", "--memory", "1MiB", noop.to_str().unwrap(), "--quiet"]);
    check(framework);
}

#[test]
fn a_framework_goes_on_through_the_loss_of_any_master() {
    let mut masters = Masters::three();
    masters.cluster.text(&["agents"]);
    let framework = primes(&masters.cluster);
    for number in [1, 2, 3] {
        std::thread::sleep(Duration::from_millis(400));
        masters.kill(number);
        masters.start(number);
        masters.until_led(3);
    }
    check(framework);
}
