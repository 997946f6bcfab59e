//! The framework's shard: what people ask of jobs.

use super::event::JobRef;
use super::versions::may_become;
use super::{Record, Refusal, Request, Response, Shard};
use crate::jobs::{Entry, Key};
use protocol::job::COUNT_MAX;
use protocol::{Job, JobId, Kind, RequestId};

/// Most requests of one shard that wait for a job's end.
pub const FOLLOWERS_MAX: usize = 1 << 20;
/// When it makes sense to ask again where a limit is reached.
const RETRY_AFTER_MS: u64 = 1_000;

impl Shard {
    /// Somebody asks.
    pub(super) fn request(&mut self, id: RequestId, request: Request) {
        let result = match request {
            Request::Submit { job, key, follow } => self.submit(id, job, key, follow),
            Request::Apply { job } => self.apply_job(id, job),
            Request::Stop { job, grace_ms } => self.stop(id, &job, grace_ms),
            Request::Scale { job, count } => self.scale(id, &job, count),
            Request::Follow { job } => self.found(&job).and_then(|job| self.follow(id, job)),
            Request::Gone { agent } => self.gone(agent).map(|()| self.reply(id, Response::Done)),
            Request::SetMode { agent, mode } => self.set_mode(id, agent, mode),
            Request::View(view) => self.view(id, view),
            Request::Token(request) => return self.token_request(id, request),
            Request::SetPolicy { role, policy } => return self.policy_request(id, role, policy),
            Request::Master(request) => return self.master_request(id, request),
            Request::SetRole { role, settings, force } => return self.role_request(id, role, settings, force),
            Request::SetPlugIn { place, plug_in } => return self.plug_in_request(id, place, plug_in),
            Request::Framework(request) => self.framework_request(id, request),
            Request::Reserve { agent, changes, principal } => self.reserve(id, agent, &changes, &principal),
            Request::Kill { job, attempts, grace_ms } => self.kill_attempts(id, &job, &attempts, grace_ms),
            Request::Retry { job } => self.found(&job).map(|job| {
                self.reply(id, Response::Done);
                self.jobs.retry_now(job);
            }),
            Request::Windows(request) => self.windows_request(id, request),
            Request::Deploy { job, force } => self.deploy(id, job, force, false),
            Request::Resize { job, force } => self.deploy(id, job, force, true),
            Request::Describe { job, about } => self.describe(id, &job, about),
            Request::Restart { job, force } => self.restart_job(id, &job, force),
            Request::Rollback { job, to, force } => self.rollback(id, &job, to, force),
            Request::Deployment { id: of, wish } => self.deployment_request(id, of, wish),
        };
        if let Err(refusal) = result {
            self.reply(id, Response::Refused(refusal));
        }
    }

    pub(super) fn found(&self, job: &JobRef) -> Result<JobId, Refusal> {
        self.jobs.find(job).ok_or(Refusal::NotFound { what: "job".into() })
    }

    fn submit(&mut self, id: RequestId, job: Job, key: Option<String>, follow: bool) -> Result<(), Refusal> {
        if follow && self.following.len() >= FOLLOWERS_MAX {
            return Err(busy("too many wait for the end of jobs"));
        }
        if let Some(key) = &key
            && let Some(before) = self.jobs.keyed(Key::of(&job.role, key))
        {
            return self.submit_again(id, before, &job, follow);
        }
        self.room_for(&job)?;
        let new = self.jobs.next_id();
        self.commit(Record::Submitted { id: new, job, key, at: self.now });
        self.reply(id, Response::Submitted { job: new, new: true });
        self.publish_job(new, "submitted");
        if follow {
            self.follow_live(id, new);
        }
        if self.jobs.live(new).is_none() {
            self.job_ended(new);
        }
        Ok(())
    }

    /// The key was used before: the same answer as then, where the job is the same.
    fn submit_again(&mut self, id: RequestId, before: JobId, job: &Job, follow: bool) -> Result<(), Refusal> {
        let key = match self.jobs.entry(before) {
            Some(Entry::Live(job)) => job.key,
            Some(Entry::Ended(job)) => job.key,
            None => None,
        };
        if key.is_none_or(|key| key.body != Key::body(job)) {
            return Err(Refusal::Conflict { reason: format!("this key was used for another job: {before}") });
        }
        self.reply(id, Response::Submitted { job: before, new: false });
        if follow { self.follow(id, before) } else { Ok(()) }
    }

    pub(super) fn room_for(&self, job: &Job) -> Result<(), Refusal> {
        if job.count > COUNT_MAX {
            return Err(Refusal::Invalid { reason: format!("count: at most {COUNT_MAX} tasks") });
        }
        if let Some(name) = &job.name
            && let Some(other) = self.jobs.named(&job.role, name).filter(|id| self.jobs.live(*id).is_some())
        {
            return Err(Refusal::Conflict { reason: format!("the job '{name}' of role '{}' has not ended: {other}", job.role) });
        }
        if self.jobs.live.len() >= self.config.jobs_live_max {
            return Err(busy("the shard has as many jobs as it can"));
        }
        Ok(())
    }

