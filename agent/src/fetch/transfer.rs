//! One bundle over a bulk stream of the link into a file, going on where an earlier try stopped.

use protocol::Digest;
use protocol::link::{Connection, LinkError, Receiver};
use protocol::message::{BulkReply, BulkRequest};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt;

/// A master that sends nothing for so long is given up.
const SILENT: Duration = Duration::from_secs(20);

/// Why a bundle did not come. It may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The link failed.
    #[error("fetching bundle {bundle}: {source}")]
    Link {
        /// Which.
        bundle: Digest,
        /// How.
        source: LinkError,
    },
    /// The master has none, or stopped.
    #[error("fetching bundle {bundle}: the master says: {reason}")]
    Refused {
        /// Which.
        bundle: Digest,
        /// In its words.
        reason: String,
    },
    /// It said nothing for too long, or not what it should have.
    #[error("fetching bundle {bundle}: {reason}")]
    Broken {
        /// Which.
        bundle: Digest,
        /// What was wrong.
        reason: String,
    },
    /// It is longer than it may be.
    #[error("fetching bundle {bundle}: it is longer than {bytes_max} bytes, which is all that this agent keeps")]
    TooLong {
        /// Which.
        bundle: Digest,
        /// At most.
        bytes_max: u64,
    },
    /// It could not be written.
    #[error("writing bundle {bundle}: {source}")]
    File {
        /// Which.
        bundle: Digest,
        /// What the system said.
        source: io::Error,
    },
}

/// Fetches all of `bundle` into `part` that is not there yet. What it is, its digest says when all is there.
///
/// # Errors
/// [`TransferError`]; what has come stays, for the next try.
pub async fn fetch(link: &Connection, bundle: Digest, part: &Path, bytes_max: u64) -> Result<(), TransferError> {
    let file_error = |source| TransferError::File { bundle, source };
    let link_error = |source| TransferError::Link { bundle, source };
    let mut file = OpenOptions::new().create(true).append(true).open(part).await.map_err(file_error)?;
    let mut offset = file.metadata().await.map_err(file_error)?.len();
    let (mut sender, mut receiver) = link.open_bulk().await.map_err(link_error)?;
    sender.send(&BulkRequest::Bundle { bundle, offset }).await.map_err(link_error)?;
    sender.finish();
    while let Some(bytes) = next(&mut receiver, bundle, offset).await? {
        offset += bytes.len() as u64;
        if offset > bytes_max {
            file.set_len(0).await.map_err(file_error)?;
            return Err(TransferError::TooLong { bundle, bytes_max });
        }
        file.write_all(&bytes).await.map_err(file_error)?;
        // Tokio's files write behind: unflushed, what came would be lost where the next piece does not come.
        file.flush().await.map_err(file_error)?;
    }
    Ok(())
}

/// The next bytes, which stand at `offset`; none at the end.
async fn next(receiver: &mut Receiver, bundle: Digest, offset: u64) -> Result<Option<bytes::Bytes>, TransferError> {
    let broken = |reason: String| TransferError::Broken { bundle, reason };
    let reply = tokio::time::timeout(SILENT, receiver.next::<BulkReply>()).await;
    let reply = reply.map_err(|_| broken(format!("nothing came for {SILENT:?}")))?;
    match reply.map_err(|source| TransferError::Link { bundle, source })? {
        Some(BulkReply::Chunk { offset: at, bytes }) if at == offset && !bytes.is_empty() => Ok(Some(bytes)),
        Some(BulkReply::Chunk { offset: at, bytes }) => {
            Err(broken(format!("{} bytes came that stand at {at}, where those at {offset} were to come", bytes.len())))
        }
        Some(BulkReply::End) => Ok(None),
        Some(BulkReply::Failed { reason }) => Err(TransferError::Refused { bundle, reason }),
        None => Err(broken("the stream ended before its end was said".into())),
    }
}
