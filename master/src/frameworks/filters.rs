//! What of agents a framework wants to be shown, by role: the rest is kept from it before it is shown, so that it need not be declined.

use super::OpenOffer;
use protocol::{Resources, Role};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most conditions and least amounts of one framework.
pub const CONDITIONS_MAX: usize = 256;

/// By role; a role without one is shown all.
pub type Filters = BTreeMap<Role, Filter>;

/// What a role of a framework wants to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Offers that show at least one of these; empty: any.
    pub least: Vec<Resources>,
    /// Agents for which all conditions of one of these groups hold; empty: any.
    pub groups: Vec<Vec<Condition>>,
}

/// What holds of an agent, or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Of what.
    pub of: Fact,
    /// What.
    pub is: Test,
}

/// Something about an agent, which may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// An attribute by its name.
    Attribute(String),
    /// What people call it.
    Name,
    /// The region of its fault domain.
    Region,
    /// The zone of its fault domain.
    Zone,
}

/// What a fact is to be. A fact that is missing is unequal to any text and matches no pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    /// There.
    Exists,
    /// Missing.
    Missing,
    /// This text.
    Equals(String),
    /// Another or missing.
    Differs(String),
    /// All of it as this pattern says, in the words of RE2.
    Matches(String),
    /// Otherwise, or missing.
    Mismatches(String),
}

/// Filters as they are used.
#[derive(Debug, Default)]
pub struct Sieve {
    by_role: BTreeMap<Role, Ready>,
}

#[derive(Debug)]
struct Ready {
    least: Vec<Resources>,
    groups: Vec<Vec<(Condition, Option<Regex>)>>,
}

impl Sieve {
    /// The filters, read.
    ///
    /// # Errors
    /// Why they are none: too many, or a pattern that cannot be read.
    pub fn new(filters: &Filters) -> Result<Self, String> {
        let size = |filter: &Filter| filter.least.len() + filter.groups.iter().map(|group| 1 + group.len()).sum::<usize>();
        if filters.values().map(size).sum::<usize>() > CONDITIONS_MAX {
            return Err(format!("a framework has at most {CONDITIONS_MAX} conditions on what it is shown"));
        }
        let ready = |condition: &Condition| Ok::<_, String>((condition.clone(), pattern(&condition.is)?));
        let group = |group: &Vec<Condition>| group.iter().map(ready).collect::<Result<Vec<_>, _>>();
        let filter = |(role, filter): (&Role, &Filter)| {
            let groups = filter.groups.iter().map(group).collect::<Result<_, String>>()?;
            Ok((role.clone(), Ready { least: filter.least.clone(), groups }))
        };
        Ok(Self { by_role: filters.iter().map(filter).collect::<Result<_, String>>()? })
    }

    /// Whether an offer is to be shown.
    #[must_use]
    pub fn passes(&self, offer: &OpenOffer) -> bool {
        let Some(Ready { least, groups }) = self.by_role.get(&offer.role) else { return true };
        let enough = least.is_empty() || least.iter().any(|least| offer.resources.contains(least));
        let right =
            |group: &Vec<(Condition, Option<Regex>)>| group.iter().all(|(condition, pattern)| holds(condition, pattern.as_ref(), offer));
        enough && (groups.is_empty() || groups.iter().any(right))
    }
}

fn pattern(test: &Test) -> Result<Option<Regex>, String> {
    let (Test::Matches(text) | Test::Mismatches(text)) = test else { return Ok(None) };
    crate::place::pattern(text).map(Some).map_err(|error| format!("the pattern {text:?} cannot be read: {error}"))
}

