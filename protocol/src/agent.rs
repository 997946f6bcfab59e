//! A machine as the cluster knows it: what it has, facts about it, and where it stands.

use crate::resources::PORT_RANGES_MAX;
use crate::{PortRange, Resources, bounded};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most attributes of an agent.
pub const ATTRIBUTES_MAX: usize = 64;
/// Longest name or value of an attribute, and longest part of a fault domain, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 128;

/// Facts about an agent that are no amounts, such as `arch=x86_64`.
pub type Attributes = BTreeMap<String, String>;

/// Machines likely to fail together; an empty part is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FaultDomain {
    /// The outermost: a place on the map.
    pub region: String,
    /// A building or a part of one.
    pub zone: String,
    /// One switch and one power supply.
    pub rack: String,
}

/// What an agent says of itself when it registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// What people call it: its host name unless they said otherwise.
    pub name: String,
    /// All it has to promise.
    pub capacity: Resources,
    /// Which ports its `capacity.ports` are.
    #[serde(deserialize_with = "bounded::list::<_, _, PORT_RANGES_MAX>")]
    pub ports: Vec<PortRange>,
    /// Facts about it.
    #[serde(deserialize_with = "bounded::map::<_, _, _, ATTRIBUTES_MAX>")]
    pub attributes: Attributes,
    /// Where it stands.
    pub domain: FaultDomain,
    /// The version of its binary.
    pub version: String,
    /// What its machine or its rights lack, and what it does instead, a sentence each; empty where nothing is weaker.
    #[serde(deserialize_with = "bounded::list::<_, _, WEAKNESSES_MAX>")]
    pub weaknesses: Vec<String>,
}

/// Most sentences in [`AgentInfo::weaknesses`].
pub const WEAKNESSES_MAX: usize = 32;

/// What an operator says of an agent while it runs, over what it was started with. Kept by the agent, in postcard: fields never change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentChange {
    /// Attributes that it has from now on; without a value: has not.
    #[serde(deserialize_with = "bounded::map::<_, _, _, ATTRIBUTES_MAX>")]
    pub attributes: BTreeMap<String, Option<String>>,
    /// Where it stands; `None`: as before.
    pub domain: Option<FaultDomain>,
    /// What it promises, such as `cpu=8,memory=16GiB`: what is not named stays. At most [`RESOURCES_BYTES_MAX`].
    pub resources: String,
}

/// Longest text of [`AgentChange::resources`], in bytes.
pub const RESOURCES_BYTES_MAX: usize = 4_096;

impl AgentChange {
    /// This, and beside it what `earlier` says of other things.
    #[must_use]
    pub fn over(self, earlier: Self) -> Self {
        let mut attributes = earlier.attributes;
        attributes.extend(self.attributes);
        let name = |part: &str| part.split('=').next().unwrap_or(part).trim().to_owned();
        let named: Vec<String> = self.resources.split(',').map(name).collect();
        let kept = earlier.resources.split(',').filter(|part| !named.contains(&name(part)));
        let parts: Vec<&str> = kept.chain(self.resources.split(',')).map(str::trim).filter(|part| !part.is_empty()).collect();
        Self { attributes, domain: self.domain.or(earlier.domain), resources: parts.join(",") }
    }
}

impl AgentInfo {
    /// True where all bounds hold: what comes off the wire is asked this before it is used.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let short = |text: &str| text.len() <= ATTRIBUTE_BYTES_MAX && !text.chars().any(char::is_control);
        let domain = [&self.domain.region, &self.domain.zone, &self.domain.rack];
        let ports: u32 = self.ports.iter().map(|range| u32::from(range.last.saturating_sub(range.first)) + 1).sum();
        !self.name.is_empty()
            && short(&self.name)
            && short(&self.version)
            && domain.into_iter().all(|part| short(part))
            && self.capacity.is_canonical()
            && !self.capacity.is_revocable()
            && self.ports.len() <= PORT_RANGES_MAX
            && self.ports.iter().all(|range| range.first > 0 && range.first <= range.last)
            && self.ports.windows(2).all(|pair| pair[0].last < pair[1].first)
            && ports == self.capacity.ports
            && self.attributes.len() <= ATTRIBUTES_MAX
            && self.attributes.iter().all(|(name, value)| !name.is_empty() && short(name) && short(value))
            && self.weaknesses.len() <= WEAKNESSES_MAX
            && self.weaknesses.iter().all(|line| line.len() <= 4 * ATTRIBUTE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_later_goes_over_what_was_said_before_and_beside_the_rest() {
        let change = |attributes: &[(&str, Option<&str>)], resources: &str| AgentChange {
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect(),
            domain: None,
            resources: resources.to_owned(),
        };
        let before = change(&[("rack", Some("r1")), ("disk", Some("ssd"))], "cpu=2, ports=1-2,ports=5-6,memory=1GiB");
        let after = change(&[("rack", None)], "ports=9-10, gpu=1").over(before);
        assert_eq!(after, change(&[("rack", None), ("disk", Some("ssd"))], "cpu=2,memory=1GiB,ports=9-10,gpu=1"));
        assert_eq!(change(&[], "").over(AgentChange::default()), AgentChange::default());
    }
}
