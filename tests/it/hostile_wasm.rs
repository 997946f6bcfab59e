//! Wasm that nobody should run, or that looks so: one text each in `tests/hostile/wasm`, and bytes that no text makes, made here. What a
//! master says of them before an agent ever sees them. What a valid module then does to its executor is the runtime's.

use master::admit::wasm::{FUNCTIONS_MAX, WASM_BYTES_MAX};
use master::admit::{Rejection, inspect};
use std::fs;
use std::path::Path;

/// File, and the kind of answer.
const CASES: &[(&str, &str)] = &[
    ("atomics.wat", "Feature"),
    ("collected-types.wat", "Feature"),
    ("component-async.wat", "Feature"),
    ("component-empty.wat", "NoEntry"),
    ("component-import-component.wat", "Imports"),
    ("component-import-function.wat", "Imports"),
    ("component-import-resource.wat", "Imports"),
    ("component-of-another-version.wat", "Imports"),
    ("component-run-is-a-function.wat", "NoEntry"),
    ("component-serves-http.wat", "NoEntry"),
    ("component-with-threads-inside.wat", "Feature"),
    ("data-out-of-bounds.wat", "Runs"),
    ("elements-out-of-bounds.wat", "Runs"),
    ("entry-is-a-global.wat", "NoEntry"),
    ("entry-with-parameters.wat", "NoEntry"),
    ("exceptions.wat", "Feature"),
    ("exported-twice.wat", "Invalid"),
    ("import-of-a-memory-as-function.wat", "Imports"),
    ("import-of-another-type.wat", "Imports"),
    ("import-unknown.wat", "Imports"),
    ("import-with-terminal-escape.wat", "Imports"),
    ("locals-50001.wat", "Invalid"),
    ("memories-many.wat", "Invalid"),
    ("memory-of-4-gib.wat", "Runs"),
    ("memory64-small.wat", "Feature"),
    ("memory64.wat", "Invalid"),
    ("name-section-with-terminal-escape.wat", "Runs"),
    ("no-entry.wat", "NoEntry"),
    ("page-of-one-byte.wat", "Feature"),
    ("parameters-1001.wat", "Invalid"),
    ("preview-0.wat", "Imports"),
    ("recursion-without-end.wat", "Runs"),
    ("shared-memory.wat", "Feature"),
    ("stack-of-another-type.wat", "Invalid"),
    ("start-loops.wat", "Runs"),
    ("start-traps.wat", "Runs"),
    ("table-of-2-32.wat", "Runs"),
    ("tables-many.wat", "Invalid"),
    ("tail-calls-without-end.wat", "Runs"),
];

fn answer(bytes: &[u8]) -> &'static str {
    let found = inspect(bytes);
    if let Err(rejection) = &found {
        let problem = rejection.to_problem("task.wasm");
        assert!(
            !problem.message.is_empty() && problem.message.len() < 4_096 && !problem.message.chars().any(char::is_control),
            "{problem:?}"
        );
    }
    match found {
        Ok(_) => "Runs",
        Err(Rejection::Empty) => "Empty",
        Err(Rejection::TooLarge { .. }) => "TooLarge",
        Err(Rejection::Text) => "Text",
        Err(Rejection::Compiled { .. }) => "Compiled",
        Err(Rejection::NotWasm) => "NotWasm",
        Err(Rejection::Invalid { .. }) => "Invalid",
        Err(Rejection::Feature { .. }) => "Feature",
        Err(Rejection::TooMany { .. }) => "TooMany",
        Err(Rejection::NoEntry { .. }) => "NoEntry",
        Err(Rejection::Imports { .. }) => "Imports",
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/wasm")
}

/// A module of these sections: each its id and its bytes.
fn module(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    for (id, body) in sections {
        bytes.push(*id);
        bytes.extend(leb(body.len() as u64));
        bytes.extend(body);
    }
    bytes
}

fn component(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = module(sections);
    bytes[4..8].copy_from_slice(b"\x0d\0\x01\0");
    bytes
}

fn leb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A vector that says it has `count` items and has `times` times `item`.
fn vector(count: u64, item: &[u8], times: usize) -> Vec<u8> {
    [leb(count), item.repeat(times)].concat()
}

const TYPE: &[u8] = b"\x60\0\0";
const START: &[u8] = b"\x01\x06_start\0\0";

/// A module whose `_start` has this body, its locals included.
fn with_body(body: &[u8]) -> Vec<u8> {
    let code = [leb(1), leb(body.len() as u64), body.to_vec()].concat();
    module(&[(1, vector(1, TYPE, 1)), (3, vec![1, 0]), (7, START.to_vec()), (10, code)])
}

