//! System jobs: one task on each agent that matches, wherever that is kept, and nowhere else.

use super::deployments::quick;
use super::placed::Cluster;
use super::*;
use crate::jobs::rollout::State;
use crate::shard::drains::ModeWish;
use crate::shard::quotas::RoleSettings;
use protocol::job::Update as How;
use protocol::message::shard_of_agent;
use protocol::{Constraint, Field, Placement, Rule};

const C: AgentId = AgentId(3);
const SECOND: u64 = 1_000;

fn everywhere(args: &str, cpu_milli: u64, update: How) -> Job {
    let restart = Restart { backoff_first_ms: 500, backoff_factor_milli: 1_000, ..job(Kind::System, 0, 1).restart };
    let mut system = Job { name: Some(name("log")), update, restart, ..job(Kind::System, 0, cpu_milli) };
    Arc::make_mut(&mut system.template).members[0].args = vec![args.into()];
    system
}

fn only(job: Job, field: &str, rule: Rule) -> Job {
    let constraints = vec![Constraint { field: Field::named(field), rule }];
    Job { place: Some(Arc::new(Placement { constraints, spread: vec![] })), ..job }
}

impl World {
    /// What agents hold of a job and has not ended.
    fn of(&self, agent: AgentId, id: JobId) -> Vec<AttemptId> {
        self.held(agent).into_iter().filter(|attempt| attempt.task.job == id).collect()
    }

    /// How many tasks of a job each agent has.
    fn spread(&self, id: JobId) -> Vec<usize> {
        self.agents.keys().map(|agent| self.of(*agent, id).len()).collect()
    }

    /// Tasks do as they are told on these agents; those of a version that is `bad` fail. Gives back the fewest that ran at once.
    fn work(&mut self, id: JobId, agents: &[AgentId], bad: &[u32], rounds: usize) -> u32 {
        let mut fewest = u32::MAX;
        for _ in 0..rounds {
            fewest = fewest.min(self.count(id, Phase::Running));
            for agent in agents {
                let (held, killed) = (self.held(*agent), std::mem::take(&mut self.agents.get_mut(agent).unwrap().killed));
                let killed: Vec<AttemptId> = killed.into_iter().filter(|attempt| held.contains(attempt)).collect();
                self.end(*agent, &killed, &Exit::Killed);
                for attempt in self.held(*agent) {
                    let Some(view) = self.shard.task_view(attempt.task.job, attempt.task.index) else { continue };
                    match view.phase {
                        Phase::Staging if bad.contains(&view.version) => self.end(*agent, &[attempt], &Exit::Code(3)),
                        Phase::Staging => self.running(*agent, &[attempt]),
                        _ => {}
                    }
                }
                assert!(self.of(*agent, id).len() <= 1, "two on one agent");
            }
            self.pass(50, agents);
        }
        self.check();
        fewest
    }

    fn versions_on(&self, id: JobId, agents: &[AgentId]) -> Vec<u32> {
        let version = |attempt: &AttemptId| self.shard.task_view(id, attempt.task.index).map(|view| view.version);
        agents.iter().filter_map(|agent| self.of(*agent, id).first().and_then(version)).collect()
    }

    fn set_mode(&mut self, agent: AgentId, mode: ModeWish) {
        let answer = self.ask(Request::SetMode { agent, mode });
        assert!(matches!(answer, Response::Done), "{answer:?}");
    }
}

fn three(update: How) -> (World, JobId) {
    let mut world = World::new();
    for agent in [A, B, C] {
        world.register(agent, cpu(1_000), 1);
    }
    let (id, _) = world.deploy(everywhere("1", 100, update));
    world.work(id, &[A, B, C], &[], 5);
    assert_eq!((world.spread(id), world.job(id).job.count, world.deployment(id).state), (vec![1, 1, 1], 3, State::Done));
    (world, id)
}

