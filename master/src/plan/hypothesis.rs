//! What is supposed, as people write it: `lose rack=r3`, `add 20 agents like a1`. Knows words; what becomes of them is the world's.

use crate::admit::{resource, thousandths};
use crate::shard::limits::Quota;
use crate::shard::quotas::WEIGHT_MILLI_MAX;
use protocol::ids::ROLE_DEFAULT;
use protocol::{Field, JobId, Name, Role, Stand};
use std::fmt;

/// Most hypotheses of one question.
pub const HYPOTHESES_MAX: usize = 32;
/// Longest hypothesis, in bytes.
pub const HYPOTHESIS_BYTES_MAX: usize = 512;
/// Most agents that one hypothesis adds.
pub const ADDED_MAX: u32 = 10_000;
/// Most tasks that one hypothesis gives a job: what is tried out stays small.
pub const SCALED_MAX: u32 = 100_000;

/// What is said where a hypothesis begins with no word that is known.
const KNOWN: &str = "lose, drain or resume AGENTS (name=, rack=, zone=, region= or an attribute); add N agents like NAME; scale JOB to N; \
                     stop JOB; set role=ROLE limit=AMOUNTS guarantee=AMOUNTS weight=N";

/// Something that is supposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hypothesis {
    /// These agents fail, and are silent from now on.
    Lose(Selector),
    /// These are emptied: their tasks stop at once and go elsewhere, those of batch jobs too.
    Drain(Selector),
    /// These are given tasks, though an operator said otherwise.
    Resume(Selector),
    /// There are more agents.
    Add {
        /// How many; from 1 to [`ADDED_MAX`].
        count: u32,
        /// The name or id of one that they are like in all but that.
        like: String,
        /// What is otherwise: fields and their values.
        with: Vec<(Field, String)>,
    },
    /// A job has another count.
    Scale {
        /// Which.
        job: Named,
        /// How many tasks; at most [`SCALED_MAX`].
        count: u32,
    },
    /// A job is stopped.
    Stop {
        /// Which.
        job: Named,
    },
    /// A role is served otherwise.
    Set {
        /// Which.
        role: Role,
        /// The most that it may hold; `None`: as it is.
        limit: Option<Quota>,
        /// What it is guaranteed; `None`: as it is.
        guarantee: Option<Quota>,
        /// Its weight in thousandths; `None`: as it is.
        weight_milli: Option<u32>,
    },
}

/// Which agents are meant: those of which all of this holds. At least one pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Vec<(Field, String)>);

/// A job, as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// By its role and name; by its id, where that looks like a name and no job has it.
    Name(Role, Name),
    /// By its id.
    Id(JobId),
}

impl Selector {
    /// True where this agent is meant.
    #[must_use]
    pub fn is_met_by(&self, stand: &Stand) -> bool {
        self.0.iter().all(|(field, value)| field.of(stand) == Some(value))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(field, value)| format!("{field}={value}")).collect();
        f.write_str(&pairs.join(","))
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(role, name) if role.as_str() == ROLE_DEFAULT => write!(f, "{name}"),
            Self::Name(role, name) => write!(f, "{name} of role {role}"),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

impl Hypothesis {
    /// What `text` supposes.
    ///
    /// # Errors
    /// Why it makes no sense, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > HYPOTHESIS_BYTES_MAX {
            return Err(format!("at most {HYPOTHESIS_BYTES_MAX} bytes"));
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["lose", agents] => Ok(Self::Lose(selector(agents)?)),
            ["drain", agents] => Ok(Self::Drain(selector(agents)?)),
            ["resume", agents] => Ok(Self::Resume(selector(agents)?)),
            ["add", count, "agent" | "agents", "like", like] => add(count, like, ""),
            ["add", count, "agent" | "agents", "like", like, "with", with] => add(count, like, with),
            ["scale", job, "to", count] => scale(job, count, ROLE_DEFAULT),
            ["scale", job, "to", count, role] => scale(job, count, role_named(role)?),
            ["stop", job] => Ok(Self::Stop { job: named(job, ROLE_DEFAULT)? }),
            ["stop", job, role] => Ok(Self::Stop { job: named(job, role_named(role)?)? }),
            ["set", role, ref settings @ ..] if !settings.is_empty() => set(role_named(role)?, settings),
            ["lose" | "drain" | "resume", ..] => Err("behind it stands which agents, such as rack=r3 or name=a1".into()),
            ["add", ..] => Err("it is written as: add 20 agents like NAME, and behind that what is otherwise: with rack=r9".into()),
            ["scale", ..] => Err("it is written as: scale JOB to 10, and behind that its role where it has one: role=web".into()),
            ["stop", ..] => Err("it is written as: stop JOB, and behind that its role where it has one: role=web".into()),
            ["set", ..] => Err("it is written as: set role=web limit=cpu=8,memory=16GiB weight=2".into()),
            _ => Err(format!("what can be supposed: {KNOWN}")),
        }
    }
}

