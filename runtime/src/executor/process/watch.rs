//! What an executor does while its task runs, and until its end was taken: one loop that waits for the task, its output, its client and its
//! limits. The stop with its grace is done here, so it goes on when the agent dies.

use super::messages::Mailbox;
use super::output::Output;
use super::peer::Peer;
use crate::executor::lease::{LOOK_EVERY, Lease};
use crate::executor::record::{Record, RecordLog};
use crate::executor::wire::{Command, Hello, HelloReply, Told};
use crate::executor::{ExecutorEvent, Held};
use crate::jail::cell::{Cell, sys};
use crate::jail::cgroup::{Counted, Group};
use crate::process::{ProcessLimits, ProcessSpec};
use crate::{Exit, Key, Usage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// The shortest and the longest wait between two looks at how much processor time was used.
const CPU_LOOK_MIN: Duration = Duration::from_millis(10);
const CPU_LOOK_MAX: Duration = Duration::from_secs(1);
/// An end that cannot be put on record, because the disk is full, is tried again after so long.
const RECORD_AGAIN: Duration = Duration::from_millis(100);
/// A file system with less left than this is full: what most programs write at once does not fit any more.
const FULL_BYTES: u64 = 128 << 10;

/// Why the task was ended by us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Asked,
    Lease,
    Time,
    CpuTime,
}

/// What of a task is there once it has begun.
pub(super) struct Begun {
    pub(super) cell: Cell,
    pub(super) group: Group,
    pub(super) output: Output,
    pub(super) messages: Mailbox,
}

/// The task while it runs.
pub(super) struct Task {
    limits: ProcessLimits,
    stop_signal: i32,
    cell: Cell,
    group: Group,
    output: Output,
    messages: Mailbox,
    /// Of one that is fenced.
    lease: Option<Lease>,
    started: Instant,
    since_ms: u64,
    cause: Option<Cause>,
    kill_at: Option<Instant>,
    look_at: Option<Instant>,
}

pub(super) struct Watch {
    key: Key,
    task: Option<Task>,
    /// How it ended, once it has.
    ended: Option<(Exit, Usage)>,
    /// How many messages to it were dropped, once it has ended.
    dropped: u64,
    /// Its control group, once it has ended in it.
    left: Option<Group>,
    /// When the end is to be put on record again.
    record_again: Option<Instant>,
    record: RecordLog,
    listener: UnixListener,
    hello: HelloReply,
    owner: u32,
    client: Option<Peer>,
    /// Somebody who has not said hello yet.
    guest: Option<Peer>,
    forgotten: bool,
    quit: bool,
}

/// What is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    Listener,
    Client,
    Guest,
    End,
    Output(usize),
    Messages,
}

impl Task {
    /// `began`: when it started, and that moment in milliseconds of the Unix epoch.
    pub(super) fn new(spec: &ProcessSpec, begun: Begun, lease: Option<Lease>, (started, since_ms): (Instant, u64)) -> Self {
        let Begun { cell, group, output, messages } = begun;
        let limits = spec.limits.clone();
        let kill_at = limits.time_ms_max.map(|limit| started + Duration::from_millis(limit));
        let look_at = limits.cpu_time_ms_max.map(|_| started);
        let (stop_signal, cause) = (spec.stop_signal, None);
        let mut task = Self { limits, stop_signal, cell, group, output, messages, lease, started, since_ms, cause, kill_at, look_at };
        task.look(started);
        task
    }

    /// Asks it to stop, and ends it after `grace_ms`.
    fn stop(&mut self, grace_ms: u64, now: Instant) {
        self.cause.get_or_insert(Cause::Asked);
        if grace_ms == 0 {
            return sys::kill(&self.cell.process);
        }
        let at = now + Duration::from_millis(grace_ms);
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
        let _ = sys::signal_held(&self.cell.process, self.stop_signal); // It may have ended.
    }

