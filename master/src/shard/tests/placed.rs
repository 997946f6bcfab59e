//! Tasks that may not go everywhere, over several shards: what is said at once arrives before what waits for a commit, as with real masters.

mod beside;

use super::*;
use protocol::message::shard_of_agent;
use protocol::{Constraint, FaultDomain, Field, Placement, Rule, Stand};

pub(super) struct Cluster {
    pub(super) shards: Vec<Shard>,
    now: Time,
    /// On their way: to whom, from whom, what.
    letters: VecDeque<(usize, ShardId, PeerMessage)>,
    journals: Vec<Vec<Record>>,
    stands: BTreeMap<AgentId, Stand>,
    pub(super) sessions: BTreeMap<AgentId, u64>,
    pub(super) held: BTreeMap<AgentId, BTreeSet<AttemptId>>,
    declined: usize,
    /// Agents that were asked what they hold.
    asked: BTreeSet<AgentId>,
}

impl Cluster {
    pub(super) fn new(shards: u16) -> Self {
        let shard = |id| Shard::new(ShardConfig { id: ShardId(id), shards, ..ShardConfig::default() });
        let mut cluster = Self {
            shards: (0..shards).map(shard).collect(),
            now: Time(1_000_000),
            letters: VecDeque::new(),
            journals: vec![Vec::new(); usize::from(shards)],
            stands: BTreeMap::new(),
            sessions: BTreeMap::new(),
            held: BTreeMap::new(),
            declined: 0,
            asked: BTreeSet::new(),
        };
        for at in 0..cluster.shards.len() {
            cluster.shards[at].lead(cluster.now);
        }
        cluster.settle();
        cluster
    }

    /// Agents in these racks, one after the other, with `cpu_milli` each; the first is agent `first`.
    fn agents(&mut self, first: u64, racks: &[&str], cpu_milli: u64) {
        for (agent, rack) in (first..).zip(racks) {
            self.agent(AgentId(agent), &[("rack", rack)], cpu_milli);
        }
    }

