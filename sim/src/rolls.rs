//! Services that go from one version to another: somebody applies good and bad versions, restarts, goes back, holds and promotes, while all else breaks.
//! And what was promised: of what does its work no more is ended at once than its update lets (V1), never are there more tasks than the count and what may
//! be over (V2), a deployment ends by its deadline (V3), and when it is done nothing of another version is left (V4).

use crate::check::{Verdict, hold};
use crate::client::Submission;
use crate::machine::BROKEN;
use crate::plan::Plan;
use crate::random::Random;
use master::jobs::DeploymentId;
use master::jobs::rollout::State;
use master::shard::deployment_view::{DeploymentView, DeploymentWish};
use master::shard::event::JobRef;
use master::shard::view::{TaskView, View, Viewed};
use master::shard::{Event, Request, Shard};
use protocol::job::{COUNT_MAX, Strategy, Update};
use protocol::task::Verdict as Found;
use protocol::{Digest, FromAgent, Job, JobId, Kind, Metering, Phase, Program, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of a thousand wishes so many are about versions.
const WISHES: u64 = 500;
/// Tasks of one service that are looked at.
const TASKS_MAX: usize = 64;
/// The least that a deployment has under a new leader until its deadline, and what clocks and timers may add, in milliseconds.
const LATE_MS: u64 = 30_000 + 15_000;

/// What draws who wants what of versions.
pub struct Wishes(Option<Random>);

impl Wishes {
    /// Nobody, where services stay as they are.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self(plan.rolls.then(|| Random::new(plan.seed ^ 0x4011)))
    }

    /// How a new service is updated.
    pub fn draw(&mut self, job: &mut Job) {
        let Some(random) = self.0.as_mut().filter(|_| job.kind.lasts()) else { return };
        job.update_parallel = 1 + random.below(3) as u32;
        job.update = Update {
            strategy: if random.chance(150) { Strategy::BlueGreen } else { Strategy::Rolling },
            min_healthy_milli: [None, None, Some(500), Some(1_000)][random.below(4) as usize],
            max_over_milli: [0, 0, 500, 1_000][random.below(4) as usize],
            canary: [0, 0, 0, 1][random.below(4) as usize],
            deadline_ms: random.between(20_000, 60_000),
            auto_rollback: random.chance(900),
            failures_max: None,
            settle_ms: [0, 500, 2_000][random.below(3) as usize],
        };
        if job.kind == Kind::System {
            let Update { canary, deadline_ms, auto_rollback, settle_ms, .. } = job.update;
            job.update = Update { canary, deadline_ms, auto_rollback, settle_ms, ..Update::default() };
        }
    }

    /// What somebody wants of a service that was submitted, by its number among all.
    pub fn wish(&mut self, submissions: &[Submission]) -> Option<(usize, Request)> {
        let random = self.0.as_mut()?;
        let lives = |(_, one): &(usize, &Submission)| one.acknowledged.is_some() && !one.ended && !one.stopped && one.job.kind.lasts();
        let all: Vec<usize> = submissions.iter().enumerate().filter(lives).map(|(at, _)| at).collect();
        if all.is_empty() || !random.chance(WISHES) {
            return None;
        }
        let about = all[random.below(all.len() as u64) as usize];
        let submission = &submissions[about];
        let id = submission.acknowledged?;
        let (job, force) = (JobRef::Id(id), random.chance(300));
        let request = match random.below(10) {
            0 => Request::Restart { job, force },
            1 => Request::Rollback { job, to: None, force },
            2 => Request::Rollback { job, to: Some(1 + random.below(4) as u32), force },
            3..=5 => {
                let wishes = [
                    DeploymentWish::Pause,
                    DeploymentWish::Resume,
                    DeploymentWish::Resume,
                    DeploymentWish::Promote,
                    DeploymentWish::Promote,
                    DeploymentWish::Cancel { back: random.chance(700) },
                ];
                let wish = wishes[random.below(6) as usize];
                Request::Deployment { id: DeploymentId { job: id, number: 1 + random.below(6) as u32 }, wish }
            }
            _ => Request::Deploy { job: version(random, &submission.job), force },
        };
        Some((about, request))
    }
}

/// Another version of a service: one in three is none that could ever do its work for long.
fn version(random: &mut Random, job: &Job) -> Job {
    let mut job = job.clone();
    let member = &mut Arc::make_mut(&mut job.template).members[0];
    member.args.push(random.below(1_000_000).to_string());
    let bundle = match random.below(6) {
        0 => BROKEN,
        1 => {
            (member.args[0], member.args[1]) = ("300".into(), "1000".into());
            Digest([1; 32])
        }
        _ => Digest([random.below(3) as u8; 32]),
    };
    member.program = Program::Wasm { bundle, metering: Metering::Fuel, strict: false };
    job
}

/// The bug: each new version is taken for one that may replace all tasks at once.
pub fn at_once(event: &mut Event) {
    if let Event::Request { request: Request::Deploy { job, .. }, .. } = event {
        job.update_parallel = COUNT_MAX;
        job.update = Update { strategy: Strategy::Rolling, min_healthy_milli: Some(0), ..job.update };
    }
}

/// What is seen of deployments.
pub struct Rolls {
    looks: bool,
    /// Jobs that were scaled: what is promised of how many there are is another thing then.
    scaled: BTreeSet<JobId>,
    /// Tasks that did their work and were ended for another version.
    pub replaced: u64,
}

