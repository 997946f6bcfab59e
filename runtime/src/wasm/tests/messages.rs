//! Messages of its framework, as a component takes them.

use super::*;

/// Notes each message as its progress, with how many there were; fails where one is there at its start.
const HEARS: &str = r#"(component
    (type $bytes (option (list u8)))
    (import "skep:task/messages@0.1.0" (instance $messages
        (export "receive" (func (result $bytes)))
        (export "wait" (func (param "timeout-ms" u64) (result $bytes)))))
    (import "skep:task/context@0.1.0" (instance $context (export "progress" (func (param "percent" u8) (param "note" string)))))
    (core module $memory
        (memory (export "memory") 2)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
    (core instance $memory (instantiate $memory))
    (core func $receive (canon lower (func $messages "receive") (memory $memory "memory") (realloc (func $memory "realloc"))))
    (core func $wait (canon lower (func $messages "wait") (memory $memory "memory") (realloc (func $memory "realloc"))))
    (core func $progress (canon lower (func $context "progress") (memory $memory "memory")))
    (core module $m
        (import "memory" "memory" (memory 2))
        (import "skep" "receive" (func $receive (param i32)))
        (import "skep" "wait" (func $wait (param i64 i32)))
        (import "skep" "progress" (func $progress (param i32 i32 i32)))
        (func (export "run") (result i32) (local $heard i32)
            (call $receive (i32.const 0))
            (if (i32.load8_u (i32.const 0)) (then unreachable))
            (call $wait (i64.const 1) (i32.const 0))
            (if (i32.load8_u (i32.const 0)) (then unreachable))
            (call $progress (i32.const 100) (i32.const 0) (i32.const 0))
            (loop $on
                (call $wait (i64.const -1) (i32.const 0))
                (if (i32.load8_u (i32.const 0)) (then
                    (local.set $heard (i32.add (local.get $heard) (i32.const 1)))
                    (call $progress (local.get $heard) (i32.load (i32.const 4)) (i32.load (i32.const 8)))
                    (br $on))))
            (i32.const 0)))
    (core instance $i (instantiate $m
        (with "memory" (instance $memory))
        (with "skep" (instance (export "receive" (func $receive)) (export "wait" (func $wait)) (export "progress" (func $progress))))))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $command (export "run" (func $run)))
    (export "wasi:cli/run@0.2.12" (instance $command)))"#;

/// Waits until the task says this.
async fn until(control: &Control, percent: u8, note: &str) {
    while control.progress().is_none_or(|progress| (progress.percent, progress.note.as_str()) != (percent, note)) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_component_takes_messages_in_order_and_stops_waiting_when_it_is_to_stop() {
    for engine in [&*FUEL, &*EPOCH] {
        let (program, control) = (Program::new(engine, HEARS), Control::new());
        control.hear(b"before it runs".to_vec());
        let speaks = async {
            until(&control, 100, "").await;
            control.hear(b"one".to_vec());
            until(&control, 1, "one").await;
            (0..9).for_each(|n| control.hear(vec![b'a' + n]));
            until(&control, 10, "i").await;
            control.stop();
        };
        let ((exit, _), ()) = tokio::join!(program.run_with(&control), speaks);
        assert_eq!((exit, control.dropped()), (Exit::Killed, 0));
    }
}

#[tokio::test]
async fn one_that_waits_is_killed_and_its_deadline_ends_it() {
    let (mut program, control) = (Program::new(&FUEL, HEARS), Control::new());
    let kill = async {
        until(&control, 100, "").await;
        control.kill();
    };
    assert_eq!(tokio::join!(program.run_with(&control), kill).0.0, Exit::Killed);
    program.plan.limits.time_ms_max = Some(200);
    assert_eq!(program.run().await.0, Exit::OutOfTime { limit_ms: 200 });
}

#[tokio::test]
async fn a_program_that_takes_no_messages_keeps_none() {
    let (program, control) = (Program::new(&FUEL, &sleep(u64::MAX >> 1)), Control::new());
    let speaks = async {
        while program.output.started.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        (0..1_000).for_each(|_| control.hear(vec![0; 1 << 10]));
        control.kill();
    };
    assert_eq!(tokio::join!(program.run_with(&control), speaks).0.0, Exit::Killed);
    assert_eq!(control.dropped(), 0);
}
