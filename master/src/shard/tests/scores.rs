//! Plug-ins that order agents: a stand-in that prefers those of a later name, and goes wrong as it is told to.

use super::*;
use crate::plugins::{ASIDE_MS, Asked, CANDIDATES_MAX, Candidate, FAILURES_MAX, Kind as PlugInKind, Ranking, Score};
use crate::shard::plugins::PlugInsView;
use protocol::{Constraint, Field, Placement, Rule};
use std::sync::RwLock;

/// What it says.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// The last of a name is best.
    Last {
        fill: bool,
    },
    Nothing,
    NoNumber,
    TooFew,
}

#[derive(Debug)]
struct StandIn {
    says: RwLock<Says>,
    asked: RwLock<Vec<(Asked, usize)>>,
}

impl Score for StandIn {
    fn score(&self, asked: &Asked, candidates: &[Candidate]) -> Result<Ranking, String> {
        self.asked.write().unwrap().push((asked.clone(), candidates.len()));
        let number = |candidate: &Candidate| candidate.stand.name.rsplit('-').next().unwrap().parse::<f64>().unwrap();
        let scores = candidates.iter().map(number);
        match *self.says.write().unwrap() {
            Says::Last { fill } => Ok(Ranking { scores: scores.collect(), fill }),
            Says::Nothing => Err("out of fuel".into()),
            Says::NoNumber => Ok(Ranking { scores: scores.map(|_| f64::NAN).collect(), fill: true }),
            Says::TooFew => Ok(Ranking { scores: scores.skip(1).collect(), fill: true }),
        }
    }
}

fn stand_in(says: Says) -> Arc<StandIn> {
    Arc::new(StandIn { says: RwLock::new(says), asked: RwLock::default() })
}

/// Agents 1 to `count` of four cores each, and that plug-in for all roles.
fn world(count: u64, score: &Arc<StandIn>) -> World {
    let mut world = World::new();
    for agent in 1..=count {
        world.register(AgentId(agent), cpu(4_000), agent);
    }
    world.shard.plug_in(&ScoreMap::from([(None, Arc::clone(score) as Arc<dyn Score>)]));
    world
}

fn held(world: &World, count: u64) -> Vec<usize> {
    (1..=count).map(|agent| world.held(AgentId(agent)).len()).collect()
}

