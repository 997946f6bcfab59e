//! What would be if, over HTTP: the shards' copies are asked for, tried out away from the threads that decide, and what is otherwise then is said as
//! people read it.

use super::access::Caller;
use super::body;
use super::error::{ApiError, ErrorAnswer, unexpected};
use super::explain::{FitBody, merged, sentence};
use super::jobs_json::AmountBody;
use super::{Api, spec};
use crate::admit::Format;
use crate::plan::compare::{Changed, Fate};
use crate::plan::hypothesis::{HYPOTHESES_MAX, Hypothesis, Named};
use crate::plan::{PlanError, Prediction, TASKS_MAX, Waiting, is_small, predict};
use crate::shard::event::{Level, Request, Response as Answer};
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use protocol::{AgentId, Job, JobId, ShardId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

/// What is tried out at once by one master: it takes memory, and a processor.
pub const PLANS_MAX: usize = 1;
/// When it makes sense to ask again meanwhile, in milliseconds.
const RETRY_AFTER_MS: u64 = 2_000;
/// Most tasks that are named in an answer.
const TASKS_SHOWN_MAX: usize = 1_000;

/// What is supposed.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WhatIfAsk {
    /// Hypotheses, which come true in turn: `lose rack=r3`, `drain name=a1`, `resume name=a1`, `add 20 agents like a1 with rack=r9`,
    /// `scale JOB to 10 role=ROLE`, `stop JOB`, `set role=ROLE limit=cpu=8,memory=16GiB guarantee=cpu=4 weight=2`.
    #[serde(default)]
    pub what_if: Vec<String>,
    /// A job that is submitted then, as a job file in JSON.
    #[schema(value_type = Option<Object>)]
    pub job: Option<serde_json::Value>,
}

/// What would be.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WhatIfBody {
    /// The answer in one sentence, for people.
    pub text: String,
    /// Agents that are given tasks, before and then.
    pub agents: BeforeAfter<u32>,
    /// What they have free.
    pub free: BeforeAfter<AmountBody>,
    /// How many tasks have which fate: `waits` (they ran), `ends` (for good), `moves`, `restarts` (where they are), `starts`.
    pub counts: BTreeMap<&'static str, u64>,
    /// Those tasks, at most 1,000.
    pub tasks: Vec<FateBody>,
    /// Jobs of which tasks wait then, at most 100: those first of which more do than before.
    pub waiting: Vec<WaitingBody>,
    /// The id that the job was given which was tried.
    pub job: Option<String>,
    /// Tasks that would be otherwise soon whatever is supposed: they are not counted above.
    pub anyway: u64,
    /// Milliseconds until the last of it had followed, in the cluster's time.
    pub took_ms: u64,
    /// False where more would follow.
    pub settled: bool,
    /// What else is to be known, a sentence each.
    pub notes: Vec<String>,
}

/// Something before what is supposed comes true, and when all has followed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BeforeAfter<T> {
    /// Before.
    pub before: T,
    /// Then.
    pub after: T,
}

/// A task that would be otherwise.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FateBody {
    /// Which, as `JOB.INDEX`.
    pub task: String,
    /// Its job's id.
    pub job: String,
    /// Its job's role.
    pub role: String,
    /// `waits`, `ends`, `moves`, `restarts` or `starts`.
    pub fate: &'static str,
    /// Where it runs now.
    pub from: Option<AgentName>,
    /// Where it would.
    pub to: Option<AgentName>,
}

/// An agent, or one that is supposed to be there.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentName {
    /// Its id.
    pub id: String,
    /// What people call it; one that was added is called as the one that it is like, with a number.
    pub name: String,
}

/// A job of which tasks would wait.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WaitingBody {
    /// Its name, or its id.
    pub job: String,
    /// Its role.
    pub role: String,
    /// Tasks that would wait for resources.
    pub waiting: u32,
    /// Tasks that do now.
    pub before: u32,
    /// Why, in one sentence.
    pub text: String,
    /// How the shape of one task would fit the agents.
    pub fit: FitBody,
}

/// Says what would be if: tries it out on a copy of the cluster, of which nothing is changed.
#[utoipa::path(post, path = "/v1/what-if", tag = "cluster", request_body = WhatIfAsk,
    responses((status = 200, body = WhatIfBody), (status = 400, body = ErrorAnswer, description = "what is supposed makes no sense in this cluster"),
        (status = 403, body = ErrorAnswer), (status = 422, body = ErrorAnswer, description = "the cluster is too large to be tried out"),
        (status = 429, body = ErrorAnswer, description = "something else is being tried out")))]
pub async fn what_if(State(api): State<Arc<Api>>, caller: Caller, headers: HeaderMap, body: Body) -> Result<Json<WhatIfBody>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let asked: WhatIfAsk = body::json(&headers, body).await?;
    let supposed = supposed(&asked.what_if, &caller)?;
    let job = match asked.job {
        None => None,
        Some(text) => {
            let job = spec::looked(&api, spec::parsed(text.to_string().as_bytes(), Format::Json)?).await?;
            caller.must(Level::Viewer, &job.role)?;
            Some(job)
        }
    };
    if supposed.is_empty() && job.is_none() {
        return Err(ApiError::invalid("what_if", "nothing is supposed: say what, such as `lose rack=r3`"));
    }
    // A master of an earlier version has no copy to give.
    api.all_understand()?;
    let turn = Arc::clone(&api.plans).try_acquire_owned();
    let turn = turn.map_err(|_| ApiError::busy("something else is being tried out", RETRY_AFTER_MS))?;
    let prediction = tried(&api, turn, supposed, job).await?;
    Ok(Json(shown(prediction, &caller)))
}

