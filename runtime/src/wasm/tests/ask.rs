//! What an export says of whether its task is well: each answer that there can be, and each way not to answer.

use super::*;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(20);

const EXPORTS: &str = r#"
    (func (export "well") (result i32) (i32.const 0))
    (func (export "fine"))
    (func (export "ill") (result i32) (i32.const -3))
    (func (export "trap") unreachable)
    (func (export "spin") (loop $on (br $on)))
    (func (export "deep") (drop (memory.grow (i32.const 60000))) (i32.store (i32.const 1000000000) (i32.const 1)))
    (func (export "left") (call $exit (i32.const 4)))
    (func (export "gone") (call $exit (i32.const 0)))
    (func (export "late") NS)
    (func (export "wrong") (param i32))
    (func (export "says") (result i32)
        (i32.store (i32.const 64) (i32.const 72)) (i32.store (i32.const 68) (i32.const 12))
        (drop (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 60)))
        (i32.const 1))
    (data (i32.const 72) "no database\n")"#;

fn program(engine: &'static Engine) -> Program {
    let sleep = SLEEP.replace("NS", "600000000000");
    Program::new(
        engine,
        &format!(
            r#"(module {PROC_EXIT} {FD_WRITE} {POLL} (memory (export "memory") 1) (func (export "_start")) {})"#,
            EXPORTS.replace("NS", &sleep)
        ),
    )
}

async fn said(program: &Program, export: &str, wait: Duration) -> Result<(), String> {
    program.engine.ask(&program.prepare().unwrap(), &start(), export, wait).await
}

#[tokio::test]
async fn a_core_export_says_so_by_its_code_and_what_it_prints_says_why() {
    for engine in [&*FUEL, &*EPOCH] {
        let mut program = program(engine);
        program.plan.limits.fuel_max = (engine.metering() == Metering::Fuel).then_some(1_000_000);
        program.plan.limits.cpu_time_ms_max = (engine.metering() == Metering::Epoch).then_some(100);
        for (export, answer) in [
            ("well", Ok(())),
            ("fine", Ok(())),
            ("gone", Ok(())),
            ("ill", Err("ill says -3")),
            ("says", Err("says says 1: no database")),
            ("left", Err("left: exit code 4")),
            ("trap", Err("trap: wasm trap: wasm `unreachable` instruction executed")),
            ("deep", Err("deep: out of memory: it may have 16777216 bytes")),
            ("wrong", Err("wrong says nothing: it is no function")),
            ("none", Err("none says nothing: there is no such export")),
            ("memory", Err("memory says nothing: there is no such export")),
        ] {
            let said = said(&program, export, WAIT).await;
            match answer {
                Ok(()) => assert_eq!(said, Ok(()), "{export}"),
                Err(reason) => assert!(said.as_ref().is_err_and(|said| said.starts_with(reason)), "{export}: {said:?}"),
            }
        }
        assert!(said(&program, "spin", WAIT).await.is_err(), "by fuel or by time, it ends");
        let late = said(&program, "late", Duration::from_millis(50)).await;
        assert!(late.as_ref().is_err_and(|late| late.starts_with("no answer of late in")), "{late:?}");
    }
}

/// A component with the export `well` of this type, by a core function that gives `code`.
fn component_saying(kind: &str, code: u32) -> String {
    let run = component("i32.const 0");
    let open = run.trim_end().strip_suffix(')').unwrap();
    format!(
        r#"{open}
            (core module $w (func (export "well") (result i32) (i32.const {code})))
            (core instance $j (instantiate $w))
            (func $well (result {kind}) (canon lift (core func $j "well")))
            (export "well" (func $well)))"#
    )
}

#[tokio::test]
async fn a_component_says_so_by_a_bool_or_a_result() {
    for (kind, code, answer) in [
        ("bool", 1, Ok(())),
        ("bool", 0, Err("well says no")),
        ("(result)", 0, Ok(())),
        ("(result)", 1, Err("well says an error")),
        ("u32", 0, Err("well says something that is no bool and no result")),
    ] {
        let program = Program::new(&FUEL, &component_saying(kind, code));
        assert_eq!(said(&program, "well", WAIT).await, answer.map_err(str::to_owned), "{kind} {code}");
        assert!(said(&program, "ill", WAIT).await.is_err());
    }
}
