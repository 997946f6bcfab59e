//! Whether frameworks' tasks are well: told as other updates are.

use super::*;
use protocol::{Check, Checks, Health, Probe, Verdict};

#[test]
fn a_framework_hears_that_its_task_is_well_or_not_in_order_and_until_it_acknowledges() {
    let mut world = World::new();
    world.register(A, cpu(2_000), 1);
    let client = world.subscribe(None, info(&["default"]));
    let offers = world.offers(&client);
    let probe = Probe::Exec { command: vec!["true".into()] };
    let (grace_ms, every_ms, timeout_ms, failures_max) = (0, 1_000, 100, 3);
    let check = Check { probe, grace_ms, every_ms, timeout_ms, failures_max, delay_ms: 0, ignores_1xx: false };
    let mut checked = task("checked", 100);
    let job = checked.job.as_mut().unwrap();
    Arc::make_mut(&mut job.template).members[0].set_checks(&Checks { health: Some(check), readiness: None });
    world.accept(&client, &offers, vec![checked, task("plain", 100)]);
    let held = world.held(A);
    let find = |world: &mut World, verdict, reason: &str| {
        let healths = held.iter().map(|attempt| Health { attempt: *attempt, verdict, reason: reason.into() }).collect();
        world.say(A, FromAgent::Health { healths });
    };
    // The word on its health may come before that it runs, and of what has no checks no such word is believed.
    find(&mut world, Verdict::Unready, "");
    find(&mut world, Verdict::Healthy, "");
    find(&mut world, Verdict::Unhealthy, "no answer");
    find(&mut world, Verdict::Unhealthy, "no answer");
    world.running(A, &held);
    let expected =
        [Cause::News, Cause::Health { healthy: true, reason: String::new() }, Cause::Health { healthy: false, reason: "no answer".into() }];
    for cause in expected {
        let updates: Vec<StatusUpdate> = world.updates(&client).into_iter().filter(|update| update.task == "checked").collect();
        assert_eq!((phases(&updates), &updates[0].cause), (vec![("checked", Phase::Running)], &cause));
        world.acknowledge(&client, &updates);
    }
    assert!(world.updates(&client).iter().all(|update| update.task == "plain" && update.cause == Cause::News));
    world.end(A, &held[..1], &Exit::Unhealthy { reason: "no answer".into() });
    let ended = world.updates(&client);
    assert_eq!((phases(&ended), &ended[0].cause), (vec![("checked", Phase::Failed)], &Cause::News));
    world.check();
}
