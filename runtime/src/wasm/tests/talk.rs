//! What a task is told and what it says: arguments, environment, input, output, and `skep:task`.

use super::*;

const ARGS: &str = r#"
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $get (param i32 i32) (result i32)))"#;
const ENV: &str = r#"
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))"#;
/// Writes all that `$get` gives, zero bytes included, to standard output.
const TELL: &str = r#"
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (drop (call $get (i32.const 64) (i32.const 1024)))
    (i32.store (i32.const 16) (i32.const 1024))
    (i32.store (i32.const 20) (i32.load (i32.const 4)))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))"#;

#[tokio::test]
async fn gaps_are_filled_with_what_is_the_tasks_own() {
    let mut program = Program::new(&FUEL, &core(&format!("{ARGS} {FD_WRITE}"), TELL));
    program.plan.args =
        ["plain", "${task.index}/${task.attempt}", "${job}:${port.admin}", "${port.none}${unknown}${", "$${job}}", "${a${job}}"]
            .map(str::to_owned)
            .to_vec();
    assert_eq!(program.run().await.0, Exit::Code(0));
    let told = program.text();
    assert_eq!(told, ">sieve\0plain\x007/2\0sieve:9090\0${port.none}${unknown}${\0$sieve}\0${asieve}\0");

    let mut program = Program::new(&EPOCH, &core(&format!("{ENV} {FD_WRITE}"), TELL));
    program.plan.env = vec![("HOME".into(), "/".into()), ("PORT".into(), "${port.http}".into())];
    assert_eq!(program.run().await.0, Exit::Code(0));
    assert_eq!(program.text(), ">HOME=/\0PORT=8080\0");
}

#[tokio::test]
async fn standard_input_is_the_file_and_each_task_reads_it_from_its_beginning() {
    let text = core(
        &format!(r#"(import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32))) {FD_WRITE}"#),
        r#"(loop $on
            (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 4096))
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (i32.store (i32.const 4) (i32.load (i32.const 8)))
            (if (i32.load (i32.const 8)) (then
                (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 12)))
                (br $on))))"#,
    );
    let dir = Dir::new();
    let mut program = Program::new(&FUEL, &text);
    assert_eq!(program.run().await.0, Exit::Code(0));
    assert_eq!(program.text(), "");
    program.plan.stdin = Some(dir.file("input", b"hello, input"));
    assert_eq!(program.run().await.0, Exit::Code(0));
    assert_eq!(program.run().await.0, Exit::Code(0));
    assert_eq!(program.text(), "!hello, input!hello, input");
    program.plan.stdin = Some(dir.0.join("none"));
    assert!(matches!(program.prepare(), Err(LoadError::Stdin { .. })));
    program.plan.stdin = Some("/dev/zero".into());
    assert!(matches!(program.prepare(), Err(LoadError::Stdin { .. })));
}

#[tokio::test]
async fn a_flood_of_output_lets_others_run_and_ends_in_time() {
    let flood = r#"(i32.store (i32.const 4) (i32.const 65000))
        (loop $on (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $on))"#;
    for engine in [&*FUEL, &*EPOCH] {
        let program = Program::new(engine, &core(FD_WRITE, flood));
        let control = Control::new();
        let other = async {
            while program.output.bytes.load(Ordering::Relaxed) < 8 << 20 {
                tokio::task::yield_now().await;
            }
            control.kill();
        };
        let ((exit, _), ()) = tokio::join!(program.run_with(&control), other);
        assert_eq!(exit, Exit::Killed);
    }
}

