//! A task that is a Linux process, native or of a container image: all that its executor must know, complete and checked before it starts.
//! Knows neither how it is held in (`jail`) nor who watches it (`executor`).

use crate::Key;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a native task's bundle is mounted, read-only.
pub const BUNDLE_DIR: &str = "/bundle";
/// Where a task reads what its framework says: the descriptor of a pipe, and the variable that names it.
pub const MESSAGES_FD: i32 = 3;
/// See [`MESSAGES_FD`].
pub const MESSAGES_VARIABLE: &str = "SKEP_MESSAGES_FD";
/// Where a native task may write; its home, and its working directory where nothing else is said.
pub const SANDBOX_DIR: &str = "/sandbox";

/// As root each task has a range of so many ids of its own, outside; no two tasks of a machine share one.
pub const IDS_PER_TASK: u32 = 65_536;
/// The last id of a task's range is its executor's, and mapped to none inside.
pub const KEEPER: u32 = IDS_PER_TASK - 1;
/// Where these ranges begin and end: ids that neither distributions nor systemd give to anybody (systemd, docs/UIDS-GIDS.md).
pub const IDS: std::ops::Range<u32> = 0x7002_0000..0xfff0_0000;
/// The group of executors, before all these ranges: its members may make files in the folder of all output, and see no other's.
pub const EXECUTORS_GROUP: u32 = 0x7001_0000;
/// Users, and groups of the same numbers, of agents that were started as root.
pub const AGENT_IDS: std::ops::Range<u32> = 0x7001_0001..0x7002_0000;
/// Users, and groups of the same numbers, of executors of wasm tasks: one for each role.
pub const ROLE_IDS: std::ops::Range<u32> = 0x7000_0000..0x7001_0000;

/// One task as its executor starts it. Everything that stood for something else (`${port.http}`) has been replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Its key.
    pub key: Key,
    /// What people call it, as `web-3`: its host name.
    pub title: String,
    /// What it sees as `/`.
    pub root: Root,
    /// The program, a path inside or a name that is looked for in `PATH`, and its arguments. Not empty; never given to a shell.
    pub command: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Its working directory inside, absolute.
    pub dir: String,
    /// What standard input reads; `None`: empty.
    pub stdin: Option<PathBuf>,
    /// Who it is.
    pub ids: Ids,
    /// What it may reach.
    pub network: Network,
    /// Ports that it may listen on where it has the host's network.
    pub ports: Vec<u16>,
    /// What else of the host it sees.
    pub mounts: Vec<Mount>,
    /// What asks it to stop, before it is killed.
    pub stop_signal: i32,
    /// True: a small init of ours is process 1 and the task its child. False: the task is process 1 itself.
    pub init: bool,
    /// What bounds it.
    pub limits: ProcessLimits,
    /// Its control group, below the root of each hierarchy: as `skep-1f/0000…`.
    pub cgroup: String,
}

/// What a task sees as `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// Native: the host's programs and libraries, read-only, with [`BUNDLE_DIR`], [`SANDBOX_DIR`] and a `/tmp` of its own.
    Host {
        /// A file, seen as `/bundle/NAME`, or a folder, seen as `/bundle`.
        bundle: PathBuf,
        /// The name of the file; `None`: it is a folder.
        name: Option<String>,
    },
    /// Container: layers of an image over each other, and over them one of its own to write to.
    Layers {
        /// Unpacked layers, the lowest first. Never written to.
        layers: Vec<PathBuf>,
    },
}

/// Which users and groups there are inside, and which of them the task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The first id inside that is mapped.
    pub inside: u32,
    /// The id outside that it is; `None`: whoever starts the executor is not root, and only his own id can be mapped.
    pub outside: Option<u32>,
    /// How many ids are mapped from there on; the same for users and groups.
    pub count: u32,
    /// The task's user, inside.
    pub uid: u32,
    /// Its group, inside.
    pub gid: u32,
    /// Its other groups, inside.
    pub groups: Vec<u32>,
}

/// What a task can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Loopback of its own, and nothing else.
    None,
    /// What the host reaches.
    Host,
}

/// A part of the host that a task sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Which: absolute, without `..`.
    pub from: PathBuf,
    /// Where: absolute, without `..`.
    pub to: String,
    /// True: it may not be changed.
    pub read_only: bool,
}

/// What bounds a process and all that it starts, together. An amount of `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// Bytes of memory, swap included; over it the kernel ends the task.
    pub memory_bytes_max: u64,
    /// Thousandths of a core that it was promised: its share where there is not enough for all. 0: it runs only while nothing else wants the
    /// processor.
    pub cpu_milli: u64,
    /// Processes and threads.
    pub processes_max: u32,
    /// Wall-clock time in milliseconds.
    pub time_ms_max: Option<u64>,
    /// Processor time in milliseconds.
    pub cpu_time_ms_max: Option<u64>,
    /// Bytes that it may write to its own files. 0: they are kept in memory, and count as such.
    pub disk_bytes_max: u64,
    /// Bytes of output kept; older output is rotated away.
    pub log_bytes_max: u64,
    /// Bytes of output a second; a task that writes more waits.
    pub log_bytes_per_s_max: u64,
}
