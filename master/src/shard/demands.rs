//! What the framework's shard wants of all agents' shards, and what it does with their offers.

use super::event::{Change, PlacedWant, Want};
use super::{Action, PeerMessage, Record, Shard, ShardConfig};
use crate::jobs::state::Pick;
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, Launch, shard_of_agent};
use protocol::task::Placed;
use protocol::{AgentId, AttemptId, Offer, OfferId, Phase, ShardId, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was demanded last.
#[derive(Debug)]
pub(super) struct Demands {
    /// The wants that were said last.
    said: Vec<Want>,
    /// Those of tasks that may not go everywhere.
    said_placed: Vec<PlacedWant>,
    /// When.
    said_at: Time,
    /// True where they are to be said again, changed or not.
    again: bool,
    /// The last offer of each shard that was looked at.
    seen: Vec<u64>,
    /// Offers of which nothing was taken.
    declines: Vec<OfferId>,
}

impl Demands {
    pub(super) fn new(shards: u16) -> Self {
        let (said, said_placed, seen) = (Vec::new(), Vec::new(), vec![0; usize::from(shards)]);
        Self { said, said_placed, said_at: Time::ZERO, again: false, seen, declines: Vec::new() }
    }

    /// Nothing is taken of an offer.
    pub(super) fn decline(&mut self, offer: OfferId) {
        self.declines.push(offer);
    }

    /// Nobody knows them any longer.
    pub(super) fn say_anew(&mut self) {
        self.again = true;
    }

    /// A new leader of `from` numbers its offers by another clock.
    pub(super) fn see_anew(&mut self, from: ShardId) {
        if let Some(seen) = self.seen.get_mut(usize::from(from.0)) {
            *seen = 0;
        }
    }

    /// When unmet wants are said again.
    pub(super) fn due(&self, config: &ShardConfig) -> Option<Time> {
        (!self.said.is_empty() || !self.said_placed.is_empty()).then(|| self.said_at + config.demand_ms)
    }
}

impl Shard {
    /// What follows from all that was handled: offers of our agents, our own demand where it changed, and then, so that they are not
    /// offered again, declines.
    pub(super) fn settle(&mut self) {
        self.say_offers();
        self.say_uses();
        self.settle_quotas();
        self.settle_maintenance();
        self.show_frameworks();
        if self.pool.take_left() {
            self.say_offers();
            self.pool.left_taken();
        }
        self.say_demand();
        self.say_spending();
        self.say_matching();
        let mut declines = std::mem::take(&mut self.demands.declines);
        declines.sort_unstable();
        for offers in declines.chunk_by(|a, b| a.shard == b.shard) {
            let to = offers[0].shard;
            self.at_once(Action::Peer { to, message: PeerMessage::Decline { offers: offers.to_vec() } });
        }
    }

    /// Offers what our agents have free, and asks those to stop whose place is needed.
    fn say_offers(&mut self) {
        for (to, offers) in self.pool.allocate(self.now) {
            self.at_once(Action::Peer { to, message: PeerMessage::Offers { offers } });
        }
        let said = std::mem::take(&mut self.pool.aims.said);
        for (to, offers) in said.offers {
            self.at_once(Action::Peer { to, message: PeerMessage::OffersPlaced { offers } });
        }
        for (to, wants) in said.stuck {
            self.at_once(Action::Peer { to, message: PeerMessage::Stuck { wants } });
        }
        self.say_yields();
    }

    fn say_demand(&mut self) {
        let due = self.demands.due(&self.config).is_some_and(|at| at <= self.now);
        if !self.jobs.lines.changed && !self.demands.again && !due && !self.spending.is_stirred() {
            return;
        }
        if due {
            self.jobs.relax_all();
        }
        self.jobs.lines.changed = false;
        let always = std::mem::take(&mut self.demands.again) || due;
        let (mut wants, mut placed) = (self.jobs.lines.wants(), self.jobs.placed_wants());
        self.resolve(&mut placed);
        self.keep_within_quotas(&mut wants, &mut placed);
        let (plain_new, placed_new) = (always || wants != self.demands.said, always || placed != self.demands.said_placed);
        if !plain_new && !placed_new {
            return;
        }
        self.demands.said_at = self.now;
        let mut parts = by_shard(if placed_new { &placed } else { &[] }, self.config.shards);
        for to in 0..self.config.shards {
            let seen = self.demands.seen[usize::from(to)];
            if plain_new {
                self.at_once(Action::Peer { to: ShardId(to), message: PeerMessage::Demand { wants: wants.clone(), seen } });
            }
            if placed_new && !(placed.is_empty() && self.demands.said_placed.is_empty()) {
                let wants = std::mem::take(&mut parts[usize::from(to)]);
                self.at_once(Action::Peer { to: ShardId(to), message: PeerMessage::DemandPlaced { wants, seen } });
            }
        }
        (self.demands.said, self.demands.said_placed) = (wants, placed);
    }

    /// Takes of each offer as many waiting tasks of its role as fit. None of an agent that may still run what was given to an earlier life of it:
    /// a report could not be held against tasks of two lives.
    pub(super) fn take_offers(&mut self, from: ShardId, offers: Vec<Offer>) {
        for offer in offers {
            if self.hears_offer(from, &offer) {
                let resources = self.clipped(&offer);
                let picks = self.jobs.pick(&offer.role, &resources, ATTEMPTS_PER_MESSAGE_MAX as u32);
                self.take_or_decline(from, &offer, picks);
            }
        }
    }

    /// True where an offer may be taken; it is declined where it came too late.
    pub(super) fn hears_offer(&mut self, from: ShardId, offer: &Offer) -> bool {
        if let Some(seen) = self.demands.seen.get_mut(usize::from(from.0)) {
            *seen = offer.id.number.max(*seen);
        }
        let reborn = self.jobs.incarnation_on(offer.agent) != Some(offer.incarnation) && self.fences.doubts_any_on(offer.agent);
        if reborn {
            return false; // It lapses: declined, it would be made again at once.
        }
        let in_time = offer.deadline > self.now && offer.id.shard == from;
        if !in_time {
            self.demands.decline(offer.id);
        }
        in_time
    }

    pub(super) fn take_or_decline(&mut self, from: ShardId, offer: &Offer, picks: Vec<Pick>) {
        if picks.is_empty() { self.demands.decline(offer.id) } else { self.take(from, offer, picks) }
    }

    fn take(&mut self, from: ShardId, offer: &Offer, picks: Vec<Pick>) {
        let mut launches = Vec::with_capacity(picks.len());
        for Pick { job, attempts } in picks {
            self.totals.staged += attempts.len() as u64;
            self.publish_tasks(job, Phase::Staging, offer.agent, &attempts);
            launches.extend(self.launch(job, attempts.clone()));
            let Offer { agent, incarnation, .. } = *offer;
            self.commit(Record::Staged { id: job, agent, incarnation, attempts, at: self.now });
        }
        self.say_ranks(from, &launches);
        let number = self.told.say(offer.agent);
        let message = PeerMessage::Accept { offer: offer.id, agent: offer.agent, launches, number };
        self.held(Action::Peer { to: from, message });
    }

    /// A launch of tasks that are to begin, all in the same version of their job.
    fn launch(&self, id: protocol::JobId, attempts: Vec<(u32, u32)>) -> Option<Launch> {
        let job = self.jobs.live(id)?;
        let version = attempts.first().map_or(job.version, |(index, _)| job.next_version(*index));
        Some(super::reconcile::launch_of(id, job, version, attempts))
    }

    /// Says that attempts on one agent are in another state.
    pub(super) fn publish_tasks(&mut self, job: protocol::JobId, phase: Phase, agent: AgentId, attempts: &[(u32, u32)]) {
        let Some(role) = self.jobs.live(job).map(|live| live.job.role.clone()) else { return };
        for part in attempts.chunks(ATTEMPTS_PER_MESSAGE_MAX) {
            let placed = |(index, number): &(u32, u32)| Placed { attempt: AttemptId::new(job, *index, *number), agent };
            let placed = part.iter().map(placed).collect();
            self.publish(Change::Tasks { job, role: role.clone(), phase, placed });
        }
    }
}

/// The wants as each of so many shards is told them: of system jobs, those for its own agents.
fn by_shard(wants: &[PlacedWant], shards: u16) -> Vec<Vec<PlacedWant>> {
    let mut all: Vec<Vec<PlacedWant>> = vec![Vec::with_capacity(wants.len()); usize::from(shards)];
    for want in wants {
        let Some(agents) = &want.agents else {
            all.iter_mut().for_each(|said| said.push(want.clone()));
            continue;
        };
        let mut own: BTreeMap<ShardId, Vec<AgentId>> = BTreeMap::new();
        agents.iter().for_each(|agent| own.entry(shard_of_agent(*agent, shards)).or_default().push(*agent));
        for (to, agents) in own {
            let count = u32::try_from(agents.len()).expect("no more than tasks").min(want.want.count);
            let said = Want { count, ..want.want.clone() };
            all[usize::from(to.0)].push(PlacedWant { want: said, agents: Some(Arc::new(agents)), ..want.clone() });
        }
    }
    all
}
