//! Groups of three members in one process: who leads, what lasts when a leader goes, how one that is behind or new catches up.

use super::shards::{shard_config, submitted};
use super::{Scratch, config};
use crate::journal::network::{Answer, Ask, Carrier, Timing};
use crate::journal::{Batch, Fate, Group, Log, Member, Recovered, Seat, Turn, Turns};
use crate::shard::{Record, Shard, ShardConfig};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TIMING: Timing = Timing { heartbeat_ms: 40, lease_ms: 400, election_ms: 150 };
/// With this a member that stands a place too early or too late is told from one that is only late.
const TIMING_SLOW: Timing = Timing { heartbeat_ms: 50, lease_ms: 1_000, election_ms: 400 };
/// How many the cluster has; each group is of one of them.
const SHARDS: u16 = 4;

/// What carries questions between the members of one group, and what is cut.
#[derive(Default)]
struct Wires {
    members: Mutex<HashMap<u64, Member>>,
    /// From whom to whom nothing comes.
    cut: Mutex<HashSet<(u64, u64)>>,
}

/// One member's end of them.
#[derive(Clone)]
struct Wire {
    from: u64,
    wires: Arc<Wires>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire of {}", self.from)
    }
}

impl Carrier for Wire {
    fn carry(&self, to: u64, _group: u16, ask: Ask) -> BoxFuture<'static, Option<Answer>> {
        let Self { from, wires } = self.clone();
        async move {
            let open = |from, to| !wires.cut.lock().unwrap().contains(&(from, to));
            let member = wires.members.lock().unwrap().get(&to).cloned().filter(|_| open(from, to));
            // One that is cut off is not answered, which is noticed only in time.
            let Some(member) = member else { std::future::pending().await };
            // What is carried is what stands on the wire.
            let ask = postcard::from_bytes(&postcard::to_allocvec(&ask).unwrap()).unwrap();
            let answer = member.answer(ask).await;
            if open(to, from) {
                Some(postcard::from_bytes(&postcard::to_allocvec(&answer).unwrap()).unwrap())
            } else {
                std::future::pending().await
            }
        }
        .boxed()
    }
}

/// One member, with what it decides where it leads.
struct Seated {
    group: Group,
    turns: Turns,
    lead: Option<Recovered>,
}

impl Seated {
    /// Takes the turns that there are.
    fn turn(&mut self) {
        while let Ok(turn) = self.turns.try_recv() {
            self.lead = match turn {
                Turn::Begins(recovered) => Some(*recovered),
                Turn::Over { .. } | Turn::Ended => None,
            };
        }
    }
}

struct Trio {
    shard: u16,
    timing: Timing,
    dir: Scratch,
    wires: Arc<Wires>,
    seated: BTreeMap<u64, Seated>,
    logs: BTreeMap<u64, Arc<Log>>,
}

impl Trio {
    async fn new() -> Self {
        Self::of(0, TIMING).await
    }

    /// Of that shard; the first of them leads.
    async fn of(shard: u16, timing: Timing) -> Self {
        let (dir, wires) = (Scratch::new(), Arc::default());
        let mut trio = Self { shard, timing, dir, wires, seated: BTreeMap::new(), logs: BTreeMap::new() };
        for number in 1..=3 {
            trio.start(number).await;
        }
        trio.seated[&1].group.found("").await.unwrap();
        trio.leader().await;
        trio.become_members(&[1, 2, 3]).await;
        // Until then none of them votes.
        tokio::time::sleep(Duration::from_millis(timing.lease_ms)).await;
        trio
    }

