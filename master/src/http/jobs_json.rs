//! Jobs and tasks as JSON: ids as text, amounts with their units in their names, states in lower case. Knows views; no request.

use crate::shard::view::{JobView, TaskView};
use protocol::job::RestartPolicy;
use protocol::task::Loss;
use protocol::{Exit, Job, JobId, Kind, Metering, Phase, Program, Resources};
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
    /// `batch` or `service`.
    pub kind: &'static str,
    /// `live`, `stopping` or `ended`.
    pub state: &'static str,
    /// 1, and 1 more for each time it was applied anew.
    pub version: u32,
    /// 0 to 100.
    pub priority: u8,
    /// How many tasks it has.
    pub count: u32,
    /// How many of them are in which state; states without a task are left out.
    pub tasks: BTreeMap<&'static str, u32>,
    /// How many attempts ended and were followed by another.
    pub restarts: u64,
    /// When it was submitted, in milliseconds of the Unix epoch.
    pub submitted_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
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
    /// The digest of its wasm file, as `sha256:…`.
    pub wasm: String,
    /// What its instructions are counted by: `fuel` or `epoch`.
    pub metering: &'static str,
    /// True where it has an executor of its own.
    pub strict: bool,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// What `wasi:config` answers.
    pub config: BTreeMap<String, String>,
    /// The digest of what its standard input reads.
    pub stdin: Option<String>,
    /// What each task is promised.
    pub resources: AmountBody,
    /// The names of its ports.
    pub ports: Vec<String>,
    /// What ends each task.
    pub limits: LimitsBody,
    /// What happens when one ends.
    pub restart: RestartBody,
    /// How many tasks are replaced at a time when a new version is applied.
    pub update_parallel: u32,
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
    /// Linear memory.
    pub memory_bytes_max: u64,
    /// Elements of each table.
    pub table_elements_max: u32,
    /// What one host call may allocate.
    pub host_bytes_max: u64,
    /// Output kept.
    pub log_bytes_max: u64,
}

/// When a task is started again.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RestartBody {
    /// `always`, `on-failure` or `never`.
    pub policy: &'static str,
    /// How often at most.
    pub retries_max: Option<u32>,
    /// The first wait.
    pub backoff_first_ms: u64,
    /// What each further wait is multiplied with, in thousandths.
    pub backoff_factor_milli: u32,
    /// The longest wait.
    pub backoff_max_ms: u64,
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
}

/// What an attempt used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UsageBody {
    /// Wasm instructions; 0 where they are not counted.
    pub fuel: u64,
    /// The most linear memory at once.
    pub memory_peak_bytes: u64,
    /// From start to end, in microseconds.
    pub time_us: u64,
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExitBody {
    /// `code`, `signal`, `out-of-fuel`, `out-of-memory`, `out-of-time`, `out-of-cpu-time`, `out-of-table`, `out-of-host-bytes`, `trap`,
    /// `killed`, `rejected` or `lost`.
    pub kind: &'static str,
    /// The same for people.
    pub text: String,
    /// The exit code or the signal's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The limit that was reached, in the unit of its kind: instructions, bytes, milliseconds or elements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The most memory it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// The elements it asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u64>,
    /// Why: a trap's, a rejection's or a loss's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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

const fn loss_text(loss: Loss) -> &'static str {
    match loss {
        Loss::AgentSilent => "agent-silent",
        Loss::Reboot => "reboot",
        Loss::Executor => "executor",
        Loss::Forgotten => "forgotten",
        Loss::AgentGone => "agent-gone",
        Loss::Refused => "refused",
    }
}

