//! Weights, guarantees and limits of roles.

use super::*;
use crate::shard::limits::Quota;
use crate::shard::quotas::RoleSettings;
use crate::shard::roles::Claim;
use protocol::resources::ResourceKind;

const A: AgentId = AgentId(1);
const B: AgentId = AgentId(2);

fn limited(cpu_milli: u64) -> RoleSettings {
    RoleSettings { claim: Claim::default(), limit: Quota::new([(ResourceKind::Cpu, cpu_milli)]) }
}

fn weighted(weight_milli: u32) -> RoleSettings {
    RoleSettings { claim: Claim { weight_milli, ..Claim::default() }, ..RoleSettings::default() }
}

fn guaranteed(cpu_milli: u64) -> RoleSettings {
    RoleSettings { claim: Claim { guarantee: cpu(cpu_milli), ..Claim::default() }, ..RoleSettings::default() }
}

impl World {
    fn set_role(&mut self, role: &str, settings: RoleSettings) -> Response {
        let response = self.ask(Request::SetRole { role: as_role(role), settings, force: false });
        self.pass(100, &[]);
        response
    }

    fn set(&mut self, role: &str, settings: RoleSettings) {
        let response = self.set_role(role, settings);
        assert!(matches!(response, Response::Done), "{response:?}");
    }

    fn submit_for(&mut self, role: &str, count: u32, cpu_milli: u64) -> JobId {
        self.submit(Job { role: as_role(role), ..job(Kind::Batch, count, cpu_milli) })
    }

    /// How many tasks of a job are on agents.
    fn live(&self, job: JobId) -> u32 {
        self.shard.jobs.live(job).map_or(0, |job| job.live)
    }
}

#[test]
fn a_role_never_holds_more_than_its_limit() {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    world.set("web", limited(1_050));
    let (web, other) = (world.submit_for("web", 50, 100), world.submit_for("other", 5, 100));
    world.pass(200, &[A]);
    assert_eq!((world.live(web), world.live(other)), (10, 5));
    let ended: Vec<AttemptId> = world.held(A).into_iter().filter(|attempt| attempt.task.job == web).take(4).collect();
    world.end(A, &ended, &Exit::Code(0));
    world.pass(100, &[A]);
    assert_eq!(world.live(web), 10, "what ended is followed");
    world.set("web", limited(2_000));
    world.pass(600, &[A]);
    assert_eq!(world.live(web), 20);
    world.new_leader();
    world.register(A, cpu(10_000), 1);
    world.pass(1_500, &[A]);
    assert_eq!(world.live(web), 20, "a new leader knows it too");
    world.set("web", RoleSettings::default());
    world.pass(100, &[A]);
    assert_eq!(world.live(web), 46);
    world.check();
}

#[test]
fn a_limit_is_of_all_below_a_role_too() {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    world.set("a", limited(1_000));
    world.set("a/b", limited(700));
    let jobs = ["a", "a/b", "a/c", "a-x"].map(|role| world.submit_for(role, 30, 100));
    world.pass(300, &[A]);
    let live = jobs.map(|job| world.live(job));
    assert!(live[0] + live[1] + live[2] == 10 && live[1] <= 7 && live[3] == 30, "{live:?}");
    world.check();
}

#[test]
fn where_more_is_held_than_a_limit_nothing_is_placed_until_less_is() {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    let web = world.submit_for("web", 30, 100);
    world.pass(200, &[A]);
    assert_eq!(world.live(web), 30);
    let more = world.submit_for("web", 90, 100);
    world.set("web", limited(2_000));
    let before = world.live(web) + world.live(more);
    let some: Vec<AttemptId> = world.held(A).into_iter().take(10).collect();
    world.end(A, &some, &Exit::Code(0));
    world.pass(1_000, &[A]);
    assert_eq!(world.live(web) + world.live(more), before - 10);
    let before = before - 10;
    let ended: Vec<AttemptId> = world.held(A).into_iter().take(before as usize - 15).collect();
    world.end(A, &ended, &Exit::Code(0));
    world.pass(1_000, &[A]);
    assert_eq!(world.live(web) + world.live(more), 20);
    world.check();
}

