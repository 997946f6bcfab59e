//! One connection of an executor with its client, without a runtime: bytes that came, bytes that are on their way, frames out of them.

use crate::executor::wire::{self, FRAME_BYTES_MAX};
use bytes::{Buf, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

const LENGTH_BYTES: usize = 4;
/// Read at once.
const PIECE_BYTES: usize = 4_096;

pub(super) struct Peer {
    stream: UnixStream,
    came: BytesMut,
    sending: BytesMut,
    /// It said hello.
    pub(super) greeted: bool,
}

impl Peer {
    /// A connection that was let in.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, came: BytesMut::new(), sending: BytesMut::new(), greeted: false })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub(super) fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Takes what came without waiting; false: the other side is gone.
    pub(super) fn receive(&mut self) -> bool {
        let mut piece = [0; PIECE_BYTES];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(length) => self.came.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            // One that sends more than it may is cut off by `next`; until then no more of it is taken in.
            if self.came.len() > FRAME_BYTES_MAX + LENGTH_BYTES {
                return true;
            }
        }
    }

    /// The next whole message that came; `None`: there is none yet.
    ///
    /// # Errors
    /// It is too long, or none.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(length) = self.came.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.came.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.came.advance(LENGTH_BYTES);
        wire::decode(&self.came.split_to(length)).map(Some)
    }

    /// Queues a message.
    pub(super) fn tell<T: Serialize>(&mut self, message: &T) {
        wire::encode(message, &mut self.sending).expect("an executor of one task says nothing that is too long for a frame");
    }

    /// Sends what the other side takes without waiting; false: it is gone.
    pub(super) fn send(&mut self) -> bool {
        while !self.sending.is_empty() {
            match self.stream.write(&self.sending) {
                Ok(sent) => self.sending.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}
