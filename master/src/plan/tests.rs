//! A small cluster of two shards and agents in three racks; what is predicted is compared with what happens where it then comes true.

use super::compare::Fate;
use super::*;
use crate::plugins::{Asked, Candidate, Ranking, Score};
use crate::shard::event::{Refusal, Request, Response};
use crate::shard::{Shard, ShardConfig};
use protocol::message::shard_of_job;
use protocol::{AgentInfo, Constraint, FaultDomain, Field, Kind, Lent, Name, Placement, Rule, ShardId, Time};
use std::sync::Arc;

const SHARDS: u16 = 2;

/// A cluster without agents and jobs, in which no time has passed.
fn empty() -> World {
    let copy = |id: u16| {
        let mut shard = Shard::new(ShardConfig { id: ShardId(id), shards: SHARDS, ..ShardConfig::default() });
        shard.lead(Time(1_000_000));
        copy_of(&shard)
    };
    World::new((0..SHARDS).map(copy).collect(), &ScoreMap::new()).unwrap()
}

fn copy_of(shard: &Shard) -> Copied {
    match shard.viewed(View::Copy { tasks_max: TASKS_MAX }) {
        Ok(Viewed::Copy(copied)) => *copied,
        other => panic!("{other:?}"),
    }
}

fn copies(world: &World) -> Vec<Copied> {
    world.shards.iter().map(copy_of).collect()
}

/// Three racks with two agents of four cores each, `a1` to `a6`.
fn racks() -> World {
    let mut world = empty();
    for number in 1..=6_u64 {
        let capacity = Resources { cpu_milli: 4_000, memory_bytes: 1 << 30, ..Resources::NONE };
        let domain = FaultDomain { rack: format!("r{}", number.div_ceil(2)), ..FaultDomain::default() };
        let info = AgentInfo { name: format!("a{number}"), capacity, domain, version: "0".into(), ..AgentInfo::default() };
        world.join(AgentId(number), info, 1, Vec::new());
    }
    world
}

fn job(name: &str, kind: Kind, count: u32, cpu_milli: u64) -> Job {
    Job { name: Some(Name::new(name).unwrap()), ..crate::shard::tests::job(kind, count, cpu_milli) }
}

fn submit(world: &mut World, job: Job) -> JobId {
    let shard = shard_of_job(&job.role, job.name.as_ref().unwrap().as_str(), SHARDS);
    match world.ask(shard, Request::Submit { job, key: None, follow: false }).unwrap() {
        Response::Submitted { job, .. } => job,
        other => panic!("{other:?}"),
    }
}

fn settle(world: &mut World) {
    assert!(world.settle(world.now).unwrap(), "the cluster settles");
}

fn supposed(texts: &[&str]) -> Vec<Hypothesis> {
    texts.iter().map(|text| Hypothesis::parse(text).unwrap()).collect()
}

fn would(world: &World, texts: &[&str]) -> Prediction {
    predict(copies(world), &ScoreMap::new(), &supposed(texts), None).unwrap()
}

fn of_fate(prediction: &Prediction, fate: Fate) -> usize {
    prediction.changed.iter().filter(|changed| changed.fate == fate).count()
}

/// Which tasks of a cluster are otherwise than before, in which way.
fn fates(changed: &[Changed]) -> Vec<(JobId, u32, Fate)> {
    changed.iter().map(|changed| (changed.job, changed.index, changed.fate)).collect()
}

