//! Executors as processes of their own, from their start to whatever end.

use super::fixture::{self, Folder};
use super::*;
use crate::jail;
use crate::wasm::compile::compile;
use crate::{Launch, Limits, Plan, Runtime, Start};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const NOOP: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
const EXIT_7: &str = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 7))))"#;
const ENDLESS: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#;
/// Sleeps for a day: poll_oneoff on the monotonic clock.
const SLEEPER: &str = r#"(module (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store8 (i32.const 8) (i32.const 0))
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 86400000000000))
        (drop (call $poll (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 256)))))"#;
/// Writes "0123456789\n" to standard output for ever.
const FLOOD: &str = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "0123456789\n")
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 11))
        (loop $again (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20))) (br $again))))"#;

/// A machine's folders: compiled code, and one executor's directory.
struct Machine(Folder, process::Template, PathBuf);

impl Machine {
    async fn new() -> Self {
        let folder = Folder::new();
        let template = fixture::template(&folder).await;
        let dir = template.places().dir(process::Which::Wasm(7));
        let machine = Self(folder, template, dir);
        std::fs::create_dir(machine.cache()).unwrap();
        machine
    }

    fn dir(&self) -> PathBuf {
        self.2.clone()
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn spec(&self, tasks_max: u32) -> ExecutorSpec {
        ExecutorSpec {
            number: 7,
            role: "test".into(),
            metering: Metering::Fuel,
            uid: fixture::uid(),
            tasks_max,
            memory_bytes_max: 1 << 30,
            readable: vec![self.cache()],
            idle: false,
        }
    }

    fn launch(&self, text: &str, keys: std::ops::Range<u32>) -> Launch {
        let wasm = wat::parse_str(text).unwrap();
        let digest = *blake3::hash(&wasm).as_bytes();
        let compiled = self.cache().join(blake3::hash(&wasm).to_hex().as_str());
        if !compiled.exists() {
            std::fs::write(&compiled, compile(&wasm, Metering::Fuel).unwrap()).unwrap();
        }
        let limits = Limits {
            fuel_max: None,
            cpu_time_ms_max: None,
            time_ms_max: None,
            memory_bytes_max: 1 << 20,
            table_elements_max: 100,
            host_bytes_max: 1 << 20,
            log_bytes_max: 64 << 10,
        };
        let (args, env, config, port_names) = (vec![], vec![], vec![], vec![]);
        let plan = Plan { compiled, digest, args, env, config, stdin: None, port_names, limits, job: "job".into(), agent: "agent".into() };
        Launch { plan, starts: keys.map(|index| Start { key: Key(u128::from(index)), index, attempt: 1, ports: vec![] }).collect() }
    }

    async fn recover(&self) -> Recovered {
        recover(&self.dir()).await.unwrap()
    }

    async fn living(&self) -> Executor {
        match self.recover().await {
            Recovered::Living(executor) => executor,
            Recovered::Dead(remains) => panic!("it is dead: {remains:?}"),
        }
    }

    fn kill(&self) {
        fixture::kill(&self.dir());
    }
}

/// Hears until so many ended; the batches that it took, and the ends.
async fn ends(executor: &mut Executor, n: usize) -> (usize, BTreeMap<Key, Exit>) {
    let (mut batches, mut ended) = (0, BTreeMap::new());
    while ended.len() < n {
        let events = executor.events.next().await.expect("it lives");
        batches += 1;
        for event in events {
            if let ExecutorEvent::Ended { key, exit, .. } = event {
                assert!(ended.insert(key, exit).is_none(), "{key:?} was told twice");
            }
        }
    }
    (batches, ended)
}

/// Hears until so many started.
async fn starts(executor: &mut Executor, n: usize) {
    let mut started = 0;
    while started < n {
        let events = executor.events.next().await.expect("it lives");
        started += events.iter().filter(|event| matches!(event, ExecutorEvent::Started { .. })).count();
    }
}

async fn tell(executor: &mut Executor) {
    executor.commands.flush().await.unwrap();
}

#[tokio::test]
async fn a_thousand_tasks_end_and_are_told_together() {
    let machine = Machine::new().await;
    let mut executor = machine.1.launch(machine.spec(2_000)).await.unwrap();
    assert_eq!((executor.hello.version, executor.hello.tasks_max, &executor.held), (wire::VERSION, 2_000, &Held::default()));
    executor.commands.launch(machine.launch(NOOP, 0..1_000)).unwrap();
    tell(&mut executor).await;
    let (batches, ended) = ends(&mut executor, 1_000).await;
    assert!(ended.values().all(|exit| *exit == Exit::Code(0)));
    println!("{batches} batches for a thousand tasks");
    assert!(batches <= 200, "{batches} batches for a thousand tasks");
    assert!(matches!(machine.1.launch(machine.spec(1)).await, Err(LaunchError::Used { .. })));
}

#[tokio::test]
async fn a_key_runs_once_and_its_end_is_kept_until_it_is_forgotten() {
    let machine = Machine::new().await;
    let mut executor = machine.1.launch(machine.spec(100)).await.unwrap();
    for _ in 0..3 {
        executor.commands.launch(machine.launch(EXIT_7, 0..2)).unwrap();
    }
    tell(&mut executor).await;
    assert_eq!(ends(&mut executor, 2).await.1[&Key(1)], Exit::Code(7));
    executor.commands.launch(machine.launch(EXIT_7, 0..3)).unwrap();
    tell(&mut executor).await;
    assert_eq!(ends(&mut executor, 1).await.1.into_keys().collect::<Vec<_>>(), [Key(2)]);
    executor.commands.forget(vec![Key(0), Key(2)]);
    executor.commands.launch(machine.launch(NOOP, 5..6)).unwrap();
    tell(&mut executor).await;
    ends(&mut executor, 1).await;
    drop(executor);
    let held = machine.living().await.held;
    assert_eq!(held.ended.iter().map(|(key, ..)| *key).collect::<std::collections::BTreeSet<_>>(), [Key(1), Key(5)].into());
    assert!(held.live.is_empty());
}

#[tokio::test]
async fn a_client_that_is_killed_leaves_its_tasks_running() {
    let machine = Machine::new().await;
    let file = machine.cache().join("launch");
    std::fs::write(&file, postcard::to_stdvec(&machine.launch(SLEEPER, 0..50)).unwrap()).unwrap();
    let uid = fixture::uid().map_or("none".into(), |uid| uid.to_string());
    let data = Folder::new();
    let mut client = Command::new(fixture::binary())
        .arg("client")
        .args([&file, data.path(), &machine.cache()])
        .arg(uid)
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said.trim(), "launched");
    // Its whole group, as a terminal would.
    let group = rustix::process::Pid::from_child(&client);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    client.wait().unwrap();