#[test]
fn each_agent_has_one_whoever_joins_gets_one_and_what_is_lost_is_nowhere_else() {
    let mut world = World::new();
    let (id, _) = world.deploy(everywhere("1", 100, quick()));
    world.pass(SECOND, &[]);
    assert_eq!((world.job(id).job.count, world.deployment(id).state), (0, State::Done), "nobody matches, and all have said so");
    world.register(A, cpu(1_000), 1);
    world.register(B, cpu(1_000), 1);
    world.work(id, &[A, B], &[], 3);
    assert_eq!((world.spread(id), world.count(id, Phase::Running)), (vec![1, 1], 2));
    world.register(C, cpu(1_000), 1);
    world.work(id, &[A, B, C], &[], 3);
    assert_eq!(world.spread(id), [1, 1, 1]);
    world.pass(60 * SECOND, &[A, C]);
    assert_eq!((world.count(id, Phase::Running), world.job(id).job.count), (2, 2), "the job does without the agent that is lost");
    assert_eq!((world.of(A, id).len(), world.of(C, id).len(), world.count(id, Phase::Waiting)), (1, 1, 0));
    let before = world.of(B, id);
    world.agents.get_mut(&B).unwrap().held.clear();
    world.register(B, cpu(1_000), 2);
    world.work(id, &[A, B, C], &[], 3);
    let after = world.of(B, id);
    assert_eq!((after[0].task, after[0].number), (before[0].task, 2), "the index that it had");
    world.ask(Request::Gone { agent: A });
    world.work(id, &[B, C], &[], 3);
    assert_eq!((world.job(id).job.count, world.count(id, Phase::Running)), (2, 2));
    world.ask(Request::Stop { job: JobRef::Id(id), grace_ms: 0 });
    world.work(id, &[B, C], &[], 3);
    assert!(world.job(id).ended.is_some());
    world.check();
}

#[test]
fn what_finds_no_room_waits_for_its_own_agent_and_nobody_waits_for_it() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    let full = world.submit(job(Kind::Service, 1, 950));
    world.register(B, cpu(1_000), 1);
    world.register(C, cpu(50), 1);
    let (id, _) = world.deploy(everywhere("1", 100, quick()));
    world.work(id, &[A, B, C], &[], 5);
    assert_eq!((world.spread(id), world.job(id).job.count), (vec![0, 1, 0], 3));
    let view = world.deployment(id);
    assert_eq!((view.state, view.ready, view.count), (State::Done, 1, 1), "two of three have no room, and that is no fault of it");
    let said = world.peers_said;
    world.pass(10 * SECOND, &[A, B, C]);
    assert!(world.peers_said - said < 100, "{} letters in ten seconds of nothing", world.peers_said - said);
    world.ask(Request::Stop { job: JobRef::Id(full), grace_ms: 0 });
    world.work(id, &[A, B, C], &[], 5);
    assert_eq!((world.spread(id), world.count(id, Phase::Waiting)), (vec![1, 1, 0], 1));
    world.check();
}

#[test]
fn what_ends_by_itself_begins_again_where_it_was_after_a_while() {
    let (mut world, id) = three(quick());
    for exit in [Exit::Code(1), Exit::Code(0), Exit::Lost { reason: protocol::Loss::Executor }] {
        let before = world.of(B, id);
        world.end(B, &before, &exit);
        world.pass(300, &[A, B, C]);
        assert_eq!((world.spread(id), world.count(id, Phase::Waiting)), (vec![1, 0, 1], 1), "it waits, and nobody else has it");
        world.work(id, &[A, B, C], &[], 10);
        let after = world.of(B, id);
        assert_eq!((world.spread(id), after[0].task, after[0].number), (vec![1, 1, 1], before[0].task, before[0].number + 1));
    }
    world.ask(Request::Kill { job: JobRef::Id(id), attempts: vec![(0, 1)], grace_ms: 0 });
    world.work(id, &[A, B, C], &[], 3);
    assert_eq!(world.spread(id), [1, 1, 1], "and at once where somebody stopped it");
}

#[test]
fn a_drained_agent_has_none_until_it_is_resumed_and_an_inactive_one_keeps_its_own() {
    let (mut world, id) = three(quick());
    let task = world.of(B, id)[0].task;
    world.set_mode(B, ModeWish::Drain { grace_ms: 100, wait_ms: 0, gone: false });
    world.work(id, &[A, B, C], &[], 5);
    assert_eq!((world.spread(id), world.job(id).job.count, world.count(id, Phase::Waiting)), (vec![1, 0, 1], 2, 0));
    world.set_mode(B, ModeWish::Activate);
    world.work(id, &[A, B, C], &[], 5);
    assert_eq!((world.spread(id), world.of(B, id)[0].task), (vec![1, 1, 1], task));
    // Resumed before what was there has ended.
    world.set_mode(B, ModeWish::Drain { grace_ms: 100, wait_ms: 0, gone: false });
    world.set_mode(B, ModeWish::Activate);
    world.work(id, &[A, B, C], &[], 5);
    assert_eq!((world.spread(id), world.job(id).job.count), (vec![1, 1, 1], 3));
    world.set_mode(B, ModeWish::Deactivate);
    world.work(id, &[A, B, C], &[], 3);
    assert_eq!(world.spread(id), [1, 1, 1]);
    let (id2, _) = world.deploy(Job { name: Some(name("other")), ..everywhere("1", 100, quick()) });
    world.work(id2, &[A, B, C], &[], 3);
    assert_eq!((world.spread(id2), world.job(id2).job.count), (vec![1, 0, 1], 2), "one that is given no tasks is given none of these");
}

