//! Tasks with checks: ready only while their agents say that they are well; what nobody should believe is not believed; a roll waits for the new ones.

use super::*;
use crate::shard::view::{HealthCounts, HealthView};
use protocol::{Check, Checks, Health, Probe, Verdict};

fn checked(count: u32) -> Job {
    let check = Check {
        probe: Probe::Wasm { export: "well".into() },
        grace_ms: 0,
        every_ms: 1_000,
        timeout_ms: 100,
        failures_max: 3,
        delay_ms: 0,
        ignores_1xx: false,
    };
    let mut job = Job { name: Some(name("web")), ..job(Kind::Service, count, 100) };
    Arc::make_mut(&mut job.template).members[0].set_checks(&Checks { health: Some(check), readiness: None });
    job
}

impl World {
    fn find(&mut self, agent: AgentId, attempts: &[AttemptId], verdict: Verdict, reason: &str) {
        let healths = attempts.iter().map(|attempt| Health { attempt: *attempt, verdict, reason: reason.into() }).collect();
        self.say(agent, FromAgent::Health { healths });
    }

    fn healths(&mut self, id: JobId) -> (HealthCounts, Vec<(u32, HealthView)>) {
        let counts = self.shard.health_counts(&[id]);
        (counts.first().map(|(_, counts)| *counts).unwrap_or_default(), self.shard.health_views(id, &(0..100).collect::<Vec<_>>()))
    }

    fn ready(&self, id: JobId) -> u32 {
        self.shard.jobs.live(id).unwrap().ready_tasks()
    }

    fn published(&self) -> Vec<(String, Vec<String>)> {
        let health = |change: &Change| match change {
            Change::Health { health, found, .. } => Some((health.to_string(), found.iter().map(|(_, reason)| reason.clone()).collect())),
            _ => None,
        };
        self.changes.iter().filter_map(health).collect()
    }
}

fn with(job: Job) -> (World, JobId, Vec<AttemptId>) {
    let mut world = World::new();
    world.register(A, cpu(4_000), 1);
    let id = world.submit(job);
    let attempts = world.held(A);
    world.running(A, &attempts);
    (world, id, attempts)
}

#[test]
fn a_task_with_checks_is_ready_while_it_is_well_and_one_without_as_soon_as_it_runs() {
    let (world, id, _) = with(job(Kind::Service, 2, 100));
    assert_eq!(world.ready(id), 2);
    let (mut world, id, attempts) = with(checked(2));
    assert_eq!((world.ready(id), world.count(id, Phase::Running)), (0, 2));
    world.find(A, &attempts, Verdict::Healthy, "");
    world.find(A, &attempts[1..], Verdict::Unhealthy, "HTTP 503 from :31001/healthz");
    assert_eq!((world.ready(id), world.count(id, Phase::Running)), (1, 2));
    let (counts, views) = world.healths(id);
    assert_eq!(counts, HealthCounts { healthy: 1, unready: 0, unhealthy: 1 });
    let reason = "HTTP 503 from :31001/healthz".to_owned();
    let well = (0, HealthView { verdict: Verdict::Healthy, reason: String::new() });
    assert_eq!(views, [well, (1, HealthView { verdict: Verdict::Unhealthy, reason: reason.clone() })]);
    world.find(A, &attempts[1..], Verdict::Unhealthy, &reason);
    let told = [("healthy".to_owned(), vec![String::new(); 2]), ("unhealthy".to_owned(), vec![reason.clone()])];
    assert_eq!(world.published(), told, "what is said twice is no news");
    world.end(A, &attempts[1..], &Exit::Unhealthy { reason });
    let task = world.shard.task_view(id, 1).unwrap();
    assert!(task.retry_at.is_some() && matches!(task.exit, Some(Exit::Unhealthy { .. })), "it is tried again after a wait: {task:?}");
    assert_eq!(world.healths(id).1.len(), 1);
    world.check();
}