    pub(super) fn agent(&mut self, agent: AgentId, facts: &[(&str, &str)], cpu_milli: u64) {
        let of = |name: &str| facts.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned()).unwrap_or_default();
        let domain = FaultDomain { region: of("region"), zone: of("zone"), rack: of("rack") };
        let attributes = facts.iter().filter(|(name, _)| !["region", "zone", "rack"].contains(name));
        let attributes = attributes.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let info = AgentInfo { name: format!("a{}", agent.0), capacity: cpu(cpu_milli), domain, attributes, ..AgentInfo::default() };
        self.stands.insert(agent, Stand::from(&info));
        self.say(agent, FromAgent::Register { info, incarnation: 1, number: 1 });
        self.settle();
        self.report(agent, 0);
    }

    fn report(&mut self, agent: AgentId, session: u64) {
        let held = self.held.entry(agent).or_default().iter().map(|attempt| Held { attempt: *attempt, ended: false }).collect();
        self.say(agent, FromAgent::Report { session, held, last: true });
        self.settle();
    }

    pub(super) fn say(&mut self, agent: AgentId, message: FromAgent) {
        let at = usize::from(shard_of_agent(agent, self.shards.len() as u16).0);
        self.shards[at].handle(self.now, Event::Agent { agent, message });
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        let mut held = Vec::new();
        let mut steps = 0;
        while let Some(output) = self.shards[at].poll_output() {
            steps += 1;
            assert!(steps < 100_000, "a shard talks without end");
            match output {
                Output::Journal(record) => self.journals[at].push(record),
                Output::Held(action) => held.push(action),
                Output::Now(action) => self.act(at, action),
            }
        }
        held.into_iter().for_each(|action| self.act(at, action));
    }

    fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::Peer { to, message } => {
                if let PeerMessage::Decline { offers } = &message {
                    self.declined += offers.len();
                }
                self.letters.push_back((usize::from(to.0), ShardId(at as u16), message));
            }
            Action::Send { agent, message } => match message {
                FromMaster::Registered { session, .. } => drop(self.sessions.insert(agent, session)),
                FromMaster::Launch(launch) => {
                    let attempts = launch.attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number));
                    self.held.entry(agent).or_default().extend(attempts);
                }
                FromMaster::ReportWanted { .. } => drop(self.asked.insert(agent)),
                _ => {}
            },
            Action::Reply { .. } | Action::Publish(_) | Action::Disconnect { .. } => {}
        }
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    pub(super) fn settle(&mut self) {
        (0..self.shards.len()).for_each(|at| self.drain(at));
        let mut letters = 0;
        while let Some((to, from, message)) = self.letters.pop_front() {
            letters += 1;
            assert!(letters < 100_000, "the shards talk to each other without end");
            self.shards[to].handle(self.now, Event::Peer { from, message });
            self.drain(to);
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now = self.now + 250;
            for at in 0..self.shards.len() {
                self.shards[at].handle(self.now, Event::Tick);
            }
            self.settle();
            for (agent, session) in self.sessions.clone() {
                let held_hash = self.held[&agent].iter().fold(0, |hash, attempt| hash ^ attempt_hash(*attempt));
                self.say(agent, FromAgent::Alive { session, sent: self.now, held: 0, held_hash });
            }
            self.settle();
            for agent in std::mem::take(&mut self.asked) {
                self.report(agent, self.sessions[&agent]);
            }
        }
    }

    pub(super) fn ask(&mut self, at: usize, request: Request) -> JobId {
        self.shards[at].handle(self.now, Event::Request { id: RequestId(1), request });
        let mut job = None;
        let mut rest = Vec::new();
        while let Some(output) = self.shards[at].poll_output() {
            match output {
                Output::Journal(record) => self.journals[at].push(record),
                Output::Held(Action::Reply { response: Response::Submitted { job: id, .. }, .. }) => job = Some(id),
                Output::Held(action) | Output::Now(action) => rest.push(action),
            }
        }
        rest.into_iter().for_each(|action| self.act(at, action));
        self.settle();
        job.unwrap_or(JobId(0))
    }

    fn submit(&mut self, job: Job) -> JobId {
        self.ask(0, Request::Submit { job, key: None, follow: false })
    }

    /// The tasks on each agent, from the first.
    fn on(&self, job: JobId) -> Vec<usize> {
        self.held.values().map(|held| held.iter().filter(|attempt| attempt.task.job == job).count()).collect()
    }

    /// The tasks at each value of a field.
    fn at(&self, job: JobId, field: &str) -> BTreeMap<String, usize> {
        let mut at = BTreeMap::new();
        for (agent, n) in self.held.keys().zip(self.on(job)).filter(|(_, n)| *n > 0) {
            *at.entry(Field::named(field).of(&self.stands[agent]).unwrap_or("").to_owned()).or_insert(0) += n;
        }
        at
    }

    fn waiting(&self) -> u64 {
        self.shards.iter().map(|shard| shard.jobs.lines.waiting()).sum()
    }

    /// Ends the tasks of a job on an agent.
    fn end(&mut self, agent: AgentId, job: JobId, exit: &Exit) {
        let ended: Vec<AttemptId> = self.held[&agent].iter().filter(|attempt| attempt.task.job == job).copied().collect();
        self.held.get_mut(&agent).unwrap().retain(|attempt| attempt.task.job != job);
        let state = TaskState::Ended { exit: exit.clone(), usage: Usage::default() };
        let updates = ended.iter().map(|attempt| Update { attempt: *attempt, state: state.clone() }).collect();
        let at = usize::from(job.shard().0);
        self.shards[at].handle(self.now, Event::Agent { agent, message: FromAgent::Status { updates } });
        self.settle();
    }

    /// The records alone make the same state, and so does a snapshot of it.
    fn check(&self) {
        for (shard, journal) in self.shards.iter().zip(&self.journals) {
            let mut replayed = Shard::new(shard.config.clone());
            journal.iter().for_each(|record| replayed.apply(record));
            assert_eq!(replayed.hash(), shard.hash(), "replaying the records makes another state");
            let bytes = postcard::to_allocvec(&shard.snapshot()).unwrap();
            let again = Shard::restore(shard.config.clone(), ShardSnapshot::decode(&bytes).unwrap());
            assert_eq!(again.hash(), shard.hash());
        }
    }

    /// Another leads the shard of the jobs, and knows only what is on record.
    fn new_leader(&mut self) {
        let shard = &self.shards[0];
        self.shards[0] = Shard::restore(shard.config.clone(), shard.snapshot());
        self.shards[0].lead(self.now);
        self.settle();
        for agent in self.stands.keys().copied().collect::<Vec<_>>() {
            if shard_of_agent(agent, self.shards.len() as u16) == ShardId(0) {
                let (stand, capacity) = (self.stands[&agent].clone(), self.shards[0].rest.agents[&agent].info.capacity.clone());
                let info =
                    AgentInfo { name: stand.name, capacity, domain: stand.domain, attributes: stand.attributes, ..AgentInfo::default() };
                self.say(agent, FromAgent::Register { info, incarnation: 1, number: 2 });
                self.settle();
                self.report(agent, 0);
            }
        }
    }
}

