//! Frames of any message, driven by libFuzzer: what is tried stands in `bodies/frame_decode.rs`, which the project's own tests drive too.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz frame_decode -- -max_len=4096 -malloc_limit_mb=16`
#![no_main]

#[path = "../bodies/frame_decode.rs"]
#[expect(dead_code, reason = "libFuzzer keeps inputs of its own")]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(input));
