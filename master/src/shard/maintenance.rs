//! Windows in which agents are maintained: on record in shard 0, which says them to all. Each agent's shard empties it when its window begins, and gives
//! it tasks again when that is over; frameworks that have tasks there are asked before, with inverse offers, whether they can do without.

use super::drains::Mode;
use super::{Action, HOME, PeerMessage, Record, Refusal, Response, Shard};
use crate::frameworks::{FrameworkEvent, FrameworkId, InverseOffer};
use crate::shard::event::Change;
use protocol::{AgentId, OfferId, RequestId, ShardId, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most windows.
pub const WINDOWS_MAX: usize = 1_000;
/// Most agents in all windows together.
pub const WINDOW_AGENTS_MAX: usize = 10_000;
/// Longest note of a window, in bytes.
pub const NOTE_BYTES_MAX: usize = 1_024;
/// When it makes sense to ask again where there are too many.
const RETRY_AFTER_MS: u64 = 10_000;

/// A time in which agents are maintained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Never given twice.
    pub number: u64,
    /// Which agents; at least one.
    pub agents: BTreeSet<AgentId>,
    /// From when on they are to be empty.
    pub from: Time,
    /// Until when; `None`: until somebody ends it.
    pub until: Option<Time>,
    /// Milliseconds that a task has to stop when it begins.
    pub grace_ms: u64,
    /// What people say of it.
    pub note: String,
}

impl Window {
    /// True where it has begun and is not over.
    #[must_use]
    pub fn is_now(&self, now: Time) -> bool {
        self.from <= now && !self.is_over(now)
    }

    /// True where it is over.
    #[must_use]
    pub fn is_over(&self, now: Time) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The windows on record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// Of the last that was given.
    pub last: u64,
    /// They, by number.
    pub list: Vec<Window>,
}

/// What an operator says of windows; to shard 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum WindowsRequest {
    /// One more; its number is given to it, and answered with [`Response::Numbered`].
    Add(Window),
    /// This one is over, or will not be.
    Cancel(u64),
    /// These, in place of all that have not begun; numbers are given to them.
    Replace(Vec<Window>),
    /// Those of these agents begin now.
    Begin(BTreeSet<AgentId>),
    /// Those of these agents are over.
    End(BTreeSet<AgentId>),
}

/// How a framework answered an inverse offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consent {
    /// Not yet.
    Unknown,
    /// It can do without.
    Accepted,
    /// It would rather not.
    Declined,
}

/// An answer of a framework, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentView {
    /// Of the window.
    pub window: u64,
    /// Which agent.
    pub agent: AgentId,
    /// Which framework.
    pub framework: FrameworkId,
    /// What it said.
    pub consent: Consent,
    /// When.
    pub at: Time,
}

/// What a shard knows of windows.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    /// On record, in shard 0.
    pub lasting: Windows,
    /// As they were told; `None` until they are.
    told: Option<Vec<Window>>,
    /// What frameworks of ours were asked, by framework and agent.
    asked: BTreeMap<(FrameworkId, AgentId), Asked>,
    /// True where frameworks may have to be asked.
    pub changed: bool,
    /// Of the last inverse offer.
    number: u64,
    /// When the next one begins or ends.
    next: Option<Time>,
}

#[derive(Debug)]
struct Asked {
    offer: InverseOffer,
    consent: Consent,
    at: Time,
}

impl Maintenance {
    /// Those of a snapshot.
    pub fn new(lasting: Windows) -> Self {
        Self { lasting, ..Self::default() }
    }

    /// The windows that are not over, as far as they were told.
    fn windows(&self, now: Time) -> impl Iterator<Item = &Window> {
        self.told.iter().flatten().filter(move |window| !window.is_over(now))
    }

    /// The first window of an agent that is not over.
    pub fn of(&self, agent: AgentId, now: Time) -> Option<&Window> {
        self.windows(now).filter(|window| window.agents.contains(&agent)).min_by_key(|window| window.from)
    }

    /// When one begins or ends by time alone.
    pub const fn due(&self) -> Option<Time> {
        self.next
    }

    fn next_after(&self, now: Time) -> Option<Time> {
        let moments = self.told.iter().flatten().flat_map(|window| [Some(window.from), window.until]);
        moments.flatten().filter(|at| *at > now).min()
    }
}

