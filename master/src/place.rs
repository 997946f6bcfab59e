//! How the constraints of a job are judged, as far as an agent alone says: pure. What depends on where other tasks of the job are is
//! `jobs::tally`'s; what other jobs have on the agent is asked.

use protocol::{Constraint, JobId, Neighbour, Rule, Stand};
use regex::{Regex, RegexBuilder};

/// Most memory of one compiled expression, in bytes.
const COMPILED_BYTES_MAX: usize = 256 << 10;
/// Most memory that an expression takes while it is matched, in bytes.
const MATCHING_BYTES_MAX: usize = 256 << 10;
/// Deepest nesting of an expression.
const NESTING_MAX: u32 = 16;

/// The expression that `text` is; it matches whole values only, as Marathon's do.
///
/// # Errors
/// Why it is none, or is too large, in one line.
pub fn pattern(text: &str) -> Result<Regex, String> {
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(COMPILED_BYTES_MAX).dfa_size_limit(MATCHING_BYTES_MAX).nest_limit(NESTING_MAX).build()
    };
    // First by itself: what closes a group that it did not open must not pass for whole.
    let built = build(text).and_then(|_| build(&format!(r"\A(?:{text})\z")));
    built.map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or("it is none").trim().trim_start_matches("error: ").to_owned()
    })
}

/// Constraints, ready to be judged.
#[derive(Clone, Debug)]
pub struct Matcher {
    rules: Vec<(Constraint, Option<Regex>)>,
}

impl Matcher {
    /// Of these. An expression that is none, which nobody admits, matches nothing.
    #[must_use]
    pub fn new(constraints: &[Constraint]) -> Self {
        let ready = |constraint: &Constraint| {
            let regex = match &constraint.rule {
                Rule::Like(text) | Rule::Unlike(text) => pattern(text).ok(),
                _ => None,
            };
            (constraint.clone(), regex)
        };
        Self { rules: constraints.iter().map(ready).collect() }
    }

    /// The constraints that this agent does not meet, wherever other tasks of the job are; `has` says of which other jobs there are tasks on it.
    pub fn against<'a>(&'a self, stand: &'a Stand, has: impl Fn(JobId) -> bool + 'a) -> impl Iterator<Item = &'a Constraint> {
        let broken = move |(constraint, regex): &&(Constraint, Option<Regex>)| !holds(constraint, regex.as_ref(), stand, &has);
        self.rules.iter().filter(broken).map(|(constraint, _)| constraint)
    }

    /// True where it meets all of them.
    pub fn admits(&self, stand: &Stand, has: impl Fn(JobId) -> bool) -> bool {
        self.against(stand, has).next().is_none()
    }
}

fn holds(constraint: &Constraint, regex: Option<&Regex>, stand: &Stand, has: &impl Fn(JobId) -> bool) -> bool {
    let is_there = |other: &Neighbour| other.id.is_some_and(has);
    let Some(value) = constraint.field.of(stand) else { return matches!(constraint.rule, Rule::Unlike(_)) };
    match &constraint.rule {
        Rule::Is(wanted) | Rule::Cluster(Some(wanted)) => value == wanted,
        Rule::Like(_) => regex.is_some_and(|regex| regex.is_match(value)),
        Rule::Unlike(_) => regex.is_some_and(|regex| !regex.is_match(value)),
        Rule::Near(other) => is_there(other),
        Rule::Apart(other) => !is_there(other),
        Rule::Unique | Rule::Cluster(None) | Rule::GroupBy(_) | Rule::MaxPer(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{FaultDomain, Field, Name};

    fn check(field: &str, rule: Rule, expected: bool) {
        let attributes = [("disk".to_owned(), "ssd-2".to_owned())].into();
        let domain = FaultDomain { rack: "r1".into(), ..FaultDomain::default() };
        let stand = Stand { name: "a7".into(), domain, attributes };
        let constraint = Constraint { field: Field::named(field), rule };
        assert_eq!(Matcher::new(std::slice::from_ref(&constraint)).admits(&stand, |job| job == JobId(7)), expected, "{constraint}");
    }

    #[test]
    fn each_rule_is_judged_by_the_agent_alone() {
        let text = str::to_owned;
        check("rack", Rule::Is(text("r1")), true);
        check("rack", Rule::Is(text("r")), false);
        check("zone", Rule::Is(text("r1")), false);
        check("rack", Rule::Cluster(Some(text("r1"))), true);
        check("rack", Rule::Cluster(Some(text("r2"))), false);
        check("disk", Rule::Like(text("ssd.*")), true);
        check("disk", Rule::Like(text("ssd")), false);
        check("disk", Rule::Like(text("hdd|ssd-2")), true);
        check("disk", Rule::Like(text("ssd-2|")), true);
        check("hostname", Rule::Like(text("a[0-9]")), true);
        check("disk", Rule::Unlike(text("hdd")), true);
        check("disk", Rule::Unlike(text("ssd-.")), false);
        check("gpu", Rule::Unlike(text(".*")), true);
        check("gpu", Rule::Like(text(".*")), false);
        for rule in [Rule::Unique, Rule::Cluster(None), Rule::GroupBy(3), Rule::MaxPer(1)] {
            check("rack", rule.clone(), true);
            check("zone", rule, false);
        }
        check("rack", Rule::Unlike(text("(")), false);
        for (id, there) in [(Some(JobId(7)), true), (Some(JobId(8)), false), (None, false)] {
            let other = || Neighbour { name: Name::new("db").unwrap(), id };
            check("hostname", Rule::Near(other()), there);
            check("hostname", Rule::Apart(other()), !there);
        }
    }

    #[test]
    fn an_expression_that_is_none_or_too_large_is_told() {
        for text in ["(", "a)|(b", "[", "(?<=a)b", "((((((((((((((((((a))))))))))))))))))", "a{100000}", "(?x)a #"] {
            let why = pattern(text).expect_err(text);
            assert!(!why.is_empty() && !why.contains('\n'), "{text}: {why}");
        }
        assert!(!pattern("a|b").unwrap().is_match("ab"));
        assert!(!pattern("a").unwrap().is_match("a\n"));
        assert!(pattern(r"(?i)RACK-\d+").unwrap().is_match("rack-12"));
    }
}
