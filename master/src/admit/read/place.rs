//! Where tasks may go: `[place]`, with constraints as Marathon writes them.

use super::Reader;
use crate::admit::problem::{Code, Problem, quoted};
use crate::admit::spec::PlaceSpec;
use crate::admit::tree::{Entry, Node, Value};
use protocol::{Constraint, Field, Name, Neighbour, Rule};

/// What a constraint looks like.
const EXAMPLE: &str = "write it as [\"rack\", \"MAX_PER\", \"2\"]: a field, UNIQUE, CLUSTER, GROUP_BY, LIKE, UNLIKE, MAX_PER, IS, NEAR or APART, and what that takes";

impl Reader {
    /// `[place]`.
    pub(super) fn place(&mut self, node: Node<'_>) -> PlaceSpec {
        let mut place = PlaceSpec::default();
        self.mark("place", &node);
        for Entry { key, span, node } in self.entries("place", node) {
            match key.as_ref() {
                "constraints" => {
                    let found = self.numbered("place.constraints", node, Self::constraint);
                    place.constraints = found;
                }
                "spread" => place.spread = self.numbered("place.spread", node, Self::spread_field),
                other => self.unknown("place", other, span),
            }
        }
        place
    }

    /// A list in which each item has a place of its own, so that a problem with one is drawn under it.
    fn numbered<'a, T>(&mut self, field: &str, node: Node<'a>, item: fn(&mut Self, &str, Node<'a>) -> Option<T>) -> Vec<T> {
        self.mark(field, &node);
        let Value::List(nodes) = node.value else { return self.wrong_type(field, &node, "a list").unwrap_or_default() };
        let mut items = Vec::new();
        let mut whole = true;
        for (at, node) in nodes.into_iter().enumerate() {
            let field = format!("{field}.{at}");
            self.mark(&field, &node);
            match item(self, &field, node) {
                Some(item) => items.push(item),
                None => whole = false,
            }
        }
        // What is left would be judged under the wrong numbers.
        if whole { items } else { Vec::new() }
    }

    fn spread_field(&mut self, field: &str, mut node: Node<'_>) -> Option<Field> {
        let text = self.text(field, &mut node)?;
        Some(Field::named(&text))
    }

    fn constraint(&mut self, field: &str, node: Node<'_>) -> Option<Constraint> {
        let span = node.span.clone();
        let Value::List(nodes) = node.value else {
            let message = format!("expected a list of texts, found {}", node.value.kind());
            self.say(Problem::new(Code::WrongType, field, message).at(span).with_help(EXAMPLE));
            return None;
        };
        let mut parts = Vec::new();
        for node in nodes {
            match node.value {
                Value::Text(text) | Value::Number(text) => parts.push(text.into_owned()),
                other => {
                    let message = format!("expected a list of texts, found {} in it", other.kind());
                    self.say(Problem::new(Code::WrongType, field, message).at(span).with_help(EXAMPLE));
                    return None;
                }
            }
        }
        match rule(&parts) {
            Ok(rule) => Some(Constraint { field: Field::named(&parts[0]), rule }),
            Err(message) => {
                self.say(Problem::new(Code::BadValue, field, message).at(span).with_help(EXAMPLE));
                None
            }
        }
    }
}

/// The rule that stands behind the field.
fn rule(parts: &[String]) -> Result<Rule, String> {
    let (operator, operand) = match parts {
        [_, operator] => (operator.as_str(), None),
        [_, operator, operand] => (operator.as_str(), Some(operand.clone())),
        _ => return Err(format!("{} parts: a constraint has two or three", parts.len())),
    };
    let needed = |what: &str| operand.clone().ok_or_else(|| format!("{operator} takes {what}"));
    let number = |text: String| text.parse::<u32>().map_err(|_| format!("{}: {operator} takes a whole number", quoted(&text)));
    match operator {
        "UNIQUE" if operand.is_some() => Err("UNIQUE takes nothing".to_owned()),
        "UNIQUE" => Ok(Rule::Unique),
        "CLUSTER" => Ok(Rule::Cluster(operand)),
        "GROUP_BY" => Ok(Rule::GroupBy(operand.map_or(Ok(0), number)?)),
        "LIKE" => Ok(Rule::Like(needed("a regular expression")?)),
        "UNLIKE" => Ok(Rule::Unlike(needed("a regular expression")?)),
        "MAX_PER" => Ok(Rule::MaxPer(number(needed("a whole number")?)?)),
        "IS" => Ok(Rule::Is(needed("a value")?)),
        "NEAR" => Ok(Rule::Near(neighbour(&needed("the name of a job")?)?)),
        "APART" => Ok(Rule::Apart(neighbour(&needed("the name of a job")?)?)),
        other => Err(format!("{} is no operator", quoted(other))),
    }
}

fn neighbour(text: &str) -> Result<Neighbour, String> {
    Name::new(text).map(Neighbour::named).map_err(|error| format!("{} is no name of a job: {error}", quoted(text)))
}
