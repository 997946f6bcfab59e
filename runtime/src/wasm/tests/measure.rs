//! What a task costs, printed: `cargo test --release -p runtime measure -- --ignored --nocapture --test-threads=1`. Proves nothing by passing.

use super::*;
use std::time::Instant;

async fn rate(engine: &'static Engine, name: &str, text: &str) {
    const RUNS: u32 = 100_000;
    let program = Program::new(engine, text);
    let (prepared, start) = (program.prepare().unwrap(), start());
    let began = Instant::now();
    for _ in 0..RUNS {
        let (exit, _) = engine.run(&prepared, &start, program.output.clone(), &Control::new()).await;
        assert_eq!(exit, Exit::Code(0));
    }
    let each = began.elapsed() / RUNS;
    println!("{name} {:?}: {each:?} each, one thread", engine.metering());
}

#[tokio::test]
#[ignore = "prints figures"]
async fn tasks_that_do_nothing() {
    for engine in [&*FUEL, &*EPOCH] {
        rate(engine, "core", &core("", "")).await;
        rate(engine, "core, one page dirty", &core("", "(i32.store (i32.const 0) (i32.const 1))")).await;
        rate(engine, "component", &component("i32.const 0")).await;
    }
}

/// Resident memory and page tables of this process, in KiB.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (kib("VmRSS:"), kib("VmPTE:"))
}

/// A process of its own for each, since a pool keeps what it once had.
async fn sleepers(name: &str, text: &str) {
    const SLEEPERS: usize = 10_000;
    static LARGE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Metering::Fuel, &Sizing { tasks_max: SLEEPERS as u32 }).unwrap());
    println!("{:?}", LARGE.obtained());
    let program = Program::new(&LARGE, text);
    let prepared = program.prepare().unwrap();
    println!("{} bytes of future, {} of store data", size_of_val(&program.run()), size_of::<super::super::host::Task>());
    let before = resident();
    let controls: Vec<Control> = (0..SLEEPERS).map(|_| Control::new()).collect();
    let tasks: Vec<_> = controls
        .iter()
        .cloned()
        .map(|control| {
            let (prepared, output) = (Arc::clone(&prepared), program.output.clone());
            tokio::spawn(async move { LARGE.run(&prepared, &start(), output, &control).await.0 })
        })
        .collect();
    while program.output.started.load(Ordering::Relaxed) < SLEEPERS as u64 {
        tokio::task::yield_now().await;
    }
    let after = resident();
    let each = |before: u64, after: u64| (after - before) as f64 / SLEEPERS as f64;
    println!("{name}: {:.1} KiB resident and {:.1} of page tables each", each(before.0, after.0), each(before.1, after.1));
    controls.iter().for_each(Control::kill);
    for task in tasks {
        assert_eq!(task.await.unwrap(), Exit::Killed);
    }
}

#[tokio::test]
#[ignore = "prints figures"]
async fn core_tasks_that_sleep() {
    sleepers("core", &sleep(u64::MAX)).await;
}

#[tokio::test]
#[ignore = "prints figures"]
async fn components_that_sleep() {
    sleepers("component", &component_sleep(u64::MAX)).await;
}