/// How services that are on their way stand.
pub type Before = BTreeMap<JobId, Vec<TaskView>>;

impl Rolls {
    /// Nothing yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { looks: plan.rolls, scaled: BTreeSet::new(), replaced: 0 }
    }

    /// How a leader's services stand that have a deployment, before something happens to it.
    pub fn before(&mut self, shard: &Shard, event: &Event) -> Before {
        if let Event::Request { request: Request::Scale { job: JobRef::Id(job), .. }, .. } = event {
            self.scaled.insert(*job);
        }
        let all = if self.looks { deployments(shard) } else { vec![] };
        let mut before: Before = all.into_iter().map(|view| (view.job(), tasks(shard, view.job()))).collect();
        // What is said to be unwell now does no work any more, whatever is done to it for that.
        if let Event::Agent { message: FromAgent::Health { healths }, .. } = event {
            for health in healths.iter().filter(|health| health.verdict != Found::Healthy) {
                let tasks = before.get_mut(&health.attempt.task.job).into_iter().flatten();
                let unwell = tasks.filter(|task| task.index == health.attempt.task.index && task.phase == Phase::Running);
                unwell.for_each(|task| task.phase = Phase::Starting);
            }
        }
        before
    }

    /// What happened to a leader, that began to lead then, did no service more harm than it may.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn after(&mut self, before: &Before, shard: &Shard, (now, since): (Time, Time), jobs: &BTreeMap<JobId, Job>) -> Verdict {
        if !self.looks {
            return Ok(());
        }
        for view in deployments(shard) {
            let Some(job) = jobs.get(&view.job()) else { continue };
            self.judge(before.get(&view.job()).map(Vec::as_slice).unwrap_or_default(), &view, &tasks(shard, view.job()), job)?;
            let late = view.state == State::Running && now.0 > view.deadline.0.max(since.0) + LATE_MS;
            hold(!late, || format!("V3: {} was to end by {}", view.id, view.deadline))?;
            let done = view.state != State::Done || view.old == 0;
            hold(done, || format!("V4: {} is done, and {} tasks are of other versions", view.id, view.old))?;
        }
        Ok(())
    }

    fn judge(&mut self, before: &[TaskView], view: &DeploymentView, after: &[TaskView], job: &Job) -> Verdict {
        // How many tasks a system job has, its agents say.
        if self.scaled.contains(&view.job()) || job.template.is_fenced() || job.kind == Kind::System {
            return Ok(());
        }
        let (count, update) = (view.count, &job.update);
        let blue_green = update.strategy == Strategy::BlueGreen;
        let floor = match update.min_healthy_milli {
            _ if blue_green => count,
            None => count.saturating_sub(job.update_parallel),
            Some(milli) => (count * milli).div_ceil(1_000),
        };
        let over = match count * update.max_over_milli / 1_000 {
            _ if blue_green => count,
            0 => u32::from(floor == count),
            over => over,
        };
        let runs = |task: &&TaskView| task.phase == Phase::Running;
        // With a deployment that is given up what ran beyond the count ends, whatever the others do.
        let given_up = matches!(view.state, State::Failed | State::Cancelled);
        let of = |index: u32| after.iter().find(|task| task.index == index);
        let stopped = before
            .iter()
            .filter(runs)
            .filter(|task| task.index < count || !given_up)
            .filter(|task| of(task.index).is_some_and(|now| now.attempt == task.attempt && now.phase == Phase::Killing));
        let (stopped, ready) = (stopped.count() as u32, after.iter().filter(runs).count() as u32);
        self.replaced += u64::from(stopped);
        hold(stopped == 0 || ready >= floor, || {
            format!("V1: {stopped} tasks were ended by {}, {ready} do their work, and {floor} are promised", view.id)
        })?;
        let all = view.new + view.old;
        hold(all <= count + over, || format!("V2: {} has {all} tasks, more than {count} and {over}", view.id))
    }
}

/// The last deployment of each service; of those that are stopped, none.
fn deployments(shard: &Shard) -> Vec<DeploymentView> {
    let stops = |job: JobId| match shard.viewed(View::Job(JobRef::Id(job))) {
        Ok(Viewed::Job(view)) => view.stopping,
        _ => true,
    };
    match shard.viewed(View::Deployments { job: None, role: None, ended: true }) {
        Ok(Viewed::Deployments(views)) => views.into_iter().filter(|view| !stops(view.job())).collect(),
        _ => vec![],
    }
}

/// The tasks of a job; those that run and are not well, as far as the shard knows, as ones that still begin: they do no work that is promised.
fn tasks(shard: &Shard, job: JobId) -> Vec<TaskView> {
    let asked = View::Tasks { job: JobRef::Id(job), from: 0, limit: TASKS_MAX, phases: vec![] };
    let Ok(Viewed::Tasks(mut tasks)) = shard.viewed(asked) else { return vec![] };
    let asked = View::Healths { job: JobRef::Id(job), indexes: tasks.iter().map(|task| task.index).collect() };
    let Ok(Viewed::Healths(healths)) = shard.viewed(asked) else { return tasks };
    for (index, _) in healths.iter().filter(|(_, health)| health.verdict != Found::Healthy) {
        tasks.iter_mut().filter(|task| task.index == *index && task.phase == Phase::Running).for_each(|task| task.phase = Phase::Starting);
    }
    tasks
}
