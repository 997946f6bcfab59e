//! Frames on one QUIC stream: many encoded into one buffer and written at once, many decoded from what one read brought.

use super::connection::{Connection, connection_error, read_error, write_error};
use super::{FIRST_FRAME_DEADLINE, LinkError, Who};
use crate::frame::{self, HEADER_BYTES};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

/// Most bytes that may be queued and not flushed.
pub const QUEUED_BYTES_MAX: usize = 16 << 20;
/// Longest frame of a peer that is no agent yet: there may be a thousand of them, and what they ask for has a few hundred bytes.
pub const STRANGER_FRAME_BYTES_MAX: usize = 8 << 10;
/// A buffer larger than this is given back when it is empty: there may be ten thousand of them.
const KEPT_BYTES_MAX: usize = 256;
/// How many packets' worth of bytes one read takes of those that are here; and of those that it had to wait for, which have a place while it waits:
/// ten thousand may.
const CHUNKS_HERE: usize = 32;
const CHUNKS_AWAITED: usize = 4;

/// The sending half of a stream.
pub struct Sender {
    stream: quinn::SendStream,
    /// A stream keeps its connection, and the place that it has.
    _connection: Connection,
    buffer: Vec<u8>,
    written: usize,
}

impl Sender {
    pub(super) fn new(stream: quinn::SendStream, connection: Connection) -> Self {
        Self { stream, _connection: connection, buffer: Vec::new(), written: 0 }
    }

    /// Encodes `message` behind what is queued. Nothing is sent before [`Sender::flush`].
    ///
    /// # Errors
    /// [`LinkError::Frame`] where it is too long, [`LinkError::Backlog`] where [`QUEUED_BYTES_MAX`] are queued already; what was queued stays.
    pub fn queue<T: Serialize>(&mut self, message: &T) -> Result<(), LinkError> {
        if self.queued_bytes() >= QUEUED_BYTES_MAX {
            return Err(LinkError::Backlog { queued: self.queued_bytes() });
        }
        frame::encode(message, &mut self.buffer)?;
        Ok(())
    }

    /// Bytes queued and not yet taken by the connection.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Gives all that is queued to the connection, waiting where the other side does not read. Cancelled, it has lost nothing: the next
    /// flush goes on.
    ///
    /// # Errors
    /// The connection's end, or [`LinkError::Reset`] where the other side wants no more of this stream.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        while self.written < self.buffer.len() {
            let taken = self.stream.write(&self.buffer[self.written..]).await;
            self.written += taken.map_err(write_error)?;
        }
        self.buffer.clear();
        self.written = 0;
        if self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// [`Sender::queue`] and [`Sender::flush`] in one.
    ///
    /// # Errors
    /// Those of both.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), LinkError> {
        self.queue(message)?;
        self.flush().await
    }

    /// Its frames go before those of other streams.
    pub(super) fn prefer(&self) {
        // An error here says that the stream is closed: nothing is left to prefer.
        let _ = self.stream.set_priority(1);
    }

    /// Says that nothing more follows on this stream. Dropping it says the same, unless something is queued and not flushed: then the stream
    /// is given up, and the other side sees [`LinkError::Reset`].
    pub fn finish(self) {}

    /// As [`Sender::finish`], and waits until the other side's system has all of it: for an answer after which the connection is dropped.
    ///
    /// # Errors
    /// The connection's end, or [`LinkError::Reset`] where the other side wanted no more of this stream.
    pub async fn delivered(mut self) -> Result<(), LinkError> {
        self.flush().await?;
        // An error here says that the other side gave the stream up, and so does the wait.
        let _ = self.stream.finish();
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(LinkError::Reset),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(connection_error(error)),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(LinkError::Reset),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // An error here says that the stream is over already.
        let _ = if self.buffer.is_empty() { self.stream.finish() } else { self.stream.reset(quinn::VarInt::from_u32(0)) };
    }
}

