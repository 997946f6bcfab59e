//! What of agents is kept for roles: operators have it kept and give it up. And what was promised (K1): once it is on record, nothing is placed on an
//! agent that takes of it what others than its role may not have.

use crate::check::{Verdict, hold};
use crate::random::Random;
use master::shard::reservations::ReservationChange;
use master::shard::{Record, Request};
use protocol::{AgentId, AttemptId, Attributes, Held, Job, JobId, Reservation, Resources, Role, Time};
use std::collections::BTreeMap;

/// Roles that get some, and those around each.
const ROLES: [(&str, &[&str]); 4] = [("web", &[]), ("batch", &[]), ("web/shop", &[]), ("web/shop", &["web"])];
/// How long it must have been so before it is judged, in milliseconds: what was decided before is on its way for less.
const QUIET_MS: u64 = 20_000;

fn role(name: &str) -> Role {
    Role::new(name).expect("a role")
}

fn cpu(cpu_milli: u64) -> Resources {
    Resources { cpu_milli, ..Resources::NONE }
}

/// A request for one more change of what is kept of an agent.
pub fn wish(random: &mut Random, agent: AgentId) -> Request {
    let (name, within) = ROLES[random.below(4) as usize];
    let within = within.iter().map(|name| role(name)).collect();
    let change = ReservationChange {
        make: random.chance(600),
        role: role(name),
        within,
        labels: Attributes::new(),
        resources: cpu([100, 250, 500, 1_000, 3_000][random.below(5) as usize]),
    };
    Request::Reserve { agent, changes: vec![change], principal: "sim".into() }
}

/// What is on record of one agent.
struct Of {
    list: Vec<Reservation>,
    since: Time,
}

/// What is on record.
#[derive(Default)]
pub struct Kept {
    agents: BTreeMap<AgentId, Of>,
    /// What attempts need, where and for whom, that are on record and that their agent was not told of yet: it may be refused what was taken of it.
    staged: BTreeMap<AttemptId, (AgentId, Role, u64)>,
    /// The same of those that it was told of.
    live: BTreeMap<AttemptId, (AgentId, Role, u64)>,
    held: BTreeMap<AgentId, BTreeMap<Role, u64>>,
    /// See [`Self::unsettled`].
    unsettled: BTreeMap<AgentId, Time>,
    /// Attempts that were placed where something is kept.
    pub judged: u64,
}

impl Kept {
    /// A record was committed.
    pub fn committed(&mut self, record: &Record, now: Time, jobs: &BTreeMap<JobId, Job>) {
        match record {
            Record::ReservationsSet { agent, reservations, .. } => {
                self.agents.insert(*agent, Of { list: reservations.clone(), since: now });
            }
            Record::Staged { id, agent, attempts, .. } => {
                let Some(job) = jobs.get(id) else { return };
                attempts.iter().for_each(|(index, number)| self.staged(AttemptId::new(*id, *index, *number), *agent, job));
            }
            // What frameworks take is promised to them when it is booked, and not yet here: somebody else may have it, and they are told so.
            Record::Placed { id, job, agent, .. } => {
                self.unsettled(*agent, now);
                self.staged(AttemptId::new(*id, 0, 1), *agent, job);
            }
            Record::PlacedGroup { tasks, agent, .. } => {
                self.unsettled(*agent, now);
                tasks.iter().for_each(|task| self.staged(AttemptId::new(task.id, 0, 1), *agent, &task.job));
            }
            Record::Ended { id, ends, .. } => {
                for attempt in ends.iter().map(|end| end.attempt(*id)) {
                    self.staged.remove(&attempt);
                    if let Some((agent, role, milli)) = self.live.remove(&attempt)
                        && let Some(sum) = self.held.get_mut(&agent).and_then(|held| held.get_mut(&role))
                    {
                        *sum -= milli;
                    }
                }
            }
            _ => {}
        }
    }

    fn staged(&mut self, attempt: AttemptId, agent: AgentId, job: &Job) {
        self.staged.insert(attempt, (agent, job.role.clone(), job.template.resources.cpu_milli));
    }

    /// What is on record of an agent may be more than is booked there, for a while: what it holds was said, and what of that was missing is said again beside
    /// offers of its room; or a framework has placed something.
    pub fn unsettled(&mut self, agent: AgentId, now: Time) {
        self.unsettled.insert(agent, now);
    }

    /// An agent says what it holds: what else is on record of it is not booked there any more, until it is told to run it again.
    pub fn reported(&mut self, agent: AgentId, reported: &[Held], now: Time) {
        self.unsettled(agent, now);
        let missing = |attempt: &AttemptId, of: AgentId| of == agent && !reported.iter().any(|held| held.attempt == *attempt);
        for (attempt, (agent, role, milli)) in self.live.extract_if(.., |attempt, (of, ..)| missing(attempt, *of)) {
            if let Some(sum) = self.held.get_mut(&agent).and_then(|held| held.get_mut(&role)) {
                *sum -= milli;
            }
            self.staged.insert(attempt, (agent, role, milli));
        }
    }

