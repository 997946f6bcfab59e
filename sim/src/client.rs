//! What people do: submit jobs under keys and submit them again, scale them, stop them; and what they were told.

use crate::devices::{Wants, for_one};
use crate::health::Checked;
use crate::lent::Revocable;
use crate::machine::BROKEN;
use crate::neighbours::Neighbours;
use crate::plan::{Bug, Plan};
use crate::random::Random;
use crate::rolls::Wishes;
use crate::system::Systems;
use master::shard::event::JobRef;
use master::shard::{Refusal, Request, Response};
use protocol::job::RestartPolicy;
use protocol::message::shard_of_job;
use protocol::{Digest, Job, JobId, Kind, Limits, Member, Metering, Name, Program, RequestId, Resources, Restart, Role, ShardId, Template};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Jobs that may live at once.
const UNENDED_MAX: usize = 25;

/// A submission and what became of it.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its key.
    pub key: String,
    /// The job.
    pub job: Job,
    /// The id that was acknowledged.
    pub acknowledged: Option<JobId>,
    /// Whether it was told to have ended.
    pub ended: bool,
    /// Whether a living leader was asked to tell.
    pub followed: bool,
    /// Whether it was stopped or scaled since, or refused.
    pub touched: bool,
    /// Whether somebody asked to stop it.
    pub stopped: bool,
}

/// A request that waits for answers.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    about: usize,
    /// The master that was asked, and the one that leads the shard.
    pub by: (usize, usize),
    /// The shard.
    pub shard: ShardId,
}

/// All clients.
pub struct Clients {
    /// All submissions.
    pub submissions: Vec<Submission>,
    /// Acknowledgements heard.
    pub acks: u64,
    waiting: BTreeMap<RequestId, Asked>,
    requests: u64,
    shards: u16,
    /// Services are fenced.
    fenced: bool,
    /// What draws where tasks may go, where jobs say so.
    places: Option<Random>,
    revocable: Revocable,
    systems: Systems,
    neighbours: Neighbours,
    checked: Checked,
    wants: Wants,
    /// Services that change their versions.
    versions: Wishes,
    bug: Option<Bug>,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("the simulator's names are names")
}

/// A batch job of tasks that run `longest_ms` at most.
pub(crate) fn job(resources: Resources, count: u32, longest_ms: u64) -> Job {
    let limits = Limits {
        fuel_max: None,
        cpu_time_ms_max: None,
        time_ms_max: None,
        memory_bytes_max: resources.memory_bytes,
        table_elements_max: 1_000,
        host_bytes_max: 1 << 20,
        processes_max: 64,
        log_bytes_max: 1 << 20,
        log_bytes_per_s_max: 1 << 20,
    };
    let member = Member {
        name: None,
        program: Program::Wasm { bundle: Digest([0; 32]), metering: Metering::Fuel, strict: false },
        args: vec![longest_ms.to_string(), "0".into()],
        env: vec![],
        config: vec![],
        stdin: None,
        ports: (0..resources.ports).map(|number| name(&format!("port-{number}"))).collect(),
        resources: resources.clone(),
        limits,
    };
    let template = Template { members: vec![member], resources };
    let restart = Restart {
        policy: RestartPolicy::Never,
        retries_max: Some(2),
        backoff_first_ms: 100,
        backoff_factor_milli: 2_000,
        backoff_max_ms: 5_000,
    };
    Job {
        role: Role::new(protocol::ids::ROLE_DEFAULT).expect("a role"),
        name: None,
        kind: Kind::Batch,
        priority: 50,
        count,
        template: Arc::new(template),
        restart,
        update_parallel: 1,
        place: None,
        about: None,
        update: protocol::job::Update::default(),
        after: vec![],
    }
}

/// The same, with what is lent: little enough for an agent of one core.
pub(crate) fn job_made_revocable(job: &mut Job) {
    let template = Arc::make_mut(&mut job.template);
    let member = &mut template.members[0];
    member.resources.cpu_milli = member.resources.cpu_milli.min(250);
    member.resources = member.resources.clone().made_revocable();
    template.resources = member.resources.clone();
}

