//! Tasks that may not go everywhere: what is wanted for them, and which of them go to what is offered.

use super::lines::LinePlace;
use super::state::{Jobs, Pick, first_waiting};
use crate::shard::event::{Limit, PlacedWant, Want};
use protocol::message::ATTEMPTS_PER_MESSAGE_MAX;
use protocol::{AgentId, JobId, Name, Resources, Role, ShardId, Stand};
use std::sync::Arc;

/// Whose tasks an offer for a line is for.
#[derive(Debug)]
pub enum Aimed {
    /// The line is gone.
    Nobody,
    /// Any of the line's.
    Any,
    /// Those of one job, whose tasks are counted by where they are.
    Counted(JobId),
}

impl Jobs {
    /// The wants of all lines whose tasks may not go everywhere, the most urgent first.
    pub fn placed_wants(&mut self) -> Vec<PlacedWant> {
        let lines: Vec<(Want, LinePlace)> =
            self.lines.placed().into_iter().filter_map(|line| Some((line.want(), line.place.clone()?))).collect();
        let want = |(want, LinePlace { id, place, counted }): (Want, LinePlace)| {
            let mut made = PlacedWant { id, want, place, limits: Arc::default(), turn: None, agents: None };
            if let Some((turn, agents)) = counted.and_then(|job| self.wanted_at(job, id)) {
                (made.turn, made.agents) = (Some(turn), Some(agents));
            } else if let Some(job) = counted.and_then(|job| self.live_mut(job)) {
                let total = job.live.saturating_add(job.ready());
                if let Some(tally) = job.derived.tally.as_mut() {
                    (made.limits, made.turn) = (tally.limits(total), tally.turn(total));
                }
            }
            made
        };
        lines.into_iter().map(want).collect()
    }

    /// The names of other jobs by which tasks that wait are kept near or apart, with their role.
    pub fn neighbours(&self) -> impl Iterator<Item = (Role, Name)> {
        let lines = self.lines.placed().into_iter().filter_map(|line| Some((line, line.place.as_ref()?)));
        lines.flat_map(|(line, of)| of.place.neighbours().map(|other| (line.role.clone(), other.name.clone())))
    }

    /// How many more tasks of a job each value of a field takes, where its placement counts them: the rules, without how far it is spread.
    #[must_use]
    pub fn limits(&self, id: JobId) -> Vec<Limit> {
        let Some((job, tally)) = self.live(id).and_then(|job| Some((job, job.derived.tally.clone()?))) else { return Vec::new() };
        let total = job.live.saturating_add(job.ready());
        let mut tally = tally;
        let limits = tally.limits(total);
        limits.iter().filter(|limit| !limit.missing).cloned().collect()
    }

    /// Whose tasks an offer for the line `id` is for.
    #[must_use]
    pub fn aimed(&self, id: u64) -> Aimed {
        match self.lines.named(id).and_then(|line| line.place.as_ref()) {
            None => Aimed::Nobody,
            Some(LinePlace { counted: None, .. }) => Aimed::Any,
            Some(LinePlace { counted: Some(job), .. }) => Aimed::Counted(*job),
        }
    }

    /// Which tasks of the line `id` fit into `resources`, the oldest job's first.
    #[must_use]
    pub fn pick_placed(&self, id: u64, resources: &Resources) -> Vec<Pick> {
        let (mut picks, mut rest, mut most) = (Vec::new(), resources.clone(), ATTEMPTS_PER_MESSAGE_MAX as u32);
        if let Some(line) = self.lines.named(id) {
            self.pick_of(line, &mut rest, &mut most, &mut picks);
        }
        picks
    }

    /// How many waiting tasks of a job that counts them go to each of these agents.
    #[must_use]
    pub fn plan(&self, id: JobId, offers: &[(&Stand, &Resources)]) -> Vec<u32> {
        let Some((job, tally)) = self.live(id).and_then(|job| Some((job, job.derived.tally.as_ref()?))) else {
            return vec![0; offers.len()];
        };
        let shape = &job.template(job.ready_version()).resources;
        let room = |resources: &Resources| resources.times(shape, ATTEMPTS_PER_MESSAGE_MAX as u32);
        let offers: Vec<(&Stand, u32)> = offers.iter().map(|(stand, resources)| (*stand, room(resources))).collect();
        tally.plan(&offers, job.ready())
    }

    /// The first waiting tasks of a job.
    #[must_use]
    pub fn pick_counted(&self, job: JobId, most: u32) -> Pick {
        Pick { job, attempts: self.live(job).map(|live| first_waiting(live, most)).unwrap_or_default() }
    }

    /// True where it is on record how `agent` stands, and that it stands so.
    #[must_use]
    pub fn stands_so(&self, job: JobId, agent: AgentId, stand: &Stand) -> bool {
        self.live(job).is_some_and(|live| live.stands.get(&agent) == Some(stand))
    }

    /// True where it is on record how `agent` stands.
    #[must_use]
    pub fn stands_somehow(&self, job: JobId, agent: AgentId) -> bool {
        self.live(job).is_some_and(|live| live.stands.contains_key(&agent))
    }

    /// An agent stands so from now on, as far as tasks of this job are concerned: those that are there are counted by that.
    pub fn stands(&mut self, id: JobId, agent: AgentId, stand: &Stand) {
        let there = self.by_agent.get(&agent).map_or(0, |tasks| tasks.range((id, 0)..=(id, u32::MAX)).count());
        let there = u32::try_from(there).expect("no more than tasks of a job");
        let Some(job) = self.live_mut(id).filter(|job| job.derived.tally.is_some()) else { return };
        job.count(agent, there, false);
        job.stands.insert(agent, stand.clone());
        job.count(agent, there, true);
        self.lines.changed = true;
    }

    /// A task of a job is no longer on `agent`.
    pub(super) fn left(&mut self, id: JobId, agent: AgentId) {
        let others = self.by_agent.get(&agent).is_some_and(|tasks| tasks.range((id, 0)..=(id, u32::MAX)).next().is_some());
        let Some(job) = self.live_mut(id).filter(|job| job.derived.tally.is_some()) else { return };
        job.count(agent, 1, false);
        if !others {
            job.stands.remove(&agent);
        }
        self.lines.changed = true;
    }

    /// A shard says that none of its agents has room for these while they are spread as they are; gives back system jobs of which that is news.
    pub fn stuck(&mut self, from: ShardId, wants: &[(u64, u64)], shards: u16) -> Vec<JobId> {
        let mut news = Vec::new();
        for (line, turn) in wants {
            let Aimed::Counted(id) = self.aimed(*line) else { continue };
            news.extend(self.stuck_at(from, id, (*line, *turn)));
            let Some(job) = self.live_mut(id) else { continue };
            let waiting = job.ready();
            if let Some(tally) = job.derived.tally.as_mut()
                && tally.stuck(from, *turn, shards)
            {
                tally.relax(waiting);
                self.lines.changed = true;
            }
        }
        news
    }

    /// A while is over in which not all shards have said whether they have room: tasks that are spread go on all the same.
    pub fn relax_all(&mut self) {
        let counted: Vec<JobId> = self.lines.placed().into_iter().filter_map(|line| line.place.as_ref()?.counted).collect();
        for id in counted {
            let Some(job) = self.live_mut(id) else { continue };
            let (waiting, total) = (job.ready(), job.live.saturating_add(job.ready()));
            if let Some(tally) = job.derived.tally.as_mut().filter(|tally| tally.turn(total).is_some()) {
                tally.relax(waiting);
            }
        }
    }
}
