//! An agent as the pool sees it.

use super::attempts::Attempts;
use super::devices::Devices;
use super::reserved::Kept;
use protocol::message::attempt_hash;
use protocol::{AgentId, AttemptId, Held, Reservation, Resources, ShardId, Singles, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Where an agent stands with this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Known from the records, not heard of since this shard leads.
    Expected,
    /// It registered and has not reported yet.
    Joining,
    /// It registered and reported.
    Here,
}

/// How long an agent has been silent, as it was told to the frameworks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silence {
    /// Not long.
    None,
    /// For `unreachable_ms`.
    Unreachable,
    /// For `replace_after_ms`: its tasks are replaced.
    Lost,
}

/// An agent. What each decision looks at comes first, side by side.
#[derive(Debug)]
#[repr(C)]
pub struct Seat {
    /// What is left.
    pub free: Resources,
    /// What it has, and what it lends beside that.
    pub capacity: Resources,
    /// What attempts hold.
    pub booked: Resources,
    /// What offers hold.
    pub offered: Resources,
    /// Attempts, and the class of each.
    pub attempts: Attempts,
    /// Exclusive or of `attempt_hash` of each.
    pub hash: u64,
    /// For how many attempts offers are out.
    pub offered_attempts: u32,
    /// Attempts of [`CLASS_UNKNOWN`]: while there are any it gets no offers.
    pub unknown: u32,
    /// Where it stands.
    pub standing: Standing,
    /// Whether it is silent.
    pub silence: Silence,
    /// True where it is to be given no tasks.
    pub inactive: bool,
    /// True where its connection is gone: it counts as silent, whatever `heard` says.
    pub disconnected: bool,
    /// True while it counts for `total`, `open` and the index.
    pub(super) counted: bool,
    pub(super) is_open: bool,
    /// True while it has an entry among the shard's watches.
    pub watched: bool,
    /// Shards that have not said yet what they hold to be there since it registered: while there are any it gets no offers, lest room that
    /// one of them has given away on record be given away again.
    pub unheard: BTreeSet<ShardId>,
    /// What of it is kept for roles.
    pub(super) kept: Option<Box<Kept>>,
    /// Its single devices, and who has which; `None` where it has none that are told apart.
    pub(super) devices: Option<Box<Devices>>,
    /// What offers to frameworks show: promised to nobody.
    pub open: Resources,
    /// Those offers.
    pub open_offers: BTreeSet<u64>,
    /// Ports that attempts asked for by number.
    pub ports: BTreeMap<AttemptId, Vec<u16>>,
    /// Attempts of other programs than wasm.
    pub heavy: BTreeSet<AttemptId>,
    /// What attempts of another priority than [`PRIORITY_DEFAULT`](protocol::job::PRIORITY_DEFAULT) hold, by priority.
    pub ranked: Vec<(u8, Resources)>,
    /// Attempts launched since a report was asked for; `None` where none is.
    pub since_wanted: Option<BTreeSet<AttemptId>>,
    /// Who.
    pub id: AgentId,
    /// Rises with each registration.
    pub session: u64,
    /// Of the last launch in this session.
    pub sequence: u64,
    /// Which life of it, as it said when it registered.
    pub incarnation: u64,
    /// When it was last heard of.
    pub heard: Time,
    /// When its last beat of this session was sent, by its own clock.
    pub beaten: Option<Time>,
    /// How often it was told to beat, in milliseconds; 0 until it has registered with this leader.
    pub beat_ms: u64,
    /// Beats since it registered while there are some.
    pub unheard_beats: u8,
    /// Beats in a row whose hash was not ours.
    pub mismatches: u8,
    /// What it reported so far.
    pub report: Vec<Held>,
    /// What was kept of it until a time that is not known to be on record yet: until it is, that is kept too.
    pub(super) given_up: Vec<(Time, Vec<Reservation>)>,
}

impl Seat {
    /// Has what decisions look at fetched from memory all at once, instead of piece by piece as each is come to.
    pub(super) fn fetch(&self) {
        let amounts = [&self.free, &self.capacity, &self.booked, &self.offered].map(|amount| amount.cpu_milli);
        std::hint::black_box((amounts, self.offered_attempts, self.sequence));
    }

    /// Of an agent that was not heard of yet.
    pub(super) fn new(id: AgentId, now: Time) -> Self {
        Self {
            id,
            session: 0,
            sequence: 0,
            standing: Standing::Expected,
            silence: Silence::None,
            heard: now,
            beaten: None,
            beat_ms: 0,
            inactive: false,
            disconnected: true,
            capacity: Resources::NONE,
            booked: Resources::NONE,
            offered: Resources::NONE,
            free: Resources::NONE,
            offered_attempts: 0,
            open: Resources::NONE,
            open_offers: BTreeSet::new(),
            ports: BTreeMap::new(),
            heavy: BTreeSet::new(),
            ranked: Vec::new(),
            attempts: Attempts::default(),
            hash: 0,
            unknown: 0,
            unheard: BTreeSet::new(),
            unheard_beats: 0,
            mismatches: 0,
            since_wanted: None,
            report: Vec::new(),
            given_up: Vec::new(),
            incarnation: 0,
            watched: false,
            kept: None,
            devices: None,
            counted: false,
            is_open: false,
        }
    }

    /// Its single devices.
    pub(super) fn singles(&self) -> Option<&Singles> {
        self.devices.as_ref().map(|devices| &devices.singles)
    }

    /// It has one more attempt.
    pub(super) fn insert(&mut self, attempt: AttemptId, class: u32) {
        self.attempts.insert(attempt, class);
        self.hash ^= attempt_hash(attempt);
        if let Some(since) = &mut self.since_wanted {
            since.insert(attempt);
        }
    }
}