impl Shard {
    /// An operator says something of windows.
    pub(super) fn windows_request(&mut self, id: RequestId, request: WindowsRequest) -> Result<(), Refusal> {
        if self.config.id != HOME {
            return Err(Refusal::Invalid { reason: "shard 0 keeps the windows".into() });
        }
        let now = self.now;
        let mut windows = self.maintenance.lasting.clone();
        windows.list.retain(|window| !window.is_over(now));
        let mut number = |mut window: Window| {
            windows.last += 1;
            window.number = windows.last;
            window
        };
        match request {
            WindowsRequest::Add(window) => {
                let window = number(window);
                windows.list.push(window);
            }
            WindowsRequest::Replace(list) => {
                let list: Vec<Window> = list.into_iter().map(&mut number).collect();
                windows.list.retain(|window| window.is_now(now));
                windows.list.extend(list);
            }
            WindowsRequest::Cancel(number) => {
                let before = windows.list.len();
                windows.list.retain(|window| window.number != number);
                if windows.list.len() == before {
                    return Err(Refusal::NotFound { what: "window".into() });
                }
            }
            WindowsRequest::Begin(agents) => self.begin_windows(&mut windows, &agents)?,
            WindowsRequest::End(agents) => {
                if !windows.list.iter().any(|window| window.is_now(now) && !window.agents.is_disjoint(&agents)) {
                    return Err(Refusal::Conflict { reason: "none of these machines is in maintenance".into() });
                }
                for window in windows.list.iter_mut().filter(|window| window.is_now(now)) {
                    window.agents.retain(|agent| !agents.contains(agent));
                }
                windows.list.retain(|window| !window.agents.is_empty());
            }
        }
        against(&windows.list)?;
        let last = windows.last;
        self.commit(Record::WindowsSet { windows, at: now });
        (0..self.config.shards).for_each(|to| self.say_windows(ShardId(to)));
        self.publish(Change::Maintenance);
        self.reply(id, Response::Numbered(last));
        Ok(())
    }

    /// Windows of these agents that have not begun begin now; for those of them alone, where others are in the same.
    fn begin_windows(&self, windows: &mut Windows, agents: &BTreeSet<AgentId>) -> Result<(), Refusal> {
        let planned = |agent: &AgentId| windows.list.iter().any(|window| window.agents.contains(agent));
        if !agents.iter().all(planned) {
            return Err(Refusal::Conflict { reason: "a machine that is in no window cannot begin one: schedule it first".into() });
        }
        let mut begun = vec![];
        for window in windows.list.iter_mut().filter(|window| window.from > self.now) {
            let ours: BTreeSet<AgentId> = window.agents.intersection(agents).copied().collect();
            if !ours.is_empty() {
                window.agents.retain(|agent| !ours.contains(agent));
                windows.last += 1;
                begun.push(Window { number: windows.last, agents: ours, from: self.now, ..window.clone() });
            }
        }
        windows.list.retain(|window| !window.agents.is_empty());
        windows.list.extend(begun);
        Ok(())
    }

    /// A new leader of a shard, or of this one, knows no windows.
    pub(super) fn say_windows(&mut self, to: ShardId) {
        if self.config.id == HOME {
            self.held(Action::Peer { to, message: PeerMessage::Windows { windows: self.maintenance.lasting.list.clone() } });
        }
    }

    /// Shard 0 says which windows there are.
    pub(super) fn windows_said(&mut self, from: ShardId, windows: Vec<Window>) {
        if from != HOME {
            return;
        }
        let now = self.now;
        let unavailable = |maintenance: &Maintenance, agent| maintenance.of(agent, now).map(|window| (window.from, window.until));
        let held: Vec<(FrameworkId, OfferId, AgentId)> =
            self.sessions.by_id.iter().flat_map(|(id, session)| session.hand.offers().map(|offer| (*id, offer.id, offer.agent))).collect();
        let before: Vec<_> = held.iter().map(|(.., agent)| unavailable(&self.maintenance, *agent)).collect();
        self.maintenance.told = Some(windows);
        self.maintenance.changed = true;
        // What is shown of an agent says when it is not there: it is shown anew where that is another time.
        for ((framework, offer, agent), before) in held.into_iter().zip(before) {
            if unavailable(&self.maintenance, agent) != before {
                self.rescinded(framework, &[offer]);
                self.leave_all(framework, std::iter::once(offer), 0);
            }
        }
        self.watch_windows();
    }

    /// A window may have begun, or be over.
    pub(super) fn watch_windows_due(&mut self) {
        if self.maintenance.next.is_some_and(|next| next <= self.now) {
            self.watch_windows();
        }
    }

    /// What time alone does, and what follows from what was told: our agents are emptied in their windows, and given tasks again behind them.
    pub(super) fn watch_windows(&mut self) {
        let Some(told) = &self.maintenance.told else { return };
        let (now, mut wishes) = (self.now, Vec::new());
        for window in told.iter().filter(|window| window.is_now(now)) {
            let ours = window.agents.iter().filter(|agent| self.rest.agents.get(agent).is_some_and(|known| !known.gone));
            let idle = ours.filter(|agent| self.drains.mode(**agent) == Mode::Active);
            wishes.extend(idle.map(|agent| (*agent, Mode::Maintained { grace_ms: window.grace_ms, window: window.number })));
        }
        for (agent, mode) in &self.drains.modes {
            if let Mode::Maintained { .. } = mode
                && !told.iter().any(|window| window.is_now(now) && window.agents.contains(agent))
            {
                wishes.push((*agent, Mode::Active));
            }
        }
        wishes.into_iter().for_each(|(agent, mode)| self.put_mode(agent, mode));
        self.maintenance.next = self.maintenance.next_after(now);
        self.maintenance.changed = true;
    }

