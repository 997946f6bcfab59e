//! Jobs and frameworks beside each other: what comes free goes to the role with the smallest share, whichever of the two it is.

use super::*;
use crate::shard::limits::Quota;
use crate::shard::quotas::RoleSettings;
use protocol::resources::ResourceKind;

fn of(role: &str, count: u32) -> Job {
    Job { role: as_role(role), ..job(Kind::Batch, count, 100) }
}

/// Takes all that the framework is shown, in tasks like those of the jobs; gives back how many.
fn take_all(world: &mut World, client: &Client, round: usize) -> usize {
    let mut taken = 0;
    for offer in world.offers(client) {
        let count = usize::try_from(offer.resources.cpu_milli / 100).unwrap();
        let launches = (0..count).map(|n| task(&format!("{round}-{}-{n}", offer.id.number), 100)).collect();
        world.accept(client, &[offer], launches);
        taken += count;
    }
    taken
}

#[test]
fn what_jobs_leave_goes_to_a_framework_until_it_has_as_much() {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    let jobs = world.submit(of("jobs", 100_000));
    let client = world.subscribe(None, info(&["fw"]));
    let of_jobs = |world: &World| world.held(A).iter().filter(|attempt| attempt.task.job == jobs).count();
    assert_eq!(of_jobs(&world), 100);
    for round in 0..40 {
        let ended: Vec<AttemptId> = world.held(A).into_iter().filter(|attempt| attempt.task.job == jobs).take(5).collect();
        world.end(A, &ended, &Exit::Code(0));
        take_all(&mut world, &client, round);
        world.pass(100, &[A]);
        assert_eq!(world.held(A).len(), 100, "nothing lies idle in round {round}");
    }
    let mine = 100 - of_jobs(&world);
    assert!((45..=55).contains(&mine), "{mine} of 100");
    world.check();
}

#[test]
fn a_framework_that_does_not_answer_keeps_jobs_waiting_for_a_second() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    let jobs = world.submit(of("jobs", 1_000));
    let client = world.subscribe(None, info(&["fw"]));
    let ended: Vec<AttemptId> = world.held(A).into_iter().take(5).collect();
    world.end(A, &ended, &Exit::Code(0));
    assert_eq!((world.held(A).len(), world.offers(&client).len()), (5, 1), "it comes before them");
    world.pass(1_200, &[A]);
    assert_eq!(world.held(A).len(), 10, "it has not answered");
    // Nor is anything left for it again before it does.
    let ended: Vec<AttemptId> = world.held(A).into_iter().take(5).collect();
    world.end(A, &ended, &Exit::Code(0));
    world.pass(1_200, &[A]);
    assert_eq!(world.held(A).iter().filter(|attempt| attempt.task.job == jobs).count(), 10);
    world.check();
}

#[test]
fn what_a_framework_declines_is_for_jobs_at_once() {
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    world.submit(of("jobs", 1_000));
    let client = world.subscribe(None, info(&["fw"]));
    let ended: Vec<AttemptId> = world.held(A).into_iter().take(5).collect();
    world.end(A, &ended, &Exit::Code(0));
    let offers: Vec<OfferId> = world.offers(&client).iter().map(|offer| offer.id).collect();
    assert!(matches!(world.call(&client, Call::Decline { offers, refuse_ms: 60_000 }), Response::Done));
    assert_eq!(world.held(A).len(), 10);
    let ended: Vec<AttemptId> = world.held(A).into_iter().take(3).collect();
    world.end(A, &ended, &Exit::Code(0));
    assert_eq!(world.held(A).len(), 10, "what it wants nothing of is not left for it");
    world.check();
}

#[test]
fn what_frameworks_leave_is_said_to_jobs_that_may_not_go_everywhere_too() {
    use protocol::{Constraint, Field, Placement, Rule};
    let mut world = World::new();
    world.register(A, cpu(1_000), 1);
    let constraints = vec![Constraint { field: Field::Hostname, rule: Rule::Is("agent-1".into()) }];
    let place = Placement { constraints, spread: vec![Field::Rack] };
    world.submit(Job { place: Some(Arc::new(place)), ..of("jobs", 1_000) });
    // It wants so little that most of what comes free is for jobs.
    let wish = Wish { role: as_role("fw"), priority: 50, count: 1, shape: cpu(100), constraints: vec![] };
    let client = world.subscribe_wanting(None, info(&["fw"]), vec![wish]);
    let ended: Vec<AttemptId> = world.held(A).into_iter().take(5).collect();
    world.end(A, &ended, &Exit::Code(0));
    assert_eq!((world.held(A).len(), world.offers(&client).len()), (9, 1));
    world.check();
}

#[test]
fn a_framework_takes_the_last_of_what_its_role_may_hold() {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    let limit = Quota::new([(ResourceKind::Cpu, 1_000)]);
    world.ask(Request::SetRole { role: as_role("fw"), settings: RoleSettings { limit, ..RoleSettings::default() }, force: false });
    world.pass(1_000, &[A]);
    let client = world.subscribe(None, info(&["fw"]));
    let offers = world.offers(&client);
    assert_eq!(offers.iter().map(|offer| offer.resources.cpu_milli).sum::<u64>(), 1_000);
    world.accept(&client, &offers, (0..10).map(|n| task(&format!("t{n}"), 100)).collect());
    assert_eq!(world.held(A).len(), 10, "none of them was refused");
    world.check();
}
