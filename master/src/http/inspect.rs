//! Whether the bundles of a job are here and can run, looked at once for each digest. Knows what was looked at; how is `admit`'s.

use super::bundles::Bundles;
use super::error::ApiError;
use dashmap::DashMap;
use protocol::{Digest, Job, Program};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most verdicts that are kept; all are forgotten there, and bundles looked at anew.
const VERDICTS_MAX: usize = 4_096;
/// Bundles that are looked at at the same time, each whole in memory.
const LOOKS_MAX: usize = 2;

/// What was found in the bundles that were looked at.
#[derive(Clone, Debug)]
pub struct Inspections {
    bundles: Bundles,
    verdicts: Arc<DashMap<Digest, Result<(), ApiError>>>,
    looks: Arc<Semaphore>,
}

impl Inspections {
    /// Nothing looked at yet.
    pub fn new(bundles: Bundles) -> Self {
        Self { bundles, verdicts: Arc::default(), looks: Arc::new(Semaphore::new(LOOKS_MAX)) }
    }

    /// What is known of the job's program without waiting; `None` where it has to be looked at.
    pub fn known(&self, job: &Job) -> Option<Result<(), ApiError>> {
        let Program::Wasm { bundle, .. } = &job.template.program;
        if let Some(stdin) = job.template.stdin.filter(|stdin| self.bundles.length(*stdin).is_none()) {
            return Some(Err(missing("task.stdin", stdin)));
        }
        self.verdicts.get(bundle).map(|verdict| verdict.clone())
    }

    /// Looks at the job's program, if nobody has yet.
    ///
    /// # Errors
    /// An [`ApiError`] of status 422 where a bundle is missing or cannot run.
    pub async fn check(&self, job: &Job) -> Result<(), ApiError> {
        match self.known(job) {
            Some(verdict) => verdict,
            None => {
                let Program::Wasm { bundle, .. } = &job.template.program;
                self.look(*bundle).await
            }
        }
    }

    /// Looks at a wasm bundle and keeps the verdict.
    ///
    /// # Errors
    /// An [`ApiError`] of status 422 where it is missing or cannot run.
    pub async fn look(&self, digest: Digest) -> Result<(), ApiError> {
        let stopping = |_| ApiError::unavailable("this master is stopping");
        let place = self.looks.acquire().await.map_err(stopping)?;
        let path = self.bundles.path(digest);
        let looked = tokio::task::spawn_blocking(move || match std::fs::read(&path) {
            Ok(bytes) => Ok(inspected(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing("task.wasm", digest)),
            Err(error) => Err(ApiError::internal(format!("cannot read {}: {error}", path.display()))),
        });
        let verdict = looked.await.map_err(|_| ApiError::internal("looking at a bundle failed"))??;
        drop(place);
        if self.verdicts.len() >= VERDICTS_MAX {
            self.verdicts.clear();
        }
        self.verdicts.insert(digest, verdict.clone());
        verdict
    }
}

fn missing(field: &str, digest: Digest) -> ApiError {
    let error = ApiError::unprocessable(field, format!("the bundle sha256:{digest} was not uploaded to this master"));
    error.with_help("skep push FILE")
}

fn inspected(bytes: &[u8]) -> Result<(), ApiError> {
    match bytes.starts_with(b"\0asm") {
        true => Ok(()),
        false => Err(ApiError::unprocessable("task.wasm", "the bundle is no wasm: it does not begin with \\0asm")),
    }
}
