//! The framework's shard: what a framework that is a client places in what it was shown, alone or together, and what it asks to stop. A task of
//! one is a job of one task.

use super::record::PlacedTask;
use super::{PeerMessage, Record, Shard};
use crate::frameworks::{Cause, Cover, FrameworkId, GROUP_TASKS_MAX, OpenOffer, TEXT_BYTES_MAX, TaskLaunch};
use crate::jobs::LivePhase;
use protocol::job::number_of;
use protocol::message::Launch;
use protocol::{AgentId, AttemptId, Job, JobId, Kind, OfferId, Phase, Resources, Role};
use std::collections::BTreeSet;

/// Tasks of one framework that have not ended, or whose end it has not acknowledged.
const TASKS_MAX: usize = 1_000_000;

impl Shard {
    /// A framework takes offers, all of one agent, for tasks and for groups of tasks.
    pub(super) fn accept(
        &mut self,
        id: FrameworkId,
        offers: &[OfferId],
        (launches, groups): (Vec<TaskLaunch>, Vec<Vec<TaskLaunch>>),
        refuse_ms: u64,
    ) {
        let Some(session) = self.sessions.by_id.get_mut(&id) else { return };
        let cover: Cover = offers.iter().flat_map(|offer| session.hand.cover(*offer)).collect();
        let shown: Vec<OpenOffer> = offers.iter().filter_map(|offer| session.hand.remove(*offer)).collect();
        let first = shown.first().filter(|first| shown.len() == offers.len() && shown.iter().all(|offer| offer.agent == first.agent));
        let reborn =
            |first: &&OpenOffer| self.jobs.incarnation_on(first.agent) != Some(first.incarnation) && self.fences.doubts_any_on(first.agent);
        let Some(first) = first.filter(|first| !reborn(first)) else {
            self.leave_all(id, shown.iter().map(|offer| offer.id), 0);
            for TaskLaunch { name, agent, .. } in launches.into_iter().chain(groups.into_iter().flatten()) {
                self.tell_once(id, name, agent, Phase::Lost, Cause::Offers);
            }
            return;
        };
        let place = (first.agent, first.incarnation);
        let mut room = Room::of(&shown);
        self.clip(&room.role, &mut room.resources);
        let mut placed: Vec<Launch> = Vec::new();
        for TaskLaunch { name, grace_ms, job, .. } in launches {
            match self.placeable(id, &name, job, &mut room) {
                Ok(job) => placed.extend(self.place_own(id, (name, grace_ms), job, place)),
                Err(reason) => self.tell_once(id, name, Some(place.0), Phase::Rejected, Cause::Invalid(reason)),
            }
        }
        for group in groups {
            placed.extend(self.place_group(id, group, &mut room, place));
        }
        if placed.is_empty() {
            return self.leave_all(id, offers.iter().copied(), refuse_ms);
        }
        if let (Some(session), Some(within)) = (self.sessions.by_id.get_mut(&id), shown.first()) {
            placed.iter().for_each(|launch| session.hand.placed(within, &launch.template.resources, &cover));
        }
        let (agent, number) = (place.0, self.told.say(place.0));
        let message = PeerMessage::Take { framework: id, offers: offers.to_vec(), agent, launches: placed, number, refuse_ms };
        self.tell_shard_of(agent, message);
    }

    /// The job that a task is, as far as what was shown has room for it; or why it is none.
    fn placeable(&self, id: FrameworkId, name: &str, job: Result<Job, String>, room: &mut Room) -> Result<Job, String> {
        let job = job?;
        let tasks = self.frameworks.get(id).map(|framework| &framework.tasks).ok_or("the framework is gone")?;
        if name.is_empty() || name.len() > TEXT_BYTES_MAX {
            return Err(format!("a task's id has 1 to {TEXT_BYTES_MAX} bytes"));
        }
        if tasks.contains_key(name) {
            return Err("another task has this id, and its end is not acknowledged".into());
        }
        if tasks.len() >= TASKS_MAX || self.jobs.live.len() >= self.config.jobs_live_max {
            return Err("there are as many tasks as there may be".into());
        }
        room.take(&job)?;
        Ok(Job { role: room.role.clone(), name: None, kind: Kind::Task, count: 1, ..job })
    }

    fn place_own(
        &mut self,
        framework: FrameworkId,
        (name, grace_ms): (String, u64),
        job: Job,
        (agent, incarnation): (AgentId, u64),
    ) -> Option<Launch> {
        let id = self.jobs.next_id();
        self.commit(Record::Placed { framework, name, grace_ms, id, job, agent, incarnation, at: self.now });
        self.placed_own(id, agent)
    }

    /// A task is on record: it is said, and how it is launched.
    fn placed_own(&mut self, id: JobId, agent: AgentId) -> Option<Launch> {
        self.totals.staged += 1;
        self.maintenance.changed |= self.maintenance.of(agent, self.now).is_some();
        self.publish_job(id, "submitted");
        self.publish_tasks(id, Phase::Staging, agent, &[(0, 1)]);
        if let Some((framework, name)) = self.frameworks.owner(id).map(|(framework, name)| (framework, name.to_owned())) {
            self.publish_own(framework, &name, Phase::Staging, true);
        }
        let job = self.jobs.live(id)?;
        Some(super::reconcile::launch_of(id, job, job.version, vec![(0, 1)]))
    }

