//! What follows the end of an attempt: the task's end, or another attempt after a wait.

use protocol::job::RestartPolicy;
use protocol::{Exit, Kind, Loss, Restart, Usage};

/// The wait of a task that was refused or revoked, in milliseconds: an agent that gives all back must not make the shard spin.
pub const REFUSED_PAUSE_MS: u32 = 250;

/// What is known of a task when an attempt of it ends.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// How its job's tasks are counted.
    pub kind: Kind,
    /// Its job's rule.
    pub restart: &'a Restart,
    /// False where the job is being stopped or was scaled below this task.
    pub wanted: bool,
    /// Restarts counted so far.
    pub retries: u32,
    /// Restarts in a row so far.
    pub streak: u8,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The task has ended.
    Final,
    /// It is tried again.
    Again {
        /// After this wait.
        delay_ms: u32,
        /// True where it counts against `retries_max`.
        counted: bool,
        /// Restarts in a row from now on.
        streak: u8,
    },
}

/// What follows when an attempt ended so.
#[must_use]
pub fn next(facts: Facts, exit: &Exit, usage: Usage) -> Next {
    let Facts { kind, restart, wanted, retries, streak } = facts;
    if !wanted || kind == Kind::Task {
        return Next::Final;
    }
    let policy = match exit {
        Exit::Lost { reason: Loss::Refused | Loss::Revoked } => return Next::Again { delay_ms: REFUSED_PAUSE_MS, counted: false, streak },
        // Whoever kills the executor it runs in must not do so without a pause, nor may an agent that loses leases as it gets them.
        Exit::Lost { reason: Loss::Executor | Loss::LeaseOver } => {
            return Next::Again { delay_ms: backoff_ms(restart, streak), counted: false, streak: streak.saturating_add(1) };
        }
        Exit::Lost { .. } => return Next::Again { delay_ms: 0, counted: false, streak },
        Exit::Killed if kind.lasts() => return Next::Again { delay_ms: 0, counted: false, streak: 0 },
        Exit::Killed => return Next::Final,
        Exit::Rejected { .. } if kind == Kind::Batch => return Next::Final,
        _ => restart.policy,
    };
    let again = match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => !exit.is_success(),
        RestartPolicy::Never => false,
    };
    if !again || restart.retries_max.is_some_and(|most| retries >= most) {
        return Next::Final;
    }
    let streak = if usage.time_us / 1_000 > restart.backoff_max_ms { 0 } else { streak };
    Next::Again { delay_ms: backoff_ms(restart, streak), counted: true, streak: streak.saturating_add(1) }
}

/// The wait after `streak` restarts in a row: the first one, times the factor for each further one, at most the longest.
#[must_use]
pub fn backoff_ms(restart: &Restart, streak: u8) -> u32 {
    let most = restart.backoff_max_ms.min(u64::from(u32::MAX));
    let mut delay = restart.backoff_first_ms.min(most);
    for _ in 0..streak {
        if delay >= most || delay == 0 {
            break;
        }
        delay = (delay.saturating_mul(u64::from(restart.backoff_factor_milli)) / 1_000).min(most);
    }
    u32::try_from(delay).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Restart = Restart {
        policy: RestartPolicy::OnFailure,
        retries_max: Some(3),
        backoff_first_ms: 100,
        backoff_factor_milli: 2_000,
        backoff_max_ms: 500,
    };

    fn facts(kind: Kind, retries: u32, streak: u8) -> Facts<'static> {
        Facts { kind, restart: &RULE, wanted: true, retries, streak }
    }

    #[test]
    fn backoff_grows_to_its_most_and_resets_after_a_long_run() {
        let waits: Vec<u32> = (0..5).map(|streak| backoff_ms(&RULE, streak)).collect();
        assert_eq!(waits, [100, 200, 400, 500, 500]);
        let long = Usage { time_us: 501_000, ..Usage::default() };
        assert_eq!(next(facts(Kind::Batch, 1, 9), &Exit::Code(1), long), Next::Again { delay_ms: 100, counted: true, streak: 1 });
    }

    #[test]
    fn the_rule_decides_by_the_exit() {
        let check = |facts, exit: Exit, ends: bool| assert_eq!(next(facts, &exit, Usage::default()) == Next::Final, ends, "{exit}");
        check(facts(Kind::Batch, 0, 0), Exit::Code(0), true);
        check(facts(Kind::Batch, 2, 0), Exit::Code(1), false);
        check(facts(Kind::Batch, 3, 0), Exit::Code(1), true);
        check(facts(Kind::Batch, 3, 0), Exit::Lost { reason: Loss::AgentSilent }, false);
        check(facts(Kind::Batch, 0, 0), Exit::Killed, true);
        check(facts(Kind::Service, 0, 0), Exit::Killed, false);
        check(facts(Kind::System, 9, 0), Exit::Killed, false);
        check(facts(Kind::Batch, 0, 0), Exit::Rejected { reason: String::new() }, true);
        check(facts(Kind::Task, 0, 0), Exit::Lost { reason: Loss::Refused }, true);
        check(Facts { wanted: false, ..facts(Kind::Service, 0, 0) }, Exit::Code(1), true);
    }
}
