//! A further program in the cell of a task, with somebody at its other end: what `skep exec` runs. Ends with the program, or when nobody is
//! there any more.
//!
//! Both sides send frames over a unix stream: a byte that says what it is, a big-endian `u32` length, and so many bytes. To the program: [`STDIN`]
//! (empty: its end), [`RESIZE`] (rows and columns, two big-endian `u16`). From it: [`STDOUT`], [`STDERR`], and at last [`EXIT`] (a big-endian
//! `i32`) or [`FAILED`] (why it was not started, for people).

use super::places::{Places, Which};
use super::{Witness, clear};
use crate::Key;
use crate::executor::place;
use crate::jail::cell::join::{Streams, join, terminal};
use crate::jail::cell::sys;
use crate::jail::cgroup::Hierarchies;
use crate::process::{KEEPER, ProcessSpec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, geteuid, kill_process_group, pidfd_open, pidfd_send_signal, waitid};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

/// For standard input; empty: that was all.
pub const STDIN: u8 = 0;
/// Of standard output, or of the terminal.
pub const STDOUT: u8 = 1;
/// Of standard error.
pub const STDERR: u8 = 2;
/// The exit code; 128 and its number for a signal.
pub const EXIT: u8 = 3;
/// It was not started.
pub const FAILED: u8 = 4;
/// The terminal has another size.
pub const RESIZE: u8 = 5;
/// Most bytes in one frame.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// Bytes before those of a frame.
pub const HEADER_BYTES: usize = 5;

/// What is to run in the cell of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Which task.
    pub key: Key,
    /// The program and its arguments; not empty.
    pub command: Vec<String>,
    /// Rows and columns of a terminal of its own; `None`: three pipes.
    pub terminal: Option<(u16, u16)>,
}

/// The frame of `bytes`.
#[must_use]
pub fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("whoever sends cuts to FRAME_BYTES_MAX").to_be_bytes();
    [&[kind][..], &length, bytes].concat()
}

/// Serves one session on `stream`; returns the exit code of this process.
pub(super) fn serve(session: &Session, places: &Places, mut stream: UnixStream, hierarchies: &Hierarchies) -> i32 {
    sys::ignore_broken_pipes();
    let ended = match start(session, places, hierarchies) {
        Ok(mut running) => frame(EXIT, &running.relay(&mut stream).to_be_bytes()),
        Err(reason) => frame(FAILED, reason.as_bytes()),
    };
    i32::from(stream.write_all(&ended).is_err())
}

/// A program that runs, and our ends of what it reads and writes.
struct Running {
    process: OwnedFd,
    pid: u32,
    stdin: Option<OwnedFd>,
    outputs: [Option<(u8, OwnedFd)>; 2],
    terminal: bool,
    /// Came, and is not taken by the program yet.
    waiting: Vec<u8>,
    /// Nothing more comes: once all is taken, that is its end.
    closing: bool,
    /// Of frames that have not come whole.
    came: Vec<u8>,
}

fn start(session: &Session, places: &Places, hierarchies: &Hierarchies) -> Result<Running, String> {
    let dir = places.dir(Which::Process(session.key));
    let bytes = fs::read(dir.join(place::SPEC)).map_err(|_| "the task has ended".to_owned())?;
    let spec: ProcessSpec = postcard::from_bytes(&bytes).map_err(|error| format!("what is on record of the task: {error}"))?;
    let witness = Witness::of_task(&dir);
    let (pid, held) = witness.hold().ok_or("the task has ended")?;
    // Both were written by its executor, which is not believed more than what it may do itself.
    let of_keeper = fs::symlink_metadata(&dir).is_ok_and(|found| spec.ids.outside.is_none_or(|first| found.uid() == first + KEEPER));
    let of_task = witness.0.is_some_and(|task| matches!(clear::is_own(&dir, Which::Process(session.key), &task), Ok(Some(true))));
    if !(of_keeper && of_task && places.has_group(&spec.cgroup)) {
        return Err("what is on record of the task names what is not the task's".into());
    }
    // Whoever is not root may enter where he may look (setns(2), ptrace(2)): at the task, and not at its init.
    let (pid, held) = if spec.init && !geteuid().is_root() { first_child(pid).ok_or("the task has ended")? } else { (pid, held) };
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| format!("pipe2: {error}"));
    let (stdin, outputs, streams) = match session.terminal {
        Some((rows, columns)) => {
            let (ours, theirs) = terminal(pid, &spec)?;
            resize(&ours, rows, columns);
            let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| format!("dup: {error}"));
            let streams = Streams { stdin: copy(&theirs)?, stdout: copy(&theirs)?, stderr: theirs, terminal: true };
            (copy(&ours)?, [Some((STDOUT, ours)), None], streams)
        }
        None => {
            let ((stdin, ours), (out, stdout), (errors, stderr)) = (pipe()?, pipe()?, pipe()?);
            let streams = Streams { stdin, stdout, stderr, terminal: false };
            (ours, [Some((STDOUT, out)), Some((STDERR, errors))], streams)
        }
    };
    let joined = join(&spec, &held, hierarchies, &session.command, &streams)?;
    // What is not taken now waits, and output goes on meanwhile.
    rustix::io::ioctl_fionbio(&stdin, true).map_err(|error| format!("FIONBIO: {error}"))?;
    let terminal = session.terminal.is_some();
    Ok(Running {
        process: joined.process,
        pid: joined.pid,
        stdin: Some(stdin),
        outputs,
        terminal,
        waiting: vec![],
        closing: false,
        came: vec![],
    })
}

