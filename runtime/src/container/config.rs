//! An image's configuration (OCI image-spec 1.1, config.md): what its maker says how it is run. Knows no job.

use super::manifest::{architecture, json};
use super::{Digest, Limits, UnpackError, shown};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How an image is run where a job does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The program and its first arguments. May be empty.
    pub entrypoint: Vec<String>,
    /// Arguments after those; the program itself where there is no entrypoint. May be empty.
    pub command: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// `USER` or `USER:GROUP`, names of the image's own or numbers; empty: root.
    pub user: String,
    /// Its working directory, absolute.
    pub dir: String,
    /// What asks it to stop, where its maker says so.
    pub stop_signal: Option<i32>,
    /// Ports that it says it listens on.
    pub ports: Vec<(u16, Transport)>,
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    config: Option<Config>,
    rootfs: Option<RootFs>,
}

/// Fields may also be `null`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

/// Reads a configuration; also returns the diffIDs of its layers, the lowest first.
///
/// # Errors
/// Where it is for another machine, has no layers or too many, or says what cannot be.
pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<(ImageConfig, Vec<Digest>), UnpackError> {
    let file: File = json("the image's configuration", bytes)?;
    let other = |found: &str, ours: &str| !found.is_empty() && found != ours;
    if other(&file.os, "linux") || other(&file.architecture, architecture()) {
        let found = shown(format!("{}/{}", file.os, file.architecture).as_bytes());
        return refused(format!("it is an image for {found}; this machine is linux/{}", architecture()));
    }
    let Some(ids) = file.rootfs.and_then(|rootfs| rootfs.diff_ids) else {
        return refused("the image's configuration has no `rootfs.diff_ids`: nothing says what its layers are");
    };
    if ids.is_empty() {
        return refused("it is an image without layers: there is nothing to run");
    }
    if ids.len() > limits.layers_max {
        return Err(UnpackError::limit(format!("it has {} layers; at most {} are stacked", ids.len(), limits.layers_max)));
    }
    let digest = |id: &String| match id.strip_prefix("sha256:").and_then(|id| id.parse().ok()) {
        Some(digest) => Ok(digest),
        None => refused(format!("the diffID {} is no SHA-256 digest, and no other is read", shown(id.as_bytes()))),
    };
    let ids = ids.iter().map(digest).collect::<Result<_, _>>()?;
    Ok((file.config.unwrap_or_default().checked()?, ids))
}

impl Config {
    fn checked(self) -> Result<ImageConfig, UnpackError> {
        let dir = match self.working_dir.unwrap_or_default() {
            dir if dir.starts_with('/') => dir,
            dir => format!("/{dir}"),
        };
        let stop_signal = match self.stop_signal.filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => {
                Some(signal(&name).ok_or_else(|| UnpackError::refused(format!("there is no signal {}", shown(name.as_bytes()))))?)
            }
        };
        let ports = self.exposed_ports.unwrap_or_default();
        let port = |name: &String| match name.split_once('/').unwrap_or((name, "tcp")) {
            (number, "tcp") => Some((number.parse().ok()?, Transport::Tcp)),
            (number, "udp") => Some((number.parse().ok()?, Transport::Udp)),
            _ => None,
        };
        let config = ImageConfig {
            entrypoint: self.entrypoint.unwrap_or_default(),
            command: self.cmd.unwrap_or_default(),
            // One without a value means: that of whoever starts it. Nothing is taken over here.
            env: self.env.unwrap_or_default().iter().filter_map(|pair| variable(pair)).collect(),
            user: self.user.unwrap_or_default(),
            dir,
            stop_signal,
            ports: ports.keys().filter_map(port).collect(),
        };
        let texts = config.entrypoint.iter().chain(&config.command).chain([&config.user, &config.dir]);
        if texts.chain(config.env.iter().flat_map(|(name, value)| [name, value])).any(|text| text.contains('\0')) {
            return refused("the image's configuration has a text with a NUL in it");
        }
        Ok(config)
    }
}

fn variable(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=')?;
    (!name.is_empty()).then(|| (name.into(), value.into()))
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
fn signal(name: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 30] = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("ILL", libc::SIGILL),
        ("TRAP", libc::SIGTRAP),
        ("ABRT", libc::SIGABRT),
        ("BUS", libc::SIGBUS),
        ("FPE", libc::SIGFPE),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("SEGV", libc::SIGSEGV),
        ("USR2", libc::SIGUSR2),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("STKFLT", libc::SIGSTKFLT),
        ("CHLD", libc::SIGCHLD),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
        ("TSTP", libc::SIGTSTP),
        ("TTIN", libc::SIGTTIN),
        ("TTOU", libc::SIGTTOU),
        ("URG", libc::SIGURG),
        ("XCPU", libc::SIGXCPU),
        ("XFSZ", libc::SIGXFSZ),
        ("VTALRM", libc::SIGVTALRM),
        ("PROF", libc::SIGPROF),
        ("WINCH", libc::SIGWINCH),
        ("IO", libc::SIGIO),
        ("PWR", libc::SIGPWR),
    ];
    // Those that a program sees as the first and last real-time signals; the C library keeps two before them.
    const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |of: i32, sign: i32, by: &str| of.checked_add(sign * i32::from(by.parse::<u8>().ok()?));
    let number = if let Ok(number) = name.parse() {
        number
    } else if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        *number
    } else if let Some(by) = name.strip_prefix("RTMIN") {
        real_time(*REAL_TIME.start(), 1, if by.is_empty() { "0" } else { by.strip_prefix('+')? })?
    } else {
        let by = name.strip_prefix("RTMAX")?;
        real_time(*REAL_TIME.end(), -1, if by.is_empty() { "0" } else { by.strip_prefix('-')? })?
    };
    (1..=*REAL_TIME.end()).contains(&number).then_some(number)
}

fn refused<T>(what: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::refused(what))
}