    let Machine(folder, template, _) = machine;
    let machine = Machine(folder, template, data.path().join("executors/7"));
    let mut executor = machine.living().await;
    let waiting = executor.held.live.iter().filter(|(_, since)| since.is_none()).count();
    assert_eq!((executor.held.live.len(), executor.held.ended.len()), (50, 0));
    starts(&mut executor, waiting).await;
    // Another client takes its place, and the first one hears that.
    let mut second = machine.living().await;
    assert_eq!(second.held.live.len(), 50);
    assert!(second.held.live.iter().all(|(_, since)| since.is_some_and(|ms| ms > 1_600_000_000_000)));
    assert_eq!(executor.events.next().await, None);
    let keys: Vec<Key> = (0..50).map(Key).collect();
    second.commands.stop(keys, 0);
    tell(&mut second).await;
    assert!(ends(&mut second, 50).await.1.values().all(|exit| *exit == Exit::Killed));
}

#[tokio::test]
async fn whoever_asks_for_output_reads_it_from_the_directorys_first_moment() {
    use std::os::unix::fs::MetadataExt;
    if fixture::uid().is_none() {
        return println!("skipped: not root: directories are the agent's own");
    }
    let machine = Machine::new().await;
    let seen = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid(), found.mode() & 0o7777)).unwrap();
    // What is made in there has the agent's group before anything else is done with it.
    for parent in [machine.1.places().executors(), machine.1.places().live().to_owned()] {
        assert_eq!(seen(&parent), (0, fixture::owner(), 0o2751), "{}", parent.display());
    }
    let _executor = machine.1.launch(machine.spec(4)).await.unwrap();
    for path in [machine.dir(), machine.dir().join("logs")] {
        assert_eq!(seen(&path), (fixture::uid().unwrap(), fixture::owner(), 0o2750), "{}", path.display());
    }
}

#[tokio::test]
async fn what_tasks_use_is_told_while_they_run() {
    let machine = Machine::new().await;
    let mut executor = machine.1.launch(machine.spec(100)).await.unwrap();
    let (hear, mut heard) = tokio::sync::mpsc::unbounded_channel();
    executor.events.hear_used(move |used| hear.send(used).unwrap());
    executor.commands.launch(machine.launch(ENDLESS, 0..1)).unwrap();
    executor.commands.launch(machine.launch(SLEEPER, 1..3)).unwrap();
    tell(&mut executor).await;
    starts(&mut executor, 3).await;
    let mut last = 0;
    for _ in 0..3 {
        let used = loop {
            executor.commands.ask_usage();
            tell(&mut executor).await;
            let used = tokio::select! {
                used = heard.recv() => used.unwrap(),
                events = executor.events.next() => panic!("{events:?}"),
            };
            if used.iter().any(|used| used.key == Key(0) && used.cpu_us > last) {
                break used;
            }
        };
        assert_eq!(used.len(), 3);
        assert!(used.iter().all(|used| used.memory_bytes == 64 << 10), "{used:?}");
        assert!(used.iter().all(|used| used.key == Key(0) || used.cpu_us < 1_000_000), "{used:?}");
        last = used.iter().find(|used| used.key == Key(0)).unwrap().cpu_us;
    }
}

