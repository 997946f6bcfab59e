//! How far roles are from their fair shares while tasks end and roles come and go: the real shards, with no journal, each message a millisecond on its
//! way. Tasks are not stopped for another role's sake, so a change is passed on as fast as tasks end: they last at most `TASK_MS_MAX`, less than
//! the second after which shares are looked at.

mod cluster;
pub mod reference;

use crate::random::Random;
use cluster::Cluster;
use master::shard::roles::WEIGHT_ONE;
use protocol::{Resources, Role};
use reference::{Below, Node};
use std::collections::{BTreeMap, BTreeSet};

/// Tasks last so long, in milliseconds: from, to.
const TASK_MS_MIN: u64 = 100;
const TASK_MS_MAX: u64 = 900;
/// When shares are looked at after a change of who wants something, in milliseconds: first, last, and how often between.
const LOOK_FIRST_MS: u64 = 1_000;
const LOOK_LAST_MS: u64 = 2_000;
const LOOK_EVERY_MS: u64 = 50;
/// Of a hundred roles, so many begin or cease to want something at each change.
const CHANGE_PERCENT: u64 = 10;
/// Of ten roles, so many are below others, [`BELOW_ONE`] below each.
const NESTED_OF_TEN: u32 = 4;
const BELOW_ONE: u32 = 5;
/// What an agent has.
pub(crate) const CAPACITY: Resources = Resources { cpu_milli: 4_000, memory_bytes: 16 << 30, disk_bytes: 0, ports: 0, devices: vec![] };
/// What tasks need, by what it is called: processors and memory. The first is the shape of all that there is.
pub const NEEDS: [(&str, u64, u64); 4] =
    [("even", 500, 2 << 30), ("processors", 1_000, 1 << 30), ("memory", 250, 4 << 30), ("little", 500, 512 << 20)];
const WEIGHTS_MILLI: [u32; 4] = [1_000, 2_000, 500, 3_000];

/// How large it is to be.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Agents.
    pub agents: u32,
    /// Shards.
    pub shards: u16,
    /// Roles that want tasks; those above them are not counted.
    pub roles: u32,
    /// How many of [`NEEDS`] there are.
    pub needs: usize,
    /// Changes of who wants something, after the first.
    pub changes: u32,
    /// What is drawn.
    pub seed: u64,
}

/// A role that wants tasks.
#[derive(Clone, Debug)]
pub(crate) struct Wanting {
    pub name: Role,
    pub weight_milli: u32,
    pub shape: Resources,
    /// Which of [`NEEDS`] that is.
    pub need: usize,
    /// True while it wants more.
    pub wants: bool,
}

/// What was seen at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// The largest distance of a role from its share, in percent of the pool.
    pub off_percent: f64,
    /// Whose that is, and its fair share in percent.
    pub whose: (Role, f64),
    /// The largest distance in percent of the role's own share.
    pub off_percent_of_own: f64,
    /// How much of the kind of resources that most of is used is used, in percent.
    pub used_percent: f64,
    /// What all roles hold, and what they would, by what their tasks need.
    pub by_need: Vec<(f64, f64)>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// In order of time.
    pub looks: Vec<Look>,
    /// Tasks that ended.
    pub ended: u64,
}

/// Runs it.
#[must_use]
pub fn run(size: &Size) -> Figures {
    let mut random = Random::new(size.seed);
    let roles = (0..size.roles).map(|number| wanting(number, size.needs)).collect();
    let mut cluster = Cluster::new(size, roles, random.next());
    let mut figures = Figures::default();
    for change in 0..=size.changes {
        let all = u64::from(size.roles);
        let count = if change == 0 { 0 } else { (all * CHANGE_PERCENT).div_ceil(100) };
        let mut changing = BTreeSet::new();
        while (changing.len() as u64) < count {
            changing.insert(random.below(all) as usize);
        }
        changing.into_iter().for_each(|at| cluster.toggle(at));
        let begun = cluster.now();
        for after in (LOOK_FIRST_MS..=LOOK_LAST_MS).step_by(LOOK_EVERY_MS as usize) {
            cluster.run_until(begun + after);
            figures.looks.push(look(&cluster));
        }
    }
    figures.ended = cluster.ended;
    figures
}