#[test]
fn an_agent_that_is_another_than_before_loses_its_task() {
    let mut world = World::new();
    let register = |world: &mut World, agent: AgentId, rack: &str, gpu: u64| {
        let mut info = AgentInfo { name: format!("agent-{}", agent.0), capacity: cpu(1_000), ..AgentInfo::default() };
        info.domain.rack = rack.into();
        info.capacity.devices.extend((gpu > 0).then(|| protocol::resources::Device { name: name("gpu"), milli: gpu }));
        world.say(agent, FromAgent::Register { info, incarnation: 1, number: 1 });
        world.report(agent, 0);
    };
    register(&mut world, A, "r1", 1_000);
    register(&mut world, B, "r2", 1_000);
    register(&mut world, C, "r1", 0);
    let (id, _) = world.deploy(only(everywhere("1", 100, quick()), "rack", Rule::Like("r1|r3".into())));
    let gpu = Resources { devices: vec![protocol::resources::Device { name: name("gpu"), milli: 500 }], ..cpu(100) };
    let mut with_gpu = Job { name: Some(name("gpus")), ..everywhere("1", 100, quick()) };
    let template = Arc::make_mut(&mut with_gpu.template);
    (template.resources, template.members[0].resources) = (gpu.clone(), gpu);
    let (gpus, _) = world.deploy(with_gpu);
    world.work(id, &[A, B, C], &[], 5);
    assert_eq!((world.spread(id), world.spread(gpus)), (vec![1, 0, 1], vec![1, 1, 0]));
    assert_eq!((world.job(id).job.count, world.job(gpus).job.count), (2, 2), "without a device of that kind there is nothing to wait for");
    register(&mut world, A, "r2", 1_000);
    register(&mut world, B, "r3", 1_000);
    world.work(id, &[A, B, C], &[], 5);
    assert_eq!((world.spread(id), world.spread(gpus)), (vec![0, 1, 1], vec![1, 1, 0]));
}

#[test]
fn a_new_version_goes_from_agent_to_agent_and_a_bad_one_goes_back() {
    let (mut world, id) = three(quick());
    let agents = [A, B, C];
    let places: Vec<_> = agents.iter().map(|agent| world.of(*agent, id)[0].task).collect();
    let (again, deployment) = world.deploy(everywhere("2", 200, quick()));
    assert_eq!((again, deployment.map(|of| of.number)), (id, Some(2)));
    let fewest = world.work(id, &agents, &[], 20);
    assert!(fewest >= 2, "one at a time: {fewest}");
    assert_eq!((world.versions_on(id, &agents), world.deployment(id).state), (vec![2, 2, 2], State::Done));
    assert_eq!(agents.iter().map(|agent| world.of(*agent, id)[0].task).collect::<Vec<_>>(), places, "each where it was");
    world.deploy(everywhere("3", 200, quick()));
    let fewest = world.work(id, &agents, &[3], 200);
    assert!(fewest >= 2, "the others go on: {fewest}");
    let view = world.deployment(id);
    assert_eq!((world.versions_on(id, &agents), view.to, view.state), (vec![2, 2, 2], 2, State::Done));
    // More than an agent has: at its deadline the version before is back.
    world.deploy(everywhere("4", 5_000, How { deadline_ms: 5_000, ..quick() }));
    world.work(id, &agents, &[], 700);
    assert_eq!((world.versions_on(id, &agents), world.deployment(id).to), (vec![2, 2, 2], 2));
    let answer = world.ask(Request::Rollback { job: JobRef::Id(id), to: Some(1), force: false });
    assert!(matches!(answer, Response::Deployed { .. }), "{answer:?}");
    world.work(id, &agents, &[], 30);
    assert_eq!(world.versions_on(id, &agents), [1, 1, 1]);
    world.ask(Request::Restart { job: JobRef::Id(id), force: false });
    world.work(id, &agents, &[], 30);
    assert_eq!((world.versions_on(id, &agents), world.spread(id)), (vec![5, 5, 5], vec![1, 1, 1]));
    let scaled = world.ask(Request::Scale { job: JobRef::Id(id), count: 9 });
    assert!(matches!(scaled, Response::Refused(Refusal::Invalid { .. })), "{scaled:?}");
}