/// A child of the process `pid`, which lives: its number, and a descriptor that holds it.
fn first_child(pid: u32) -> Option<(u32, OwnedFd)> {
    let first = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.split(' ').next()?.parse::<u32>().ok();
    let child = first()?;
    let held = pidfd_open(Pid::from_raw(child.cast_signed())?, PidfdFlags::empty()).ok()?;
    // Only now is the number held: what has it must still be the same process.
    (first() == Some(child)).then_some((child, held))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    Stream,
    Stdin,
    End,
    Output(usize),
}

impl Running {
    /// Until it has ended; its exit code.
    fn relay(&mut self, stream: &mut UnixStream) -> i32 {
        loop {
            for ready in self.wait(stream) {
                let here = match ready {
                    Ready::Stream => self.receive(stream),
                    Ready::Stdin => {
                        self.give();
                        true
                    }
                    Ready::Output(at) => self.output(at, stream),
                    Ready::End => return self.end(stream),
                };
                if !here {
                    self.kill_group();
                    sys::kill(&self.process);
                    return self.end(stream);
                }
            }
        }
    }

    /// Ends the program with all that it began and that is of its group: a check that hangs is to leave nothing behind.
    fn kill_group(&self) {
        // Who waits for the program stands still meanwhile, so that its number stays its own.
        let _ = pidfd_send_signal(&self.process, Signal::STOP);
        let program = first_child(self.pid).and_then(|(pid, _)| Pid::from_raw(pid.cast_signed()));
        program.map(|program| kill_process_group(program, Signal::KILL));
    }

    fn wait(&self, stream: &UnixStream) -> Vec<Ready> {
        let mut what = vec![Ready::End];
        let mut fds = vec![PollFd::new(&self.process, PollFlags::IN)];
        // What was not taken is enough: no more is read.
        if self.waiting.is_empty() {
            what.push(Ready::Stream);
            fds.push(PollFd::new(stream, PollFlags::IN));
        } else if let Some(stdin) = &self.stdin {
            what.push(Ready::Stdin);
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        for (at, output) in self.outputs.iter().enumerate() {
            if let Some((_, pipe)) = output {
                what.push(Ready::Output(at));
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        if poll(&mut fds, None).is_err() {
            return vec![];
        }
        // Output before the end: what was printed is told first.
        let mut ready: Vec<Ready> = fds.iter().zip(&what).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, what)| *what).collect();
        if ready.first() == Some(&Ready::End) {
            ready.rotate_left(1);
        }
        ready
    }

    /// Takes what came; false: nobody is there any more.
    fn receive(&mut self, stream: &mut UnixStream) -> bool {
        let mut piece = vec![0; FRAME_BYTES_MAX];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return false,
            Ok(length) => self.came.extend_from_slice(&piece[..length]),
        }
        while let Some((header, rest)) = self.came.split_first_chunk::<HEADER_BYTES>() {
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            if length > FRAME_BYTES_MAX {
                return false;
            }
            let Some(body) = rest.get(..length) else { break };
            match (header[0], body) {
                (STDIN, []) if self.terminal => self.waiting.push(0x04), // End of transmission, as a terminal has it.
                (STDIN, []) => self.closing = true,
                (STDIN, bytes) => self.waiting.extend_from_slice(bytes),
                (RESIZE, [r1, r2, c1, c2]) => {
                    if let Some((_, terminal)) = self.outputs[0].as_ref().filter(|_| self.terminal) {
                        resize(terminal, u16::from_be_bytes([*r1, *r2]), u16::from_be_bytes([*c1, *c2]));
                    }
                }
                _ => return false,
            }
            self.came.drain(..HEADER_BYTES + length);
        }
        self.give();
        true
    }

    /// Gives the program what it takes.
    fn give(&mut self) {
        if let Some(stdin) = self.stdin.as_ref().filter(|_| !self.waiting.is_empty()) {
            match write(stdin, &self.waiting) {
                Ok(taken) => drop(self.waiting.drain(..taken)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // It reads no more.
                Err(_) => self.stdin = None,
            }
        }
        if self.stdin.is_none() {
            self.waiting.clear();
        }
        if self.closing && self.waiting.is_empty() {
            self.stdin = None;
        }
    }

    /// Passes on what it printed; false: nobody is there any more.
    fn output(&mut self, at: usize, stream: &mut UnixStream) -> bool {
        let Some((kind, pipe)) = &self.outputs[at] else { return true };
        let mut piece = vec![0; FRAME_BYTES_MAX];
        match read(pipe, &mut piece) {
            Ok(length) if length > 0 => stream.write_all(&frame(*kind, &piece[..length])).is_ok(),
            Err(Errno::AGAIN | Errno::INTR) => true,
            // A terminal whose other side is closed answers EIO.
            _ => {
                self.outputs[at] = None;
                true
            }
        }
    }

    /// What it printed last, and its exit code.
    fn end(&mut self, stream: &mut UnixStream) -> i32 {
        for at in 0..self.outputs.len() {
            if let Some((_, pipe)) = &self.outputs[at]
                && rustix::io::ioctl_fionbio(pipe, true).is_err()
            {
                self.outputs[at] = None;
            }
            while let Some((_, pipe)) = &self.outputs[at] {
                // Somebody that it has left behind may hold it open: what is there now is the end.
                let mut ready = [PollFd::new(pipe, PollFlags::IN)];
                let more = poll(&mut ready, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0);
                if !more || !self.output(at, stream) {
                    break;
                }
            }
        }
        let waited = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED).ok().flatten();
        waited.map_or(1, |waited| waited.exit_status().unwrap_or(128 + waited.terminating_signal().unwrap_or(0)))
    }
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = tcsetwinsize(terminal, size); // A terminal of another size is one too.
}