    async fn start(&mut self, number: u64) {
        let dir = self.dir.0.join(number.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let log = loop {
            match Log::open(&dir, SHARDS, config()) {
                Err(crate::journal::JournalError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                opened => break Arc::new(opened.unwrap()),
            }
        };
        let wire = Wire { from: number, wires: Arc::clone(&self.wires) };
        let seat = Seat { member: number, carrier: Arc::new(wire), timing: self.timing };
        let shard = ShardConfig { shards: SHARDS, ..shard_config(self.shard) };
        let (group, turns) = Group::open(&log, &dir, shard, &seat).await.unwrap();
        self.wires.members.lock().unwrap().insert(number, group.member());
        self.seated.insert(number, Seated { group, turns, lead: None });
        self.logs.insert(number, log);
    }

    /// As a process that is killed: nothing is said, and what was not flushed may be gone.
    async fn stop(&mut self, number: u64) {
        self.wires.members.lock().unwrap().remove(&number);
        self.seated.remove(&number).unwrap().group.close().await;
        self.logs.remove(&number);
    }

    fn cut(&self, number: u64) {
        let others = (1..=3).filter(|other| *other != number);
        self.wires.cut.lock().unwrap().extend(others.flat_map(|other| [(number, other), (other, number)]));
    }

    fn heal(&self) {
        self.wires.cut.lock().unwrap().clear();
    }

    /// Waits until somebody leads, and nobody believes so wrongly; says who.
    async fn leader(&mut self) -> u64 {
        self.leader_but(0).await
    }

    async fn leader_but(&mut self, not: u64) -> u64 {
        loop {
            self.seated.values_mut().for_each(Seated::turn);
            let leads = self.seated.iter().find(|(number, seated)| **number != not && seated.lead.is_some());
            if let Some((number, _)) = leads {
                return *number;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn become_members(&mut self, numbers: &[u64]) {
        let wanted: BTreeMap<u64, String> = numbers.iter().map(|number| (*number, String::new())).collect();
        let voters: BTreeSet<u64> = numbers.iter().copied().collect();
        loop {
            let leader = self.leader().await;
            if let Ok(true) = self.seated[&leader].group.member().become_members(&wanted, &voters).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Has the leader decide this.
    async fn decide(&mut self, leader: u64, records: &[Record]) -> Fate {
        let seated = self.seated.get_mut(&leader).unwrap();
        let lead = seated.lead.as_mut().unwrap();
        records.iter().for_each(|record| lead.shard.apply(record));
        let batch = Batch::encode(lead.term, records);
        seated.group.propose(batch).await.unwrap().await.unwrap()
    }

    fn shard(&self, leader: u64) -> &Shard {
        &self.seated[&leader].lead.as_ref().unwrap().shard
    }
}

fn jobs(from: u64, count: u64) -> Vec<Record> {
    (from..from + count).map(|n| submitted(0, n)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_each_leader() {
    let mut trio = Trio::new().await;
    let (mut hash, mut last) = (0, 0);
    for round in 0..4 {
        let leader = trio.leader_but(last).await;
        if round > 0 {
            assert_eq!(trio.shard(leader).hash(), hash, "round {round}");
        }
        for n in 0..20 {
            assert_eq!(trio.decide(leader, &jobs(1 + round * 20 + n, 1)).await, Fate::Committed);
        }
        hash = trio.shard(leader).hash();
        trio.stop(leader).await;
        let next = trio.leader_but(leader).await;
        assert_eq!(trio.shard(next).hash(), hash);
        trio.start(leader).await;
        last = 0;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_next_in_the_shards_order_leads_when_the_leader_is_gone() {
    // Drawn, it would be the other one every second time.
    let trials = [(0, 2), (3, 3), (0, 2), (3, 3)].map(async |(shard, next)| {
        let mut trio = Trio::of(shard, TIMING_SLOW).await;
        // Who has just started does not stand in any order.
        tokio::time::sleep(5 * Duration::from_millis(TIMING_SLOW.lease_ms)).await;
        assert_eq!(trio.leader().await, 1);
        trio.stop(1).await;
        assert_eq!(trio.leader_but(1).await, next, "shard {shard}");
    });
    futures::future::join_all(trials).await;
}

/// One that stood again at once had hundreds of terms in a second; who is busy with them hears nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_elected_stands_again_only_after_a_while() {
    let mut trio = Trio::new().await;
    // Who has just started does not stand in any order.
    tokio::time::sleep(5 * Duration::from_millis(TIMING.lease_ms)).await;
    let leader = trio.leader().await;
    let left = if leader == 3 { 2 } else { 3 };
    for gone in (1..=3).filter(|number| *number != left) {
        trio.stop(gone).await;
    }
    let term = |trio: &Trio| trio.seated[&left].group.member().standing().term;
    let (before, start) = (term(&trio), tokio::time::Instant::now());
    while term(&trio) < before + 12 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // For half of a lease once in a sixteenth of it, then not for a whole one, and the engine by and by.
    let most = 4 + 2 * start.elapsed().as_millis() / u128::from(3 * TIMING.lease_ms / 8);
    let stood = u128::from(term(&trio) - before);
    assert!(stood <= most, "{stood} times in {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_cut_off_stops_before_another_leads_and_what_it_decided_alone_is_void() {
    let mut trio = Trio::new().await;
    let old = trio.leader().await;
    assert_eq!(trio.decide(old, &jobs(1, 3)).await, Fate::Committed);
    let hash = trio.shard(old).hash();
    trio.cut(old);
    // It does not know yet, and proposes what never comes to be.
    let term = trio.seated[&old].lead.as_ref().unwrap().term;
    let alone = trio.seated[&old].group.propose(Batch::encode(term, &jobs(100, 5))).await.unwrap();
    let member = trio.seated[&old].group.member();
    let new = loop {
        let led = member.leads();
        trio.seated.values_mut().for_each(Seated::turn);
        if let Some((number, _)) = trio.seated.iter().find(|(number, seated)| **number != old && seated.lead.is_some()) {
            assert!(!led, "two lead");
            break *number;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert!(trio.seated[&old].lead.is_none());
    assert_eq!(trio.shard(new).hash(), hash);
    assert_eq!(trio.decide(new, &jobs(4, 2)).await, Fate::Committed);
    trio.heal();
    assert_eq!(alone.await.unwrap(), Fate::Unknown);
    // What is decided in an old term is void in a later one, whoever proposes it.
    let stale = trio.seated[&new].group.propose(Batch::encode(term, &jobs(200, 1))).await.unwrap().await.unwrap();
    assert_eq!(stale, Fate::Unknown);
    let hash = trio.shard(new).hash();
    trio.stop(new).await;
    let next = trio.leader_but(new).await;
    assert_eq!(trio.shard(next).hash(), hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_far_behind_is_sent_a_snapshot_in_pieces() {
    let mut trio = Trio::new().await;
    let leader = trio.leader().await;
    let behind = if leader == 3 { 2 } else { 3 };
    trio.stop(behind).await;
    for n in 0..400 {
        assert_eq!(trio.decide(leader, &jobs(1 + n * 20, 20)).await, Fate::Committed);
    }
    trio.seated[&leader].group.snapshot().await.unwrap();
    let hash = trio.shard(leader).hash();
    let bytes = std::fs::metadata(trio.dir.0.join(leader.to_string()).join("0000.snapshot")).unwrap().len();
    assert!(bytes > 512 << 10, "{bytes} bytes are one piece");
    trio.start(behind).await;
    let last = trio.seated[&leader].group.member().standing().last;
    while trio.seated[&behind].group.member().standing().applied < last {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It has all that it takes to lead.
    trio.hand_over(leader, behind).await;
    assert_eq!(trio.shard(behind).hash(), hash);
}

impl Trio {
    /// Hands over, as whoever decides does once all is on record.
    async fn hand_over(&mut self, from: u64, to: u64) {
        self.seated.get_mut(&from).unwrap().lead = None;
        self.seated[&from].group.lapse();
        self.seated[&from].group.member().hand_over(to).await.unwrap();
        loop {
            self.seated.values_mut().for_each(Seated::turn);
            if self.seated[&to].lead.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_goes_in_good_order_is_followed_at_once() {
    let mut trio = Trio::new().await;
    let mut leader = trio.leader().await;
    let mut terms = BTreeSet::new();
    for round in 0..6 {
        assert_eq!(trio.decide(leader, &jobs(1 + round, 1)).await, Fate::Committed);
        let hash = trio.shard(leader).hash();
        let next = leader % 3 + 1;
        let before = trio.seated[&leader].lead.as_ref().unwrap().term;
        trio.hand_over(leader, next).await;
        let term = trio.seated[&next].lead.as_ref().unwrap().term;
        // Nobody else stood: no time was lost.
        assert_eq!(term, before + 1, "round {round}");
        assert!(terms.insert(term));
        assert_eq!(trio.shard(next).hash(), hash);
        leader = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_exchanged_while_there_is_work() {
    let mut trio = Trio::new().await;
    for round in 0..10 {
        let leader = trio.leader().await;
        assert_eq!(trio.decide(leader, &jobs(1 + round, 1)).await, Fate::Committed);
    }
    let leader = trio.leader().await;
    let hash = trio.shard(leader).hash();
    let gone = if leader == 1 { 2 } else { 1 };
    trio.stop(gone).await;
    // A fourth takes the place of one that is gone.
    trio.start(4).await;
    let numbers: Vec<u64> = (1..=4).filter(|number| *number != gone).collect();
    trio.become_members(&numbers).await;
    trio.stop(leader).await;
    let next = trio.leader_but(leader).await;
    assert_eq!(trio.shard(next).hash(), hash);
    assert_eq!(trio.decide(next, &jobs(50, 1)).await, Fate::Committed);
}
