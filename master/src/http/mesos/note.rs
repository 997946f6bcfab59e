//! What a framework says of a task that nobody here acts upon: its name, labels, how it is to be discovered. It stands with the task's job
//! ([`Origin::note`]) and comes out again in Mesos' lists, where tools as Mesos-DNS, load balancers and pages read it.
//!
//! [`Origin::note`]: protocol::job::Origin::note

use super::words::{self, member, text};
use crate::http::error::ApiError;
use crate::http::{Api, find};
use crate::shard::origins::OriginView;
use crate::shard::view::{PAGE_MAX, View, Viewed};
use protocol::job::Origin;
use protocol::{JobId, PortRange, ShardId};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Who says so.
const MADE_BY: &str = "mesos";
/// The version of masters' messages from which on they know notes.
pub const SINCE: u16 = 3;
/// Most bytes of a note.
const NOTE_BYTES_MAX: usize = 16 << 10;
/// Most bytes of all notes of one answer: as JSON in memory they take many times as much.
const NOTES_BYTES_MAX: usize = 4 << 20;
/// What Mesos' `Task` has of `TaskInfo` word for word (`protobuf::createTask` in `src/common/protobuf_utils.cpp`), but for what is known here anyway.
const KEPT: [&str; 6] = ["labels", "discovery", "container", "health_check", "kill_policy", "max_completion_time"];

/// What is shown of a task beside how it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    said: Map<String, Value>,
    /// The ports that it was given.
    pub ports: Vec<PortRange>,
}

/// What is to be kept of what is said of a task; nothing where its name is its id and no more is said.
///
/// # Errors
/// Where that is too much.
pub fn of(task: &Value) -> Result<Option<Origin>, String> {
    let mut said = Map::new();
    let name = text(task, "name").filter(|name| Some(*name) != words::id(task, "task_id"));
    let user = member(task, "command").and_then(|command| text(command, "user"));
    for (field, value) in [("name", name), ("user", user)] {
        said.extend(value.map(|value| (field.to_owned(), value.into())));
    }
    said.extend(
        KEPT.iter().filter_map(|field| Some(((*field).to_owned(), member(task, field).filter(|value| value.is_object())?.clone()))),
    );
    if said.is_empty() {
        return Ok(None);
    }
    let origin = Origin { by: MADE_BY.into(), note: Value::Object(said).to_string() };
    if origin.note.len() > NOTE_BYTES_MAX {
        let (bytes, most) = (origin.note.len(), NOTE_BYTES_MAX);
        return Err(format!("the name, the labels, discovery and container of a task have {bytes} bytes: at most {most}"));
    }
    Ok(Some(origin))
}

/// What is said of the tasks that these jobs are, as far as all of it has no more than [`NOTES_BYTES_MAX`]; nothing of the others.
///
/// # Errors
/// An [`ApiError`] where a shard cannot answer now.
pub async fn of_jobs(api: &Api, jobs: impl IntoIterator<Item = JobId>) -> Result<BTreeMap<JobId, Shown>, ApiError> {
    let (mut by_shard, mut said, mut left) = (BTreeMap::<ShardId, Vec<JobId>>::new(), BTreeMap::new(), Some(NOTES_BYTES_MAX));
    if !api.door.peers().all_speak(SINCE) {
        return Ok(said);
    }
    jobs.into_iter().for_each(|job| by_shard.entry(job.shard()).or_default().push(job));
    for (shard, jobs) in by_shard {
        let mut jobs = &jobs[..];
        while !jobs.is_empty() && left.is_some() {
            let some = jobs[..jobs.len().min(PAGE_MAX)].to_vec();
            let views = match find::view(api, shard, View::Origins(some)).await? {
                Viewed::Origins(views) if !views.is_empty() && views.len() <= jobs.len() => views,
                _ => return Err(ApiError::internal("a shard answered another question than it was asked")),
            };
            let (of, rest) = jobs.split_at(views.len());
            jobs = rest;
            for (job, view) in of.iter().zip(views) {
                left = left.and_then(|left| left.checked_sub(view.origin.as_ref().map_or(0, |origin| origin.note.len())));
                if left.is_some() {
                    said.insert(*job, view.into());
                }
            }
        }
    }
    Ok(said)
}

impl From<OriginView> for Shown {
    fn from(OriginView { origin, ports }: OriginView) -> Self {
        let note = origin.filter(|origin| origin.by == MADE_BY).map(|origin| origin.note);
        Self { said: note.and_then(|note| serde_json::from_str(&note).ok()).unwrap_or_default(), ports }
    }
}

impl Shown {
    /// What its framework calls it, whose id for it is `id`.
    pub fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.said.get("name").and_then(Value::as_str).unwrap_or(id)
    }

    /// Puts the rest into what version 1 shows of a task.
    pub fn dress(&self, task: &mut Value) {
        for (field, value) in self.said.iter().filter(|(field, _)| *field != "name") {
            words::put(task, field, Some(value.clone()));
        }
    }

    /// The same for version 0, where labels are a plain list (`src/common/http.cpp`).
    pub fn dress_plain(&self, task: &mut Value) {
        self.dress(task);
        if let Some(labels) = self.said.get("labels") {
            words::put(task, "labels", Some(words::list(labels, "labels").into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_said_of_a_task_comes_out_as_it_was_said() {
        let labels = json!({ "labels": [{ "key": "a", "value": "1" }, { "key": "a", "value": "2" }] });
        let discovery =
            json!({ "visibility": "FRAMEWORK", "name": "web", "ports": { "ports": [{ "number": 31_000, "protocol": "tcp" }] } });
        let task = json!({
            "name": "web", "task_id": { "value": "t-1" }, "command": { "value": "x", "user": "me" }, "labels": labels,
            "discovery": discovery, "data": "AAAA",
        });
        let ports = vec![PortRange { first: 31_000, last: 31_001 }];
        let shown = Shown::from(OriginView { origin: of(&task).unwrap(), ports: ports.clone() });
        assert_eq!((shown.name("t-1"), &shown.ports), ("web", &ports));
        let (mut one, mut plain) = (json!({}), json!({}));
        shown.dress(&mut one);
        assert_eq!(one, json!({ "user": "me", "labels": labels, "discovery": discovery }));
        shown.dress_plain(&mut plain);
        assert_eq!(plain, json!({ "user": "me", "labels": labels["labels"], "discovery": discovery }));
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_said_and_too_much_is_refused() {
        let bare = json!({ "name": "t", "task_id": { "value": "t" }, "command": { "value": "x" }, "labels": null, "discovery": [0] });
        assert_eq!(of(&bare), Ok(None));
        assert_eq!(Shown::default().name("t"), "t");
        let long = "x".repeat(NOTE_BYTES_MAX);
        let error = of(&json!({ "labels": { "labels": [{ "key": "a", "value": long }] } })).unwrap_err();
        assert!(error.contains("at most"), "{error}");
        let other = OriginView { origin: Some(Origin { by: "marathon".into(), note: "{\"name\":\"x\"}".into() }), ports: vec![] };
        assert_eq!(Shown::from(other), Shown::default());
    }
}
