//! The HTTP router of a real master, driven by libFuzzer: what is tried stands in `bodies/http_router.rs`, which the project's own tests
//! drive too.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz http_router -- -max_len=8192`
#![no_main]

#[path = "../bodies/http_router.rs"]
#[expect(dead_code, reason = "libFuzzer keeps inputs of its own")]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(input));
