//! One open `POST /v1/submit`: jobs go in as lines, answers come out as lines, in any order. Knows no verb.

use crate::client::{Client, Lines, Refused};
use anyhow::{Context, bail};
use bytes::Bytes;
use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Pieces of the request body on their way; a submitter waits when there are more.
const PIECES_MAX: usize = 64;

/// An open submission stream.
pub struct Submission {
    pieces: mpsc::Sender<Result<Bytes, std::convert::Infallible>>,
    lines: Lines,
}

/// What a line of the answer says.
pub enum Answer {
    /// The job of this key is on record.
    Submitted {
        /// Its id.
        job: String,
    },
    /// The job of this key has ended; its `id`, its `tasks` by their states, its `restarts`.
    Ended {
        /// Whose.
        key: String,
        /// The job.
        job: Value,
    },
}

/// The line that submits `job` under `key`.
pub fn line(key: &str, job: &Value, follow: bool) -> Vec<u8> {
    let mut line = json!({ "key": key, "follow": follow, "job": job }).to_string().into_bytes();
    line.push(b'\n');
    line
}

impl Submission {
    /// Opens the stream.
    pub async fn open(client: &Client) -> anyhow::Result<Self> {
        // What is streamed cannot be sent twice.
        client.settle().await?;
        let (pieces, rest) = mpsc::channel(PIECES_MAX);
        let body =
            reqwest::Body::wrap_stream(futures::stream::unfold(
                rest,
                |mut rest| async move { rest.recv().await.map(|piece| (piece, rest)) },
            ));
        let request = client.request(Method::POST, "/v1/submit").header("content-type", "application/x-ndjson").body(body);
        Ok(Self { pieces, lines: client.lines(request).await? })
    }

    /// Sends lines made by [`line()`].
    pub async fn send(&self, lines: Vec<u8>) -> anyhow::Result<()> {
        self.pieces.send(Ok(lines.into())).await.ok().context("the submission stream broke off")
    }

    /// A second sender for another task.
    pub fn sender(&self) -> mpsc::Sender<Result<Bytes, std::convert::Infallible>> {
        self.pieces.clone()
    }

    /// The next answer.
    ///
    /// # Errors
    /// [`Refused`] where a job was refused, and where the stream broke off.
    pub async fn next(&mut self) -> anyhow::Result<Answer> {
        let line = self.lines.next().await.context("the master closed the submission stream")??;
        let key = line["key"].as_str().unwrap_or_default().to_owned();
        if let Some(error) = line.get("error").filter(|error| !error.is_null()) {
            bail!(refusal(error));
        }
        let id = line["id"].as_str().unwrap_or_default().to_owned();
        match line.get("ended") {
            Some(end) if !end.is_null() => {
                let mut job = end.clone();
                job["id"] = json!(id);
                Ok(Answer::Ended { key, job })
            }
            _ => Ok(Answer::Submitted { job: id }),
        }
    }
}

fn refusal(error: &Value) -> Refused {
    let text = |name: &str| error[name].as_str().map(str::to_owned);
    let field = text("field").map(|field| format!("{field}: ")).unwrap_or_default();
    let message = format!("{field}{}", text("message").unwrap_or_else(|| "refused".to_owned()));
    Refused {
        status: StatusCode::UNPROCESSABLE_ENTITY,
        codes: crate::client::codes(error),
        message,
        help: text("help"),
        retry_after_ms: None,
    }
}
