//! What a framework says that it wants: shapes of tasks, how many of each, and where they may go. It is shown that and nothing else.

use crate::place::Matcher;
use protocol::{AgentInfo, Constraint, Resources, Role, Stand};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// Most wishes of one framework.
pub const WISHES_MAX: usize = 256;

/// Tasks of one shape that a framework wants to place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// For which of its roles.
    pub role: Role,
    /// 0 to 100; higher is served first.
    pub priority: u8,
    /// How many more of them it wants to place.
    pub count: u32,
    /// What each of them needs; not nothing.
    pub shape: Resources,
    /// What an agent must be; none of them counts tasks.
    pub constraints: Vec<Constraint>,
}

/// All wishes of a framework, the most urgent first.
#[derive(Debug, Default)]
pub struct Demand(Vec<Wanted>);

/// A wish as it stands.
#[derive(Debug)]
pub struct Wanted {
    /// The wish; its count is what is still to be placed.
    pub wish: Wish,
    /// How many of these the offers that it holds are for.
    pub held: u32,
    matcher: Matcher,
}

/// For how many tasks of which wish an offer is, by its place in the demand.
pub type Cover = Vec<(usize, u32)>;

impl Demand {
    /// These, if the framework may say so.
    ///
    /// # Errors
    /// Why it may not, for people.
    pub fn new(wishes: Vec<Wish>, roles: &[Role]) -> Result<Self, String> {
        if wishes.len() > WISHES_MAX {
            return Err(format!("a framework has at most {WISHES_MAX} wishes"));
        }
        for wish in &wishes {
            if !roles.contains(&wish.role) {
                return Err(format!("the framework wants something for the role '{}', which it does not have", wish.role));
            }
            if wish.shape.is_none() {
                return Err("a wish is for something: its resources are none".into());
            }
            if let Some(counts) = wish.constraints.iter().find(|constraint| constraint.rule.asks_for_tasks()) {
                return Err(format!("{counts} depends on where other tasks are, which a framework decides itself"));
            }
        }
        let wanted = |wish: Wish| Wanted { matcher: Matcher::new(&wish.constraints), wish, held: 0 };
        let mut all: Vec<Wanted> = wishes.into_iter().map(wanted).collect();
        all.sort_by_key(|wanted| Reverse(wanted.wish.priority));
        Ok(Self(all))
    }

    /// The wishes, the most urgent first.
    pub fn iter(&self) -> impl Iterator<Item = &Wanted> {
        self.0.iter()
    }

    /// What of resources of an agent the role's wishes that no offer is for take, and how much that is.
    #[must_use]
    pub fn cover(&self, role: &Role, resources: &Resources, info: &AgentInfo) -> (Cover, Resources) {
        let stand = Stand::from(info);
        let (mut left, mut taken, mut cover) = (resources.clone(), Resources::NONE, Cover::new());
        for (at, wanted) in self.0.iter().enumerate() {
            if wanted.unmet() == 0 || wanted.wish.role != *role || !wanted.matcher.admits(&stand, |_| false) {
                continue;
            }
            let n = left.times(&wanted.wish.shape, wanted.unmet());
            if n > 0 {
                crate::shard::amounts::sub(&mut left, &wanted.wish.shape, n);
                crate::shard::amounts::add(&mut taken, &wanted.wish.shape, n);
                cover.push((at, n));
            }
        }
        (cover, taken)
    }

    /// An offer is held for these, or no longer.
    pub fn hold(&mut self, cover: &Cover, more: bool) {
        for (at, n) in cover {
            if let Some(wanted) = self.0.get_mut(*at) {
                wanted.held = if more { wanted.held.saturating_add(*n) } else { wanted.held.saturating_sub(*n) };
            }
        }
    }

