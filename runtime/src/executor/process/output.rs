//! What a task prints: two pipes, read as fast as it may print, kept by [`Logs`].

use crate::Stream;
use crate::executor::logs::{Logs, TaskLog};
use crate::executor::place;
use crate::process::ProcessSpec;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Read at once: a pipe holds as much (pipe(7)).
const PIECE_BYTES: usize = 64 << 10;

pub(super) struct Output {
    /// What the path of `logs` leads to.
    _folder: OwnedFd,
    logs: Logs,
    log: Arc<TaskLog>,
    pipes: [Option<OwnedFd>; 2],
    /// Bytes a second that may be printed; those that may be printed now, up to a second's worth.
    bytes_per_s_max: u64,
    allowed_bytes: u64,
    counted: Instant,
}

impl Output {
    /// Of the task of `spec`, which prints into these pipes: standard output, standard error. Their folder is opened now, by who may.
    pub(super) fn new(home: &Path, spec: &ProcessSpec, pipes: [OwnedFd; 2]) -> io::Result<Self> {
        let folder = open(home.join(place::LOGS).as_path(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let logs = Logs::in_folder(PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())));
        let log = logs.task(spec.key, spec.limits.log_bytes_max);
        let bytes_per_s_max = spec.limits.log_bytes_per_s_max.max(1);
        Ok(Self {
            _folder: folder,
            logs,
            log,
            pipes: pipes.map(Some),
            bytes_per_s_max,
            allowed_bytes: bytes_per_s_max,
            counted: Instant::now(),
        })
    }

    /// The pipes that are to be waited for; none while the task has printed as much as it may: it waits then, once its pipe is full.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let may = self.allowed_bytes > 0;
        self.pipes.iter().enumerate().filter_map(move |(at, pipe)| pipe.as_ref().filter(|_| may).map(|pipe| (at, pipe.as_fd())))
    }

    /// When the task may print again; `None`: it may now.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        (self.allowed_bytes == 0 && self.pipes.iter().any(Option::is_some)).then(|| self.counted + Duration::from_millis(50))
    }

    /// Counts the time that has passed.
    pub(super) fn pass(&mut self, now: Instant) {
        let passed_us = u64::try_from((now - self.counted).as_micros()).unwrap_or(u64::MAX);
        let more = self.bytes_per_s_max.saturating_mul(passed_us) / 1_000_000;
        if more > 0 {
            self.allowed_bytes = self.allowed_bytes.saturating_add(more).min(self.bytes_per_s_max);
            self.counted = now;
        }
    }

    /// Reads one piece from a pipe that has some.
    pub(super) fn read(&mut self, at: usize) {
        let most = usize::try_from(self.allowed_bytes).unwrap_or(usize::MAX).min(PIECE_BYTES);
        // Both may be ready, and the first have printed all that may be now.
        if most == 0 {
            return;
        }
        let read = self.take(at, most);
        self.allowed_bytes -= u64::try_from(read).expect("a piece fits").min(self.allowed_bytes);
    }

    /// Reads what is left, without waiting: nobody prints any more.
    pub(super) fn finish(&mut self) {
        for at in 0..self.pipes.len() {
            while self.take(at, PIECE_BYTES) > 0 {}
            self.pipes[at] = None;
        }
        self.logs.end(&self.log);
    }

    /// How many bytes there were; 0 where there are none now, or never again.
    fn take(&mut self, at: usize, most: usize) -> usize {
        let Some(pipe) = &self.pipes[at] else { return 0 };
        let mut piece = Vec::with_capacity(most);
        match rustix::io::read(pipe, rustix::buffer::spare_capacity(&mut piece)) {
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Ok(0) | Err(_) => {
                self.pipes[at] = None;
                0
            }
            Ok(length) => {
                let stream = if at == 0 { Stream::Stdout } else { Stream::Stderr };
                self.logs.write(&self.log, stream, &piece);
                length
            }
        }
    }
}
