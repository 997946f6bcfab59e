//! Calls of the HTTP API at a chosen master, and what is known of one that did not go well.

use crate::cluster::MASTERS;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// How long a call may take.
const WITHIN: Duration = Duration::from_secs(2);
/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_millis(800);

/// What became of a call.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Done(Value),
    /// It is not, and will not be: it was never sent, or the master says so.
    NotDone(String),
    /// Nobody knows.
    Unknown(String),
    /// The master says that it is wrong.
    Refused(StatusCode, String),
}

impl Outcome {
    /// The answer, where it is done.
    pub fn done(self) -> Option<Value> {
        match self {
            Self::Done(answer) => Some(answer),
            _ => None,
        }
    }
}

/// The way in for clients.
#[derive(Clone, Debug)]
pub struct Api {
    http: Option<reqwest::Client>,
    urls: Vec<String>,
    token: String,
}

impl Api {
    /// Of masters that have not said yet how they are trusted.
    pub fn unknown(urls: Vec<String>) -> Self {
        Self { http: None, urls, token: String::new() }
    }

    /// Trusts them, and is known to them.
    pub fn admit(&mut self, token: &str, ca_pem: &str) {
        protocol::link::install_crypto();
        let root = reqwest::Certificate::from_pem(ca_pem.as_bytes()).unwrap();
        // A connection of HTTP/2 would be used on after what was asked over it went unanswered.
        let builder =
            reqwest::Client::builder().tls_certs_only([root]).no_proxy().http1_only().connect_timeout(CONNECT_WITHIN).timeout(WITHIN);
        (self.http, self.token) = (Some(builder.build().unwrap()), token.to_owned());
    }

    /// Calls `master`, by number less one.
    pub async fn call(&self, master: usize, method: Method, path: &str, body: Option<Value>, key: Option<&str>) -> Outcome {
        let http = self.http.as_ref().unwrap();
        let mut request = http.request(method, format!("{}{path}", self.urls[master])).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        outcome(request).await
    }

    /// Reads from `master`.
    pub async fn get(&self, master: usize, path: &str) -> Outcome {
        self.call(master, Method::GET, path, None, None).await
    }

    /// Reads from whichever master answers.
    pub async fn any(&self, path: &str) -> Option<Value> {
        for master in 0..MASTERS {
            if let Outcome::Done(answer) = self.get(master, path).await {
                return Some(answer);
            }
        }
        None
    }

    /// Uploads a bundle.
    pub async fn upload(&self, bytes: Vec<u8>) -> Option<String> {
        let digest = protocol::Digest::of(&bytes);
        let http = self.http.as_ref().unwrap();
        let request = http.put(format!("{}/v1/bundles/{digest}", self.urls[0])).bearer_auth(&self.token).body(bytes);
        outcome(request.timeout(5 * WITHIN)).await.done().map(|_| format!("sha256:{digest}"))
    }

    /// True where every master says that all are connected, have a vote in all, and that all shards are led.
    pub async fn is_whole(&self) -> bool {
        for master in 0..MASTERS {
            let Outcome::Done(page) = self.get(master, "/v1/masters").await else { return false };
            if !is_whole(&page) {
                return false;
            }
        }
        true
    }

    /// How many agents are reachable.
    pub async fn reachable(&self) -> Option<usize> {
        let page = self.any("/v1/agents").await?;
        Some(page["agents"].as_array()?.iter().filter(|agent| agent["state"] == "reachable").count())
    }
}

fn is_whole(page: &Value) -> bool {
    let rows = |name: &str| page[name].as_array().cloned().unwrap_or_default();
    let (masters, groups) = (rows("masters"), rows("groups"));
    let votes = |group: &Value| group["voters"].as_array().is_some_and(|voters| voters.len() == MASTERS) && !group["leader"].is_null();
    let there = |master: &Value| master["state"] != "away" && !master["lag"].is_null();
    masters.len() == MASTERS && masters.iter().all(there) && !groups.is_empty() && groups.iter().all(votes)
}

async fn outcome(request: reqwest::RequestBuilder) -> Outcome {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Outcome::NotDone(innermost(&error)),
        Err(error) => return Outcome::Unknown(innermost(&error)),
    };
    let status = response.status();
    let bytes = match response.bytes().await {
        Ok(bytes) => bytes,
        Err(error) => return Outcome::Unknown(innermost(&error)),
    };
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if status.is_success() {
        return Outcome::Done(body);
    }
    let error = &body["error"];
    let text = format!("{status}: {}", error["message"].as_str().unwrap_or_default());
    match status {
        _ if error["retry_after_ms"].is_u64() => Outcome::NotDone(text),
        _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => Outcome::Unknown(text),
        _ => Outcome::Refused(status, text),
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
