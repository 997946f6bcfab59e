//! Groups of this machine, where it lets us make some; what cannot be tried is said to be skipped.

use super::*;
use std::process::{Child, Command, Stdio};

fn limits() -> ProcessLimits {
    ProcessLimits {
        memory_bytes_max: 32 << 20,
        cpu_milli: 500,
        processes_max: 16,
        time_ms_max: None,
        cpu_time_ms_max: None,
        disk_bytes_max: 0,
        log_bytes_max: 0,
        log_bytes_per_s_max: 0,
    }
}

/// A group that is removed again; `None`: this machine has none for us.
fn group(test: &str) -> Option<(Hierarchies, String, Group)> {
    let hierarchies = Hierarchies::find();
    if !hierarchies.lacks().is_empty() {
        println!("skipped: {}", hierarchies.lacks().join("; "));
        return None;
    }
    let name = format!("skep-test/{test}-{}", std::process::id());
    let made = hierarchies.make(&name, &limits()).unwrap();
    Some((hierarchies, name, made))
}

/// A shell that waits for a line, in the group, before it runs `script`.
fn started(group: &Group, script: &str) -> Child {
    let script = format!("read line; {script}");
    let mut child = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    group.join(child.id()).unwrap();
    io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
    child
}

#[test]
fn memory_over_the_limit_is_a_kill_that_is_counted() {
    let Some((hierarchies, name, group)) = group("memory") else { return };
    // A line without an end is held in memory.
    let status = started(&group, "exec tail /dev/zero").wait().unwrap();
    assert!(!status.success());
    let counted = group.counted();
    assert!(counted.memory_kills >= 1, "{counted:?}");
    assert!(counted.memory_peak_bytes > 16 << 20 && counted.memory_peak_bytes <= 32 << 20, "{counted:?}");
    hierarchies.remove(&name).unwrap();
}

#[test]
fn processes_over_the_limit_are_refused() {
    let Some((hierarchies, name, group)) = group("processes") else { return };
    let status = started(&group, "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 9 & done; true").wait().unwrap();
    assert!(!status.success(), "a fork is refused");
    assert!(group.counted().processes_refused >= 1, "{:?}", group.counted());
    hierarchies.remove(&name).unwrap();
    hierarchies.remove(&name).unwrap();
}

#[test]
fn processor_time_is_counted_and_removing_ends_what_runs() {
    let Some((hierarchies, name, group)) = group("removed") else { return };
    let mut child = started(&group, "while :; do :; done");
    while group.counted().cpu_us < 20_000 {
        thread::yield_now();
    }
    assert_eq!(group.counted().processes, 1);
    hierarchies.remove(&name).unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(group.counted().processes, 0);
}

#[test]
fn a_group_serves_another_task_as_if_it_were_new() {
    let Some((hierarchies, name, group)) = group("again") else { return };
    if !hierarchies.can_renew() {
        hierarchies.remove(&name).unwrap();
        return println!("skipped: groups of version 2 are made for each task");
    }
    assert!(group.is_clean());
    let mut child = started(&group, "tail /dev/zero; exec sleep 600");
    while group.counted().memory_kills == 0 {
        thread::yield_now();
    }
    assert!(!group.is_clean(), "somebody is in it");
    child.kill().unwrap();
    child.wait().unwrap();
    // What it started dies at its own pace.
    while !group.is_clean() {
        thread::yield_now();
    }
    drop(group);
    let more = ProcessLimits { memory_bytes_max: 64 << 20, processes_max: 3, ..limits() };
    let again = hierarchies.renew(&name, &limits(), &more).unwrap();
    let counted = again.counted();
    assert_eq!((counted.memory_kills, counted.processes, counted.processes_refused), (0, 0, 0), "{counted:?}");
    assert!(counted.memory_peak_bytes <= CLEAN_BYTES_MAX, "{counted:?}");
    let used_us = counted.cpu_us;
    assert!(used_us < 20_000, "its count began again: {used_us}");
    // The new limits hold.
    let status = started(&again, "for i in 1 2 3 4 5 6; do sleep 9 & done; true").wait().unwrap();
    assert!(!status.success() && again.counted().processes_refused >= 1, "{:?}", again.counted());
    hierarchies.remove(&name).unwrap();
}

