//! What each record does to the jobs. Total: a record that does not fit what is there changes nothing, so that no journal can panic a shard.

use super::cell::{Cell, LivePhase, Slot};
use super::job::{Derived, Entry, Key, LiveJob, OldVersion, end_position};
use super::restart::{self, Facts, Next};
use super::rollout::{Rollout, State};
use super::state::Jobs;
use super::system::Everywhere;
use super::tally::Tally;
use crate::shard::record::Ended;
use protocol::{AgentId, Exit, Job, JobId, Kind, Phase, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Jobs {
    /// A job was submitted.
    pub fn submitted(&mut self, id: JobId, job: &Job, key: Option<&str>, at: Time) {
        self.lasting.next = self.lasting.next.max(id.sequence() + 1);
        if self.lasting.entries.contains_key(&id) {
            return;
        }
        let key = key.map(|key| Key { key: Key::of(&job.role, key), body: Key::body(job) });
        if let Some(key) = key {
            self.keys.insert(key.key, id);
        }
        if let Some(name) = &job.name {
            self.names.insert((job.role.clone(), name.clone()), id);
        }
        let everywhere = Everywhere::of(job.kind, &super::Cells::default());
        let kind = job.kind;
        let derived = Derived { tally: Tally::of(job.place.as_deref()), everywhere, ..Derived::default() };
        let begins_after = !job.after.is_empty();
        let job = LiveJob {
            job: job.clone(),
            key,
            version: 1,
            stopping: None,
            submitted: at,
            cells: super::Cells::default(),
            uncommon: BTreeMap::new(),
            restarts: 0,
            live: 0,
            waiting_cells: 0,
            ends: [0; 5],
            old: Vec::new(),
            stands: BTreeMap::new(),
            rollout: begins_after.then(|| Box::new(Rollout::of(1, at))),
            derived,
        };
        self.lasting.entries.insert(id, Entry::Live(Box::new(job)));
        self.live.insert(id);
        self.system_changed(id, kind);
        self.held.extend(begins_after.then_some(id));
        self.settle(id, at);
    }

    /// A job has a new version, as masters of before make it: none of its versions is kept.
    pub fn applied(&mut self, id: JobId, job: &Job, at: Time) {
        self.unqueue(id);
        let Some(live) = self.live_mut(id) else { return };
        let current = live.live - live.outdated();
        if current > 0 {
            live.old.push(OldVersion { version: live.version, template: Arc::clone(&live.job.template), live: current });
        }
        let (count, before) = (live.job.count, live.total());
        live.version = live.version.saturating_add(1);
        let replaced = live.job.place != job.place;
        live.job = Job { count, kind: live.job.kind, ..job.clone() };
        live.rollout = None;
        live.version_changed();
        if replaced {
            live.tally_anew();
        }
        let kind = live.job.kind;
        self.rolling.remove(&id);
        self.held.remove(&id);
        self.system_changed(id, kind);
        self.resized(id, before, at);
        self.scaled(id, job.count, at);
    }

    /// A job has another count.
    pub fn scaled(&mut self, id: JobId, count: u32, at: Time) {
        let Some(job) = self.live_mut(id) else { return };
        let (before, had) = (job.total(), job.job.count);
        job.job.count = if job.job.kind == Kind::Batch { count.max(job.cells.len()) } else { count };
        if let Some(deployment) = job.rollout.as_mut().and_then(|rollout| rollout.deployment.as_mut()).filter(|_| count != had) {
            deployment.from_count = count;
        }
        self.resized(id, before, at);
    }

    /// A job had `before` tasks in all, and has another number now.
    pub(super) fn resized(&mut self, id: JobId, before: u32, at: Time) {
        let Some(job) = self.live_mut(id) else { return };
        let now = job.total();
        let last = if job.job.kind == Kind::Service { now.max(before).min(job.cells.len()) } else { 0 };
        for index in now.min(before)..last {
            if now < before { self.withdraw(id, index, at) } else { self.revive(id, index, at) }
        }
        self.settle(id, at);
    }

    /// A job is being stopped.
    pub fn stopped(&mut self, id: JobId, grace_ms: u64, at: Time) {
        let Some(job) = self.live_mut(id) else { return };
        job.stopping = Some(grace_ms);
        if let Some(deployment) = job.rollout.as_mut().and_then(|rollout| rollout.deployment.as_mut()).filter(|of| of.is_active()) {
            deployment.set(State::Cancelled, at);
            deployment.why = "the job is being stopped".to_owned();
        }
        let kind = job.job.kind;
        let waits = |(_, cell): &(u32, &Cell)| cell.slot == Slot::Waiting;
        let last = if job.waiting_cells == 0 { 0 } else { usize::MAX };
        let waiting: Vec<u32> = job.cells.iter_from(0).take(last).filter(waits).map(|(index, _)| index).collect();
        for index in waiting {
            self.withdraw(id, index, at);
        }
        self.system_changed(id, kind);
        self.settle(id, at);
    }

    /// A task that waits ends instead.
    pub(super) fn withdraw(&mut self, id: JobId, index: u32, at: Time) {
        let Some(Entry::Live(job)) = self.lasting.entries.get_mut(&id) else { return };
        let Some(cell) = job.cells.get_mut(index).filter(|cell| cell.slot == Slot::Waiting) else { return };
        let due = cell.retry_at();
        cell.slot = Slot::Ended;
        cell.since = at;
        cell.note_exit(&Exit::Killed);
        if let Some(everywhere) = job.derived.everywhere.as_deref_mut() {
            everywhere.left(index, cell, false);
        }
        if !job.leave(index)
            && let Some(due) = due
        {
            self.timers.remove(&(due, id, index));
        }
        job.uncommon.remove(&index);
        job.waiting_cells -= 1;
        job.ends[end_position(Phase::Killed)] += 1;
    }

    /// A task that ended is wanted again.
    pub(super) fn revive(&mut self, id: JobId, index: u32, at: Time) {
        let Some(job) = self.live_mut(id) else { return };
        let (version, rolls) = (job.version, job.rollout.is_some());
        let Some(cell) = job.cells.get_mut(index).filter(|cell| cell.slot == Slot::Ended) else { return };
        let phase = cell.exit(job.uncommon.get(&index)).map_or(Phase::Failed, |exit| exit.phase());
        cell.slot = Slot::Waiting;
        cell.since = at;
        cell.delay_ms = 0;
        if rolls {
            cell.version = version;
        }
        job.ends[end_position(phase)] -= 1;
        job.waiting_cells += 1;
        job.stand(index);
    }

    /// Tasks of a job were given to an agent.
    pub fn staged(&mut self, id: JobId, (agent, incarnation): (AgentId, u64), attempts: &[(u32, u32)], at: Time) {
        let Some(Entry::Live(job)) = self.lasting.entries.get_mut(&id) else { return };
        let on_agent = self.by_agent.entry(agent).or_default();
        let before = on_agent.len();
        let (version, count, rolls, mut staged) = (job.version, job.total(), job.rollout.is_some(), 0);
        let mut older: BTreeMap<u32, u32> = BTreeMap::new();
        for (index, number) in attempts.iter().copied() {
            let next = job.cells.len();
            match job.cells.get_mut(index) {
                Some(cell) if cell.slot == Slot::Waiting => {
                    let due = cell.retry_at();
                    // With versions on record it is as it was noted when it began to wait.
                    let version = if rolls { cell.version } else { version };
                    cell.stage_again(agent, number, version, at);
                    if !job.leave(index)
                        && let Some(due) = due
                    {
                        self.timers.remove(&(due, id, index));
                    }
                    if version != job.version {
                        *older.entry(version).or_default() += 1;
                    }
                    job.uncommon.remove(&index);
                    job.waiting_cells -= 1;
                }
                None if index == next && index < count => job.cells.push(Cell::staged(agent, number, version, at), count),
                _ => continue,
            }
            job.live += 1;
            job.derived.phases[LivePhase::Staging as usize] += 1;
            on_agent.insert((id, index));
            staged += 1;
        }
        let new = staged - older.values().sum::<u32>();
        job.derived.new_phases[LivePhase::Staging as usize] += new;
        let mut amounts = vec![(new, Arc::clone(&job.job.template))];
        for (version, tasks) in older {
            amounts.push((tasks, job.staged_older(version, tasks)));
        }
        if job.derived.tally.is_some() {
            job.count(agent, staged, true);
            self.lines.changed = true;
        }
        for (tasks, template) in amounts.iter().filter(|(tasks, _)| *tasks > 0) {
            self.spent.more(&job.job.role, &template.resources, *tasks);
        }
        if on_agent.len() > before {
            let known = self.lasting.incarnations.entry(agent).or_insert(Some(incarnation));
            *known = (before == 0 || *known == Some(incarnation)).then_some(incarnation);
        }
        self.requeue(id);
    }

    /// Attempts of a job ended.
    pub fn ended(&mut self, id: JobId, ends: &[Ended], at: Time) {
        for end in ends {
            self.ended_one(id, end, at);
        }
        self.settle(id, at);
    }

    fn ended_one(&mut self, id: JobId, end: &Ended, at: Time) {
        let Some(Entry::Live(job)) = self.lasting.entries.get_mut(&id) else { return };
        let (wanted, was_leaving) = (job.wants(end.index), job.cells.get(end.index).is_some_and(Cell::is_leaving));
        let Some(cell) = job.cells.get_mut(end.index) else { return };
        if cell.slot != Slot::Live || cell.number != end.number {
            return;
        }
        if let Some(on_agent) = self.by_agent.get_mut(&cell.agent) {
            on_agent.remove(&(id, end.index));
            if on_agent.is_empty() {
                self.by_agent.remove(&cell.agent);
                self.lasting.incarnations.remove(&cell.agent);
            }
        }
        let resources = &job.old.iter().find(|old| old.version == cell.version).map_or(&job.job.template, |old| &old.template).resources;
        self.spent.less(&job.job.role, resources);
        let agent = cell.agent;
        job.derived.phases[cell.phase as usize] -= 1;
        if cell.version == job.version {
            job.derived.new_phases[cell.phase as usize] -= 1;
        }
        job.live -= 1;
        if let Some(at) = job.old.iter().position(|old| old.version == cell.version) {
            job.old[at].live -= 1;
            if job.old[at].live == 0 {
                job.old.remove(at);
            }
        }
        let version = job.rollout.as_deref_mut().map(|rollout| rollout.ended(job.version, cell.version, end, wanted));
        let facts = Facts { kind: job.job.kind, restart: &job.job.restart, wanted, retries: cell.retries, streak: cell.streak };
        let next = restart::next(facts, &end.exit, end.usage);
        cell.since = at;
        cell.usage = end.usage;
        job.uncommon.extend(cell.note_exit(&end.exit).map(|exit| (end.index, exit)));
        if !job.derived.ports.is_empty() {
            job.derived.ports.remove(&end.index);
        }
        match next {
            Next::Final => {
                cell.slot = Slot::Ended;
                job.ends[end_position(end.exit.phase())] += 1;
                if let Some(everywhere) = job.derived.everywhere.as_deref_mut() {
                    everywhere.left(end.index, cell, was_leaving);
                }
            }
            Next::Again { delay_ms, counted, streak } => {
                cell.slot = Slot::Waiting;
                cell.delay_ms = delay_ms;
                cell.retries = cell.retries.saturating_add(u32::from(counted));
                cell.streak = streak;
                cell.version = version.unwrap_or(cell.version);
                let due = cell.retry_at();
                job.waiting_cells += 1;
                job.restarts += 1;
                job.wait(end.index);
                match due {
                    Some(due) => drop(self.timers.insert((due, id, end.index))),
                    None => job.stand(end.index),
                }
            }
        }
        self.left(id, agent);
    }

    /// Ends the job where it is over, and puts it where its waiting tasks belong where it is not.
    pub(super) fn settle(&mut self, id: JobId, at: Time) {
        if !self.live(id).is_some_and(LiveJob::is_over) {
            return self.requeue(id);
        }
        self.unqueue(id);
        self.live.remove(&id);
        let Some(Entry::Live(job)) = self.lasting.entries.remove(&id) else { return };
        let ended_kind = job.job.kind;
        let ended = job.end(at);
        self.history_tasks += ended.weight();
        self.rolling.remove(&id);
        self.held.remove(&id);
        self.system_changed(id, ended_kind);
        self.lasting.entries.insert(id, Entry::Ended(Box::new(ended)));
        self.lasting.history.push_back(id);
        self.prune();
    }

    /// Forgets the jobs that ended first, while more tasks are kept than may be; the last one stays for whoever follows it.
    fn prune(&mut self) {
        while self.history_tasks > self.history_tasks_max && self.lasting.history.len() > 1 {
            let Some(id) = self.lasting.history.pop_front() else { return };
            let Some(Entry::Ended(job)) = self.lasting.entries.remove(&id) else { continue };
            self.history_tasks -= job.weight();
            if let Some(key) = job.key.filter(|key| self.keys.get(&key.key) == Some(&id)) {
                self.keys.remove(&key.key);
            }
            if let Some(name) = job.name {
                let key = (job.role, name);
                if self.names.get(&key) == Some(&id) {
                    self.names.remove(&key);
                }
            }
        }
    }
}
