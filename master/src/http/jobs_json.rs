//! Jobs and tasks as JSON: ids as text, amounts with their units in their names, states in lower case. Knows views; no request.

pub use super::exit_json::ExitBody;
use super::health::{HealthCountsBody, TaskHealthBody};
use super::spec_json::{AboutBody, CheckBody, PlaceBody, RestartBody, UpdateBody, kind_text};
use crate::shard::view::{JobView, TaskView};
use protocol::checks::CHECKS_VARIABLE;
use protocol::job::{FENCE_VARIABLE, HostMount, Network, Process};
use protocol::{Digest, Job, JobId, Lent, Limits, Member, Metering, Phase, Program, Resources};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A job in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobRow {
    /// Its id, as `j2a`.
    pub id: String,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Whom its resources are counted for.
    pub role: String,
    /// `batch`, `service` or `system`.
    pub kind: &'static str,
    /// `live`, `stopping` or `ended`.
    pub state: &'static str,
    /// 1, and 1 more for each time it was applied anew.
    pub version: u32,
    /// 0 to 100.
    pub priority: u8,
    /// How many tasks it has; of a system job, how many agents match.
    pub count: u32,
    /// How many of them are in which state; states without a task are left out.
    pub tasks: BTreeMap<&'static str, u32>,
    /// How many of those that run are well; of a job without checks missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCountsBody>,
    /// How many attempts ended and were followed by another.
    pub restarts: u64,
    /// When it was submitted, in milliseconds of the Unix epoch.
    pub submitted_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// What is said of it.
    #[serde(flatten)]
    pub about: AboutBody,
}

/// A job with all that it was submitted as.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobBody {
    /// How it stands.
    #[serde(flatten)]
    pub row: JobRow,
    /// What it is.
    pub spec: SpecBody,
}

/// What a job is, as it was admitted: every default filled in.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SpecBody {
    /// What runs, together on one agent; most jobs have one.
    pub tasks: Vec<MemberBody>,
    /// What each task is promised, all members together.
    pub resources: AmountBody,
    /// What happens when one ends.
    pub restart: RestartBody,
    /// How many tasks are replaced at a time when a new version is applied.
    pub update_parallel: u32,
    /// How else they are replaced.
    pub update: UpdateBody,
    /// Services of its role that it begins after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// True where never two attempts of its one task are alive at once.
    pub fenced: bool,
    /// Where its tasks may go, where not everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<PlaceBody>,
}

/// One of the programs that make a task.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MemberBody {
    /// What it is called in its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `wasm`, `native` or `image`.
    pub kind: &'static str,
    /// The digest of what runs, as `sha256:…`.
    pub bundle: String,
    /// Wasm: what its instructions are counted by, `fuel` or `epoch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metering: Option<&'static str>,
    /// Wasm: true where it has an executor of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Native: what a bundle of one file is called inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Native and image: how it is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessBody>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// What `wasi:config` answers.
    pub config: BTreeMap<String, String>,
    /// The digest of what its standard input reads.
    pub stdin: Option<String>,
    /// What it is promised.
    pub resources: AmountBody,
    /// The names of its ports.
    pub ports: Vec<String>,
    /// What ends it.
    pub limits: LimitsBody,
    /// How it is found out whether it is well; where it is not, it is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<CheckBody>,
    /// How it is found out whether it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<CheckBody>,
}

/// How a native or container task is started.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProcessBody {
    /// The program and what stands before the arguments; empty: what the bundle says.
    pub command: Vec<String>,
    /// Its user inside.
    pub user: Option<String>,
    /// Its working directory inside.
    pub dir: Option<String>,
    /// What it can reach: `none` or `host`.
    pub network: &'static str,
    /// What of the host it sees.
    pub mounts: Vec<MountBody>,
    /// The signal that asks it to stop.
    pub stop_signal: Option<u8>,
}

/// A part of the host that a task sees.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MountBody {
    /// Which.
    pub host: String,
    /// Where inside.
    pub to: String,
    /// True where it may be changed.
    pub writable: bool,
}

/// Amounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct AmountBody {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// Number of ports.
    pub ports: u32,
    /// Thousandths of each kind of device.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub devices_milli: BTreeMap<String, u64>,
    /// What of it is lent, and may be taken back at any moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocable: Option<LentBody>,
}

