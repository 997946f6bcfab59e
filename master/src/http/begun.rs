//! A stream whose other end has to finish what it has begun: where bytes of a request came and its headers are not there in time, it fails. How long
//! it may be without a request is not known here.

use super::server::Uses;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The stream `inner`, whose requests have `within` from their first bytes until they are there. What came with the end of the request before is not
/// counted, until more comes.
#[derive(Debug)]
pub(super) struct Begun<S> {
    inner: S,
    uses: Arc<Uses>,
    within: Duration,
    /// How many requests there were before the one that has begun, and until when it has time.
    since: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<S> Begun<S> {
    /// The stream `inner`, on which requests come as `uses` says.
    pub fn new(inner: S, uses: Arc<Uses>, within: Duration) -> Self {
        Self { inner, uses, within, since: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (requests, is_answering) = self.uses.so_far();
        if is_answering || self.since.as_ref().is_some_and(|(before, _)| *before != requests) {
            self.since = None;
        }
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let within = self.within;
        if read.is_pending() {
            let late = self.since.as_mut().is_some_and(|(_, end)| end.as_mut().poll(cx).is_ready());
            return if late { Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the headers came too slowly"))) } else { read };
        }
        if !is_answering && buffer.filled().len() > filled {
            self.since.get_or_insert_with(|| (requests, Box::pin(tokio::time::sleep(within))));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::Use;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn only_what_has_begun_has_an_end() {
        let within = Duration::from_secs(30);
        let (near, mut far) = tokio::io::duplex(64);
        let uses = Arc::new(Uses::default());
        let mut stream = Begun::new(near, Arc::clone(&uses), within);
        let mut buffer = [0; 64];
        let mut read = async |within: Duration| tokio::time::timeout(within, stream.read(&mut buffer)).await;
        assert!(read(within * 10).await.is_err(), "nothing has begun");
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(read(within).await.unwrap().unwrap(), 18);
        let answering = Use::begin(&uses);
        assert!(read(within * 10).await.is_err(), "it is being answered");
        drop(answering);
        assert!(read(within * 10).await.is_err(), "it was answered, and no other has begun");
        far.write_all(b"GE").await.unwrap();
        assert_eq!(read(within).await.unwrap().unwrap(), 2);
        assert!(read(within / 2).await.is_err());
        // More of it gives it no more time.
        far.write_all(b"T").await.unwrap();
        assert_eq!(read(within).await.unwrap().unwrap(), 1);
        assert_eq!(read(within).await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
