//! A job once it has been admitted: a template of tasks, how many, and how to replace them. How people write one is `master::admit`'s.

mod about;
mod update;
mod wire;

pub use about::{About, LABEL_NAME_BYTES_MAX, LABELS_BYTES_MAX, LABELS_MAX, ORIGIN_BYTES_MAX, Origin};
pub use update::{AFTER_MAX, DEADLINE_MS_DEFAULT, SETTLE_MS_DEFAULT, Strategy, UPDATE_MS_MAX, Update};

use crate::bounded;
use crate::place::Placement;
use crate::resources::PORTS_PER_TASK_MAX;
use crate::{Digest, Name, Resources, Role};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most tasks of one job.
pub const COUNT_MAX: u32 = 10_000_000;
/// Most members of a task.
pub const MEMBERS_MAX: usize = 8;
/// Highest priority; the lowest is 0.
pub const PRIORITY_MAX: u8 = 100;
/// The priority of which nothing is said.
pub const PRIORITY_DEFAULT: u8 = 50;

/// What a user submitted, checked once at the door: whoever holds one need not check it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Whom its resources are counted for.
    pub role: Role,
    /// Unique in its role among the jobs that have not ended; `None` for a job that its id alone names.
    pub name: Option<Name>,
    /// How its tasks are counted and replaced.
    pub kind: Kind,
    /// 0 to [`PRIORITY_MAX`]; of the tasks of a role those of a higher priority are placed first.
    pub priority: u8,
    /// How many tasks, 0 to [`COUNT_MAX`]; of a system job 0, since its agents say how many.
    pub count: u32,
    /// What each of them is.
    pub template: Arc<Template>,
    /// What happens when one ends.
    pub restart: Restart,
    /// How many tasks of a service are replaced at a time when a new version is applied; at least 1.
    pub update_parallel: u32,
    /// Where its tasks may go; `None`: wherever there is room.
    pub place: Option<Arc<Placement>>,
    /// What people and programs say of it, and nothing here reads; `None`: nothing.
    pub about: Option<Arc<About>>,
    /// How the tasks of a service are replaced when a new version is applied, beyond `update_parallel`.
    pub update: Update,
    /// Services of its role that have to do their work before its own tasks begin, at most [`AFTER_MAX`].
    pub after: Vec<Name>,
}

impl Job {
    /// The version of the messages that it needs ([`crate::link::VERSION`]): masters that speak an earlier one cannot read it.
    #[must_use]
    pub fn since(&self) -> u16 {
        let of_tasks = self.template.is_revocable() || self.template.has_checks();
        let is_new = of_tasks || self.kind == Kind::System || self.place.is_some() || self.about.is_some() || self.role.parent().is_some();
        if is_new || self.update != Update::default() || !self.after.is_empty() { 3 } else { 1 }
    }

    /// What was said of it by names, sorted by them.
    #[must_use]
    pub fn labels(&self) -> &[(String, String)] {
        self.about.as_deref().map_or(&[], |about| &about.labels)
    }

    /// What made it, where that said so.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.about.as_deref()?.origin.as_ref()
    }
}

/// The variable of its environment by which a task learns its fencing token ([`crate::AttemptId::fence`]). A template that has it says
/// thereby that its tasks are fenced: never two attempts of one alive at once. Its value there is empty; no user can set it.
pub const FENCE_VARIABLE: &str = "SKEP_FENCE";

/// How the tasks of a job are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Ends when each of its tasks has ended.
    Batch,
    /// Keeps `count` tasks running until it is stopped.
    Service,
    /// One task that a framework placed: what has ended is not started again, however it ended.
    Task,
    /// Keeps one task running on each agent that its constraints let in, until it is stopped. Its count says nothing, and is 0.
    System,
}

impl Kind {
    /// True where its tasks are kept running until it is stopped, and go from one version to the next.
    #[must_use]
    pub const fn lasts(self) -> bool {
        matches!(self, Self::Service | Self::System)
    }
}

/// What an agent must know to run one task of a job: the same for all of them, so it is sent once for each batch of launches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Template {
    /// What runs, together on one agent: 1 to [`MEMBERS_MAX`], of any kinds. A task has ended when each of them has, and the first that fails
    /// takes the others with it.
    #[serde(deserialize_with = "bounded::list::<_, _, MEMBERS_MAX>")]
    pub members: Vec<Member>,
    /// What each task is promised, and what is therefore counted: the sum over its members.
    pub resources: Resources,
}

