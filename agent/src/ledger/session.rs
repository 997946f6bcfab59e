//! Which shards are led, and the session with the leader of the agent's own one: registering, reporting and beating.

use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent, shard_of_agent};
use protocol::{AttemptId, Held, ShardId, Time, ids::SHARDS_MAX};
use std::collections::BTreeSet;

use super::Ledger;
use super::book::State;
use super::devices::Awaited;
use super::event::Output;

/// The wait before registering again where nothing was answered; doubled each time. A leader loses no registration but with the connection or
/// with its lead, and whoever leads next says so: this is for what nobody foresaw. A leader that has thousands of agents to take in may need
/// seconds, and an answer to an earlier registration than the last is not taken, so a short wait would make it longer for all.
const REGISTER_RETRY_FIRST_MS: u64 = 5_000;
/// The longest such wait.
const REGISTER_RETRY_MAX_MS: u64 = 20_000;
/// So many beats without a word from the agent's shard need no answer: it costs the master more than the beat.
const UNANSWERED_BEATS: u64 = 7;
/// So many beats that ask for an answer and have none make it doubtful whether anybody leads there.
const DOUBT_BEATS: u64 = 3;
/// After so many beats without a word from the agent's shard the agent registers again.
const SILENT_BEATS_MAX: u64 = 12;
/// The shortest and the longest time between two beats that a master may ask for.
const HEARTBEAT_MS: (u64, u64) = (10, 600_000);

/// Where the agent stands with the shards, above all with its own.
#[derive(Clone, Debug)]
pub(super) struct Session {
    heartbeat_ms: u64,
    /// Of the last registration; only its answer is waited for. It never falls: a leader that comes again may still answer an older one.
    number: u64,
    /// When the last registration was sent.
    registered: Time,
    /// While there is a connection.
    reach: Option<Reach>,
}

#[derive(Clone, Debug)]
struct Reach {
    shards: u16,
    /// The agent's own one of them.
    own: ShardId,
    /// Those that are led, but for the agent's own.
    others: BTreeSet<ShardId>,
    /// While the agent's own shard is led.
    link: Option<Link>,
}

/// With one leader of the agent's own shard.
#[derive(Clone, Debug)]
struct Link {
    /// The one that holds; none from a registration until its answer.
    session: Option<u64>,
    /// The highest there was with this leader.
    session_last: u64,
    /// Of the last launch that was taken in this session.
    sequence: Option<u64>,
    beat_at: Time,
    /// Beats since the last word from the agent's shard.
    unanswered: u64,
    register_at: Time,
    register_wait_ms: u64,
}

impl Session {
    pub fn new(heartbeat_ms: u64) -> Self {
        let heartbeat_ms = heartbeat_ms.clamp(HEARTBEAT_MS.0, HEARTBEAT_MS.1);
        Self { heartbeat_ms, number: 0, registered: Time::ZERO, reach: None }
    }

    /// How often the agent beats.
    pub const fn heartbeat_ms(&self) -> u64 {
        self.heartbeat_ms
    }

    pub const fn is_connected(&self) -> bool {
        self.reach.is_some()
    }

    pub fn shards(&self) -> Option<u16> {
        self.reach.as_ref().map(|reach| reach.shards)
    }

    /// The agent's own shard, where there is a connection.
    pub fn own(&self) -> Option<ShardId> {
        self.reach.as_ref().map(|reach| reach.own)
    }

    /// The session that holds with the leader of the agent's own shard, where there is one.
    pub fn number(&self) -> Option<u64> {
        self.reach.as_ref()?.link.as_ref()?.session
    }

    /// True where somebody leads this shard who can be reached.
    pub fn is_led(&self, shard: ShardId) -> bool {
        let led = |reach: &Reach| if shard == reach.own { reach.link.is_some() } else { reach.others.contains(&shard) };
        self.reach.as_ref().is_some_and(led)
    }

    /// True where whoever led the agent's own shard has not answered for long: another may lead it.
    pub fn doubts_leader(&self) -> bool {
        let doubts = |link: &Link| match link.session {
            Some(_) => link.unanswered > UNANSWERED_BEATS + DOUBT_BEATS,
            // Its first registration was not answered, and another was sent.
            None => link.register_wait_ms > 2 * REGISTER_RETRY_FIRST_MS,
        };
        self.reach.as_ref().and_then(|reach| reach.link.as_ref()).is_some_and(doubts)
    }

    pub fn timeout(&self) -> Option<Time> {
        let link = self.reach.as_ref()?.link.as_ref()?;
        Some(if link.session.is_some() { link.beat_at.min(link.register_at) } else { link.register_at })
    }

    /// The agent's own shard said something: it lives.
    pub fn heard(&mut self, now: Time) {
        let silent_ms = SILENT_BEATS_MAX * self.heartbeat_ms;
        if let Some(link) = self.link().filter(|link| link.session.is_some()) {
            link.register_at = now + silent_ms;
            link.register_wait_ms = REGISTER_RETRY_FIRST_MS;
            link.unanswered = 0;
        }
    }