fn placed(count: u32, cpu_milli: u64, rules: &[(&str, Rule)], spread: &[&str]) -> Job {
    let constraint = |(field, rule): &(&str, Rule)| Constraint { field: Field::named(field), rule: rule.clone() };
    let constraints = rules.iter().map(constraint).collect();
    let place = Placement { constraints, spread: spread.iter().map(|field| Field::named(field)).collect() };
    Job { name: Some(name("web")), place: Some(Arc::new(place)), ..job(Kind::Service, count, cpu_milli) }
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(value, n)| ((*value).to_owned(), *n)).collect()
}

#[test]
fn tasks_go_only_to_agents_that_meet_the_rules() {
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards);
        cluster.agents(1, &["r1", "r2", "r1", "r2"], 1_000);
        cluster.agent(AgentId(5), &[("rack", "r1"), ("disk", "ssd-1")], 1_000);
        let is = Job { name: None, ..placed(9, 500, &[("rack", Rule::Is("r1".into()))], &[]) };
        let id = cluster.submit(is.clone());
        assert_eq!((cluster.on(id), cluster.waiting()), (vec![2, 0, 2, 0, 2], 3));
        // Another job of the same rules stands in the same line, and one of none finds the rest.
        cluster.submit(is);
        let any = cluster.submit(job(Kind::Batch, 3, 500));
        assert_eq!(cluster.at(any, "rack"), counts(&[("r2", 3)]));
        let disk = cluster.submit(Job { name: None, ..placed(1, 100, &[("disk", Rule::Like("ssd.*".into()))], &[]) });
        let other =
            Job { name: None, ..placed(1, 500, &[("disk", Rule::Unlike("ssd.*".into())), ("rack", Rule::Unlike("r1".into()))], &[]) };
        let other = cluster.submit(other);
        assert_eq!((cluster.at(disk, "disk"), cluster.at(other, "rack")), (counts(&[]), counts(&[("r2", 1)])));
        // What frees resources, and whoever comes, is found by what waits.
        cluster.end(AgentId(5), id, &Exit::Killed);
        assert_eq!(cluster.waiting(), 13, "what was killed went back at once, or another of its line, since they are older");
        cluster.agent(AgentId(6), &[("rack", "r3"), ("disk", "ssd-2")], 1_000);
        assert_eq!(cluster.at(disk, "disk"), counts(&[("ssd-2", 1)]));
        // An agent that is elsewhere from now on is another to them.
        let before = cluster.waiting();
        cluster.agent(AgentId(6), &[("rack", "r1")], 1_000);
        assert_eq!(cluster.waiting(), before - 1);
        cluster.check();
    }
}

#[test]
fn unique_never_gives_an_agent_two_tasks_whoever_leads() {
    for shards in [1, 3, 8] {
        let mut cluster = Cluster::new(shards);
        cluster.agents(1, &["a"; 12], 4_000);
        let id = cluster.submit(placed(14, 100, &[("hostname", Rule::Unique)], &[]));
        assert_eq!((cluster.on(id), cluster.waiting()), (vec![1; 12], 2));
        cluster.check();
        cluster.new_leader();
        assert_eq!((cluster.on(id), cluster.waiting()), (vec![1; 12], 2));
        cluster.end(AgentId(7), id, &Exit::Killed);
        assert_eq!((cluster.on(id), cluster.waiting()), (vec![1; 12], 2), "one of those that wait has its place");
        cluster.agents(13, &["a"; 3], 4_000);
        assert_eq!((cluster.on(id).iter().sum::<usize>(), cluster.waiting()), (14, 0));
        assert!(cluster.on(id).iter().all(|n| *n <= 1));
        cluster.pass(5_000);
        cluster.check();
    }
}