    /// What is due by the clock.
    fn tick(&mut self, now: Instant) {
        self.output.pass(now);
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.cause.get_or_insert(Cause::Time);
            sys::kill(&self.cell.process);
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look(now);
        }
        if self.lease.take_if(|lease| lease.left().is_none()).is_some() {
            self.cause = Some(Cause::Lease);
            sys::kill(&self.cell.process);
        }
    }

    /// Looks whether it has used its processor time up; the next look is when it could have at the earliest.
    fn look(&mut self, now: Instant) {
        let Some(limit_ms) = self.limits.cpu_time_ms_max else { return };
        let left_us = limit_ms.saturating_mul(1_000).saturating_sub(self.group.counted().cpu_us);
        if left_us == 0 {
            self.look_at = None;
            self.cause.get_or_insert(Cause::CpuTime);
            return sys::kill(&self.cell.process);
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        self.look_at = Some(now + Duration::from_micros(left_us / cores).clamp(CPU_LOOK_MIN, CPU_LOOK_MAX));
    }

    fn next_timer(&self) -> Option<Instant> {
        let lease_at = self.lease.as_ref().map(|lease| Instant::now() + lease.left().unwrap_or_default().min(LOOK_EVERY));
        [self.kill_at, self.look_at, self.output.next_timer(), lease_at].into_iter().flatten().min()
    }

    /// What it has used until now.
    fn usage(&self, counted: &Counted) -> Usage {
        let time_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Usage { fuel: 0, memory_peak_bytes: counted.memory_peak_bytes, time_us, cpu_us: counted.cpu_us }
    }

    /// Its first process has ended, and so have all others of its namespace. What is given back is what is left of it.
    fn end(mut self) -> (Exit, Usage, Group) {
        let waited = waitid(WaitId::PidFd(self.cell.process.as_fd()), WaitIdOptions::EXITED).ok().flatten();
        let own = waited.map_or(Exit::Signal(libc::SIGKILL), |waited| match (waited.exit_status(), waited.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
        });
        let how = match &self.cell.status {
            Some(status) => told(status).unwrap_or(Exit::Signal(libc::SIGKILL)),
            None => own,
        };
        self.output.finish();
        let mut counted = self.group.counted();
        let (cpu_us, peak_bytes) = sys::used_by_children();
        if counted.cpu_us == 0 {
            counted.cpu_us = cpu_us;
        }
        if counted.memory_peak_bytes == 0 {
            counted.memory_peak_bytes = peak_bytes;
        }
        let usage = self.usage(&counted);
        (self.judge(how, &counted), usage, self.group)
    }

    /// Why it ended: what was asked for first, then a limit that it ran into, if it failed at all.
    fn judge(&self, how: Exit, counted: &Counted) -> Exit {
        let limits = &self.limits;
        match self.cause {
            Some(Cause::Asked) => return Exit::Killed,
            Some(Cause::Lease) => return Exit::LeaseOver,
            Some(Cause::Time) => return Exit::OutOfTime { limit_ms: limits.time_ms_max.unwrap_or(0) },
            Some(Cause::CpuTime) => return Exit::OutOfCpuTime { limit_ms: limits.cpu_time_ms_max.unwrap_or(0) },
            None => {}
        }
        if how == Exit::Code(0) {
            return how;
        }
        if counted.memory_kills > 0 {
            return Exit::OutOfMemory { limit_bytes: limits.memory_bytes_max, peak_bytes: counted.memory_peak_bytes };
        }
        if self.cell.store.as_ref().is_some_and(is_full) {
            let limit_bytes = if limits.disk_bytes_max > 0 { limits.disk_bytes_max } else { limits.memory_bytes_max };
            return Exit::OutOfDisk { limit_bytes };
        }
        if counted.processes_refused > 0 {
            return Exit::OutOfProcesses { limit: limits.processes_max };
        }
        how
    }
}

/// What the init wrote of the task.
fn told(status: &OwnedFd) -> Option<Exit> {
    let mut bytes = [0; 4];
    // All who could write have ended: it is there or never will be.
    let read = rustix::io::read(status, &mut bytes).ok()?;
    let status = (read == bytes.len()).then(|| i32::from_ne_bytes(bytes))?;
    if libc::WIFEXITED(status) { Some(Exit::Code(libc::WEXITSTATUS(status))) } else { Some(Exit::Signal(libc::WTERMSIG(status))) }
}

