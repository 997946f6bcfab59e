//! Where the tasks of a job may go: what an agent must be, and over what they are spread. How a rule is judged is `master::place`'s.

use crate::agent::{Attributes, FaultDomain};
use crate::{AgentInfo, JobId, Name, bounded};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most constraints of one job.
pub const CONSTRAINTS_MAX: usize = 16;
/// Most fields that one job is spread over.
pub const SPREAD_MAX: usize = 4;
/// Longest regular expression of a constraint, in bytes.
pub const PATTERN_BYTES_MAX: usize = 256;

/// Where the tasks of a job may go. One that says nothing is none: a job has `None` then.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// What must hold of every agent that has a task of it; at most [`CONSTRAINTS_MAX`].
    #[serde(deserialize_with = "bounded::list::<_, _, CONSTRAINTS_MAX>")]
    pub constraints: Vec<Constraint>,
    /// Over the values of what its tasks are spread as evenly as can be; at most [`SPREAD_MAX`]. Never a reason to wait.
    #[serde(deserialize_with = "bounded::list::<_, _, SPREAD_MAX>")]
    pub spread: Vec<Field>,
}

/// What must hold of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Constraint {
    /// Of which.
    pub field: Field,
    /// What.
    pub rule: Rule,
}

/// What can be asked of an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Field {
    /// What people call it.
    Hostname,
    /// The region of its fault domain; the attribute of that name where it has none.
    Region,
    /// The zone of it, in the same way.
    Zone,
    /// The rack of it, in the same way.
    Rack,
    /// One of its attributes; or, called `rack.N`, the first N parts of its rack, which has parts where it stands deeper than three levels.
    Attribute(String),
}

/// Marathon's operators, and two about other jobs. An agent without the field is let in by [`Rule::Unlike`] alone. New ones at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// No two tasks of the job have the same value.
    Unique,
    /// All of them have this value; `None`: the same, whichever the first one gets.
    Cluster(Option<String>),
    /// They are even over the values that have some, once at least so many values have: a task goes to a value without any, or to one of
    /// those with the fewest.
    GroupBy(u32),
    /// This regular expression matches the whole value.
    Like(String),
    /// It does not.
    Unlike(String),
    /// At most so many tasks of the job have the same value; at least 1.
    MaxPer(u32),
    /// It is this value.
    Is(String),
    /// Tasks of that job are there. Of [`Field::Hostname`] alone.
    Near(Neighbour),
    /// None are. Of [`Field::Hostname`] alone.
    Apart(Neighbour),
}

/// Another job of the same role, beside whose tasks those of a job may be, or may not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its name.
    pub name: Name,
    /// The one that is called so now, as far as whoever says this knows; of a job on record `None`, since another may be called so later.
    pub id: Option<JobId>,
}

impl Neighbour {
    /// Whichever job is called so.
    #[must_use]
    pub const fn named(name: Name) -> Self {
        Self { name, id: None }
    }
}

/// What is known of an agent that fields are asked of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// What people call it.
    pub name: String,
    /// Where it stands.
    pub domain: FaultDomain,
    /// Facts about it.
    pub attributes: Attributes,
}

impl Placement {
    /// True where no agent is refused and none preferred.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.constraints.is_empty() && self.spread.is_empty()
    }

    /// The other jobs that it is about.
    pub fn neighbours(&self) -> impl Iterator<Item = &Neighbour> {
        self.constraints.iter().filter_map(|constraint| constraint.rule.neighbour())
    }

    /// True where it depends on where other tasks of the job are.
    #[must_use]
    pub fn counts_tasks(&self) -> bool {
        !self.spread.is_empty() || self.constraints.iter().any(|constraint| constraint.rule.counts_tasks())
    }
}

impl Rule {
    /// The other job that it is about.
    #[must_use]
    pub const fn neighbour(&self) -> Option<&Neighbour> {
        match self {
            Self::Near(other) | Self::Apart(other) => Some(other),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub const fn neighbour_mut(&mut self) -> Option<&mut Neighbour> {
        match self {
            Self::Near(other) | Self::Apart(other) => Some(other),
            _ => None,
        }
    }

    /// True where it depends on where tasks are, of the job or of another.
    #[must_use]
    pub const fn asks_for_tasks(&self) -> bool {
        self.counts_tasks() || self.neighbour().is_some()
    }

    /// True where it depends on where other tasks of the job are.
    #[must_use]
    pub const fn counts_tasks(&self) -> bool {
        matches!(self, Self::Unique | Self::Cluster(None) | Self::GroupBy(_) | Self::MaxPer(_))
    }

    /// Its name in a job file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unique => "UNIQUE",
            Self::Cluster(_) => "CLUSTER",
            Self::GroupBy(_) => "GROUP_BY",
            Self::Like(_) => "LIKE",
            Self::Unlike(_) => "UNLIKE",
            Self::MaxPer(_) => "MAX_PER",
            Self::Is(_) => "IS",
            Self::Near(_) => "NEAR",
            Self::Apart(_) => "APART",
        }
    }

