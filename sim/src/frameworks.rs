//! Frameworks that are clients: they take offers, hold them, decline them, place tasks in them, kill some, go away and come back, and take in what
//! they are told, now and then late. And what they were promised: an update until it is acknowledged, one end for each task, and none before what
//! led to it; and of tasks placed together all or none.

use crate::client::job;
use crate::plan::Bug;
use crate::random::Random;
use crate::world::{Happening, Verdict, World};
use master::frameworks::{
    Call, Cause, FrameworkEvent, FrameworkId, FrameworkInfo, FrameworkRequest, OpenOffer, StatusUpdate, TaskLaunch, Wish,
};
use master::shard::{Event, Request, Response};
use protocol::{Constraint, Field, Phase, RequestId, Resources, Role, Rule, ShardId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Requests of frameworks are numbered from here on.
const REQUESTS: u64 = 1 << 48;
/// The mean time between two things that a framework does, in milliseconds.
const ACT_MS: u64 = 400;
/// How long a framework may be away, in milliseconds: longer than anything breaks.
const FAILOVER_MS: u64 = 3_600_000;
/// Tasks of one framework that have not ended.
const LIVE_MAX: usize = 20;

/// All of them.
#[derive(Default)]
pub struct Frameworks {
    actors: Vec<Actor>,
    requests: u64,
    /// Acknowledgements of ends that wait for an answer: whose, and of which task.
    ending: BTreeMap<RequestId, (usize, String)>,
    /// Demands that wait for an answer: whose, and what.
    asked: BTreeMap<RequestId, (usize, Vec<Wish>)>,
    /// Tasks whose ends were acknowledged.
    pub ended: u64,
    /// With a bug: the tasks whose ends were said, none of which is said again.
    said_once: Option<BTreeSet<String>>,
}

#[derive(Default)]
struct Actor {
    id: Option<FrameworkId>,
    partition_aware: bool,
    /// The subscription: its request, its number, who leads its shard, and which that is.
    subscribed: Option<(RequestId, u128, usize, ShardId)>,
    offers: Vec<OpenOffer>,
    /// What it is known to want; `None` where that is not known now, or is whatever comes.
    wants: Option<Vec<Wish>>,
    /// What it said that it wants when it subscribed.
    wanted: Vec<Wish>,
    tasks: BTreeMap<String, Task>,
    placed: u64,
    /// Tasks that were placed together.
    groups: Vec<Vec<String>>,
    /// Updates that were said and are not taken in yet.
    told: VecDeque<StatusUpdate>,
}

#[derive(Default)]
struct Task {
    /// How it ended, as was said first.
    end: Option<Phase>,
    /// The end was acknowledged, by a leader that answered.
    over: bool,
    /// It was told that its group cannot be placed.
    refused: bool,
}

impl Frameworks {
    /// So many that have not subscribed yet.
    #[must_use]
    pub fn new(count: usize, bug: Option<Bug>) -> Self {
        let actors = (0..count).map(|at| Actor { partition_aware: at % 2 == 0, ..Actor::default() });
        let said_once = (bug == Some(Bug::SaysEndsOnce)).then(BTreeSet::new);
        Self { actors: actors.collect(), said_once, ..Self::default() }
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(REQUESTS + self.requests)
    }

    /// Subscriptions over a master that is gone, or leads no more.
    pub fn hang_up(&mut self, which: impl Fn(usize, ShardId) -> bool) {
        for actor in &mut self.actors {
            if actor.subscribed.is_some_and(|(_, _, master, shard)| which(master, shard)) {
                actor.forget();
            }
        }
    }

    /// An answer; false where it is nothing of a framework's.
    ///
    /// # Errors
    /// What it contradicts.
    pub fn hear(&mut self, id: RequestId, response: &Response) -> Result<bool, String> {
        if id.0 < REQUESTS || id.0 > REQUESTS + self.requests {
            return Ok(false);
        }
        if let Some((at, task)) = self.ending.remove(&id) {
            if matches!(response, Response::Done)
                && let Some(task) = self.actors[at].tasks.get_mut(&task)
            {
                self.ended += 1;
                task.over = true;
            }
            return Ok(true);
        }
        if let Some((at, wishes)) = self.asked.remove(&id) {
            if matches!(response, Response::Done) {
                self.actors[at].wants = Some(wishes).filter(|wishes| !wishes.is_empty());
            }
            return Ok(true);
        }
        let mut is_said = |event: &&FrameworkEvent| match (&mut self.said_once, event) {
            (Some(said), FrameworkEvent::Update(update)) if update.phase.is_end() => said.insert(update.task.clone()),
            _ => true,
        };
        let events: Vec<&FrameworkEvent> = match response {
            Response::Framework(events) => events.iter().filter(&mut is_said).collect(),
            _ => vec![],
        };
        let subscribed = |actor: &&mut Actor| actor.subscribed.is_some_and(|(request, ..)| request == id);
        let Some(actor) = self.actors.iter_mut().find(subscribed) else { return Ok(true) };
        match response {
            Response::Framework(_) => events.iter().try_for_each(|event| actor.hear(event))?,
            Response::Refused(refusal) => {
                actor.forget();
                if actor.id.is_some() && matches!(refusal, master::shard::Refusal::Conflict { .. }) {
                    return Err(format!("F1: a framework that may be away for an hour was removed: {refusal}"));
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// Every task has ended, and its framework knows how.
    ///
    /// # Errors
    /// One has not.
    pub fn settled(&self) -> Result<(), String> {
        for (name, task) in self.actors.iter().flat_map(|actor| &actor.tasks) {
            if !task.over {
                return Err(format!("F2: {name} was placed, and its framework was never told its end: {:?}", task.end));
            }
        }
        for group in self.actors.iter().flat_map(|actor| actor.groups.iter().map(move |group| (actor, group))) {
            let (actor, names) = group;
            let refused = names.iter().filter(|name| actor.tasks.get(*name).is_some_and(|task| task.refused)).count();
            if refused != 0 && refused != names.len() {
                return Err(format!("F4: of the group {names:?} {refused} were refused"));
            }
        }
        Ok(())
    }
}

impl Actor {
    /// Nothing more comes over the subscription: what it was shown is void.
    fn forget(&mut self) {
        (self.subscribed, self.wants) = (None, None);
        self.offers.clear();
        self.told.clear();
    }

    fn hear(&mut self, event: &FrameworkEvent) -> Result<(), String> {
        match event {
            FrameworkEvent::Subscribed(id) => {
                self.id = Some(*id);
                self.wants = Some(std::mem::take(&mut self.wanted)).filter(|wishes| !wishes.is_empty());
            }
            FrameworkEvent::Offers(offers) => {
                if let Some(wishes) = &self.wants {
                    offers.iter().try_for_each(|offer| is_wanted(offer, wishes))?;
                }
                self.offers.extend(offers.iter().cloned());
            }
            FrameworkEvent::Rescinded(offers) => self.offers.retain(|offer| !offers.contains(&offer.id)),
            FrameworkEvent::Update(update) => {
                if !self.tasks.contains_key(&update.task) {
                    return Err(format!("F3: {update:?} is of no task"));
                }
                let ends = update.phase.is_end();
                if matches!(update.cause, Cause::Group(_))
                    && let Some(task) = self.tasks.get_mut(&update.task)
                {
                    task.refused = true;
                }
                let task = &self.tasks[&update.task];
                if task.over && update.uuid.is_some() {
                    return Err(format!("F3: {update:?} came after the end was acknowledged"));
                }
                let other = task.end.filter(|end| ends && *end != update.phase && update.cause != Cause::Unknown);
                if let Some(before) = other.filter(|_| update.uuid.is_some() || update.cause == Cause::Reconciled) {
                    return Err(format!("F3: {} ended as {before:?} and as {:?}", update.task, update.phase));
                }
                self.told.push_back(update.clone());
            }
            FrameworkEvent::Changed(_)
            | FrameworkEvent::Message { .. }
            | FrameworkEvent::Unavailable(_)
            | FrameworkEvent::InverseOffers(_)
            | FrameworkEvent::InverseRescinded(_) => {}
            FrameworkEvent::Error(_) => self.forget(),
        }
        Ok(())
    }

    /// Takes an update in; gives back what is acknowledged, and whether that is an end.
    fn take(&mut self, update: &StatusUpdate) -> Option<(Call, bool)> {
        let task = self.tasks.get_mut(&update.task)?;
        if update.phase.is_end() {
            task.end.get_or_insert(update.phase);
            // What never was one, or is known no more, needs no acknowledgement; nor does what was said because it was asked for.
            task.over |= matches!(update.cause, Cause::Offers | Cause::Invalid(_) | Cause::Group(_) | Cause::Unknown);
        }
        update.uuid.map(|uuid| (Call::Acknowledge { task: update.task.clone(), uuid }, update.phase.is_end()))
    }

    fn live(&self) -> Vec<String> {
        self.tasks.iter().filter(|(_, task)| !task.over).map(|(name, _)| name.clone()).collect()
    }
}

impl World {
    /// A framework does something, if there is anything to do.
    pub(crate) fn framework(&mut self, at: usize) -> Verdict {
        let wait = self.random.wait(ACT_MS);
        self.queue.push(self.now + wait, Happening::Framework(at));
        let actor = &self.frameworks.actors[at];
        match actor.subscribed {
            None => self.subscribe_framework(at),
            Some((request, stream, leader, shard)) => {
                if self.leader(usize::from(shard.0)) != Some(leader) {
                    return Ok(()); // It notices when the leader does.
                }
                if !self.healed && self.random.chance(20) {
                    self.frameworks.actors[at].forget();
                    return self.tell(leader, shard, Event::Abandoned { id: request });
                }
                self.speak(at, (stream, leader, shard))
            }
        }
    }

    fn subscribe_framework(&mut self, at: usize) -> Verdict {
        let shards = u64::from(self.plan.shards);
        let known = self.frameworks.actors[at].id;
        let shard = known.map_or_else(|| ShardId(self.random.below(shards) as u16), FrameworkId::shard);
        let Some(leader) = self.leader(usize::from(shard.0)).filter(|leader| self.runs(*leader)) else { return Ok(()) };
        let (request, stream) = (self.frameworks.request(), u128::from(self.random.below(u64::MAX)));
        let wishes = if self.random.chance(300) { wishes(&mut self.random) } else { vec![] };
        let actor = &mut self.frameworks.actors[at];
        actor.wanted.clone_from(&wishes);
        actor.subscribed = Some((request, stream, leader, shard));
        let mut info = FrameworkInfo { name: format!("framework-{at}"), failover_ms: FAILOVER_MS, ..FrameworkInfo::default() };
        info.roles = ["default", "web"].map(|role| Role::new(role).expect("a role")).to_vec();
        if actor.partition_aware {
            info.capabilities = vec!["PARTITION_AWARE".into(), "TASK_KILLING_STATE".into()];
        }
        let subscribe =
            FrameworkRequest::Subscribe { framework: known, info, suppressed: vec![], filters: BTreeMap::new(), wishes, stream };
        self.tell(leader, shard, Event::Request { id: request, request: Request::Framework(subscribe) })
    }

    fn speak(&mut self, at: usize, (stream, leader, shard): (u128, usize, ShardId)) -> Verdict {
        let over = self.healed && self.draining;
        let actor = &mut self.frameworks.actors[at];
        let Some(framework) = actor.id else { return Ok(()) };
        let mut calls = Vec::new();
        while let Some(update) = actor.told.pop_front() {
            // One that is not acknowledged is said again.
            if over || self.random.chance(900) {
                calls.extend(actor.take(&update));
            }
        }
        let live = actor.live();
        match self.random.below(if over { 2 } else { 8 }) {
            0 => calls.push((Call::Reconcile(if over { live } else { vec![] }), false)),
            1 if over => calls.extend(live.into_iter().map(|task| (Call::Kill { task, grace_ms: Some(100) }, false))),
            1 | 2 if !live.is_empty() => {
                let task = live[self.random.below(live.len() as u64) as usize].clone();
                calls.push((Call::Kill { task, grace_ms: self.random.chance(500).then_some(100) }, false));
            }
            3 if self.random.chance(300) => calls.push((Call::Revive(vec![]), false)),
            3 if self.random.chance(100) => calls.push((Call::Suppress(vec![]), false)),
            3 if self.random.chance(500) => {
                let wishes = if self.random.chance(300) { vec![] } else { wishes(&mut self.random) };
                calls.push((Call::Demand(wishes), false));
            }
            4 | 5 if !actor.offers.is_empty() => {
                let offers = vec![actor.offers.swap_remove(self.random.below(actor.offers.len() as u64) as usize).id];
                calls.push((Call::Decline { offers, refuse_ms: self.random.below(3_000) }, false));
            }
            6 | 7 if !actor.offers.is_empty() && live.len() < LIVE_MAX && !self.healed => {
                let offer = actor.offers.swap_remove(self.random.below(actor.offers.len() as u64) as usize);
                calls.push((actor.place(at, &offer, &mut self.random), false));
            }
            _ => {}
        }
        for (call, ends) in calls {
            let id = self.frameworks.request();
            if let Call::Acknowledge { task, .. } = &call
                && ends
            {
                self.frameworks.ending.insert(id, (at, task.clone()));
            }
            if let Call::Demand(wishes) = &call {
                self.frameworks.asked.insert(id, (at, wishes.clone()));
                self.frameworks.actors[at].wants = None;
            }
            let request = FrameworkRequest::Call { framework, stream, principal: String::new(), call };
            self.tell(leader, shard, Event::Request { id, request: Request::Framework(request) })?;
        }
        Ok(())
    }
}

/// Some wishes: for either role, some of them for one agent of two.
fn wishes(random: &mut Random) -> Vec<Wish> {
    let even = || Constraint { field: Field::Hostname, rule: Rule::Like(EVEN.into()) };
    let wish = |random: &mut Random| Wish {
        role: Role::new(if random.chance(500) { "default" } else { "web" }).expect("a role"),
        priority: random.below(101) as u8,
        count: random.below(6) as u32,
        shape: Resources { cpu_milli: [100, 500, 2_000][random.below(3) as usize], memory_bytes: 1 << 20, ..Resources::NONE },
        constraints: if random.chance(300) { vec![even()] } else { vec![] },
    };
    (0..random.between(1, 4)).map(|_| wish(random)).collect()
}

/// Names that end in an even digit.
const EVEN: &str = ".*[02468]";

/// An offer is for somebody who said that it wants this: no more than all of it, and at least one of it.
fn is_wanted(offer: &OpenOffer, wishes: &[Wish]) -> Result<(), String> {
    let even = offer.info.name.ends_with(['0', '2', '4', '6', '8']);
    let may = |wish: &&Wish| wish.role == offer.role && wish.count > 0 && (even || wish.constraints.is_empty());
    let all: Resources = wishes.iter().filter(may).fold(Resources::NONE, |sum, wish| {
        let times = wish.shape.checked_mul(wish.count).unwrap_or_default();
        sum.checked_add(&times).unwrap_or_default()
    });
    let fits = wishes.iter().filter(may).any(|wish| offer.resources.contains(&wish.shape));
    if fits && all.contains(&offer.resources) { Ok(()) } else { Err(format!("F5: {offer:?} was shown to who wants {wishes:?}")) }
}

impl Actor {
    /// Some tasks in an offer: most fit.
    fn place(&mut self, at: usize, offer: &OpenOffer, random: &mut Random) -> Call {
        let launches = (0..random.between(1, 4)).map(|_| {
            self.placed += 1;
            let name = format!("task-{at}-{}", self.placed);
            self.tasks.insert(name.clone(), Task::default());
            let cpu_milli = [0, 100, 500, offer.resources.cpu_milli][random.below(4) as usize];
            let resources = Resources { cpu_milli, memory_bytes: 1 << 20, ports: u32::from(random.chance(200)), ..Resources::NONE };
            let job = Ok(job(resources, 1, [5, 500, 20_000, 120_000][random.below(4) as usize]));
            TaskLaunch { name, agent: Some(offer.agent), grace_ms: 500, job }
        });
        let mut launches: Vec<TaskLaunch> = launches.collect();
        let mut groups = vec![];
        // Each third time they are placed together.
        if self.placed.is_multiple_of(3) {
            self.groups.push(launches.iter().map(|task| task.name.clone()).collect());
            groups.push(std::mem::take(&mut launches));
        }
        Call::Accept { offers: vec![offer.id], launches, groups, refuse_ms: random.below(2_000) }
    }
}