/// One of the programs that make a task. Most tasks have one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// What it is called beside the others; `None` where there are none.
    pub name: Option<Name>,
    /// What runs.
    pub program: Program,
    /// Its arguments, without the program's own name. `${task.index}`, `${task.attempt}`, `${job}`, `${job.id}`, `${agent}` and `${port.NAME}`
    /// are replaced on the agent; a member knows the ports of all.
    pub args: Vec<String>,
    /// Its environment; the same names are replaced in the values.
    pub env: Vec<(String, String)>,
    /// What `wasi:config` answers; the same names are replaced in the values. Empty but for wasm.
    pub config: Vec<(String, String)>,
    /// The bundle that standard input reads; `None`: empty.
    pub stdin: Option<Digest>,
    /// Its part of what the task is promised.
    pub resources: Resources,
    /// The names of its ports, as many as `resources.ports`; no two of a task are the same.
    #[serde(deserialize_with = "bounded::list::<_, _, { PORTS_PER_TASK_MAX as usize }>")]
    pub ports: Vec<Name>,
    /// What ends it.
    pub limits: Limits,
}

/// What runs. New kinds at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Program {
    /// A core module (WASI preview 1) or a component (WASI 0.2 `cli`), told apart by looking.
    Wasm {
        /// The bundle: the `.wasm` file.
        bundle: Digest,
        /// What its instructions are counted by.
        metering: Metering,
        /// True where the job has an executor of its own instead of its role's.
        strict: bool,
    },
    /// A program for the agent's own system, beside the host's libraries, read-only.
    Native {
        /// The bundle: an executable, a script, or an archive of a folder, told apart by looking.
        bundle: Digest,
        /// What the bundle is called inside, where it is one file: `/bundle/FILE`.
        file: String,
        /// How it is started.
        process: Process,
    },
    /// A program in a root of its own.
    Image {
        /// The bundle: an archive of an OCI layout, or what `docker save` writes.
        bundle: Digest,
        /// How it is started.
        process: Process,
    },
}

/// How a native or container task is started, and what of the host it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// The program and what stands before the arguments; empty: what the bundle itself says, which an archive of a folder does not.
    pub command: Vec<String>,
    /// Its user inside: `USER[:GROUP]`, by name or number; `None`: what the bundle says.
    pub user: Option<String>,
    /// Its working directory inside, absolute; `None`: what the bundle says.
    pub dir: Option<String>,
    /// What it can reach.
    pub network: Network,
    /// What else of the host it sees; allowed by a policy of its role.
    #[serde(deserialize_with = "bounded::list::<_, _, MOUNTS_MAX>")]
    pub mounts: Vec<HostMount>,
    /// The signal that asks it to stop; `None`: what the bundle says, or SIGTERM.
    pub stop_signal: Option<u8>,
}

/// Most parts of the host that one task sees.
pub const MOUNTS_MAX: usize = 16;

/// What a native or container task can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Network {
    /// A loopback of its own, and nothing else.
    #[default]
    None,
    /// What the host reaches; allowed by a policy of its role.
    Host,
}

/// A part of the host that a task sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostMount {
    /// Which: absolute, without `..`.
    pub from: String,
    /// Where inside: absolute, without `..`.
    pub to: String,
    /// True where it may be changed.
    pub writable: bool,
}

/// The port that a port's name asks for: a name that is a number, from 1, asks for that port and no other; `None` where any will do.
#[must_use]
pub fn number_of(port: &Name) -> Option<u16> {
    let text = port.as_str();
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

/// Why a template is none that can be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It has no member, or too many.
    #[error("a task has 1 to 8 members")]
    Members,
    /// Its members' resources do not sum up to its own, or one names a device twice.
    #[error("the members' resources are not sorted, or not what the task is promised")]
    Resources,
    /// A member names another number of ports than it is promised, or too many, or one that another has.
    #[error("the members do not name as many ports as they are promised, each once")]
    Ports,
    /// What a member says of checks cannot be read, is out of bounds, or asks a port that the task does not have.
    #[error("the checks of a member cannot be read, are out of bounds, or ask a port that there is not")]
    Checks,
}