#[test]
fn what_would_be_lost_with_a_rack_is_what_is_lost_with_it() {
    let mut world = racks();
    submit(&mut world, job("web", Kind::Service, 6, 900));
    submit(&mut world, job("run", Kind::Batch, 9, 900));
    let mut unique = job("one-each", Kind::Service, 6, 100);
    let constraints = vec![Constraint { field: Field::Hostname, rule: Rule::Unique }];
    unique.place = Some(Arc::new(Placement { constraints, spread: vec![] }));
    submit(&mut world, unique);
    settle(&mut world);
    let (before, hashes) = (standing(&world), world.shards.iter().map(Shard::hash).collect::<Vec<_>>());
    assert_eq!(before.values().map(|job| job.tasks.len()).sum::<usize>(), 21);

    let prediction = would(&world, &["lose rack=r3"]);
    assert_eq!(world.shards.iter().map(Shard::hash).collect::<Vec<_>>(), hashes, "nothing of the cluster is touched");
    assert!(prediction.settled && prediction.anyway == 0 && prediction.notes.is_empty(), "{prediction:?}");
    assert_eq!(prediction.agents, (6, 4));
    assert!(prediction.took_ms >= 29_000, "agents are given up 30 s after their last beat, not {} ms", prediction.took_ms);
    // Each agent has room for four of 0.9 cores and one that is small: of those that are one for each agent two have none.
    assert_eq!(of_fate(&prediction, Fate::Waits), 2, "{prediction:?}");
    assert_eq!(of_fate(&prediction, Fate::Ends) + of_fate(&prediction, Fate::Starts) + of_fate(&prediction, Fate::Restarts), 0);
    let [waiting] = &prediction.waiting[..] else { panic!("{:?}", prediction.waiting) };
    assert_eq!((waiting.title.as_str(), waiting.before, waiting.why.waiting), ("one-each", 0, 2));
    let said: Vec<&String> = waiting.shapes.iter().flat_map(|shape| shape.short.keys()).collect();
    assert!(said.iter().any(|reason| reason.contains("no more tasks of the job may be at this hostname")), "{said:?}");

    for agent in [5, 6] {
        world.lose(AgentId(agent));
    }
    assert!(world.settle(world.now + 40_000).unwrap());
    assert_eq!(fates(&prediction.changed), fates(&changes(&before, &standing(&world))));
}

#[test]
fn the_other_hypotheses_come_true_too() {
    let mut world = racks();
    submit(&mut world, job("web", Kind::Service, 30, 1_000));
    settle(&mut world);
    for (texts, waits, starts, moves, ends) in [
        // 24 of 30 run. Those of an emptied agent make room for nobody.
        (&["add 1 agent like a1"][..], 0, 4, 0, 0),
        (&["add 3 agents like a1 with rack=r9", "scale web to 31"], 0, 7, 0, 0),
        (&["stop web"], 0, 0, 0, 24),
        (&["scale web to 20"], 0, 0, 0, 4),
        // What waits already gets the room before the lost ones are given up.
        (&["lose name=a2", "add 1 agent like a2"], 4, 4, 0, 0),
        (&["drain rack=r1"], 8, 0, 0, 0),
        (&["set role=default limit=cpu=40"], 0, 0, 0, 0),
    ] {
        let prediction = would(&world, texts);
        let found = [Fate::Waits, Fate::Starts, Fate::Moves, Fate::Ends].map(|fate| {
            let of_web = |changed: &&Changed| changed.fate == fate && changed.title == "web";
            prediction.changed.iter().filter(of_web).count()
        });
        assert_eq!(found, [waits, starts, moves, ends], "{texts:?}: {:?}", prediction.changed);
    }
    // Tasks of batch jobs go on elsewhere too, where there is room.
    let mut roomy = racks();
    let run = submit(&mut roomy, job("run", Kind::Batch, 12, 100));
    settle(&mut roomy);
    let there = standing(&roomy)[&run].tasks.values().filter(|(agent, _)| agent.0 <= 2).count();
    let drained = would(&roomy, &["drain rack=r1"]);
    assert_eq!((of_fate(&drained, Fate::Moves), drained.changed.len()), (there, there), "{drained:?}");
    assert!(there > 0 && drained.changed.iter().all(|changed| changed.to.is_some_and(|to| to.0 > 2)));
    assert_eq!(drained.agents, (6, 4));
}