/// Amounts of what is lent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct LentBody {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// What ends a task; what is missing is no limit.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LimitsBody {
    /// Wasm instructions.
    pub fuel_max: Option<u64>,
    /// Running time.
    pub cpu_time_ms_max: Option<u64>,
    /// Wall-clock time.
    pub time_ms_max: Option<u64>,
    /// Memory: wasm, linear memory; else of all processes together.
    pub memory_bytes_max: u64,
    /// Elements of each table.
    pub table_elements_max: u32,
    /// What one host call may allocate.
    pub host_bytes_max: u64,
    /// Processes and threads; wasm has none.
    pub processes_max: u32,
    /// Output kept.
    pub log_bytes_max: u64,
    /// Output a second; wasm has no such limit.
    pub log_bytes_per_s_max: u64,
}

/// A task.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TaskBody {
    /// `JOB.INDEX`.
    pub id: String,
    /// Its index.
    pub index: u32,
    /// The number of its last attempt; 0 where there was none.
    pub attempt: u32,
    /// Its state, as `running`.
    pub phase: &'static str,
    /// Where its last attempt is or was.
    pub agent: Option<String>,
    /// When it got into this state, in milliseconds of the Unix epoch, as far as that is on record.
    pub since_ms: u64,
    /// How its last attempt ended, where it has.
    pub exit: Option<ExitBody>,
    /// What its last attempt used, where it has ended.
    pub usage: Option<UsageBody>,
    /// When it is started again, where it waits for that.
    pub retry_at_ms: Option<u64>,
    /// The job's version that its last attempt runs.
    pub version: u32,
    /// Its ports, in the order of the job's names for them, while it runs.
    pub ports: Vec<u16>,
    /// How far it says that it is, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressBody>,
    /// Whether it is well, while it runs and its job asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<TaskHealthBody>,
}

/// How far a task says that it is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProgressBody {
    /// 0 to 100.
    pub percent: u8,
    /// Its own words.
    pub note: String,
}

/// What an attempt used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UsageBody {
    /// Wasm instructions; 0 where they are not counted.
    pub fuel: u64,
    /// The most memory at once: wasm, linear memory; else of all processes together.
    pub memory_peak_bytes: u64,
    /// From start to end, in microseconds.
    pub time_us: u64,
    /// Processor time, in microseconds; 0 where it is not counted.
    pub cpu_us: u64,
}

/// A state as the API writes it.
pub const fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Staging => "staging",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Killing => "killing",
        Phase::Unreachable => "unreachable",
        Phase::Finished => "finished",
        Phase::Failed => "failed",
        Phase::Killed => "killed",
        Phase::Rejected => "rejected",
        Phase::Lost => "lost",
    }
}

/// The states in the order of a task's life.
pub const PHASES: [Phase; 11] = [
    Phase::Waiting,
    Phase::Staging,
    Phase::Starting,
    Phase::Running,
    Phase::Killing,
    Phase::Unreachable,
    Phase::Finished,
    Phase::Failed,
    Phase::Killed,
    Phase::Rejected,
    Phase::Lost,
];

impl From<&Resources> for AmountBody {
    fn from(amount: &Resources) -> Self {
        let devices = amount.devices.iter().filter(|device| !device.is_revocable());
        let Lent { cpu_milli, memory_bytes } = amount.lent();
        Self {
            cpu_milli: amount.cpu_milli,
            memory_bytes: amount.memory_bytes,
            disk_bytes: amount.disk_bytes,
            ports: amount.ports,
            devices_milli: devices.map(|device| (device.name.to_string(), device.milli)).collect(),
            revocable: amount.is_revocable().then_some(LentBody { cpu_milli, memory_bytes }),
        }
    }
}

/// How many tasks are in which state, as the API writes it.
pub fn counts(tasks: &BTreeMap<Phase, u32>) -> BTreeMap<&'static str, u32> {
    tasks.iter().map(|(phase, count)| (phase_text(*phase), *count)).collect()
}

impl From<&JobView> for JobRow {
    fn from(view: &JobView) -> Self {
        Self {
            id: view.id.to_string(),
            name: view.job.name.as_ref().map(ToString::to_string),
            role: view.job.role.to_string(),
            kind: kind_text(view.job.kind),
            state: match (view.ended, view.stopping) {
                (Some(_), _) => "ended",
                (None, true) => "stopping",
                (None, false) => "live",
            },
            version: view.version,
            priority: view.job.priority,
            count: view.job.count,
            tasks: counts(&view.tasks),
            health: None,
            restarts: view.restarts,
            submitted_ms: view.submitted.0,
            ended_ms: view.ended.map(|time| time.0),
            about: (&view.job).into(),
        }
    }
}

