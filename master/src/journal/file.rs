//! A snapshot's file as the engine reads and writes it: on tokio's threads for that, or at once where nothing may happen meanwhile.

use super::log::Hands;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

/// A snapshot's file.
#[derive(Debug)]
pub enum SnapshotFile {
    /// On tokio's threads.
    Threads(tokio::fs::File),
    /// At once.
    Here(File),
}

impl SnapshotFile {
    /// Opens the file there to be read.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn open(path: &Path, hands: Hands) -> io::Result<Self> {
        match hands {
            Hands::Threads => tokio::fs::File::open(path).await.map(Self::Threads),
            Hands::Told => File::open(path).map(Self::Here),
        }
    }

    /// Makes an empty file there, in place of what was.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn make(path: &Path, hands: Hands) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        match hands {
            Hands::Threads => tokio::fs::OpenOptions::from(options).open(path).await.map(Self::Threads),
            Hands::Told => options.open(path).map(Self::Here),
        }
    }
}

impl AsyncRead for SnapshotFile {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Threads(file) => Pin::new(file).poll_read(cx, buffer),
            Self::Here(file) => {
                let read = file.read(buffer.initialize_unfilled())?;
                buffer.advance(read);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for SnapshotFile {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Threads(file) => Pin::new(file).poll_write(cx, bytes),
            Self::Here(file) => Poll::Ready(file.write(bytes)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Threads(file) => Pin::new(file).poll_flush(cx),
            Self::Here(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Threads(file) => Pin::new(file).poll_shutdown(cx),
            Self::Here(_) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncSeek for SnapshotFile {
    fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        match self.get_mut() {
            Self::Threads(file) => Pin::new(file).start_seek(to),
            Self::Here(file) => file.seek(to).map(|_| ()),
        }
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        match self.get_mut() {
            Self::Threads(file) => Pin::new(file).poll_complete(cx),
            Self::Here(file) => Poll::Ready(file.stream_position()),
        }
    }
}