    /// A task that needs this was placed on an agent: it is one of the most urgent wish for just that; or else for more; or else of those that its
    /// offers were for.
    pub fn placed(&mut self, role: &Role, need: &Resources, info: &AgentInfo, covers: &Cover) {
        let stand = Stand::from(info);
        let open = |wanted: &Wanted| wanted.wish.count > 0 && wanted.wish.role == *role && wanted.matcher.admits(&stand, |_| false);
        let find = |fits: &dyn Fn(&Wanted) -> bool| self.0.iter().position(|wanted| open(wanted) && fits(wanted));
        let meant = || covers.iter().map(|(at, _)| *at).find(|at| self.0.get(*at).is_some_and(open));
        let at = find(&|wanted| wanted.wish.shape == *need).or_else(|| find(&|wanted| wanted.wish.shape.contains(need))).or_else(meant);
        if let Some(wanted) = at.and_then(|at| self.0.get_mut(at)) {
            wanted.wish.count -= 1;
        }
    }
}

impl Wanted {
    /// How many it wants that no offer is for.
    #[must_use]
    pub const fn unmet(&self) -> u32 {
        self.wish.count.saturating_sub(self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Field, Name, Neighbour, Rule};

    fn wish(priority: u8, count: u32, cpu_milli: u64, zone: Option<&str>) -> Wish {
        let constraint = |zone: &str| Constraint { field: Field::Zone, rule: Rule::Is(zone.into()) };
        Wish {
            role: Role::new("web").unwrap(),
            priority,
            count,
            shape: Resources { cpu_milli, ..Resources::NONE },
            constraints: zone.map(constraint).into_iter().collect(),
        }
    }

    fn demand(wishes: Vec<Wish>) -> Result<Demand, String> {
        Demand::new(wishes, &[Role::new("web").unwrap()])
    }

    fn cpu(cpu_milli: u64) -> Resources {
        Resources { cpu_milli, ..Resources::NONE }
    }

    #[test]
    fn the_most_urgent_wishes_take_first_and_only_where_they_may() {
        let mut demand = demand(vec![wish(10, 9, 100, None), wish(90, 1, 500, None), wish(95, 1, 100, Some("z2"))]).unwrap();
        let mut info = AgentInfo::default();
        info.domain.zone = "z1".into();
        let role = Role::new("web").unwrap();
        let check = |demand: &Demand, milli, expected: &[(usize, u32)], taken| {
            assert_eq!(demand.cover(&role, &cpu(milli), &info), (expected.to_vec(), cpu(taken)), "{milli}");
        };
        check(&demand, 750, &[(1, 1), (2, 2)], 700);
        check(&demand, 450, &[(2, 4)], 400);
        check(&demand, 50, &[], 0);
        demand.hold(&vec![(1, 1), (2, 8)], true);
        check(&demand, 750, &[(2, 1)], 100);
        demand.hold(&vec![(1, 1), (2, 8)], false);
        // By shape, by room, and by what the offers were for.
        let cover = vec![(1, 1)];
        for (need, counts) in [(500, [1, 0, 9]), (60, [1, 0, 8]), (900, [1, 0, 8])] {
            demand.placed(&role, &cpu(need), &info, &cover);
            assert_eq!(demand.iter().map(|wanted| wanted.wish.count).collect::<Vec<_>>(), counts, "{need}");
        }
        assert_eq!(demand.cover(&Role::new("other").unwrap(), &cpu(750), &info).0, vec![]);
    }

    #[test]
    fn what_cannot_be_wanted_is_refused() {
        let unique = Constraint { field: Field::Zone, rule: Rule::Unique };
        let near = Constraint { field: Field::Hostname, rule: Rule::Near(Neighbour::named(Name::new("db").unwrap())) };
        for (wishes, why) in [
            (vec![wish(1, 1, 1, None); WISHES_MAX + 1], "at most"),
            (vec![Wish { role: Role::new("db").unwrap(), ..wish(1, 1, 1, None) }], "'db'"),
            (vec![wish(1, 1, 0, None)], "none"),
            (vec![Wish { constraints: vec![unique], ..wish(1, 1, 1, None) }], "UNIQUE"),
            (vec![Wish { constraints: vec![near], ..wish(1, 1, 1, None) }], "NEAR"),
        ] {
            let refused = demand(wishes).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        assert!(demand(vec![wish(1, 1, 1, None); WISHES_MAX]).is_ok());
    }
}
