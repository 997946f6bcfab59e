//! Frameworks beside what is guaranteed to others: however much they are shown at once, and whatever they take of it, that is left.

use super::reserved::change;
use super::*;
use crate::shard::quotas::RoleSettings;
use crate::shard::roles::Claim;
use crate::shard::tests::walk::Draws;

fn guaranteed(cpu_milli: u64) -> RoleSettings {
    RoleSettings { claim: Claim { guarantee: cpu(cpu_milli), ..Claim::default() }, ..RoleSettings::default() }
}

fn wish(count: u32, cpu_milli: u64) -> Wish {
    Wish { role: as_role("eager"), priority: 50, count, shape: cpu(cpu_milli), constraints: vec![] }
}

fn sum(offers: &[OpenOffer]) -> u64 {
    offers.iter().map(|offer| offer.resources.cpu_milli).sum()
}

impl World {
    fn guarantee(&mut self, role: &str, cpu_milli: u64) {
        let response = self.ask(Request::SetRole { role: as_role(role), settings: guaranteed(cpu_milli), force: false });
        assert!(matches!(response, Response::Done), "{response:?}");
    }

    /// What of these still holds after what the framework was told since, with what it was shown beside.
    fn holding(&mut self, client: &Client, mut offers: Vec<OpenOffer>) -> Vec<OpenOffer> {
        for event in self.events_of(client.request) {
            match event {
                FrameworkEvent::Offers(more) => offers.extend(more),
                FrameworkEvent::Rescinded(gone) => offers.retain(|offer| !gone.contains(&offer.id)),
                _ => {}
            }
        }
        offers
    }

    /// Takes all of these, in one task each; how many run.
    fn take(&mut self, client: &Client, offers: &[OpenOffer]) -> usize {
        let before = self.held(A).len() + self.held(B).len();
        for offer in offers {
            let all = task(&format!("t-{}", offer.id.number), offer.resources.cpu_milli);
            self.accept(client, std::slice::from_ref(offer), vec![all]);
        }
        self.held(A).len() + self.held(B).len() - before
    }
}

#[test]
fn what_two_agents_show_together_leaves_what_is_guaranteed_to_others() {
    let mut world = World::new();
    world.register(A, cpu(6_000), 1);
    world.register(B, cpu(4_000), 1);
    world.guarantee("vip", 3_000);
    let client = world.subscribe(None, info(&["other"]));
    let offers = world.offers(&client);
    assert_eq!(sum(&offers), 7_000, "all that may be taken, and no more: {offers:?}");
    assert_eq!(world.take(&client, &offers), offers.len());
    let vip = world.submit(Job { role: as_role("vip"), ..job(Kind::Batch, 30, 100) });
    assert_eq!(world.shard.jobs.live(vip).map(|job| job.live), Some(30));
    world.check();
}

#[test]
fn what_is_shown_is_taken_back_for_a_guarantee_that_is_new_and_for_jobs_that_take_the_rest() {
    let mut world = World::new();
    world.register(A, cpu(6_000), 1);
    world.register(B, cpu(4_000), 1);
    let client = world.subscribe(None, info(&["other"]));
    let first = world.offers(&client);
    assert_eq!(sum(&first), 10_000);
    world.guarantee("vip", 3_000);
    let then = world.holding(&client, first.clone());
    assert_eq!(sum(&then), 7_000, "{then:?}");
    let gone: Vec<OpenOffer> = first.into_iter().filter(|offer| then.iter().all(|held| held.id != offer.id)).collect();
    assert_eq!(world.take(&client, &gone), 0, "what was taken back is refused");
    let jobs = world.submit(Job { role: as_role("jobs"), ..job(Kind::Batch, 20, 100) });
    assert_eq!(world.shard.jobs.live(jobs).map(|job| job.live), Some(20));
    let now = world.holding(&client, then);
    assert_eq!(sum(&now), 5_000, "{now:?}");
    assert_eq!(world.take(&client, &now), now.len());
    let vip = world.submit(Job { role: as_role("vip"), ..job(Kind::Batch, 30, 100) });
    assert_eq!(world.shard.jobs.live(vip).map(|job| job.live), Some(30));
    world.check();
}

#[test]
fn who_says_what_it_wants_has_it_beside_a_guarantee_though_another_holds_all_the_rest() {
    let mut world = World::new();
    world.register(A, cpu(6_000), 1);
    world.register(B, cpu(4_000), 1);
    world.guarantee("vip", 3_000);
    let hoards = world.subscribe(None, info(&["other"]));
    let held = world.offers(&hoards);
    assert_eq!(sum(&held), 7_000);
    let eager = world.subscribe_wanting(None, info(&["eager"]), vec![wish(2, 1_000)]);
    let offers = world.offers(&eager);
    assert_eq!(sum(&offers), 2_000, "{offers:?}");
    let held = world.holding(&hoards, held);
    assert!(sum(&held) + sum(&offers) <= 7_000, "{held:?}");
    assert_eq!(world.take(&eager, &offers) + world.take(&hoards, &held), offers.len() + held.len());
    let vip = world.submit(Job { role: as_role("vip"), ..job(Kind::Batch, 30, 100) });
    assert_eq!(world.shard.jobs.live(vip).map(|job| job.live), Some(30));
    world.check();
}

#[test]
fn a_framework_whose_role_is_short_of_its_guarantee_is_shown_what_is_kept() {
    let mut world = World::new();
    world.register(A, cpu(6_000), 1);
    world.register(B, cpu(4_000), 1);
    world.guarantee("vip", 3_000);
    world.submit(Job { role: as_role("jobs"), ..job(Kind::Batch, 1_000, 100) });
    let client = world.subscribe(None, info(&["vip"]));
    let offers = world.offers(&client);
    assert_eq!(sum(&offers), 3_000, "{offers:?}");
    assert_eq!(world.take(&client, &offers), offers.len());
    world.check();
}