#[test]
fn a_hostile_text_gets_its_answer() {
    let mut wrong = Vec::new();
    for (file, expected) in CASES {
        let bytes = wat::parse_bytes(&fs::read(folder().join(file)).expect(file)).expect(file).into_owned();
        let found = answer(&bytes);
        if found != *expected {
            wrong.push(format!("{file}: expected {expected}, found {found}: {:?}", inspect(&bytes)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("in the checkout")
        .map(|file| file.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, CASES.iter().map(|(file, _)| (*file).to_owned()).collect::<Vec<_>>());
}

#[test]
fn hostile_bytes_get_their_answer() {
    let million = 1_000_000;
    let empty_function = b"\x02\0\x0b";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no bytes", vec![], "Empty"),
        ("magic only", b"\0asm".to_vec(), "Invalid"),
        ("version 2", b"\0asm\x02\0\0\0".to_vec(), "Invalid"),
        ("an unknown layer", b"\0asm\x01\0\x07\0".to_vec(), "Invalid"),
        ("text", b"(module)".to_vec(), "Text"),
        ("a script", b"#!/bin/sh\nreboot\n".to_vec(), "NotWasm"),
        ("an archive", b"\x1f\x8b\x08\0".to_vec(), "NotWasm"),
        ("an executable", fs::read(env!("CARGO_BIN_EXE_skep")).expect("built").into_iter().take(1 << 20).collect(), "Compiled"),
        ("a section longer than the file", b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x0f".to_vec(), "Invalid"),
        ("an overlong length", b"\0asm\x01\0\0\0\x01\x80\x80\x80\x80\x80\x80\x00".to_vec(), "Invalid"),
        ("an unknown section", module(&[(99, vec![])]), "Invalid"),
        ("sections out of order", module(&[(3, vec![0]), (1, vec![0])]), "Invalid"),
        ("a section twice", module(&[(1, vec![0]), (1, vec![0])]), "Invalid"),
        ("a million types", module(&[(1, vector(million, TYPE, 1_000_000))]), "TooMany"),
        ("four thousand million types, none there", module(&[(1, leb(u64::from(u32::MAX)))]), "TooMany"),
        ("a million functions", module(&[(1, vector(1, TYPE, 1)), (3, vector(million, b"\0", 1_000_000))]), "TooMany"),
        (
            "a function too many",
            module(&[(1, vector(1, TYPE, 1)), (3, vector(u64::from(FUNCTIONS_MAX) + 1, b"\0", FUNCTIONS_MAX as usize + 1))]),
            "TooMany",
        ),
        (
            "a hundred thousand functions",
            module(&[
                (1, vector(1, TYPE, 1)),
                (3, vector(100_000, b"\0", 100_000)),
                (7, START.to_vec()),
                (10, vector(100_000, empty_function, 100_000)),
            ]),
            "Runs",
        ),
        ("four thousand million locals", with_body(b"\x01\xff\xff\xff\xff\x0f\x7f\x0b"), "Invalid"),
        (
            "a branch table of a million",
            with_body(&[b"\0\x41\0\x0e".to_vec(), vector(million, b"\0", 1_000_001), b"\x0b".to_vec()].concat()),
            "Runs",
        ),
        (
            "a megabyte of nested blocks",
            with_body(&[b"\0".to_vec(), b"\x02\x40".repeat(350_000), b"\x0b".repeat(350_001)].concat()),
            "Runs",
        ),
        ("a function of eight megabytes", with_body(&[b"\0".to_vec(), b"\x01".repeat(8 << 20), b"\x0b".to_vec()].concat()), "Invalid"),
        ("a custom section of fifty megabytes", module(&[(0, [b"\x01x".to_vec(), vec![0; 50 << 20]].concat())]), "NoEntry"),
        ("a component in a component, deep", (0..3_000).fold(component(&[]), |inner, _| component(&[(4, inner)])), "TooMany"),
        ("ten thousand components in one", component(&vec![(4, component(&[])); 10_000]), "TooMany"),
        ("ten thousand instances", component(&[(4, component(&[])), (5, vector(10_000, b"\0\0\0", 10_000))]), "Invalid"),
        ("a core module where a component stands", component(&[(4, module(&[]))]), "Invalid"),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(answer(&bytes), expected, "{what}: {:?}", inspect(&bytes));
    }
    let mut large = module(&[]);
    large.resize(WASM_BYTES_MAX + 1, 0);
    assert_eq!(answer(&large), "TooLarge");
}

#[test]
fn wasm_cut_off_or_bent_anywhere_never_ends_the_process() {
    for file in ["import-unknown.wat", "component-async.wat", "elements-out-of-bounds.wat"] {
        let bytes = wat::parse_bytes(&fs::read(folder().join(file)).expect(file)).expect(file).into_owned();
        for at in 0..bytes.len() {
            // What is lost with a custom section, whose id is 0, is not missed.
            assert!(answer(&bytes[..at]) != "Runs" || bytes[at] == 0, "{file} cut off at {at}");
            for byte in [0, 1, 0x0b, 0x7f, 0x80, 0xff] {
                let mut bent = bytes.clone();
                bent[at] = byte;
                answer(&bent);
            }
        }
    }
}
