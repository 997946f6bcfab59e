//! Closed networks: namespaces with a loopback and nothing else, which belong to the host's root. So nobody inside has a right over them, root in
//! a container included, and what of the kernel such rights lead to is out of reach.
//!
//! To make one and to take it down costs the kernel more than all the rest of a small task. One that was left as it was made, without a socket, is
//! given to another task.

use super::super::failed;
use super::{sys, trees};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::fs::{self, File};
use std::io;

/// Most that are kept for later.
const FREE_MAX: usize = 64;
const OWN: &str = "/proc/self/ns/net";

/// Those of one machine, made by a process with one thread.
#[derive(Debug)]
pub(crate) struct Networks {
    /// That of the process itself.
    own: OwnedFd,
    free: Vec<Network>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Network {
    space: OwnedFd,
    /// A `/sys` of it that is mounted nowhere: as long as there is one, the kernel makes no other for each task.
    _system: Option<OwnedFd>,
}

impl AsFd for Network {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.space.as_fd()
    }
}

impl Networks {
    /// None yet; `None` where this process may not make any: tasks make their own then.
    pub(crate) fn new() -> Option<Self> {
        let own = File::open(OWN).ok().filter(|_| rustix::process::geteuid().is_root())?;
        Some(Self { own: own.into(), free: vec![] })
    }

    /// One that nobody else has.
    ///
    /// # Errors
    /// What was tried, and the system's words.
    pub(crate) fn take(&mut self) -> Result<Network, String> {
        if let Some(free) = self.free.pop() {
            return Ok(free);
        }
        sys::leave_network().map_err(|error| failed("unshare net", error))?;
        let made = furnish();
        enter(&self.own)?;
        made
    }

    /// Takes one back that [`is_clean`].
    pub(crate) fn put_back(&mut self, network: Network) {
        if self.free.len() < FREE_MAX {
            self.free.push(network);
        }
    }
}

fn furnish() -> Result<Network, String> {
    sys::loopback_up().map_err(|error| failed("bringing lo up", error))?;
    open_all_ports();
    let space = File::open(OWN).map_err(|error| failed(&format!("opening {OWN}"), error))?.into();
    Ok(Network { space, _system: trees::system().ok() })
}

/// Whoever is alone on a network may listen on each of its ports. Kernels before 4.11 do not know it.
pub(super) fn open_all_ports() {
    let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
}

/// This process is on that network from now on.
///
/// # Errors
/// What was tried, and the system's words.
pub(crate) fn enter(network: impl AsFd) -> Result<(), String> {
    sys::join_network(network).map_err(|error| failed("setns net", error))
}

/// True where this process's network has no socket of any kind left, not even one that waits for the other side's last packets.
pub(crate) fn is_clean() -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}"));
    let clean = || -> io::Result<bool> { Ok(unused(&read("sockstat")?) && unused(&read("sockstat6")?)) };
    // Without IPv6 there is only one of them.
    clean().unwrap_or_else(|_| read("sockstat").is_ok_and(|text| unused(&text)))
}

/// Lines like `TCP: inuse 0 orphan 0 tw 0 alloc 27 mem 5` (net/ipv4/proc.c): what is in use or waits is counted for each network, the rest for
/// the machine.
fn unused(text: &str) -> bool {
    let mut of_this_network = text.lines().filter(|line| !line.starts_with("sockets:"));
    of_this_network.all(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        words.windows(2).all(|pair| !["inuse", "tw"].contains(&pair[0]) || pair[1] == "0")
    })
}

#[cfg(test)]
mod tests {
    use super::unused;

    #[test]
    fn a_network_with_a_socket_or_the_rest_of_one_is_not_clean() {
        let text = |tcp: &str, udp: &str| {
            format!(
                "sockets: used 7\nTCP: inuse {tcp} orphan 3 tw 0 alloc 27 mem 5\nUDP: inuse {udp} mem 1\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"
            )
        };
        assert!(unused(&text("0", "0")));
        assert!(!unused(&text("1", "0")));
        assert!(!unused(&text("0", "2")));
        assert!(!unused(&text("0", "0").replace("tw 0", "tw 1")));
        assert!(unused("TCP6: inuse 0\nUDP6: inuse 0\n") && !unused("TCP6: inuse 1\n"));
    }
}
