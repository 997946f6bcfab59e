//! Tasks of higher priority take the place of others, where their role may.

use super::*;
use crate::shard::preempt::Preempts;
use crate::shard::quotas::RoleSettings;
use crate::shard::roles::Claim;

fn may(preempts: Preempts) -> RoleSettings {
    RoleSettings { claim: Claim { preempts, ..Claim::default() }, ..RoleSettings::default() }
}

fn urgent(role: &str, priority: u8, count: u32, cpu_milli: u64) -> Job {
    Job { role: as_role(role), priority, ..job(Kind::Batch, count, cpu_milli) }
}

impl World {
    fn let_preempt(&mut self, role: &str, preempts: Preempts) {
        let response = self.ask(Request::SetRole { role: as_role(role), settings: may(preempts), force: false });
        assert!(matches!(response, Response::Done), "{response:?}");
    }

    /// Tasks that were asked to stop do so, as far as they were not before.
    fn obey(&mut self, agent: AgentId) -> Vec<AttemptId> {
        let killed = std::mem::take(&mut self.agents.get_mut(&agent).unwrap().killed);
        self.end(agent, &killed, &Exit::Killed);
        killed
    }

    fn held_of(&self, agent: AgentId, job: JobId) -> usize {
        self.held(agent).iter().filter(|attempt| attempt.task.job == job).count()
    }
}

#[test]
fn a_task_of_higher_priority_takes_the_place_of_the_cheapest_others() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.register(B, cpu(1_000), 1);
    world.let_preempt("web", Preempts::All);
    let low = world.submit(urgent("batch", 10, 2, 500));
    let middle = world.submit(urgent("batch", 40, 2, 500));
    assert_eq!(world.held(A).len() + world.held(B).len(), 4);
    let web = world.submit(urgent("web", 60, 1, 500));
    world.pass(100, &[A, B]);
    let asked: Vec<AttemptId> = [A, B].into_iter().flat_map(|agent| world.obey(agent)).collect();
    assert_eq!(asked.iter().map(|attempt| attempt.task.job).collect::<Vec<_>>(), [low], "one, of the lowest priority");
    assert_eq!(world.held_of(A, web) + world.held_of(B, web), 1, "what was made free is its own");
    assert_eq!((world.count(low, Phase::Waiting), world.job(low).restarts), (1, 1), "who left waits again");
    assert_eq!(world.count(middle, Phase::Waiting), 0);
    let reason = world.journal.iter().find_map(|record| match record {
        Record::Ended { ends, .. } => Some(ends[0].exit.clone()),
        _ => None,
    });
    assert_eq!(reason, Some(Exit::Lost { reason: protocol::Loss::Preempted }));
    world.pass(60_000, &[A, B]);
    assert!(world.agents[&A].killed.is_empty() && world.agents[&B].killed.is_empty(), "nobody else has to go");
    world.check();
}

#[test]
fn whoever_may_not_and_who_is_no_more_urgent_waits() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.submit(urgent("batch", 50, 2, 500));
    world.let_preempt("web", Preempts::All);
    world.let_preempt("shop", Preempts::Own);
    for job in [urgent("other", 100, 1, 500), urgent("web", 50, 1, 500), urgent("shop", 100, 1, 500), urgent("web", 100, 1, 1_500)] {
        let id = world.submit(job);
        world.pass(5_000, &[A]);
        assert!(world.agents[&A].killed.is_empty(), "{:?}", world.job(id).job);
        world.ask(Request::Stop { job: JobRef::Id(id), grace_ms: 0 });
    }
    world.check();
}

#[test]
fn a_role_may_be_let_preempt_itself_and_those_below_it() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.let_preempt("web", Preempts::Own);
    let other = world.submit(urgent("other", 10, 1, 500));
    let below = world.submit(urgent("web/shop", 20, 1, 500));
    let web = world.submit(urgent("web", 60, 1, 500));
    world.pass(100, &[A]);
    assert_eq!(world.obey(A).iter().map(|attempt| attempt.task.job).collect::<Vec<_>>(), [below], "though the other is less urgent");
    assert_eq!((world.held_of(A, web), world.held_of(A, other)), (1, 1));
    world.check();
}

