//! The intake of wasm, driven by libFuzzer: what is tried stands in `bodies/wasm_intake.rs`, which the project's own tests drive too.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz wasm_intake -- -max_len=65536`
#![no_main]

#[path = "../bodies/wasm_intake.rs"]
#[expect(dead_code, reason = "libFuzzer keeps inputs of its own")]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(input));