fn wanting(number: u32, needs: usize) -> Wanting {
    let need = number as usize % needs.min(NEEDS.len());
    let (_, cpu_milli, memory_bytes) = NEEDS[need];
    let name = if number % 10 < NESTED_OF_TEN {
        let nested = number / 10 * NESTED_OF_TEN + number % 10;
        format!("group-{}/role-{number}", nested / BELOW_ONE)
    } else {
        format!("role-{number}")
    };
    Wanting {
        name: Role::new(&name).expect("letters, digits and hyphens"),
        weight_milli: WEIGHTS_MILLI[number as usize / NEEDS.len() % WEIGHTS_MILLI.len()],
        shape: Resources { cpu_milli, memory_bytes, ..Resources::NONE },
        need,
        wants: true,
    }
}

/// Compares what roles hold with what they would in the fair allocation to all that want something; those that do not are to hold nothing.
fn look(cluster: &Cluster) -> Look {
    let (wanting, idle): (Vec<&Wanting>, Vec<&Wanting>) = cluster.roles.iter().partition(|role| role.wants);
    let mut groups = BTreeMap::<Role, Vec<&Wanting>>::new();
    for role in wanting {
        groups.entry(role.name.parent().unwrap_or_else(|| role.name.clone())).or_default().push(role);
    }
    let tasks = |role: &&Wanting| Node { weight: f64::from(role.weight_milli), below: Below::Tasks(cluster.part(&role.shape)) };
    let (mut tree, mut names) = (Vec::new(), Vec::new());
    for (top, roles) in &groups {
        names.push(top.clone());
        if roles[0].name == *top {
            tree.push(tasks(&roles[0]));
        } else {
            names.extend(roles.iter().map(|role| role.name.clone()));
            tree.push(Node { weight: f64::from(WEIGHT_ONE), below: Below::Roles(roles.iter().map(tasks).collect()) });
        }
    }
    let nothing = idle.into_iter().map(|role| (role.name.clone(), 0.0));
    let fair = names.into_iter().zip(reference::shares(&tree)).chain(nothing);
    let found: Vec<(Role, f64, f64)> = fair.map(|(name, fair)| (name.clone(), cluster.held(&name), fair)).collect();
    let mut look = judge(&found, cluster.used());
    for (name, held, fair) in found {
        let Some(role) = cluster.roles.iter().find(|role| role.name == name) else { continue };
        let sum = &mut look.by_need[role.need];
        *sum = (sum.0 + held, sum.1 + fair);
    }
    look
}

fn judge(found: &[(Role, f64, f64)], used: f64) -> Look {
    let off = |(_, held, fair): &(Role, f64, f64)| (held - fair).abs();
    let most = found.iter().max_by(|a, b| off(a).total_cmp(&off(b))).expect("there are roles");
    let of_own = found.iter().filter(|(.., fair)| *fair > 0.0).map(|one| off(one) / one.2).fold(0.0, f64::max);
    Look {
        off_percent: off(most) * 100.0,
        whose: (most.0.clone(), most.2 * 100.0),
        off_percent_of_own: of_own * 100.0,
        used_percent: used * 100.0,
        by_need: vec![(0.0, 0.0); NEEDS.len()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_a_small_cluster_are_near_their_shares_while_tasks_end() {
        let figures = run(&Size { agents: 60, shards: 3, roles: 10, needs: 1, changes: 2, seed: 1 });
        assert!(figures.ended > 1_000 && figures.looks.len() == 63, "{figures:?}");
        let used = figures.looks.iter().map(|look| look.used_percent).fold(100.0, f64::min);
        let off = figures.looks.iter().map(|look| look.off_percent).fold(0.0, f64::max);
        assert!(used > 80.0 && off < 10.0, "{used} {off}");
    }

    #[test]
    fn whoever_is_the_farthest_from_its_share_is_named() {
        let role = |name: &str| Role::new(name).unwrap();
        let look = judge(&[(role("a"), 0.5, 0.4), (role("b"), 0.02, 0.01), (role("c"), 0.03, 0.0)], 0.5);
        assert_eq!(look.whose.0, role("a"));
        assert!((look.off_percent - 10.0).abs() < 1e-9 && (look.off_percent_of_own - 100.0).abs() < 1e-9, "{look:?}");
    }
}