#[test]
fn a_full_agent_does_not_hold_up_a_new_version_and_a_task_of_before_waits_apart() {
    let (mut world, id) = three(How { deadline_ms: 600_000, ..quick() });
    let agents = [A, B, C];
    let full = world.submit(only(job(Kind::Service, 1, 850), "hostname", Rule::Is("agent-2".into())));
    assert_eq!(world.of(B, full).len(), 1);
    // The new version is larger: there is none for B until it has room, and the old one goes on there.
    world.deploy(everywhere("2", 200, How { deadline_ms: 600_000, ..quick() }));
    world.work(id, &agents, &[], 20);
    let waits = world.count(id, Phase::Waiting);
    assert_eq!((world.versions_on(id, &[A, B, C]).iter().filter(|version| **version == 2).count(), waits), (1, 1));
    assert_eq!(world.deployment(id).state, State::Running, "what was replaced is missed");
    // One of the version before ends by itself: it begins again as that, apart from the one that waits.
    let before = world.of(C, id);
    world.end(C, &before, &Exit::Code(1));
    world.work(id, &agents, &[], 20);
    assert_eq!(world.versions_on(id, &[C]), [1]);
    world.ask(Request::Stop { job: JobRef::Id(full), grace_ms: 0 });
    world.work(id, &agents, &[], 30);
    assert_eq!((world.versions_on(id, &agents), world.deployment(id).state), (vec![2, 2, 2], State::Done));
    // A newcomer without room is no part of a deployment.
    world.register(AgentId(4), cpu(10), 1);
    world.deploy(everywhere("3", 200, quick()));
    world.work(id, &[A, B, C, AgentId(4)], &[], 30);
    assert_eq!((world.versions_on(id, &agents), world.deployment(id).state, world.job(id).job.count), (vec![3, 3, 3], State::Done, 4));
}

#[test]
fn a_new_leader_moves_nothing_and_knows_who_was_lost() {
    let (mut world, id) = three(quick());
    world.pass(60 * SECOND, &[A, B]);
    assert_eq!(world.job(id).job.count, 2);
    let held = [world.of(A, id), world.of(B, id)];
    world.set_mode(B, ModeWish::Drain { grace_ms: 0, wait_ms: 0, gone: false });
    world.set_mode(B, ModeWish::Activate);
    world.new_leader();
    assert_eq!(world.job(id).job.count, 2, "who was not there is not, until it comes");
    for agent in [A, B] {
        world.register(agent, cpu(1_000), 1);
    }
    world.work(id, &[A, B], &[], 10);
    assert_eq!((world.job(id).job.count, world.of(A, id) == held[0], world.of(B, id).len()), (2, true, 1));
    world.pass(60 * SECOND, &[A, B]);
    assert_eq!((world.job(id).job.count, world.count(id, Phase::Running)), (2, 2));
    // A leader that dies while a task is to leave its agent: the next one ends it.
    let left = world.of(B, id);
    world.set_mode(B, ModeWish::Drain { grace_ms: 0, wait_ms: 0, gone: false });
    world.agents.get_mut(&B).unwrap().killed.clear();
    world.new_leader();
    world.register(A, cpu(1_000), 1);
    world.register(B, cpu(1_000), 1);
    assert_eq!(world.agents[&B].killed.iter().collect::<BTreeSet<_>>(), left.iter().collect());
    world.work(id, &[A, B], &[], 5);
    assert_eq!((world.job(id).job.count, world.of(B, id).len()), (1, 0));
}

