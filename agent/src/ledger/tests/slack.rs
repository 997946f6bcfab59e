//! What is idle is lent, and taken back when it is needed.

use super::*;
use protocol::Lent;

/// How often the driver measures.
const LOOK_MS: u64 = 250;

fn lent(cpu_milli: u64, memory_bytes: u64) -> Lent {
    Lent { cpu_milli, memory_bytes }
}

fn wants(cpu_milli: u64, memory_bytes: u64) -> Resources {
    Resources { cpu_milli, memory_bytes, ..Resources::NONE }
}

fn said(outputs: &[Output]) -> Vec<Lent> {
    let said = outputs.iter().filter_map(|output| match output {
        Output::Send { message: FromAgent::Slack { session: 1, lent }, .. } => Some(*lent),
        _ => None,
    });
    said.collect()
}

fn stopped(outputs: &[Output]) -> Vec<u32> {
    let stopped = outputs.iter().filter_map(|output| if let Output::Stop { members, .. } = output { Some(first(members)) } else { None });
    stopped.flatten().map(|attempt| attempt.task.index).collect()
}

impl Bench {
    fn measures(&mut self, used: Lent) -> Vec<Output> {
        let mut outputs = self.after(LOOK_MS);
        outputs.extend(self.hears(FromMaster::BeatAck { sent: self.now }));
        outputs.extend(self.does(Event::Measured { used, unread: vec![] }));
        outputs
    }

    /// The same again and again, for so long.
    fn uses(&mut self, used: Lent, ms: u64) -> Vec<Output> {
        (0..ms / LOOK_MS).flat_map(|_| self.measures(used)).collect()
    }

    /// An attempt that runs from now on.
    fn runs(&mut self, resources: Resources, index: u32) {
        let outputs = self.launches(resources, index..index + 1);
        assert_eq!(refused(&outputs), [], "it has room");
        self.now = self.now + 1;
        self.does(Event::Started { members: vec![(MemberId::first(id(index)), self.now)] });
    }
}

#[test]
fn what_nobody_needed_for_a_while_is_lent_but_for_a_margin() {
    let mut bench = Bench::ready();
    assert_eq!(said(&bench.measures(Lent::NONE)), [lent(3_600, 8 * GIB - 8 * GIB / 10)], "a tenth stays");
    bench.runs(wants(4_000, 4 * GIB), 1);
    let outputs = bench.measures(lent(500, GIB));
    assert_eq!(said(&outputs), [], "what it is promised was said not to be lent when it came");
    assert_eq!(bench.ledger.book.free().lent(), lent(0, 4 * GIB - 8 * GIB / 10));
    assert_eq!(said(&bench.uses(lent(500, GIB), 9_000)), [], "it may need it yet");
    let later = said(&bench.uses(lent(500, GIB), 2_000));
    assert_eq!(later, [lent(3_100, 7 * GIB - 8 * GIB / 10)], "it has not needed it for a while");
    assert_eq!(said(&bench.uses(lent(520, GIB), 5_000)), [], "too little to be said");
    assert_eq!(said(&bench.measures(lent(2_000, GIB))), [lent(1_600, 7 * GIB - 8 * GIB / 10)]);
}

#[test]
fn revocable_attempts_take_what_is_lent_and_nothing_else() {
    let mut bench = Bench::ready();
    let task = wants(1_000, GIB).made_revocable();
    let before = bench.launches(task.clone(), 1..2);
    assert_eq!(refused(&before), [(1, "short of revocable cpu, revocable memory".to_owned())]);
    bench.measures(Lent::NONE);
    assert_eq!(refused(&bench.launches(task.clone(), 2..6)).len(), 1, "three fit");
    assert_eq!(refused(&bench.launches(wants(4_000, 8 * GIB), 6..7)), [], "what is lent is in nobody's way");
    bench.does(Event::Disconnected);
    assert_eq!(bench.ledger.book.free(), Resources { disk_bytes: GIB, ports: 10, ..Resources::NONE });
}

