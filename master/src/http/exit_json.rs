//! How attempts ended, as JSON.

use protocol::Exit;
use protocol::task::Loss;
use serde::Serialize;
use utoipa::ToSchema;

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExitBody {
    /// `code`, `signal`, `out-of-fuel`, `out-of-memory`, `out-of-time`, `out-of-cpu-time`, `out-of-table`, `out-of-host-bytes`,
    /// `out-of-disk`, `out-of-processes`, `trap`, `killed`, `rejected`, `lost` or `unhealthy`.
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
    /// Why: a trap's, a rejection's or a loss's, or what a check found last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

const fn loss_text(loss: Loss) -> &'static str {
    match loss {
        Loss::AgentSilent => "agent-silent",
        Loss::Reboot => "reboot",
        Loss::Executor => "executor",
        Loss::Forgotten => "forgotten",
        Loss::AgentGone => "agent-gone",
        Loss::Refused => "refused",
        Loss::LeaseOver => "lease-over",
        Loss::Drained => "drained",
        Loss::Preempted => "preempted",
        Loss::Revoked => "revoked",
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
            Exit::OutOfDisk { limit_bytes } => Self { limit: Some(*limit_bytes), ..of("out-of-disk") },
            Exit::OutOfProcesses { limit } => Self { limit: Some(u64::from(*limit)), ..of("out-of-processes") },
            Exit::Trap { reason } => Self { reason: Some(reason.clone()), ..of("trap") },
            Exit::Killed => of("killed"),
            Exit::Rejected { reason } => Self { reason: Some(reason.clone()), ..of("rejected") },
            Exit::Unhealthy { reason } => Self { reason: Some(reason.clone()), ..of("unhealthy") },
            Exit::Lost { reason } => Self { reason: Some(loss_text(*reason).to_owned()), ..of("lost") },
        }
    }
}
