//! Who may come in: the deny-list, how many strangers and agents there are, and which connections an agent has.

use super::connection::{CloseCode, Inner};
use crate::AgentId;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Semaphore;

/// Most connections of one agent; with one more its oldest is closed.
pub(super) const CONNECTIONS_PER_AGENT_MAX: usize = 4;
/// With more peers than this that are not known yet, a new one must first show that it is where it says (Retry, RFC 9000 section 8.1.2): it
/// costs a fleet that comes back at once a round trip, and whoever says a false address at most half of the places.
pub(super) const UNPROVEN_MAX: usize = STRANGERS_MAX / 2;
/// Most peers that are not known yet, those included that only want a certificate. One more is turned away.
pub(super) const STRANGERS_MAX: usize = 2_048;
/// Most handshakes that are in work: the more there are, the longer each takes, and those that take too long are done in vain.
pub(super) const SHAKING_MAX: usize = 128;
/// More peers than [`STRANGERS_MAX`], where these say that they are masters: they need not wait for agents.
pub(super) const MASTERS_MAX: usize = 128;

/// What the listener, its verifier and its connections know together.
pub(super) struct Admission {
    books: Mutex<Books>,
    /// Whose turn it is to shake hands.
    pub shaking: Semaphore,
    /// The same for masters.
    pub masters_shaking: Semaphore,
}

impl Default for Admission {
    fn default() -> Self {
        let (shaking, masters_shaking) = (Semaphore::new(SHAKING_MAX), Semaphore::new(SHAKING_MAX));
        Self { books: Mutex::default(), shaking, masters_shaking }
    }
}

#[derive(Default)]
struct Books {
    revoked: HashSet<AgentId>,
    /// Oldest first.
    live: HashMap<AgentId, Vec<Weak<Inner>>>,
    strangers: usize,
    agents: usize,
}

/// Why there is no way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Revoked,
    Full,
}

/// One of those that [`Admission`] counts, until it is dropped.
pub(super) struct Place {
    admission: Arc<Admission>,
    holder: Holder,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Stranger,
    Agent(AgentId),
}

impl Admission {
    /// A lock is held for a few look-ups and never across an await; what it guards is whole after a panic too.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_revoked(&self, agent: AgentId) -> bool {
        self.books().revoked.contains(&agent)
    }

    /// Peers that are not known yet.
    pub(super) fn strangers(&self) -> usize {
        self.books().strangers
    }

    /// A place for a peer of which nothing is known but perhaps that it says that it is a master; `None` where there is none left.
    pub(super) fn stranger(self: &Arc<Self>, says_master: bool) -> Option<Place> {
        let mut books = self.books();
        if books.strangers >= STRANGERS_MAX + if says_master { MASTERS_MAX } else { 0 } {
            return None;
        }
        books.strangers += 1;
        Some(Place { admission: self.clone(), holder: Holder::Stranger })
    }

    /// A place for a connection of `agent`, of which there may be `agents_max` in all.
    pub(super) fn agent(self: &Arc<Self>, agent: AgentId, agents_max: usize) -> Result<Place, Refusal> {
        let mut books = self.books();
        if books.revoked.contains(&agent) {
            return Err(Refusal::Revoked);
        }
        if books.agents >= agents_max {
            return Err(Refusal::Full);
        }
        books.agents += 1;
        Ok(Place { admission: self.clone(), holder: Holder::Agent(agent) })
    }

    /// Puts `connection` on the list of `agent`, so that it ends when the agent is revoked; its oldest makes room. Asks again whether it is
    /// revoked, since that may have come between.
    pub(super) fn enlist(&self, agent: AgentId, connection: Weak<Inner>) -> Result<(), Refusal> {
        let replaced: Vec<_> = {
            let mut books = self.books();
            if books.revoked.contains(&agent) {
                return Err(Refusal::Revoked);
            }
            let live = books.live.entry(agent).or_default();
            live.retain(|connection| connection.strong_count() > 0);
            live.push(connection);
            let surplus = live.len().saturating_sub(CONNECTIONS_PER_AGENT_MAX);
            live.drain(..surplus).collect()
        };
        close_all(&replaced, CloseCode::Replaced, "the agent has newer connections");
        Ok(())
    }

    /// Lets `agent` in no more, and closes what it has.
    pub(super) fn revoke(&self, agent: AgentId) {
        let live = {
            let mut books = self.books();
            books.revoked.insert(agent);
            books.live.remove(&agent).unwrap_or_default()
        };
        close_all(&live, CloseCode::Revoked, "the agent's certificate was revoked");
    }
}

/// Never called with the books open: the last owner of a connection, gone in here, gives its place back.
fn close_all(connections: &[Weak<Inner>], code: CloseCode, reason: &str) {
    connections.iter().filter_map(Weak::upgrade).for_each(|connection| connection.close(code, reason));
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut books = self.admission.books();
        match self.holder {
            Holder::Stranger => books.strangers -= 1,
            Holder::Agent(agent) => {
                books.agents -= 1;
                if let Some(live) = books.live.get_mut(&agent) {
                    live.retain(|connection| connection.strong_count() > 0);
                    if live.is_empty() {
                        books.live.remove(&agent);
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}