#[test]
fn max_per_holds_over_all_shards() {
    for shards in [1, 3, 8] {
        let mut cluster = Cluster::new(shards);
        cluster.agents(1, &["a", "a", "a", "b", "b", "c"], 4_000);
        let id = cluster.submit(placed(10, 100, &[("rack", Rule::MaxPer(2))], &[]));
        assert_eq!((cluster.at(id, "rack"), cluster.waiting()), (counts(&[("a", 2), ("b", 2), ("c", 2)]), 4));
        cluster.agents(7, &["d", ""], 4_000);
        assert_eq!((cluster.at(id, "rack"), cluster.waiting()), (counts(&[("a", 2), ("b", 2), ("c", 2), ("d", 2)]), 2));
        // Where an agent stands elsewhere, so do its tasks.
        let moved = *cluster.held.iter().find(|(_, held)| !held.is_empty()).unwrap().0;
        cluster.agent(moved, &[("rack", "e")], 4_000);
        cluster.pass(5_000);
        assert!(cluster.at(id, "rack").values().all(|n| *n <= 2), "{:?}", cluster.at(id, "rack"));
        cluster.check();
    }
}

#[test]
fn a_cluster_is_where_its_first_task_is() {
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards);
        cluster.agents(1, &["a", "b", "a", "b", "c"], 1_100);
        let id = cluster.submit(placed(5, 500, &[("rack", Rule::Cluster(None))], &[]));
        let at = cluster.at(id, "rack");
        assert_eq!(at.len(), 1, "{at:?}");
        assert_eq!(at.values().sum::<usize>() as u64 + cluster.waiting(), 5);
        let fixed = cluster.submit(Job { name: None, ..placed(1, 100, &[("rack", Rule::Cluster(Some("c".into())))], &[]) });
        assert_eq!(cluster.at(fixed, "rack"), counts(&[("c", 1)]));
        cluster.check();
    }
}

#[test]
fn groups_are_even_and_wait_until_there_are_enough() {
    for shards in [1, 3, 8] {
        let mut cluster = Cluster::new(shards);
        cluster.agents(1, &["a", "a", "b", "b", "a"], 4_000);
        let id = cluster.submit(placed(9, 100, &[("rack", Rule::GroupBy(3))], &[]));
        assert_eq!((cluster.at(id, "rack"), cluster.waiting()), (counts(&[("a", 1), ("b", 1)]), 7));
        cluster.agents(6, &["c"], 200);
        assert_eq!((cluster.at(id, "rack"), cluster.waiting()), (counts(&[("a", 3), ("b", 3), ("c", 2)]), 1), "{shards} shards");
        cluster.agents(7, &["c"], 200);
        assert_eq!(cluster.at(id, "rack"), counts(&[("a", 3), ("b", 3), ("c", 3)]));
        cluster.new_leader();
        cluster.ask(0, Request::Scale { job: JobRef::Id(id), count: 12 });
        assert_eq!(cluster.at(id, "rack"), counts(&[("a", 4), ("b", 4), ("c", 4)]));
        cluster.check();
    }
}

#[test]
fn spreading_is_even_where_it_can_be_and_never_a_reason_to_wait() {
    for shards in [1, 3, 8] {
        let mut cluster = Cluster::new(shards);
        cluster.agents(1, &["a", "a", "a", "b", "c", "c"], 4_000);
        let id = cluster.submit(placed(10, 100, &[], &["rack"]));
        let mut even: Vec<usize> = cluster.at(id, "rack").into_values().collect();
        even.sort_unstable();
        assert_eq!(even, [3, 3, 4], "{shards} shards");
        // A rack that is full is passed over.
        let more = cluster.submit(Job { name: None, ..placed(100, 100, &[], &["rack"]) });
        let at = cluster.at(more, "rack");
        assert_eq!((at.values().sum::<usize>(), cluster.waiting()), (100, 0));
        assert!(at["b"] >= 33 && at["a"].abs_diff(at["c"]) <= 1, "{at:?}");
        let rest = cluster.submit(Job { name: None, ..placed(300, 100, &[], &["rack"]) });
        assert_eq!(cluster.at(rest, "rack").values().sum::<usize>(), 130, "all that there is");
        cluster.pass(3_000);
        cluster.check();
    }
}