fn draw(random: &mut Random, number: usize) -> Job {
    let service = random.chance(200);
    let cpu_milli = [0, 50, 250, 1_000][random.below(4) as usize];
    let resources = Resources {
        cpu_milli,
        memory_bytes: [1, 16, 64][random.below(3) as usize] << 20,
        ports: u32::from(random.chance(200)),
        ..Resources::NONE
    };
    let count = if service { random.between(1, 4) as u32 } else { [1, 1, 3, 3, 20, 100][random.below(6) as usize] };
    let mut job = job(
        resources,
        count,
        if service { [500, 20_000, 120_000][random.below(3) as usize] } else { [5, 500, 20_000, 120_000][random.below(4) as usize] },
    );
    let bundle = if random.chance(20) { BROKEN } else { Digest([random.below(3) as u8; 32]) };
    let member = &mut Arc::make_mut(&mut job.template).members[0];
    member.program = Program::Wasm { bundle, metering: Metering::Fuel, strict: false };
    if random.chance(300) {
        member.args[1] = "200".into();
    }
    job.restart.policy = match (service, random.below(3)) {
        (true, _) => RestartPolicy::Always,
        (false, 0) => RestartPolicy::OnFailure,
        _ => RestartPolicy::Never,
    };
    if service {
        (job.kind, job.restart.retries_max) = (Kind::Service, None);
    }
    job.name = (service || random.chance(300)).then(|| name(&format!("job-{number}")));
    job.role = Role::new(["default", "batch", "web"][random.below(3) as usize]).expect("a role");
    job.priority = [0, 50, 100][random.below(3) as usize];
    job
}