/// The receiving half of a stream.
pub struct Receiver {
    stream: quinn::RecvStream,
    connection: Connection,
    buffer: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl Receiver {
    pub(super) fn new(stream: quinn::RecvStream, connection: Connection) -> Self {
        Self { stream, connection, buffer: Vec::new(), taken: 0, ended: false }
    }

    /// The next message; `None` where the other side finished the stream. Cancelled, it has lost nothing.
    ///
    /// # Errors
    /// What is no frame, a stream that ends inside one, and the connection's end. After an error the stream is of no more use.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LinkError> {
        if !self.wait().await? {
            return Ok(None);
        }
        self.try_next()
    }

    /// As [`Receiver::next`], for the first message of a stream from [`Connection::accept_stream`].
    ///
    /// # Errors
    /// [`LinkError::Late`] where [`FIRST_FRAME_DEADLINE`] passes first, and those of [`Receiver::next`].
    pub async fn first<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LinkError> {
        self.wait_first().await?;
        self.try_next()
    }

    /// The next message if it is wholly here already: never waits. A batch is one `next` and then this until `None`.
    ///
    /// # Errors
    /// [`LinkError::Frame`].
    pub fn try_next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LinkError> {
        let Some(bytes) = self.whole()? else { return Ok(None) };
        let start = self.taken + HEADER_BYTES;
        let message = frame::decode(&self.buffer[start..start + bytes])?;
        self.taken = start + bytes;
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        }
        Ok(Some(message))
    }

    /// Waits until a whole message is here for [`Receiver::try_next`] (true) or the stream has ended between two (false). Cancelled, it has lost nothing.
    ///
    /// # Errors
    /// A frame that is too long, a stream that ends inside one, and the connection's end.
    pub async fn wait(&mut self) -> Result<bool, LinkError> {
        while self.whole()?.is_none() {
            let have = self.buffer.len() - self.taken;
            if self.ended || !self.read().await? {
                return if have == 0 { Ok(false) } else { Err(LinkError::Truncated { have }) };
            }
        }
        Ok(true)
    }

    /// As [`Receiver::wait`], for the first frame of a stream that the other side opened.
    pub(super) async fn wait_first(&mut self) -> Result<(), LinkError> {
        let late = LinkError::Late { what: "the first frame", deadline: FIRST_FRAME_DEADLINE };
        match tokio::time::timeout(FIRST_FRAME_DEADLINE, self.wait()).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(LinkError::Truncated { have: 0 }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(late),
        }
    }

    /// The length of the frame that is wholly in the buffer, if one is. A length that may not be is refused as soon as it is read.
    fn whole(&self) -> Result<Option<usize>, LinkError> {
        let have = &self.buffer[self.taken..];
        let Some(header) = have.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let bytes = frame::length(*header)?;
        if bytes > STRANGER_FRAME_BYTES_MAX && matches!(self.connection.who(), Who::Stranger | Who::Renewing(_)) {
            return Err(LinkError::StrangerFrame { bytes });
        }
        Ok((have.len() >= HEADER_BYTES + bytes).then_some(bytes))
    }

    /// Takes what has come, or waits for more; false where the stream is finished.
    async fn read(&mut self) -> Result<bool, LinkError> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if let Poll::Ready(read) = poll_fn(|context| Poll::Ready(self.read_here(context))).await {
            return read;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = Vec::new();
        }
        let mut chunks = [const { Bytes::new() }; CHUNKS_AWAITED];
        let count = self.stream.read_chunks(&mut chunks).await;
        self.take(count, &chunks)
    }

    fn read_here(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, LinkError>> {
        let mut chunks = [const { Bytes::new() }; CHUNKS_HERE];
        let count = ready!(pin!(self.stream.read_chunks(&mut chunks)).poll(context));
        Poll::Ready(self.take(count, &chunks))
    }

    fn take(&mut self, count: Result<Option<usize>, quinn::ReadError>, chunks: &[Bytes]) -> Result<bool, LinkError> {
        let Some(count) = count.map_err(read_error)? else {
            self.ended = true;
            return Ok(false);
        };
        self.buffer.reserve(chunks[..count].iter().map(Bytes::len).sum());
        chunks[..count].iter().for_each(|chunk| self.buffer.extend_from_slice(chunk));
        Ok(true)
    }
}
