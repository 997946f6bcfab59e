//! An agent that was started as root has no root: its template has, and does for it what takes it and nothing else.

use crate::cluster::{Cluster, Ends, said, sample};
use crate::processes::{image, write};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const RESOURCES: &str = "cpu=8,memory=4GiB,disk=1GiB,ports=20000-20099";

/// What the kernel says of each thread of a process.
fn threads(process: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap_or_default()).collect()
}

/// Its user, once all its threads are seen to have no rights but that one's.
fn user_without_rights(process: u32) -> u32 {
    let threads = threads(process);
    assert!(!threads.is_empty());
    let user = |status: &str| status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap().to_owned();
    let first = user(&threads[0]);
    for status in &threads {
        assert_eq!(user(status), first);
        for line in ["CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{line}: {status}");
        }
    }
    let ids: Vec<u32> = first.split('\t').map(|id| id.parse().unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && *id != 0), "{first}");
    ids[0]
}

/// One job of each kind that sleeps.
fn sleepers(cluster: &Cluster) -> Vec<&'static str> {
    let script = write(cluster, "script", "#!/bin/sh\nexec \"$@\"\n");
    let mut jobs = vec!["native", "wasm"];
    cluster.text(&["run", "--detach", "--name", "native", script.to_str().unwrap(), "--", "sleep", "600"]);
    cluster.text(&["run", "--detach", "--name", "wasm", sample("sleep.wasm").to_str().unwrap(), "--", "600000"]);
    if let Some(image) = image(cluster) {
        cluster.text(&["run", "--detach", "--name", "container", image.to_str().unwrap(), "--", "sleep 600"]);
        jobs.push("container");
    }
    for job in &jobs {
        cluster.until("it runs", |cluster| cluster.tasks(job, "running") == 1);
    }
    jobs
}

#[test]
fn an_agent_that_was_started_as_root_is_not_root_while_it_does_its_work() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: not root: there is nothing to give up");
    }
    let mut cluster = Cluster::of_one(RESOURCES);
    let jobs = sleepers(&cluster);
    let user = user_without_rights(cluster.agent_id("a1"));
    let executors = cluster.executors();
    // Found again by one that was killed and started anew, which is the same user.
    cluster.kill_agent("a1");
    cluster.start_agent("a1");
    assert_eq!(cluster.executors(), executors);
    for job in jobs {
        assert_eq!(cluster.tasks(job, "running"), 1, "{job}");
        cluster.text(&["stop", job]);
        cluster.until("it has ended", |cluster| cluster.tasks(job, "killed") == 1);
    }
    let live = fs::canonicalize(cluster.folder.join("a1/processes/live")).unwrap();
    cluster.until("nothing is left of them", |_| fs::read_dir(&live).unwrap().count() == 0);
    assert_eq!(user_without_rights(cluster.agent_id("a1")), user);

    // With the agent's rights: what is the template's stays as it is, and what is the agent's is its own.
    let data = cluster.folder.join("a1");
    let can = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&data).uid(user).gid(user).env("LIVE", &live).stderr(Stdio::null()).stdout(Stdio::null());
        command.status().unwrap().success()
    };
    for script in [
        "mv processes gone",
        "mv executors gone",
        "mv unpacked gone",
        "rm processes/live",
        "ln -s /etc processes/x",
        "touch executors/9",
        "mkdir $LIVE/x",
        "ls unpacked",
        "ls unpacked/layers",
        "ls processes/disks",
        "chmod 777 .",
        "cat /etc/shadow",
    ] {
        assert!(!can(script), "{script}");
    }
    for script in ["touch x && mv x y && rm y", "ls executors", "ls $LIVE", "cat ledger", "cat identity/*"] {
        assert!(can(script), "{script}");
    }
    // Nobody else reads what is the agent's, or adds output.
    let stranger = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&data).uid(65_534).gid(65_534).env("LIVE", &live).stderr(Stdio::null());
        command.stdout(Stdio::null()).status().unwrap().success()
    };
    for script in ["ls executors", "ls $LIVE", "ls processes", "touch processes/logs/x", "cat cache.key", "cat ledger", "ls identity"] {
        assert!(!stranger(script), "{script}");
    }
}

