//! Bytes of the log: segments' heads and frames. A frame is what one flush made durable, so it is whole or it is nothing.
//!
//! Each frame carries its number, a checksum over all of it, the checksum of the frame before it (so that none can be exchanged, left out or
//! taken from an earlier use of the file), and the last number that was durable when it was written: so a frame that is damaged but was once
//! acknowledged is told from one whose writing was cut off.
//!
//! What is in frames was written by users and agents, and where damage is looked for their words are searched for frames. So each segment has
//! a random key, which its frames begin with and are sealed with: nobody who cannot read the file can write what looks like a frame of it.

use ring::rand::{SecureRandom, SystemRandom};
use std::{fmt, io};

/// Bytes of a segment's head.
pub const HEAD_BYTES: usize = 72;
/// Bytes of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 56;
/// Frames begin at multiples of this.
pub const ALIGN_BYTES: u64 = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"SKEPLOG1";

/// The first half of a BLAKE3 hash.
pub type Checksum = [u8; 16];

/// What the frames of one segment are sealed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// A new one, which nobody knows.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub fn draw() -> io::Result<Self> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(Self(bytes))
    }

    /// What each frame begins with.
    pub fn mark(&self) -> [u8; 4] {
        self.0[..4].try_into().expect("4 of 32 bytes are 4 bytes")
    }

    fn seal(&self, parts: [&[u8]; 2]) -> Checksum {
        checksum(blake3::Hasher::new_keyed(&self.0), &parts)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// What stands first in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which segment of the log this is, from 1.
    pub sequence: u64,
    /// The number of its first frame.
    pub first_frame: u64,
    /// What its frames are sealed with.
    pub key: Key,
}

impl Head {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_frame.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.key.0);
        let checksum = checksum(blake3::Hasher::new(), &[&bytes[..56]]);
        bytes[56..].copy_from_slice(&checksum);
        bytes
    }

    /// The head that `bytes` are; `None` where they are none.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let whole = bytes[..8] == SEGMENT_MAGIC && bytes[56..] == checksum(blake3::Hasher::new(), &[&bytes[..56]]);
        let key = || Key(bytes[24..56].try_into().expect("32 bytes are 32 bytes"));
        whole.then(|| Self { sequence: number_at(bytes, 8), first_frame: number_at(bytes, 16), key: key() })
    }
}

/// What stands first in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes behind it.
    pub length: u32,
    /// 1 more than that of the frame before it.
    pub number: u64,
    /// The last number that was durable when this was written.
    pub durable: u64,
    /// The checksum of the frame before it.
    pub previous: Checksum,
    /// Over this head but for itself, and what follows.
    pub checksum: Checksum,
}

impl FrameHead {
    /// Writes the head of the frame that fills `frame`, whose first [`FRAME_HEAD_BYTES`] are free for it; returns its checksum.
    pub fn seal(frame: &mut [u8], key: &Key, number: u64, durable: u64, previous: Checksum) -> Checksum {
        let length = u32::try_from(frame.len() - FRAME_HEAD_BYTES).expect("a frame fits into a segment");
        frame[..4].copy_from_slice(&key.mark());
        frame[4..8].copy_from_slice(&length.to_le_bytes());
        frame[8..16].copy_from_slice(&number.to_le_bytes());
        frame[16..24].copy_from_slice(&durable.to_le_bytes());
        frame[24..40].copy_from_slice(&previous);
        let (head, body) = frame.split_at_mut(FRAME_HEAD_BYTES);
        let checksum = key.seal([&head[..40], body]);
        head[40..].copy_from_slice(&checksum);
        checksum
    }

    /// What these bytes would be, were they a frame's head; `None` where they do not even begin like one.
    pub fn decode(bytes: &[u8], key: &Key) -> Option<Self> {
        let bytes: &[u8; FRAME_HEAD_BYTES] = bytes.get(..FRAME_HEAD_BYTES)?.try_into().ok()?;
        let part = |at: usize| -> Checksum { bytes[at..at + 16].try_into().expect("16 bytes are 16 bytes") };
        (bytes[..4] == key.mark()).then(|| Self {
            length: u32::from_le_bytes(bytes[4..8].try_into().expect("4 bytes are 4 bytes")),
            number: number_at(bytes, 8),
            durable: number_at(bytes, 16),
            previous: part(24),
            checksum: part(40),
        })
    }

    /// True where `head_bytes` and `body` are as they were when the frame was sealed.
    pub fn is_whole(&self, key: &Key, head_bytes: &[u8], body: &[u8]) -> bool {
        body.len() == self.length as usize && key.seal([&head_bytes[..40], body]) == self.checksum
    }
}

/// Where the frame after one of `length` bytes at `offset` begins.
pub const fn after(offset: u64, length: u32) -> u64 {
    (offset + FRAME_HEAD_BYTES as u64 + length as u64).next_multiple_of(ALIGN_BYTES)
}

fn checksum(mut hash: blake3::Hasher, parts: &[&[u8]]) -> Checksum {
    for part in parts {
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    hash[..16].try_into().expect("16 of 32 bytes are 16 bytes")
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes are 8 bytes"))
}
