//! A client of `/v1/framework` in one module, over reqwest and base64: subscribes, says calls, and comes back where the connection breaks. `batch.rs` beside it is a
//! scheduler over it.
//!
//! ```ignore
//! let mut framework = Framework::new(cluster, "mine").wanting(vec![wish(3, json!({ "cpu": 0.5, "memory": "64MiB" }))]);
//! while let Some(event) = framework.next().await? {
//!     if let Event::Offers(offers) = event { framework.accept(&offers[..1], vec![task("t", job.clone())]).await?; }
//! }
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long nothing may be heard: a master says something each 15 seconds.
const SILENT: Duration = Duration::from_secs(40);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(20);
/// The wait before another try to subscribe.
const RETRY: Duration = Duration::from_millis(500);
/// How often a call is sent on to another master.
const HOPS: usize = 3;

/// Where the masters are, and who calls.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Follows no redirects: they would lose the token. Knows the cluster's root certificate.
    pub http: Client,
    /// The masters' URLs.
    pub urls: Vec<String>,
    /// The token.
    pub token: String,
}

/// Why something was not done.
#[derive(Debug)]
pub enum Error {
    /// A master said no.
    Refused {
        /// With this status.
        status: StatusCode,
        /// And these words.
        message: String,
    },
    /// A connection broke, or there is none: whether it was done is not known.
    Broken(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { status, message } => write!(f, "{status}: {message}"),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// What a framework is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is subscribed, for the first time or again: whatever was offered before is void. Whoever has tasks asks how they stand.
    Subscribed,
    /// It may take of these.
    Offers(Vec<Offer>),
    /// It may take nothing of these any more.
    Rescinded(Vec<String>),
    /// A task is in another state.
    Update(Update),
    /// Something else, by its name in the API.
    Other(String, Value),
}

/// Resources of one agent.
#[derive(Clone, Debug, Deserialize)]
pub struct Offer {
    /// Its id.
    pub id: String,
    /// The agent's id.
    pub agent: String,
    /// What people call the agent.
    pub name: String,
    /// For which role.
    pub role: String,
    /// How much.
    pub resources: Amounts,
    /// Ports, as ranges of which both ends belong to it.
    #[serde(default)]
    pub ports: Vec<[u16; 2]>,
    /// Facts about the agent.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// Amounts of resources.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// The state of a task.
#[derive(Clone, Debug, Deserialize)]
pub struct Update {
    /// What the framework calls it.
    pub task: String,
    /// `staging`, `running`, `finished`, `failed`, `killed`, `rejected`, `lost`, …
    pub state: String,
    /// Why it is said, for people, where there is more to say.
    pub reason: Option<String>,
    /// To be acknowledged with this.
    pub uuid: Option<String>,
}

impl Update {
    /// True where the task is in this state for good.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self.state.as_str(), "finished" | "failed" | "killed" | "rejected" | "lost")
    }
}

/// So many more tasks that need this much each, in the words of a job file.
#[must_use]
pub fn wish(count: usize, resources: Value) -> Value {
    json!({ "count": count, "resources": resources })
}

/// A task, what it is in the words of a job file.
#[must_use]
pub fn task(name: &str, job: Value) -> Value {
    json!({ "name": name, "job": job })
}

/// A framework.
#[derive(Debug)]
pub struct Framework {
    cluster: Cluster,
    about: Value,
    demand: Vec<Value>,
    id: Option<String>,
    /// While it is subscribed.
    session: Option<Session>,
    tries: usize,
}

#[derive(Debug)]
struct Session {
    answer: reqwest::Response,
    /// What was heard and is no whole line yet.
    heard: Vec<u8>,
    /// The lines behind the one that was given out last.
    waiting: std::collections::VecDeque<Event>,
    stream: String,
    at: String,
}

impl Framework {
    /// One that has not subscribed yet; its tasks go on for a minute without it.
    #[must_use]
    pub fn new(cluster: Cluster, name: &str) -> Self {
        let about = json!({ "name": name, "failover_ms": 60_000 });
        Self { cluster, about, demand: vec![], id: None, session: None, tries: 0 }
    }

    /// The same that wants this from the beginning.
    #[must_use]
    pub fn wanting(mut self, demand: Vec<Value>) -> Self {
        self.demand = demand;
        self
    }

    /// The next thing that it is told: subscribes first, and again where the connection breaks. `None`: the framework is gone.
    ///
    /// # Errors
    /// [`Error::Refused`] where a master will not have it.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            let Some(session) = &mut self.session else {
                match self.subscribe().await {
                    Ok(()) => {}
                    Err(Error::Refused { status, message }) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                        return Err(Error::Refused { status, message });
                    }
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
                self.tries += 1;
                continue;
            };
            match session.next().await {
                Ok(Some(Event::Other(kind, _))) if kind == "error" => return Ok(None),
                Ok(Some(Event::Other(kind, body))) if kind == "subscribed" => {
                    session.stream = body["stream"].as_str().unwrap_or_default().to_owned();
                    self.id = body["id"].as_str().map(str::to_owned);
                    return Ok(Some(Event::Subscribed));
                }
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) | Err(_) => self.session = None,
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(), Error> {
        let mut about = self.about.clone();
        about["demand"] = json!(self.demand);
        if let Some(id) = &self.id {
            about["id"] = json!(id);
        }
        let url = self.cluster.urls[self.tries % self.cluster.urls.len()].clone();
        let (answer, at) = self.cluster.post(&url, &json!({ "subscribe": about }), None).await?;
        self.session = Some(Session { answer, heard: vec![], waiting: [].into(), stream: String::new(), at });
        Ok(())
    }

