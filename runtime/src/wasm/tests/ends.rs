//! Each way for a task to end is an exit of its own.

use super::*;
use std::time::Duration;

type Change = fn(&mut Limits);

/// Runs `text` under both kinds of metering, with `change` made to the limits.
async fn check(text: &str, change: Change, expected: impl Fn(&Exit, &Usage) -> bool) {
    for engine in [&*FUEL, &*EPOCH] {
        check_on(engine, text, change, &expected).await;
    }
}

async fn check_on(engine: &'static Engine, text: &str, change: Change, expected: impl Fn(&Exit, &Usage) -> bool) {
    let mut program = Program::new(engine, text);
    change(&mut program.plan.limits);
    let (exit, usage) = program.run().await;
    assert!(expected(&exit, &usage), "{:?}: {exit:?} {usage:?}: {text}", engine.metering());
}

#[tokio::test]
async fn a_task_that_does_nothing_ends_with_zero() {
    check(&core("", ""), |_| (), |exit, usage| *exit == Exit::Code(0) && usage.memory_peak_bytes == 65_536).await;
    check(&component("i32.const 0"), |_| (), |exit, _| *exit == Exit::Code(0)).await;
    check(r#"(module (func (export "_start")))"#, |_| (), |exit, usage| *exit == Exit::Code(0) && usage.memory_peak_bytes == 0).await;
}

#[tokio::test]
async fn exit_codes_of_preview_1_are_kept() {
    for code in [0, 3, 125, 126, 134, -1] {
        let text = core(PROC_EXIT, &format!("(call $exit (i32.const {code}))"));
        check(&text, |_| (), |exit, _| *exit == Exit::Code(code)).await;
    }
}

#[tokio::test]
async fn the_error_of_a_component_is_code_one() {
    check(&component("i32.const 1"), |_| (), |exit, _| *exit == Exit::Code(1)).await;
}

#[tokio::test]
async fn a_trap_names_its_reason_and_its_function() {
    let text = r#"(module (func $inner unreachable) (func $outer (export "_start") call $inner))"#;
    check(
        text,
        |_| (),
        |exit, _| matches!(exit, Exit::Trap { reason } if reason.contains("unreachable") && reason.contains("inner < outer")),
    )
    .await;
    check(&component("unreachable"), |_| (), |exit, _| matches!(exit, Exit::Trap { reason } if reason.contains("unreachable"))).await;
    let long = format!(r#"(module (func ${} (export "_start") unreachable))"#, "x".repeat(5_000));
    check(&long, |_| (), |exit, _| matches!(exit, Exit::Trap { reason } if reason.len() <= 512)).await;
}

#[tokio::test]
async fn deep_recursion_is_a_trap() {
    let text = r#"(module (func $deep (export "_start") (call $deep) (call $deep)))"#;
    check(text, |_| (), |exit, _| matches!(exit, Exit::Trap { reason } if reason.contains("stack"))).await;
}

#[tokio::test]
async fn fuel_ends_a_loop_and_says_its_limit() {
    let over = |exit: &Exit, usage: &Usage| *exit == Exit::OutOfFuel { limit: 1_000_000 } && usage.fuel == 1_000_000;
    check_on(&FUEL, &core("", SPIN), |limits| limits.fuel_max = Some(1_000_000), over).await;
    let in_start = format!(r#"(module (func $spin {SPIN}) (start $spin) (func (export "_start")))"#);
    check_on(&FUEL, &in_start, |limits| limits.fuel_max = Some(1_000_000), over).await;
    check_on(&FUEL, &component(&format!("{SPIN} i32.const 0")), |limits| limits.fuel_max = Some(1_000_000), over).await;
    // One bulk operation is as much as the bytes that it moves.
    let bulk = core("", "(loop $on (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $on))");
    check_on(&FUEL, &bulk, |limits| limits.fuel_max = Some(1_000_000), |exit, _| matches!(exit, Exit::OutOfFuel { .. })).await;
}

#[tokio::test]
async fn the_same_run_uses_the_same_fuel() {
    let text = core(
        "",
        "(local $i i32) (loop $on (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $on (i32.lt_u (local.get $i) (i32.const 1000000))))",
    );
    let program = Program::new(&FUEL, &text);
    let (first, used) = program.run().await;
    assert_eq!(first, Exit::Code(0));
    assert!(used.fuel > 1_000_000);
    assert_eq!(program.run().await.1.fuel, used.fuel);
    // And with half of it the end is at the same place.
    let mut program = Program::new(&FUEL, &text);
    program.plan.limits.fuel_max = Some(used.fuel / 2);
    let (exit, half) = program.run().await;
    assert_eq!((&exit, half.fuel), (&Exit::OutOfFuel { limit: used.fuel / 2 }, used.fuel / 2));
    let again = program.run().await;
    assert_eq!((again.0, again.1.fuel), (exit, half.fuel));
}

#[tokio::test]
async fn running_time_ends_a_loop_and_waiting_is_not_running() {
    let over = |exit: &Exit, _: &Usage| *exit == Exit::OutOfCpuTime { limit_ms: 50 };
    check_on(&EPOCH, &core("", SPIN), |limits| limits.cpu_time_ms_max = Some(50), over).await;
    check_on(&EPOCH, &sleep(200_000_000), |limits| limits.cpu_time_ms_max = Some(50), |exit, _| *exit == Exit::Code(0)).await;
}

#[tokio::test]
async fn wall_time_ends_a_loop_and_a_wait() {
    let over = |exit: &Exit, usage: &Usage| *exit == Exit::OutOfTime { limit_ms: 50 } && usage.time_us >= 50_000;
    let texts = [
        core("", SPIN),
        sleep(u64::MAX),
        sleep(3_600_000_000_000),
        component(&format!("{SPIN} i32.const 0")),
        component_sleep(u64::MAX),
        component_sleep(3_600_000_000_000),
    ];
    for text in texts {
        check(&text, |limits| limits.time_ms_max = Some(50), over).await;
    }
}

#[tokio::test]
async fn memory_beyond_the_limit_is_told_with_limit_and_peak() {
    let over = |exit: &Exit, _: &Usage| *exit == Exit::OutOfMemory { limit_bytes: 16 << 20, peak_bytes: 16 << 20 };
    check(&core("", "(loop $on (drop (memory.grow (i32.const 1))) (br $on))"), |_| (), over).await;
    let none = |exit: &Exit, _: &Usage| *exit == Exit::OutOfMemory { limit_bytes: 16 << 20, peak_bytes: 0 };
    check(r#"(module (memory 65536) (func (export "_start")))"#, |_| (), none).await;
    let both = r#"(module (memory 200) (memory 100) (func (export "_start")))"#;
    check(both, |_| (), |exit, _| *exit == Exit::OutOfMemory { limit_bytes: 16 << 20, peak_bytes: 200 * 65_536 }).await;
    check(
        both,
        |limits| limits.memory_bytes_max = 300 * 65_536,
        |exit, usage| *exit == Exit::Code(0) && usage.memory_peak_bytes == 300 * 65_536,
    )
    .await;
    check(&component("(drop (memory.grow (i32.const 65535))) i32.const 0"), |_| (), |exit, _| matches!(exit, Exit::OutOfMemory { .. }))
        .await;
}

#[tokio::test]
async fn a_memory_that_forbids_itself_to_grow_is_told_so_as_wasm_says() {
    let text = r#"(module (memory 1 2) (func (export "_start")
        (if (i32.ne (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))
        (if (i32.ne (memory.grow (i32.const 1)) (i32.const 1)) (then unreachable))))"#;
    check(text, |_| (), |exit, usage| *exit == Exit::Code(0) && usage.memory_peak_bytes == 2 * 65_536).await;
}

#[tokio::test]
async fn a_table_beyond_the_limit_is_told_with_limit_and_wish() {
    let text =
        r#"(module (table 1 funcref) (func (export "_start") (loop $on (drop (table.grow (ref.null func) (i32.const 600))) (br $on))))"#;
    check(text, |_| (), |exit, _| *exit == Exit::OutOfTable { limit: 1_000, wanted: 1_201 }).await;
    check(
        r#"(module (table 1001 funcref) (func (export "_start")))"#,
        |_| (),
        |exit, _| *exit == Exit::OutOfTable { limit: 1_000, wanted: 1_001 },
    )
    .await;
}

#[tokio::test]
async fn a_kill_ends_what_runs_and_what_waits() {
    for engine in [&*FUEL, &*EPOCH] {
        for text in [core("", SPIN), sleep(u64::MAX), component_sleep(u64::MAX)] {
            let program = Program::new(engine, &text);
            let control = Control::new();
            let killer = control.clone();
            let kill = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                killer.kill();
            };
            let ((exit, usage), ()) = tokio::join!(program.run_with(&control), kill);
            assert_eq!(exit, Exit::Killed);
            assert!(usage.time_us > 0);
        }
    }
}

#[tokio::test]
async fn a_full_pool_makes_tasks_wait_and_a_waiting_task_can_be_killed() {
    static SMALL: LazyLock<Engine> = LazyLock::new(|| Engine::new(Metering::Fuel, &Sizing { tasks_max: 2 }).unwrap());
    let program = Program::new(&SMALL, &sleep(1_000_000));
    let all = futures::future::join_all((0..50).map(|_| program.run())).await;
    assert!(all.iter().all(|(exit, _)| *exit == Exit::Code(0)), "{all:?}");

    let holder = Program::new(&SMALL, &sleep(u64::MAX));
    let holds = [Control::new(), Control::new()];
    let waiting = Control::new();
    waiting.kill();
    let late = async {
        while holder.output.started.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        let ended = program.run_with(&waiting).await;
        holds.iter().for_each(Control::kill);
        ended
    };
    let (.., (exit, _)) = tokio::join!(holder.run_with(&holds[0]), holder.run_with(&holds[1]), late);
    assert_eq!(exit, Exit::Killed);
}

#[tokio::test]
async fn spinning_tasks_leave_the_thread_to_others() {
    for engine in [&*FUEL, &*EPOCH] {
        let spinner = Program::new(engine, &core("", SPIN));
        let other = Program::new(engine, &sleep(5_000_000));
        let control = Control::new();
        let short = async {
            let ended = other.run().await;
            control.kill();
            ended
        };
        // One thread: without a yield the second would never be polled.
        let (spun, (exit, _)) = tokio::join!(spinner.run_with(&control), short);
        assert_eq!((spun.0, exit), (Exit::Killed, Exit::Code(0)));
    }
}
