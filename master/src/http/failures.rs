//! Agents that go away, as any master hears of it: for frameworks that are told of each, whether they have tasks there or not. As with Mesos nobody
//! may rely on it: what this master missed is not told, and what becomes of tasks is told beside it.

use crate::shard::event::Change;
use protocol::AgentId;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};

/// Agents that wait to be told to one framework; it misses some where more go away before it is told.
const WAITING_MAX: usize = 1_024;

/// Who tells it.
#[derive(Debug)]
pub struct Failures {
    away: Mutex<BTreeSet<AgentId>>,
    tell: Sender<AgentId>,
}

impl Default for Failures {
    fn default() -> Self {
        Self { away: Mutex::default(), tell: Sender::new(WAITING_MAX) }
    }
}

impl Failures {
    /// Something has changed: an agent that went away is told, once until it comes again.
    pub fn hear(&self, change: &Change) {
        let Change::Agent { agent, what, .. } = change else { return };
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match what.as_ref() {
            "unreachable" | "lost" | "gone" if away.insert(*agent) => {
                // Nobody may listen.
                let _ = self.tell.send(*agent);
            }
            "registered" | "reachable" => {
                away.remove(agent);
            }
            _ => {}
        }
    }

    /// What goes away from now on.
    pub fn listen(&self) -> Receiver<AgentId> {
        self.tell.subscribe()
    }
}

/// Agents that went away since it was asked last; waits for one, where there is nothing to hear them from for ever. Cancelled, it has lost none.
pub async fn gone(failures: &mut Option<Receiver<AgentId>>) -> Vec<AgentId> {
    let Some(failures) = failures else { return std::future::pending().await };
    let mut gone = loop {
        match failures.recv().await {
            Ok(agent) => break vec![agent],
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    };
    while let Ok(agent) = failures.try_recv() {
        gone.push(agent);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_goes_away_once_until_it_comes_again() {
        let failures = Failures::default();
        let mut heard = Some(failures.listen());
        failures.hear(&Change::Tokens);
        for (agent, what) in [
            (1, "registered"),
            (1, "draining"),
            (1, "unreachable"),
            (1, "lost"),
            (2, "gone"),
            (1, "reachable"),
            (1, "unreachable"),
            (1, "gone"),
        ] {
            failures.hear(&Change::Agent { agent: AgentId(agent), name: "a".into(), what: what.into() });
        }
        assert_eq!(gone(&mut heard).await, [1, 2, 1].map(AgentId));
    }
}
