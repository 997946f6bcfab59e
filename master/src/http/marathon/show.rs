//! Apps as clients see them. What an app was made as stands with it as JSON, so it is written as it stands there, and what changes by itself behind it:
//! thousands of them are a list in no time.

use super::held::{Agents, Held};
use super::words::{Object, Query};
use super::{deployments, health, tasks};
use crate::http::Api;
use crate::http::error::ApiError;
use crate::shard::view::HealthCounts;
use protocol::{JobId, Phase};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is shown of an app beside itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Embed {
    /// Its tasks.
    pub tasks: bool,
    /// How many of them are in which state.
    pub counts: bool,
    /// Which deployments concern it.
    pub deployments: bool,
    /// How the last of its tasks that failed did.
    pub failure: bool,
    /// Figures of its tasks.
    pub stats: bool,
    /// What its readiness checks said.
    pub readiness: bool,
}

impl Embed {
    /// What a query asks for; where it asks for nothing, counts and deployments, as Marathon does.
    pub fn of(query: &Query) -> Self {
        let mut embed = Self::default();
        let mut any = false;
        for text in query.all("embed") {
            let what = text.rsplit_once("apps.").or_else(|| text.rsplit_once("app.")).map_or(text, |(_, what)| what);
            any = true;
            match what {
                "tasks" => (embed.tasks, embed.deployments) = (true, true),
                "count" | "counts" => embed.counts = true,
                "deployments" => embed.deployments = true,
                "lastTaskFailure" => embed.failure = true,
                "failures" => (embed.tasks, embed.counts, embed.deployments, embed.failure) = (true, true, true, true),
                "taskStats" => embed.stats = true,
                "readiness" => embed.readiness = true,
                _ => {}
            }
        }
        Self { counts: true, deployments: embed.deployments || !any, ..embed }
    }

    /// Everything that one app is shown with where nothing is asked for.
    pub const fn of_one() -> Self {
        Self { tasks: true, counts: true, deployments: true, failure: true, stats: false, readiness: true }
    }

    /// True where tasks are to be looked at.
    pub const fn needs_tasks(self) -> bool {
        self.tasks || self.failure || self.stats
    }
}

/// Writes apps.
#[derive(Debug)]
pub struct Writer<'a> {
    /// What is shown beside them.
    pub embed: Embed,
    /// Open deployments by job.
    deployments: BTreeMap<JobId, Vec<String>>,
    /// The agents, where tasks are shown.
    pub agents: Agents,
    /// How many tasks are well, of apps that ask.
    healths: BTreeMap<JobId, HealthCounts>,
    api: &'a Api,
}

impl<'a> Writer<'a> {
    /// One that shows this beside these apps.
    ///
    /// # Errors
    /// An [`ApiError`] where a shard cannot answer now.
    pub async fn new(api: &'a Api, embed: Embed, all: &[Held]) -> Result<Self, ApiError> {
        let agents = if embed.needs_tasks() { super::held::agents(api).await? } else { Agents::new() };
        let healths = if embed.counts { health::counts(api, all).await? } else { BTreeMap::new() };
        let deployments = if embed.deployments || embed.readiness { deployments::by_job(api, all).await? } else { BTreeMap::new() };
        Ok(Self { embed, deployments, agents, healths, api })
    }

    /// Writes one app behind what is there.
    ///
    /// # Errors
    /// An [`ApiError`] where a shard cannot answer now.
    pub async fn write(&self, held: &Held, output: &mut String) -> Result<(), ApiError> {
        output.push_str(held.note().strip_suffix('}').unwrap_or("{\"id\":\"\""));
        write!(output, ",\"instances\":{}", held.view.job.count).expect("memory does not fail to be written");
        if self.embed.counts {
            let HealthCounts { healthy, unhealthy, .. } = self.healths.get(&held.view.id).copied().unwrap_or_default();
            let (staged, running) = (held.count(&[Phase::Staging, Phase::Starting]), held.count(&[Phase::Running]));
            write!(
                output,
                ",\"tasksStaged\":{staged},\"tasksRunning\":{running},\"tasksHealthy\":{healthy},\"tasksUnhealthy\":{unhealthy}"
            )
            .expect("memory does not fail to be written");
        }
        if self.embed.deployments {
            let ids = self.deployments.get(&held.view.id).map_or(&[][..], Vec::as_slice);
            let ids: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
            write!(output, ",\"deployments\":{}", Value::from(ids)).expect("memory does not fail to be written");
        }
        if self.embed.readiness {
            let results = Value::from(self.readiness(held).await?);
            write!(output, ",\"readinessCheckResults\":{results}").expect("memory does not fail to be written");
        }
        if self.embed.needs_tasks() {
            self.write_tasks(held, output).await?;
        }
        output.push('}');
        Ok(())
    }

    /// What the readiness checks of its new tasks said, while it is on its way, as in Marathon.
    async fn readiness(&self, held: &Held) -> Result<Vec<Value>, ApiError> {
        if !self.deployments.contains_key(&held.view.id) || !health::is_asked_for_readiness(held) {
            return Ok(vec![]);
        }
        let all = tasks::of(self.api, held, &[Phase::Running]).await?;
        let shown = tasks::Shown::new(held, &self.agents).look(self.api, &all).await?;
        Ok(all.iter().filter_map(|task| shown.readiness(task)).collect())
    }