fn pairs(text: &str) -> Result<Vec<(Field, String)>, String> {
    let pair = |text: &str| match text.split_once('=') {
        Some((field, value)) if !field.is_empty() && !value.is_empty() => {
            Ok((if field == "name" { Field::Hostname } else { Field::named(field) }, value.to_owned()))
        }
        _ => Err(format!("'{text}': expected a field and its value, such as rack=r3")),
    };
    text.split(',').map(pair).collect()
}

fn selector(text: &str) -> Result<Selector, String> {
    pairs(text).map(Selector)
}

fn add(count: &str, like: &str, with: &str) -> Result<Hypothesis, String> {
    let count = number(count, ADDED_MAX)?;
    let with = if with.is_empty() { Vec::new() } else { pairs(with)? };
    if count == 0 {
        return Err("at least 1 agent".into());
    }
    if with.iter().any(|(field, _)| *field == Field::Hostname) {
        return Err("names are given: each of them has one of its own".into());
    }
    Ok(Hypothesis::Add { count, like: like.to_owned(), with })
}

fn scale(job: &str, count: &str, role: &str) -> Result<Hypothesis, String> {
    Ok(Hypothesis::Scale { job: named(job, role)?, count: number(count, SCALED_MAX)? })
}

fn number(text: &str, most: u32) -> Result<u32, String> {
    let parsed = text.parse().ok().filter(|number| *number <= most);
    parsed.ok_or_else(|| format!("'{text}': expected a number, at most {most}"))
}

fn named(job: &str, role: &str) -> Result<Named, String> {
    let role = Role::new(role).map_err(|error| format!("role '{role}': {error}"))?;
    match (Name::new(job), job.parse()) {
        (Ok(name), _) => Ok(Named::Name(role, name)),
        (_, Ok(id)) => Ok(Named::Id(id)),
        (Err(error), _) => Err(format!("job '{job}': {error}")),
    }
}

fn role_named(text: &str) -> Result<&str, String> {
    text.strip_prefix("role=").ok_or_else(|| format!("'{text}': expected role=ROLE"))
}

fn set(role: &str, settings: &[&str]) -> Result<Hypothesis, String> {
    let role = Role::new(role).map_err(|error| format!("role '{role}': {error}"))?;
    let (mut limit, mut guarantee, mut weight_milli) = (None, None, None);
    for setting in settings {
        match setting.split_once('=') {
            Some(("limit", amounts)) => limit = Some(quota(amounts)?),
            Some(("guarantee", amounts)) => guarantee = Some(quota(amounts)?),
            Some(("weight", weight)) => weight_milli = Some(weight_of(weight)?),
            _ => return Err(format!("'{setting}': expected limit=cpu=8,memory=16GiB, guarantee=cpu=4 or weight=2")),
        }
    }
    Ok(Hypothesis::Set { role, limit, guarantee, weight_milli })
}

