//! Agents: silence, return, rebirth, and those that lie.

use super::*;
use crate::shard::agents::REPORT_MAX;
use protocol::Loss;

/// One agent that runs `tasks` tasks of one job.
fn world(tasks: u32) -> (World, JobId) {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    let id = world.submit(job(Kind::Batch, tasks, 100));
    let held = world.held(A);
    assert_eq!(held.len(), tasks as usize);
    world.running(A, &held);
    (world, id)
}

#[test]
fn a_silent_agent_is_unreachable_first_and_its_tasks_are_replaced_later() {
    let (mut world, id) = world(3);
    world.register(B, cpu(10_000), 1);
    world.pass(3_000, &[B]);
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Unreachable, 3)]));
    world.submit(job(Kind::Batch, 5, 100));
    assert_eq!(world.held(B).len(), 5, "an unreachable agent gets nothing");
    world.beat(A);
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Running, 3)]));
    world.pass(29_000, &[B]);
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Unreachable, 3)]));
    world.pass(2_000, &[B]);
    assert_eq!(world.held(B).iter().filter(|attempt| attempt.number == 2).count(), 3);
    assert_eq!(world.job(id).restarts, 3);
    world.check();
}

#[test]
fn stale_attempts_of_an_agent_that_returns_are_killed() {
    let (mut world, id) = world(3);
    world.register(B, cpu(10_000), 1);
    let stale = world.held(A);
    world.pass(31_000, &[B]);
    world.beat(A);
    assert_eq!(world.agents[&A].reports_wanted, 1);
    let session = world.agents[&A].session;
    world.report(A, session);
    assert_eq!(world.agents[&A].killed, stale);
    world.end(A, &stale, &Exit::Killed);
    assert!(world.held(A).is_empty(), "their ends are acknowledged");
    let held = world.held(B);
    world.end(B, &held, &Exit::Code(0));
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Finished, 3)]));
    world.check();
}

#[test]
fn a_reborn_agent_loses_its_tasks_and_they_are_replaced() {
    let (mut world, id) = world(3);
    world.agents.insert(A, Script::default());
    world.register(A, cpu(10_000), 2);
    let numbers: Vec<u32> = world.held(A).iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [2, 2, 2]);
    let lost = |record: &Record| match record {
        Record::Ended { ends, .. } => ends.iter().all(|end| end.exit == Exit::Lost { reason: Loss::Reboot }),
        _ => true,
    };
    assert!(world.journal.iter().all(lost));
    assert_eq!(world.job(id).restarts, 3);
    world.check();
}

#[test]
fn a_launch_that_was_lost_is_sent_again_after_the_next_report() {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    world.deaf.insert(A);
    let id = world.submit(job(Kind::Batch, 2, 100));
    assert!(world.held(A).is_empty());
    world.deaf.clear();
    for _ in 0..4 {
        world.beat(A);
    }
    assert_eq!(world.agents[&A].reports_wanted, 1, "the hash tells");
    let session = world.agents[&A].session;
    world.report(A, session);
    assert_eq!(world.held(A), [AttemptId::new(id, 0, 1), AttemptId::new(id, 1, 1)]);
    world.check();
}

#[test]
fn attempts_launched_after_a_report_was_asked_for_are_not_missing() {
    let (mut world, _) = world(1);
    let session = world.agents[&A].session;
    for _ in 0..4 {
        world.say(A, FromAgent::Beat { session, sent: Time(0), held: 0, held_hash: 7 });
    }
    assert_eq!(world.agents[&A].reports_wanted, 1);
    let before: Vec<Held> = world.held(A).into_iter().map(|attempt| Held { attempt, ended: false }).collect();
    let late = world.submit(job(Kind::Batch, 1, 100));
    world.running(A, &[AttemptId::new(late, 0, 1)]);
    world.say(A, FromAgent::Report { session, held: before, last: true });
    assert_eq!(world.count(late, Phase::Running), 1);
    world.check();
}

#[test]
fn a_new_leader_keeps_what_runs_and_books_it_again() {
    let (mut world, id) = world(3);
    let held = world.held(A);
    world.end(A, &held[..1], &Exit::Code(0));
    world.new_leader();
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Finished, 1), (Phase::Staging, 2)]));
    world.register(A, cpu(10_000), 1);
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Finished, 1), (Phase::Running, 2)]));
    let (_, seat) = world.shard.pool.seat(A).unwrap();
    assert_eq!((seat.booked.cpu_milli, seat.unknown), (200, 0));
    assert_eq!(world.agents[&A].launched.len(), 3, "nothing is launched twice");
    world.end(A, &held[1..], &Exit::Code(0));
    assert!(world.job(id).ended.is_some());
    world.check();
}