    async fn write_tasks(&self, held: &Held, output: &mut String) -> Result<(), ApiError> {
        let all = tasks::of(self.api, held, &[]).await?;
        let shown = tasks::Shown::new(held, &self.agents).look(self.api, &all).await?;
        let mut more = Object::new();
        if self.embed.tasks {
            more.insert("tasks".into(), all.iter().filter(|task| tasks::is_live(task.phase)).map(|task| shown.json(task)).collect());
        }
        if let Some(failure) = all.iter().filter(|_| self.embed.failure).filter_map(|task| shown.failure(task)).max_by_key(|(at, _)| *at) {
            more.insert("lastTaskFailure".into(), failure.1);
        }
        if self.embed.stats {
            more.insert("taskStats".into(), shown.stats(&all));
        }
        for (name, value) in more {
            write!(output, ",{}:{value}", Value::from(name)).expect("memory does not fail to be written");
        }
        Ok(())
    }

    /// One app as JSON.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn text(&self, held: &Held) -> Result<String, ApiError> {
        let mut output = String::new();
        self.write(held, &mut output).await?;
        Ok(output)
    }
}

/// Which apps of a list.
#[derive(Debug, Default)]
pub struct Filter {
    cmd: Option<String>,
    id: Option<String>,
    labels: Vec<Selector>,
}

/// What must hold of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Selector {
    Has(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Filter {
    /// What a query asks for.
    ///
    /// # Errors
    /// Why its label selector is none.
    pub fn of(query: &Query) -> Result<Self, String> {
        let text = |name: &str| query.get(name).filter(|text| !text.is_empty()).map(str::to_owned);
        let labels = query.get("label").map_or(Ok(vec![]), selectors)?;
        Ok(Self { cmd: text("cmd"), id: text("id"), labels })
    }

    /// True where the app is wanted.
    pub fn wants(&self, held: &Held) -> bool {
        let cmd = |part: &String| held.fields().get("cmd").and_then(Value::as_str).is_some_and(|cmd| cmd.contains(part));
        let labels = held.view.job.labels();
        let label = |name: &String| labels.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        self.id.as_ref().is_none_or(|part| held.id.as_str().contains(part))
            && self.cmd.as_ref().is_none_or(cmd)
            && self.labels.iter().all(|selector| match selector {
                Selector::Has(name) => label(name).is_some(),
                Selector::In(name, values) => label(name).is_some_and(|value| values.contains(value)),
                Selector::NotIn(name, values) => label(name).is_some_and(|value| !values.contains(value)),
            })
    }
}

/// Words of a label selector: names, values, and what stands between them.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut letters) = (vec![], String::new(), text.chars().peekable());
    while let Some(letter) = letters.next() {
        let is_word = letter.is_alphanumeric() || "-_./:".contains(letter);
        match letter {
            '\\' => word.extend(letters.next()),
            _ if is_word => word.push(letter),
            _ => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                if "=!".contains(letter) && letters.next_if_eq(&'=').is_some() {
                    words.push(format!("{letter}="));
                } else if !letter.is_whitespace() {
                    words.push(letter.to_string());
                }
            }
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The label selectors of a text, `a, b==c, d!=e, f in (g, h), i notin (j)`.
fn selectors(text: &str) -> Result<Vec<Selector>, String> {
    let words = words(text);
    let mut rest: &[String] = &words;
    let mut found = vec![];
    let wrong = || format!("{text:?} is no label selector");
    while let [name, after @ ..] = rest {
        let is_name = |word: &str| !["==", "!=", "=", "!", ",", "(", ")"].contains(&word);
        if !is_name(name) {
            return Err(wrong());
        }
        let selector;
        (selector, rest) = match after {
            [equal, value, after @ ..] if equal == "==" && is_name(value) => (Selector::In(name.clone(), vec![value.clone()]), after),
            [unequal, value, after @ ..] if unequal == "!=" && is_name(value) => {
                (Selector::NotIn(name.clone(), vec![value.clone()]), after)
            }
            [word, open, after @ ..] if (word == "in" || word == "notin") && open == "(" => {
                let end = after.iter().position(|word| word == ")").ok_or_else(wrong)?;
                let values = after[..end].iter().filter(|word| *word != ",").cloned().collect();
                let of = if word == "in" { Selector::In } else { Selector::NotIn };
                (of(name.clone(), values), &after[end + 1..])
            }
            after => (Selector::Has(name.clone()), after),
        };
        found.push(selector);
        rest = match rest {
            [] => rest,
            [comma, after @ ..] if comma == "," && !after.is_empty() => after,
            _ => return Err(wrong()),
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_are_read_as_marathon_reads_them() {
        let values = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let check = |text: &str, expected: &[Selector]| assert_eq!(selectors(text).unwrap(), expected, "{text}");
        check("a", &[Selector::Has("a".into())]);
        check(
            "env==production, tier!=frontend\\ tier,b",
            &[
                Selector::In("env".into(), values(&["production"])),
                Selector::NotIn("tier".into(), values(&["frontend tier"])),
                Selector::Has("b".into()),
            ],
        );
        check("a in (x, y), b notin(z)", &[Selector::In("a".into(), values(&["x", "y"])), Selector::NotIn("b".into(), values(&["z"]))]);
        check("", &[]);
        for wrong in ["==", "a==", "a in (b", "a,", "a b", ",a", "a in b", "a = b"] {
            assert!(selectors(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_embedded_is_named_in_several_ways() {
        let of = |texts: &[&str]| Embed::of(&Query(texts.iter().map(|text| ("embed".to_owned(), (*text).to_owned())).collect()));
        assert_eq!(of(&[]), Embed { counts: true, deployments: true, ..Embed::default() });
        assert_eq!(of(&["app.counts"]), Embed { counts: true, ..Embed::default() });
        assert!(of(&["apps.tasks"]).tasks && of(&["app.tasks"]).deployments && of(&["group.apps.lastTaskFailure"]).failure);
        assert!(of(&["apps.failures"]).failure && of(&["app.taskStats", "app.readiness"]).stats && !of(&["nonsense"]).tasks);
    }
}
