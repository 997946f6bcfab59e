//! Frameworks over the API of offers, in another language: the sample scheduler beside the cluster's own jobs, and through the loss of a master.

use crate::cluster::{Cluster, sample};
use crate::masters::Masters;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Bounds below which primes are counted, each by a task.
const BOUNDS: u32 = 60;

/// The sample scheduler, at work.
fn primes(cluster: &Cluster) -> Child {
    sample("sieve.wasm");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/frameworks/primes.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(BOUNDS.to_string()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SKEP_MASTER", &cluster.url).env("SKEP_TOKEN", &cluster.token).env("SKEP_CA", cluster.ca());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What it is to find: how many primes there are below 10,000, 20,000 and so on, together.
fn expected() -> usize {
    let most = 10_000 * BOUNDS as usize;
    let mut composite = vec![false; most + 1];
    let mut primes = vec![];
    for n in 2..=most {
        if !composite[n] {
            primes.push(n);
            (n * n..=most).step_by(n).for_each(|multiple| composite[multiple] = true);
        }
    }
    (1..=BOUNDS as usize).map(|n| primes.partition_point(|prime| *prime <= 10_000 * n)).sum()
}

fn check(child: Child) {
    let output = child.wait_with_output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    assert_eq!(text.split(' ').next(), Some(expected().to_string().as_str()), "{text}\n{errors}");
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
