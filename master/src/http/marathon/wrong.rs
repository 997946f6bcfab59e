//! How Marathon says no: a message, what is wrong with an app by its paths, and which deployments are in the way.

use crate::http::error::{ApiError, ProblemBody};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Most things that are said to be wrong with one app.
const FAULTS_MAX: usize = 64;

/// A request that was refused, and why.
#[derive(Clone, Debug)]
pub struct Wrong(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    message: String,
    faults: Vec<Fault>,
    deployments: Vec<String>,
    retry_after_ms: Option<u64>,
}

/// One thing that is wrong with an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as `/container/docker/image`.
    pub path: String,
    /// What, for people.
    pub message: String,
    /// True where it is of another type than it must be.
    pub is_type: bool,
}

/// What is wrong with an app so far.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Something cannot be so.
    pub fn say(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(Fault { path: path.into(), message: message.into(), is_type: false });
    }

    /// Something is of another type than it must be.
    pub fn say_type(&mut self, path: impl Into<String>, expected: &str) {
        self.push(Fault { path: path.into(), message: format!("error.expected.{expected}"), is_type: true });
    }

    fn push(&mut self, fault: Fault) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(fault);
        }
    }

    /// Nothing, or all of it.
    ///
    /// # Errors
    /// [`Wrong`] of status 400 where something is of a wrong type, and else of 422.
    pub fn none(self) -> Result<(), Wrong> {
        if self.0.is_empty() { Ok(()) } else { Err(Wrong::faults(self.0)) }
    }
}

impl Wrong {
    /// With this status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { status, message: message.into(), faults: vec![], deployments: vec![], retry_after_ms: None }))
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The request makes no sense.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// One thing is wrong with what was sent.
    pub fn at(path: &str, message: impl Into<String>) -> Self {
        Self::faults(vec![Fault { path: path.to_owned(), message: message.into(), is_type: false }])
    }

    /// All that is wrong with what was sent.
    pub fn faults(faults: Vec<Fault>) -> Self {
        let is_type = faults.iter().any(|fault| fault.is_type);
        let mut wrong = match is_type {
            true => Self::bad("Invalid JSON"),
            false => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Object is not valid"),
        };
        wrong.0.faults = faults;
        wrong
    }

    /// Something else has to be done first.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// These deployments are in the way.
    pub fn locked(app: &str, deployments: Vec<String>) -> Self {
        let message = format!(
            "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'. ({app})"
        );
        let mut wrong = Self::conflict(message);
        wrong.0.deployments = deployments;
        wrong
    }

    /// The same with what is wrong below a part of what was sent.
    pub fn below(mut self, prefix: &str) -> Self {
        for fault in &mut self.0.faults {
            fault.path.insert_str(0, prefix);
        }
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What is wrong with what was sent.
    pub fn faults_said(&self) -> &[Fault] {
        &self.0.faults
    }

    fn body(&self) -> Value {
        let mut body = json!({ "message": self.0.message });
        if !self.0.faults.is_empty() {
            let mut details: Vec<(&str, Vec<&str>)> = vec![];
            for fault in &self.0.faults {
                match details.iter_mut().find(|(path, _)| *path == fault.path) {
                    Some((_, errors)) => errors.push(&fault.message),
                    None => details.push((&fault.path, vec![&fault.message])),
                }
            }
            body["details"] = details.iter().map(|(path, errors)| json!({ "path": path, "errors": errors })).collect();
        }
        if !self.0.deployments.is_empty() {
            body["deployments"] = self.0.deployments.iter().map(|id| json!({ "id": id })).collect();
        }
        body
    }
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        let mut response = (self.0.status, Json(self.body())).into_response();
        if let Some(ms) = self.0.retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"skep\""));
        }
        response
    }
}

/// Fields of a job, and the parts of an app that they come of. The first that fits is taken.
const PATHS: &[(&str, &str)] = &[
    ("place.constraints.", "/constraints/"),
    ("place", "/constraints"),
    ("resources.cpu", "/cpus"),
    ("resources.memory", "/mem"),
    ("limits.memory", "/mem"),
    ("resources.disk", "/disk"),
    ("resources.devices", "/gpus"),
    ("resources.ports", "/portDefinitions"),
    ("limits.egress", "/networks"),
    ("restart.backoff.first", "/backoffSeconds"),
    ("restart.backoff.factor", "/backoffFactor"),
    ("restart.backoff.max", "/maxLaunchDelaySeconds"),
    ("task.env", "/env"),
    ("task.args", "/args"),
    ("task.command", "/cmd"),
    ("task.mount", "/container/volumes"),
    ("task.user", "/user"),
    ("task.image", "/container/docker/image"),
    ("task.wasm", "/fetch/0/uri"),
    ("task.native", "/fetch/0/uri"),
    ("task.file", "/fetch/0/destPath"),
    ("health", "/healthChecks(0)"),
    ("readiness", "/readinessChecks(0)"),
    ("update.min_healthy", "/upgradeStrategy/minimumHealthCapacity"),
    ("update.max_over", "/upgradeStrategy/maximumOverCapacity"),
    ("service.after", "/dependencies"),
    ("labels", "/labels"),
    ("count", "/instances"),
    ("name", "/id"),
    ("role", "/role"),
];

/// The part of an app that a field of its job comes of.
fn path(field: &str) -> String {
    let found = PATHS.iter().find_map(|(ours, theirs)| Some((theirs, field.strip_prefix(ours)?)));
    match found {
        Some((theirs, rest)) if theirs.ends_with('/') => format!("{theirs}{rest}"),
        Some((theirs, _)) => (*theirs).to_owned(),
        None => "/".to_owned(),
    }
}

impl From<ApiError> for Wrong {
    fn from(error: ApiError) -> Self {
        let (status, body) = (error.status(), error.body());
        let mut wrong = Self::new(status, body.message.clone());
        wrong.0.retry_after_ms = body.retry_after_ms;
        let fault = |problem: &ProblemBody| {
            let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            Fault { path: path(&problem.field), message: format!("{}{help}", problem.message), is_type: false }
        };
        if !body.problems.is_empty() {
            return Self::faults(body.problems.iter().map(fault).collect());
        }
        if body.field.as_deref() == Some("service.after") && status == StatusCode::UNPROCESSABLE_ENTITY {
            return Self::at("/dependencies", body.message.clone());
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_by_its_path_in_the_app() {
        for (field, expected) in [
            ("resources.memory", "/mem"),
            ("place.constraints.2", "/constraints/2"),
            ("task.env", "/env"),
            ("task.image", "/container/docker/image"),
            ("nothing", "/"),
        ] {
            assert_eq!(path(field), expected, "{field}");
        }
        let mut faults = Faults::default();
        faults.say("/id", "a");
        faults.say("/id", "b");
        let wrong = faults.none().unwrap_err().below("/apps(0)");
        assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(wrong.body(), json!({ "message": "Object is not valid", "details": [{ "path": "/apps(0)/id", "errors": ["a", "b"] }] }));
        let mut faults = Faults::default();
        faults.say_type("/id", "jsstring");
        assert_eq!(faults.none().unwrap_err().status(), StatusCode::BAD_REQUEST);
    }
}
