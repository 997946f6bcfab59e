//! Any bytes as frames of any message: an error or a message, never a panic, and what was decoded is encoded to what decodes the same.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz frame_decode -- -max_len=4096 -malloc_limit_mb=16`: the limit holds that no length in a
//! frame makes the decoder allocate what the frame's bytes are not worth.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::frame::{self, FRAME_BYTES_MAX, HEADER_BYTES};
use protocol::message::{BulkReply, BulkRequest, Hello, HelloReply, Join, JoinReply, ToAgent, ToShard};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    let Ok(message) = frame::decode::<T>(body) else { return };
    let mut bytes = Vec::new();
    frame::encode(&message, &mut bytes).expect("what came in a frame fits into one");
    assert_eq!(frame::decode::<T>(&bytes[HEADER_BYTES..]).as_ref(), Ok(&message));
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, mut stream)) = input.split_first() else { return };
    while let Some((header, rest)) = stream.split_first_chunk::<HEADER_BYTES>() {
        let Ok(bytes) = frame::length(*header) else { return };
        assert!((1..=FRAME_BYTES_MAX).contains(&bytes));
        let body = &rest[..bytes.min(rest.len())];
        match kind % 8 {
            0 => check::<Hello>(body),
            1 => check::<HelloReply>(body),
            2 => check::<ToShard>(body),
            3 => check::<ToAgent>(body),
            4 => check::<BulkRequest>(body),
            5 => check::<BulkReply>(body),
            6 => check::<Join>(body),
            _ => check::<JoinReply>(body),
        }
        stream = &rest[body.len()..];
    }
});