fn holds(condition: &Condition, pattern: Option<&Regex>, offer: &OpenOffer) -> bool {
    let info = &offer.info;
    let said = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let fact = match &condition.of {
        Fact::Attribute(name) => info.attributes.get(name).cloned(),
        Fact::Name => said(&info.name),
        Fact::Region => said(&info.domain.region),
        Fact::Zone => said(&info.domain.zone),
    };
    let matches = fact.as_deref().zip(pattern).is_some_and(|(fact, pattern)| pattern.is_match(fact));
    match &condition.is {
        Test::Exists => fact.is_some(),
        Test::Missing => fact.is_none(),
        Test::Equals(text) => fact.as_ref() == Some(text),
        Test::Differs(text) => fact.as_ref() != Some(text),
        Test::Matches(_) => matches,
        Test::Mismatches(_) => !matches,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{AgentId, AgentInfo, OfferId, ShardId};
    use std::sync::Arc;

    fn offer() -> OpenOffer {
        let mut info = AgentInfo { name: "a-1".into(), attributes: [("disk".into(), "ssd".into())].into(), ..AgentInfo::default() };
        info.domain.zone = "z1".into();
        OpenOffer {
            id: OfferId { shard: ShardId(0), number: 1 },
            agent: AgentId(1),
            incarnation: 1,
            info: Arc::new(info),
            role: Role::new("web").unwrap(),
            resources: Resources { cpu_milli: 500, memory_bytes: 64, ..Resources::NONE },
            ports: vec![],
            reserved: vec![],
        }
    }

    fn passes(filter: Filter) -> bool {
        Sieve::new(&[(Role::new("web").unwrap(), filter)].into()).unwrap().passes(&offer())
    }

    #[test]
    fn conditions_hold_as_mesos_says() {
        let disk = || Fact::Attribute("disk".into());
        for (of, is, expected) in [
            (disk(), Test::Exists, true),
            (disk(), Test::Missing, false),
            (disk(), Test::Equals("ssd".into()), true),
            (disk(), Test::Equals("ss".into()), false),
            (disk(), Test::Differs("ssd".into()), false),
            (disk(), Test::Matches("s+d".into()), true),
            (disk(), Test::Matches("s".into()), false),
            (disk(), Test::Matches("hdd|ssd".into()), true),
            (disk(), Test::Mismatches("s.*".into()), false),
            (Fact::Attribute("gpu".into()), Test::Exists, false),
            (Fact::Attribute("gpu".into()), Test::Missing, true),
            (Fact::Attribute("gpu".into()), Test::Differs("x".into()), true),
            (Fact::Attribute("gpu".into()), Test::Mismatches("x".into()), true),
            (Fact::Name, Test::Matches("a-[0-9]".into()), true),
            (Fact::Zone, Test::Equals("z1".into()), true),
            (Fact::Region, Test::Exists, false),
        ] {
            let condition = Condition { of, is };
            let filter = Filter { groups: vec![vec![condition.clone()]], ..Filter::default() };
            assert_eq!(passes(filter), expected, "{condition:?}");
        }
    }

    #[test]
    fn one_group_is_enough_and_all_of_it_is_needed() {
        let (yes, no) = (Condition { of: Fact::Name, is: Test::Exists }, Condition { of: Fact::Name, is: Test::Missing });
        let check = |groups: Vec<Vec<Condition>>| passes(Filter { groups, ..Filter::default() });
        assert!(check(vec![]) && check(vec![vec![]]) && check(vec![vec![no.clone()], vec![yes.clone()]]));
        assert!(!check(vec![vec![yes, no]]));
        let least = |cpu_milli| Resources { cpu_milli, ..Resources::NONE };
        assert!(passes(Filter { least: vec![least(501), least(500)], ..Filter::default() }));
        assert!(!passes(Filter { least: vec![least(501)], ..Filter::default() }));
    }

    #[test]
    fn what_is_too_much_or_cannot_be_read_is_refused() {
        let of = |is| Condition { of: Fact::Name, is };
        let check = |conditions: Vec<Condition>| {
            let filter = Filter { groups: vec![conditions], ..Filter::default() };
            Sieve::new(&[(Role::new("web").unwrap(), filter)].into()).is_err()
        };
        assert!(
            check(vec![of(Test::Matches("(".into()))])
                && check(vec![of(Test::Matches("a)|(b".into()))])
                && check(vec![of(Test::Matches("a{1000}{1000}".into()))])
        );
        assert!(check(vec![of(Test::Exists); CONDITIONS_MAX + 1]) && !check(vec![of(Test::Exists); CONDITIONS_MAX - 1]));
    }
}
