//! What `[place]` of a job file means: its bounds, and the placement that comes of it.

use super::job::Judge;
use super::problem::{Code, quoted};
use super::spec::PlaceSpec;
use protocol::agent::ATTRIBUTE_BYTES_MAX;
use protocol::job::COUNT_MAX;
use protocol::place::{CONSTRAINTS_MAX, PATTERN_BYTES_MAX, SPREAD_MAX};
use protocol::{Constraint, Field, Name, Neighbour, Placement, Rule};
use std::sync::Arc;

impl Judge<'_> {
    /// All that is wrong with a place of a job that is called so.
    pub(super) fn place(&mut self, place: &PlaceSpec, own: Option<&Name>) {
        for (field, found, most) in
            [("place.constraints", place.constraints.len(), CONSTRAINTS_MAX), ("place.spread", place.spread.len(), SPREAD_MAX)]
        {
            if found > most {
                return self.say(Code::TooLarge, field, format!("{found} of them: at most {most}"));
            }
        }
        for (at, constraint) in place.constraints.iter().enumerate() {
            let field = &format!("place.constraints.{at}");
            if !self.field(field, &constraint.field) {
                continue;
            }
            match &constraint.rule {
                Rule::Is(text) | Rule::Cluster(Some(text)) => self.value(field, text),
                Rule::Like(text) | Rule::Unlike(text) => self.pattern(field, text),
                Rule::MaxPer(0) => self.say(Code::BadValue, field, "0 is too little: at least 1".to_owned()),
                Rule::MaxPer(n) | Rule::GroupBy(n) if *n > COUNT_MAX => {
                    self.say(Code::TooLarge, field, format!("{n} is too much: at most {COUNT_MAX}"));
                }
                Rule::Near(other) | Rule::Apart(other) => self.neighbour(field, constraint, (other, own)),
                Rule::Unique | Rule::Cluster(None) | Rule::GroupBy(_) | Rule::MaxPer(_) => {}
            }
        }
        for (at, named) in place.spread.iter().enumerate() {
            self.field(&format!("place.spread.{at}"), named);
        }
    }

    /// Other jobs are told apart on agents, not on racks, which other shards know of.
    fn neighbour(&mut self, field: &str, constraint: &Constraint, (other, own): (&Neighbour, Option<&Name>)) {
        let rule = constraint.rule.name();
        if constraint.field != Field::Hostname {
            let message = format!(
                "{rule} of {}: it holds of agents, write [\"hostname\", \"{rule}\", \"{}\"]",
                quoted(constraint.field.name()),
                other.name
            );
            self.say(Code::BadValue, field, message);
        }
        if own == Some(&other.name) {
            let message = format!("{rule} of the job itself: for one task on each agent write [\"hostname\", \"UNIQUE\"]");
            self.say(Code::Conflict, field, message);
        }
    }

    /// False where no agent can have such a field.
    fn field(&mut self, field: &str, named: &Field) -> bool {
        let name = named.name();
        let message = match named {
            Field::Attribute(_) if name.starts_with('@') => {
                format!("{} is no field: of those there are @hostname, @region, @zone, @rack", quoted(name))
            }
            _ if name.is_empty() || name.len() > ATTRIBUTE_BYTES_MAX || name.chars().any(char::is_control) => {
                format!("{} is no name of a field: 1 to {ATTRIBUTE_BYTES_MAX} bytes without control characters", quoted(name))
            }
            _ => return true,
        };
        self.say(Code::BadValue, field, message);
        false
    }

    fn value(&mut self, field: &str, text: &str) {
        if text.is_empty() || text.len() > ATTRIBUTE_BYTES_MAX || text.chars().any(char::is_control) {
            let message = format!("{} is no value: 1 to {ATTRIBUTE_BYTES_MAX} bytes without control characters", quoted(text));
            self.say(Code::BadValue, field, message);
        }
    }

    fn pattern(&mut self, field: &str, text: &str) {
        if text.len() > PATTERN_BYTES_MAX {
            let message = format!("{} bytes: an expression has at most {PATTERN_BYTES_MAX}", text.len());
            return self.say(Code::TooLarge, field, message);
        }
        if let Err(why) = crate::place::pattern(text) {
            self.say(Code::BadValue, field, format!("{} is no regular expression: {}", quoted(text), super::problem::quoted_long(&why)));
        }
    }
}

/// The placement; `None` where nothing is asked for. What is asked twice is once there, and in one order, so that the same is seen to be so.
pub(super) fn build(place: PlaceSpec) -> Option<Arc<Placement>> {
    let PlaceSpec { mut constraints, mut spread } = place;
    constraints.sort();
    constraints.dedup();
    spread.sort();
    spread.dedup();
    let place = Placement { constraints, spread };
    (!place.is_empty()).then(|| Arc::new(place))
}