#[test]
fn a_new_version_with_other_rules_is_placed_by_those() {
    let mut cluster = Cluster::new(3);
    cluster.agents(1, &["a", "a", "b", "b"], 4_000);
    let id = cluster.submit(placed(4, 100, &[("rack", Rule::Is("a".into()))], &[]));
    assert_eq!(cluster.at(id, "rack"), counts(&[("a", 4)]));
    cluster.ask(0, Request::Apply { job: placed(4, 100, &[("hostname", Rule::Unique)], &[]) });
    // Each task that ends makes room for one of the new version.
    for _ in 0..4 {
        for agent in [1, 2].map(AgentId) {
            let old = cluster.held[&agent].len();
            if old > 1 {
                cluster.end(agent, id, &Exit::Killed);
            }
        }
    }
    assert_eq!((cluster.on(id), cluster.waiting()), (vec![1; 4], 0));
    cluster.ask(0, Request::Apply { job: Job { place: None, ..placed(4, 100, &[], &[]) } });
    assert!(cluster.shards[0].jobs.live(id).unwrap().stands.is_empty());
    cluster.check();
}

#[test]
fn what_is_offered_in_vain_is_not_offered_again_and_again() {
    let mut cluster = Cluster::new(8);
    cluster.agents(1, &["a"; 40], 4_000);
    let id = cluster.submit(placed(10, 100, &[("rack", Rule::MaxPer(3))], &[]));
    assert_eq!((cluster.at(id, "rack"), cluster.waiting()), (counts(&[("a", 3)]), 7));
    let before = cluster.declined;
    cluster.pass(10_000);
    assert_eq!(cluster.declined, before);
    assert!(before <= 8 * 3, "each shard may offer as much as the rack takes before it hears of the others: {before}");
}

#[test]
fn an_explanation_counts_who_is_refused_by_which_rule() {
    use crate::shard::view::{View, Viewed};
    let mut cluster = Cluster::new(1);
    cluster.agents(1, &["r1", "r2", "r2"], 1_000);
    let id = cluster.submit(placed(1, 100, &[("rack", Rule::Is("r9".into()))], &[]));
    let place = |rules: &[(&str, Rule)]| (*placed(1, 100, rules, &[]).place.unwrap()).clone();
    let view = |cluster: &Cluster, place: Placement, limits| {
        let view = View::ExplainPlaced { role: as_role("default"), shape: cpu(100), place, limits };
        let Viewed::Shape(view) = cluster.shards[0].viewed(view).unwrap() else { panic!() };
        view
    };
    let shape = view(&cluster, place(&[("rack", Rule::Is("r9".into()))]), vec![]);
    assert_eq!((shape.agents, shape.fitting, shape.would_fit_empty), (3, 0, 0));
    assert_eq!(shape.short, BTreeMap::from([("place: rack is not r9".to_owned(), 3)]));
    assert_eq!(shape.change, r#"without ["rack", "IS", "r9"] it would fit on agent a1 now"#);
    let shape = view(&cluster, place(&[("rack", Rule::Is("r1".into())), ("zone", Rule::Unique)]), vec![]);
    assert_eq!(shape.short, BTreeMap::from([("place: it has no zone".to_owned(), 3), ("place: rack is not r1".to_owned(), 2)]));
    cluster.ask(0, Request::Stop { job: JobRef::Id(id), grace_ms: 0 });
    let id = cluster.submit(placed(4, 100, &[("rack", Rule::MaxPer(1))], &[]));
    let Viewed::Limits(limits) = cluster.shards[0].viewed(View::Limits { job: JobRef::Id(id) }).unwrap() else { panic!() };
    let shape = view(&cluster, place(&[("rack", Rule::MaxPer(1))]), limits);
    assert_eq!(shape.short, BTreeMap::from([("place: no more tasks of the job may be at this rack".to_owned(), 3)]));
}