    /// True where a launch with these numbers is one of the session and newer than all that were taken in it.
    pub fn advance(&mut self, session: u64, sequence: u64) -> bool {
        let Some(link) = self.link() else { return false };
        let newer = link.session == Some(session) && link.sequence.is_none_or(|last| sequence > last);
        if newer {
            link.sequence = Some(sequence);
        }
        newer
    }

    /// What the agent says of itself is another than before: it registers as soon as its shard is led.
    pub fn register_again(&mut self, now: Time) {
        if let Some(link) = self.link() {
            link.register_at = now;
        }
    }

    fn link(&mut self) -> Option<&mut Link> {
        self.reach.as_mut()?.link.as_mut()
    }
}

impl Ledger {
    pub(super) fn connected(&mut self, now: Time, shards: u16) {
        self.disconnected();
        if shards == 0 || shards > SHARDS_MAX {
            self.outputs.push_back(Output::Quit { reason: format!("a master says that its cluster has {shards} shards") });
            return;
        }
        let own = shard_of_agent(self.agent, shards);
        self.session.reach = Some(Reach { shards, own, others: BTreeSet::new(), link: None });
        self.bundles.ask_all_again(now);
    }

    pub(super) fn disconnected(&mut self) {
        self.session.reach = None;
        self.telling.clear();
    }

    /// Tells the leader of a shard all that is its. With that of the agent's own shard a session begins: it is registered with, and told all.
    pub(super) fn led(&mut self, now: Time, shard: ShardId) {
        let Some(reach) = self.session.reach.as_mut().filter(|reach| shard.0 < reach.shards) else { return };
        if shard == reach.own {
            let link = Link {
                session: None,
                session_last: 0,
                sequence: None,
                beat_at: now,
                unanswered: 0,
                register_at: now,
                register_wait_ms: REGISTER_RETRY_FIRST_MS,
            };
            reach.link = Some(link);
            return; // Registering is what is due next.
        }
        reach.others.insert(shard);
        let attempts = self.book.of_shard(shard).collect();
        self.tell_all(now, attempts);
    }

    pub(super) fn unled(&mut self, shard: ShardId) {
        let Some(reach) = self.session.reach.as_mut() else { return };
        if shard == reach.own {
            reach.link = None;
        } else {
            reach.others.remove(&shard);
        }
        self.telling.forget(shard);
    }

    pub(super) fn registered(&mut self, now: Time, session: u64, heartbeat_ms: u64, number: u64) {
        let asked = self.session.number == number;
        let Some(link) = self.session.link().filter(|link| asked && link.session_last < session) else { return }; // Late, or doubled.
        (link.session, link.session_last) = (Some(session), session);
        link.sequence = None;
        link.beat_at = now;
        self.awaited = Awaited::default(); // Of a session that is over.
        self.session.heartbeat_ms = heartbeat_ms.clamp(HEARTBEAT_MS.0, HEARTBEAT_MS.1);
        self.session.heard(now);
        self.answered(now, self.session.registered);
    }

    pub(super) fn report_wanted(&mut self, now: Time, session: u64) {
        if self.session.link().is_some_and(|link| link.session == Some(session)) {
            self.report(now, session);
        }
    }

    /// Registers and beats when it is time.
    pub(super) fn keep_session(&mut self, now: Time) {
        let (held, held_hash, fenced) = (self.book.held(), self.book.held_hash(), self.book.has_fenced());
        let (heartbeat_ms, number) = (self.session.heartbeat_ms, self.session.number + 1);
        let Some(own) = self.session.own() else { return };
        let Some(link) = self.session.link() else { return };
        if now >= link.register_at {
            link.session = None;
            link.register_at = now + link.register_wait_ms;
            link.register_wait_ms = (2 * link.register_wait_ms).min(REGISTER_RETRY_MAX_MS);
            (self.session.number, self.session.registered) = (number, now);
            self.send(own, FromAgent::Register { info: self.info.clone(), incarnation: self.book.incarnation, number });
            self.send(own, FromAgent::Reserves { reservations: self.reservations.clone() });
            self.report(now, 0);
            return;
        }
        if let Some(session) = link.session.filter(|_| now >= link.beat_at) {
            link.beat_at = now + heartbeat_ms;
            let answer = fenced || link.unanswered >= UNANSWERED_BEATS;
            link.unanswered += 1;
            let held = u32::try_from(held).expect("ATTEMPTS_HELD_MAX fits");
            let sent = now;
            self.send(
                own,
                match answer {
                    true => FromAgent::Beat { session, sent, held, held_hash },
                    false => FromAgent::Alive { session, sent, held, held_hash },
                },
            );
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
        self.tell_devices();
        let mut chunks: Vec<&[Held]> = held.chunks(ATTEMPTS_PER_MESSAGE_MAX).collect();
        let rest = chunks.pop().unwrap_or_default();
        for chunk in chunks {
            self.send(own, FromAgent::Report { session, held: chunk.to_vec(), last: false });
        }
        self.send(own, FromAgent::Report { session, held: rest.to_vec(), last: true });
        self.tell_all(now, held.iter().map(|held| held.attempt).collect());
    }
}