#[test]
fn a_new_leader_gives_known_agents_one_full_timeout() {
    let (mut world, id) = world(1);
    world.pass(25_000, &[A]);
    world.new_leader();
    world.pass(29_000, &[]);
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Unreachable, 1)]));
    world.pass(2_000, &[]);
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Waiting, 1)]));
    world.check();
}

#[test]
fn an_agent_that_is_gone_is_replaced_at_once_and_not_taken_back() {
    let (mut world, id) = world(2);
    assert!(matches!(world.ask(Request::Gone { agent: A }), Response::Done));
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Waiting, 2)]));
    assert!(matches!(world.ask(Request::Gone { agent: A }), Response::Refused(Refusal::NotFound { .. })));
    let before = world.disconnected.len();
    let info = AgentInfo { name: "a".into(), capacity: cpu(10_000), ..AgentInfo::default() };
    world.say(A, FromAgent::Register { info, incarnation: 1, number: 1 });
    assert!(world.agents[&A].rejected && world.disconnected.len() == before + 1);
    world.check();
}

#[test]
fn the_tasks_of_an_agent_that_is_gone_are_replaced_though_its_leader_died_before_it_told() {
    let (mut world, id) = world(2);
    let record = Record::AgentGone { agent: A, at: world.now };
    world.shard.apply(&record);
    world.journal.push(record);
    world.new_leader();
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Waiting, 2)]));
    world.check();
}

#[test]
fn an_agent_that_refuses_all_does_not_make_the_shard_spin() {
    let mut world = World::new();
    world.register(A, cpu(10_000), 1);
    let id = world.submit(job(Kind::Batch, 1, 100));
    for number in 1..=3 {
        let attempts = world.held(A);
        assert_eq!(attempts, [AttemptId::new(id, 0, number)]);
        world.agents.get_mut(&A).unwrap().held.clear();
        world.say(A, FromAgent::Refused { attempts, reason: "no room".into() });
        assert_eq!(world.count(id, Phase::Waiting), 1);
        world.pass(250, &[A]);
    }
    world.check();
}

#[test]
fn a_connection_that_closes_is_silence_and_no_death() {
    let (mut world, id) = world(1);
    world.event(Event::Disconnected { agent: A });
    assert_eq!(world.count(id, Phase::Running), 1);
    let waiting = world.submit(job(Kind::Batch, 1, 100));
    assert_eq!(world.count(waiting, Phase::Waiting), 1, "it gets no offers");
    world.pass(2_000, &[]);
    assert_eq!(world.count(id, Phase::Unreachable), 1);
    world.register(A, cpu(10_000), 1);
    assert_eq!((world.count(id, Phase::Running), world.count(waiting, Phase::Staging)), (1, 1));
    world.check();
}

#[test]
fn an_agent_speaks_for_its_own_tasks_only() {
    let (mut world, id) = world(2);
    world.register(B, cpu(10_000), 1);
    let (hash, own) = (world.shard.hash(), world.held(A));
    world.end(B, &own, &Exit::Code(0));
    world.running(B, &own);
    world.say(B, FromAgent::Refused { attempts: own.clone(), reason: String::new() });
    let strange = [AttemptId::new(id, 0, 7), AttemptId::new(id, u32::MAX, 1), AttemptId::new(JobId::new(ShardId(9), 1), 0, 1)];
    world.end(A, &strange, &Exit::Code(0));
    world.end(B, &strange, &Exit::Code(0));
    assert_eq!(world.shard.hash(), hash);
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Running, 2)]));
    let all: Vec<Held> = own.iter().chain(&strange).map(|attempt| Held { attempt: *attempt, ended: false }).collect();
    world.register(B, cpu(10_000), 1);
    let info = AgentInfo { name: "b".into(), capacity: cpu(10_000), ..AgentInfo::default() };
    world.say(B, FromAgent::Register { info, incarnation: 1, number: 1 });
    world.say(B, FromAgent::Report { session: 0, held: all, last: true });
    assert_eq!(world.job(id).tasks, BTreeMap::from([(Phase::Running, 2)]));
}

