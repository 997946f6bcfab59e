//! What is heard, as spans: pure. A job is one trace: `job` is all of it, `submit` its way onto the record, each `attempt` the way of one task on one agent.
//! Parts of an attempt are `place` (a task waits for room), `send` (it is on record and sent, and the agent has not said anything), `start` (its bundle is
//! fetched and compiled), `run` and `stop`; of one that is over before its agent says that it runs, the last of these is `run`. Ids follow from what they
//! name, so that any master that leads the shard goes on with the same trace.

use super::{Span, Value};
use crate::shard::change::Change;
use protocol::{AgentId, AttemptId, JobId, Phase};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most jobs, and most attempts, whose ways are followed at the same time; those beyond are left out.
const JOBS_MAX: usize = 65_536;
const ATTEMPTS_MAX: usize = 65_536;
/// Most agents whose names are known; of others the id is said alone.
const AGENTS_MAX: usize = 100_000;

/// All that are on their way.
#[derive(Debug)]
pub struct Travels {
    cluster: Arc<str>,
    jobs: BTreeMap<JobId, Job>,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// Since when tasks wait for another attempt.
    waits: BTreeMap<(JobId, u32), u64>,
    agents: BTreeMap<AgentId, String>,
}

#[derive(Debug)]
struct Job {
    title: String,
    role: String,
    /// When it was heard of first.
    since_ns: u64,
    /// When it was last said to be another: its first tasks, or more of them, wait since then.
    wanted_ns: u64,
}

#[derive(Debug)]
struct Attempt {
    /// When it was put on record.
    placed_ns: u64,
    /// Its state, and since when.
    phase: Phase,
    since_ns: u64,
}

impl Travels {
    pub fn new(cluster: Arc<str>) -> Self {
        Self { cluster, jobs: BTreeMap::new(), attempts: BTreeMap::new(), waits: BTreeMap::new(), agents: BTreeMap::new() }
    }

    /// What has ended with this.
    pub fn hear(&mut self, now_ns: u64, change: &Change) -> Vec<Span> {
        match change {
            Change::Job { job, role, title, what } if what == "ended" => self.ended(now_ns, *job, role.as_str(), title),
            Change::Job { job, role, title, .. } => {
                if let Some(known) = self.jobs.get_mut(job) {
                    known.wanted_ns = now_ns;
                } else if self.jobs.len() < JOBS_MAX {
                    let known = Job { title: title.clone(), role: role.to_string(), since_ns: now_ns, wanted_ns: now_ns };
                    self.jobs.insert(*job, known);
                }
                vec![]
            }
            Change::Tasks { job, phase, placed, .. } if self.jobs.contains_key(job) => {
                placed.iter().flat_map(|placed| self.moved(now_ns, placed.attempt, placed.agent, *phase)).collect()
            }
            Change::Agent { agent, name, what } => {
                match what.as_ref() {
                    "gone" => drop(self.agents.remove(agent)),
                    _ if self.agents.len() < AGENTS_MAX => drop(self.agents.insert(*agent, name.clone())),
                    _ => {}
                }
                vec![]
            }
            _ => vec![],
        }
    }

    /// Some of what was told was not heard: what became of attempts is not known.
    pub fn forget_attempts(&mut self) {
        self.attempts.clear();
        self.waits.clear();
    }

    /// A job that was followed from its beginning has ended.
    fn ended(&mut self, now_ns: u64, job: JobId, role: &str, title: &str) -> Vec<Span> {
        let first = (AttemptId::new(job, 0, 0), (job, 0));
        let last = (AttemptId::new(job, u32::MAX, u32::MAX), (job, u32::MAX));
        let attempts: Vec<AttemptId> = self.attempts.range(first.0..=last.0).map(|(id, _)| *id).collect();
        for id in &attempts {
            self.attempts.remove(id);
        }
        let waits: Vec<(JobId, u32)> = self.waits.range(first.1..=last.1).map(|(task, _)| *task).collect();
        for task in &waits {
            self.waits.remove(task);
        }
        let Some(known) = self.jobs.remove(&job) else { return vec![] };
        vec![Span { parent: None, attributes: of_job(job, title, role), ..span(&self.cluster, job, "job", "job", known.since_ns, now_ns) }]
    }