#[tokio::test]
async fn random_bytes_of_any_number_are_given_and_lets_others_run() {
    let import = r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#;
    let some = core(
        import,
        "(if (call $random (i32.const 0) (i32.const 65536)) (then unreachable)) (if (i64.eqz (i64.load (i32.const 65528))) (then unreachable))",
    );
    assert_eq!(Program::new(&FUEL, &some).run().await.0, Exit::Code(0));
    let beyond = core(import, "(if (i32.ne (call $random (i32.const 8) (i32.const -1)) (i32.const 21)) (then unreachable))");
    assert_eq!(Program::new(&FUEL, &beyond).run().await.0, Exit::Code(0));
    let program = Program::new(&FUEL, &core(import, "(loop $on (drop (call $random (i32.const 0) (i32.const 65536))) (br $on))"));
    let control = Control::new();
    let kill = async {
        tokio::task::yield_now().await;
        control.kill();
    };
    assert_eq!(tokio::join!(program.run_with(&control), kill).0.0, Exit::Killed);
}

#[tokio::test]
async fn files_and_sockets_are_not_there() {
    let text = core(
        r#"(import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
           (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#,
        r#"(if (i32.ne (call $prestat (i32.const 3) (i32.const 0)) (i32.const 8)) (then unreachable))
           (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 8)))
               (then unreachable))"#,
    );
    assert_eq!(Program::new(&FUEL, &text).run().await.0, Exit::Code(0));
}