    pub(super) fn apply_job(&mut self, id: RequestId, job: Job) -> Result<(), Refusal> {
        let Some(name) = &job.name else { return Err(Refusal::Invalid { reason: "name: what is applied needs one".into() }) };
        let before = self.jobs.named(&job.role, name).and_then(|id| self.jobs.live(id).map(|live| (id, live)));
        let Some((target, live)) = before else { return self.submit(id, job, None, false) };
        may_become(live, &job)?;
        let new = live.job != job;
        if new {
            self.commit(Record::Applied { id: target, job, at: self.now });
        }
        self.reply(id, Response::Submitted { job: target, new });
        if new {
            self.changed(target, "applied");
        }
        Ok(())
    }

    fn stop(&mut self, id: RequestId, job: &JobRef, grace_ms: u64) -> Result<(), Refusal> {
        let target = self.found(job)?;
        self.reply(id, Response::Done);
        self.stop_job(target, grace_ms);
        Ok(())
    }

    /// Ends all tasks of a job and the job; one that has ended is left alone.
    pub(super) fn stop_job(&mut self, target: JobId, grace_ms: u64) {
        let Some(live) = self.jobs.live(target) else { return };
        if live.stopping.is_none_or(|before| grace_ms < before) {
            let again: Vec<u32> = match live.stopping {
                Some(_) => {
                    live.cells.iter_from(0).filter(|(_, cell)| cell.slot == crate::jobs::Slot::Live).map(|(index, _)| index).collect()
                }
                None => Vec::new(),
            };
            self.commit(Record::Stopped { id: target, grace_ms, at: self.now });
            self.kill_tasks(target, &again, grace_ms);
        }
        self.changed(target, "stopping");
    }

    fn scale(&mut self, id: RequestId, job: &JobRef, count: u32) -> Result<(), Refusal> {
        let target = self.found(job)?;
        let Some(live) = self.jobs.live(target) else { return Err(Refusal::Invalid { reason: "the job has ended".into() }) };
        if live.stopping.is_some() {
            return Err(Refusal::Conflict { reason: "the job is being stopped".into() });
        }
        if live.job.kind == Kind::Task {
            return Err(Refusal::Invalid { reason: "a framework placed this task: it alone says how many there are".into() });
        }
        if live.job.kind == Kind::System {
            let reason = "a system job has one task on each agent that its constraints let in: no number is said of it";
            return Err(Refusal::Invalid { reason: reason.into() });
        }
        let most = if live.job.template.is_fenced() { 1 } else { COUNT_MAX };
        if count > most {
            return Err(Refusal::Invalid { reason: format!("count: at most {most} tasks") });
        }
        if live.job.count != count {
            self.commit(Record::Scaled { id: target, count, at: self.now });
        }
        self.reply(id, Response::Done);
        self.changed(target, "scaled");
        Ok(())
    }

    /// Ends live attempts. Those that are being ended already are asked once more.
    fn kill_attempts(&mut self, id: RequestId, job: &JobRef, attempts: &[(u32, u32)], grace_ms: u64) -> Result<(), Refusal> {
        let target = self.found(job)?;
        let live = self.jobs.live(target).ok_or_else(|| Refusal::Invalid { reason: "the job has ended".into() })?;
        if live.job.kind == Kind::Task {
            return Err(Refusal::Invalid { reason: "a framework placed this task: it alone ends it".into() });
        }
        let is_live = |(index, number): &&(u32, u32)| {
            live.cells.get(*index).is_some_and(|cell| cell.slot == crate::jobs::Slot::Live && cell.number == *number)
        };
        let indexes: Vec<u32> = attempts.iter().filter(is_live).map(|(index, _)| *index).collect();
        self.reply(id, Response::Done);
        self.kill_tasks(target, &indexes, grace_ms);
        Ok(())
    }

    /// Does what follows from a job's new version, count or end.
    pub(super) fn changed(&mut self, id: JobId, what: &'static str) {
        if self.jobs.live(id).is_none() {
            return self.job_ended(id);
        }
        self.publish_job(id, what);
        self.reconcile(id, super::reconcile::GRACE_MS);
    }

    fn follow(&mut self, id: RequestId, job: JobId) -> Result<(), Refusal> {
        if self.jobs.live(job).is_some() {
            if self.following.len() >= FOLLOWERS_MAX {
                return Err(busy("too many wait for the end of jobs"));
            }
            self.follow_live(id, job);
        } else if let Some(view) = self.job_view(job) {
            self.reply(id, Response::Ended(Box::new(view)));
        }
        Ok(())
    }

    fn follow_live(&mut self, id: RequestId, job: JobId) {
        if self.following.insert(id, job).is_none() {
            self.followers.entry(job).or_default().push(id);
        }
    }

    /// Nobody waits for the answers to this request any longer.
    pub(super) fn abandon(&mut self, id: RequestId) {
        self.unsubscribed(id);
        let Some(job) = self.following.remove(&id) else { return };
        if let Some(list) = self.followers.get_mut(&job) {
            list.retain(|other| *other != id);
            if list.is_empty() {
                self.followers.remove(&job);
            }
        }
    }
}

fn busy(reason: &str) -> Refusal {
    Refusal::Busy { reason: reason.into(), retry_after_ms: RETRY_AFTER_MS }
}