#[test]
fn what_was_shown_of_a_reservation_counts_once_that_is_given_up_or_used() {
    for gives_up in [true, false] {
        let mut world = World::new();
        world.register(A, cpu(6_000), 1);
        world.register(B, cpu(4_000), 1);
        world.reserves(A, change(true, "other", 4_000)).unwrap();
        world.guarantee("vip", 3_000);
        let client = world.subscribe(None, info(&["other"]));
        let offers = world.offers(&client);
        assert_eq!(sum(&offers), 7_000, "its own, and what nobody is guaranteed: {offers:?}");
        if gives_up {
            world.reserves(A, change(false, "other", 4_000)).unwrap();
        } else {
            world.submit(Job { role: as_role("other"), ..job(Kind::Batch, 2, 1_000) });
        }
        let offers = world.holding(&client, offers);
        assert_eq!(sum(&offers), if gives_up { 7_000 } else { 5_000 }, "{offers:?}");
        world.check_kept();
        assert_eq!(world.take(&client, &offers), offers.len());
        let vip = world.submit(Job { role: as_role("vip"), ..job(Kind::Batch, 30, 100) });
        assert_eq!(world.shard.jobs.live(vip).map(|job| job.live), Some(30));
        world.check_kept();
    }
}

#[test]
fn more_of_an_agent_is_shown_once_more_may_be_and_who_declines_a_part_keeps_it_from_nobody() {
    let mut world = World::new();
    world.register(A, cpu(6_000), 1);
    world.register(B, cpu(4_000), 1);
    world.guarantee("vip", 3_000);
    let first = world.subscribe(None, info(&["first"]));
    let offers = world.offers(&first);
    let on = |offers: &[OpenOffer], agent| sum(&offers.iter().filter(|offer| offer.agent == agent).cloned().collect::<Vec<_>>());
    let largest = if on(&offers, A) == 6_000 { A } else { B };
    let (declined, left): (Vec<_>, Vec<_>) = offers.into_iter().partition(|offer| offer.agent == largest);
    let amount = sum(&declined);
    let ids = declined.iter().map(|offer| offer.id).collect();
    assert!(matches!(world.call(&first, Call::Decline { offers: ids, refuse_ms: 3_600_000 }), Response::Done));
    let left = world.holding(&first, left);
    let other = if largest == A { 4_000 } else { 6_000 };
    assert_eq!(sum(&left), other.min(7_000), "all of the other agent: {left:?}");
    // Another is shown what it does not want.
    let second = world.subscribe(None, info(&["second"]));
    world.pass(100, &[A, B]);
    let more = world.offers(&second);
    assert_eq!(sum(&more), (7_000 - sum(&left)).min(amount), "{more:?}");
    world.check_kept();
}

#[test]
fn whatever_frameworks_and_jobs_do_what_is_guaranteed_is_left() {
    for seed in 1..=40_u64 {
        let (mut world, mut draws) = (World::new(), Draws(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        // Operators may also have kept for others what is guaranteed to somebody.
        let reserves = seed % 2 == 0;
        world.register(A, cpu(6_000), 1);
        world.register(B, cpu(4_000), 1);
        world.guarantee("vip", 3_000);
        let clients = [world.subscribe(None, info(&["other"])), world.subscribe_wanting(None, info(&["eager"]), vec![wish(3, 700)])];
        let mut held = [vec![], vec![]];
        for step in 0..120 {
            let which = draws.below(2) as usize;
            let client = &clients[which];
            held[which] = world.holding(client, std::mem::take(&mut held[which]));
            match draws.below(6) {
                0 | 1 => {
                    let (some, rest): (Vec<_>, Vec<_>) = held[which].drain(..).partition(|_| draws.below(2) == 0);
                    held[which] = rest;
                    for offer in some {
                        let part = 1 + draws.below(offer.resources.cpu_milli);
                        world.accept(client, std::slice::from_ref(&offer), vec![task(&format!("{seed}-{step}-{}", offer.id.number), part)]);
                    }
                }
                2 => {
                    let offers = held[which].drain(..).map(|offer| offer.id).collect();
                    assert!(matches!(world.call(client, Call::Decline { offers, refuse_ms: draws.below(2) * 500 }), Response::Done));
                }
                3 if reserves && draws.below(3) == 0 => {
                    let change = change(draws.below(2) == 0, ["other", "eager"][draws.below(2) as usize], 100 + draws.below(2_000));
                    let _ = world.reserves([A, B][draws.below(2) as usize], change);
                }
                3 => {
                    let count = draws.below(8) as u32;
                    world.submit(Job { role: as_role("jobs"), ..job(Kind::Batch, count, 100 + draws.below(900)) });
                }
                4 => drop(world.call(&clients[1], Call::Demand(vec![wish(1 + draws.below(4) as u32, 100 + draws.below(2_000))]))),
                _ => {
                    for agent in [A, B] {
                        let ended = draws.some(world.held(agent));
                        world.end(agent, &ended, &Exit::Code(0));
                    }
                }
            }
            world.pass(draws.below(400), &[A, B]);
            world.shard.pool.check_shown();
            assert_eq!(world.shard.pool.shown_of_reserve(), [0; 0], "seed {seed}, step {step}: more is shown than may be taken");
        }
        let vip = world.submit(Job { role: as_role("vip"), ..job(Kind::Batch, 30, 100) });
        world.pass(100, &[A, B]);
        world.check_kept();
        // Of each of both agents less than one task's may be left.
        let live = world.shard.jobs.live(vip).map_or(0, |job| job.live);
        assert!(live >= 29 || reserves, "seed {seed}: {live} of 30");
    }
}