#[tokio::test]
async fn stopped_tasks_are_killed_after_their_grace_whatever_they_do() {
    let machine = Machine::new().await;
    let mut executor = machine.1.launch(machine.spec(100)).await.unwrap();
    executor.commands.launch(machine.launch(ENDLESS, 0..2)).unwrap();
    executor.commands.launch(machine.launch(SLEEPER, 2..4)).unwrap();
    executor.commands.launch(machine.launch(FLOOD, 4..5)).unwrap();
    tell(&mut executor).await;
    starts(&mut executor, 5).await;
    executor.commands.stop(vec![Key(0), Key(2), Key(99)], 50);
    executor.commands.stop(vec![Key(1), Key(3), Key(4)], 0);
    tell(&mut executor).await;
    let (_, ended) = ends(&mut executor, 5).await;
    assert!(ended.values().all(|exit| *exit == Exit::Killed), "{ended:?}");
    let bytes: u64 = std::fs::read_dir(machine.dir().join("logs")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes > 0 && bytes <= 64 << 10, "{bytes} bytes of output are kept");
    let read = read_log(&machine.dir(), Key(4), 0, 100).unwrap();
    assert_eq!(read.bytes[..5], [1, 11, 0, 0, 0]);
    assert!(read.bytes[5..].starts_with(b"0123456789\n"));
}

#[tokio::test]
async fn a_core_module_that_is_to_stop_ends_at_once_since_it_cannot_hear_of_it() {
    let machine = Machine::new().await;
    let mut executor = machine.1.launch(machine.spec(100)).await.unwrap();
    executor.commands.launch(machine.launch(SLEEPER, 0..2)).unwrap();
    tell(&mut executor).await;
    starts(&mut executor, 2).await;
    executor.commands.stop(vec![Key(0), Key(1)], 86_400_000);
    tell(&mut executor).await;
    let (_, ended) = ends(&mut executor, 2).await;
    assert!(ended.values().all(|exit| *exit == Exit::Killed), "{ended:?}");
}

#[tokio::test]
async fn what_is_left_of_a_killed_executor_says_who_ended_and_who_is_lost() {
    let machine = Machine::new().await;
    let mut executor = machine.1.launch(machine.spec(100)).await.unwrap();
    executor.commands.launch(machine.launch(EXIT_7, 0..10)).unwrap();
    executor.commands.launch(machine.launch(SLEEPER, 10..15)).unwrap();
    tell(&mut executor).await;
    ends(&mut executor, 10).await;
    machine.kill();
    assert_eq!(executor.events.next().await, None);
    let Recovered::Dead(remains) = machine.recover().await else { panic!("it was killed") };
    assert_eq!(remains.lost, (10..15).map(Key).collect::<Vec<_>>());
    assert_eq!(remains.ended.len(), 10);
    assert!(remains.ended.iter().all(|(key, exit, _)| key.0 < 10 && *exit == Exit::Code(7)));
    machine.kill();
}

#[tokio::test]
async fn more_than_it_may_hold_is_refused_and_a_retired_one_takes_none_and_ends() {
    let machine = Machine::new().await;
    let mut executor = machine.1.launch(machine.spec(4)).await.unwrap();
    executor.commands.launch(machine.launch(SLEEPER, 0..6)).unwrap();
    tell(&mut executor).await;
    let (_, refused) = ends(&mut executor, 2).await;
    assert!(
        refused.iter().all(|(key, exit)| key.0 >= 4 && matches!(exit, Exit::Rejected { reason } if reason.contains("holds 4 tasks"))),
        "{refused:?}"
    );
    executor.commands.retire();
    executor.commands.launch(machine.launch(NOOP, 9..10)).unwrap();
    executor.commands.stop(vec![Key(0), Key(1), Key(2), Key(3)], 0);
    tell(&mut executor).await;
    let (_, ended) = ends(&mut executor, 5).await;
    assert!(matches!(ended[&Key(9)], Exit::Rejected { .. }) && ended[&Key(3)] == Exit::Killed);
    executor.commands.forget(vec![Key(0), Key(1), Key(2), Key(3)]);
    tell(&mut executor).await;
    assert_eq!(executor.events.next().await, None);
    assert!(matches!(machine.recover().await, Recovered::Dead(_)));
}

