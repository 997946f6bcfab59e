//! What the bundles that were uploaded are, each looked at once. Knows what was found and keeps it; how to look is `admit`'s.

use super::bundles::Bundles;
use super::error::ApiError;
use crate::admit::{Inspection, JobSpec, Rejection, Source, inspect};
use dashmap::DashMap;
use protocol::Digest;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most verdicts that are kept; all are forgotten there, and bundles looked at anew.
const VERDICTS_MAX: usize = 4_096;
/// Bundles that are looked at at the same time, each whole in memory.
const LOOKS_MAX: usize = 2;

/// A wasm file that can run, or why it cannot.
pub type Verdict = Result<Inspection, Rejection>;

/// What was found in the bundles that were looked at; cheap to clone.
#[derive(Clone, Debug)]
pub struct Inspections {
    bundles: Bundles,
    verdicts: Arc<DashMap<Digest, Verdict>>,
    looks: Arc<Semaphore>,
}

impl Inspections {
    /// Nothing looked at yet.
    pub fn new(bundles: Bundles) -> Self {
        Self { bundles, verdicts: Arc::default(), looks: Arc::new(Semaphore::new(LOOKS_MAX)) }
    }

    /// What is known of a bundle: `None` where it was not uploaded. One that was and that nobody looked at is taken for no wasm, which
    /// matters to no one but a job that runs it: for that one, `unseen` names it first.
    pub fn verdict(&self, digest: Digest) -> Option<Verdict> {
        let known = self.verdicts.get(&digest).map(|verdict| verdict.clone());
        known.or_else(|| self.bundles.length(digest).map(|_| Err(Rejection::NotWasm)))
    }

    /// The bundle that has to be looked at before `spec` can be admitted, if there is one.
    pub fn unseen(&self, spec: &JobSpec) -> Option<Digest> {
        match spec.task.wasm {
            Some(Source::Bundle(digest)) if !self.verdicts.contains_key(&digest) => self.bundles.length(digest).map(|_| digest),
            _ => None,
        }
    }

    /// Looks at a bundle, and keeps what it is.
    ///
    /// # Errors
    /// An [`ApiError`] where the file cannot be read.
    pub async fn look(&self, digest: Digest) -> Result<(), ApiError> {
        let stopping = |_| ApiError::unavailable("this master is stopping");
        let place = self.looks.acquire().await.map_err(stopping)?;
        let path = self.bundles.path(digest);
        let looked = tokio::task::spawn_blocking(move || match std::fs::read(&path) {
            Ok(bytes) => Ok(inspect(&bytes)),
            Err(error) => Err(ApiError::internal(format!("cannot read the bundle {}: {error}", path.display()))),
        });
        let verdict = looked.await.map_err(|_| ApiError::internal("looking at a bundle failed"))??;
        drop(place);
        if self.verdicts.len() >= VERDICTS_MAX {
            self.verdicts.clear();
        }
        self.verdicts.insert(digest, verdict);
        Ok(())
    }
}
