//! Any bytes as frames of any message: an error or a message, never a panic, and what was decoded is encoded to what decodes the same.
//!
//! Run with a limit of 16 MiB for one allocation: no length in a frame makes the decoder allocate what the frame's bytes are not worth.

use protocol::frame::{self, FRAME_BYTES_MAX, HEADER_BYTES};
use protocol::message::{BulkReply, BulkRequest, FromAgent, FromMaster, Hello, HelloReply, Join, JoinReply, ToAgent, ToShard};
use protocol::{AgentId, AttemptId, Held, JobId, MemberId, ShardId};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    let Ok(message) = frame::decode::<T>(body) else { return };
    let mut bytes = Vec::new();
    frame::encode(&message, &mut bytes).expect("what came in a frame fits into one");
    assert_eq!(frame::decode::<T>(&bytes[HEADER_BYTES..]).as_ref(), Ok(&message));
}

/// One input: which message, then a row of frames.
pub fn run(input: &[u8]) {
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
}

/// Inputs to begin with: a frame of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let frame = |kind: u8, encode: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = vec![];
        encode(&mut bytes);
        [vec![kind], bytes].concat()
    };
    let hello = Hello { version: "0.1.0".into() };
    let reply = HelloReply { shards: 8, version: "0.1.0".into() };
    let attempts = vec![AttemptId::new(JobId(7), 3, 1); 3];
    let held = vec![Held { attempt: attempts[0], ended: true }];
    let to_shard = ToShard { shard: ShardId(1), message: FromAgent::Report { session: 1, held, last: true } };
    let to_agent = ToAgent { shard: ShardId(1), message: FromMaster::Kill { attempts: attempts.clone(), grace_ms: 5 } };
    let bulk = BulkRequest::Log { member: MemberId::first(attempts[0]), offset: 9, follow: true };
    let join = Join::Token { id: "id".into(), secret: "secret".into(), csr_der: vec![1, 2, 3] };
    let welcome = JoinReply::Welcome { agent: AgentId(1), chain_der: vec![vec![4; 9]; 3], shards: 8 };
    fn put<T: Serialize>(message: &T) -> impl Fn(&mut Vec<u8>) + '_ {
        |bytes| frame::encode(message, bytes).expect("it is short")
    }
    vec![
        frame(0, &put(&hello)),
        frame(1, &put(&reply)),
        frame(2, &put(&to_shard)),
        frame(3, &put(&to_agent)),
        frame(4, &put(&bulk)),
        frame(5, &put(&BulkReply::Chunk { offset: 3, bytes: vec![7; 40].into() })),
        frame(6, &put(&join)),
        frame(7, &put(&welcome)),
    ]
}
