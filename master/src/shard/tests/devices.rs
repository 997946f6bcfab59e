//! Single devices: part of one is on one, whole ones are nobody else's, and whoever leads next knows who has which.

use super::*;
use crate::shard::preempt::Preempts;
use crate::shard::quotas::RoleSettings;
use crate::shard::roles::Claim;
use crate::shard::view::DevicesFree;
use protocol::{Device, Given};

fn gpus(milli: u64, cpu_milli: u64) -> Resources {
    Resources { cpu_milli, devices: vec![Device { name: name("gpu"), milli }], ..Resources::NONE }
}

fn wants(count: u32, milli: u64) -> Job {
    let mut job = job(Kind::Batch, count, 100);
    let template = Arc::make_mut(&mut job.template);
    template.members[0].resources = gpus(milli, 100);
    template.resources = gpus(milli, 100);
    job
}

fn free(world: &mut World) -> Vec<u32> {
    let views: Vec<(AgentId, DevicesFree)> = match world.ask(Request::View(View::Devices)) {
        Response::Viewed(viewed) => match *viewed {
            Viewed::Devices(devices) => devices,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    views.into_iter().flat_map(|(_, kinds)| kinds).flat_map(|(_, free)| free).collect()
}

/// What attempts have, as the agent was told.
fn told(world: &World) -> BTreeMap<AttemptId, Vec<u16>> {
    world.shard.devices_of(A).map(|(attempt, given)| (attempt, given.masks.clone())).collect()
}

#[test]
fn two_parts_go_to_two_devices_and_a_third_waits_though_there_is_enough_in_all() {
    let mut world = World::new();
    world.register(A, gpus(2_000, 4_000), 1);
    let id = world.submit(wants(3, 600));
    assert_eq!((world.count(id, Phase::Staging), world.count(id, Phase::Waiting)), (2, 1));
    assert_eq!(free(&mut world), [400, 400]);
    let masks: BTreeSet<Vec<u16>> = told(&world).into_values().collect();
    assert_eq!(masks, BTreeSet::from([vec![0b01], vec![0b10]]));
    let view = world.shard.explain_shape(&as_role("default"), &gpus(600, 100), &Default::default());
    assert_eq!((view.fitting, view.short.get("single: gpu"), view.would_fit_empty), (0, Some(&1), 1));
    // What fits beside them is placed, and what one leaves goes to who waits.
    let small = world.submit(wants(2, 400));
    assert_eq!((world.count(small, Phase::Staging), free(&mut world)), (2, vec![0, 0]));
    let first = world.held(A)[0];
    world.end(A, &[first], &Exit::Code(0));
    assert_eq!((world.count(id, Phase::Waiting), free(&mut world)), (0, vec![0, 0]));
    world.check();
}

#[test]
fn whole_ones_wait_until_nobody_has_a_part_of_them() {
    let mut world = World::new();
    world.register(A, gpus(3_000, 4_000), 1);
    let part = world.submit(wants(1, 100));
    let two = world.submit(wants(1, 2_000));
    let more = world.submit(wants(1, 2_000));
    assert_eq!((world.count(two, Phase::Staging), world.count(more, Phase::Waiting)), (1, 1));
    assert_eq!(free(&mut world), [900, 0, 0]);
    let running: Vec<AttemptId> = world.held(A).into_iter().filter(|attempt| attempt.task.job == two).collect();
    world.end(A, &running, &Exit::Code(0));
    assert_eq!((world.count(more, Phase::Staging), free(&mut world)), (1, vec![900, 0, 0]));
    let left = world.held(A);
    world.end(A, &left, &Exit::Code(0));
    assert_eq!((free(&mut world), world.count(part, Phase::Finished)), (vec![1_000; 3], 1));
    world.check();
}

#[test]
fn a_new_leader_takes_what_the_agent_says_and_gives_the_rest() {
    let mut world = World::new();
    world.register(A, gpus(2_000, 4_000), 1);
    let id = world.submit(wants(1, 600));
    let attempt = AttemptId::new(id, 0, 1);
    // The agent may have given another one than it was told.
    world.say(A, FromAgent::Devices { given: vec![(attempt, Given { masks: vec![0b10] })] });
    assert_eq!(free(&mut world), [1_000, 400]);
    for said in [vec![0b10], vec![]] {
        world.new_leader();
        let info = AgentInfo { name: "a".into(), capacity: gpus(2_000, 4_000), ..AgentInfo::default() };
        world.say(A, FromAgent::Register { info, incarnation: 1, number: 2 });
        let given = vec![(attempt, Given { masks: said.clone() })];
        world.say(A, FromAgent::Devices { given });
        world.report(A, 0);
        assert_eq!(free(&mut world), if said.is_empty() { [400, 1_000] } else { [1_000, 400] }, "{said:?}");
    }
    let whole = world.submit(wants(1, 1_000));
    assert_eq!((world.count(whole, Phase::Staging), free(&mut world)), (1, vec![400, 0]));
    world.check();
}

#[test]
fn nothing_that_an_agent_says_of_devices_harms() {
    let mut world = World::new();
    world.register(A, gpus(2_000, 4_000), 1);
    world.register(B, cpu(4_000), 1);
    let id = world.submit(wants(2, 1_000));
    let (known, unknown) = (AttemptId::new(id, 0, 1), AttemptId::new(id, 77, 1));
    for masks in [vec![], vec![0], vec![u16::MAX], vec![1, 1], vec![u16::MAX; 16]] {
        for attempt in [known, unknown] {
            for agent in [A, B, AgentId(99)] {
                world.say(agent, FromAgent::Devices { given: vec![(attempt, Given { masks: masks.clone() })] });
            }
        }
    }
    let held = world.held(A);
    world.end(A, &held, &Exit::Code(0));
    assert_eq!(free(&mut world), [1_000, 1_000]);
    world.check();
}

#[test]
fn what_is_urgent_gets_a_device_of_its_own_and_no_more_leave_than_must() {
    let mut world = World::new();
    let claim = Claim { preempts: Preempts::All, ..Claim::default() };
    let settings = RoleSettings { claim, ..RoleSettings::default() };
    world.ask(Request::SetRole { role: as_role("default"), settings, force: false });
    world.register(A, gpus(2_000, 4_000), 1);
    let low = world.submit(Job { priority: 10, ..wants(4, 400) });
    assert_eq!((world.count(low, Phase::Staging), free(&mut world)), (4, vec![200, 200]));
    let high = world.submit(Job { priority: 90, ..wants(1, 1_000) });
    let asked = world.agents[&A].killed.clone();
    let of: BTreeSet<Vec<u16>> = asked.iter().map(|attempt| told(&world)[attempt].clone()).collect();
    assert_eq!((asked.len(), of.len()), (2, 1), "both of one device");
    world.end(A, &asked[..1], &Exit::Code(0));
    assert_eq!(world.count(high, Phase::Waiting), 1);
    world.end(A, &asked[1..], &Exit::Code(0));
    assert_eq!(world.count(high, Phase::Staging), 1, "those that left get nothing of it");
    world.check();
}
