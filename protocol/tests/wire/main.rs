//! What goes over the wire: its bytes, its shape, and what happens to bytes that are none of it.

mod golden;
mod hostile;
mod trace;

use protocol::message::{BulkReply, BulkRequest, FromAgent, FromMaster, Hello, HelloReply, Join, JoinReply, ToAgent, ToShard};
use protocol::task::{Loss, TaskState};
use protocol::{Exit, Metering, Program};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// One message type or one enum inside of one, and what the tests ask of it.
struct Wire {
    name: &'static str,
    variants: &'static [&'static str],
    /// The frame of the sample of a variant.
    frame: fn(usize) -> Vec<u8>,
    /// Decodes a frame's body and encodes what it found.
    decode: fn(&[u8]) -> Result<Vec<u8>, protocol::frame::FrameError>,
    walk: fn(&mut trace::Trace),
}

fn wire<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &'static str) -> Wire {
    fn frame_of<T: Serialize>(message: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        protocol::frame::encode(message, &mut bytes).expect("a sample fits into a frame");
        bytes
    }
    Wire {
        name,
        variants: trace::variants_of::<T>(),
        frame: |variant| {
            let sample = trace::sample::<T>(variant);
            let bytes = frame_of(&sample);
            assert_eq!(protocol::frame::decode::<T>(&bytes[protocol::frame::HEADER_BYTES..]).as_ref(), Ok(&sample));
            bytes
        },
        decode: |body| protocol::frame::decode::<T>(body).map(|message| frame_of(&message)),
        walk: trace::walk::<T>,
    }
}

/// Every type that is the whole of a frame, then the enums inside of them.
fn wires() -> Vec<Wire> {
    vec![
        wire::<Hello>("Hello"),
        wire::<HelloReply>("HelloReply"),
        wire::<Join>("Join"),
        wire::<JoinReply>("JoinReply"),
        wire::<ToShard>("ToShard"),
        wire::<ToAgent>("ToAgent"),
        wire::<BulkRequest>("BulkRequest"),
        wire::<BulkReply>("BulkReply"),
        wire::<FromAgent>("FromAgent"),
        wire::<FromMaster>("FromMaster"),
        wire::<TaskState>("TaskState"),
        wire::<Exit>("Exit"),
        wire::<Loss>("Loss"),
        wire::<Program>("Program"),
        wire::<Metering>("Metering"),
    ]
}

/// A sample frame of each variant, with its name.
fn frames() -> Vec<(String, Wire, Vec<u8>)> {
    let mut frames = Vec::new();
    for index in 0..wires().len() {
        let count = wires()[index].variants.len().max(1);
        for variant in 0..count {
            let wire = wires().swap_remove(index);
            let name = wire.variants.get(variant).map_or(wire.name.to_owned(), |variant| format!("{}::{variant}", wire.name));
            let frame = (wire.frame)(variant);
            frames.push((name, wire, frame));
        }
    }
    frames
}