    /// Asks frameworks of ours that have tasks on agents with a window, and tells those that were asked where there is none any more.
    pub(super) fn settle_maintenance(&mut self) {
        if !std::mem::take(&mut self.maintenance.changed) {
            return;
        }
        let mut wanted: BTreeMap<(FrameworkId, AgentId), (u64, Time, Option<Time>)> = BTreeMap::new();
        for window in self.maintenance.windows(self.now) {
            for agent in &window.agents {
                let owners = self.jobs.by_agent.get(agent).into_iter().flatten().filter_map(|(job, _)| self.frameworks.owner(*job));
                let said = (window.number, window.from, window.until);
                for (framework, _) in owners {
                    wanted.entry((framework, *agent)).or_insert(said);
                }
            }
        }
        let maintenance = &mut self.maintenance;
        let mut events: BTreeMap<FrameworkId, (Vec<OfferId>, Vec<InverseOffer>)> = BTreeMap::new();
        maintenance.asked.retain(|key, asked| {
            let same = wanted.get(key) == Some(&(asked.offer.window, asked.offer.from, asked.offer.until));
            if same {
                wanted.remove(key);
            } else {
                events.entry(key.0).or_default().0.push(asked.offer.id);
            }
            same
        });
        for ((framework, agent), (window, from, until)) in wanted {
            if self.sessions.by_id.get(&framework).is_none_or(|session| session.request.is_none()) {
                continue; // It is asked when it comes back.
            }
            maintenance.number += 1;
            let id = OfferId { shard: self.config.id, number: maintenance.number };
            let offer = InverseOffer { id, agent, window, from, until };
            maintenance.asked.insert((framework, agent), Asked { offer: offer.clone(), consent: Consent::Unknown, at: self.now });
            events.entry(framework).or_default().1.push(offer);
        }
        for (framework, (over, asked)) in events {
            if !over.is_empty() {
                self.sessions.tell(framework, FrameworkEvent::InverseRescinded(over));
            }
            if !asked.is_empty() {
                self.sessions.tell(framework, FrameworkEvent::InverseOffers(asked));
            }
        }
    }

    /// A framework has subscribed: what it was asked over another subscription it is asked again.
    pub(super) fn ask_again(&mut self, framework: FrameworkId) {
        self.maintenance.asked.retain(|(of, _), _| *of != framework);
        self.maintenance.changed = true;
    }

    /// A framework answers inverse offers; those that it does not hold are passed over.
    pub(super) fn consented(&mut self, framework: FrameworkId, offers: &[OfferId], consent: Consent) {
        let now = self.now;
        let of = self.maintenance.asked.range_mut((framework, AgentId(0))..=(framework, AgentId(u64::MAX)));
        for (_, asked) in of.filter(|(_, asked)| offers.contains(&asked.offer.id)) {
            (asked.consent, asked.at) = (consent, now);
        }
    }

    /// What frameworks of ours have answered.
    pub(super) fn consents(&self) -> Vec<ConsentView> {
        let all = self.maintenance.asked.iter().map(|((framework, agent), asked)| ConsentView {
            window: asked.offer.window,
            agent: *agent,
            framework: *framework,
            consent: asked.consent,
            at: asked.at,
        });
        all.collect()
    }
}

/// Why there cannot be these windows.
fn against(windows: &[Window]) -> Result<(), Refusal> {
    let agents: usize = windows.iter().map(|window| window.agents.len()).sum();
    if windows.len() > WINDOWS_MAX || agents > WINDOW_AGENTS_MAX {
        let reason = format!("there are at most {WINDOWS_MAX} windows, of {WINDOW_AGENTS_MAX} agents together");
        return Err(Refusal::Busy { reason, retry_after_ms: RETRY_AFTER_MS });
    }
    let invalid = |reason: &str| Err(Refusal::Invalid { reason: reason.to_owned() });
    for (at, window) in windows.iter().enumerate() {
        if window.agents.is_empty() || window.note.len() > NOTE_BYTES_MAX {
            return invalid("a window has at least one agent, and a note of at most 1,024 bytes");
        }
        if window.until.is_some_and(|until| until <= window.from) {
            return invalid("a window ends after it has begun");
        }
        let overlaps = |other: &&Window| {
            let before = other.until.is_some_and(|until| until <= window.from);
            let after = window.until.is_some_and(|until| until <= other.from);
            !before && !after && !other.agents.is_disjoint(&window.agents)
        };
        if let Some(other) = windows[..at].iter().find(overlaps) {
            return invalid(&format!("window {} has one of these agents at the same time: cancel it first", other.number));
        }
    }
    Ok(())
}