    fn moved(&mut self, now_ns: u64, id: AttemptId, agent: AgentId, phase: Phase) -> Vec<Span> {
        let Some(job) = self.jobs.get(&id.task.job) else { return vec![] };
        let attributes = self.of_attempt(job, id, agent);
        let whole = format!("attempt {}#{}", id.task.index, id.number);
        let part = |name: &'static str, began_ns: u64| Span {
            parent: Some(span_id(&self.cluster, id.task.job, &whole)),
            attributes: attributes.clone(),
            ..span(&self.cluster, id.task.job, name, &format!("{whole} {name} {began_ns}"), began_ns, now_ns)
        };
        let Some(known) = self.attempts.get_mut(&id) else {
            // One whose beginning nobody heard has no length.
            if phase != Phase::Staging || self.attempts.len() >= ATTEMPTS_MAX {
                return vec![];
            }
            let waited = self.waits.remove(&(id.task.job, id.task.index)).unwrap_or(job.wanted_ns);
            let placed = part("place", waited);
            self.attempts.insert(id, Attempt { placed_ns: now_ns, phase, since_ns: now_ns });
            return vec![placed];
        };
        if known.phase == phase {
            return vec![];
        }
        let leg = match known.phase {
            // It was over before its agent said that it runs.
            Phase::Staging | Phase::Starting if matches!(phase, Phase::Finished | Phase::Failed | Phase::Killed) => "run",
            Phase::Staging => "send",
            Phase::Starting => "start",
            Phase::Running => "run",
            Phase::Killing => "stop",
            _ => "unreachable",
        };
        let mut spans = vec![part(leg, known.since_ns)];
        (known.phase, known.since_ns) = (phase, now_ns);
        if phase.is_end() {
            let failed = matches!(phase, Phase::Failed | Phase::Rejected | Phase::Lost).then(|| end_text(phase));
            let attributes = attributes.iter().cloned().chain([("skep.ended", Value::Text(end_text(phase).into()))]).collect();
            let began_ns = known.placed_ns;
            spans.push(Span { attributes, failed, ..span(&self.cluster, id.task.job, "attempt", &whole, began_ns, now_ns) });
            self.attempts.remove(&id);
            if self.waits.len() < ATTEMPTS_MAX {
                self.waits.insert((id.task.job, id.task.index), now_ns);
            }
        }
        spans
    }

    fn of_attempt(&self, job: &Job, id: AttemptId, agent: AgentId) -> Vec<(&'static str, Value)> {
        let mut all = of_job(id.task.job, &job.title, &job.role);
        all.push(("skep.task", Value::Text(format!("{}.{}", job.title, id.task.index))));
        all.push(("skep.attempt", Value::Number(id.number.into())));
        all.push(("skep.agent.id", Value::Text(agent.to_string())));
        all.extend(self.agents.get(&agent).map(|name| ("skep.agent", Value::Text(name.clone()))));
        all
    }
}

/// How it ended, in a word.
const fn end_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Finished => "finished",
        Phase::Killed => "killed",
        Phase::Rejected => "rejected",
        Phase::Lost => "lost",
        _ => "failed",
    }
}

/// The way of a job onto the record: from the first byte of its request that was read to its commit.
pub fn submission(cluster: &str, job: JobId, came_ns: u64, now_ns: u64) -> Span {
    let attributes = vec![("skep.job.id", Value::Text(job.to_string())), ("skep.shard", Value::Number(job.shard().0.into()))];
    Span { attributes, ..span(cluster, job, "submit", &format!("submit {came_ns}"), came_ns, now_ns) }
}

fn of_job(job: JobId, title: &str, role: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("skep.job", Value::Text(title.to_owned())),
        ("skep.job.id", Value::Text(job.to_string())),
        ("skep.role", Value::Text(role.to_owned())),
        ("skep.shard", Value::Number(job.shard().0.into())),
    ]
}

/// A part of the whole way, of which nothing more is known.
fn span(cluster: &str, job: JobId, name: &'static str, what: &str, began_ns: u64, ended_ns: u64) -> Span {
    Span {
        trace: first(&hash(cluster, job, "")),
        id: span_id(cluster, job, what),
        parent: Some(span_id(cluster, job, "job")),
        name,
        began_ns: began_ns.min(ended_ns),
        ended_ns,
        attributes: vec![],
        failed: None,
    }
}

fn span_id(cluster: &str, job: JobId, what: &str) -> [u8; 8] {
    first(&hash(cluster, job, what))
}