#[test]
fn a_job_is_tried_where_something_else_came_true() {
    let mut world = racks();
    submit(&mut world, job("web", Kind::Service, 12, 1_000));
    settle(&mut world);
    let tried = |texts: &[&str], job: Job| predict(copies(&world), &ScoreMap::new(), &supposed(texts), Some(job)).unwrap();
    let fits = tried(&[], job("new", Kind::Service, 12, 1_000));
    let id = fits.job.unwrap();
    assert_eq!((of_fate(&fits, Fate::Starts), fits.changed.len(), fits.waiting.len()), (12, 12, 0));
    assert!(fits.changed.iter().all(|changed| changed.job == id) && fits.free.1.cpu_milli == 0, "{fits:?}");
    let short = tried(&["lose rack=r1"], job("new", Kind::Service, 12, 1_000));
    let waiting = short.waiting.iter().find(|waiting| waiting.title == "new").unwrap();
    assert_eq!(waiting.why.waiting, 8, "{short:?}");
    // A job of that name gets another count: those that run are left alone.
    let grown = tried(&[], job("web", Kind::Service, 13, 1_000));
    assert_eq!((of_fate(&grown, Fate::Starts), of_fate(&grown, Fate::Restarts), grown.changed.len()), (1, 0, 1), "{grown:?}");
    // Or a new version: they are started again one by one, as whenever it is applied.
    let mut other = job("web", Kind::Service, 13, 1_000);
    Arc::make_mut(&mut other.template).members[0].args.push("2".into());
    let replaced = tried(&[], other);
    let counts = (of_fate(&replaced, Fate::Starts), of_fate(&replaced, Fate::Restarts), replaced.changed.len());
    assert_eq!(counts, (1, 12, 13), "{replaced:?}");
    let wrong = predict(copies(&world), &ScoreMap::new(), &[], Some(job("web", Kind::Batch, 1, 1_000))).unwrap_err();
    assert!(wrong.to_string().contains("cannot become"), "{wrong}");
}

#[test]
fn where_most_fall_silent_it_is_said_how_long_that_takes() {
    let mut world = racks();
    for number in 7..=14 {
        let info = AgentInfo { name: format!("a{number}"), version: "0".into(), ..AgentInfo::default() };
        world.join(AgentId(number), info, 1, Vec::new());
    }
    submit(&mut world, job("web", Kind::Service, 6, 1_000));
    settle(&mut world);
    let lost = [
        "lose name=a1",
        "lose name=a2",
        "lose name=a3",
        "lose name=a4",
        "lose name=a7",
        "lose name=a8",
        "lose name=a9",
        "lose name=a10",
        "lose name=a11",
        "lose name=a12",
        "lose name=a13",
        "lose name=a14",
    ];
    let prediction = would(&world, &lost);
    assert!(prediction.settled && prediction.took_ms >= 299_000, "{prediction:?}");
    assert!(prediction.notes.iter().any(|note| note.contains("after 300 s")), "{:?}", prediction.notes);
    assert!(prediction.changed.iter().all(|changed| changed.fate == Fate::Moves) && !prediction.changed.is_empty());
}

#[test]
fn what_cannot_come_true_is_refused_with_a_reason() {
    let mut world = racks();
    submit(&mut world, job("web", Kind::Service, 2, 1_000));
    submit(&mut world, job("run", Kind::Batch, 2, 1_000));
    settle(&mut world);
    for (texts, at, why) in [
        (&["lose rack=r9"][..], 0, "no agent has rack=r9"),
        (&["lose rack=r1", "lose rack=r1"], 1, "lost already"),
        (&["add 2 agents like nobody"], 0, "no agent called nobody"),
        (&["scale nothing to 3"], 0, "no job nothing"),
        (&["stop web role=other"], 0, "no job web of role other"),
    ] {
        match predict(copies(&world), &ScoreMap::new(), &supposed(texts), None) {
            Err(PlanError::Hypothesis { at: Some(found), reason }) => assert!(found == at && reason.contains(why), "{texts:?}: {reason}"),
            other => panic!("{texts:?}: {other:?}"),
        }
    }
    // A job goes by its id too.
    let web = *standing(&world).iter().find(|(_, job)| job.title == "web").unwrap().0;
    assert_eq!(of_fate(&would(&world, &[&format!("stop {web}")]), Fate::Ends), 2);
    let busy = world.shards.iter().find(|shard| !shard.stood().is_empty()).unwrap();
    assert!(matches!(busy.viewed(View::Copy { tasks_max: 0 }), Err(Refusal::Invalid { .. })));
}

#[test]
fn what_is_guaranteed_is_kept_from_a_job_that_is_tried() {
    let mut world = racks();
    settle(&mut world);
    let started = |texts: &[&str]| {
        let tried = job("new", Kind::Service, 24, 1_000);
        of_fate(&predict(copies(&world), &ScoreMap::new(), &supposed(texts), Some(tried)).unwrap(), Fate::Starts)
    };
    assert_eq!(started(&[]), 24);
    assert_eq!(started(&["set role=vip guarantee=cpu=12"]), 12);
    assert_eq!(started(&["set role=vip guarantee=cpu=12", "set role=vip guarantee=none"]), 24);
}

