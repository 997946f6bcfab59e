//! Resources of one agent that are kept for a role: what nobody else is given, whether the role uses it or not.

use crate::agent::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX};
use crate::{Attributes, Resources, Role, bounded};
use serde::{Deserialize, Serialize};

/// Most reservations on one agent.
pub const RESERVATIONS_MAX: usize = 64;
/// Most roles that a reservation has been refined through.
pub const REFINED_MAX: usize = 8;

/// Who a reservation is for, and what is said of it: those that agree in all of it are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReservedFor {
    /// For which role, with all below it.
    pub role: Role,
    /// The roles of the reservations that it was taken out of, the outermost first; empty where it was taken out of what is anybody's.
    #[serde(deserialize_with = "bounded::list::<_, _, REFINED_MAX>")]
    pub within: Vec<Role>,
    /// True where the agent was started with it; false where somebody made it since.
    pub fixed: bool,
    /// Who made it: a token's name; empty where it is fixed.
    pub principal: String,
    /// What whoever made it wrote on it.
    #[serde(deserialize_with = "bounded::map::<_, _, _, ATTRIBUTES_MAX>")]
    pub labels: Attributes,
}

impl ReservedFor {
    /// Of a role, as an agent is started with it.
    #[must_use]
    pub fn fixed(role: Role) -> Self {
        Self { role, within: vec![], fixed: true, principal: String::new(), labels: Attributes::new() }
    }

    /// True where this was taken out of `outer`, with nothing between them.
    #[must_use]
    pub fn refines(&self, outer: &Self) -> bool {
        self.within.split_last().is_some_and(|(role, within)| *role == outer.role && *within == outer.within[..])
    }

    /// True where all bounds hold, and each role of the stack is below the one before it.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let short = |text: &str| text.len() <= ATTRIBUTE_BYTES_MAX && !text.chars().any(char::is_control);
        let stack = self.within.iter().chain([&self.role]);
        let nested = stack.clone().zip(stack.skip(1)).all(|(outer, inner)| inner != outer && inner.is_within(outer));
        nested
            && self.within.len() <= REFINED_MAX
            && self.labels.len() <= ATTRIBUTES_MAX
            && short(&self.principal)
            && self.labels.iter().all(|(name, value)| !name.is_empty() && short(name) && short(value))
    }
}

/// A reservation on an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Who it is for.
    pub reserved: ReservedFor,
    /// How much, with all that was taken out of it for roles below.
    pub resources: Resources,
}

impl Reservation {
    /// True where all bounds hold: what comes off the wire is asked this before it is used.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.reserved.is_bounded() && self.resources.is_canonical() && !self.resources.is_none() && !self.resources.is_revocable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, within: &[&str]) -> ReservedFor {
        let role = |name: &&str| Role::new(name).unwrap();
        ReservedFor { within: within.iter().map(role).collect(), ..ReservedFor::fixed(role(&name)) }
    }

    #[test]
    fn what_is_refined_lies_just_within_what_it_was_taken_out_of() {
        assert!(of("a/b", &["a"]).refines(&of("a", &[])) && of("a/b/c", &["a", "a/b"]).refines(&of("a/b", &["a"])));
        assert!(!of("a/b", &[]).refines(&of("a", &[])) && !of("a/b/c", &["a", "a/b"]).refines(&of("a", &[])));
        assert!(!of("a/b/c", &["a", "a/b"]).refines(&of("a/b", &[])));
    }

    #[test]
    fn each_role_of_a_stack_is_below_the_one_before() {
        assert!(of("a", &[]).is_bounded() && of("a/b/c", &["a", "a/b"]).is_bounded());
        assert!(!of("b", &["a"]).is_bounded() && !of("a", &["a"]).is_bounded() && !of("a/b", &["a/b/c"]).is_bounded());
        let labels = Attributes::from([("name".to_owned(), "two\nlines".to_owned())]);
        assert!(!ReservedFor { labels, ..of("a", &[]) }.is_bounded());
    }
}
