//! Single devices: those that the master says, once each; kept over a restart, and said to whoever leads next.

use super::*;
use protocol::Given;

fn gpu(milli: u64) -> Resources {
    Resources { devices: vec![Device { name: Name::new("gpu").unwrap(), milli }], ..Resources::NONE }
}

fn with_gpus(milli: u64) -> Bench {
    let mut info = config().info;
    info.capacity.devices = gpu(milli).devices;
    let mut bench = Bench::ready();
    bench.ledger.handle(bench.now, Event::Changed { info: Box::new(info) });
    while bench.ledger.poll_output().is_some() {}
    bench.hears_registered(2);
    bench
}

impl Bench {
    /// After a change it has registered anew.
    fn hears_registered(&mut self, session: u64) {
        self.number += 1;
        let message = FromMaster::Registered { session, heartbeat_ms: 500, number: self.number };
        self.ledger.handle(self.now, Event::Master { shard: self.own(), message });
        self.sequence = 0;
    }

    fn hears_raw(&mut self, message: FromMaster) -> Vec<Output> {
        self.ledger.handle(self.now, Event::Master { shard: self.own(), message });
        let mut outputs = vec![];
        while let Some(output) = self.ledger.poll_output() {
            match output {
                Output::Checkpoint(record) => self.records.push(record),
                output => outputs.push(output),
            }
        }
        outputs
    }

    /// A launch, of which is said before which devices its attempts get.
    fn gives(&mut self, milli: u64, indexes: std::ops::Range<u32>, masks: &[u16]) -> Vec<Output> {
        self.sequence += 1;
        if !masks.is_empty() {
            let given = masks.iter().map(|mask| Given { masks: vec![*mask] }).collect();
            self.hears_raw(FromMaster::Devices { session: 2, sequence: self.sequence, given });
        }
        self.hears_raw(FromMaster::Launch(launch(2, self.sequence, gpu(milli), indexes)))
    }
}

fn given(outputs: &[Output]) -> Vec<(u32, u16)> {
    let starts = outputs.iter().filter_map(|output| if let Output::Start(start) = output { Some(start) } else { None });
    starts.flat_map(|start| start.launch.attempts.iter().zip(&start.given).map(|((index, _), given)| (*index, given.masks[0]))).collect()
}

fn said(outputs: &[Output]) -> Vec<(AttemptId, u16)> {
    let said = outputs.iter().filter_map(|output| match output {
        Output::Send { message: FromAgent::Devices { given }, .. } => Some(given.iter().map(|(attempt, given)| (*attempt, given.masks[0]))),
        _ => None,
    });
    said.flatten().collect()
}

#[test]
fn attempts_get_the_devices_that_were_said_and_none_is_given_twice() {
    let mut bench = with_gpus(2_000);
    let outputs = bench.gives(600, 1..3, &[0b10, 0b01]);
    assert_eq!((given(&outputs), said(&outputs)), (vec![(1, 0b10), (2, 0b01)], vec![]));
    let outputs = bench.gives(500, 3..4, &[0b01]);
    assert_eq!((given(&outputs), refused(&outputs).len()), (vec![], 1), "the other has too much of it");
    let outputs = bench.gives(400, 4..6, &[0b01, 0b100]);
    assert_eq!((given(&outputs), refused(&outputs).iter().map(|(index, _)| *index).collect::<Vec<_>>()), (vec![(4, 0b01)], vec![5]));
    bench.ledger.handle(bench.now, Event::Ended { members: vec![(MemberId::first(id(1)), Exit::Code(0), Usage::default())] });
    bench.hears_raw(FromMaster::BeatAck { sent: bench.now });
    assert_eq!(given(&bench.gives(1_000, 6..7, &[0b10])), [(6, 0b10)], "an end gives back");
    assert_eq!(bench.ledger.singles().unwrap().kinds()[0].each_free().collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn where_nothing_was_said_the_agent_chooses_and_says_what() {
    let mut bench = with_gpus(2_000);
    let outputs = bench.gives(600, 1..4, &[]);
    assert_eq!((given(&outputs), refused(&outputs).len()), (vec![(1, 0b01), (2, 0b10)], 1));
    assert_eq!(said(&outputs), [(id(1), 0b01), (id(2), 0b10)]);
    // What was said of another launch is of no use.
    bench.hears_raw(FromMaster::Devices { session: 2, sequence: 90, given: vec![Given { masks: vec![0b10] }] });
    assert_eq!(said(&bench.gives(400, 5..6, &[])), [(id(5), 0b01)]);
}

#[test]
fn devices_are_known_after_a_restart_and_said_before_the_report() {
    let mut bench = with_gpus(2_000);
    bench.gives(600, 1..2, &[0b10]);
    let mut info = config().info;
    info.capacity.devices = gpu(2_000).devices;
    for records in [bench.records.clone(), bench.ledger.snapshot()] {
        let mut again = Ledger::recover(LedgerConfig { info: info.clone(), ..config() }, &records).unwrap();
        assert_eq!(again.singles().unwrap().kinds()[0].each_free().collect::<Vec<_>>(), [1_000, 400]);
        again.handle(Time(1), Event::Connected { shards: SHARDS });
        again.handle(Time(1), Event::Led { shard: bench.own() });
        let outputs: Vec<Output> = std::iter::from_fn(|| again.poll_output()).collect();
        assert_eq!(said(&outputs), [(id(1), 0b10)]);
        let place = |which: fn(&FromAgent) -> bool| {
            outputs.iter().position(|output| matches!(output, Output::Send { message, .. } if which(message))).unwrap()
        };
        let devices = place(|message| matches!(message, FromAgent::Devices { .. }));
        assert!(place(|message| matches!(message, FromAgent::Register { .. })) < devices);
        assert!(devices < place(|message| matches!(message, FromAgent::Report { .. })));
    }
}

#[test]
fn an_agent_is_not_made_smaller_than_what_devices_are_given() {
    let mut bench = with_gpus(2_000);
    bench.gives(600, 1..2, &[0b10]);
    let shrunk = |milli| AgentInfo { capacity: gpu(milli), ..config().info };
    assert!(bench.ledger.against(&shrunk(1_000)).is_some_and(|why| why.contains("device gpu 1")));
    assert!(bench.ledger.against(&shrunk(1_600)).is_none() && bench.ledger.against(&shrunk(20_000)).is_none());
}
