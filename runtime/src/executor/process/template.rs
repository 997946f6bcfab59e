//! The template: one small process with one thread, from which executors are forked. It begins before there is a runtime, holds nothing but one
//! socket, and looks at nothing of what it passes on.

use super::run::{self, Machine};
use super::{Ask, DISKS, session};
use crate::executor::place;
use crate::jail::cell::network::Networks;
use crate::jail::cell::{Host, prepare_filters, sys};
use crate::jail::cgroup::Hierarchies;
use crate::process::{EXECUTORS_GROUP, Network};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::WaitOptions;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
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

fn serve(home: &Path) -> io::Result<()> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    drop(null);
    // It is the last that the kernel shall end for want of memory; root without CAP_SYS_RESOURCE may not say so.
    let _ = fs::write("/proc/self/oom_score_adj", "-999");
    let _ = rustix::process::setsid();
    sys::reset_signals();
    prepare_filters();
    furnish(home)?;
    let host = Host::prepare(home).map_err(io::Error::other)?;
    let mut machine = Machine { hierarchies: Hierarchies::find(), host, owner: rustix::process::getuid().as_raw() };
    let mut networks = Networks::new();
    let mut lent = BTreeMap::new();
    let mut looked = Instant::now();
    loop {
        bury(&mut lent, &mut networks);
        if !comes(&stream, !lent.is_empty())? {
            continue;
        }
        let Some((bytes, socket)) = next(&stream)? else { return Ok(()) };
        if looked.elapsed() >= LOOK_EVERY {
            machine.host.renew();
            looked = Instant::now();
        }
        let Ok(ask) = postcard::from_bytes::<Ask>(&bytes) else { continue };
        let request = match ask {
            Ask::Executor(request) => *request,
            Ask::Session(session) => {
                if let Ok(sys::Forked::Child) = sys::fork() {
                    drop((stream, lent, networks));
                    sys::end_at_once(session::serve(&session, socket.into(), &machine.hierarchies));
                }
                continue;
            }
        };
        let network = match (&mut networks, request.spec.network) {
            (Some(networks), Network::None) => Some(networks.take()),
            _ => None,
        };
        match sys::fork() {
            Ok(sys::Forked::Child) => {
                drop((stream, lent, networks));
                sys::end_at_once(run::run(&request, socket.into(), network, &machine))
            }
            Ok(sys::Forked::Parent(pid)) => drop(lent.insert(pid, network.and_then(Result::ok))),
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

/// Buries executors that ended; their networks are free again where nothing is left in them.
fn bury(lent: &mut BTreeMap<u32, Option<OwnedFd>>, networks: &mut Option<Networks>) {
    while let Ok(Some((pid, how))) = rustix::process::wait(WaitOptions::NOHANG) {
        let network = lent.remove(&pid.as_raw_nonzero().get().unsigned_abs()).flatten();
        if let (Some(network), Some(networks), Some(run::CLEAN)) = (network, networks.as_mut(), how.exit_status()) {
            networks.put_back(network);
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
