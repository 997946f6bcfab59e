//! What frameworks say to tasks.

use super::*;
use bytes::Bytes;
use protocol::message::MESSAGE_BYTES_MAX;

fn say(bench: &mut Bench, shard: ShardId, attempt: AttemptId, bytes: impl Into<Bytes>) -> Vec<(AttemptId, Bytes)> {
    let outputs = bench.does(Event::Master { shard, message: FromMaster::Message { attempt, bytes: bytes.into() } });
    let passed_on = |output| if let Output::Message { members, bytes } = output { Some((members[0].attempt, bytes)) } else { None };
    outputs.into_iter().filter_map(passed_on).collect()
}

#[test]
fn what_is_said_to_a_task_that_an_executor_has_is_passed_on_and_nothing_else() {
    let mut bench = Bench::ready();
    let shard = job().shard();
    bench.launches(needs(1, 0), 1..3);
    let hi = || Bytes::from_static(b"hi");
    assert_eq!(say(&mut bench, shard, id(1), hi()), [(id(1), hi())], "its executor was told to start it");
    bench.does(Event::Started { members: vec![(MemberId::first(id(1)), Time(1))] });
    assert_eq!(say(&mut bench, shard, id(1), hi()), [(id(1), hi())]);
    assert!(say(&mut bench, shard, id(7), hi()).is_empty(), "it is not here");
    assert!(say(&mut bench, shard, AttemptId::new(job(), 1, 2), hi()).is_empty(), "another run of it");
    let other = (0..SHARDS).map(ShardId).find(|other| *other != shard).unwrap();
    assert!(say(&mut bench, other, id(1), hi()).is_empty(), "it is no other shard's");
    assert!(say(&mut bench, shard, id(1), vec![0; MESSAGE_BYTES_MAX + 1]).is_empty());
    bench.does(Event::Unled { shard });
    assert!(say(&mut bench, shard, id(1), hi()).is_empty(), "nobody can have said it");
    bench.does(Event::Led { shard });
    bench.hears(FromMaster::Kill { attempts: vec![id(1)], grace_ms: 1 });
    assert_eq!(say(&mut bench, shard, id(1), hi()).len(), 1, "while it stops");
    bench.end(id(1), Exit::Killed);
    assert!(say(&mut bench, shard, id(1), hi()).is_empty(), "it has ended");
}
