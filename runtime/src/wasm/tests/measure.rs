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
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    kib("VmRSS:") + kib("VmPTE:")
}

#[tokio::test]
#[ignore = "prints figures"]
async fn tasks_that_sleep() {
    const SLEEPERS: usize = 10_000;
    static LARGE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Metering::Fuel, &Sizing { tasks_max: SLEEPERS as u32 }).unwrap());
    println!("{:?}", LARGE.obtained());
    for (name, text) in [("core", sleep(u64::MAX)), ("component", component_sleep(u64::MAX))] {
        let program = Program::new(&LARGE, &text);
        let prepared = program.prepare().unwrap();
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
        println!("{name}: {:.1} KiB each of {SLEEPERS}", (resident() - before) as f64 / SLEEPERS as f64);
        controls.iter().for_each(Control::kill);
        for task in tasks {
            assert_eq!(task.await.unwrap(), Exit::Killed);
        }
    }
}
