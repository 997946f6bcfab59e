//! Compiling in a process of its own. This program is both sides: with `compile` as its first argument it is the process.

#![allow(clippy::unwrap_used)]

use runtime::Metering;
use runtime::wasm::compile::{self, CompileError, CompileLimits};
use std::path::{Path, PathBuf};

fn main() {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if let [verb, wasm, compiled, metering, bytes, seconds] = args.as_slice()
        && verb.as_os_str() == "compile"
    {
        let metering = if metering.as_os_str() == "fuel" { Metering::Fuel } else { Metering::Epoch };
        let number = |text: &Path| text.to_str().unwrap().parse().unwrap();
        let limits = CompileLimits { address_bytes_max: number(bytes), cpu_seconds_max: number(seconds) };
        compile::main(wasm, compiled, metering, limits);
    }
    let dir = std::env::temp_dir().join(format!("skep-compile-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (name, claim) in CLAIMS {
        claim(&runtime, &dir);
        println!("test {name} ... ok");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

type Claim = fn(&tokio::runtime::Runtime, &Path);

const CLAIMS: [(&str, Claim); 4] = [
    ("the_process_compiles_what_this_one_would", the_process_compiles_what_this_one_would),
    ("a_refusal_is_told_and_leaves_nothing", a_refusal_is_told_and_leaves_nothing),
    ("a_module_that_takes_too_much_to_compile_is_named_so", a_module_that_takes_too_much_to_compile_is_named_so),
    ("a_process_that_cannot_be_started_is_an_error", a_process_that_cannot_be_started_is_an_error),
];

fn in_process(runtime: &tokio::runtime::Runtime, wasm: &Path, compiled: &Path, metering: Metering) -> Result<(), CompileError> {
    within(runtime, wasm, compiled, metering, CompileLimits::default())
}

fn within(
    runtime: &tokio::runtime::Runtime,
    wasm: &Path,
    compiled: &Path,
    metering: Metering,
    limits: CompileLimits,
) -> Result<(), CompileError> {
    runtime.block_on(compile::in_process(&std::env::current_exe().unwrap(), wasm, compiled, metering, limits))
}

fn a_module_that_takes_too_much_to_compile_is_named_so(runtime: &tokio::runtime::Runtime, dir: &Path) {
    let (wasm, compiled) = (dir.join("large.wasm"), dir.join("large"));
    let body = "(local.set 0 (i32.mul (local.get 0) (i32.const 3)))".repeat(500);
    let functions = format!("(func (param i32) (result i32) {body} (local.get 0))").repeat(4_000);
    std::fs::write(&wasm, wat::parse_str(format!(r#"(module {functions} (func (export "_start")))"#)).unwrap()).unwrap();
    let limits = CompileLimits { cpu_seconds_max: 1, ..CompileLimits::default() };
    match within(runtime, &wasm, &compiled, Metering::Fuel, limits) {
        Err(CompileError::Limit(what)) => assert!(what.contains("1 s of processor time"), "{what}"),
        other => panic!("{limits:?}: {other:?}"),
    }
    assert!(!compiled.exists());
    // The next one is compiled as if nothing had been.
    in_process(runtime, &dir.join("good.wasm"), &dir.join("good"), Metering::Fuel).unwrap();
}

fn the_process_compiles_what_this_one_would(runtime: &tokio::runtime::Runtime, dir: &Path) {
    let (wasm, compiled) = (dir.join("good.wasm"), dir.join("good"));
    // Enough functions for several threads, which must work within the jail too.
    let functions = "(func (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))".repeat(2_000);
    let bytes = wat::parse_str(format!(r#"(module (memory 1) {functions} (func (export "_start")))"#)).unwrap();
    std::fs::write(&wasm, &bytes).unwrap();
    for metering in [Metering::Fuel, Metering::Epoch] {
        in_process(runtime, &wasm, &compiled, metering).unwrap();
        assert_eq!(std::fs::read(&compiled).unwrap(), compile::compile(&bytes, metering).unwrap());
    }
}

fn a_refusal_is_told_and_leaves_nothing(runtime: &tokio::runtime::Runtime, dir: &Path) {
    let (wasm, compiled) = (dir.join("bad.wasm"), dir.join("bad"));
    std::fs::write(&wasm, b"\0asm\x01\0\0\0\x1b[2J").unwrap();
    match in_process(runtime, &wasm, &compiled, Metering::Fuel) {
        Err(CompileError::Refused(reason)) => assert!(reason.contains("not valid") && !reason.contains('\x1b'), "{reason}"),
        other => panic!("{other:?}"),
    }
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("bad") || name == "bad.wasm"), "{left:?}");
    let none = in_process(runtime, &dir.join("none"), &compiled, Metering::Fuel);
    assert!(matches!(none, Err(CompileError::Failed(_))), "{none:?}");
}

fn a_process_that_cannot_be_started_is_an_error(runtime: &tokio::runtime::Runtime, dir: &Path) {
    for binary in ["/nowhere/skep", "/bin/false", "/bin/true"] {
        let ended = runtime.block_on(compile::in_process(
            Path::new(binary),
            &dir.join("good.wasm"),
            &dir.join("other"),
            Metering::Fuel,
            CompileLimits::default(),
        ));
        assert!(matches!(ended, Err(CompileError::Failed(_))), "{binary}: {ended:?}");
    }
}
