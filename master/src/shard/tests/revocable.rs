//! What agents lend: placed as any other kind, of nobody's share, forgotten with the session, and shown only to frameworks that ask for it.

use super::frameworks::{info, task};
use super::*;
use crate::frameworks::REVOCABLE;
use protocol::{Lent, Loss};

fn lent(cpu_milli: u64, memory_bytes: u64) -> Lent {
    Lent { cpu_milli, memory_bytes }
}

/// The job with cores that are revocable.
fn revocable(count: u32, cpu_milli: u64) -> Job {
    let mut job = job(Kind::Batch, count, cpu_milli);
    let template = Arc::make_mut(&mut job.template);
    template.resources = cpu(cpu_milli).made_revocable();
    template.members[0].resources = template.resources.clone();
    job
}

impl World {
    fn lends(&mut self, agent: AgentId, lent: Lent) {
        let session = self.agents[&agent].session;
        self.say(agent, FromAgent::Slack { session, lent });
    }
}

#[test]
fn what_is_lent_is_given_beside_what_is_promised_and_counts_for_no_share() {
    let mut world = World::new();
    world.register(A, cpu(4_000), 1);
    let firm = world.submit(job(Kind::Batch, 4, 1_000));
    let batch = world.submit(revocable(5, 1_000));
    assert_eq!((world.count(firm, Phase::Staging), world.count(batch, Phase::Waiting)), (4, 5), "nothing is lent yet");
    let share = world.shard.pool.role_share_ppm(&as_role("default"));
    world.lends(A, lent(3_500, 1 << 30));
    assert_eq!((world.count(batch, Phase::Staging), world.count(batch, Phase::Waiting)), (3, 2));
    assert_eq!(world.shard.pool.role_share_ppm(&as_role("default")), share);
    assert_eq!(world.shard.pool.total, cpu(4_000));
    world.check();
    let held = world.held(A);
    world.end(A, &held, &Exit::Code(0));
    assert_eq!(world.count(batch, Phase::Staging), 2);
    world.check();
}

#[test]
fn a_revoked_task_waits_and_is_placed_again_without_a_retry() {
    let mut world = World::new();
    world.register(A, cpu(4_000), 1);
    world.lends(A, lent(2_000, 0));
    let batch = world.submit(revocable(2, 1_000));
    let held = world.held(A);
    world.running(A, &held);
    world.lends(A, lent(1_000, 0));
    world.end(A, &held[1..], &Exit::Lost { reason: Loss::Revoked });
    assert_eq!((world.count(batch, Phase::Running), world.count(batch, Phase::Waiting)), (1, 1));
    world.pass(1_000, &[A]);
    assert_eq!(world.count(batch, Phase::Waiting), 1, "there is no room for it");
    world.lends(A, lent(2_000, 0));
    assert_eq!(world.count(batch, Phase::Staging), 1);
    let held = world.held(A);
    assert_eq!(held.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    world.end(A, &held, &Exit::Code(0));
    assert_eq!(world.count(batch, Phase::Finished), 2);
    world.check();
}

#[test]
fn a_revoked_task_that_is_wanted_no_more_has_ended() {
    let mut world = World::new();
    world.register(A, cpu(4_000), 1);
    world.lends(A, lent(1_000, 0));
    let batch = world.submit(revocable(1, 1_000));
    let held = world.held(A);
    world.running(A, &held);
    world.ask(Request::Stop { job: JobRef::Id(batch), grace_ms: 10 });
    world.end(A, &held, &Exit::Lost { reason: Loss::Revoked });
    assert!(world.held(A).is_empty());
    world.pass(1_000, &[A]);
    assert_eq!(world.job(batch).tasks.get(&Phase::Waiting), None);
    world.check();
}

#[test]
fn an_agent_lends_no_more_than_it_has_and_only_in_its_session() {
    let mut world = World::new();
    world.register(A, cpu(4_000), 1);
    world.lends(A, lent(u64::MAX, u64::MAX));
    let seat = &world.shard.pool.seats[0];
    assert_eq!(seat.capacity.lent(), lent(4_000, 0), "it has no memory");
    world.register(A, cpu(4_000), 1);
    assert_eq!(world.shard.pool.seats[0].capacity, cpu(4_000), "what was lent is of the session before");
    world.say(A, FromAgent::Slack { session: world.agents[&A].session - 1, lent: lent(1_000, 0) });
    world.say(B, FromAgent::Slack { session: 0, lent: lent(1_000, 0) });
    assert_eq!(world.shard.pool.seats[0].capacity, cpu(4_000));
    let mut named = cpu(1_000);
    named.devices = Resources::revocable(lent(1_000, 0)).devices;
    world.register(B, named, 1);
    assert!(world.agents[&B].rejected, "nobody has a device of that name");
    world.check();
}

#[test]
fn only_frameworks_that_take_it_are_shown_what_is_lent() {
    let mut world = World::new();
    world.register(A, cpu(4_000), 1);
    world.lends(A, lent(3_000, 0));
    let plain = world.subscribe(None, info(&["default"]));
    let shown = world.offers(&plain);
    assert_eq!(shown.iter().map(|offer| offer.resources.clone()).collect::<Vec<_>>(), [cpu(4_000)]);
    let capable = crate::frameworks::FrameworkInfo { capabilities: vec![REVOCABLE.into()], ..info(&["default"]) };
    let takes = world.subscribe(None, capable);
    let shown = world.offers(&takes);
    let all: Vec<Lent> = shown.iter().map(|offer| offer.resources.lent()).collect();
    assert_eq!(all, [lent(3_000, 0)], "what nobody else is shown");
    let mut launch = task("batch", 1_000);
    launch.job = Ok(revocable(1, 1_000));
    world.accept(&takes, &shown, vec![launch]);
    let held = world.held(A);
    assert_eq!(held.len(), 1);
    world.end(A, &held, &Exit::Lost { reason: Loss::Revoked });
    let told: Vec<Exit> = world.updates(&takes).into_iter().filter_map(|update| update.exit).collect();
    assert_eq!(told, [Exit::Lost { reason: Loss::Revoked }]);
    world.check();
}