fn supposed(texts: &[String], caller: &Caller) -> Result<Vec<Hypothesis>, ApiError> {
    if texts.len() > HYPOTHESES_MAX {
        return Err(ApiError::invalid("what_if", format!("at most {HYPOTHESES_MAX} hypotheses")));
    }
    let parsed = |(at, text): (usize, &String)| {
        let hypothesis = Hypothesis::parse(text).map_err(|reason| wrong(at, &reason))?;
        let sees = match &hypothesis {
            // What looks like an id may be another's job.
            Hypothesis::Scale { job: Named::Name(role, name), .. } | Hypothesis::Stop { job: Named::Name(role, name) } => {
                caller.sees(role) && (caller.is_of_all_roles() || name.as_str().parse::<JobId>().is_err())
            }
            Hypothesis::Scale { job: Named::Id(_), .. } | Hypothesis::Stop { job: Named::Id(_) } => caller.is_of_all_roles(),
            Hypothesis::Set { role, .. } => caller.sees(role),
            _ => true,
        };
        if sees { Ok(hypothesis) } else { Err(ApiError::forbidden("the token is for other roles").with_field(&field(at))) }
    };
    texts.iter().enumerate().map(parsed).collect()
}

fn field(at: usize) -> String {
    format!("what_if.{at}")
}

fn wrong(at: usize, reason: &str) -> ApiError {
    ApiError::invalid(&field(at), reason)
}

/// Tries it out on what the leaders of all shards have.
async fn tried(api: &Api, turn: OwnedSemaphorePermit, supposed: Vec<Hypothesis>, job: Option<Job>) -> Result<Prediction, ApiError> {
    let too_large = |error: PlanError| ApiError::unprocessable("", error.to_string());
    let mut copies = Vec::new();
    for shard in (0..api.door.shards()).map(ShardId) {
        match api.door.ask(shard, Request::View(View::Copy { tasks_max: TASKS_MAX })).await? {
            Answer::Viewed(viewed) => match *viewed {
                Viewed::Copy(copied) => copies.push(*copied),
                other => return Err(unexpected(&Answer::Viewed(Box::new(other)))),
            },
            other => return Err(unexpected(&other)),
        }
        is_small(&copies).map_err(too_large)?;
    }
    // Its turn is over when this is, whoever still waits for it.
    let scores = api.door.scores();
    let body = move || {
        let _turn = turn;
        predict(copies, &scores, &supposed, job)
    };
    let prediction = tokio::task::spawn_blocking(body).await;
    let prediction = prediction.map_err(|_| ApiError::internal("trying out what is supposed failed"))?;
    prediction.map_err(|error| match error {
        PlanError::Hypothesis { at: Some(at), reason } => wrong(at, &reason),
        PlanError::Hypothesis { at: None, reason } => ApiError::invalid("job", reason),
        PlanError::TooLarge { .. } | PlanError::TooLong => too_large(error),
    })
}

/// As the caller may see it.
fn shown(prediction: Prediction, caller: &Caller) -> WhatIfBody {
    let Prediction { agents, changed, anyway, waiting, free, names, job, took_ms, settled, notes } = prediction;
    let changed: Vec<Changed> = changed.into_iter().filter(|changed| caller.sees(&changed.role)).collect();
    let mut counts: BTreeMap<&'static str, u64> = Fate::ALL.iter().map(|fate| (fate.text(), 0)).collect();
    changed.iter().for_each(|changed| *counts.entry(changed.fate.text()).or_insert(0) += 1);
    let waiting = waiting.into_iter().filter(|waiting| caller.sees(&waiting.why.role)).map(WaitingBody::from);
    let named = |agent: AgentId| AgentName { id: agent.to_string(), name: names.get(&agent).cloned().unwrap_or_default() };
    let row = |changed: &Changed| FateBody {
        task: format!("{}.{}", changed.title, changed.index),
        job: changed.job.to_string(),
        role: changed.role.to_string(),
        fate: changed.fate.text(),
        from: changed.from.map(named),
        to: changed.to.map(named),
    };
    WhatIfBody {
        text: summary(&counts),
        agents: BeforeAfter { before: agents.0, after: agents.1 },
        free: BeforeAfter { before: (&free.0).into(), after: (&free.1).into() },
        counts,
        tasks: changed.iter().take(TASKS_SHOWN_MAX).map(row).collect(),
        waiting: waiting.collect(),
        job: job.map(|job| job.to_string()),
        anyway,
        took_ms,
        settled,
        notes,
    }
}

fn summary(counts: &BTreeMap<&'static str, u64>) -> String {
    let of = |fate: Fate| counts.get(fate.text()).copied().unwrap_or(0);
    let said = [
        (Fate::Waits, "would wait"),
        (Fate::Ends, "would end"),
        (Fate::Moves, "would move"),
        (Fate::Restarts, "would start again where they are"),
        (Fate::Starts, "would start"),
    ];
    let parts: Vec<String> = said.iter().filter(|(fate, _)| of(*fate) > 0).map(|(fate, would)| format!("{} {would}", of(*fate))).collect();
    if parts.is_empty() { "no task would be otherwise than now".to_owned() } else { format!("of the tasks {}", parts.join(", ")) }
}

impl From<Waiting> for WaitingBody {
    fn from(waiting: Waiting) -> Self {
        let Waiting { title, before, why, shapes } = waiting;
        let fit = merged(&why.shape, &shapes);
        let text = sentence(why.waiting, why.backing_off, why.ahead, &fit);
        Self { job: title, role: why.role.to_string(), waiting: why.waiting, before, text, fit }
    }
}
