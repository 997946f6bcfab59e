//! Job files, driven by libFuzzer: what is tried stands in `bodies/job_file.rs`, which the project's own tests drive too.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz job_file -- -max_len=16384`
#![no_main]

#[path = "../bodies/job_file.rs"]
#[expect(dead_code, reason = "libFuzzer keeps inputs of its own")]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(input));
