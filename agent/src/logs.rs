//! What tasks have printed, for masters that ask: from executors' log files over a bulk stream, on to their end where that is wanted.

use futures::future::BoxFuture;
use protocol::job::COUNT_MAX;
use protocol::link::{LinkError, Sender};
use protocol::message::{AGENT_LEAVES, BulkReply, CHUNK_BYTES_MAX};
use protocol::{AttemptId, MemberId};
use runtime::Key;
use runtime::executor::{LogRead, read_log};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long nothing is looked for after nothing was found; doubled up to the longest.
const LOOK_FIRST: Duration = Duration::from_millis(50);
/// The longest such wait.
const LOOK_MAX: Duration = Duration::from_millis(500);

/// Where the output of a member of an attempt may be.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Executors' directories, the likeliest first.
    pub dirs: Vec<PathBuf>,
    /// True while more may come.
    pub live: bool,
}

/// The name that executors know a member of an attempt by: 64 bits of job, 8 of member, 24 of index, 32 of number. A ledger takes no index
/// that does not fit.
#[must_use]
pub const fn key(member: MemberId) -> Key {
    let attempt = member.attempt;
    let low = (member.member as u64) << 56 | (attempt.task.index as u64 & INDEX_MASK) << 32 | attempt.number as u64;
    Key((attempt.task.job.0 as u128) << 64 | low as u128)
}

/// The member that executors know by this name.
#[must_use]
pub const fn member(key: Key) -> MemberId {
    let low = key.0 as u64;
    let attempt = AttemptId::new(protocol::JobId((key.0 >> 64) as u64), (low >> 32 & INDEX_MASK) as u32, low as u32);
    MemberId { attempt, member: (low >> 56) as u8 }
}

const INDEX_MASK: u64 = (1 << 24) - 1;
const _: () = assert!(COUNT_MAX as u64 <= INDEX_MASK);

/// Sends what `member` printed from `offset` on, until all is sent and, where it is followed, its end. `place` says where it is.
///
/// # Errors
/// The stream's or the connection's end.
pub async fn serve(
    member: MemberId,
    mut offset: u64,
    follow: bool,
    place: impl Fn() -> BoxFuture<'static, Option<Place>>,
    mut sender: Sender,
) -> Result<(), LinkError> {
    let mut wait = LOOK_FIRST;
    loop {
        // Asked before it is read: what is printed before the end is in the file when the end is known.
        let Some(Place { dirs, live }) = place().await else {
            return last(sender, BulkReply::Failed { reason: AGENT_LEAVES.into() }).await;
        };
        let read = tokio::task::spawn_blocking(move || read_any(&dirs, key(member), offset)).await;
        let read = match read.expect("reading a file does not panic, and nobody cancels it") {
            Ok(read) => read,
            Err(error) => {
                return last(sender, BulkReply::Failed { reason: format!("reading the output of {}: {error}", member.attempt) }).await;
            }
        };
        if !read.bytes.is_empty() {
            wait = LOOK_FIRST;
            offset = read.next_offset;
            sender.send(&BulkReply::Chunk { offset: read.offset, bytes: read.bytes.into() }).await?;
        } else if follow && live {
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(LOOK_MAX);
        } else {
            return last(sender, BulkReply::End).await;
        }
    }
}

/// Sends the last message of a stream.
///
/// # Errors
/// The stream's or the connection's end.
pub async fn last(mut sender: Sender, reply: BulkReply) -> Result<(), LinkError> {
    sender.send(&reply).await?;
    sender.finish();
    Ok(())
}

fn read_any(dirs: &[PathBuf], key: Key, offset: u64) -> io::Result<LogRead> {
    for dir in dirs {
        let read = read_log(dir, key, offset, CHUNK_BYTES_MAX)?;
        if !read.bytes.is_empty() {
            return Ok(read);
        }
    }
    Ok(LogRead { bytes: Vec::new(), offset, next_offset: offset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::JobId;

    #[test]
    fn a_member_of_an_attempt_has_one_key() {
        let id = |index, number, member| MemberId { attempt: AttemptId::new(JobId(u64::MAX - 5), index, number), member };
        let ids = [id(70_000, 3, 0), id(70_000, 4, 0), id(70_000, 3, 7), id(COUNT_MAX - 1, u32::MAX, 255), id(0, 1, 0)];
        for (at, one) in ids.into_iter().enumerate() {
            assert_eq!(member(key(one)), one);
            assert!(ids[at + 1..].iter().all(|other| key(*other) != key(one)));
        }
    }
}
