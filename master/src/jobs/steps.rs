//! The next step of a deployment, from counts alone: pure. Never fewer tasks do their work than promised because of us, and never are there more than the
//! count and what may be over.

use protocol::job::Strategy;
use protocol::{Job, Kind};

/// What of a deployment may be otherwise at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How many tasks are wanted.
    pub count: u32,
    /// How many do their work at any time, as far as that is up to us.
    pub floor: u32,
    /// How many may run beyond the count.
    pub over: u32,
    /// How many may be on their way at a time; at least 1.
    pub parallel: u32,
    /// How many of the new version there may be until somebody has said that all may follow; `None`: all.
    pub canary: Option<u32>,
    /// True where no old one goes before each new one does its work.
    pub blue_green: bool,
}

/// How the tasks of a service stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of the new version: those that do their work.
    pub new_ready: u32,
    /// All of these, whether on an agent or waiting, but not those that stop.
    pub new: u32,
    /// Those that stop, of any version.
    pub stopping: u32,
    /// Of older versions: those that do their work.
    pub old_ready: u32,
    /// Those of which it is not known whether they do.
    pub old_unknown: u32,
    /// Those that are on an agent and do not.
    pub old_unready: u32,
    /// Those that wait.
    pub old_waiting: u32,
    /// How many tasks there are beyond the count.
    pub extra: u32,
    /// Of those: how many do their work.
    pub extra_ready: u32,
    /// Of those: how many are of older versions, whether they do their work or not.
    pub extra_old: u32,
    /// Of these: how many do their work.
    pub extra_old_ready: u32,
}

/// What to do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// So many tasks beyond the count from now on, where that is another number.
    pub extra: Option<u32>,
    /// So many tasks of older versions that wait are of the new one from now on.
    pub turn: u32,
    /// So many of older versions that do not do their work stop.
    pub stop_unready: u32,
    /// So many of older versions below the count that do their work stop.
    pub stop_ready: u32,
}

impl Rules {
    /// Of a job that is to have so many tasks; `whole`: its new version is not tried on a few tasks first. Of a system job none can be over: each is replaced
    /// where it is.
    #[must_use]
    pub fn of(job: &Job, count: u32, whole: bool) -> Self {
        let update = &job.update;
        let (fenced, system) = (job.template.is_fenced(), job.kind == Kind::System);
        let blue_green = update.strategy == Strategy::BlueGreen && !fenced && !system;
        let parallel = if blue_green { count.max(1) } else { job.update_parallel.max(1) };
        let share = |milli: u32| u64::from(count) * u64::from(milli);
        let floor = match update.min_healthy_milli {
            _ if fenced => 0,
            _ if blue_green => count,
            _ if system => count.saturating_sub(parallel),
            None => count.saturating_sub(parallel),
            Some(milli) => u32::try_from(share(milli).div_ceil(1_000)).unwrap_or(u32::MAX).min(count),
        };
        let over = match u32::try_from(share(update.max_over_milli) / 1_000).unwrap_or(u32::MAX) {
            _ if fenced || system => 0,
            _ if blue_green => count,
            // Where none may be missing and none may be over nothing could ever be done.
            0 if floor == count && count > 0 => 1,
            over => over,
        };
        let canary = (update.canary > 0 && !whole).then(|| update.canary.min(count));
        Self { count, floor, over, parallel, canary, blue_green }
    }

    /// The next step; `proved`: the first new tasks have done their work for long enough, so that others may follow.
    #[must_use]
    pub fn step(&self, counts: &Counts, proved: bool) -> Step {
        let in_place = counts.old().saturating_sub(counts.extra_old);
        if in_place == 0 {
            return self.finish(counts);
        }
        let ready = counts.ready();
        let on_the_way = (counts.new - counts.new_ready.min(counts.new)).saturating_add(counts.stopping);
        let most = self.canary.unwrap_or(u32::MAX).min(if proved { u32::MAX } else { self.parallel });
        let may_begin = most.saturating_sub(counts.new.saturating_add(counts.stopping));
        let mut free = self.parallel.saturating_sub(on_the_way).min(may_begin);
        let wanted = self.over.min(self.parallel).min(self.canary.unwrap_or(u32::MAX)).max(counts.extra);
        if counts.extra < wanted && free > 0 {
            let more = free.min(wanted - counts.extra);
            return Step { extra: Some(counts.extra + more), ..Step::default() };
        }
        if self.blue_green && (counts.new_ready < self.over || self.canary.is_some()) {
            // Nothing of the old goes; what does not do its work in place of them may.
            free = free.min(counts.extra_old.saturating_sub(counts.extra_old_ready));
            let stop_unready = free.min(counts.old_unready);
            return Step { stop_unready, turn: (free - stop_unready).min(counts.old_waiting), ..Step::default() };
        }
        if self.blue_green {
            free = self.parallel;
        }
        let turn = free.min(counts.old_waiting);
        let stop_unready = (free - turn).min(counts.old_unready);
        let old_ready = counts.old_ready.saturating_sub(counts.extra_old_ready);
        let stop_ready = (free - turn - stop_unready).min(ready.saturating_sub(self.floor)).min(old_ready);
        Step { extra: None, turn, stop_unready, stop_ready }
    }

    /// All below the count are of the new version: those beyond it go, as soon as enough of the others do their work.
    fn finish(&self, counts: &Counts) -> Step {
        let enough = counts.ready() - counts.extra_ready.min(counts.ready()) >= self.floor;
        Step { extra: (counts.extra > 0 && enough).then_some(0), ..Step::default() }
    }

    /// True where all tasks are of the new version and do their work, and nothing else is left.
    #[must_use]
    pub fn is_complete(&self, counts: &Counts) -> bool {
        counts.old() == 0 && counts.extra == 0 && counts.stopping == 0 && counts.new_ready >= self.count
    }

    /// True where as many new tasks do their work as may until somebody says that all may follow.
    #[must_use]
    pub fn waits(&self, counts: &Counts) -> bool {
        self.canary.is_some_and(|canary| counts.new_ready >= canary)
    }
}

impl Counts {
    /// Tasks of older versions that do not stop.
    #[must_use]
    pub const fn old(&self) -> u32 {
        self.old_ready + self.old_unknown + self.old_unready + self.old_waiting
    }

    /// Tasks that do their work.
    #[must_use]
    pub const fn ready(&self) -> u32 {
        self.new_ready + self.old_ready
    }

    /// The same where no version is to replace another: whichever a task is of, it counts.
    #[must_use]
    pub const fn of_one_version(self) -> Self {
        let (new_ready, new) = (self.ready(), self.new + self.old());
        let Self { stopping, extra, extra_ready, .. } = self;
        Self {
            new_ready,
            new,
            stopping,
            old_ready: 0,
            old_unknown: 0,
            old_unready: 0,
            old_waiting: 0,
            extra,
            extra_ready,
            extra_old: 0,
            extra_old_ready: 0,
        }
    }
}

#[cfg(test)]
mod tests;