    /// An agent, which has `capacity`, is told to run what is on record; since `calm` the same leaders lead.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn launched(&mut self, attempt: AttemptId, capacity: u64, (now, calm): (Time, Time)) -> Verdict {
        let Some((agent, role, milli)) = self.staged.remove(&attempt) else { return Ok(()) };
        let before = self.promised(agent);
        if self.live.insert(attempt, (agent, role.clone(), milli)).is_none() {
            *self.held.entry(agent).or_default().entry(role.clone()).or_default() += milli;
        }
        let since = self.agents.get(&agent).filter(|of| !of.list.is_empty()).map(|of| of.since.max(calm));
        let since = since.map(|since| self.unsettled.get(&agent).map_or(since, |unsettled| since.max(*unsettled)));
        if since.is_none_or(|since| now.since(since) < QUIET_MS) || before > capacity {
            return Ok(());
        }
        self.judged += 1;
        let after = self.promised(agent);
        hold(after <= capacity, || {
            format!("K1: {attempt} of {role} was placed on {agent}, which with what it keeps for others has {capacity} and not {after}")
        })
    }

    /// What tasks hold of an agent, and what of what is kept nobody uses: each role's use counts for the innermost reservation that is for it, and what is
    /// over for the one around that.
    fn promised(&self, agent: AgentId) -> u64 {
        let none = BTreeMap::new();
        let held = self.held.get(&agent).unwrap_or(&none);
        let list = self.agents.get(&agent).map_or(&[][..], |of| &of.list);
        let mut kept: BTreeMap<&Role, u64> = BTreeMap::new();
        list.iter().for_each(|one| *kept.entry(&one.reserved.role).or_default() += one.resources.cpu_milli);
        for one in list {
            if let Some(outer) = one.reserved.within.last().and_then(|outer| kept.get_mut(outer)) {
                *outer = outer.saturating_sub(one.resources.cpu_milli);
            }
        }
        let mut left = kept.clone();
        // The deepest first: what is over there is the next one's.
        for (role, milli) in held.iter().rev() {
            let mut over = *milli;
            for name in role.and_above() {
                if let Some(kept) = left.get_mut(&name) {
                    let used = over.min(*kept);
                    (*kept, over) = (*kept - used, over - used);
                }
            }
        }
        held.values().sum::<u64>() + left.values().sum::<u64>()
    }

    /// Requests that give up all that is kept, the innermost first.
    pub fn none(&self) -> Vec<(AgentId, Request)> {
        let change = |one: &Reservation| ReservationChange {
            make: false,
            role: one.reserved.role.clone(),
            within: one.reserved.within.clone(),
            labels: Attributes::new(),
            resources: one.resources.clone(),
        };
        let request = |(agent, of): (&AgentId, &Of)| {
            let mut list = of.list.clone();
            list.sort_by_key(|one| std::cmp::Reverse(one.reserved.within.len()));
            let changes = list.iter().map(change).collect();
            (*agent, Request::Reserve { agent: *agent, changes, principal: "sim".into() })
        };
        self.agents.iter().filter(|(_, of)| !of.list.is_empty()).map(request).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ReservedFor;
    use std::sync::Arc;

    #[test]
    fn what_is_placed_where_others_have_it_kept_is_seen() {
        let mut kept = Kept::default();
        let (agent, now) = (AgentId(1), Time(100_000));
        let job = |name: &str| {
            let mut job = crate::client::job(cpu(600), 1, 5);
            (job.role, Arc::make_mut(&mut job.template).resources) = (role(name), cpu(600));
            job
        };
        let jobs = BTreeMap::from([(JobId(1), job("web/shop")), (JobId(2), job("web")), (JobId(3), job("other"))]);
        let reservations = vec![Reservation { reserved: ReservedFor::fixed(role("web")), resources: cpu(1_000) }];
        kept.committed(&Record::ReservationsSet { agent, reservations, at: now }, now, &jobs);
        kept.agents.get_mut(&agent).unwrap().since = Time::ZERO;
        let mut launch = |id, number| {
            kept.committed(&Record::Staged { id: JobId(id), agent, incarnation: 1, attempts: vec![(0, number)], at: now }, now, &jobs);
            kept.launched(AttemptId::new(JobId(id), 0, number), 2_000, (now, Time::ZERO))
        };
        launch(3, 1).unwrap();
        launch(1, 1).unwrap();
        launch(2, 1).unwrap();
        assert!(launch(3, 2).unwrap_err().contains("K1"));
    }
}