#[test]
fn a_pool_lends_what_was_given_back_and_removes_what_templates_before_left() {
    let hierarchies = Hierarchies::find();
    if !hierarchies.can_renew() || !hierarchies.lacks().is_empty() {
        return println!("skipped: no groups of version 1 to lend here");
    }
    let parent = format!("skep-test-pool-{}", std::process::id());
    let (wanted, limits) = (format!("{parent}/wanted"), limits());
    let other = ProcessLimits { processes_max: 4, ..limits.clone() };
    let mut pool = Pool::new(&hierarchies);
    let (first, second) = (pool.take(&wanted, &limits).unwrap(), pool.take(&wanted, &other).unwrap());
    assert!(first.before.is_none() && second.before.is_none() && first.name != second.name);
    hierarchies.make(&first.name, &limits).unwrap();
    hierarchies.make(&second.name, &other).unwrap();
    pool.put_back(first.name.clone(), limits.clone());
    pool.put_back(second.name.clone(), other);
    let again = pool.take(&wanted, &limits).unwrap();
    assert_eq!((again.name, again.before), (first.name.clone(), Some(limits.clone())), "the one that has these limits");
    assert!(pool.take("skep-elsewhere/wanted", &limits).unwrap().before.is_none(), "one of another parent is not lent");
    let left = format!("{parent}/slot-0-1");
    hierarchies.make(&left, &limits).unwrap();
    pool.sweep(Instant::now());
    assert!(hierarchies.counted(&left).is_some(), "its executor may be about to join it");
    pool.sweep(Instant::now() + Duration::from_secs(60));
    assert!(hierarchies.counted(&left).is_none() && hierarchies.counted(&first.name).is_some());
    pool.clear();
    assert!(hierarchies.counted(&second.name).is_none(), "what waits goes with the template");
    hierarchies.remove(&parent).unwrap();
    assert!(hierarchies.counted(&first.name).is_none());
}

#[test]
fn whoever_is_promised_no_processor_runs_where_the_group_of_all_such_is_placed() {
    let hierarchies = Hierarchies::find();
    let may = |pid: Option<u32>| {
        let may = rustix::thread::sched_getaffinity(pid.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))).unwrap();
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|processor| may.is_set(*processor)).collect::<Vec<usize>>()
    };
    let all = may(None);
    if let Some(reason) = hierarchies.lacks().into_iter().chain(hierarchies.lacks_places()).next() {
        return println!("skipped: {reason}");
    }
    if all.len() < 2 {
        return println!("skipped: there is one processor");
    }
    let parent = format!("skep-test-idle-{}", std::process::id());
    hierarchies.place(&parent, &all).unwrap();
    let (idle, firm) = (format!("{parent}/idle"), format!("{parent}/firm"));
    let mut tasks = [(&idle, 0), (&firm, 500)].map(|(name, cpu_milli)| {
        let group = hierarchies.make(name, &ProcessLimits { cpu_milli, ..limits() }).unwrap();
        started(&group, "read again")
    });
    assert!(hierarchies.is_populated(&parent));
    assert_eq!(may(Some(tasks[0].id())), all);
    hierarchies.place(&parent, &all[1..]).unwrap();
    assert_eq!(may(Some(tasks[0].id())), all[1..], "all that is in it moves at once");
    if matches!(&*hierarchies.0, Found::V1(..)) {
        // In version 2 it would be below another.
        assert_eq!(may(Some(tasks[1].id())), all);
    }
    let group = hierarchies.make(&format!("{parent}/later"), &ProcessLimits { cpu_milli: 0, ..limits() }).unwrap();
    let mut later = started(&group, "read again");
    assert_eq!(may(Some(later.id())), all[1..], "and so does what comes later");
    hierarchies.place(&parent, &all).unwrap();
    assert_eq!(may(Some(later.id())), all);
    tasks.iter_mut().chain([&mut later]).for_each(|task| {
        task.kill().unwrap();
        task.wait().unwrap();
    });
    assert!(!hierarchies.is_populated(&parent));
    hierarchies.remove(&parent).unwrap();
    assert!(hierarchies.counted(&idle).is_none());
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    for name in ["", "/", "/a", "../a", "a/../..", "a//b", "a/", "a/./b"] {
        let error = Hierarchies::find().remove(name).unwrap_err();
        assert!(error.contains("relative path"), "{error}");
    }
}

#[test]
fn counters_are_read_as_the_kernel_writes_them() {
    assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), 3);
    assert_eq!(keyed("low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 1\n", "oom_kill"), 2);
    assert_eq!(keyed("", "max"), 0);
    assert_eq!((number("12\n"), number("max\n")), (12, 0));
}