#[test]
fn agents_of_other_shards_have_one_too_and_each_its_own() {
    let mut cluster = Cluster::new(3);
    let agents: Vec<AgentId> = (1..=30).map(AgentId).collect();
    assert_eq!(agents.iter().map(|agent| shard_of_agent(*agent, 3)).collect::<BTreeSet<_>>().len(), 3);
    for agent in &agents {
        cluster.agent(*agent, &[("rack", if agent.0 % 3 == 0 { "r2" } else { "r1" })], if agent.0 == 7 { 50 } else { 1_000 });
    }
    let id = cluster
        .ask(1, Request::Submit { job: only(everywhere("1", 100, quick()), "rack", Rule::Is("r1".into())), key: None, follow: false });
    cluster.pass(2 * SECOND);
    let right = |cluster: &Cluster, more: u64| {
        for agent in (1..=30 + more).map(AgentId) {
            let own = cluster.held[&agent].iter().filter(|attempt| attempt.task.job == id).count();
            assert_eq!(own, usize::from(agent.0 % 3 != 0 && agent.0 != 7), "{agent:?}");
        }
    };
    right(&cluster, 0);
    cluster.agent(AgentId(31), &[("rack", "r1")], 1_000);
    cluster.pass(SECOND);
    right(&cluster, 1);
    // Another leader of the jobs' shard, and then of each.
    for at in [1, 0, 2] {
        let shard = Shard::restore(cluster.shards[at].config().clone(), cluster.shards[at].snapshot());
        cluster.shards[at] = shard;
        let now = cluster.now();
        cluster.shards[at].lead(now);
        cluster.settle();
        for agent in (1..=31).map(AgentId).filter(|agent| usize::from(shard_of_agent(*agent, 3).0) == at) {
            cluster.agent(agent, &[("rack", if agent.0 % 3 == 0 { "r2" } else { "r1" })], if agent.0 == 7 { 50 } else { 1_000 });
        }
        cluster.pass(2 * SECOND);
        right(&cluster, 1);
    }
}

#[test]
fn the_first_tasks_begin_once_what_they_begin_after_does_its_work() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    let (id, _) = world.deploy(Job { after: vec![name("db")], ..everywhere("1", 100, quick()) });
    world.work(id, &[A], &[], 10);
    assert_eq!((world.spread(id), world.count(id, Phase::Waiting), world.deployment(id).state), (vec![0], 1, State::Running));
    let (db, _) = world.deploy(Job { name: Some(name("db")), update: quick(), ..job(Kind::Service, 1, 100) });
    world.work(db, &[A], &[], 40);
    assert_eq!((world.spread(id), world.deployment(id).state), (vec![1], State::Done));
    // And another begins after it.
    let (next, _) = world.deploy(Job { name: Some(name("web")), after: vec![name("log")], update: quick(), ..job(Kind::Service, 1, 100) });
    world.work(next, &[A], &[], 40);
    assert_eq!(world.spread(next), [1]);
}

#[test]
fn a_role_with_a_limit_has_as_many_as_that_lets() {
    let mut world = World::new();
    for agent in [A, B, C] {
        world.register(agent, cpu(1_000), 1);
    }
    let limit = limits::Quota::new([(protocol::resources::ResourceKind::Cpu, 250)]);
    let settings = RoleSettings { limit, ..RoleSettings::default() };
    world.ask(Request::SetRole { role: as_role("default"), settings, force: false });
    world.pass(2 * SECOND, &[A, B, C]);
    let (id, _) = world.deploy(everywhere("1", 100, quick()));
    world.work(id, &[A, B, C], &[], 40);
    assert_eq!((world.spread(id).iter().sum::<usize>(), world.count(id, Phase::Waiting), world.job(id).job.count), (2, 1, 3));
    world.ask(Request::SetRole { role: as_role("default"), settings: RoleSettings::default(), force: false });
    world.work(id, &[A, B, C], &[], 60);
    assert_eq!(world.spread(id), [1, 1, 1]);
}

#[test]
fn many_agents_cost_as_many_letters_and_records_as_they_are_and_then_none() {
    let mut world = World::new();
    let agents: Vec<AgentId> = (1..=400).map(AgentId).collect();
    for agent in &agents[..300] {
        world.register(*agent, cpu(1_000), 1);
    }
    let (said, records) = (world.peers_said, world.journal.len());
    let (id, _) = world.deploy(everywhere("1", 100, quick()));
    let (said, records) = (world.peers_said - said, world.journal.len() - records);
    assert!(said < 300 + 20 && records < 300 + 20, "{said} letters, {records} records");
    let before = world.peers_said;
    for agent in &agents[300..] {
        world.register(*agent, cpu(1_000), 1);
    }
    assert_eq!(world.job(id).job.count, 400);
    let letters = (world.peers_said - before) / 100;
    assert!(letters < 25, "{letters} letters for one that joins");
    let all: Vec<AttemptId> = agents.iter().flat_map(|agent| world.held(*agent)).collect();
    assert_eq!(all.len(), 400);
    for agent in &agents {
        let held = world.held(*agent);
        world.running(*agent, &held);
    }
    world.pass(2 * SECOND, &agents);
    let (said, records) = (world.peers_said, world.journal.len());
    world.pass(5 * SECOND, &agents);
    assert!(world.peers_said - said < 40 && world.journal.len() == records, "{} letters of nothing", world.peers_said - said);
    world.check();
}
