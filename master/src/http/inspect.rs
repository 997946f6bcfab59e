//! What the bundles that were uploaded are, each looked at once. Knows what was found and keeps it; how to look is `admit`'s.

use super::bundles::Bundles;
use super::error::ApiError;
use crate::admit::bundle::HEAD_BYTES;
use crate::admit::wasm::WASM_BYTES_MAX;
use crate::admit::{Form, JobSpec, Rejection, Verdict, inspect};
use crate::peers::Shelf;
use dashmap::DashMap;
use protocol::Digest;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Most verdicts that are kept; all are forgotten there, and bundles looked at anew.
const VERDICTS_MAX: usize = 4_096;
/// How long a bundle that no master had is not looked for again.
const ABSENT_FOR: Duration = Duration::from_secs(1);
/// Bundles that are looked at at the same time, wasm whole in memory.
const LOOKS_MAX: usize = 2;

/// What was found in the bundles that were looked at; cheap to clone.
#[derive(Clone, Debug)]
pub struct Inspections {
    bundles: Bundles,
    shelf: Shelf,
    /// When no master had them: they are looked for again after a while.
    absent: Arc<DashMap<Digest, Instant>>,
    verdicts: Arc<DashMap<Digest, Verdict>>,
    looks: Arc<Semaphore>,
}

impl Inspections {
    /// Nothing looked at yet.
    pub fn new(bundles: Bundles, shelf: Shelf) -> Self {
        Self { bundles, shelf, absent: Arc::default(), verdicts: Arc::default(), looks: Arc::new(Semaphore::new(LOOKS_MAX)) }
    }

    /// What is known of a bundle: `None` where it was not uploaded. One that was and that nobody looked at is taken for nothing that runs,
    /// which matters to no one but a job that runs it: for that one, `unseen` names it first.
    pub fn verdict(&self, digest: Digest) -> Option<Verdict> {
        let known = self.verdicts.get(&digest).map(|verdict| verdict.clone());
        let unseen = || Verdict { form: Form::Other, wasm: Err(Rejection::NotWasm) };
        known.or_else(|| self.bundles.length(digest).map(|_| unseen()))
    }

    /// The next bundle that has to be looked at before `spec` can be admitted, if there is one.
    pub fn unseen(&self, spec: &JobSpec) -> Option<Digest> {
        let mut programs = spec.tasks.iter().filter_map(|task| task.bundle());
        let is_absent = |digest: &Digest| self.absent.get(digest).is_some_and(|since| since.elapsed() < ABSENT_FOR);
        programs.find(|digest| !self.verdicts.contains_key(digest) && (self.bundles.length(*digest).is_some() || !is_absent(digest)))
    }

    /// Looks at a bundle, fetched from another master where it is missing here, and keeps what it is.
    ///
    /// # Errors
    /// An [`ApiError`] where the file cannot be read.
    pub async fn look(&self, digest: Digest) -> Result<(), ApiError> {
        if self.shelf.ensure(digest).await.is_none() {
            self.absent.retain(|_, since| since.elapsed() < ABSENT_FOR);
            self.absent.insert(digest, Instant::now());
            return Ok(());
        }
        let stopping = |_| ApiError::unavailable("this master is stopping");
        let place = self.looks.acquire().await.map_err(stopping)?;
        let path = self.bundles.path(digest);
        let looked = tokio::task::spawn_blocking(move || {
            let failed = |error| ApiError::internal(format!("cannot read the bundle {}: {error}", path.display()));
            look(&path).map_err(failed)
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

/// What the file is. Of what is no wasm, only the head is read.
fn look(path: &Path) -> io::Result<Verdict> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut content = Vec::new();
    (&mut file).take(HEAD_BYTES as u64).read_to_end(&mut content)?;
    let form = Form::of(&content);
    if form != Form::Wasm {
        return Ok(Verdict { form, wasm: inspect(&content) });
    }
    if bytes > WASM_BYTES_MAX as u64 {
        return Ok(Verdict { form, wasm: Err(Rejection::TooLarge { bytes: usize::try_from(bytes).unwrap_or(usize::MAX) }) });
    }
    file.read_to_end(&mut content)?;
    Ok(Verdict { form, wasm: inspect(&content) })
}
