//! Attempts of several members: started and ended one by one, told as one.

use super::*;

/// A ledger with one attempt of `members`, all of them told to start.
fn bench_with(members: usize) -> (Bench, AttemptId) {
    let mut bench = Bench::ready();
    let mut group = launch(1, 1, needs(1, 0), 1..2);
    let template = Arc::make_mut(&mut group.template);
    let member = template.members[0].clone();
    let name = |n: usize| Some(Name::new(&format!("m{n}")).unwrap());
    template.members = (0..members).map(|n| Member { name: name(n), ..member.clone() }).collect();
    template.resources = member.resources.checked_mul(u32::try_from(members).unwrap()).unwrap();
    bench.hears(FromMaster::Launch(group));
    (bench, id(1))
}

fn told(outputs: &[Output]) -> Vec<TaskState> {
    let updates = outputs.iter().filter_map(|output| match output {
        Output::Send { message: FromAgent::Status { updates }, .. } => Some(updates),
        _ => None,
    });
    updates.flatten().map(|update| update.state.clone()).collect()
}

fn ended(member: u8, exit: Exit) -> Event {
    let member = MemberId { attempt: id(1), member };
    Event::Ended { members: vec![(member, exit, Usage { time_us: 5 + u64::from(member.member), cpu_us: 2, ..Usage::default() })] }
}

#[test]
fn a_group_has_ended_once_each_of_its_members_has() {
    let (mut bench, attempt) = bench_with(3);
    for member in 0..2 {
        bench.does(Event::Started { members: vec![(MemberId { attempt, member }, Time(7))] });
        assert!(
            bench.ledger.handed_over().count() == 1
                && !told(&bench.after(100)).iter().any(|state| matches!(state, TaskState::Running { .. }))
        );
    }
    bench.does(Event::Started { members: vec![(MemberId { attempt, member: 2 }, Time(9))] });
    assert_eq!(told(&bench.after(100)), [TaskState::Running { since: Time(9), ports: vec![] }]);
    assert!(told(&bench.does(ended(0, Exit::Code(0)))).is_empty());
    assert!(told(&bench.does(ended(0, Exit::Code(5)))).is_empty(), "an end is told once");
    assert!(told(&bench.does(ended(2, Exit::Code(0)))).is_empty());
    let end = told(&bench.does(ended(1, Exit::Code(0))));
    assert_eq!(end, [TaskState::Ended { exit: Exit::Code(0), usage: Usage { time_us: 7, cpu_us: 6, ..Usage::default() } }]);
    let outputs = bench.hears(FromMaster::Ack { attempts: vec![attempt] });
    assert!(matches!(&outputs[..], [Output::Forget { members }] if members.len() == 3), "{outputs:?}");
    assert_eq!(bench.ledger.promised(), &Resources::NONE);
}

#[test]
fn the_first_member_that_fails_takes_the_others_with_it() {
    let (mut bench, attempt) = bench_with(3);
    bench.does(Event::Started { members: (0..3).map(|member| (MemberId { attempt, member }, Time(7))).collect() });
    bench.does(ended(1, Exit::Code(0)));
    let outputs = bench.does(ended(2, Exit::Code(9)));
    let others = [MemberId { attempt, member: 0 }];
    assert!(outputs.iter().any(|output| matches!(output, Output::Stop { members, .. } if *members == others)), "{outputs:?}");
    let end = told(&bench.does(ended(0, Exit::Killed)));
    assert!(matches!(&end[..], [TaskState::Ended { exit: Exit::Code(9), .. }]), "{end:?}");
}

#[test]
fn a_member_that_nobody_names_after_a_restart_is_lost_and_ends_its_group() {
    let (mut bench, attempt) = bench_with(2);
    bench.does(Event::Started { members: (0..2).map(|member| (MemberId { attempt, member }, Time(7))).collect() });
    let mut again = bench.recovered();
    again.connect(1);
    again.does(Event::Started { members: vec![(MemberId { attempt, member: 0 }, Time(7))] });
    let outputs = again.does(Event::Surveyed);
    let others = [MemberId { attempt, member: 0 }];
    assert!(outputs.iter().any(|output| matches!(output, Output::Stop { members, .. } if *members == others)), "{outputs:?}");
    let end = told(&again.does(ended(0, Exit::Killed)));
    assert!(matches!(&end[..], [TaskState::Ended { exit: Exit::Lost { reason: Loss::Executor }, .. }]), "{end:?}");
}

#[test]
fn all_members_hear_what_is_said_to_their_task() {
    let (mut bench, attempt) = bench_with(2);
    let message = FromMaster::Message { attempt, bytes: bytes::Bytes::from_static(b"hi") };
    let outputs = bench.does(Event::Master { shard: job().shard(), message });
    assert!(matches!(&outputs[..], [Output::Message { members, .. }] if members.len() == 2), "{outputs:?}");
}
