//! Hosts with a network of their own on one bridge, and what can be wrong between them. Clients sit at the bridge itself.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// Where clients are.
const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 254);

/// Runs a program that must succeed.
pub fn must(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes the bridge.
pub fn begin() {
    let _ = std::fs::create_dir_all("/run/netns");
    must("mount", &["-t", "tmpfs", "netns", "/run/netns"]);
    must("ip", &["link", "set", "lo", "up"]);
    must("ip", &["link", "add", "bridge", "type", "bridge"]);
    must("ip", &["addr", "add", &format!("{BRIDGE}/24"), "dev", "bridge"]);
    must("ip", &["link", "set", "bridge", "up"]);
}

/// A host.
#[derive(Clone, Debug)]
pub struct Host {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub address: Ipv4Addr,
}

impl Host {
    /// Makes one with the last part of its address.
    pub fn make(name: &str, last: u8) -> Self {
        let host = Self { name: name.to_owned(), address: Ipv4Addr::new(10, 99, 0, last) };
        let port = format!("v-{name}");
        must("ip", &["netns", "add", name]);
        must("ip", &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", name]);
        must("ip", &["link", "set", &port, "master", "bridge", "up"]);
        must("ip", &["-n", name, "addr", "add", &format!("{}/24", host.address), "dev", "eth0"]);
        must("ip", &["-n", name, "link", "set", "lo", "up"]);
        must("ip", &["-n", name, "link", "set", "eth0", "up"]);
        host
    }

    /// A command that runs there. Its mounts are everybody's: `ip netns exec` would hide the control groups.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }

    fn filter(&self, args: &[&str]) {
        let output = self.command("iptables").arg("-w").args(args).output().unwrap();
        assert!(output.status.success(), "iptables {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Nothing comes in from `other` any more.
    pub fn deaf_to(&self, other: &Self) {
        self.filter(&["-I", "INPUT", "-s", &other.address.to_string(), "-j", "DROP"]);
    }

    /// Nothing comes in from anybody.
    pub fn deaf(&self) {
        self.filter(&["-I", "INPUT", "!", "-i", "lo", "-j", "DROP"]);
    }

    /// Nothing goes out to anybody.
    pub fn mute(&self) {
        self.filter(&["-I", "OUTPUT", "!", "-o", "lo", "-j", "DROP"]);
    }

    /// So many of a hundred packets that come are lost.
    pub fn lossy(&self, percent: u64) {
        let part = format!("{:.2}", percent as f64 / 100.0);
        self.filter(&["-I", "INPUT", "!", "-i", "lo", "-m", "statistic", "--mode", "random", "--probability", &part, "-j", "DROP"]);
    }

    /// The cable is out: who sends is told.
    pub fn unplug(&self) {
        must("ip", &["-n", &self.name, "link", "set", "eth0", "down"]);
    }

    /// All is well again.
    pub fn heal(&self) {
        self.filter(&["-F"]);
        must("ip", &["-n", &self.name, "link", "set", "eth0", "up"]);
    }
}
