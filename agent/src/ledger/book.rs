//! What is on record: the attempts that are held, what is promised to them, and which were ever taken on. It changes only by what a
//! [`Record`] says, so that folding the records gives the same book again.

use protocol::devices::{numbers, parts};
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, Launch, attempt_hash};
use protocol::{AgentInfo, AttemptId, Device, Exit, Given, JobId, Lent, PortRange, Resources, ShardId, Singles, Time, Usage};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::event::Record;
use super::known::Known;
use super::ports::Ports;

/// An attempt that is held: taken on, and its end not yet acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The launch that it came with; without its list of attempts.
    pub launch: Arc<Launch>,
    pub ports: Vec<u16>,
    /// The single devices that it has.
    pub given: Given,
    pub state: State,
    /// What is known of the members of a group. Of the moment only: executors tell it again to whoever finds them.
    pub group: Option<Box<Group>>,
}

/// The members of an attempt that has several.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub started: BTreeSet<u8>,
    pub ended: BTreeMap<u8, Usage>,
    /// How the first one ended that did not end well.
    pub failure: Option<Exit>,
}

/// What an attempt is doing. All but `Ended` are of the moment only: after a recovery they are `Recovering`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// For a bundle, or for ends to be acknowledged; no executor has it.
    Waiting,
    /// An executor was told to start it.
    Starting,
    Running {
        since: Time,
    },
    /// An executor was told to stop it.
    Killing,
    /// The same, since what it was lent is needed; no master asked for it.
    Revoking,
    /// The same, since its checks failed: why is on record.
    Unhealthy,
    /// It is on record, and no executor has said yet whether it has it.
    Recovering,
    Ended {
        exit: Exit,
        usage: Usage,
    },
}

/// What is on record.
#[derive(Clone)]
pub(super) struct Book {
    pub incarnation: u64,
    pub boot: String,
    capacity: Resources,
    /// What is lent beside the capacity, as was said last. Of the moment only.
    lent: Resources,
    ranges: Vec<PortRange>,
    entries: BTreeMap<AttemptId, Entry>,
    /// Of all entries that have not ended. Within the capacity and what is lent, unless one was made smaller while they ran.
    promised: Resources,
    /// Of those of them that do not run yet or may not, what is not revocable: what they will use is not known.
    unsettled: Resources,
    ports: Ports,
    /// How much of each single device is given to entries that have not ended; `None` where none is told apart.
    singles: Option<Box<Singles>>,
    known: Known,
    /// How many entries have ended.
    ended: usize,
    /// Of all entries.
    hash: u64,
    /// Entries that run on a lease; an agent has few.
    fenced: BTreeSet<AttemptId>,
    /// Entries that have what is lent, and have not ended.
    revocable: BTreeSet<AttemptId>,
    /// Entries that are to end since they are not well, and have not, and why.
    unhealthy: BTreeMap<AttemptId, String>,
}

impl State {
    /// True where an executor runs it, as far as is known: what it uses can be measured.
    const fn is_settled(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Killing | Self::Revoking | Self::Unhealthy | Self::Ended { .. })
    }
}