    /// Says one thing. Where the connection breaks the framework subscribes anew with its next [`Self::next`]: whether it was taken is not known.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn say(&mut self, mut call: Value) -> Result<(), Error> {
        let Some(session) = self.session.as_ref() else { return Err(Error::Broken("it is not subscribed".into())) };
        (call["id"], call["stream"]) = (json!(self.id), json!(session.stream));
        let said = self.cluster.post(&session.at, &call, Some(CALL)).await;
        match said {
            Ok(_) => Ok(()),
            Err(error) => {
                // Not subscribed there any more, too much at once, or nobody leads.
                let over = match &error {
                    Error::Refused { status, .. } => status.is_server_error() || [409, 429].contains(&status.as_u16()),
                    Error::Broken(_) => true,
                };
                if over {
                    self.session = None;
                    return Ok(());
                }
                Err(error)
            }
        }
    }

    /// Wants this from now on, and is shown nothing else; nothing: whatever comes. Each task that is placed counts off.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn want(&mut self, demand: Vec<Value>) -> Result<(), Error> {
        self.demand.clone_from(&demand);
        if self.session.is_none() { Ok(()) } else { self.say(json!({ "demand": demand })).await }
    }

    /// Runs tasks in offers of one agent.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn accept(&mut self, offers: &[Offer], tasks: Vec<Value>) -> Result<(), Error> {
        let offers: Vec<&str> = offers.iter().map(|offer| offer.id.as_str()).collect();
        self.say(json!({ "accept": { "offers": offers, "tasks": tasks } })).await
    }

    /// Wants nothing of these for a while.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn decline(&mut self, offers: &[Offer], refuse_ms: u64) -> Result<(), Error> {
        let offers: Vec<&str> = offers.iter().map(|offer| offer.id.as_str()).collect();
        self.say(json!({ "decline": { "offers": offers, "refuse_ms": refuse_ms } })).await
    }

    /// Says this, at most 64 KiB, to a task: once at most, and lost where it does not run or its agent is away.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn message(&mut self, task: &str, data: &[u8]) -> Result<(), Error> {
        self.say(json!({ "message": { "task": task, "data": STANDARD.encode(data) } })).await
    }

    /// Has taken an update in.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn acknowledge(&mut self, update: &Update) -> Result<(), Error> {
        match &update.uuid {
            Some(uuid) => self.say(json!({ "acknowledge": { "task": update.task, "uuid": uuid } })).await,
            None => Ok(()),
        }
    }
}

impl Session {
    /// The next thing that is told; `None` where the connection has ended.
    async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                let line: BTreeMap<String, Value> = serde_json::from_slice(&line).map_err(|error| Error::Broken(error.to_string()))?;
                for (kind, body) in line {
                    self.waiting.push_back(event(kind, body)?);
                }
            }
            if !self.waiting.is_empty() {
                continue;
            }
            let more = tokio::time::timeout(SILENT, self.answer.chunk()).await;
            match more.map_err(|_| Error::Broken("nothing was heard for long".into()))?? {
                Some(bytes) => self.heard.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

fn event(kind: String, body: Value) -> Result<Event, Error> {
    let strange = |error: serde_json::Error| Error::Broken(error.to_string());
    Ok(match kind.as_str() {
        "offers" => Event::Offers(serde_json::from_value(body).map_err(strange)?),
        "rescinded" => Event::Rescinded(serde_json::from_value(body).map_err(strange)?),
        "update" => Event::Update(serde_json::from_value(body).map_err(strange)?),
        _ => Event::Other(kind, body),
    })
}

impl Cluster {
    /// One call, sent on where another master has to answer; gives back the answer, and who gave it.
    async fn post(&self, url: &str, body: &Value, within: Option<Duration>) -> Result<(reqwest::Response, String), Error> {
        let mut at = format!("{}/v1/framework", url.trim_end_matches("/v1/framework").trim_end_matches('/'));
        for _ in 0..HOPS {
            let mut request = self.http.post(&at).bearer_auth(&self.token).json(body);
            if let Some(within) = within {
                request = request.timeout(within);
            }
            let answer = request.send().await?;
            match answer.status() {
                StatusCode::TEMPORARY_REDIRECT => {
                    let to = answer.headers().get("location").and_then(|value| value.to_str().ok());
                    at = to.ok_or_else(|| Error::Broken("a master sends the call nowhere".into()))?.to_owned();
                }
                status if status.is_success() => return Ok((answer, at)),
                status => return Err(Error::Refused { status, message: answer.text().await.unwrap_or_default() }),
            }
        }
        Err(Error::Broken("the masters send the call around".into()))
    }
}