#[test]
fn nonsense_is_refused() {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    let above = RoleSettings { limit: Quota::new([(ResourceKind::Cpu, 500)]), ..guaranteed(600) };
    world.set("small", limited(300));
    for (role, settings, why) in [
        ("web", weighted(0), "weight"),
        ("web", weighted(u32::MAX), "weight"),
        ("web", above, "more than the role's own limit"),
        ("small/one", guaranteed(400), "the limit of 'small'"),
        ("web", guaranteed(10_001), "more than the cluster has"),
    ] {
        let response = world.set_role(role, settings.clone());
        let said = match &response {
            Response::Refused(Refusal::Conflict { reason } | Refusal::Invalid { reason }) => reason,
            other => panic!("{settings:?}: {other:?}"),
        };
        assert!(said.contains(why), "{settings:?}: {said}");
    }
}

#[test]
fn weights_divide_what_there_is_on_each_level() {
    let mut world = World::new();
    for (role, weight) in [("a", 3_000), ("a/x", 1_000), ("a/y", 2_000)] {
        world.set(role, weighted(weight));
    }
    let jobs = ["a/x", "a/y", "b"].map(|role| world.submit_for(role, 1_000, 10));
    world.register(A, cpu(4_000), 1);
    world.pass(100, &[A]);
    let live = jobs.map(|job| i64::from(world.live(job)));
    for (live, expected) in live.into_iter().zip([100, 200, 100]) {
        assert!((live - expected).abs() <= 4, "{live} instead of {expected}");
    }
    world.check();
}

#[test]
fn what_a_role_with_others_below_it_wants_itself_is_one_of_those() {
    let mut world = World::new();
    let jobs = ["a", "a/x", "b"].map(|role| world.submit_for(role, 1_000, 10));
    world.register(A, cpu(4_000), 1);
    world.pass(100, &[A]);
    let live = jobs.map(|job| i64::from(world.live(job)));
    for (live, expected) in live.into_iter().zip([100, 100, 200]) {
        assert!((live - expected).abs() <= 4, "{live} instead of {expected}");
    }
    world.check();
}

#[test]
fn a_guarantee_is_served_first_and_kept_free() {
    let mut world = World::new();
    world.set_role("vip", guaranteed(0));
    world.register(A, cpu(6_000), 1);
    world.register(B, cpu(4_000), 1);
    world.set("vip", guaranteed(3_000));
    let other = world.submit_for("other", 1_000, 100);
    world.pass(100, &[A, B]);
    assert_eq!(world.live(other), 70, "what is guaranteed is kept");
    let vip = world.submit_for("vip", 50, 100);
    world.pass(100, &[A, B]);
    assert_eq!((world.live(other), world.live(vip)), (70, 30));
    // Above its guarantee it shares as any other: it waits for what the other role has too much of.
    world.set("vip", guaranteed(1_000));
    world.pass(100, &[A, B]);
    assert_eq!((world.live(other), world.live(vip)), (70, 30));
    world.check();
}

#[test]
fn room_is_not_gathered_from_what_is_guaranteed_to_others() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.register(B, cpu(1_000), 1);
    world.set("vip", guaranteed(400));
    let small = world.submit_for("small", 1_000, 100);
    world.pass(100, &[A, B]);
    assert_eq!(world.live(small), 16);
    let large = world.submit_for("large", 1, 400);
    world.pass(100, &[A, B]);
    for (n, agent) in [A, A, B, A, A, B].into_iter().enumerate() {
        let first = world.held(agent).into_iter().find(|attempt| attempt.task.job == small).unwrap();
        world.end(agent, &[first], &Exit::Code(0));
        world.pass(20, &[A, B]);
        let held = world.live(small) * 100 + world.live(large) * 400;
        assert!(held <= 1_600, "{held} after {n}");
    }
    world.pass(100, &[A, B]);
    assert_eq!((world.live(small), world.live(large)), (12, 1));
    world.check();
}