#[test]
fn no_more_are_asked_than_must_and_wasm_before_others() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    world.let_preempt("web", Preempts::All);
    let mut native = urgent("batch", 10, 1, 900);
    let mut template = (*native.template).clone();
    template.members[0].program = Program::Native { bundle: Digest([1; 32]), file: "p".into(), process: protocol::job::Process::default() };
    native.template = Arc::new(template);
    let native = world.submit(native);
    let small = world.submit(urgent("batch", 10, 2, 100));
    let large = world.submit(urgent("batch", 10, 1, 900));
    let web = world.submit(urgent("web", 60, 1, 900));
    world.pass(100, &[A]);
    let asked: Vec<JobId> = world.obey(A).iter().map(|attempt| attempt.task.job).collect();
    assert_eq!(asked, [large], "not the native one, and none that does not help");
    assert_eq!((world.held_of(A, web), world.held_of(A, native), world.held_of(A, small)), (1, 1, 2));
    world.check();
}

#[test]
fn what_a_role_is_guaranteed_is_not_taken() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.let_preempt("web", Preempts::All);
    let settings = RoleSettings { claim: Claim { guarantee: cpu(600), ..Claim::default() }, ..RoleSettings::default() };
    world.ask(Request::SetRole { role: as_role("batch"), settings, force: false });
    let batch = world.submit(urgent("batch", 10, 10, 100));
    let web = world.submit(urgent("web", 60, 10, 100));
    for _ in 0..5 {
        world.pass(1_500, &[A]);
        world.obey(A);
    }
    assert_eq!((world.held_of(A, batch), world.held_of(A, web)), (6, 4));
    world.check();
}

#[test]
fn a_new_leader_knows_priorities_and_room_that_is_not_made_is_given_up() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.let_preempt("web", Preempts::All);
    let high = world.submit(urgent("batch", 70, 1, 500));
    let low = world.submit(urgent("batch", 20, 1, 500));
    world.new_leader();
    world.register(A, cpu(1_000), 1);
    world.pass(100, &[A]);
    let web = world.submit(urgent("web", 60, 2, 500));
    world.pass(100, &[A]);
    let asked = std::mem::take(&mut world.agents.get_mut(&A).unwrap().killed);
    assert_eq!(asked.iter().map(|attempt| attempt.task.job).collect::<Vec<_>>(), [low]);
    // It does not stop in time: what comes later is another want's or the same one's, as any room is.
    world.pass(40_000, &[A]);
    world.end(A, &asked, &Exit::Killed);
    world.pass(1_000, &[A]);
    assert_eq!((world.held_of(A, web), world.held_of(A, high)), (1, 1));
    world.check();
}

#[test]
fn room_that_is_kept_for_a_guarantee_is_not_taken_beside_what_others_leave() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.let_preempt("web", Preempts::All);
    let settings = RoleSettings { claim: Claim { guarantee: cpu(500), ..Claim::default() }, ..RoleSettings::default() };
    world.ask(Request::SetRole { role: as_role("kept"), settings, force: false });
    world.pass(200, &[A]);
    let batch = world.submit(urgent("batch", 10, 1, 500));
    let large = world.submit(urgent("web", 60, 1, 800));
    world.pass(3_000, &[A]);
    assert!(world.agents[&A].killed.is_empty(), "three hundred of it would be the other's");
    world.ask(Request::Stop { job: JobRef::Id(large), grace_ms: 0 });
    let small = world.submit(urgent("web", 60, 1, 500));
    world.pass(3_000, &[A]);
    world.obey(A);
    assert_eq!((world.held_of(A, batch), world.held_of(A, small)), (0, 1));
    world.check();
}

#[test]
fn who_is_more_urgent_by_now_stays_and_is_not_asked_for_ever() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.let_preempt("web", Preempts::All);
    let service = |priority| Job { name: Some(name("svc")), priority, ..job(Kind::Service, 1, 600) };
    let svc = match world.ask(Request::Apply { job: service(10) }) {
        Response::Submitted { job, .. } => job,
        other => panic!("{other:?}"),
    };
    world.pass(100, &[A]);
    world.ask(Request::Apply { job: service(70) });
    world.pass(20_000, &[A]);
    assert_eq!(world.held_of(A, svc), 1);
    world.submit(urgent("web", 60, 1, 600));
    world.pass(40_000, &[A]);
    assert!(world.agents[&A].killed.is_empty(), "its shard knows better");
    let other = world.submit(urgent("batch", 10, 1, 400));
    world.pass(5_000, &[A]);
    assert_eq!((world.held_of(A, svc), world.held_of(A, other)), (1, 1), "what is free is not kept for what does not come");
    world.check();
}
