//! What is chosen, and that a demand stays bounded.

use super::*;

const GIB: u64 = 1 << 30;

fn need(devices: u8, milli: u16, cpu_milli: u64) -> Need {
    Need { devices, milli, kinds: u64::MAX, cpu_milli, memory_bytes: GIB }
}

fn room(cpu_milli: u64, free: &[u16]) -> Room {
    let mut milli = [0; SINGLES_MAX];
    milli[..free.len()].copy_from_slice(free);
    Room { kinds: 1, cpu_milli, memory_bytes: 64 * GIB, devices: free.len() as u8, milli }
}

fn demand(needs: &[(u32, Need)]) -> Demand {
    let mut demand = Demand::default();
    for (times, need) in needs {
        (0..*times).for_each(|_| demand.learn(need, 1));
    }
    demand
}

/// A demand of whole devices and of halves.
fn mixed() -> Demand {
    demand(&[(100, need(1, 1_000, 4_000)), (100, need(1, 500, 2_000))])
}

fn check(need: &Need, candidates: &[Room], expected: Option<(usize, u16)>) {
    let found = mixed().choose(need, candidates).map(|spot| (spot.candidate, spot.devices));
    assert_eq!(found, expected, "{need:?} among {candidates:?}");
}

#[test]
fn part_of_a_device_goes_where_a_part_is_taken_already() {
    check(&need(1, 500, 2_000), &[room(16_000, &[1_000, 1_000]), room(16_000, &[1_000, 500])], Some((1, 0b10)));
    check(&need(1, 500, 2_000), &[room(16_000, &[1_000, 500])], Some((0, 0b10)));
}

#[test]
fn a_task_keeps_away_from_devices_that_it_would_leave_without_processors() {
    check(&need(0, 0, 14_000), &[room(16_000, &[1_000, 1_000]), room(64_000, &[1_000, 1_000])], Some((1, 0)));
    check(&need(1, 1_000, 14_000), &[room(16_000, &[1_000, 1_000]), room(64_000, &[1_000, 1_000])], Some((1, 0b1)));
}

#[test]
fn of_equals_the_first_is_taken() {
    check(&need(1, 1_000, 4_000), &[room(16_000, &[1_000]), room(16_000, &[1_000])], Some((0, 0b1)));
}

#[test]
fn several_devices_are_whole_ones() {
    check(&need(2, 1_000, 4_000), &[room(16_000, &[1_000, 500]), room(16_000, &[500, 1_000, 0, 1_000])], Some((1, 0b1010)));
}

#[test]
fn nothing_is_chosen_where_nothing_fits() {
    check(&need(1, 600, 1_000), &[room(16_000, &[500, 500]), room(500, &[1_000])], None);
    check(&Need { kinds: 0b10, ..need(1, 100, 100) }, &[room(16_000, &[1_000])], None);
    check(&need(1, 100, 100), &[], None);
}

#[test]
fn what_a_task_takes_it_gives_back() {
    let (before, need) = (room(16_000, &[1_000, 300, 1_000]), need(2, 1_000, 4_000));
    let devices = before.ways(&need).next().unwrap();
    assert_eq!(devices, 0b101);
    let left = before.without(&need, devices);
    assert_eq!((left.cpu_milli, left.each()), (12_000, &[0, 300, 0][..]));
    assert_eq!(left.with(&need, devices), before);
}

#[test]
fn waste_is_what_the_tasks_seen_cannot_use() {
    let demand = demand(&[(3, need(1, 1_000, 4_000)), (1, need(1, 500, 2_000))]);
    // Three tasks can use nothing of it; the fourth all but the 300.
    assert_eq!(demand.waste(&room(16_000, &[700, 300])), 3 * 1_000 + 300);
    // Too few processors for any.
    assert_eq!(demand.waste(&room(1_000, &[1_000])), 4 * 1_000);
    assert_eq!(demand.waste(&room(16_000, &[0, 0])), 0);
}

#[test]
fn a_demand_remembers_the_frequent_shapes_and_no_more_than_it_may() {
    let mut demand = demand(&[(500, need(1, 500, 7))]);
    for cpu_milli in 0..5_000 {
        demand.learn(&need(1, 1_000, 10 + cpu_milli), 1);
    }
    let count = |demand: &Demand| demand.classes.iter().map(|class| class.shapes.len()).sum::<usize>();
    assert_eq!((demand.shapes, count(&demand)), (SHAPES_MAX, SHAPES_MAX));
    assert_eq!(demand.classes[0].shapes, vec![(7, GIB, 500)]);
    let sums = |demand: &Demand| demand.classes.iter().map(|class| class.seen).sum::<u32>();
    assert_eq!(sums(&demand), demand.seen);
    for _ in 0..2 * SEEN_MAX {
        demand.learn(&need(1, 500, 7), 1);
    }
    assert!(demand.seen <= SEEN_MAX && sums(&demand) == demand.seen, "{}", demand.seen);
}