impl Template {
    /// The one member of a task that has no others; of a group, the first.
    ///
    /// # Panics
    /// Where there is none, which [`Self::check`] refuses.
    #[must_use]
    pub fn first(&self) -> &Member {
        self.members.first().expect("a template has a member")
    }

    /// True where a task of it runs only while its agent's lease holds: never two of its attempts are alive at once.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.members.iter().any(|member| member.env.iter().any(|(name, _)| name == FENCE_VARIABLE))
    }

    /// True where a task of it has what is lent, and may be ended at any moment.
    #[must_use]
    pub fn is_revocable(&self) -> bool {
        self.resources.is_revocable()
    }

    /// True where something is asked of its tasks: such a task is ready only once it has said so.
    #[must_use]
    pub fn has_checks(&self) -> bool {
        self.members.iter().any(Member::has_checks)
    }

    /// The names of all ports of a task, in the order of its members: the order in which an agent gives them.
    pub fn ports(&self) -> impl Iterator<Item = &Name> {
        self.members.iter().flat_map(|member| &member.ports)
    }

    /// True where it can be launched. Whoever takes a template from somebody else asks this first.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn check(&self) -> Result<(), TemplateError> {
        if self.members.is_empty() || self.members.len() > MEMBERS_MAX {
            return Err(TemplateError::Members);
        }
        let canonical = |resources: &Resources| resources.is_canonical();
        let sum = self.members.iter().try_fold(Resources::NONE, |sum, member| sum.checked_add(&member.resources));
        if !self.members.iter().all(|member| canonical(&member.resources)) || sum.as_ref() != Some(&self.resources) {
            return Err(TemplateError::Resources);
        }
        let fitting = self.members.iter().all(|member| member.ports.len() == member.resources.ports as usize);
        let mut names: Vec<&Name> = self.ports().collect();
        names.sort_unstable();
        if !fitting || names.len() > usize::from(PORTS_PER_TASK_MAX) || names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(TemplateError::Ports);
        }
        if !self.members.iter().all(|member| member.has_good_checks(&names)) {
            return Err(TemplateError::Checks);
        }
        Ok(())
    }
}

/// What bounds the instructions of a wasm task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Metering {
    /// Counts them, exactly and repeatably; call-heavy code runs at half speed.
    Fuel,
    /// Counts clock ticks of running time.
    Epoch,
}

/// What ends a task. An amount of `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Wasm instructions, in wasmtime's units; only with [`Metering::Fuel`].
    pub fuel_max: Option<u64>,
    /// Running time in milliseconds, not counting waits; of wasm only with [`Metering::Epoch`].
    pub cpu_time_ms_max: Option<u64>,
    /// Wall-clock time in milliseconds, waits included.
    pub time_ms_max: Option<u64>,
    /// Bytes of memory: wasm, of all linear memories together; native and container, of all processes together.
    pub memory_bytes_max: u64,
    /// Elements of each table; wasm only.
    pub table_elements_max: u32,
    /// Bytes that one host call may make the host allocate; wasm only.
    pub host_bytes_max: u64,
    /// Processes and threads; native and container only.
    pub processes_max: u32,
    /// Bytes of output kept; older output is rotated away.
    pub log_bytes_max: u64,
    /// Bytes of output a second; a native or container task that writes more waits.
    pub log_bytes_per_s_max: u64,
}

/// What happens when a task ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Restart {
    /// When it is started again.
    pub policy: RestartPolicy,
    /// How often a task is started again at most; `None`: as often as the policy says. A task that was lost, refused or left by its agent
    /// is started again without being counted here.
    pub retries_max: Option<u32>,
    /// The wait before the first of several restarts, in milliseconds.
    pub backoff_first_ms: u64,
    /// What each further wait is multiplied with, in thousandths; at least 1,000.
    pub backoff_factor_milli: u32,
    /// The longest wait, in milliseconds. A task that ran for longer than this begins anew with the first wait.
    pub backoff_max_ms: u64,
}

/// When a task that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// However it ended.
    Always,
    /// Unless it ended with code 0.
    OnFailure,
    /// Not at all.
    Never,
}