#[test]
fn what_is_out_of_bounds_is_not_taken() {
    let mut world = World::new();
    let hash = world.shard.hash();
    let info = |change: fn(&mut AgentInfo)| {
        let mut info = AgentInfo { name: "a".into(), capacity: cpu(1_000), ..AgentInfo::default() };
        change(&mut info);
        FromAgent::Register { info, incarnation: 1, number: 1 }
    };
    let bad = [
        info(|info| info.name = "x".repeat(1_000_000)),
        info(|info| info.capacity.cpu_milli = u64::MAX),
        info(|info| info.capacity.ports = 7),
        info(|info| info.weaknesses = vec![String::new(); 1_000]),
        info(|info| {
            let device = protocol::Device { name: name("gpu"), milli: 1 };
            info.capacity.devices = vec![device.clone(), device];
        }),
        FromAgent::Beat { session: 1, sent: Time(0), held: 0, held_hash: 0 },
        FromAgent::Report { session: 0, held: vec![], last: true },
        FromAgent::Status { updates: vec![Update { attempt: AttemptId::new(JobId(1), 0, 1), state: TaskState::Starting }; 5_000] },
        FromAgent::Refused { attempts: vec![AttemptId::new(JobId(1), 0, 1); 5_000], reason: String::new() },
    ];
    for message in bad {
        let before = world.disconnected.len();
        world.say(A, message.clone());
        assert_eq!(world.disconnected.len(), before + 1, "{message:?}");
        assert_eq!(world.shard.hash(), hash);
    }
}

#[test]
fn a_report_without_end_is_cut_off() {
    let mut world = World::new();
    let info = AgentInfo { name: "a".into(), capacity: cpu(1_000), ..AgentInfo::default() };
    world.say(A, FromAgent::Register { info, incarnation: 1, number: 1 });
    for part in 0..60u32 {
        let held = (0..4_096).map(|index| Held { attempt: AttemptId::new(JobId(1), part * 4_096 + index, 1), ended: false });
        let message = FromAgent::Report { session: 0, held: held.collect(), last: false };
        world.say(A, message);
    }
    assert!(!world.disconnected.is_empty());
    assert!(world.shard.pool.seat(A).unwrap().1.report.len() <= REPORT_MAX);
}

#[test]
fn a_session_that_is_over_is_not_heard() {
    let (mut world, id) = world(1);
    let old = world.agents[&A].session;
    world.register(A, cpu(10_000), 1);
    assert!(world.agents[&A].session > old);
    world.say(A, FromAgent::Report { session: old, held: vec![], last: true });
    assert_eq!(world.count(id, Phase::Running), 1);
    world.say(A, FromAgent::Beat { session: old, sent: Time(0), held: 0, held_hash: 0 });
    assert_eq!(world.disconnected, [A]);
    world.now = Time(5);
    world.beat(A);
    assert_eq!(world.count(id, Phase::Running), 1, "time that goes back changes nothing");
    world.check();
}

#[test]
fn a_sign_of_life_that_a_registration_overtook_is_passed_over_and_later_ones_of_its_session_are_not() {
    let (mut world, id) = world(1);
    let old = world.agents[&A].session;
    world.register(A, cpu(10_000), 1);
    let stray = || FromAgent::Alive { session: old, sent: Time(0), held: 0, held_hash: 0 };
    world.say(A, stray());
    assert!(world.disconnected.is_empty());
    world.pass(1_500, &[A]);
    world.say(A, stray());
    assert_eq!(world.disconnected, [A]);
    assert_eq!(world.count(id, Phase::Running), 1);
    world.check();
}

#[test]
fn what_a_leader_before_staged_is_launched_as_it_was_where_its_agent_never_took_it() {
    for (incarnation, number, restarts) in [(1, 1, 0), (2, 2, 1)] {
        let mut world = World::new();
        world.register(A, cpu(10_000), 1);
        world.deaf.insert(A);
        let id = world.submit(job(Kind::Batch, 1, 100));
        world.deaf.clear();
        world.new_leader();
        world.register(A, cpu(10_000), incarnation);
        assert_eq!(world.held(A), [AttemptId::new(id, 0, number)], "in another life it may have run and been lost");
        assert_eq!(world.job(id).restarts, restarts);
        world.check();
    }
}

#[test]
fn a_life_that_no_leader_saw_the_end_of_is_not_forgotten() {
    let (mut world, id) = world(1);
    // Its machine is started anew, which is put on record; then the leader dies before it has heard a report.
    world.agents.insert(A, Script::default());
    let info = AgentInfo { name: "agent-1".into(), capacity: cpu(10_000), ..AgentInfo::default() };
    world.say(A, FromAgent::Register { info, incarnation: 2, number: 1 });
    world.new_leader();
    world.register(A, cpu(10_000), 2);
    assert_eq!(world.held(A), [AttemptId::new(id, 0, 2)], "the first attempt has run and is lost");
    world.check();
}

