//! Bytes that are not a program, and programs that nobody can run: a clear refusal, no panic.

use super::*;
use compile::CompileError;

fn refusal(bytes: &[u8]) -> String {
    match compile::compile(bytes, Metering::Fuel) {
        Err(CompileError::Refused(reason)) => {
            assert!(!reason.is_empty() && reason.len() <= 1_024 && !reason.contains(char::is_control), "{reason:?}");
            reason
        }
        other => panic!("{bytes:?}: {:?}", other.map(|code| code.len())),
    }
}

#[test]
fn bytes_that_are_no_wasm_are_refused_with_the_reason() {
    let cases: [(&[u8], &str); 7] = [
        (b"", "empty"),
        (b"\0asm", "version"),
        (b"\0asm\x02\0\0\0", "version"),
        (b"\0asm\x0d\0\x02\0", "version"),
        (b"#!/bin/sh\n", "not wasm"),
        (b"(module)", "not wasm"),
        (b"\0asm\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff", "not valid"),
    ];
    for (bytes, expected) in cases {
        assert!(refusal(bytes).contains(expected), "{}", refusal(bytes));
    }
    let compiled = compile::compile(&wat::parse_str("(module)").unwrap(), Metering::Fuel).unwrap();
    assert!(refusal(&compiled).contains("compiled code"));
    assert!(refusal(&vec![0; compile::WASM_BYTES_MAX as usize + 1]).contains("at most"));
}

#[test]
fn a_module_cut_anywhere_is_refused_or_whole() {
    let texts = [core(FD_WRITE, "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"), component("i32.const 0")];
    for text in texts {
        let wasm = wat::parse_str(&text).unwrap();
        for length in 0..wasm.len() {
            // Between two sections the rest is a smaller program: valid, and without an entry.
            match compile::compile(&wasm[..length], Metering::Fuel) {
                Ok(_) => assert!(length >= 8),
                Err(CompileError::Refused(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn random_bytes_behind_a_header_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for header in [b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"] {
        for _ in 0..200 {
            let mut bytes = header.to_vec();
            for _ in 0..64 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.push(state as u8 & if bytes.len() < 12 { 0x0f } else { 0xff });
            }
            match compile::compile(&bytes, Metering::Fuel) {
                Ok(_) | Err(CompileError::Refused(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn features_that_are_not_offered_are_refused() {
    let texts = [
        "(module (memory 1 2 shared))",
        "(module (memory i64 1))",
        "(module (memory 281474976710656))",
        "(module (tag))",
        "(module (type (struct)))",
        "(module (memory 1 (pagesize 1)))",
        "(module (func (result i32)))",
    ];
    for text in texts {
        // What the text format itself cannot say is no case.
        if let Ok(wasm) = wat::parse_str(text) {
            refusal(&wasm);
        }
    }
}

#[test]
fn very_deep_blocks_are_compiled_or_refused() {
    for depth in [1_000, 50_000] {
        let mut body = vec![0x00];
        body.extend(std::iter::repeat_n([0x02, 0x40], depth).flatten());
        body.extend(std::iter::repeat_n(0x0b, depth + 1));
        let leb = |mut value: usize| {
            let mut bytes = vec![];
            while value >= 0x80 {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
            bytes
        };
        let code = [vec![1], leb(body.len()), body].concat();
        let mut wasm = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a".to_vec();
        wasm.extend(leb(code.len()));
        wasm.extend(code);
        match compile::compile(&wasm, Metering::Fuel) {
            Ok(_) | Err(CompileError::Refused(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_segment_out_of_bounds_is_a_trap() {
    let texts = [
        r#"(module (memory 1) (data (i32.const 65530) "too long for it") (func (export "_start")))"#,
        r#"(module (table 1 funcref) (elem (i32.const 1) $f) (func $f) (func (export "_start")))"#,
        r#"(module (func $trap unreachable) (start $trap) (func (export "_start")))"#,
    ];
    for text in texts {
        let (exit, _) = Program::new(&FUEL, text).run().await;
        assert!(matches!(exit, Exit::Trap { .. }), "{exit:?}");
    }
}

#[test]
fn programs_that_nobody_can_run_are_refused_by_name() {
    let many: String = (0..20).map(|at| format!(r#"(import "a" "f{at}" (func))"#)).collect();
    let cases = [
        (r#"(module (import "env" "magic" (func)) (func (export "_start")))"#.to_owned(), "env/magic"),
        (format!(r#"(module {many} (func (export "_start")))"#), "and 12 more"),
        (r#"(module (import "wasi_snapshot_preview1" "fd_fly" (func)) (func (export "_start")))"#.to_owned(), "fd_fly"),
        (r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)) (func (export "_start")))"#.to_owned(), "fd_write"),
        ("(module)".to_owned(), "_start"),
        (r#"(module (func (export "_start") (param i32)))"#.to_owned(), "_start"),
        (r#"(module (memory (export "_start") 1))"#.to_owned(), "_start"),
        (r#"(module (table 100000 funcref) (func (export "_start")))"#.to_owned(), "table"),
        (r#"(module (table 4294967295 funcref) (func (export "_start")))"#.to_owned(), "table"),
        (format!(r#"(module {} (func (export "_start")))"#, "(memory 1)".repeat(9)), "memories"),
        (r#"(component (import "acme:cloud/rain@1.0.0" (instance (export "fall" (func)))))"#.to_owned(), "acme:cloud/rain"),
        (
            r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance (export "handle" (func)))))"#.to_owned(),
            "wasi:http/outgoing-handler",
        ),
        (r#"(component (import "skep:task/context@0.1.0" (instance (export "whoami" (func)))))"#.to_owned(), "whoami"),
        ("(component)".to_owned(), "wasi:cli/run"),
    ];
    for (text, expected) in cases {
        match Program::new(&FUEL, &text).prepare() {
            Err(LoadError::Refused(reason)) => assert!(reason.contains(expected) && reason.len() <= 512, "{text}: {reason}"),
            Err(other) => panic!("{text}: {other}"),
            Ok(_) => panic!("{text}"),
        }
    }
}

#[test]
fn code_that_was_compiled_otherwise_is_not_loaded() {
    let dir = Dir::new();
    let mut program = Program::new(&FUEL, &core("", ""));
    let wasm = wat::parse_str(core("", "")).unwrap();
    let other = compile::compile(&wasm, Metering::Epoch).unwrap();
    let mut cut = compile::compile(&wasm, Metering::Fuel).unwrap();
    cut.truncate(cut.len() / 2);
    for (at, bytes) in [other, cut, wasm, vec![], b"\x7fELF".to_vec()].into_iter().enumerate() {
        program.plan.compiled = dir.file("bad", &bytes);
        program.plan.digest = [at as u8; 32];
        assert!(matches!(program.prepare(), Err(LoadError::Unusable { .. })), "{at}");
    }
    program.plan.compiled = dir.0.join("none");
    assert!(matches!(program.prepare(), Err(LoadError::Unusable { .. })));
}

#[test]
fn what_code_depends_on_is_the_same_in_both_processes_and_differs_by_metering() {
    assert_eq!(compile::compatibility(Metering::Fuel).unwrap(), compile::compatibility(Metering::Fuel).unwrap());
    assert_ne!(compile::compatibility(Metering::Fuel).unwrap(), compile::compatibility(Metering::Epoch).unwrap());
}
