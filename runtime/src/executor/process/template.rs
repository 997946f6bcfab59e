//! The template: one small process with one thread, from which executors are forked. It begins before there is a runtime, holds nothing but one
//! socket, and looks at nothing of what it passes on.

use super::run::{self, Lent, Machine};
use super::{Ask, DISKS, Request, VERSION, own_mounts, session};
use crate::executor::place;
use crate::jail::cell::network::Networks;
use crate::jail::cell::{self, Host, sys};
use crate::jail::cgroup::{Hierarchies, Pool, attach_at_once};
use crate::process::{EXECUTORS_GROUP, Network};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::WaitOptions;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Most bytes of one request: arguments and environment are bounded where a job is admitted.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// How often is looked whether the host has changed, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The verb `template HOME`: forks an executor for each request that comes on standard input, a socket; ends when that is closed. To be called
/// before any thread is started.
#[must_use]
pub fn main(home: &Path) -> ExitCode {
    match serve(home) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("template: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The same as a program of its own, `skep-template template HOME VERSION BINARY`; where that is of another build, `binary` takes its place.
#[must_use]
pub fn main_of(home: &Path, version: &OsStr, binary: &Path) -> ExitCode {
    if version == VERSION {
        return main(home);
    }
    let error = Command::new(binary).arg("template").arg(home).exec();
    eprintln!("template: {}: {error}", binary.display());
    ExitCode::FAILURE
}

fn serve(home: &Path) -> io::Result<()> {
    sys::expect_one_thread()?;
    // What whoever started the agent left open is not to live on in executors.
    sys::close_all_but_standard();
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    drop(null);
    // It is the last that the kernel shall end for want of memory; root without CAP_SYS_RESOURCE may not say so.
    let _ = fs::write("/proc/self/oom_score_adj", "-999");
    let _ = rustix::process::setsid();
    sys::reset_signals();
    cell::prepare();
    place::prepare_forks();
    let _attaching = attach_at_once();
    furnish(home)?;
    let host = Host::prepare(home).map_err(io::Error::other)?;
    let mut machine = Machine { hierarchies: Hierarchies::find(), host, owner: rustix::process::getuid().as_raw() };
    // The hierarchies of control groups are found by now, and held.
    own_mounts::leave_out_what_no_task_needs();
    let mut lendings = Lendings { networks: Networks::new(), groups: Pool::new(&machine.hierarchies), lent: BTreeMap::new() };
    let mut looked = Instant::now();
    loop {
        lendings.bury();
        if !comes(&stream, !lendings.lent.is_empty())? {
            lendings.groups.sweep(Instant::now());
            continue;
        }
        let Some((bytes, socket)) = next(&stream)? else {
            lendings.bury();
            lendings.groups.clear();
            return Ok(());
        };
        if looked.elapsed() >= LOOK_EVERY {
            machine.host.renew();
            looked = Instant::now();
        }
        let Ok(ask) = postcard::from_bytes::<Ask>(&bytes) else { continue };
        let mut request = match ask {
            Ask::Executor(request) => *request,
            Ask::Session(session) => {
                if let Ok(sys::Forked::Child) = sys::fork() {
                    drop((stream, lendings));
                    sys::end_at_once(session::serve(&session, socket.into(), &machine.hierarchies));
                }
                continue;
            }
        };
        let lent = lendings.lend(&mut request);
        match sys::fork() {
            Ok(sys::Forked::Child) => {
                drop((stream, lendings));
                run::run(&request, socket.into(), lent, &machine)
            }
            Ok(sys::Forked::Parent(pid)) => drop(lendings.lent.insert(pid, lent)),
            // Whoever asked finds the socket closed.
            Err(error) => eprintln!("template: forking an executor: {error}"),
        }
    }
}

/// Waits until something comes, or while there are executors until their ends may be looked for.
fn comes(stream: &UnixStream, looks: bool) -> io::Result<bool> {
    let wait = looks.then_some(Timespec { tv_sec: 1, tv_nsec: 0 });
    match poll(&mut [PollFd::new(stream, PollFlags::IN)], wait.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What executors have of what serves one task after another.
struct Lendings {
    networks: Option<Networks>,
    groups: Pool,
    lent: BTreeMap<u32, Lent>,
}

impl Lendings {
    /// Lends what the request asks for.
    fn lend(&mut self, request: &mut Request) -> Lent {
        let network = match (&mut self.networks, request.spec.network) {
            (Some(networks), Network::None) => Some(networks.take()),
            _ => None,
        };
        let bounds = run::bounds(&request.spec);
        let slot = self.groups.take(&request.spec.cgroup, &bounds);
        if let Some(slot) = &slot {
            request.spec.cgroup.clone_from(&slot.name);
        }
        Lent { network, slot, bounds }
    }

    /// Buries executors that ended; what they had is free again where nothing is left in it.
    fn bury(&mut self) {
        while let Ok(Some((pid, how))) = rustix::process::wait(WaitOptions::NOHANG) {
            let lent = self.lent.remove(&pid.as_raw_nonzero().get().unsigned_abs());
            let Some(Lent { network, slot, bounds }) = lent.filter(|_| how.exit_status() == Some(run::CLEAN)) else { continue };
            if let (Some(Ok(network)), Some(networks)) = (network, self.networks.as_mut()) {
                networks.put_back(network);
            }
            if let Some(slot) = slot {
                self.groups.put_back(slot.name, bounds);
            }
        }
    }
}

/// The folders that tasks' files are in. An executor adds to the output, and neither lists nor removes what others have there.
fn furnish(home: &Path) -> io::Result<()> {
    let root = rustix::process::geteuid().is_root();
    for (name, mode) in [(place::LOGS, if root { 0o1730 } else { 0o700 }), (DISKS, 0o700)] {
        let path = home.join(name);
        fs::create_dir_all(&path)?;
        if root {
            std::os::unix::fs::chown(&path, Some(0), Some(EXECUTORS_GROUP))?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The next request, and the socket that came with it; `None`: whoever asked is gone.
fn next(stream: &UnixStream) -> io::Result<Option<(Vec<u8>, OwnedFd)>> {
    let mut header = [0; 4];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(stream, &mut [IoSliceMut::new(&mut header)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?.bytes,
        }
    };
    if got == 0 {
        return Ok(None);
    }
    let mut socket: Option<OwnedFd> = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = message {
            socket = sockets.last();
        }
    }
    let mut stream = stream;
    stream.read_exact(&mut header[got..])?;
    let length = u32::from_be_bytes(header) as usize;
    let Some(socket) = socket.filter(|_| length <= REQUEST_BYTES_MAX) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a request without a socket, or too long"));
    };
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(Some((bytes, socket)))
}