    /// What stands behind its name in a job file.
    #[must_use]
    pub fn operand(&self) -> Option<String> {
        match self {
            Self::Unique | Self::Cluster(None) | Self::GroupBy(0) => None,
            Self::Cluster(Some(text)) | Self::Like(text) | Self::Unlike(text) | Self::Is(text) => Some(text.clone()),
            Self::GroupBy(n) | Self::MaxPer(n) => Some(n.to_string()),
            Self::Near(other) | Self::Apart(other) => Some(other.name.to_string()),
        }
    }
}

impl Field {
    /// The field that is called so in a job file.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "hostname" | "@hostname" => Self::Hostname,
            "region" | "@region" => Self::Region,
            "zone" | "@zone" => Self::Zone,
            "rack" | "@rack" => Self::Rack,
            other => Self::Attribute(other.to_owned()),
        }
    }

    /// Its name in a job file.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Hostname => "hostname",
            Self::Region => "region",
            Self::Zone => "zone",
            Self::Rack => "rack",
            Self::Attribute(name) => name,
        }
    }

    /// What it is of this agent; `None` where it has none.
    #[must_use]
    pub fn of<'a>(&self, stand: &'a Stand) -> Option<&'a str> {
        let known = match self {
            Self::Hostname => &stand.name,
            Self::Region => &stand.domain.region,
            Self::Zone => &stand.domain.zone,
            Self::Rack => &stand.domain.rack,
            Self::Attribute(name) => level(name).and_then(|level| outer(&stand.domain.rack, level)).unwrap_or_default(),
        };
        if known.is_empty() { stand.attributes.get(self.name()).map(String::as_str) } else { Some(known) }
    }
}

/// Which level of a rack is called so: `rack.2` is the second.
fn level(name: &str) -> Option<usize> {
    name.strip_prefix("rack.")?.parse().ok().filter(|level| *level > 0)
}

/// The first so many parts of `row2/rack3/shelf1`; `None` where it has fewer.
fn outer(rack: &str, level: usize) -> Option<&str> {
    let ends = rack.match_indices('/').map(|(at, _)| at).chain([rack.len()]);
    ends.take(level).enumerate().last().filter(|(nth, end)| nth + 1 == level && *end > 0).map(|(_, end)| &rack[..end])
}

impl From<&AgentInfo> for Stand {
    fn from(info: &AgentInfo) -> Self {
        Self { name: info.name.clone(), domain: info.domain.clone(), attributes: info.attributes.clone() }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Constraint {
    /// As in a job file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule.operand() {
            Some(operand) => write!(f, "[{:?}, \"{}\", {operand:?}]", self.field.name(), self.rule.name()),
            None => write!(f, "[{:?}, \"{}\"]", self.field.name(), self.rule.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_domain_goes_before_an_attribute_of_that_name() {
        let attributes = [("rack", "of-attributes"), ("zone", "z"), ("disk", "ssd")].map(|(name, value)| (name.into(), value.into()));
        let domain = FaultDomain { rack: "r1".into(), ..FaultDomain::default() };
        let stand = Stand { name: "a".into(), domain, attributes: attributes.into_iter().collect() };
        let check = |field: &str, expected: Option<&str>| assert_eq!(Field::named(field).of(&stand), expected, "{field}");
        check("hostname", Some("a"));
        check("@hostname", Some("a"));
        check("rack", Some("r1"));
        check("@zone", Some("z"));
        check("region", None);
        check("disk", Some("ssd"));
        check("gpu", None);
    }

    #[test]
    fn a_rack_has_as_many_levels_as_it_is_written_with() {
        let stand = |rack: &str| Stand { domain: FaultDomain { rack: rack.into(), ..FaultDomain::default() }, ..Stand::default() };
        let deep = stand("row2/rack3/shelf1");
        let check = |field: &str, expected: Option<&str>| assert_eq!(Field::named(field).of(&deep), expected, "{field}");
        check("rack", Some("row2/rack3/shelf1"));
        check("rack.1", Some("row2"));
        check("rack.2", Some("row2/rack3"));
        check("rack.3", Some("row2/rack3/shelf1"));
        check("rack.4", None);
        check("rack.0", None);
        check("rack.x", None);
        assert_eq!((Field::named("rack.1").of(&stand("r1")), Field::named("rack.1").of(&stand(""))), (Some("r1"), None));
    }

    #[test]
    fn a_constraint_is_shown_as_it_is_written() {
        let shown = |field: &str, rule| Constraint { field: Field::named(field), rule }.to_string();
        assert_eq!(shown("@rack", Rule::Is("r1".into())), r#"["rack", "IS", "r1"]"#);
        assert_eq!(shown("hostname", Rule::Unique), r#"["hostname", "UNIQUE"]"#);
        assert_eq!(shown("rack", Rule::MaxPer(2)), r#"["rack", "MAX_PER", "2"]"#);
        let apart = Rule::Apart(Neighbour { name: Name::new("db").unwrap(), id: Some(JobId(7)) });
        assert_eq!(shown("hostname", apart), r#"["hostname", "APART", "db"]"#);
    }
}
