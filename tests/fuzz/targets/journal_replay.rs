//! The journal, driven by libFuzzer: what is tried stands in `bodies/journal_replay.rs`, which the project's own tests drive too.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz journal_replay -- -max_len=4096`
#![no_main]

#[path = "../bodies/journal_replay.rs"]
#[expect(dead_code, reason = "libFuzzer keeps inputs of its own")]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(input));
