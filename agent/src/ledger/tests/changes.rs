//! An agent that an operator changes while its tasks run.

use super::*;

fn info(cpu_milli: u64, ports: (u16, u16), rack: &str) -> AgentInfo {
    let mut info = config().info;
    info.capacity.cpu_milli = cpu_milli;
    info.capacity.ports = u32::from(ports.1 - ports.0) + 1;
    info.ports = vec![PortRange { first: ports.0, last: ports.1 }];
    info.domain.rack = rack.into();
    info
}

fn registers(outputs: &[Output]) -> Vec<AgentInfo> {
    let said = outputs.iter().filter_map(|output| match output {
        Output::Send { message: FromAgent::Register { info, .. }, .. } => Some(info.clone()),
        _ => None,
    });
    said.collect()
}

#[test]
fn what_an_agent_is_changes_under_its_tasks_and_never_below_what_they_are_promised() {
    let mut bench = Bench::ready();
    assert_eq!(started(&bench.launches(needs(1_500, 2), 1..3)), [1, 2]);
    for (less, why) in
        [(info(2_999, (100, 109), "r2"), "cpu"), (info(3_000, (100, 102), "r2"), "port"), (info(3_000, (110, 119), "r2"), "port 10")]
    {
        let reason = bench.ledger.against(&less).unwrap();
        assert!(reason.contains(why), "{reason}");
        assert!(bench.does(Event::Changed { info: Box::new(less) }).is_empty(), "it is passed over: {why}");
    }
    let changed = info(3_000, (100, 105), "r2");
    assert_eq!(bench.ledger.against(&changed), None);
    let outputs = bench.does(Event::Changed { info: Box::new(changed.clone()) });
    assert_eq!(registers(&outputs), [changed], "its shard is told by a registration");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Stop { .. } | Output::Start(_))), "its tasks go on");
    bench.registered(2);
    let launched = |bench: &mut Bench, resources, index| {
        bench.sequence += 1;
        let launch = Launch { session: 2, ..launch(2, bench.sequence, resources, index..index + 1) };
        bench.hears(FromMaster::Launch(launch))
    };
    let refused = refused(&launched(&mut bench, needs(1, 0), 3));
    assert!(refused.len() == 1 && refused[0].1.contains("cpu"), "{refused:?}");
    let more = info(4_000, (100, 105), "r2");
    bench.does(Event::Changed { info: Box::new(more) });
    bench.registered(3);
    bench.sequence += 1;
    let launch = launch(3, bench.sequence, needs(1_000, 2), 4..5);
    assert_eq!(started(&bench.hears(FromMaster::Launch(launch))), [4]);
}

#[test]
fn one_that_is_changed_while_nobody_leads_says_so_to_whoever_does_next() {
    let mut bench = Bench::ready();
    bench.does(Event::Disconnected);
    let changed = info(2_000, (100, 109), "r9");
    assert!(registers(&bench.does(Event::Changed { info: Box::new(changed.clone()) })).is_empty());
    assert_eq!(registers(&bench.connect(2)), [changed]);
}