impl From<&JobView> for JobBody {
    fn from(view: &JobView) -> Self {
        Self { row: view.into(), spec: (&view.job).into() }
    }
}

impl From<&Job> for SpecBody {
    fn from(job: &Job) -> Self {
        Self {
            tasks: job.template.members.iter().map(MemberBody::from).collect(),
            resources: (&job.template.resources).into(),
            restart: (&job.restart).into(),
            update_parallel: job.update_parallel,
            update: (&job.update).into(),
            after: job.after.iter().map(ToString::to_string).collect(),
            fenced: job.template.is_fenced(),
            place: job.place.as_deref().map(PlaceBody::from),
        }
    }
}

impl From<&Member> for MemberBody {
    fn from(member: &Member) -> Self {
        let pairs = |pairs: &[(String, String)]| pairs.iter().cloned().collect();
        let digest = |digest: &Digest| format!("sha256:{digest}");
        let (mut metering, mut strict, mut file) = (None, None, None);
        let (kind, bundle, process) = match &member.program {
            Program::Wasm { bundle, metering: by, strict: own } => {
                metering = Some(if *by == Metering::Fuel { "fuel" } else { "epoch" });
                strict = Some(*own);
                ("wasm", bundle, None)
            }
            Program::Native { bundle, file: name, process } => {
                file = Some(name.clone());
                ("native", bundle, Some(process.into()))
            }
            Program::Image { bundle, process } => ("image", bundle, Some(process.into())),
        };
        let checks = member.checks();
        Self {
            name: member.name.as_ref().map(ToString::to_string),
            kind,
            bundle: digest(bundle),
            metering,
            strict,
            file,
            process,
            args: member.args.clone(),
            env: member.env.iter().filter(|(name, _)| ![FENCE_VARIABLE, CHECKS_VARIABLE].contains(&name.as_str())).cloned().collect(),
            config: pairs(&member.config),
            stdin: member.stdin.as_ref().map(digest),
            resources: (&member.resources).into(),
            ports: member.ports.iter().map(ToString::to_string).collect(),
            limits: (&member.limits).into(),
            health: checks.health.as_ref().map(CheckBody::from),
            readiness: checks.readiness.as_ref().map(CheckBody::from),
        }
    }
}

impl From<&Process> for ProcessBody {
    fn from(process: &Process) -> Self {
        let mount = |mount: &HostMount| MountBody { host: mount.from.clone(), to: mount.to.clone(), writable: mount.writable };
        Self {
            command: process.command.clone(),
            user: process.user.clone(),
            dir: process.dir.clone(),
            network: if process.network == Network::Host { "host" } else { "none" },
            mounts: process.mounts.iter().map(mount).collect(),
            stop_signal: process.stop_signal,
        }
    }
}

impl From<&Limits> for LimitsBody {
    fn from(limits: &Limits) -> Self {
        Self {
            fuel_max: limits.fuel_max,
            cpu_time_ms_max: limits.cpu_time_ms_max,
            time_ms_max: limits.time_ms_max,
            memory_bytes_max: limits.memory_bytes_max,
            table_elements_max: limits.table_elements_max,
            host_bytes_max: limits.host_bytes_max,
            processes_max: limits.processes_max,
            log_bytes_max: limits.log_bytes_max,
            log_bytes_per_s_max: limits.log_bytes_per_s_max,
        }
    }
}

impl TaskBody {
    /// The task of `job` that `view` shows.
    pub fn new(job: JobId, view: &TaskView) -> Self {
        Self {
            id: format!("{job}.{}", view.index),
            index: view.index,
            attempt: view.attempt,
            phase: phase_text(view.phase),
            agent: view.agent.map(|agent| agent.to_string()),
            since_ms: view.since.0,
            exit: view.exit.as_ref().map(ExitBody::from),
            usage: view.usage.map(|usage| UsageBody {
                fuel: usage.fuel,
                memory_peak_bytes: usage.memory_peak_bytes,
                time_us: usage.time_us,
                cpu_us: usage.cpu_us,
            }),
            retry_at_ms: view.retry_at.map(|time| time.0),
            version: view.version,
            ports: view.ports.clone(),
            progress: view.progress.clone().map(|(percent, note)| ProgressBody { percent, note }),
            health: None,
        }
    }
}
