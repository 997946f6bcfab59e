//! A task's standard streams: input read from a file, output given to the executor. Neither waits; both make a task yield that moves much.

use super::control::{Control, Output};
use crate::Stream;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// Most bytes that one read or write moves.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// Standard output or standard error; all handles to it are one.
#[derive(Clone)]
pub struct Sink {
    /// Which of the two.
    pub stream: Stream,
    /// Where it goes.
    pub output: Arc<dyn Output>,
    /// Whose it is.
    pub control: Control,
}

impl Sink {
    fn put(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.output.write(self.stream, bytes);
            self.control.moved(bytes.len());
        }
    }
}

impl IsTerminal for Sink {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Sink {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Sink {
    async fn ready(&mut self) {
        self.control.breathe().await;
    }
}

#[async_trait]
impl OutputStream for Sink {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.control.must_yield() { 0 } else { PIECE_BYTES_MAX })
    }
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Standard input: a regular file, open once for all tasks of a plan; each task has a place in it, and all handles of a task share it.
#[derive(Clone)]
pub struct Source {
    file: Arc<File>,
    offset: Arc<AtomicU64>,
    control: Control,
}

impl Source {
    /// Reads `file` from its beginning.
    pub fn new(file: Arc<File>, control: Control) -> Self {
        Self { file, offset: Arc::default(), control }
    }

    fn take(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.offset.load(Ordering::Relaxed))?;
        self.offset.fetch_add(read as u64, Ordering::Relaxed);
        self.control.moved(read);
        Ok(read)
    }
}

impl IsTerminal for Source {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Source {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Source {
    async fn ready(&mut self) {
        self.control.breathe().await;
    }
}

#[async_trait]
impl InputStream for Source {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut bytes = vec![0; size.min(PIECE_BYTES_MAX)];
        let read = self.take(&mut bytes).map_err(|error| StreamError::LastOperationFailed(error.into()))?;
        if read == 0 {
            return Err(StreamError::Closed);
        }
        bytes.truncate(read);
        Ok(bytes.into())
    }
}

impl AsyncRead for Source {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = buffer.remaining().min(PIECE_BYTES_MAX);
        let read = self.take(buffer.initialize_unfilled_to(length))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}
