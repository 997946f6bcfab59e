//! One shard: who is here, what is shown to whom, where each task is. Pure: an event and the time in, things to do out.
//!
//! Knows no clock, socket, disk or thread. This file keeps dispatch only; what an event does stands in the file named after it. Each shard
//! is two things at once: *framework's shard* of its jobs (`requests`, `demands`, `tasks`) and *agents' shard* of its agents (`agents`,
//! `bookings`, `allocator`). The two halves meet in `PeerMessage`s only, also inside one shard.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod config;
pub mod event;
pub mod record;
pub mod snapshot;
pub mod view;

pub mod after;
mod agents;
mod aims;
mod allocator;
pub(crate) mod amounts;
mod attempts;
mod beside;
mod bookings;
pub mod change;
mod concern;
mod copy;
mod demands;
pub mod deployment_view;
mod deployments;
mod devices;
pub mod drains;
mod explain;
mod fences;
pub mod fit;
mod fitting;
mod frameworks;
mod free_ports;
mod gather;
pub mod healths;
mod index;
mod lent;
pub mod limits;
pub mod maintenance;
mod mask;
mod masters;
mod matching;
mod openings;
pub mod origins;
mod owned;
mod peer;
mod placed;
mod placing;
pub mod plugins;
pub mod policies;
mod pool;
mod precedence;
pub mod preempt;
pub mod quotas;
mod reconcile;
mod requests;
pub mod reservations;
mod reserved;
pub mod roles;
mod rules;
mod scores;
mod seat;
mod seekers;
mod shares;
mod shown;
mod slots;
mod spending;
mod surplus;
mod tasks;
mod tokens;
mod told;
mod uncounted;
mod updates;
mod versions;
mod victims;
mod views;
mod why;

pub use concern::Concern;
pub use config::ShardConfig;
pub use copy::{Copied, Stood};
pub use event::{Action, Event, Output, PeerMessage, Refusal, Request, Response};
pub use openings::Opening;
pub use record::Record;
pub use scores::ScoreMap;
pub use seekers::{Seeking, Sought};
pub use shares::Uses;
pub use snapshot::ShardSnapshot;

use crate::frameworks::{Frameworks, Groups, OpenOffer};
use crate::jobs::Jobs;
use demands::Demands;
use drains::Drains;
use event::Change;
use fences::Fences;
use frameworks::Sessions;
use maintenance::Maintenance;
use pool::Pool;
use protocol::message::shard_of_agent;
use protocol::{AgentId, AttemptId, JobId, RequestId, ShardId, Time};
use quotas::Quotas;
use record::PlacedTask;
use snapshot::{KnownAgent, LastingRest};
use spending::Spending;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use told::Told;

/// The shard that keeps what is of the whole cluster: tokens, masters, roles and their limits, policies, windows of maintenance.
pub const HOME: ShardId = ShardId(0);

/// A shard: the part of the cluster that one thread decides for.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    now: Time,
    /// On record: jobs and tasks.
    jobs: Jobs,
    /// On record: agents and tokens.
    rest: LastingRest,
    /// On record: frameworks.
    frameworks: Frameworks,
    /// On record: which of their tasks belong together.
    groups: Groups,
    /// How they stand now.
    sessions: Sessions,
    /// Agents that are given no tasks; of ours, on record.
    drains: Drains,
    /// When agents are maintained; in shard 0 on record.
    maintenance: Maintenance,
    /// Shard 0: how roles are served, on record, and what shards have of their limits.
    quotas: Quotas,
    /// What our tasks may hold of those, on record.
    spending: Spending,
    /// What of our agents is kept for roles, on record.
    reservations: reservations::Reservations,
    /// Shard 0: policies that operators brought, on record.
    plug_ins: plugins::LastingPlugIns,
    /// Join tokens that were used last, and by whom.
    used: VecDeque<(String, AgentId)>,
    /// The shard's agents, as they are now.
    pool: Pool,
    /// When to look whether an agent is silent; one entry at most for each slot.
    watches: BTreeSet<(Time, u32)>,
    /// Whether most of them are silent.
    silent: agents::Silent,
    /// Agents, of any shard, that cannot be reached now.
    unreachable: BTreeSet<AgentId>,
    followers: BTreeMap<JobId, Vec<RequestId>>,
    following: BTreeMap<RequestId, JobId>,
    demands: Demands,
    told: Told,
    /// What the sender of the next word on tasks said of their jobs' priorities.
    ranks: BTreeMap<ShardId, BTreeMap<JobId, u8>>,
    /// Attempts that were asked to stop because their place is needed.
    preempted: BTreeSet<AttemptId>,
    /// Fenced attempts that are lost as soon as their leases are over.
    fences: Fences,
    totals: Totals,
    /// Services on their way to another version, or that wait for others.
    deployments: deployments::Due,
    /// Which agents match system jobs, as asked and as said.
    matching: matching::Matching,
    /// How far live tasks say that they are.
    notes: BTreeMap<AttemptId, (u8, String)>,
    /// Why live tasks are not well.
    healths: healths::Healths,
    outputs: VecDeque<Output>,
}