fn view(world: &mut World) -> PlugInsView {
    match world.ask(Request::View(View::PlugIns)) {
        Response::Viewed(viewed) => match *viewed {
            Viewed::PlugIns(view) => view,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn tasks_go_to_the_agents_that_a_plug_in_prefers() {
    for (fill, expected) in [(true, [0, 2, 4]), (false, [2, 2, 2])] {
        let score = stand_in(Says::Last { fill });
        let mut world = world(3, &score);
        world.submit(job(Kind::Batch, 6, 1_000));
        assert_eq!(held(&world, 3), expected, "fill: {fill}");
        world.submit(job(Kind::Batch, 1, 500));
        let best = if fill { [0, 3, 4] } else { [2, 2, 3] };
        assert_eq!(held(&world, 3), best, "fill: {fill}");
        let asked = score.asked.write().unwrap().clone();
        assert_eq!((asked[0].0.count, asked[0].0.needs.cpu_milli, asked[0].1), (6, 1_000, 3));
        assert!(asked.len() <= 3, "one call orders all of a want: {asked:?}");
        let (role, tally, aside) = view(&mut world).scores.remove(0);
        assert_eq!((role, tally.calls, tally.failures, aside), (None, asked.len() as u64, 0, None));
        world.check();
    }
}

#[test]
fn a_plug_in_is_shown_only_agents_that_the_tasks_may_have_and_only_so_many() {
    let score = stand_in(Says::Last { fill: true });
    let mut world = world(3, &score);
    let mut placed = job(Kind::Batch, 2, 1_000);
    let constraints = vec![Constraint { field: Field::Hostname, rule: Rule::Unlike("agent-3".into()) }];
    placed.place = Some(Arc::new(Placement { constraints, spread: vec![] }));
    world.submit(placed);
    assert_eq!(held(&world, 3), [0, 2, 0]);
    let mut unique = job(Kind::Batch, 3, 1_000);
    let constraints = vec![Constraint { field: Field::Hostname, rule: Rule::Unique }];
    unique.place = Some(Arc::new(Placement { constraints, spread: vec![] }));
    world.submit(unique);
    assert_eq!(held(&world, 3), [1, 3, 1], "to be filled is no more than its job allows");
    world.check();

    let score = stand_in(Says::Last { fill: true });
    let mut many = self::world(40, &score);
    many.submit(job(Kind::Batch, 160, 1_000));
    assert_eq!(held(&many, 40), [4; 40]);
    assert!(score.asked.write().unwrap().iter().all(|(_, shown)| *shown <= CANDIDATES_MAX));
    many.check();
}

#[test]
fn where_a_plug_in_does_not_answer_agents_are_taken_as_without_it() {
    let mut without = World::new();
    for agent in 1..=3 {
        without.register(AgentId(agent), cpu(4_000), agent);
    }
    without.submit(job(Kind::Batch, 5, 1_000));
    for says in [Says::Nothing, Says::NoNumber, Says::TooFew] {
        let score = stand_in(says);
        let mut world = world(3, &score);
        world.submit(job(Kind::Batch, 5, 1_000));
        assert_eq!(held(&world, 3), held(&without, 3), "{says:?}");
        let (_, tally, _) = view(&mut world).scores.remove(0);
        assert!(tally.failures > 0 && tally.failures == tally.calls && !tally.last.is_empty(), "{tally:?}");
        world.check();
    }
}

#[test]
fn a_plug_in_that_fails_too_often_is_put_aside_and_asked_again_later() {
    let score = stand_in(Says::Nothing);
    let mut world = world(3, &score);
    let all = [1, 2, 3].map(AgentId);
    for _ in 0..2 * FAILURES_MAX {
        world.submit(job(Kind::Batch, 1, 100));
    }
    assert_eq!(score.asked.write().unwrap().len(), FAILURES_MAX as usize);
    let (_, tally, aside) = view(&mut world).scores.remove(0);
    assert_eq!((tally.failures, tally.last.as_str()), (u64::from(FAILURES_MAX), "out of fuel"));
    assert!(aside.is_some_and(|until| until > world.now));
    // The same plug-ins again, as whenever others change: it is not forgotten what it did.
    world.shard.plug_in(&ScoreMap::from([(None, Arc::clone(&score) as Arc<dyn Score>)]));
    *score.says.write().unwrap() = Says::Last { fill: true };
    world.submit(job(Kind::Batch, 1, 100));
    assert_eq!(score.asked.write().unwrap().len(), FAILURES_MAX as usize);
    world.pass(ASIDE_MS, &all);
    world.submit(job(Kind::Batch, 1, 100));
    assert_eq!(score.asked.write().unwrap().len(), FAILURES_MAX as usize + 1);
    assert_eq!(view(&mut world).scores.remove(0).2, None);
    world.check();
}

#[test]
fn a_plug_in_is_for_its_role_and_all_below_it() {
    let (web, rest) = (stand_in(Says::Last { fill: true }), stand_in(Says::Last { fill: true }));
    let mut world = world(3, &rest);
    let map = ScoreMap::from([(Some(as_role("web")), Arc::clone(&web) as Arc<dyn Score>), (None, Arc::clone(&rest) as Arc<dyn Score>)]);
    world.shard.plug_in(&map);
    for (role, of_web, of_rest) in [("web", 1, 0), ("web/shop", 2, 0), ("webs", 2, 1)] {
        world.submit(Job { role: as_role(role), ..job(Kind::Batch, 1, 100) });
        assert_eq!((web.asked.write().unwrap().len(), rest.asked.write().unwrap().len()), (of_web, of_rest), "{role}");
    }
    world.shard.plug_in(&ScoreMap::new());
    world.submit(job(Kind::Batch, 1, 100));
    assert_eq!(rest.asked.write().unwrap().len(), 1);
    assert!(view(&mut world).scores.is_empty());
    world.check();
}

#[test]
fn plug_ins_are_on_record() {
    let mut world = World::new();
    let place = |role: Option<&str>| (PlugInKind::Score, role.map(as_role));
    let set = |role: Option<&str>, plug_in| Request::SetPlugIn { place: place(role), plug_in };
    let (one, other) = ((Digest([1; 32]), false), (Digest([2; 32]), false));
    assert!(matches!(world.ask(set(None, None)), Response::Refused(Refusal::NotFound { .. })));
    assert!(matches!(world.ask(set(None, Some(one))), Response::Done));
    assert!(matches!(world.ask(set(Some("web"), Some(other))), Response::Done));
    let records = world.journal.len();
    assert!(matches!(world.ask(set(None, Some(one))), Response::Done));
    assert_eq!(world.journal.len(), records, "what is so already is not put on record again");
    let changes = world.changes.iter().filter(|change| **change == Change::PlugIns).count();
    assert_eq!(changes, 2);
    world.new_leader();
    let on_record: Vec<_> = view(&mut world).on_record.into_iter().map(|(place, plug_in)| (place, plug_in.bundle)).collect();
    assert_eq!(on_record, [(place(None), one.0), (place(Some("web")), other.0)]);
    assert!(matches!(world.ask(set(Some("web"), None)), Response::Done));
    assert_eq!(view(&mut world).on_record.len(), 1);
    world.check();
}
