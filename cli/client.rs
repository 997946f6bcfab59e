//! One connection to a cluster's API: where it is, as whom, and requests with errors that say whose move it is. Knows no verb.

use crate::args::Reach;
use anyhow::Context;
use futures::{Stream, StreamExt};
use reqwest::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What `skep up` leaves for other commands, readable by its user alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Access {
    /// The cluster's URL; of several masters each, with commas between them.
    pub url: String,
    /// An admin token.
    pub token: String,
    /// The cluster's root certificate.
    pub ca_pem: String,
}

/// Where `skep up` keeps its cluster unless told otherwise: as root where the users of agents and executors reach it.
pub fn home() -> PathBuf {
    let base = std::env::var_os("SKEP_HOME").map(PathBuf::from);
    let usual = || match std::env::var_os("HOME") {
        _ if rustix::process::geteuid().is_root() => "/var/lib/skep".into(),
        Some(home) => PathBuf::from(home).join(".skep"),
        None => ".skep".into(),
    };
    base.unwrap_or_else(usual).join("dev")
}

/// The file that holds [`Access`] below a data folder.
pub const ACCESS_FILE: &str = "client.json";

impl Access {
    /// What the flags and the environment say, filled up with what `skep up` wrote.
    pub fn find(reach: &Reach) -> anyhow::Result<Self> {
        let file = home().join(ACCESS_FILE);
        let written = std::fs::read(&file).ok().map(|bytes| serde_json::from_slice::<Self>(&bytes)).transpose();
        let written = written.with_context(|| format!("reading {}", file.display()))?;
        let missing = |what: &str| {
            format!(
                "no cluster is known here: there is no {what}\nhelp: start one with `skep up`, or give --master URL --token TOKEN --ca FILE"
            )
        };
        let ca_pem = match &reach.ca {
            Some(path) => Some(std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?),
            None => None,
        };
        let pick = |given: Option<String>, kept: Option<String>, what: &str| given.or(kept).with_context(|| missing(what));
        Ok(Self {
            url: pick(reach.master.clone(), written.as_ref().map(|access| access.url.clone()), "URL")?.trim_end_matches('/').to_owned(),
            token: pick(reach.token.clone(), written.as_ref().map(|access| access.token.clone()), "token")?,
            ca_pem: pick(ca_pem, written.as_ref().map(|access| access.ca_pem.clone()), "root certificate")?,
        })
    }

    /// Writes it below `data`, for its user alone.
    pub fn save(&self, data: &Path) -> anyhow::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = data.join(ACCESS_FILE);
        let _ = std::fs::remove_file(&path);
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(|| path.display().to_string())?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

/// A request that the cluster refused, with its own words.
#[derive(Debug, thiserror::Error)]
#[error("{message}{}", help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default())]
pub struct Refused {
    /// The HTTP status.
    pub status: StatusCode,
    /// Words for programs: the error's own, then those of its problems.
    pub codes: Vec<String>,
    /// What was wrong.
    pub message: String,
    /// What would mend it.
    pub help: Option<String>,
    /// When it makes sense to ask again; then nothing was done.
    pub retry_after_ms: Option<u64>,
}

/// A client of one cluster.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    access: Access,
    /// Which of the masters is called, counted on where one does not answer.
    chosen: Arc<AtomicUsize>,
}

/// How long another master is tried, or the same again, before it is given up.
const RETRY_WITHIN: Duration = Duration::from_secs(10);
/// The wait between two tries.
pub const RETRY_WAIT: Duration = Duration::from_millis(100);

impl Refused {
    /// True where the same may be answered otherwise when another leads, or fewer ask; `harmless`: it may be asked again though it may have been
    /// done.
    pub fn may_pass(&self, harmless: bool) -> bool {
        let unknown = || self.codes.iter().any(|code| code == "unknown");
        let is_away = self.status == StatusCode::SERVICE_UNAVAILABLE && (self.retry_after_ms.is_some() || harmless && unknown());
        is_away || self.is_busy()
    }

    /// True where too many ask: nothing was done.
    fn is_busy(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS && self.retry_after_ms.is_some()
    }
}

async fn refused(response: Response) -> Refused {
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let error = &value["error"];
    let text = |name: &str| error[name].as_str().map(str::to_owned);
    let message = text("message").unwrap_or_else(|| format!("the master answered {status}"));
    let field = text("field").filter(|field| !message.contains(field.as_str())).map(|field| format!("{field}: ")).unwrap_or_default();
    let retry_after_ms = error["retry_after_ms"].as_u64();
    Refused { status, codes: codes(error), message: format!("{field}{message}"), help: text("help"), retry_after_ms }
}

/// Lines of a streamed answer, each a JSON value.
pub type Lines = Pin<Box<dyn Stream<Item = anyhow::Result<Value>> + Send>>;