#[test]
fn what_is_lent_is_lent_in_the_copy_too() {
    let mut world = racks();
    settle(&mut world);
    world.lend(AgentId(1), Lent { cpu_milli: 2_000, memory_bytes: 1 << 30 });
    settle(&mut world);
    let mut tried = job("new", Kind::Batch, 5, 0);
    let resources = Resources::revocable(Lent { cpu_milli: 1_000, memory_bytes: 1 << 20 });
    Arc::make_mut(&mut tried.template).resources = resources;
    let prediction = predict(copies(&world), &ScoreMap::new(), &[], Some(tried)).unwrap();
    assert_eq!((of_fate(&prediction, Fate::Starts), prediction.waiting.len()), (2, 1), "{prediction:?}");
}

/// Agents one after the other.
#[derive(Debug)]
struct Packs;

impl Score for Packs {
    fn score(&self, _: &Asked, candidates: &[Candidate]) -> Result<Ranking, String> {
        Ok(Ranking { scores: candidates.iter().map(|candidate| -(candidate.free.cpu_milli as f64)).collect(), fill: true })
    }
}

#[test]
fn a_policy_orders_the_agents_of_the_copy_too() {
    let mut world = racks();
    submit(&mut world, job("web", Kind::Service, 1, 1_000));
    settle(&mut world);
    let used = |scores: &ScoreMap| {
        let prediction = predict(copies(&world), scores, &supposed(&["scale web to 4"]), None).unwrap();
        prediction.changed.iter().filter_map(|changed| changed.to).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(used(&ScoreMap::new()), 3);
    assert_eq!(used(&ScoreMap::from([(None, Arc::new(Packs) as Arc<dyn Score>)])), 1);
}

#[test]
fn agents_that_are_silent_already_count_for_what_happens_anyway() {
    let mut world = racks();
    let web = submit(&mut world, job("web", Kind::Service, 12, 1_000));
    settle(&mut world);
    let there = standing(&world)[&web].tasks.values().filter(|(agent, _)| *agent == AgentId(1)).count() as u64;
    world.lose(AgentId(1));
    settle(&mut world); // For less long than it takes until they are placed elsewhere.
    let prediction = would(&world, &["add 1 agent like a2"]);
    assert_eq!((prediction.anyway, prediction.changed.len()), (there, 0), "{prediction:?}");
    assert!(there > 0);
}

#[test]
fn a_system_job_is_where_agents_come_and_ends_where_they_go() {
    let mut world = racks();
    submit(&mut world, job("log", Kind::System, 0, 100));
    settle(&mut world);
    assert_eq!(standing(&world).values().map(|job| job.tasks.len()).sum::<usize>(), 6);
    for (texts, starts, ends) in [
        (&["lose rack=r3"][..], 0, 2),
        (&["add 3 agents like a1"], 3, 0),
        (&["drain name=a1"], 0, 1),
        (&["drain rack=r1", "resume name=a1"], 0, 1),
    ] {
        let prediction = would(&world, texts);
        assert!(prediction.settled && prediction.anyway == 0 && prediction.waiting.is_empty(), "{texts:?}: {prediction:?}");
        let found = [Fate::Starts, Fate::Ends, Fate::Moves, Fate::Waits].map(|fate| of_fate(&prediction, fate));
        assert_eq!(found, [starts, ends, 0, 0], "{texts:?}: {prediction:?}");
    }
    let constraints = vec![Constraint { field: Field::Rack, rule: Rule::Is("r1".into()) }];
    let mut own = job("own", Kind::System, 0, 3_950);
    own.place = Some(Arc::new(Placement { constraints, spread: vec![] }));
    let prediction = predict(copies(&world), &ScoreMap::new(), &[], Some(own)).unwrap();
    let [waiting] = &prediction.waiting[..] else { panic!("{:?}", prediction.waiting) };
    assert_eq!((of_fate(&prediction, Fate::Starts), waiting.why.waiting), (0, 2), "each of the two has too little beside what it has");
}