#[test]
fn what_is_needed_is_taken_back_from_the_youngest_and_said_to_be_revoked() {
    let mut bench = Bench::ready();
    bench.runs(wants(4_000, 4 * GIB), 1);
    bench.uses(lent(200, GIB), 12_000);
    for index in 2..5 {
        bench.runs(wants(1_000, GIB).made_revocable(), index);
    }
    assert_eq!(stopped(&bench.measures(lent(1_900, GIB))), Vec::<u32>::new(), "a moment is no need");
    assert_eq!(stopped(&bench.measures(lent(900, GIB))), Vec::<u32>::new());
    assert_eq!(stopped(&bench.measures(lent(1_900, GIB))), Vec::<u32>::new());
    let outputs = bench.measures(lent(1_900, GIB));
    assert_eq!((stopped(&outputs), said(&outputs).len()), (vec![4], 0), "it was said when it was measured first");
    assert_eq!(stopped(&bench.measures(lent(1_900, GIB))), Vec::<u32>::new(), "once");
    assert_eq!(ends(&bench.end(id(4), Exit::Killed)), [(id(4), Exit::Lost { reason: Loss::Revoked })]);
    assert_eq!(stopped(&bench.measures(lent(1_900, 7 * GIB))), [3], "memory is taken back at once");
    assert_eq!(ends(&bench.end(id(3), Exit::Code(0))), [(id(3), Exit::Code(0))], "it was quicker");
    bench.hears(FromMaster::Kill { attempts: vec![id(2)], grace_ms: 5 });
    assert_eq!(ends(&bench.end(id(2), Exit::Killed)), [(id(2), Exit::Killed)], "a master asked for it");
}

#[test]
fn a_task_that_is_not_revocable_is_taken_on_at_once_and_has_its_room() {
    let mut bench = Bench::ready();
    bench.measures(Lent::NONE);
    for index in 1..4 {
        bench.runs(wants(1_000, GIB).made_revocable(), index);
    }
    let outputs = bench.launches(wants(2_000, GIB), 5..6);
    assert_eq!((started(&outputs), stopped(&outputs)), (vec![5], vec![3]));
    assert_eq!(said(&outputs), [lent(1_600, 7 * GIB - 8 * GIB / 10)], "whoever places is told before it is tried again");
    assert_eq!(stopped(&bench.launches(wants(500, GIB), 6..7)), [2], "what stops still runs, but its room is spoken for");
}

#[test]
fn those_of_which_nothing_can_be_read_use_all_that_they_are_promised() {
    let mut bench = Bench::ready();
    bench.runs(wants(3_000, GIB), 1);
    let unread = vec![MemberId::first(id(1)), MemberId::first(id(9)), MemberId { attempt: id(1), member: 7 }];
    for _ in 0..60 {
        bench.after(LOOK_MS);
        bench.hears(FromMaster::BeatAck { sent: bench.now });
        bench.does(Event::Measured { used: Lent::NONE, unread: unread.clone() });
    }
    assert_eq!(bench.ledger.book.free().lent(), lent(600, 7 * GIB - 8 * GIB / 10));
}

#[test]
fn an_agent_that_was_started_anew_knows_no_idle_room_and_takes_back_what_it_no_longer_measures() {
    let mut before = Bench::ready();
    before.runs(wants(1_000, GIB), 1);
    before.uses(lent(200, GIB), 12_000);
    before.runs(wants(1_000, GIB).made_revocable(), 2);
    let mut bench = before.recovered();
    let here = [1, 2].map(|index| (MemberId::first(id(index)), Time(1_000)));
    bench.does(Event::Started { members: here.to_vec() });
    bench.does(Event::Surveyed);
    bench.connect(1);
    assert_eq!(said(&bench.uses(lent(200, GIB), 9_000)), [], "what was needed before it does not know");
    assert_eq!(said(&bench.uses(lent(200, GIB), 2_000)).len(), 1);
    assert_eq!(ends(&bench.end(id(2), Exit::Killed)), [(id(2), Exit::Lost { reason: Loss::Revoked })], "nobody else asked for it");

    let config = LedgerConfig { lends: false, ..config() };
    let mut without = Bench { ledger: Ledger::recover(config, &before.records).unwrap(), ..before.recovered() };
    assert_eq!(stopped(&without.does(Event::Started { members: here.to_vec() })), [2]);
    assert_eq!(said(&without.uses(lent(200, GIB), 12_000)), []);
}

#[test]
fn what_is_lent_is_said_again_in_each_session_and_kept_from_a_change_of_the_agent() {
    let mut bench = Bench::ready();
    assert_eq!(said(&bench.measures(Lent::NONE)).len(), 1);
    bench.runs(wants(1_000, GIB).made_revocable(), 1);
    let mut info = config().info;
    info.capacity.cpu_milli = 500;
    assert_eq!(bench.ledger.against(&info), None, "what is revocable holds nothing of the agent");
    let outputs = bench.does(Event::Changed { info: Box::new(info) });
    assert_eq!(stopped(&outputs), [1]);
    let outputs = bench.registered(2);
    let told = outputs.iter().any(|output| matches!(output, Output::Send { message: FromAgent::Slack { session: 2, .. }, .. }));
    assert!(told);
}
