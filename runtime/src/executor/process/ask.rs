//! What an agent asks its template for. Each request is one byte on their socket, with a descriptor of a conversation and perhaps one of a file; the
//! request itself is the first that the conversation carries. So a template that is killed while it reads one leaves those behind it whole.

use super::super::ExecutorSpec;
use super::places::{Places, Which};
use super::session::Session;
use crate::container::Work;
use crate::process::ProcessSpec;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::os::unix::net::UnixStream;

/// Most bytes of one request or answer: arguments and environment are bounded where a job is admitted.
const BYTES_MAX: usize = 16 << 20;

/// A request, and what its conversation carries afterwards.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// The executor of a process: it is its client from then on.
    Executor(Box<ProcessSpec>),
    /// A program beside a task: see [`super::session`].
    Session(Session),
    /// An executor of wasm tasks: nothing where it was started, or a [`Refusal`].
    Wasm(Box<ExecutorSpec>),
    /// That an executor is ended by force: an [`Answer`].
    End(Which),
    /// The same, and all that it leaves but the output of processes removed: an [`Answer`].
    Clear(Which),
    /// Something with what tasks are started from: what [`crate::container::serve`] says.
    Unpack(Work),
    /// That the data directory is removed, with all in it: an [`Answer`].
    Vanish,
    /// As `Executor`, for a fenced task, whose lease holds until this moment by [`super::super::lease::boot_ns`].
    Fenced(Box<ProcessSpec>, u64),
}

/// Done, or why not.
pub(super) type Answer = Result<(), String>;

/// The step that failed, on which file, and the system's words.
pub(super) type Refusal = (String, std::path::PathBuf, String);

/// What a template says of itself first, or why it ends.
pub(super) type Hello = Result<About, String>;

/// What a template found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) places: Places,
    /// What holds tasks in less than it should on this machine, as sentences for people.
    pub(super) weaknesses: Vec<String>,
    /// True where each task and each role has users of its own.
    pub(super) own_ids: bool,
    /// True where control groups bound what a task has together.
    pub(super) bounded: bool,
}

/// `message` as it is sent: its length in four bytes, big end first, and itself.
pub(super) fn framed(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length as usize <= BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{} bytes are too many to ask", bytes.len())))?;
    Ok([&length.to_be_bytes()[..], &bytes].concat())
}

/// Reads one message.
pub(super) fn read<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = length_of(length)?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    parse(&bytes)
}

pub(super) fn length_of(header: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(header) as usize;
    if length > BYTES_MAX { Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long")) } else { Ok(length) }
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The next conversation that somebody wants, with the file that came with it; `None`: whoever asks is gone.
pub(super) fn next(stream: &UnixStream) -> io::Result<Option<(Option<UnixStream>, Option<File>)>> {
    let mut byte = [0];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?.bytes,
        }
    };
    if got == 0 {
        return Ok(None);
    }
    let mut came =
        control.drain().filter_map(|message| if let RecvAncillaryMessage::ScmRights(came) = message { Some(came) } else { None }).flatten();
    let conversation = came.next().map(UnixStream::from);
    let file = came.next().map(File::from);
    Ok(Some((conversation, file)))
}
