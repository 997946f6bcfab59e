//! What each rule lets in, alone and together.

use super::*;
use protocol::{Constraint, FaultDomain};

fn stand(name: &str, rack: &str) -> Stand {
    Stand { name: name.into(), domain: FaultDomain { rack: rack.into(), ..FaultDomain::default() }, ..Stand::default() }
}

fn tally(rules: &[(&str, Rule)], spread: &[&str]) -> Tally {
    let constraint = |(field, rule): &(&str, Rule)| Constraint { field: Field::named(field), rule: rule.clone() };
    let constraints = rules.iter().map(constraint).collect();
    let place = Placement { constraints, spread: spread.iter().map(|field| Field::named(field)).collect() };
    *Tally::of(Some(&place)).unwrap()
}

/// Plans `waiting` tasks onto agents named by their racks, with room for so many each.
fn check(tally: &Tally, agents: &[(&str, u32)], waiting: u32, expected: &[u32]) {
    let stands: Vec<Stand> = agents.iter().enumerate().map(|(at, (rack, _))| stand(&format!("a{at}"), rack)).collect();
    let offers: Vec<(&Stand, u32)> = stands.iter().zip(agents).map(|(stand, (_, room))| (stand, *room)).collect();
    assert_eq!(tally.plan(&offers, waiting), expected, "{tally:?} {agents:?}");
}

#[test]
fn unique_and_max_per_count_what_is_there() {
    let mut racks = tally(&[("rack", Rule::MaxPer(2))], &[]);
    check(&racks, &[("a", 9), ("b", 9)], 10, &[2, 2]);
    check(&racks, &[("a", 9), ("a", 9), ("", 9)], 10, &[1, 1, 0]);
    racks.count(&stand("x", "a"), 1, true);
    check(&racks, &[("a", 9), ("b", 1)], 10, &[1, 1]);
    racks.count(&stand("x", "a"), 1, true);
    check(&racks, &[("a", 9), ("b", 9)], 1, &[0, 1]);
    racks.count(&stand("x", "a"), 2, false);
    check(&racks, &[("a", 9), ("b", 9)], 10, &[2, 2]);
    check(&tally(&[("hostname", Rule::Unique)], &[]), &[("a", 9), ("a", 9), ("b", 9)], 10, &[1, 1, 1]);
}

#[test]
fn a_cluster_stays_where_its_first_task_is() {
    let mut same = tally(&[("rack", Rule::Cluster(None))], &[]);
    assert!(same.limits(5).is_empty());
    check(&same, &[("a", 2), ("b", 9), ("a", 1)], 5, &[2, 0, 1]);
    same.count(&stand("x", "b"), 1, true);
    check(&same, &[("a", 2), ("b", 9)], 5, &[0, 5]);
    assert_eq!(same.limits(5)[0].most, 0);
}

#[test]
fn groups_are_even_once_there_are_enough_of_them() {
    let mut even = tally(&[("rack", Rule::GroupBy(3))], &[]);
    check(&even, &[("a", 9), ("b", 9)], 9, &[1, 1]);
    check(&even, &[("a", 9), ("b", 9), ("c", 9)], 8, &[3, 3, 2]);
    check(&even, &[("a", 9), ("b", 1), ("c", 9)], 9, &[2, 1, 2]);
    for rack in ["a", "a", "b", "c"] {
        even.count(&stand("x", rack), 1, true);
    }
    check(&even, &[("a", 9), ("b", 9), ("c", 9), ("d", 9)], 1, &[0, 1, 0, 0]);
    check(&even, &[("a", 9)], 1, &[0]);
    let limits = even.limits(6);
    assert_eq!(limits[0].left, [("a".to_owned(), 0), ("b".to_owned(), 1), ("c".to_owned(), 1)]);
}

#[test]
fn spreading_fills_the_emptiest_first_and_never_refuses_for_good() {
    let mut spread = tally(&[], &["rack"]);
    check(&spread, &[("a", 9), ("b", 9), ("", 9)], 9, &[1, 1, 1]);
    ["a", "b", ""].iter().for_each(|rack| spread.count(&stand("x", rack), 1, true));
    let turn = spread.turn(9).unwrap();
    check(&spread, &[("a", 9)], 6, &[0]);
    assert!(!spread.stuck(ShardId(0), turn, 2) && !spread.stuck(ShardId(0), turn, 2));
    assert!(!spread.stuck(ShardId(1), turn - 1, 2), "it says so of an earlier turn");
    assert!(spread.stuck(ShardId(1), turn, 2));
    spread.relax(6);
    check(&spread, &[("a", 9), ("b", 9), ("c", 9)], 6, &[2, 2, 2]);
    spread.relax(u32::MAX);
    assert_eq!(spread.turn(9), None);
    check(&spread, &[("a", 9)], 6, &[6]);
    // Tasks wait anew: the rack with the fewest goes first again.
    spread.count(&stand("x", "a"), 1, true);
    spread.begin();
    check(&spread, &[("a", 9), ("b", 9), ("c", 9)], 6, &[0, 0, 1]);
}

#[test]
fn rules_hold_together() {
    let both = tally(&[("hostname", Rule::Unique), ("rack", Rule::MaxPer(2))], &["rack"]);
    check(&both, &[("a", 9), ("a", 9), ("b", 9)], 9, &[1, 0, 1]);
    let mut relaxed = both.clone();
    relaxed.relax(100);
    check(&relaxed, &[("a", 9), ("a", 9), ("a", 9), ("b", 9)], 9, &[1, 1, 0, 1]);
}
