//! What runs here and what does not. The catalogue of hostile wasm is in `tests/it/hostile_wasm.rs`.

use super::*;

fn check(wat: &str, expected: Result<WasmKind, &str>) {
    let found = inspect(&wat::parse_str(wat).unwrap());
    match expected {
        Ok(kind) => assert_eq!(found.map(|inspection| inspection.kind), Ok(kind), "{wat}"),
        Err(part) => {
            let message = found.expect_err(wat).to_string();
            assert!(message.contains(part), "{wat}: {message}");
        }
    }
}

#[test]
fn a_module_that_starts_runs() {
    check(r#"(module (func (export "_start")))"#, Ok(WasmKind::Module));
    check(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (memory (export "memory") 1) (func (export "_start")))"#,
        Ok(WasmKind::Module),
    );
    check("(module)", Err("exports no function '_start'"));
    check(r#"(module (func (export "_start") (param i32)))"#, Err("'_start' has parameters"));
    check(r#"(module (memory (export "_start") 1))"#, Err("exports no function"));
}

#[test]
fn imports_that_nobody_offers_are_named() {
    check(
        r#"(module (import "env" "magic" (func)) (import "env" "memory" (memory 1)) (func (export "_start")))"#,
        Err("'env.magic', 'env.memory'"),
    );
    check(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func)) (func (export "_start")))"#,
        Err("proc_exit' with these parameters"),
    );
    check(r#"(module (import "wasi_snapshot_preview1" "fly" (func)) (func (export "_start")))"#, Err("preview1.fly"));
    check(r#"(component (import "wasi:nn/graph@0.2.0" (instance)))"#, Err("'wasi:nn/graph@0.2.0'"));
    check(r#"(component (import "host" (func)))"#, Err("'host'"));
    let old = inspect(&wat::parse_str(r#"(module (import "wasi_unstable" "proc_exit" (func (param i32))))"#).unwrap()).unwrap_err();
    assert!(old.help().is_some_and(|help| help.contains("preview 0")));
}

#[test]
fn a_component_runs_by_wasi_cli_run() {
    check("(component)", Err("exports no wasi:cli/run"));
    check(
        r#"(component
            (import "wasi:cli/stdout@0.2.3" (instance))
            (import "skep:task/context@0.1.0" (instance))
            (core module $m (memory 2) (table 7 funcref) (func (export "run") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $runs (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $runs)))"#,
        Ok(WasmKind::Component),
    );
}

#[test]
fn what_it_begins_with_is_counted() {
    let module = wat::parse_str(r#"(module (memory 3) (memory 2) (table 9 funcref) (table 4 funcref) (func (export "_start")))"#).unwrap();
    let expected = Inspection { kind: WasmKind::Module, memory_bytes_min: 5 << 16, table_elements_min: 9, functions: 1 };
    assert_eq!(inspect(&module), Ok(expected));
}

#[test]
fn what_is_not_allowed_is_refused_with_help() {
    for wat in [
        r#"(module (memory 1 1 shared) (func (export "_start")))"#,
        r#"(module (memory i64 1) (func (export "_start")))"#,
        r#"(module (type (struct)) (func (export "_start")))"#,
        r#"(module (tag) (func (export "_start")))"#,
        r#"(module (memory 1 (pagesize 1)) (func (export "_start")))"#,
    ] {
        let rejection = inspect(&wat::parse_str(wat).unwrap()).unwrap_err();
        assert!(matches!(rejection, Rejection::Feature { .. }) && rejection.help().is_some(), "{wat}: {rejection}");
    }
}

#[test]
fn other_files_are_told_by_looking() {
    assert_eq!(inspect(b""), Err(Rejection::Empty));
    assert_eq!(inspect(b"  (module)"), Err(Rejection::Text));
    assert_eq!(inspect(b"\x7fELF..."), Err(Rejection::Compiled { what: "an ELF file" }));
    assert_eq!(inspect(b"\x7fELF... .wasmtime.engine"), Err(Rejection::Compiled { what: "a .cwasm file" }));
    assert_eq!(inspect(b"#!/bin/sh"), Err(Rejection::NotWasm));
}