impl Clients {
    /// Clients that have asked nothing yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let (shards, fenced, bug) = (plan.shards, plan.fenced, plan.bug);
        let places = plan.places.then(|| Random::new(plan.seed ^ 0x97ac));
        Self {
            submissions: vec![],
            acks: 0,
            waiting: BTreeMap::new(),
            requests: 0,
            shards,
            fenced,
            places,
            revocable: Revocable::new(plan),
            systems: Systems::new(plan),
            neighbours: Neighbours::new(plan),
            checked: Checked::new(plan),
            wants: Wants::new(plan),
            versions: Wishes::new(plan),
            bug,
        }
    }

    fn ask(&mut self, about: usize) -> RequestId {
        self.requests += 1;
        self.waiting.insert(RequestId(self.requests), Asked { about, by: (0, 0), shard: ShardId(0) });
        RequestId(self.requests)
    }

    /// A request reached a leader: its `shard`'s, the second of `by`.
    pub fn reached(&mut self, id: RequestId, by: (usize, usize), shard: ShardId) {
        if let Some(asked) = self.waiting.get_mut(&id) {
            (asked.by, asked.shard) = (by, shard);
        }
    }

    /// A request reached nobody.
    pub fn unheard(&mut self, id: RequestId) {
        if let Some(asked) = self.waiting.remove(&id) {
            self.submissions[asked.about].followed = false;
        }
    }

    /// A new wish: mostly a new job, sometimes an old one again, stopped or scaled. Where many have not ended, one of them is stopped first:
    /// a backlog that only grows shows nothing new.
    pub fn wish(&mut self, random: &mut Random) -> (RequestId, ShardId, Request) {
        let unended = |(at, one): (usize, &Submission)| (one.acknowledged.is_some() && !one.ended).then_some(at);
        let unended: Vec<usize> = self.submissions.iter().enumerate().filter_map(unended).collect();
        if unended.len() > UNENDED_MAX {
            let about = unended[random.below(unended.len() as u64) as usize];
            let job = self.touch(about);
            self.submissions[about].stopped = true;
            return (self.ask(about), job.shard(), Request::Stop { job: JobRef::Id(job), grace_ms: random.below(2_000) });
        }
        if let Some((about, request)) = self.versions.wish(&self.submissions) {
            let job = self.touch(about);
            return (self.ask(about), job.shard(), request);
        }
        let old = if self.submissions.is_empty() { 0 } else { random.below(self.submissions.len() as u64) as usize };
        match random.below(10) {
            0 if !self.submissions.is_empty() => self.submit(old),
            1 if self.submissions.get(old).is_some_and(|old| old.acknowledged.is_some()) => {
                let job = self.touch(old);
                self.submissions[old].stopped = true;
                (self.ask(old), job.shard(), Request::Stop { job: JobRef::Id(job), grace_ms: random.below(2_000) })
            }
            2 if self.submissions.get(old).is_some_and(|old| old.acknowledged.is_some()) => {
                let job = self.touch(old);
                (self.ask(old), job.shard(), Request::Scale { job: JobRef::Id(job), count: random.below(6) as u32 })
            }
            _ => {
                let mut job = draw(random, self.submissions.len());
                if self.fenced {
                    crate::lease::fence(&mut job);
                }
                job.place = self.places.as_mut().and_then(crate::places::draw);
                self.systems.draw(&mut job, self.submissions.len());
                self.neighbours.draw(&mut job);
                self.wants.draw(&mut job);
                self.versions.draw(&mut job);
                self.revocable.draw(&mut job);
                self.checked.draw(&mut job);
                self.add(job)
            }
        }
    }

    fn touch(&mut self, about: usize) -> JobId {
        self.submissions[about].touched = true;
        self.submissions[about].acknowledged.expect("only acknowledged jobs are touched")
    }

    /// Submits once more what has no answer or an old one: the same key and the same job.
    pub fn submit(&mut self, about: usize) -> (RequestId, ShardId, Request) {
        let id = self.ask(about);
        self.submissions[about].followed = true;
        let Submission { key, job, .. } = &self.submissions[about];
        let named = job.name.as_ref().map_or(key.as_str(), Name::as_str);
        let shard = shard_of_job(&job.role, named, self.shards);
        let key = if self.bug == Some(Bug::ForgetsKeys) { format!("{key}-{}", id.0) } else { key.clone() };
        (id, shard, Request::Submit { job: job.clone(), key: Some(key), follow: true })
    }

    /// System jobs that were acknowledged.
    #[must_use]
    pub fn systems(&self) -> u64 {
        self.submissions.iter().filter(|one| one.job.kind == Kind::System && one.acknowledged.is_some()).count() as u64
    }

    /// The first submission that nobody has acknowledged, or of whose end nobody would tell.
    #[must_use]
    pub fn unanswered(&self) -> Option<usize> {
        let refused = |one: &Submission| one.acknowledged.is_none() && one.touched;
        let told = |one: &Submission| one.acknowledged.is_some() && (one.followed || one.ended);
        self.submissions.iter().position(|one| !refused(one) && !told(one))
    }

    /// A request to stop each acknowledged job at once.
    pub fn stop_all(&mut self) -> Vec<(RequestId, ShardId, Request)> {
        let known: Vec<(usize, JobId)> =
            self.submissions.iter().enumerate().filter_map(|(at, one)| Some((at, one.acknowledged?))).collect();
        let stop = |job| Request::Stop { job: JobRef::Id(job), grace_ms: 1_000 };
        known.into_iter().map(|(at, job)| (self.ask(at), job.shard(), stop(job))).collect()
    }

    /// Submits all that was acknowledged once more, to hear of its end.
    pub fn submit_all(&mut self) -> Vec<(RequestId, ShardId, Request)> {
        let known = |at: &usize| self.submissions[*at].acknowledged.is_some();
        let known: Vec<usize> = (0..self.submissions.len()).filter(known).collect();
        known.into_iter().map(|at| self.submit(at)).collect()
    }

    /// Short tasks: as large as `largest`, and many small ones.
    pub fn probe(&mut self, largest: &Resources) -> Vec<(RequestId, ShardId, Request)> {
        let small = Resources { cpu_milli: 100, memory_bytes: 1 << 20, ..Resources::NONE };
        let probes = (0..u32::from(self.shards)).flat_map(|_| [(2, for_one(largest.clone())), (30, small.clone())]);
        probes.collect::<Vec<_>>().into_iter().map(|(count, resources)| self.add(job(resources, count, 5))).collect()
    }

    fn add(&mut self, job: Job) -> (RequestId, ShardId, Request) {
        let number = self.submissions.len();
        self.submissions.push(Submission {
            key: format!("key-{number}"),
            job,
            acknowledged: None,
            ended: false,
            followed: false,
            touched: false,
            stopped: false,
        });
        self.submit(number)
    }

    /// Nobody answers these any more.
    pub fn hang_up(&mut self, which: impl Fn(&Asked) -> bool) {
        let over: Vec<RequestId> = self.waiting.iter().filter(|(_, asked)| which(asked)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.unheard(id));
    }

    /// An answer; gives back which job is acknowledged with it, and as what it was submitted.
    ///
    /// # Errors
    /// What it contradicts.
    pub fn hear(&mut self, id: RequestId, response: &Response) -> Result<Option<(JobId, &Job)>, String> {
        let Some(asked) = self.waiting.get(&id).copied() else { return Ok(None) };
        let submission = &mut self.submissions[asked.about];
        match response {
            Response::Submitted { job, .. } => {
                self.acks += 1;
                if submission.acknowledged.is_some_and(|before| before != *job) {
                    return Err(format!("G2: the key {} made {job} and before {:?}", submission.key, submission.acknowledged));
                }
                submission.acknowledged = Some(*job);
                return Ok(Some((*job, &submission.job)));
            }
            Response::Ended(_) => submission.ended = true,
            Response::Refused(
                Refusal::Busy { .. } | Refusal::NotFound { .. } | Refusal::Invalid { .. } | Refusal::Unled | Refusal::Unknown,
            )
            | Response::Done
            | Response::Viewed(_)
            | Response::Numbered(_)
            | Response::Deployed { .. }
            | Response::Framework(_) => {}
            Response::Refused(Refusal::Conflict { reason }) => {
                // Only a job that was dropped from the history, key and all, can meet another one of its name.
                if self.bug.is_none() && submission.acknowledged.is_some() && !submission.touched {
                    return Err(format!("G2: the same submission under {} was refused: {reason}", submission.key));
                }
                submission.touched = true;
            }
        }
        Ok(None)
    }
}