impl From<&Exit> for ExitBody {
    fn from(exit: &Exit) -> Self {
        let text = exit.to_string();
        let of = |kind| Self { kind, text, ..Self::default() };
        match exit {
            Exit::Code(code) => Self { code: Some(*code), ..of("code") },
            Exit::Signal(signal) => Self { code: Some(*signal), ..of("signal") },
            Exit::OutOfFuel { limit } => Self { limit: Some(*limit), ..of("out-of-fuel") },
            Exit::OutOfMemory { limit_bytes, peak_bytes } => {
                Self { limit: Some(*limit_bytes), peak_bytes: Some(*peak_bytes), ..of("out-of-memory") }
            }
            Exit::OutOfTime { limit_ms } => Self { limit: Some(*limit_ms), ..of("out-of-time") },
            Exit::OutOfCpuTime { limit_ms } => Self { limit: Some(*limit_ms), ..of("out-of-cpu-time") },
            Exit::OutOfTable { limit, wanted } => Self { limit: Some(u64::from(*limit)), wanted: Some(*wanted), ..of("out-of-table") },
            Exit::OutOfHostBytes { limit_bytes } => Self { limit: Some(*limit_bytes), ..of("out-of-host-bytes") },
            Exit::Trap { reason } => Self { reason: Some(reason.clone()), ..of("trap") },
            Exit::Killed => of("killed"),
            Exit::Rejected { reason } => Self { reason: Some(reason.clone()), ..of("rejected") },
            Exit::Lost { reason } => Self { reason: Some(loss_text(*reason).to_owned()), ..of("lost") },
        }
    }
}

impl From<&Resources> for AmountBody {
    fn from(amount: &Resources) -> Self {
        Self {
            cpu_milli: amount.cpu_milli,
            memory_bytes: amount.memory_bytes,
            disk_bytes: amount.disk_bytes,
            ports: amount.ports,
            devices_milli: amount.devices.iter().map(|device| (device.name.to_string(), device.milli)).collect(),
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
            restarts: view.restarts,
            submitted_ms: view.submitted.0,
            ended_ms: view.ended.map(|time| time.0),
        }
    }
}

/// How people write a kind of job.
pub const fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Batch => "batch",
        Kind::Service => "service",
    }
}

impl From<&JobView> for JobBody {
    fn from(view: &JobView) -> Self {
        Self { row: view.into(), spec: (&view.job).into() }
    }
}

impl From<&Job> for SpecBody {
    fn from(job: &Job) -> Self {
        let template = &job.template;
        let Program::Wasm { bundle, metering, strict } = &template.program;
        let pairs = |pairs: &[(String, String)]| pairs.iter().cloned().collect();
        Self {
            wasm: format!("sha256:{bundle}"),
            metering: match metering {
                Metering::Fuel => "fuel",
                Metering::Epoch => "epoch",
            },
            strict: *strict,
            args: template.args.clone(),
            env: pairs(&template.env),
            config: pairs(&template.config),
            stdin: template.stdin.map(|digest| format!("sha256:{digest}")),
            resources: (&template.resources).into(),
            ports: template.ports.iter().map(ToString::to_string).collect(),
            limits: LimitsBody {
                fuel_max: template.limits.fuel_max,
                cpu_time_ms_max: template.limits.cpu_time_ms_max,
                time_ms_max: template.limits.time_ms_max,
                memory_bytes_max: template.limits.memory_bytes_max,
                table_elements_max: template.limits.table_elements_max,
                host_bytes_max: template.limits.host_bytes_max,
                log_bytes_max: template.limits.log_bytes_max,
            },
            restart: RestartBody {
                policy: match job.restart.policy {
                    RestartPolicy::Always => "always",
                    RestartPolicy::OnFailure => "on-failure",
                    RestartPolicy::Never => "never",
                },
                retries_max: job.restart.retries_max,
                backoff_first_ms: job.restart.backoff_first_ms,
                backoff_factor_milli: job.restart.backoff_factor_milli,
                backoff_max_ms: job.restart.backoff_max_ms,
            },
            update_parallel: job.update_parallel,
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
            }),
            retry_at_ms: view.retry_at.map(|time| time.0),
            version: view.version,
            ports: view.ports.clone(),
        }
    }
}