#[test]
fn what_an_agent_says_of_others_tasks_or_without_sense_changes_nothing() {
    let (mut world, id, attempts) = with(checked(2));
    world.register(B, cpu(0), 1);
    world.find(B, &attempts, Verdict::Healthy, "");
    world.find(A, &[AttemptId::new(id, 0, 2), AttemptId::new(id, 9, 1), AttemptId::new(JobId(77), 0, 1)], Verdict::Healthy, "");
    assert_eq!(world.ready(id), 0);
    world.find(A, &attempts[..1], Verdict::Unready, &format!("\u{1b}[2J\u{202e}\n{}", "é".repeat(10_000)));
    let (_, views) = world.healths(id);
    let reason = &views[0].1.reason;
    assert!(reason.len() <= protocol::task::HEALTH_BYTES_MAX && reason.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{reason:?}");
    let plain = world.submit(job(Kind::Service, 1, 100));
    let running: Vec<AttemptId> = world.held(A).into_iter().filter(|attempt| attempt.task.job == plain).collect();
    world.running(A, &running);
    world.find(A, &running, Verdict::Unhealthy, "no");
    assert_eq!(world.ready(plain), 1, "nobody asked how it is");
    world.ask(Request::Stop { job: JobRef::Id(id), grace_ms: 0 });
    world.find(A, &attempts, Verdict::Healthy, "");
    assert_eq!((world.ready(id), world.count(id, Phase::Killing)), (0, 2));
    world.end(A, &attempts, &Exit::Unhealthy { reason: "x".into() });
    assert_eq!(world.count(id, Phase::Killed), 2, "what was asked to stop was killed");
    let many = vec![Health { attempt: attempts[0], verdict: Verdict::Healthy, reason: String::new() }; 257];
    world.say(A, FromAgent::Health { healths: many });
    assert_eq!(world.disconnected, [A]);
    world.check();
}

#[test]
fn after_a_change_of_leader_a_task_that_was_not_heard_of_is_neither_well_nor_not() {
    let (mut world, id, attempts) = with(checked(2));
    world.find(A, &attempts, Verdict::Healthy, "");
    world.new_leader();
    world.register(A, cpu(4_000), 1);
    assert_eq!(world.healths(id).0, HealthCounts { healthy: 0, unready: 2, unhealthy: 0 });
    world.find(A, &attempts, Verdict::Healthy, "");
    world.running(A, &attempts);
    assert_eq!((world.ready(id), world.healths(id).0.healthy), (2, 2), "what it is doing says nothing of how it is");
    world.new_leader();
    // What is said of it may come before what it is doing.
    world.find(A, &attempts, Verdict::Healthy, "");
    world.register(A, cpu(4_000), 1);
    assert_eq!(world.ready(id), 2);
    world.check();
}

#[test]
fn a_roll_waits_until_the_new_one_is_well_and_goes_over_old_ones_that_are_not() {
    let (mut world, id, attempts) = with(checked(3));
    world.find(A, &attempts, Verdict::Healthy, "");
    let mut next = checked(3);
    Arc::make_mut(&mut next.template).members[0].args = vec!["new".into()];
    world.ask(Request::Apply { job: next.clone() });
    assert_eq!(world.agents[&A].killed, [attempts[0]]);
    world.end(A, &attempts[..1], &Exit::Killed);
    let new: Vec<AttemptId> = world.held(A).into_iter().filter(|attempt| attempt.number == 2).collect();
    world.running(A, &new);
    assert_eq!(world.agents[&A].killed.len(), 1, "the new one runs, and is not well yet");
    world.find(A, &new, Verdict::Unready, "HTTP 503");
    assert_eq!(world.agents[&A].killed.len(), 1);
    // An old one that fails is as good as gone: nobody has to wait for the new one before it is replaced.
    world.find(A, &attempts[1..2], Verdict::Unhealthy, "HTTP 500");
    assert_eq!(world.agents[&A].killed, attempts[..2]);
    world.find(A, &new, Verdict::Healthy, "");
    assert_eq!(world.agents[&A].killed, attempts[..2], "two of three are down");
    world.end(A, &attempts[1..2], &Exit::Killed);
    let second: Vec<AttemptId> = world.held(A).into_iter().filter(|attempt| attempt.number == 2 && !new.contains(attempt)).collect();
    world.running(A, &second);
    world.find(A, &second, Verdict::Healthy, "");
    assert_eq!(world.agents[&A].killed, attempts);
    assert_eq!(world.job(id).version, 2);
    world.check();
}

/// Three tasks of a service with checks under a new leader that heard of two of them; and a new version of it.
fn half_heard() -> (World, Vec<AttemptId>) {
    let (mut world, _, attempts) = with(checked(3));
    world.find(A, &attempts, Verdict::Healthy, "");
    world.new_leader();
    world.register(A, cpu(4_000), 1);
    world.find(A, &[attempts[0], attempts[2]], Verdict::Healthy, "");
    let mut next = checked(3);
    Arc::make_mut(&mut next.template).members[0].args = vec!["2".into()];
    assert!(matches!(world.ask(Request::Deploy { job: next, force: false }), Response::Deployed { .. }));
    (world, attempts)
}

#[test]
fn a_new_leader_waits_for_what_it_does_not_know_and_not_for_ever() {
    let (mut world, attempts) = half_heard();
    world.pass(10_000, &[A]);
    assert_eq!(world.agents[&A].killed, []);
    world.pass(10_000, &[A]);
    assert_eq!(world.agents[&A].killed, [attempts[1]]);
}

#[test]
fn what_was_said_to_be_unwell_a_new_leader_replaces_at_once() {
    let (mut world, attempts) = half_heard();
    world.find(A, &attempts[1..2], Verdict::Unready, "HTTP 503 from :31001/ready");
    world.pass(1_000, &[A]);
    assert_eq!(world.agents[&A].killed, [attempts[1]]);
}

#[test]
fn of_what_cannot_be_reached_nobody_says_that_it_is_well() {
    let (mut world, id, attempts) = with(checked(2));
    world.find(A, &attempts, Verdict::Healthy, "");
    assert_eq!(world.healths(id).0.healthy, 2);
    world.pass(4_000, &[]);
    assert_eq!(world.count(id, Phase::Unreachable), 2);
    assert_eq!(world.healths(id), (HealthCounts::default(), vec![]));
    world.beat(A);
    assert_eq!(world.healths(id).0.healthy, 2, "it is back, and so are they");
    world.check();
}