#[test]
fn what_an_agent_left_that_was_root_is_the_agents_that_is_not() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: not root: there is nothing to give up");
    }
    let mut cluster = Cluster::of_one(RESOURCES);
    let script = write(&cluster, "script", "#!/bin/sh\nexec \"$@\"\n");
    let script = script.to_str().unwrap();
    cluster.text(&["run", script, "--", "echo", "one"]);
    cluster.stop_agent("a1");
    // As it was left by builds whose agents kept root; a file that has another name elsewhere is not given away.
    let data = cluster.folder.join("a1");
    assert!(Command::new("chown").args(["-R", "0:0"]).arg(&data).status().unwrap().success());
    assert!(Command::new("chmod").arg("0711").arg(&data).status().unwrap().success());
    fs::create_dir_all(data.join("cache/unpacked/layers")).unwrap();
    fs::write(cluster.folder.join("of-somebody"), "mine").unwrap();
    fs::hard_link(cluster.folder.join("of-somebody"), data.join("cache/linked")).unwrap();
    cluster.start_agent("a1");
    let (text, code) = said(&cluster, &["run", script, "--", "echo", "two"]);
    assert_eq!((text.as_str(), code), ("two\n", Some(0)));
    let user = user_without_rights(cluster.agent_id("a1"));
    let owner = |name: &str| fs::symlink_metadata(data.join(name)).unwrap().uid();
    assert_eq!((owner("ledger"), owner("cache"), owner("identity"), owner("processes/logs")), (user, user, user, user));
    assert_eq!((owner("."), owner("executors"), owner("processes"), owner("unpacked"), owner("cache/linked")), (0, 0, 0, 0, 0));
    assert!(!data.join("cache/unpacked").exists());
}

#[test]
fn a_data_directory_that_is_closed_to_others_leaves_the_agent_root_and_it_says_so() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: not root: there is nothing to give up");
    }
    let mut cluster = Cluster::of_one(RESOURCES);
    let closed = cluster.folder.join("closed");
    fs::create_dir(&closed).unwrap();
    assert!(Command::new("chmod").arg("0700").arg(&closed).status().unwrap().success());
    cluster.add_agent("closed/a2", RESOURCES);
    let status = &threads(cluster.agent_id("closed/a2"))[0];
    assert!(status.contains("Uid:\t0\t0\t0\t0"), "{status}");
    let said = cluster.text(&["status", "closed/a2"]);
    assert!(said.contains("the agent stays root"), "{said}");
    assert!(!cluster.text(&["status", "a1"]).contains("stays root"));
}

#[test]
fn a_cluster_of_one_that_root_starts_is_where_its_users_reach_it_and_other_commands_find_it() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: not root: there is nothing to give up");
    }
    // The real /var/lib is left alone.
    let script = r#"mount -t tmpfs -o mode=755 tmpfs /var/lib || exit 99
        "$1" up --http 127.0.0.1:0 --quic 127.0.0.1:0 > /var/lib/said & cluster=$!
        for i in $(seq 400); do grep -q "is up" /var/lib/said && break; sleep 0.05; done
        "$1" run "$2" -- world; code=$?
        grep -q SKEP_TOKEN /var/lib/said && echo "it tells how to be found"
        kill $cluster; wait $cluster
        stat -c %u /var/lib/skep/dev/agent /var/lib/skep/dev/master
        exit $code"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_skep")]).arg(sample("hello.wasm"));
    let output = command.env_remove("SKEP_HOME").stdin(Stdio::null()).ends();
    if output.status.code() == Some(99) {
        return println!("skipped: no file system can be mounted here: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(lines.len() == 3 && lines[..2] == ["hello, world", "0"] && lines[2] != "0", "{said}");
}