#[test]
fn a_late_refusal_does_not_end_an_attempt_that_runs() {
    let (mut world, id) = world(1);
    let attempts = world.held(A);
    world.say(A, FromAgent::Refused { attempts, reason: "no room".into() });
    assert_eq!(world.count(id, Phase::Running), 1);
    world.check();
}

#[test]
fn an_agent_whose_report_never_came_is_asked_for_it() {
    let mut world = World::new();
    let info = AgentInfo { name: "a".into(), capacity: cpu(10_000), ..AgentInfo::default() };
    world.say(A, FromAgent::Register { info, incarnation: 1, number: 1 });
    for _ in 0..4 {
        world.beat(A);
    }
    assert_eq!(world.agents[&A].reports_wanted, 1);
    let session = world.agents[&A].session;
    world.report(A, session);
    let id = world.submit(job(Kind::Batch, 1, 100));
    assert_eq!(world.held(A), [AttemptId::new(id, 0, 1)]);
    world.check();
}

#[test]
fn how_late_a_broken_connection_is_noticed_does_not_put_replacement_off() {
    let (mut world, id) = world(1);
    world.pass(1_500, &[]);
    world.event(Event::Disconnected { agent: A });
    world.pass(28_600, &[]);
    assert_eq!(world.count(id, Phase::Waiting), 1);
    world.check();
}

#[test]
fn progress_is_shown_while_a_task_lives_and_believed_of_its_own_agent_only() {
    let (mut world, id) = world(1);
    let attempt = AttemptId::new(id, 0, 1);
    let say = |world: &mut World, agent, percent, note: &str| {
        let notes = vec![
            Progress { attempt, percent, note: note.into() },
            Progress { attempt: AttemptId::new(id, 7, 1), percent: 1, note: String::new() },
        ];
        world.say(agent, FromAgent::Progress { notes });
        world.shard.notes.clone()
    };
    assert!(say(&mut world, B, 50, "stranger").is_empty());
    assert!(say(&mut world, A, 101, "too much").is_empty());
    assert!(say(&mut world, A, 50, &"x".repeat(300)).is_empty());
    assert_eq!(say(&mut world, A, 50, "half"), BTreeMap::from([(attempt, (50, "half".to_owned()))]));
    let held = world.held(A);
    world.end(A, &held, &Exit::Code(0));
    assert!(world.shard.notes.is_empty());
    world.check();
}

#[test]
fn where_most_agents_are_silent_at_once_their_tasks_are_not_replaced_in_a_storm() {
    let all: Vec<AgentId> = (1..=8).map(AgentId).collect();
    let mut world = World::new();
    all.iter().for_each(|agent| world.register(*agent, cpu(1_000), 1));
    let id = world.submit(job(Kind::Batch, 80, 100));
    for agent in &all {
        let held = world.held(*agent);
        world.running(*agent, &held);
    }
    // Five of eight are cut off for longer than tasks wait otherwise, and come back, the last of them a little later.
    world.pass(60_000, &all[5..]);
    assert_eq!(world.job(id).restarts, 0);
    world.pass(5_000, &all[1..]);
    assert_eq!(world.job(id).restarts, 0);
    all.iter().for_each(|agent| world.beat(*agent));
    world.pass(5_000, &all);
    assert_eq!((world.job(id).restarts, world.job(id).tasks), (0, BTreeMap::from([(Phase::Running, 80)])));
    // Three of eight are not most: they failed.
    world.pass(40_000, &all[3..]);
    assert_eq!(world.job(id).tasks.get(&Phase::Unreachable), None);
    // A cut that lasts for minutes is a failure too, whatever it was.
    world.pass(400_000, &all[7..]);
    assert_eq!(world.job(id).tasks.get(&Phase::Unreachable), None);
    world.check();
}

#[test]
fn one_of_many_agents_beats_less_often_and_may_be_silent_for_longer() {
    let mut world = World::new();
    let all: Vec<AgentId> = (1..=1_250).map(AgentId).collect();
    all.iter().for_each(|agent| world.register(*agent, cpu(1_000), 1));
    let (first, last) = (all[0], all[all.len() - 1]);
    assert_eq!([first, last].map(|agent| world.agents[&agent].beat_ms), [500, 1_000]);
    let unreachable = |world: &World, agent: AgentId| {
        let is_said = |change: &Change| matches!(change, Change::Agent { agent: of, what, .. } if *of == agent && what == "unreachable");
        world.changes.iter().any(is_said)
    };
    world.pass(3_000, &[]);
    assert_eq!([first, last].map(|agent| unreachable(&world, agent)), [true, false]);
    world.pass(2_000, &[]);
    assert!(unreachable(&world, last));
}