    /// All tasks of a group, or none of them: of each that is not it is said why.
    fn place_group(&mut self, framework: FrameworkId, group: Vec<TaskLaunch>, room: &mut Room, place: (AgentId, u64)) -> Vec<Launch> {
        let names: Vec<String> = group.iter().map(|task| task.name.clone()).collect();
        let mut left = room.clone();
        match self.placeable_group(framework, group, &mut left) {
            Ok(tasks) => {
                *room = left;
                let ((agent, incarnation), ids) = (place, tasks.iter().map(|task| task.id).collect::<Vec<_>>());
                self.commit(Record::PlacedGroup { framework, tasks, agent, incarnation, at: self.now });
                ids.into_iter().filter_map(|id| self.placed_own(id, agent)).collect()
            }
            Err((at, reason)) => {
                for (n, name) in names.into_iter().enumerate() {
                    let reason = if n == at { reason.clone() } else { format!("another task of its group cannot be placed: {reason}") };
                    self.tell_once(framework, name, Some(place.0), Phase::Rejected, Cause::Group(reason));
                }
                vec![]
            }
        }
    }

    /// A group as it is put on record; or which of its tasks is in the way, and why.
    fn placeable_group(&self, id: FrameworkId, group: Vec<TaskLaunch>, room: &mut Room) -> Result<Vec<PlacedTask>, (usize, String)> {
        if group.len() > GROUP_TASKS_MAX {
            return Err((0, format!("a group has at most {GROUP_TASKS_MAX} tasks")));
        }
        let (mut tasks, mut names) = (Vec::with_capacity(group.len()), BTreeSet::new());
        for (n, TaskLaunch { name, grace_ms, job, .. }) in group.into_iter().enumerate() {
            if !names.insert(name.clone()) {
                return Err((n, "another task of its group has this id".into()));
            }
            let job = self.placeable(id, &name, job, room).map_err(|reason| (n, reason))?;
            let sequence = self.jobs.next_id().sequence() + n as u64;
            tasks.push(PlacedTask { name, grace_ms, id: JobId::new(self.config.id, sequence), job });
        }
        Ok(tasks)
    }

    /// A framework asks a task to stop: with it all of its group.
    pub(super) fn kill_own(&mut self, id: FrameworkId, task: &str, grace_ms: Option<u64>) {
        let own = self.frameworks.get(id).and_then(|framework| framework.tasks.get(task)).cloned();
        let Some(own) = own.filter(|own| own.exit.is_none()) else { return self.reconcile_own(id, &[task.to_owned()]) };
        let others = self.groups.of(own.job).map(|group| self.groups.live(group)).unwrap_or_default();
        self.stop_own(own.job, grace_ms);
        others.into_iter().filter(|job| *job != own.job).for_each(|job| self.stop_own(job, None));
    }

    /// Ends the task that a job is; it has so many milliseconds to stop, or as many as was said when it was placed.
    fn stop_own(&mut self, job: JobId, grace_ms: Option<u64>) {
        let Some((framework, name)) = self.frameworks.owner(job) else { return };
        let Some(known) = self.frameworks.get(framework) else { return };
        let grace_ms = grace_ms.or_else(|| known.tasks.get(name).map(|own| own.grace_ms)).unwrap_or(0);
        if known.info.knows_killing() {
            self.task_news(job, Phase::Killing);
        }
        self.stop_job(job, grace_ms);
    }

    /// A task of a group has ended: where it did not finish, the others end too. Those that are asked to stop already are left to that.
    pub(super) fn end_group(&mut self, group: JobId) {
        let doomed = self.groups.doomed(group);
        let runs = |job: &JobId| self.phase_of(AttemptId::new(*job, 0, 1)).is_some_and(|phase| phase != LivePhase::Killing);
        let doomed: Vec<JobId> = doomed.into_iter().filter(runs).collect();
        doomed.into_iter().for_each(|job| self.stop_own(job, None));
    }

    /// A leader begins: what the one before it did not come to.
    pub(super) fn end_broken_groups(&mut self) {
        self.groups.broken().into_iter().for_each(|group| self.end_group(group));
    }
}

/// What is left of offers of one agent.
#[derive(Clone)]
struct Room {
    role: Role,
    resources: Resources,
    ports: BTreeSet<u16>,
}

impl Room {
    fn of(shown: &[OpenOffer]) -> Self {
        let role = shown.first().expect("an accepted list has an offer").role.clone();
        let mut resources = Resources::NONE;
        shown.iter().for_each(|offer| super::amounts::add(&mut resources, &offer.resources, 1));
        let ports = shown.iter().flat_map(|offer| &offer.ports).flat_map(|range| range.first..=range.last).collect();
        Self { role, resources, ports }
    }

    fn take(&mut self, job: &Job) -> Result<(), String> {
        let need = &job.template.resources;
        let left = self.resources.checked_sub(need).ok_or_else(|| {
            let short: Vec<String> = self.resources.short_of(need).iter().map(ToString::to_string).collect();
            format!("it needs more than is left of the offers, and of what its role may hold: {}", short.join(", "))
        })?;
        let numbers: Vec<u16> = job.template.ports().filter_map(number_of).collect();
        if let Some(other) = numbers.iter().find(|port| !self.ports.contains(port)) {
            return Err(format!("port {other} is not among those that the offers show"));
        }
        self.ports.retain(|port| !numbers.contains(port));
        self.resources = left;
        Ok(())
    }
}