impl Client {
    /// A client that trusts the cluster's root alone. Connects at the first request.
    pub fn new(access: Access) -> anyhow::Result<Self> {
        protocol::link::install_crypto();
        let root = reqwest::Certificate::from_pem(access.ca_pem.as_bytes()).context("the cluster's root certificate")?;
        let http = reqwest::Client::builder()
            .tls_certs_only([root])
            .no_proxy()
            .tcp_nodelay(true)
            .http2_initial_stream_window_size(4 << 20)
            .http2_initial_connection_window_size(16 << 20)
            .build()?;
        Ok(Self { http, access, chosen: Arc::default() })
    }

    /// The client that flags, environment and `skep up` say.
    pub fn find(reach: &Reach) -> anyhow::Result<Self> {
        Self::new(Access::find(reach)?)
    }

    /// Where and as whom it calls.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// A request for `path`, which begins with a slash, to the master that answered last.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url())).bearer_auth(&self.access.token)
    }

    /// Where it calls now: of several masters, the one that answered last.
    pub fn url(&self) -> &str {
        let urls: Vec<&str> = self.access.url.split(',').map(|url| url.trim_end_matches('/')).collect();
        urls[self.chosen.load(Ordering::Relaxed) % urls.len()]
    }

    /// Finds a master that answers, for a request that cannot be sent twice.
    pub async fn settle(&self) -> anyhow::Result<()> {
        if self.has_several() {
            self.get("/v1/status").await?;
        }
        Ok(())
    }

    /// Sends `request`; to another master where the first cannot be reached, and again where no master leads what is asked for now. What does no
    /// harm when it is done twice is also sent again where nobody knows whether it was done.
    ///
    /// # Errors
    /// [`Refused`] where the cluster says no.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        let until = Instant::now() + RETRY_WITHIN;
        let mut request = request.build()?;
        let harmless = *request.method() == Method::GET || *request.method() == Method::PUT;
        loop {
            let again = request.try_clone();
            let mut wait = RETRY_WAIT;
            let error = match self.http.execute(request).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => match refused(response).await {
                    error if error.may_pass(harmless) => {
                        wait = if error.is_busy() { error.retry_after_ms.map_or(wait, Duration::from_millis) } else { wait };
                        error.into()
                    }
                    error => return Err(error.into()),
                },
                // It was not sent: it can be sent elsewhere.
                Err(error) if harmless || error.is_connect() => self.unreachable(&error),
                Err(error) => return Err(self.unreachable(&error)),
            };
            let several = self.has_several() || error.is::<Refused>();
            let Some(mut next) = again.filter(|_| several && Instant::now() < until) else { return Err(error) };
            let before = self.url().to_owned();
            self.chosen.fetch_add(1, Ordering::Relaxed);
            if let Some(rest) = next.url().as_str().strip_prefix(&before) {
                *next.url_mut() = format!("{}{rest}", self.url()).parse()?;
            }
            tokio::time::sleep(wait).await;
            request = next;
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        anyhow::anyhow!("calling {}: {cause}\nhelp: is the cluster up? `skep up` starts one here", self.access.url)
    }

    /// The JSON answer to a GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let until = Instant::now() + RETRY_WITHIN;
        loop {
            match self.send(self.request(Method::GET, path)).await?.json().await {
                // Its master went away while it answered.
                Err(error) if !error.is_decode() && self.has_several() && Instant::now() < until => {}
                answer => return Ok(answer?),
            }
        }
    }

    /// True where there is more than one master to ask.
    fn has_several(&self) -> bool {
        self.access.url.contains(',')
    }

    /// The JSON answer to `method` with a JSON body.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let response = self.send(self.request(method, path).json(body)).await?;
        let bytes = response.bytes().await?;
        Ok(if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? })
    }

    /// The lines of a streamed answer.
    pub async fn lines(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Lines> {
        let response = self.send(request).await?;
        let mut kept: Vec<u8> = vec![];
        let pieces = response.bytes_stream().map(Some).chain(futures::stream::iter([None]));
        let lines = pieces.flat_map(move |piece| {
            let found: Vec<anyhow::Result<Value>> = match piece {
                Some(Ok(bytes)) => whole_lines(&mut kept, &bytes),
                Some(Err(error)) => vec![Err(anyhow::Error::from(error).context("the answer broke off"))],
                None if kept.is_empty() => vec![],
                None => vec![serde_json::from_slice(&kept).context("the answer broke off")],
            };
            futures::stream::iter(found)
        });
        Ok(Box::pin(lines))
    }
}

/// The words for programs of an error's body.
pub fn codes(error: &Value) -> Vec<String> {
    let problems = error["problems"].as_array().into_iter().flatten();
    [error].into_iter().chain(problems).filter_map(|error| error["code"].as_str().map(str::to_owned)).collect()
}

fn whole_lines(kept: &mut Vec<u8>, bytes: &[u8]) -> Vec<anyhow::Result<Value>> {
    kept.extend_from_slice(bytes);
    let Some(end) = kept.iter().rposition(|byte| *byte == b'\n') else { return vec![] };
    let rest = kept.split_off(end + 1);
    let whole = std::mem::replace(kept, rest);
    let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a line of the answer is no JSON")).collect()
}