#[tokio::test]
async fn what_is_fenced_ends_with_its_lease_and_what_is_renewed_runs_on() {
    const SECOND_NS: u64 = 1_000_000_000;
    let machine = Machine::new().await;
    let mut executor = machine.1.launch(machine.spec(10)).await.unwrap();
    let until = lease::boot_ns() + SECOND_NS;
    executor.commands.launch_fenced(machine.launch(SLEEPER, 0..2), until).unwrap();
    executor.commands.launch_fenced(machine.launch(ENDLESS, 2..3), until).unwrap();
    executor.commands.launch_fenced(machine.launch(NOOP, 3..4), lease::boot_ns()).unwrap();
    executor.commands.launch(machine.launch(SLEEPER, 4..5)).unwrap();
    executor.commands.renew(vec![Key(0), Key(3), Key(4)], until + 3_600 * SECOND_NS);
    tell(&mut executor).await;
    let (_, ended) = ends(&mut executor, 3).await;
    assert!(lease::boot_ns() >= until);
    assert_eq!(ended, BTreeMap::from([1, 2, 3].map(|key| (Key(key), Exit::LeaseOver))));
    // Nobody is there: it ends all the same.
    let until = lease::boot_ns() + SECOND_NS;
    executor.commands.launch_fenced(machine.launch(FLOOD, 5..6), until).unwrap();
    tell(&mut executor).await;
    starts(&mut executor, 1).await;
    drop(executor);
    while machine.living().await.held.live.len() > 2 {
        tokio::task::yield_now().await;
    }
    assert!(lease::boot_ns() >= until);
    machine.kill();
}

#[tokio::test]
async fn code_outside_what_it_may_read_is_rejected_and_the_executor_lives() {
    let machine = Machine::new().await;
    let mut executor = machine.1.launch(machine.spec(4)).await.unwrap();
    let mut launch = machine.launch(NOOP, 0..1);
    let outside = machine.0.path().join("outside");
    std::fs::copy(&launch.plan.compiled, &outside).unwrap();
    launch.plan.compiled = outside;
    launch.plan.digest = [9; 32];
    executor.commands.launch(launch).unwrap();
    executor.commands.launch(machine.launch(NOOP, 1..2)).unwrap();
    tell(&mut executor).await;
    let (_, ended) = ends(&mut executor, 2).await;
    assert_eq!(ended[&Key(1)], Exit::Code(0));
    if jail::probe().iter().any(|sentence| sentence.contains("no Landlock")) {
        println!("skipped: the kernel has no Landlock");
    } else {
        assert!(matches!(ended[&Key(0)], Exit::Rejected { .. }), "{ended:?}");
    }
}

#[tokio::test]
async fn an_executor_that_cannot_start_says_why() {
    let machine = Machine::new().await;
    let spec = ExecutorSpec { readable: vec![Path::new("/no/such/place").into()], ..machine.spec(4) };
    let error = machine.1.launch(spec).await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, LaunchError::Died { .. }) && said.contains("landlock") && said.contains("/no/such/place"), "{said}");
    assert!(matches!(machine.recover().await, Recovered::Dead(remains) if remains == Remains::default()));
    // Whoever asks for one gets no user but a role's, least of all root.
    for uid in [None, Some(0), Some(fixture::owner()), Some(1_000)].into_iter().filter(|_| fixture::uid().is_some()) {
        let error = machine.1.launch(ExecutorSpec { uid, number: 8, ..machine.spec(4) }).await.unwrap_err();
        assert!(matches!(&error, LaunchError::Refused { said, .. } if said.contains("is no role's")), "{error}");
        assert!(!machine.1.places().dir(process::Which::Wasm(8)).exists());
    }
}

#[tokio::test]
async fn a_client_that_talks_nonsense_or_nothing_hurts_only_itself() {
    use tokio::io::AsyncWriteExt;
    let machine = Machine::new().await;
    let mut executor = machine.1.launch(machine.spec(4)).await.unwrap();
    executor.commands.launch(machine.launch(SLEEPER, 0..1)).unwrap();
    tell(&mut executor).await;
    starts(&mut executor, 1).await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 1, 99], &[0, 0, 0, 0], &[0, 0, 0, 1, 1, 0, 0, 0, 1, 200]] {
        let (_held, path) = place::reach(&machine.dir()).unwrap();
        let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        drop(stream);
    }
    assert_eq!(machine.living().await.held.live.len(), 1);
}