/// Counts since the shard's start.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    staged: u64,
    ended: u64,
    refused: u64,
}

/// Of both halves of the shard.
type QuotaHalves = (Quotas, Spending);

impl Shard {
    /// A shard that knows nothing yet: fold its records into it with [`Self::apply`], then [`Self::lead`].
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        let jobs = Jobs::new(config.id, config.history_tasks_max);
        Self::with(config, jobs, LastingRest::default(), (Frameworks::default(), Drains::default()), QuotaHalves::default())
    }

    fn with(
        config: ShardConfig,
        jobs: Jobs,
        rest: LastingRest,
        (frameworks, drains): (Frameworks, Drains),
        (quotas, spending): QuotaHalves,
    ) -> Self {
        assert!(config.lease_over_ms() <= config.replace_after_ms, "fenced tasks would be replaced while they run");
        Self {
            now: Time::ZERO,
            jobs,
            rest,
            frameworks,
            groups: Groups::default(),
            sessions: Sessions::default(),
            drains,
            maintenance: Maintenance::default(),
            quotas,
            spending,
            reservations: reservations::Reservations::new(),
            plug_ins: plugins::LastingPlugIns::new(),
            used: VecDeque::new(),
            pool: Pool::new(&config),
            watches: BTreeSet::new(),
            silent: agents::Silent::default(),
            unreachable: BTreeSet::new(),
            followers: BTreeMap::new(),
            following: BTreeMap::new(),
            demands: Demands::new(config.shards),
            told: Told::new(config.shards),
            ranks: BTreeMap::new(),
            preempted: BTreeSet::new(),
            fences: Fences::default(),
            totals: Totals::default(),
            deployments: deployments::Due::default(),
            matching: matching::Matching::default(),
            notes: BTreeMap::new(),
            healths: healths::Healths::default(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// What it was told when it was made.
    #[must_use]
    pub const fn config(&self) -> &ShardConfig {
        &self.config
    }

    /// Folds one committed record in: the only way lasting state changes. Recovery and followers call it; `handle` does itself.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Submitted { id, job, key, at } => self.jobs.submitted(*id, job, key.as_deref(), *at),
            Record::Applied { id, job, at } => self.jobs.applied(*id, job, *at),
            Record::Scaled { id, count, at } => self.jobs.scaled(*id, *count, *at),
            Record::Stopped { id, grace_ms, at } => self.jobs.stopped(*id, *grace_ms, *at),
            Record::Staged { id, agent, incarnation, attempts, at } => self.jobs.staged(*id, (*agent, *incarnation), attempts, *at),
            Record::Ended { id, ends, at } => {
                self.jobs.ended(*id, ends, *at);
                if let Some(end) = ends.first() {
                    self.frameworks.ended(*id, &end.exit, *at);
                    self.groups.ended(*id, &end.exit);
                }
            }
            Record::AgentSeen { agent, info, incarnation, at } => {
                let known = KnownAgent { info: info.clone(), incarnation: *incarnation, gone: false, since: *at };
                self.rest.agents.insert(*agent, known);
            }
            Record::AgentGone { agent, at } => {
                self.rest.agent_gone(*agent, *at);
                self.drains.set(*agent, drains::Mode::Active);
                self.reservations.remove(agent);
            }
            Record::AgentMode { agent, mode, .. } => self.drains.set(*agent, *mode),
            Record::TokenCreated { token, .. } => drop(self.rest.tokens.insert(token.id.clone(), token.clone())),
            Record::TokenEnded { id, used_by, .. } => self.token_ended(id, *used_by),
            Record::PolicySet { role, policy, .. } => self.rest.policy_set(role, policy),
            Record::MasterSeen { master, .. } => self.rest.masters.seen(master),
            Record::MasterRemoved { number, .. } => self.rest.masters.removed(*number),
            Record::FrameworkSet { id, info, at } => {
                self.jobs.lasting.next = self.jobs.lasting.next.max(id.sequence() + 1);
                self.frameworks.set(*id, info, *at);
            }
            Record::FrameworkRemoved { id, .. } => self.frameworks.removed(*id),
            Record::Placed { framework, name, grace_ms, id, job, agent, incarnation, at } => {
                self.jobs.submitted(*id, job, None, *at);
                self.jobs.staged(*id, (*agent, *incarnation), &[(0, 1)], *at);
                self.frameworks.placed(*framework, name, (*id, *agent, *grace_ms), *at);
            }
            Record::Acknowledged { framework, names, .. } => self.frameworks.acknowledged(*framework, names),
            Record::RoleSet { role, settings, .. } => self.quotas.lasting.set(role, settings, self.config.shards),
            Record::Granted { role, shard, amounts, .. } => self.quotas.lasting.granted(role, *shard, amounts),
            Record::Allowed { role, version, limit, .. } => self.spending.apply(role, *version, limit),
            Record::AgentStands { id, agent, stand, .. } => self.jobs.stands(*id, *agent, stand),
            Record::WindowsSet { windows, .. } => self.maintenance.lasting = windows.clone(),
            Record::ReservationsSet { agent, reservations, .. } => self.reservations_set(*agent, reservations),
            Record::PlugInSet { kind, role, plug_in, .. } => self.plug_in_set((*kind, role.clone()), plug_in.as_ref()),
            Record::PlacedGroup { framework, tasks, agent, incarnation, at } => {
                for PlacedTask { name, grace_ms, id, job } in tasks {
                    self.jobs.submitted(*id, job, None, *at);
                    self.jobs.staged(*id, (*agent, *incarnation), &[(0, 1)], *at);
                    self.frameworks.placed(*framework, name, (*id, *agent, *grace_ms), *at);
                }
                self.groups.placed(&tasks.iter().map(|task| task.id).collect::<Vec<_>>());
            }
            Record::Deployed { id, job, back_to, cause, at } => self.jobs.deployed(*id, job, *back_to, *cause, *at),
            Record::Retuned { id, job, at } => self.jobs.retuned(*id, job, *at),
            Record::Turned { id, indexes, at } => self.jobs.turned(*id, indexes, *at),
            Record::Released { id, at } => self.jobs.released(*id, *at),
            Record::DeploymentTurned { id, turn, at } => self.jobs.deployment_turned(*id, turn, *at),
            Record::Matched { id, joined, left, at } => self.jobs.matched(*id, joined, left, *at),
        }
        self.spending.stir();
    }

    /// This replica decides from now on. Known agents get one full timeout before any of them is called unreachable or lost; the other
    /// shards say anew what they hold and want.
    pub fn lead(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.pool.lead(self.now);
        self.told.lead(self.now);
        self.seat_known_agents();
        self.demands.say_anew();
        self.jobs.lines.changed = true;
        self.expect_frameworks();
        self.end_broken_groups();
        self.lead_drains();
        self.lead_deployments();
        self.matching.lead(self.now);
        self.tell_all(&PeerMessage::Led);
        self.maintenance = Maintenance::new(std::mem::take(&mut self.maintenance.lasting));
        (0..self.config.shards).for_each(|to| self.say_roles(ShardId(to)));
        (0..self.config.shards).for_each(|to| self.say_windows(ShardId(to)));
        self.say_spending_anew();
        // Whoever let them go may have died before it told the shards of their tasks; and before that was committed.
        for agent in self.gone_agents() {
            self.tell_all_gone(agent);
        }
    }

    /// Takes one fact in. What follows from it comes out of [`Self::poll_output`]; what follows from all facts together, offers and
    /// demands, is decided when that has nothing else left: so whoever drives hands in all that has happened, then asks.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.now = self.now.max(now);
        self.advance();
        match event {
            Event::Tick => {}
            Event::Request { id, request } => self.request(id, request),
            Event::Abandoned { id } => self.abandon(id),
            Event::Agent { agent, message } => self.agent_said(agent, message),
            Event::Disconnected { agent } => self.agent_disconnected(agent),
            Event::Peer { from, message } => self.peer_said(from, message),
        }
    }

    fn peer_said(&mut self, from: ShardId, message: PeerMessage) {
        match message {
            PeerMessage::Demand { wants, seen } => self.pool.demand(from, &wants, seen),
            PeerMessage::Offers { offers } => self.take_offers(from, offers),
            PeerMessage::Accept { offer, agent, launches, number } => {
                self.told.hear(from, number);
                self.accepted(from, offer, agent, launches);
            }
            PeerMessage::Decline { offers } => self.declined(from, &offers),
            PeerMessage::Stage { agent, session, launches, number } => {
                self.told.hear(from, number);
                self.staged_again(from, agent, session, launches);
            }
            PeerMessage::Refused { agent, attempts } => self.refused(agent, &attempts),
            PeerMessage::Misfits { agent, attempts } => self.misfits(agent, &attempts),
            PeerMessage::Release { agent, attempts } => self.released(agent, &attempts),
            PeerMessage::Kill { agent, attempts, grace_ms } => self.kill_wanted(agent, &attempts, grace_ms),
            PeerMessage::Report { agent, session, incarnation, held, seen } => {
                let known = self.told.is_known(agent, seen);
                self.agent_reported(agent, (session, incarnation), &held, known);
            }
            PeerMessage::Reachable { agent, reachable } => self.agent_reachable(agent, reachable),
            PeerMessage::Lost { agent, gone } => self.agent_lost(agent, gone),
            PeerMessage::Led => self.peer_led(from),
            PeerMessage::Open { openings } => self.pool.open(from, openings),
            PeerMessage::Revocable { frameworks } => self.pool.show_revocable(from, frameworks),
            PeerMessage::Shown { framework, offers } => self.shown(from, framework, offers),
            PeerMessage::ShownReserved { framework, offers } => {
                let with = |(offer, reserved)| OpenOffer { reserved, ..offer };
                self.shown(from, framework, offers.into_iter().map(with).collect());
            }
            PeerMessage::Reserve { framework, agent, offers, changes, principal } => {
                self.reserve_offered((from, framework), agent, &offers, changes, &principal);
            }
            PeerMessage::Rescinded { framework, offers } => self.rescinded(framework, &offers),
            PeerMessage::Take { framework, offers, agent, launches, number, refuse_ms } => {
                self.told.hear(from, number);
                self.taken(from, (framework, &offers), agent, refuse_ms, launches);
            }
            PeerMessage::Leave { framework, offers, refuse_ms } => self.declined_open(from, framework, &offers, refuse_ms),
            PeerMessage::Uses(uses) => self.pool.hear_uses(from, uses),
            PeerMessage::Emptied { agents } => self.emptied(from, agents),
            PeerMessage::Revive { opening } => self.pool.revive(from, &opening),
            PeerMessage::Claims { claims } if from == HOME => self.pool.claim(claims.into_iter().collect()),
            PeerMessage::Claims { .. } => {}
            PeerMessage::Allow { role, version, limit } => self.allow(from, role, version, limit),
            PeerMessage::Spends { role, version, need } => self.heard_need(from, role, version, need),
            PeerMessage::DemandPlaced { wants, seen } => self.pool.demand_placed(from, &wants, seen),
            PeerMessage::OffersPlaced { offers } => self.take_placed(from, offers),
            PeerMessage::Ranks { ranks } => drop(self.ranks.insert(from, ranks.into_iter().collect())),
            PeerMessage::Yield { agent, attempts, below, grace_ms } => self.yield_place(agent, &attempts, below, grace_ms),
            PeerMessage::Stuck { wants } => self.jobs.stuck(from, &wants, self.config.shards).into_iter().for_each(|id| self.roll(id)),
            PeerMessage::Windows { windows } => self.windows_said(from, windows),
            PeerMessage::Seek { seeking } => self.pool.seek(from, seeking),
            PeerMessage::Reserved { agent, at } => self.reserved_until(agent, at),
            PeerMessage::AfterAsked { job, role, names } => self.after_asked(from, job, &role, names),
            PeerMessage::AfterSaid { job, stands } => self.after_said(job, stands),
            PeerMessage::BesideAsked { role, names } => self.beside_asked(from, role, names),
            PeerMessage::BesideSaid { role, ids } => self.beside_said(&role, ids),
            PeerMessage::Tied { jobs } => self.hear_tied(from, jobs),
            PeerMessage::MatchesAsked { asked } => self.matching.asked(from, asked, &mut self.pool.aims.rules),
            PeerMessage::MatchesSaid { job, turn, whole, matching, perhaps, others } => {
                self.matches_said((from, whole), (job, turn), [&matching, &perhaps, &others]);
            }
        }
    }

    /// What time alone does.
    fn advance(&mut self) {
        self.jobs.wake(self.now);
        self.pool.expire(self.now);
        self.pool.expire_open(self.now);
        self.pool.expire_guards(self.now);
        self.watch_frameworks();
        self.watch_windows_due();
        self.watch_drains();
        self.watch_agents();
        self.watch_deployments();
        self.end_fenced();
    }

    /// The next thing to do, in order; `None` where there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.settle();
        }
        self.outputs.pop_front()
    }

    /// When to come back with [`Event::Tick`]; `None`: not before something else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let offer = self.pool.offers.first_key_value().map(|(_, offer)| offer.deadline);
        let watch = self.watches.first().map(|(at, _)| *at);
        let (shown, uses) = (self.pool.openings.due(), self.uses_due());
        let others = [
            self.jobs.next_due(),
            self.demands.due(&self.config),
            self.fences.due(),
            self.sessions.due(),
            self.drains.due(),
            self.maintenance.due(),
            self.pool.preempting.due(),
            self.pool.precedence.due,
            self.deployments_due(),
        ];
        let timers = [offer, watch, shown, uses, self.quotas.due(), self.spending.due()].into_iter().chain(others);
        timers.flatten().min()
    }

    /// Puts a record into effect and on its way to the journal.
    fn commit(&mut self, record: Record) {
        self.apply(&record);
        self.outputs.push_back(Output::Journal(record));
    }

    fn held(&mut self, action: Action) {
        self.outputs.push_back(Output::Held(action));
    }

    fn at_once(&mut self, action: Action) {
        self.outputs.push_back(Output::Now(action));
    }

    fn reply(&mut self, id: RequestId, response: Response) {
        self.held(Action::Reply { id, response });
    }

    fn publish(&mut self, change: Change) {
        self.held(Action::Publish(change));
    }

    /// To every shard, this one included, at once.
    fn tell_all(&mut self, message: &PeerMessage) {
        for to in 0..self.config.shards {
            self.at_once(Action::Peer { to: ShardId(to), message: message.clone() });
        }
    }

    /// To every shard, behind the record that says so.
    fn tell_all_gone(&mut self, agent: AgentId) {
        for to in 0..self.config.shards {
            self.held(Action::Peer { to: ShardId(to), message: PeerMessage::Lost { agent, gone: true } });
        }
    }

    /// To the shard of `agent`, behind what was committed before.
    fn tell_shard_of(&mut self, agent: AgentId, message: PeerMessage) {
        let to = shard_of_agent(agent, self.config.shards);
        self.held(Action::Peer { to, message });
    }
}

#[cfg(test)]
pub(crate) mod tests;