fn is_full(store: &OwnedFd) -> bool {
    rustix::fs::fstatfs(store)
        .is_ok_and(|found| found.f_bavail.saturating_mul(found.f_bsize.unsigned_abs()) < FULL_BYTES || found.f_ffree == 0)
}

impl Watch {
    pub(super) fn new(key: Key, task: Option<Task>, record: RecordLog, listener: UnixListener, hello: HelloReply, owner: u32) -> Self {
        Self {
            key,
            task,
            ended: None,
            dropped: 0,
            left: None,
            record_again: None,
            record,
            listener,
            hello,
            owner,
            client: None,
            guest: None,
            forgotten: false,
            quit: false,
        }
    }

    /// Serves until the task has ended and its end was forgotten, or nobody is there to be told of it: it is on record then. Whoever asked for the
    /// task is at the other end of `client`.
    pub(super) fn serve(&mut self, first: ExecutorEvent, client: UnixStream) {
        self.guest = Peer::new(client).ok();
        if let ExecutorEvent::Ended { exit, usage, .. } = first {
            self.end(exit, usage);
        }
        // Whoever asked for the task says hello at once.
        let mut expected = Some(Instant::now() + Duration::from_secs(10));
        loop {
            let now = Instant::now();
            if self.client.is_some() || expected.is_some_and(|until| until <= now) {
                expected = None;
            }
            let alone = self.client.is_none() && self.guest.is_none() && expected.is_none();
            let settled = self.ended.is_some() && self.record_again.is_none();
            if settled && (self.forgotten || self.quit || alone) {
                // What was said last may still be on its way.
                return;
            }
            for ready in self.wait(now, expected) {
                self.take(ready);
            }
            let now = Instant::now();
            if let Some(task) = &mut self.task {
                task.tick(now);
            }
            if self.record_again.is_some_and(|at| at <= now) {
                self.put_on_record();
            }
            if self.client.as_mut().is_some_and(|client| !client.send()) {
                self.client = None;
            }
        }
    }

    /// True once the task's end was forgotten, where its control group may serve another.
    pub(super) fn is_clean(&self) -> bool {
        self.forgotten && self.left.as_ref().is_some_and(Group::is_clean)
    }

    /// Closes all that it holds but the connection to its client, if it has one.
    pub(super) fn leave(self) -> Option<Peer> {
        self.client
    }