fn hash(cluster: &str, job: JobId, what: &str) -> [u8; 32] {
    *blake3::hash(format!("{cluster}\n{job}\n{what}").as_bytes()).as_bytes()
}

fn first<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    *hash.first_chunk().expect("32 are more")
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::task::Placed;
    use protocol::{Role, ShardId};

    const JOB: JobId = JobId::new(ShardId(3), 1);
    const AGENT: AgentId = AgentId(7);

    fn job(what: &'static str) -> Change {
        Change::Job { job: JOB, role: Role::new("web").unwrap(), title: "shop".into(), what: what.into() }
    }

    fn tasks(phase: Phase, number: u32) -> Change {
        let placed = vec![Placed { attempt: AttemptId::new(JOB, 2, number), agent: AGENT }];
        Change::Tasks { job: JOB, role: Role::new("web").unwrap(), phase, placed }
    }

    /// Hears these at these moments; says the name, beginning and end of each span that comes of them.
    fn check(heard: &[(u64, Change)], expected: &[(&str, u64, u64)]) -> Vec<Span> {
        let mut travels = Travels::new("c".into());
        let spans: Vec<Span> = heard.iter().flat_map(|(now, change)| travels.hear(*now, change)).collect();
        let found: Vec<_> = spans.iter().map(|span| (span.name, span.began_ns, span.ended_ns)).collect();
        assert_eq!(found, expected);
        assert!(travels.attempts.is_empty() && travels.jobs.is_empty() && travels.waits.is_empty());
        spans
    }

    #[test]
    fn a_job_is_one_trace_whose_parts_meet() {
        let registered = Change::Agent { agent: AGENT, name: "a1".into(), what: "registered".into() };
        let heard = [
            (1, registered),
            (10, job("submitted")),
            (13, tasks(Phase::Staging, 1)),
            (20, tasks(Phase::Starting, 1)),
            (25, tasks(Phase::Running, 1)),
            (26, tasks(Phase::Running, 1)),
            (40, tasks(Phase::Failed, 1)),
            (50, tasks(Phase::Staging, 2)),
            (60, tasks(Phase::Finished, 2)),
            (61, job("ended")),
        ];
        let first = [("place", 10, 13), ("send", 13, 20), ("start", 20, 25), ("run", 25, 40), ("attempt", 13, 40)];
        let second = [("place", 40, 50), ("run", 50, 60), ("attempt", 50, 60), ("job", 10, 61)];
        let spans = check(&heard, &[&first[..], &second[..]].concat());
        let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| span.id).collect();
        assert!(spans.iter().all(|span| span.trace == spans[0].trace) && ids.len() == spans.len());
        let (attempt, whole) = (&spans[4], &spans[8]);
        assert!(spans[..4].iter().all(|span| span.parent == Some(attempt.id)));
        assert_eq!((attempt.parent, whole.parent, attempt.failed, whole.failed), (Some(whole.id), None, Some("failed"), None));
        for said in
            [("skep.task", Value::Text("shop.2".into())), ("skep.agent", Value::Text("a1".into())), ("skep.shard", Value::Number(3))]
        {
            assert!(attempt.attributes.contains(&said), "{said:?}");
        }
        let submitted = submission("c", JOB, 8, 10);
        assert_eq!((submitted.trace, submitted.parent), (whole.trace, Some(whole.id)));
    }

    #[test]
    fn what_was_not_heard_from_the_beginning_has_no_length() {
        check(&[(1, tasks(Phase::Running, 1)), (2, tasks(Phase::Failed, 1)), (3, job("ended"))], &[]);
        check(&[(1, job("scaled")), (2, tasks(Phase::Running, 1)), (3, tasks(Phase::Killed, 1)), (4, job("ended"))], &[("job", 1, 4)]);
    }

    #[test]
    fn the_same_attempt_in_two_masters_has_one_id() {
        let (mut one, mut other) = (Travels::new("c".into()), Travels::new("c".into()));
        for (now, change) in [(1, job("submitted")), (2, tasks(Phase::Staging, 1))] {
            one.hear(now, &change);
            other.hear(now + 1, &change);
        }
        let ids = |travels: &mut Travels| travels.hear(9, &tasks(Phase::Lost, 1)).pop().unwrap().id;
        assert_eq!(ids(&mut one), ids(&mut other));
    }
}
