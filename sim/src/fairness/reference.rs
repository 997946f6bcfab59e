//! The allocation that roles would have were tasks as fine as sand: each role's dominant share by its weight rises as fast as those of the roles
//! beside it, until some kind of resource is used up (DRF by progressive filling: Ghodsi et al., NSDI 2011, section 4.3; over a tree: Bhattacharya
//! et al., SoCC 2013, section 3). Every role is taken to want without end, and some of every kind: so all stop rising at the same moment, and one
//! step fills it all.

/// Kinds of resources: processors and memory.
pub const KINDS: usize = 2;

/// A role, with what it wants or with the roles below it.
#[derive(Clone, Debug)]
pub struct Node {
    /// What its share is divided by.
    pub weight: f64,
    /// Who wants what.
    pub below: Below,
}

/// What is below a role.
#[derive(Clone, Debug)]
pub enum Below {
    /// Its own tasks: which part of all that there is one of them needs, of each kind.
    Tasks([f64; KINDS]),
    /// Other roles, at least one.
    Roles(Vec<Node>),
}

/// The dominant share of each role and of those below it, in the order of the tree: a role before what is below it.
#[must_use]
pub fn shares(roles: &[Node]) -> Vec<f64> {
    let mut shares = Vec::new();
    fill(roles, 1.0, &mut shares);
    shares
}

/// Gives roles that stand beside each other so much that the largest sum, of any kind, is `most`.
fn fill(roles: &[Node], most: f64, shares: &mut Vec<f64>) {
    let level = most / largest(&sum(roles));
    for role in roles {
        let share = level * role.weight;
        shares.push(share);
        if let Below::Roles(below) = &role.below {
            fill(below, share, shares);
        }
    }
}

/// What these hold together where the share of each is its weight.
fn sum(roles: &[Node]) -> [f64; KINDS] {
    let mut sum = [0.0; KINDS];
    for role in roles {
        let one = match &role.below {
            Below::Tasks(need) => *need,
            Below::Roles(below) => self::sum(below),
        };
        let dominant = largest(&one);
        (0..KINDS).for_each(|kind| sum[kind] += role.weight * one[kind] / dominant);
    }
    sum
}

fn largest(amounts: &[f64; KINDS]) -> f64 {
    amounts.iter().copied().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(weight: f64, need: [f64; KINDS]) -> Node {
        Node { weight, below: Below::Tasks(need) }
    }

    fn check(roles: &[Node], expected: &[f64]) {
        let found = shares(roles);
        let alike = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(alike, "{found:?} instead of {expected:?}");
    }

    #[test]
    fn the_example_of_the_paper_is_three_tasks_and_two() {
        // Ghodsi et al., section 4.1: of 9 processors and 18 GB, A's tasks need 1 and 4, B's 3 and 1.
        let (a, b) = ([1.0 / 9.0, 4.0 / 18.0], [3.0 / 9.0, 1.0 / 18.0]);
        check(&[tasks(1.0, a), tasks(1.0, b)], &[3.0 * a[1], 2.0 * b[0]]);
    }

    #[test]
    fn those_that_want_the_same_are_given_it_by_weight() {
        let need = [0.01, 0.001];
        check(&[tasks(1.0, need), tasks(3.0, need)], &[0.25, 0.75]);
        check(&[tasks(0.5, need)], &[1.0]);
    }

    #[test]
    fn those_below_a_role_share_what_it_has() {
        // The two below the second role want different kinds, so that each has as much of its own as both together have of either.
        let (processors, memory) = ([0.1, 0.0], [0.0, 0.1]);
        let below = vec![tasks(1.0, processors), tasks(1.0, memory)];
        check(&[tasks(1.0, processors), Node { weight: 1.0, below: Below::Roles(below) }], &[0.5, 0.5, 0.5, 0.5]);
        let below = vec![tasks(1.0, processors), tasks(4.0, processors)];
        check(&[tasks(1.0, processors), Node { weight: 1.0, below: Below::Roles(below) }], &[0.5, 0.5, 0.1, 0.4]);
    }

    #[test]
    fn a_tree_with_one_role_on_each_level_is_that_role() {
        let inner = Node { weight: 7.0, below: Below::Roles(vec![tasks(2.0, [0.1, 0.3])]) };
        check(&[Node { weight: 3.0, below: Below::Roles(vec![inner]) }], &[1.0, 1.0, 1.0]);
    }
}