fn quota(text: &str) -> Result<Quota, String> {
    if text == "none" {
        return Ok(Quota::default());
    }
    let amount = |pair: &str| match pair.split_once('=') {
        Some((kind, amount)) => resource(kind, amount),
        None => Err(format!("'{pair}': expected an amount, such as cpu=8")),
    };
    Ok(Quota::new(text.split(',').map(amount).collect::<Result<Vec<_>, _>>()?))
}

fn weight_of(text: &str) -> Result<u32, String> {
    let milli = thousandths(text).map_err(|error| format!("weight={error}"))?;
    let milli = u32::try_from(milli).ok().filter(|milli| (1..=WEIGHT_MILLI_MAX).contains(milli));
    milli.ok_or_else(|| format!("weight={text}: from 0.001 to 1000"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::resources::ResourceKind;

    #[test]
    fn what_is_supposed_is_read_as_people_write_it() {
        let parse = |text: &str| Hypothesis::parse(text).unwrap();
        let rack = Selector(vec![(Field::Rack, "r3".into())]);
        assert_eq!(parse("lose rack=r3"), Hypothesis::Lose(rack.clone()));
        assert_eq!(parse("  drain   rack=r3 "), Hypothesis::Drain(rack));
        let both = Selector(vec![(Field::Hostname, "a1".into()), (Field::Attribute("disk".into()), "ssd".into())]);
        assert_eq!(parse("resume name=a1,disk=ssd"), Hypothesis::Resume(both));
        assert_eq!(parse("add 20 agents like a1"), Hypothesis::Add { count: 20, like: "a1".into(), with: vec![] });
        let with = vec![(Field::Rack, "r9".into())];
        assert_eq!(parse("add 1 agent like a1 with rack=r9"), Hypothesis::Add { count: 1, like: "a1".into(), with });
        let job = |role: &str, name: &str| Named::Name(Role::new(role).unwrap(), Name::new(name).unwrap());
        assert_eq!(parse("scale web to 7 role=shop/eu"), Hypothesis::Scale { job: job("shop/eu", "web"), count: 7 });
        assert_eq!(parse("stop web"), Hypothesis::Stop { job: job(ROLE_DEFAULT, "web") });
        let limit = Some(Quota::new([(ResourceKind::Cpu, 8_000), (ResourceKind::Memory, 16 << 30)]));
        let role = Role::new("web").unwrap();
        let guarantee = Some(Quota::new([(ResourceKind::Cpu, 500)]));
        let set = Hypothesis::Set { role: role.clone(), limit, guarantee, weight_milli: Some(2_500) };
        assert_eq!(parse("set role=web limit=cpu=8,memory=16GiB guarantee=cpu=0.5 weight=2.5"), set);
        let none = Hypothesis::Set { role, limit: Some(Quota::default()), guarantee: None, weight_milli: None };
        assert_eq!(parse("set role=web limit=none"), none);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "what can be supposed"),
            ("explode", "what can be supposed"),
            ("lose", "which agents"),
            ("lose r3", "such as rack=r3"),
            ("lose rack=", "such as rack=r3"),
            ("lose rack=r3,", "such as rack=r3"),
            ("lose rack=r3 now", "which agents"),
            ("add agents like a1", "add 20 agents like NAME"),
            ("add 0 agents like a1", "at least 1"),
            ("add -1 agents like a1", "expected a number"),
            ("add 10001 agents like a1", "at most 10000"),
            ("add 2 agents like a1 with name=b", "names are given"),
            ("scale web to many", "expected a number"),
            ("scale Web! to 2", "job 'Web!'"),
            ("stop web web", "expected role=ROLE"),
            ("set role=web", "set role=web limit"),
            ("set role=web limit=cpu", "such as cpu=8"),
            ("set role=web limit=cpu=-1", "cpu=-1"),
            ("set role=web guarantee=", "such as cpu=8"),
            ("set role=web weight=0", "from 0.001 to 1000"),
            ("set role=web colour=red", "'colour=red'"),
        ] {
            let said = Hypothesis::parse(text).expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
        assert!(Hypothesis::parse(&format!("lose rack={}", "r".repeat(600))).is_err());
    }
}