/// Asks `skep:task` everything, and fails where an answer is not what the plan says.
const ASKS: &str = r#"(component
    (type $context (instance
        (type $identity' (record (field "job" string) (field "task" string) (field "index" u32) (field "attempt" u32) (field "agent" string)))
        (export "identity" (type $identity (eq $identity')))
        (type $left (option u64))
        (type $budget' (record (field "fuel-left" $left) (field "memory-limit" u64) (field "deadline-ms" $left)))
        (export "budget" (type $budget (eq $budget')))
        (export "whoami" (func (result $identity)))
        (export "remaining" (func (result $budget)))
        (export "progress" (func (param "percent" u8) (param "note" string)))
        (export "fence" (func (result $left)))
        (export "stopping" (func (result bool)))))
    (import "skep:task/context@0.1.0" (instance $skep (type $context)))
    (core module $memory
        (memory (export "memory") 1)
        (global $next (mut i32) (i32.const 4096))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (global.get $next)
            (global.set $next (i32.and (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 15)) (i32.const -16)))))
    (core instance $memory (instantiate $memory))
    (core func $whoami (canon lower (func $skep "whoami") (memory $memory "memory") (realloc (func $memory "realloc"))))
    (core func $remaining (canon lower (func $skep "remaining") (memory $memory "memory")))
    (core func $progress (canon lower (func $skep "progress") (memory $memory "memory")))
    (core func $fence (canon lower (func $skep "fence") (memory $memory "memory")))
    (core func $stopping (canon lower (func $skep "stopping")))
    (core module $m
        (import "memory" "memory" (memory 1))
        (import "skep" "whoami" (func $whoami (param i32)))
        (import "skep" "remaining" (func $remaining (param i32)))
        (import "skep" "progress" (func $progress (param i32 i32 i32)))
        (import "skep" "fence" (func $fence (param i32)))
        (import "skep" "stopping" (func $stopping (result i32)))
        (data (i32.const 1024) "half\1b[2Jway")
        (func $must (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
        (func (export "run") (result i32)
            (call $whoami (i32.const 0))
            (call $must (i32.eq (i32.load (i32.const 4)) (i32.const 5)))
            (call $must (i32.eq (i32.load (i32.load (i32.const 0))) (i32.const 0x76656973)))
            (call $must (i32.eq (i32.load (i32.const 12)) (i32.const 7)))
            (call $must (i32.eq (i32.load (i32.const 16)) (i32.const 7)))
            (call $must (i32.eq (i32.load (i32.const 20)) (i32.const 2)))
            (call $remaining (i32.const 64))
            (call $must (i32.load8_u (i32.const 64)))
            (call $must (i64.lt_u (i64.load (i32.const 72)) (i64.const 1000000)))
            (call $must (i64.gt_u (i64.load (i32.const 72)) (i64.const 900000)))
            (call $must (i64.eq (i64.load (i32.const 80)) (i64.const 16777216)))
            (call $must (i32.load8_u (i32.const 88)))
            (call $must (i64.le_u (i64.load (i32.const 96)) (i64.const 60000)))
            (call $fence (i32.const 128))
            (call $must (i32.load8_u (i32.const 128)))
            (call $must (i64.eq (i64.load (i32.const 136)) (i64.const 1207959553)))
            (call $progress (i32.const 200) (i32.const 1024) (i32.const NOTE))
            (call $stopping)))
    (core instance $i (instantiate $m
        (with "memory" (instance $memory))
        (with "skep" (instance
            (export "whoami" (func $whoami)) (export "remaining" (func $remaining))
            (export "progress" (func $progress)) (export "fence" (func $fence)) (export "stopping" (func $stopping))))))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $command (export "run" (func $run)))
    (export "wasi:cli/run@0.2.12" (instance $command)))"#;

/// One that asks, fenced, and notes so many bytes.
fn asking(note: &str) -> Program {
    let mut program = Program::new(&FUEL, &ASKS.replace("NOTE", note));
    program.plan.limits.fuel_max = Some(1_000_000);
    program.plan.env = vec![("SKEP_FENCE".into(), "1207959553".into())];
    program
}

#[tokio::test]
async fn a_component_learns_who_it_is_and_says_how_far_it_is() {
    let program = asking("11");
    let control = Control::new();
    assert_eq!(program.run_with(&control).await.0, Exit::Code(0));
    let progress = control.progress().unwrap();
    assert_eq!((progress.percent, progress.note.as_str()), (100, "half [2Jway"));
    // `run` gives what `stopping` says, and who was asked to stop was killed, whatever the code.
    let control = Control::new();
    control.stop();
    assert_eq!(program.run_with(&control).await.0, Exit::Killed);
}

#[tokio::test]
async fn what_a_host_call_may_copy_is_limited() {
    let mut program = asking("50000");
    let control = Control::new();
    assert_eq!(program.run_with(&control).await.0, Exit::Code(0));
    assert_eq!(control.progress().unwrap().note.len(), super::super::NOTE_BYTES_MAX);
    program.plan.limits.host_bytes_max = 40_000;
    assert_eq!(program.run().await.0, Exit::OutOfHostBytes { limit_bytes: 40_000 });
}

#[tokio::test]
async fn a_buffer_beyond_the_limit_is_refused_to_preview_1_as_an_error_of_the_call() {
    let body = r#"(i32.store (i32.const 4) (i32.const 60000))
        (if (i32.ne (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (i32.const 48)) (then unreachable))"#;
    let mut program = Program::new(&FUEL, &core(FD_WRITE, body));
    program.plan.limits.host_bytes_max = 40_000;
    assert_eq!(program.run().await.0, Exit::Code(0));
    assert_eq!(program.text(), "");
}

#[tokio::test]
async fn random_bytes_beyond_the_limit_end_a_component() {
    let text = |bytes: u64| {
        r#"(component
            (import "wasi:random/random@0.2.0" (instance $random (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
            (core module $memory (memory (export "memory") 40)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
            (core instance $memory (instantiate $memory))
            (core func $get (canon lower (func $random "get-random-bytes") (memory $memory "memory") (realloc (func $memory "realloc"))))
            (core module $m
                (import "host" "get" (func $get (param i64 i32)))
                (import "memory" "memory" (memory 40))
                (func (export "run") (result i32)
                    (call $get (i64.const BYTES) (i32.const 0))
                    (i32.or (i32.eqz (i32.load (i32.const 1024))) (i32.ne (i32.load (i32.const 4)) (i32.const BYTES)))))
            (core instance $i (instantiate $m
                (with "memory" (instance $memory))
                (with "host" (instance (export "get" (func $get))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#
            .replace("BYTES", &bytes.to_string())
    };
    assert_eq!(Program::new(&FUEL, &text(1 << 20)).run().await.0, Exit::Code(0));
    assert_eq!(Program::new(&FUEL, &text((1 << 20) + 1)).run().await.0, Exit::OutOfHostBytes { limit_bytes: 1 << 20 });
}
