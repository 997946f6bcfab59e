//! Who may be the client: peers of the socket are let in one after the other, and each takes the place of the one before.

use crate::executor::wire::{self, Hello, HelloReply};
use bytes::BytesMut;
use futures::StreamExt;
use std::io;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

/// How long a peer may take for its first frame, while others wait.
const HELLO_WAIT: Duration = Duration::from_secs(2);
/// What accepting waits for after an error (too many open files), so that it does not spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A client that was let in.
pub(super) struct Arrival {
    pub(super) frames: FramedRead<OwnedReadHalf, LengthDelimitedCodec>,
    pub(super) stream: OwnedWriteHalf,
}

/// Lets clients in: root, the agent's user, and the executor's own.
pub(super) fn accept(listener: UnixListener, hello: HelloReply, owner: u32) -> (JoinHandle<()>, mpsc::Receiver<Arrival>) {
    let (arrived, arrivals) = mpsc::channel(1);
    let own = rustix::process::geteuid().as_raw();
    let accepting = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let known = stream.peer_cred().is_ok_and(|peer| [0, owner, own].contains(&peer.uid()));
            if !known {
                continue;
            }
            if let Ok(Ok(arrival)) = timeout(HELLO_WAIT, meet(stream, &hello)).await
                && arrived.send(arrival).await.is_err()
            {
                return;
            }
        }
    });
    (accepting, arrivals)
}

async fn meet(stream: UnixStream, hello: &HelloReply) -> io::Result<Arrival> {
    let (read, mut stream) = stream.into_split();
    let mut frames = FramedRead::new(read, wire::codec());
    let first = frames.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
    let theirs: Hello = wire::decode(&first)?;
    let mut reply = BytesMut::new();
    wire::encode(hello, &mut reply)?;
    stream.write_all(&reply).await?;
    if theirs.version == hello.version { Ok(Arrival { frames, stream }) } else { Err(io::ErrorKind::Unsupported.into()) }
}
