//! Programs beside tasks, between a master's bulk stream and the executor's side: bytes are passed on both ways and not looked at.

use protocol::link::{LinkError, Receiver, Sender};
use protocol::message::{BulkReply, BulkRequest, CHUNK_BYTES_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::logs::last;

/// Passes on until either side has ended.
///
/// # Errors
/// The stream's or the connection's end.
pub async fn serve(session: Result<UnixStream, String>, mut sender: Sender, mut receiver: Receiver) -> Result<(), LinkError> {
    let stream = match session {
        Ok(stream) => stream,
        Err(reason) => return last(sender, BulkReply::Failed { reason }).await,
    };
    let (mut from, mut to) = stream.into_split();
    let input = async {
        // Where the master ends the stream, so does what it was for.
        while let Ok(Some(BulkRequest::Input { bytes })) = receiver.next::<BulkRequest>().await {
            if to.write_all(&bytes).await.is_err() {
                // It has ended: what it said last is still to be read.
                std::future::pending::<()>().await;
            }
        }
    };
    let output = async {
        let (mut offset, mut piece) = (0, vec![0; CHUNK_BYTES_MAX]);
        loop {
            match from.read(&mut piece).await {
                Ok(0) | Err(_) => return Ok::<_, LinkError>(()),
                Ok(length) => {
                    let bytes = piece[..length].to_vec().into();
                    sender.send(&BulkReply::Chunk { offset, bytes }).await?;
                    offset += length as u64;
                }
            }
        }
    };
    tokio::select! {
        () = input => return Ok(()),
        ended = output => ended?,
    }
    last(sender, BulkReply::End).await
}