impl Book {
    pub fn new(info: &AgentInfo, incarnation: u64, boot: String) -> Self {
        Self {
            incarnation,
            boot,
            capacity: info.capacity.clone(),
            ranges: info.ports.clone(),
            entries: BTreeMap::new(),
            lent: Resources::NONE,
            promised: Resources::NONE,
            unsettled: Resources::NONE,
            ports: Ports::new(&info.ports),
            singles: Singles::of(&info.capacity).map(Box::new),
            known: Known::default(),
            ended: 0,
            hash: 0,
            fenced: BTreeSet::new(),
            revocable: BTreeSet::new(),
            unhealthy: BTreeMap::new(),
        }
    }

    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Began { incarnation, boot } => {
                let info = AgentInfo { capacity: self.capacity.clone(), ports: self.ranges.clone(), ..AgentInfo::default() };
                *self = Self::new(&info, *incarnation, boot.clone());
            }
            Record::Taken { launch, ports } => self.take(launch, ports, &State::Recovering),
            Record::Ended { attempts } => {
                for (attempt, exit, usage) in attempts {
                    self.end(*attempt, exit, *usage);
                }
            }
            Record::Forgotten { attempts } => {
                for attempt in attempts {
                    self.forget(*attempt);
                }
            }
            Record::Known { job, ranges } => self.known.restore(*job, ranges),
            Record::Renewed { incarnation } => self.incarnation = *incarnation,
            Record::Devices { given } => self.give(given),
            Record::Unhealthy { attempts } => self.note_unhealthy(attempts),
        }
    }

    /// The least list of records from which [`Book::apply`] makes this book.
    pub fn snapshot(&self) -> Vec<Record> {
        let mut records = vec![Record::Began { incarnation: self.incarnation, boot: self.boot.clone() }];
        records.extend(self.known.iter().map(|(job, ranges)| Record::Known { job, ranges }));
        let mut ended = Vec::new();
        // Neighbours that came with the same launch are one record again.
        let mut shared: Option<&Arc<Launch>> = None;
        for (attempt, entry) in &self.entries {
            let key = (attempt.task.index, attempt.number);
            let same = shared.is_some_and(|shared| Arc::ptr_eq(shared, &entry.launch));
            match records.last_mut() {
                Some(Record::Taken { launch, ports }) if same && launch.attempts.len() < ATTEMPTS_PER_MESSAGE_MAX => {
                    launch.attempts.push(key);
                    ports.push(entry.ports.clone());
                }
                _ => {
                    let launch = Launch { attempts: vec![key], ..entry.launch.as_ref().clone() };
                    records.push(Record::Taken { launch, ports: vec![entry.ports.clone()] });
                }
            }
            shared = Some(&entry.launch);
            if let State::Ended { exit, usage } = &entry.state {
                ended.push((*attempt, exit.clone(), *usage));
            }
        }
        let given: Vec<(AttemptId, Given)> = self.given().map(|(attempt, given)| (attempt, given.clone())).collect();
        records.extend(given.chunks(ATTEMPTS_PER_MESSAGE_MAX).map(|given| Record::Devices { given: given.to_vec() }));
        let unhealthy: Vec<(AttemptId, String)> = self.unhealthy.iter().map(|(attempt, reason)| (*attempt, reason.clone())).collect();
        let unhealthy = unhealthy.chunks(ATTEMPTS_PER_MESSAGE_MAX).map(<[_]>::to_vec);
        records.extend(unhealthy.map(|attempts| Record::Unhealthy { attempts }));
        let ended = ended.chunks(ATTEMPTS_PER_MESSAGE_MAX).map(<[_]>::to_vec);
        records.extend(ended.map(|attempts| Record::Ended { attempts }));
        records
    }

    /// Books the attempts of `launch`; what is held or has ended already is passed over.
    pub fn take(&mut self, launch: &Launch, ports: &[Vec<u16>], state: &State) {
        let shared = Arc::new(Launch { attempts: Vec::new(), ..launch.clone() });
        let (mut taken, fenced, revocable) = (0, launch.template.is_fenced(), launch.template.is_revocable());
        for (at, (index, number)) in launch.attempts.iter().enumerate() {
            let attempt = AttemptId::new(launch.job, *index, *number);
            let ports = ports.get(at).cloned().unwrap_or_default();
            self.known.insert(launch.job, *index, *number);
            let std::collections::btree_map::Entry::Vacant(place) = self.entries.entry(attempt) else { continue };
            self.ports.mark(&ports);
            let group = (launch.template.members.len() > 1).then(Box::default);
            place.insert(Entry { launch: Arc::clone(&shared), ports, given: Given::default(), state: state.clone(), group });
            self.hash ^= attempt_hash(attempt);
            if fenced {
                self.fenced.insert(attempt);
            }
            if revocable {
                self.revocable.insert(attempt);
            }
            taken += 1;
        }
        let sum = launch.template.resources.checked_mul(taken).and_then(|more| self.promised.checked_add(&more));
        // What a launch took had its sum checked; only a damaged record could say more than an integer holds.
        self.promised = sum.unwrap_or_else(|| self.capacity.clone());
        self.unsettle(&launch.template.resources, taken, true);
    }

    /// Attempts that hold no devices yet have these; what has ended, or is not held, is passed over.
    pub fn give(&mut self, given: &[(AttemptId, Given)]) {
        for (attempt, given) in given {
            let Some(entry) = self.entries.get_mut(attempt).filter(|entry| entry.given.is_none()) else { continue };
            entry.given.clone_from(given);
            if let Some(singles) = self.singles.as_mut().filter(|_| !matches!(entry.state, State::Ended { .. })) {
                singles.hold(&entry.launch.template.resources, given, true);
            }
        }
    }

    /// These are to end since they are not well; what has ended, or is not held, is passed over.
    pub fn note_unhealthy(&mut self, attempts: &[(AttemptId, String)]) {
        for (attempt, reason) in attempts {
            if self.entries.get(attempt).is_some_and(|entry| !matches!(entry.state, State::Ended { .. })) {
                self.unhealthy.insert(*attempt, reason.clone());
            }
        }
    }

    /// Why an entry is to end that is not well.
    pub fn unhealthy(&self, attempt: AttemptId) -> Option<&String> {
        self.unhealthy.get(&attempt)
    }

    /// The entries that have single devices, and which.
    pub fn given(&self) -> impl Iterator<Item = (AttemptId, &Given)> {
        self.entries.iter().map(|(attempt, entry)| (*attempt, &entry.given)).filter(|(_, given)| !given.is_none())
    }

    /// How much of each single device is given; `None` where none is told apart.
    pub fn singles(&self) -> Option<&Singles> {
        self.singles.as_deref()
    }

    /// So many of these are not settled any more, or no longer so.
    fn unsettle(&mut self, each: &Resources, n: u32, more: bool) {
        let sum = each.firm().checked_mul(n);
        let sum = sum.and_then(|sum| if more { self.unsettled.checked_add(&sum) } else { self.unsettled.checked_sub(&sum) });
        self.unsettled = sum.unwrap_or(Resources::NONE); // Never: each is taken away once, and was added before.
    }

    /// Marks `attempt` as ended; false, and nothing changes, where it is not held or has ended.
    pub fn end(&mut self, attempt: AttemptId, exit: &Exit, usage: Usage) -> bool {
        let Some(entry) = self.entries.get_mut(&attempt) else { return false };
        if matches!(entry.state, State::Ended { .. }) {
            return false;
        }
        let before = std::mem::replace(&mut entry.state, State::Ended { exit: exit.clone(), usage });
        self.ports.release(&entry.ports);
        if let Some(singles) = self.singles.as_mut() {
            singles.hold(&entry.launch.template.resources, &entry.given, false);
        }
        self.ended += 1;
        let launch = Arc::clone(&entry.launch);
        let rest = self.promised.checked_sub(&launch.template.resources);
        // Never negative: what is taken away was added when it was taken on.
        self.promised = rest.unwrap_or(Resources::NONE);
        self.revocable.remove(&attempt);
        self.unhealthy.remove(&attempt);
        if !before.is_settled() {
            self.unsettle(&launch.template.resources, 1, false);
        }
        true
    }

    /// Lets go of `attempt`; false, and nothing changes, unless it has ended.
    pub fn forget(&mut self, attempt: AttemptId) -> bool {
        let ended = self.entries.get(&attempt).is_some_and(|entry| matches!(entry.state, State::Ended { .. }));
        if ended {
            self.entries.remove(&attempt);
            self.fenced.remove(&attempt);
            self.hash ^= attempt_hash(attempt);
            self.ended -= 1;
        }
        ended
    }

    pub fn get(&self, attempt: AttemptId) -> Option<&Entry> {
        self.entries.get(&attempt)
    }

    /// What is known of the members of an attempt that has several and has not ended.
    pub fn group(&mut self, attempt: AttemptId) -> Option<&mut Group> {
        let entry = self.entries.get_mut(&attempt).filter(|entry| !matches!(entry.state, State::Ended { .. }))?;
        entry.group.as_deref_mut()
    }

    /// Sets what an attempt that has not ended is doing.
    pub fn set(&mut self, attempt: AttemptId, state: State) {
        assert!(!matches!(state, State::Ended { .. }), "an end goes through its record");
        let Some(entry) = self.entries.get_mut(&attempt).filter(|entry| !matches!(entry.state, State::Ended { .. })) else { return };
        let (before, after) = (entry.state.is_settled(), state.is_settled());
        entry.state = state;
        if before != after {
            let launch = Arc::clone(&entry.launch);
            self.unsettle(&launch.template.resources, 1, before);
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = (&AttemptId, &Entry)> {
        self.entries.iter()
    }

    /// True where an entry runs on a lease.
    pub fn has_fenced(&self) -> bool {
        !self.fenced.is_empty()
    }

    /// Those that run on a lease.
    pub fn fenced(&self) -> impl Iterator<Item = (AttemptId, &Entry)> {
        self.fenced.iter().filter_map(|attempt| self.entries.get(attempt).map(|entry| (*attempt, entry)))
    }

    /// Those that have what is lent, and have not ended.
    pub fn revocable(&self) -> impl Iterator<Item = (AttemptId, &Entry)> {
        self.revocable.iter().filter_map(|attempt| self.entries.get(attempt).map(|entry| (*attempt, entry)))
    }

    /// What those that do not run yet are promised and is not revocable.
    pub const fn unsettled(&self) -> &Resources {
        &self.unsettled
    }

    /// So much is lent from now on.
    pub fn lend(&mut self, lent: Lent) {
        self.lent = Resources::revocable(lent);
    }

    /// The attempts of a shard's tasks.
    pub fn of_shard(&self, shard: ShardId) -> impl Iterator<Item = AttemptId> {
        let first = AttemptId::new(JobId::new(shard, 0), 0, 0);
        let last = AttemptId::new(JobId::new(shard, u64::MAX), u32::MAX, u32::MAX);
        self.entries.range(first..=last).map(|(attempt, _)| *attempt)
    }

    /// True where this attempt, or a later one of its task, was ever taken on.
    pub fn knows(&self, attempt: AttemptId) -> bool {
        self.known.contains(attempt.task.job, attempt.task.index, attempt.number) || self.entries.contains_key(&attempt)
    }

    /// Gives ports to the next attempt that is taken: for each the one of this number, or any.
    pub fn take_ports(&mut self, wanted: &[Option<u16>]) -> Option<Vec<u16>> {
        if wanted.is_empty() { Some(Vec::new()) } else { self.ports.take_these(wanted) }
    }

    pub fn held(&self) -> usize {
        self.entries.len()
    }

    pub const fn ended(&self) -> usize {
        self.ended
    }

    pub const fn held_hash(&self) -> u64 {
        self.hash
    }

    pub const fn promised(&self) -> &Resources {
        &self.promised
    }

    /// Why there cannot be so little: more is promised, or a port that is given would be none of the agent's.
    pub fn against(&self, info: &AgentInfo) -> Option<String> {
        let short = info.capacity.short_of(&self.promised.firm());
        if !short.is_empty() {
            let kinds: Vec<String> = short.iter().map(ToString::to_string).collect();
            return Some(format!("its tasks are promised more than that of {}: drain it, or stop some of them first", kinds.join(", ")));
        }
        let live = || self.entries.values().filter(|entry| !matches!(entry.state, State::Ended { .. }));
        if let Some(device) = live().find_map(|entry| Self::lost_device(entry, info)) {
            return Some(format!("{device} is given to one of its tasks"));
        }
        let missing = |port: &&u16| !info.ports.iter().any(|range| (range.first..=range.last).contains(*port));
        let port = live().flat_map(|entry| &entry.ports).find(missing)?;
        Some(format!("port {port} is given to one of its tasks"))
    }

    /// The device of an entry that there would not be any more.
    fn lost_device(entry: &Entry, info: &AgentInfo) -> Option<String> {
        let singles = Singles::of(&info.capacity)?;
        let lost = |(device, mask): (&Device, u16)| {
            let (kind, (_, each)) = (singles.kind(&device.name)?, parts(device.milli));
            numbers(mask).find(|at| kind.size(*at) < each).map(|at| format!("device {} {at}", device.name))
        };
        entry.given.named(&entry.launch.template.resources).find_map(lost)
    }

    /// There is so much from now on.
    pub fn reshape(&mut self, info: &AgentInfo) {
        self.singles = Singles::of(&info.capacity).map(Box::new);
        if let Some(singles) = self.singles.as_mut() {
            let live = self.entries.values().filter(|entry| !matches!(entry.state, State::Ended { .. }));
            live.for_each(|entry| singles.hold(&entry.launch.template.resources, &entry.given, true));
        }
        (self.capacity, self.ranges) = (info.capacity.clone(), info.ports.clone());
        self.ports.allow(&info.ports);
    }

    pub const fn capacity(&self) -> &Resources {
        &self.capacity
    }

    /// What may still be promised.
    pub fn free(&self) -> Resources {
        // Never over: what is lent has kinds of its own, and is less than the capacity.
        let all = self.capacity.checked_add(&self.lent).unwrap_or_else(|| self.capacity.clone());
        if let Some(free) = all.checked_sub(&self.promised) {
            return free;
        }
        let less = |capacity: u64, promised: u64| capacity.saturating_sub(promised);
        let mut devices = all.devices;
        devices.iter_mut().for_each(|device| device.milli = less(device.milli, self.promised.device(&device.name)));
        devices.retain(|device| device.milli > 0);
        Resources {
            cpu_milli: less(self.capacity.cpu_milli, self.promised.cpu_milli),
            memory_bytes: less(self.capacity.memory_bytes, self.promised.memory_bytes),
            disk_bytes: less(self.capacity.disk_bytes, self.promised.disk_bytes),
            ports: self.capacity.ports.saturating_sub(self.promised.ports),
            devices,
        }
    }

    /// Of all that the records say, and of nothing else.
    pub fn digest(&self) -> u64 {
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        (self.incarnation, &self.boot, &self.promised, self.hash).hash(&mut hash);
        for (attempt, entry) in &self.entries {
            (attempt, &entry.ports).hash(&mut hash);
            entry.given.masks.iter().for_each(|mask| mask.hash(&mut hash));
            if let State::Ended { exit, usage } = &entry.state {
                (exit, usage).hash(&mut hash);
            }
        }
        self.known.iter().for_each(|known| known.hash(&mut hash));
        self.unhealthy.iter().for_each(|unhealthy| unhealthy.hash(&mut hash));
        hash.finish()
    }
}

/// FNV-1a (Fowler, Noll and Vo): the same in each process, unlike std's default.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