    fn wait(&self, now: Instant, expected: Option<Instant>) -> Vec<Ready> {
        let mut what = vec![Ready::Listener];
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for (peer, ready) in [(&self.client, Ready::Client), (&self.guest, Ready::Guest)] {
            if let Some(peer) = peer {
                what.push(ready);
                let flags = if peer.is_sending() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
                fds.push(PollFd::from_borrowed_fd(peer.fd(), flags));
            }
        }
        if let Some(task) = &self.task {
            what.push(Ready::End);
            fds.push(PollFd::new(&task.cell.process, PollFlags::IN));
            for (at, pipe) in task.output.waiting() {
                what.push(Ready::Output(at));
                fds.push(PollFd::from_borrowed_fd(pipe, PollFlags::IN));
            }
            if let Some(pipe) = task.messages.waits() {
                what.push(Ready::Messages);
                fds.push(PollFd::from_borrowed_fd(pipe, PollFlags::OUT));
            }
        }
        let timers = [self.task.as_ref().and_then(Task::next_timer), self.record_again, expected];
        let wait = timers.into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
        // A timer that is rounded down would be looked at again and again.
        let wait =
            wait.map(|wait| Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() });
        if poll(&mut fds, wait.as_ref()).is_err() {
            return vec![];
        }
        let ready = fds.iter().zip(&what).filter(|(fd, _)| !fd.revents().is_empty());
        ready.map(|(_, what)| *what).collect()
    }

    fn take(&mut self, ready: Ready) {
        match ready {
            Ready::Listener => self.accept(),
            Ready::Guest => self.greet(),
            Ready::Client => self.hear(),
            Ready::Output(at) => {
                if let Some(task) = &mut self.task {
                    task.output.read(at);
                }
            }
            Ready::Messages => {
                if let Some(task) = &mut self.task {
                    task.messages.pass_on();
                }
            }
            Ready::End => {
                if let Some(task) = self.task.take() {
                    self.dropped = task.messages.dropped();
                    let (exit, usage, left) = task.end();
                    self.left = Some(left);
                    self.end(exit, usage);
                }
            }
        }
    }

    /// Root, the agent's user, and the executor's own.
    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let own = rustix::process::geteuid().as_raw();
        let known = rustix::net::sockopt::socket_peercred(&stream).is_ok_and(|peer| [0, self.owner, own].contains(&peer.uid.as_raw()));
        if known {
            self.guest = Peer::new(stream).ok();
        }
    }

    /// Who says hello in our version takes the place of the client before.
    fn greet(&mut self) {
        let Some(mut guest) = self.guest.take() else { return };
        let here = guest.receive();
        match guest.next::<Hello>() {
            Ok(Some(hello)) => {
                guest.tell(&self.hello);
                if hello.version == self.hello.version {
                    if let Some(mut old) = self.client.take() {
                        // What it had sent is obeyed first: it may have been killed right after.
                        old.receive();
                        self.obey(&mut old);
                    }
                    guest.tell(&Told::Held { part: self.held(), more: false });
                    guest.greeted = true;
                    self.obey(&mut guest);
                    self.client = Some(guest);
                } else {
                    guest.send();
                }
            }
            Ok(None) if here => self.guest = Some(guest),
            _ => {}
        }
    }

    fn hear(&mut self) {
        let Some(mut client) = self.client.take() else { return };
        let here = client.receive();
        if self.obey(&mut client) && here && client.send() {
            self.client = Some(client);
        }
    }

    /// Does what it has said; false: it says what no client says.
    fn obey(&mut self, client: &mut Peer) -> bool {
        loop {
            match client.next::<Command>() {
                Ok(Some(command)) => self.command(command),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            // It has one task, and takes no other.
            Command::Launch(_) | Command::LaunchFenced(..) | Command::Retire | Command::Usage | Command::Ask(_) => {}
            Command::Renew { keys, until_ns } => {
                let task = self.task.as_ref().filter(|_| keys.contains(&self.key));
                task.and_then(|task| task.lease.as_ref()).into_iter().for_each(|lease| lease.renew(until_ns));
            }
            Command::Stop { keys, grace_ms } => {
                if let Some(task) = self.task.as_mut().filter(|_| keys.contains(&self.key)) {
                    task.stop(grace_ms, Instant::now());
                }
            }
            Command::Message { key, bytes } => {
                if let Some(task) = self.task.as_mut().filter(|_| key == self.key) {
                    task.messages.hear(bytes.to_vec());
                }
            }
            Command::Forget(keys) => self.forgotten |= keys.contains(&self.key) && self.ended.is_some(),
            Command::Quit => {
                self.quit = true;
                if let Some(task) = &mut self.task {
                    task.stop(0, Instant::now());
                }
            }
        }
    }

    fn held(&self) -> Held {
        let live = self.task.as_ref().map(|task| (self.key, Some(task.since_ms)));
        let ended = self.ended.clone().filter(|_| self.record_again.is_none()).map(|(exit, usage)| (self.key, exit, usage));
        // One whose end is not on record yet still counts as live.
        let live = if live.is_none() && ended.is_none() { Some((self.key, None)) } else { live };
        Held { live: live.into_iter().collect(), ended: ended.into_iter().collect() }
    }

    fn end(&mut self, exit: Exit, usage: Usage) {
        self.ended = Some((exit, usage));
        self.put_on_record();
    }

    /// On record, then told.
    fn put_on_record(&mut self) {
        let Some((exit, usage)) = self.ended.clone() else { return };
        let ended = Record::Ended(vec![(self.key, exit.clone(), usage)]);
        if self.record.append(&ended).is_err() {
            self.record_again = Some(Instant::now() + RECORD_AGAIN);
            return;
        }
        self.record_again = None;
        if let Some(client) = &mut self.client {
            let dropped = (self.dropped > 0).then_some(ExecutorEvent::Dropped { key: self.key, messages: self.dropped });
            client.tell(&Told::Events(dropped.into_iter().chain([ExecutorEvent::Ended { key: self.key, exit, usage }]).collect()));
        }
    }
}
