//! Has an archive unpacked by a process of its own, and judges how that ended. Knows its limits; what it does inside is `unpack`.

use super::unpack::{EXIT_LIMIT, EXIT_REFUSED, RESULT, Request, Unpacked};
use super::{UnpackError, tree};
use crate::jail::unpacking::CPU_SECONDS_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long it may take, by whoever waits for it.
const WALL_MAX: Duration = Duration::from_secs(1_800);
/// Most bytes of what it says that are kept.
const SAID_BYTES_MAX: usize = 4_096;
/// Longest result that is read.
const RESULT_BYTES_MAX: u64 = 16 << 20;

/// Unpacks by `binary unpack`, which is told what on its standard input, as long as somebody waits at the other end of `waits`. Blocking.
///
/// # Errors
/// What is wrong with the archive, or what this machine could not do.
pub(super) fn unpack(binary: &Path, request: &Request, waits: &UnixStream) -> Result<Unpacked, UnpackError> {
    let failed = |error: io::Error| UnpackError::failed(format_args!("starting {}", binary.display()), error);
    let text = serde_json::to_vec(request).map_err(|error| UnpackError::failed("writing the request", error))?;
    let mut command = Command::new(binary);
    command.arg("unpack").env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Ended(command.spawn().map_err(failed)?);
    if let Some(mut stdin) = child.0.stdin.take() {
        // Where it does not read it, it says why, or how it ended does.
        let _ = stdin.write_all(&text);
    }
    let said = child.0.stderr.take().map_or_else(|| Ok(vec![]), |stderr| hear(stderr, waits))?;
    let status = child.0.wait().map_err(failed)?;
    judge(status, String::from_utf8_lossy(&said).trim())?;
    let result = request.target.join(RESULT);
    let mut bytes = Vec::new();
    let folder = std::fs::File::open(&request.target).map_err(failed)?;
    let file = tree::open_file(std::os::fd::AsFd::as_fd(&folder), RESULT.as_bytes())
        .map_err(|error| UnpackError::failed(format_args!("opening {}", result.display()), error))?;
    file.take(RESULT_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| UnpackError::failed(result.display(), error))?;
    serde_json::from_slice(&bytes).map_err(|error| UnpackError::failed(format_args!("reading {}", result.display()), error))
}

/// A process that does not outlive its use.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill(); // One that was waited for is not signalled.
        let _ = self.0.wait();
    }
}

/// What it says, until it says no more.
///
/// # Errors
/// Where it takes too long, or nobody waits for it any more.
fn hear(mut stderr: ChildStderr, waits: &UnixStream) -> Result<Vec<u8>, UnpackError> {
    let failed = |error: io::Error| UnpackError::failed("waiting for it", error);
    let until = Instant::now() + WALL_MAX;
    let (mut said, mut piece) = (Vec::new(), [0; 1_024]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        let mut ready = [PollFd::new(&stderr, PollFlags::IN), PollFd::new(waits, PollFlags::RDHUP)];
        match rustix::io::retry_on_intr(|| poll(&mut ready, Some(&wait))) {
            Ok(0) => return Err(UnpackError::limit(format!("unpacking took more than {} s", WALL_MAX.as_secs()))),
            Ok(_) => {}
            Err(error) => return Err(failed(error.into())),
        }
        if !ready[1].revents().is_empty() {
            return Err(UnpackError::Failed("nobody waits for it any more".into()));
        }
        match stderr.read(&mut piece).map_err(failed)? {
            0 => return Ok(said),
            // What it says beyond this is read and forgotten.
            length => said.extend_from_slice(&piece[..length.min(SAID_BYTES_MAX - said.len())]),
        }
    }
}

fn judge(status: ExitStatus, said: &str) -> Result<(), UnpackError> {
    let signal = Signal::as_raw;
    // What a stranger's archive made it say goes to terminals.
    let said: String = said.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(EXIT_REFUSED), _) => Err(UnpackError::Refused(said)),
        (Some(EXIT_LIMIT), _) => Err(UnpackError::Limit(said)),
        (Some(1), _) if !said.is_empty() => Err(UnpackError::Failed(said)),
        (_, Some(ended)) if ended == signal(Signal::XCPU) => {
            Err(UnpackError::Limit(format!("unpacking took more than {CPU_SECONDS_MAX} s of processor time")))
        }
        (_, Some(ended)) if ended == signal(Signal::XFSZ) => Err(UnpackError::limit("a file became longer than it may be")),
        (_, Some(ended)) if ended == signal(Signal::KILL) => Err(UnpackError::limit(format!(
            "unpacking took more than {CPU_SECONDS_MAX} s of processor time, or than the machine's memory, or was ended from outside"
        ))),
        (_, Some(ended)) if ended == signal(Signal::ABORT) && said.contains("memory allocation") => {
            Err(UnpackError::limit("unpacking took more memory than it may"))
        }
        _ => Err(UnpackError::failed(status, said)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_unpacker_says_whose_move_it_is() {
        type Expected = fn(&UnpackError) -> bool;
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        let cases: [(ExitStatus, &str, Expected); 9] = [
            (exit(2), "entry \"x\": it is a device", |error| *error == UnpackError::refused("entry \"x\": it is a device")),
            (exit(3), "too long", |error| *error == UnpackError::limit("too long")),
            (exit(1), "no space", |error| matches!(error, UnpackError::Failed(_))),
            (exit(101), "panicked\x1b[2J", |error| matches!(error, UnpackError::Failed(said) if !said.contains('\x1b'))),
            (ExitStatus::from_raw(24), "", |error| matches!(error, UnpackError::Limit(what) if what.contains("processor"))),
            (ExitStatus::from_raw(25), "", |error| matches!(error, UnpackError::Limit(_))),
            (ExitStatus::from_raw(9), "", |error| matches!(error, UnpackError::Limit(_))),
            (
                ExitStatus::from_raw(6),
                "memory allocation of 9 bytes failed",
                |error| matches!(error, UnpackError::Limit(what) if what.contains("memory")),
            ),
            (ExitStatus::from_raw(11), "", |error| matches!(error, UnpackError::Failed(_))),
        ];
        for (status, said, expected) in cases {
            let error = judge(status, said).unwrap_err();
            assert!(expected(&error), "{status}: {error}");
        }
        assert!(judge(exit(0), "").is_ok());
    }
}
