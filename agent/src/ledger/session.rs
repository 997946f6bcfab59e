//! The session with the agent's own shard: registering, reporting and beating.

use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent, shard_of_agent};
use protocol::{AttemptId, Held, ShardId, Time, ids::SHARDS_MAX};

use super::Ledger;
use super::book::State;
use super::event::Output;

/// The wait before registering again where nothing was answered; doubled each time.
const REGISTER_RETRY_FIRST_MS: u64 = 1_000;
/// The longest such wait.
const REGISTER_RETRY_MAX_MS: u64 = 10_000;
/// After so many beats without a word from the agent's shard the agent registers again.
const SILENT_BEATS_MAX: u64 = 10;
/// The shortest and the longest time between two beats that a master may ask for.
const HEARTBEAT_MS: (u64, u64) = (10, 600_000);

/// Where the agent stands with its own shard.
#[derive(Clone, Debug)]
pub(super) struct Session {
    heartbeat_ms: u64,
    link: Option<Link>,
}

#[derive(Clone, Debug)]
struct Link {
    shards: u16,
    /// The agent's own one of them.
    own: ShardId,
    /// The one that holds; none from a registration until its answer.
    session: Option<u64>,
    /// The highest there was on this connection.
    session_last: u64,
    /// Of the last launch that was taken in this session.
    sequence: Option<u64>,
    beat_at: Time,
    register_at: Time,
    register_wait_ms: u64,
    /// Of the last registration; only its answer is waited for.
    number: u64,
}

impl Session {
    pub fn new(heartbeat_ms: u64) -> Self {
        Self { heartbeat_ms: heartbeat_ms.clamp(HEARTBEAT_MS.0, HEARTBEAT_MS.1), link: None }
    }

    pub const fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    pub fn shards(&self) -> Option<u16> {
        self.link.as_ref().map(|link| link.shards)
    }

    /// The agent's own shard, where there is a connection.
    pub fn own(&self) -> Option<ShardId> {
        self.link.as_ref().map(|link| link.own)
    }

    pub fn timeout(&self) -> Option<Time> {
        let link = self.link.as_ref()?;
        Some(if link.session.is_some() { link.beat_at.min(link.register_at) } else { link.register_at })
    }

    /// The agent's own shard said something: it lives.
    pub fn heard(&mut self, now: Time) {
        let silent_ms = SILENT_BEATS_MAX * self.heartbeat_ms;
        if let Some(link) = self.link.as_mut().filter(|link| link.session.is_some()) {
            link.register_at = now + silent_ms;
            link.register_wait_ms = REGISTER_RETRY_FIRST_MS;
        }
    }

    /// True where a launch with these numbers is one of the session and newer than all that were taken in it.
    pub fn advance(&mut self, session: u64, sequence: u64) -> bool {
        let Some(link) = self.link.as_mut() else { return false };
        let newer = link.session == Some(session) && link.sequence.is_none_or(|last| sequence > last);
        if newer {
            link.sequence = Some(sequence);
        }
        newer
    }
}

impl Ledger {
    pub(super) fn connected(&mut self, now: Time, shards: u16) {
        self.disconnected();
        if shards == 0 || shards > SHARDS_MAX {
            self.outputs.push_back(Output::Quit { reason: format!("a master says that its cluster has {shards} shards") });
            return;
        }
        let link = Link {
            shards,
            own: shard_of_agent(self.agent, shards),
            session: None,
            session_last: 0,
            sequence: None,
            beat_at: now,
            register_at: now,
            register_wait_ms: REGISTER_RETRY_FIRST_MS,
            number: 0,
        };
        self.session.link = Some(link);
        self.bundles.ask_all_again(now);
    }

    pub(super) fn disconnected(&mut self) {
        self.session.link = None;
        self.telling.clear();
    }

    pub(super) fn registered(&mut self, now: Time, session: u64, heartbeat_ms: u64, number: u64) {
        let Some(link) = self.session.link.as_mut() else { return };
        if link.number != number || link.session_last >= session {
            return; // A late or doubled answer.
        }
        (link.session, link.session_last) = (Some(session), session);
        link.sequence = None;
        link.beat_at = now;
        self.session.heartbeat_ms = heartbeat_ms.clamp(HEARTBEAT_MS.0, HEARTBEAT_MS.1);
        self.session.heard(now);
    }

    pub(super) fn report_wanted(&mut self, now: Time, session: u64) {
        if self.session.link.as_ref().is_some_and(|link| link.session == Some(session)) {
            self.report(now, session);
        }
    }

    /// Registers and beats when it is time.
    pub(super) fn keep_session(&mut self, now: Time) {
        let (held, held_hash) = (self.book.held(), self.book.held_hash());
        let heartbeat_ms = self.session.heartbeat_ms;
        let Some(link) = self.session.link.as_mut() else { return };
        let own = link.own;
        if now >= link.register_at {
            link.session = None;
            link.number += 1;
            let number = link.number;
            link.register_at = now + link.register_wait_ms;
            link.register_wait_ms = (2 * link.register_wait_ms).min(REGISTER_RETRY_MAX_MS);
            self.send(own, FromAgent::Register { info: self.info.clone(), incarnation: self.book.incarnation, number });
            self.report(now, 0);
            return;
        }
        if let Some(session) = link.session.filter(|_| now >= link.beat_at) {
            link.beat_at = now + heartbeat_ms;
            let held = u32::try_from(held).expect("ATTEMPTS_HELD_MAX fits");
            self.send(own, FromAgent::Beat { session, sent: now, held, held_hash });
        }
    }

    /// Says all that is held, and then the state of each.
    fn report(&mut self, now: Time, session: u64) {
        let Some(own) = self.session.own() else { return };
        let listed = |(attempt, entry): (&AttemptId, &super::book::Entry)| Held {
            attempt: *attempt,
            ended: matches!(entry.state, State::Ended { .. }),
        };
        let held: Vec<Held> = self.book.entries().map(listed).collect();
        let mut chunks: Vec<&[Held]> = held.chunks(ATTEMPTS_PER_MESSAGE_MAX).collect();
        let rest = chunks.pop().unwrap_or_default();
        for chunk in chunks {
            self.send(own, FromAgent::Report { session, held: chunk.to_vec(), last: false });
        }
        self.send(own, FromAgent::Report { session, held: rest.to_vec(), last: true });
        self.tell_all(now, held.iter().map(|held| held.attempt).collect());
    }
}
