//! What masters ask on streams of their own: outputs of tasks, programs beside them, what they use.

use futures::FutureExt;
use protocol::MemberId;
use protocol::link::{Connection, LinkError, Receiver, Sender};
use protocol::message::{BulkReply, BulkRequest};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Heard;
use crate::exec;
use crate::logs;
use crate::usage;

/// Most outputs of tasks that are sent to one master at the same time; more are refused.
const LOGS_MAX: usize = 64;

/// Answers what the master at the other end asks, until the connection ends.
pub(super) async fn serve(connection: Connection, heard: mpsc::Sender<Heard>) {
    let places = Arc::new(Semaphore::new(LOGS_MAX));
    loop {
        let (sender, receiver) = match connection.accept_bulk().await {
            Ok(streams) => streams,
            Err(LinkError::Late { .. } | LinkError::Frame(_) | LinkError::Truncated { .. } | LinkError::Reset) => continue,
            Err(_) => return,
        };
        let (heard, place) = (heard.clone(), Arc::clone(&places).try_acquire_owned());
        tokio::spawn(async move {
            let served = match place {
                Ok(_place) => serve_one(sender, receiver, heard).await,
                Err(_) => logs::last(sender, BulkReply::Failed { reason: format!("{LOGS_MAX} outputs are being sent already") }).await,
            };
            if let Err(error) = served {
                tracing::debug!(%error, "the output of a task was not sent to its end");
            }
        });
    }
}

async fn serve_one(sender: Sender, mut receiver: Receiver, heard: mpsc::Sender<Heard>) -> Result<(), LinkError> {
    let Some(request) = receiver.try_next()? else { return Ok(()) };
    let (member, offset, follow) = match request {
        BulkRequest::Log { member, offset, follow } => (member, offset, follow),
        BulkRequest::Exec { member, command, terminal } => {
            let session = session(member, command, terminal, &heard).await;
            return exec::serve(session, sender, receiver).await;
        }
        BulkRequest::Usage => {
            let (answer, answered) = oneshot::channel();
            let asked = heard.send(Heard::Usage { answer }).await.is_ok();
            let watched = if asked { answered.await.ok() } else { None };
            return usage::serve(watched.unwrap_or_default(), sender).await;
        }
        BulkRequest::Change(change) => {
            let (answer, answered) = oneshot::channel();
            let asked = heard.send(Heard::Change { change, answer }).await.is_ok();
            let done = if asked { answered.await.ok() } else { None };
            return logs::last(
                sender,
                match done.unwrap_or_else(|| Err("the agent is leaving".into())) {
                    Ok(()) => BulkReply::End,
                    Err(reason) => BulkReply::Failed { reason },
                },
            )
            .await;
        }
        BulkRequest::Bundle { .. } | BulkRequest::Input { .. } => {
            return logs::last(sender, BulkReply::Failed { reason: "an agent gives nothing but what its tasks do".into() }).await;
        }
    };
    let place = move || {
        let (heard, (answer, answered)) = (heard.clone(), oneshot::channel());
        let asked = async move {
            heard.send(Heard::WhereIsLog { member, answer }).await.ok()?;
            answered.await.ok()
        };
        asked.boxed()
    };
    tokio::select! {
        served = logs::serve(member, offset, follow, place, sender) => served,
        // Whoever follows says nothing more: this is its end, or nonsense.
        _ = receiver.next::<BulkRequest>(), if follow => Ok(()),
    }
}

/// A program beside a task, or why there is none.
async fn session(
    member: MemberId,
    command: Vec<String>,
    terminal: Option<(u16, u16)>,
    heard: &mpsc::Sender<Heard>,
) -> Result<tokio::net::UnixStream, String> {
    let (answer, answered) = oneshot::channel();
    let leaving = || "the agent is leaving".to_owned();
    heard.send(Heard::Exec { member, command, terminal, answer }).await.map_err(|_| leaving())?;
    answered.await.map_err(|_| leaving())?
}
