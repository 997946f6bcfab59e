//! A program beside a native or container task: what the caller sends and what the program prints pass through, and are not looked at.

use super::access::Caller;
use super::body::Asked;
use super::error::{ApiError, ErrorAnswer};
use super::{Api, find};
use crate::shard::event::{JobRef, Level};
use crate::shard::view::{View, Viewed};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use protocol::link::{LinkError, Receiver, Sender};
use protocol::message::{BulkReply, BulkRequest, CHUNK_BYTES_MAX, COMMAND_LENGTH_MAX};
use protocol::{AttemptId, MemberId, Phase, Program};
use serde::Deserialize;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// What the bytes of both ways are called; how they are cut into frames says `runtime::executor::process::session`.
const SESSION: &str = "application/vnd.skep.session";
/// How long an agent may take to begin.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Which program.
#[derive(Clone, Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExecQuery {
    /// The job's role, where the job is named by its name.
    pub role: Option<String>,
    /// The program and its arguments: a JSON array of texts.
    pub command: String,
    /// The member of a group, by its name; the first native or container one where it is not said.
    pub member: Option<String>,
    /// With `columns`: a terminal of its own, of so many rows.
    pub rows: Option<u16>,
    /// With `rows`: its columns.
    pub columns: Option<u16>,
}

/// Runs a program beside a task. The body of the request goes to it and what it prints is the answer, both at the same time (over HTTP/2) and in
/// frames: a byte (to it 0 input, 5 size; from it 1 output, 2 errors, 3 its exit code, 4 why there is none), a big-endian length of 32 bits, bytes.
#[utoipa::path(post, path = "/v1/jobs/{job}/tasks/{index}/exec", tag = "jobs",
    params(("job" = String, Path, description = "a job's name or id"), ("index" = u32, Path, description = "the task's index"), ExecQuery),
    responses((status = 200, description = "frames", content_type = "application/vnd.skep.session"), (status = 404, body = ErrorAnswer), (status = 409, body = ErrorAnswer)))]
pub async fn exec(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path((job, index)): Path<(String, u32)>,
    Asked(query): Asked<ExecQuery>,
    body: Body,
) -> Result<Response, ApiError> {
    let view = find::job(&api, &caller, &job, query.role.as_deref()).await?;
    caller.must(Level::Operator, &view.job.role)?;
    let wrong = || ApiError::invalid("command", "a command is a JSON array of 1 to 1024 texts without NUL, as [\"sh\",\"-c\",\"ls\"]");
    let command: Vec<String> = serde_json::from_str(&query.command).map_err(|_| wrong())?;
    if command.is_empty() || command.len() > COMMAND_LENGTH_MAX || command.iter().any(|text| text.contains('\0')) || command[0].is_empty() {
        return Err(wrong());
    }
    let is_process = |program: &Program| !matches!(program, Program::Wasm { .. });
    let members = &view.job.template.members;
    let at = match &query.member {
        Some(name) => {
            let named = |member: &protocol::Member| member.name.as_ref().is_some_and(|known| known.as_str() == name);
            members.iter().position(named).ok_or_else(|| ApiError::not_found("member"))?
        }
        None => members.iter().position(|member| is_process(&member.program)).unwrap_or(0),
    };
    if !is_process(&members[at].program) {
        return Err(ApiError::conflict("nothing can be run beside a wasm task: it has no processes"));
    }
    let tasks = View::Tasks { job: JobRef::Id(view.id), from: index, limit: 1, phases: vec![] };
    let Viewed::Tasks(tasks) = find::view(&api, view.id.shard(), tasks).await? else {
        return Err(ApiError::internal("a shard answered another question than it was asked"));
    };
    let task = tasks.into_iter().find(|task| task.index == index).ok_or_else(|| ApiError::not_found("task"))?;
    let agent = task.agent.filter(|_| matches!(task.phase, Phase::Running | Phase::Killing));
    let agent = agent.ok_or_else(|| ApiError::conflict("the task does not run"))?;
    let connection = api.door.agent_connection(agent).ok_or_else(|| ApiError::unavailable("the task's agent is not connected"))?;
    let member = MemberId { attempt: AttemptId::new(view.id, index, task.attempt), member: u8::try_from(at).unwrap_or(0) };
    let request = BulkRequest::Exec { member, command, terminal: query.rows.zip(query.columns) };
    let opened = tokio::time::timeout(OPEN_WITHIN, async {
        let (mut sender, receiver) = connection.open_bulk().await?;
        sender.send(&request).await?;
        Ok::<_, LinkError>((sender, receiver))
    });
    let (sender, receiver) = match opened.await {
        Ok(Ok(open)) => open,
        Ok(Err(error)) => return Err(ApiError::unavailable(error.to_string())),
        Err(_) => return Err(ApiError::busy("the task's agent allows no more streams now", 1_000)),
    };
    let mut response = Body::from_stream(answer(body, sender, receiver)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(SESSION));
    Ok(response)
}

/// What the program prints, for as long as somebody reads it; what is sent is passed on meanwhile.
fn answer(body: Body, mut sender: Sender, receiver: Receiver) -> impl futures::Stream<Item = io::Result<Bytes>> {
    let passing = tokio::spawn(async move {
        let mut body = body.into_data_stream();
        while let Some(Ok(bytes)) = body.next().await {
            for start in (0..bytes.len()).step_by(CHUNK_BYTES_MAX) {
                let bytes = bytes.slice(start..bytes.len().min(start + CHUNK_BYTES_MAX));
                if sender.send(&BulkRequest::Input { bytes }).await.is_err() {
                    return;
                }
            }
        }
        // The caller has no more to say, and may still listen: the stream stays until nobody does.
        std::future::pending::<()>().await;
    });
    let held = (receiver, Passing(passing));
    futures::stream::unfold(Some(held), |held| async move {
        let (mut receiver, passing) = held?;
        match receiver.next::<BulkReply>().await {
            Ok(Some(BulkReply::Chunk { bytes, .. })) => Some((Ok(bytes), Some((receiver, passing)))),
            Ok(Some(BulkReply::Failed { reason })) => {
                let mut frame = vec![4];
                frame.extend_from_slice(&u32::try_from(reason.len()).unwrap_or(0).to_be_bytes());
                frame.extend_from_slice(reason.as_bytes());
                Some((Ok(frame.into()), None))
            }
            Ok(Some(BulkReply::End) | None) => None,
            Err(error) => Some((Err(io::Error::other(error)), None)),
        }
    })
}

/// Passes on until it is dropped, and with it ends what it passed to.
struct Passing(tokio::task::JoinHandle<()>);

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.abort();
    }
}
