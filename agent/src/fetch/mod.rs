//! Bundles by digest: fetched over the link, compiled in a process of its own, kept in a cache with a size limit, and checked when they come
//! and before they are used. Knows which of them are here; what they are needed for is the ledger's.

mod files;
mod transfer;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use protocol::link::Connection;
use protocol::{Digest, Metering};
use runtime::container::{self, Store, UnpackError, Wanted};
use runtime::wasm::compile::{self, CompileError, CompileLimits};
use tokio::sync::Semaphore;

use crate::ledger::event::{Form, PrepareError};

pub use files::{Files, Stamp};
pub use transfer::TransferError;

/// Bundles fetched at the same time.
const TRANSFERS_MAX: usize = 4;
/// Bundles that are being prepared or wait for it; what is over is asked for again later.
const ACTIVE_MAX: usize = 1_024;

/// What became of one bundle in one form.
#[derive(Debug)]
pub struct Prepared {
    /// Which.
    pub bundle: Digest,
    /// As what.
    pub form: Form,
    /// Where it is and what its file was, or why it is not.
    result: Result<(PathBuf, Stamp), PrepareError>,
}

/// What follows from a [`Prepared`]: the answer for the ledger, and what was thrown away to make room.
pub type Outcome = (Result<(), PrepareError>, Vec<Digest>);

/// The bundles of this agent.
pub struct Fetcher {
    shared: Arc<Shared>,
    kept: BTreeMap<Digest, Kept>,
    /// Those in work: the form that is being prepared first, then those that wait for it.
    active: BTreeMap<Digest, VecDeque<Form>>,
    uses: u64,
    done: tokio::sync::mpsc::Sender<Prepared>,
}

struct Shared {
    files: Files,
    /// What was unpacked, by the digests of its archives.
    store: Store,
    binary: PathBuf,
    bytes_max: u64,
    transfers: Semaphore,
    compilers: Semaphore,
    /// Of epoch and of fuel metering; found once, since an engine is made for it.
    compatibility: [OnceLock<u64>; 2],
}

/// A bundle that is here.
#[derive(Default)]
struct Kept {
    bytes: u64,
    /// Rises with each use.
    used: u64,
    /// What was found to be right in this process's life.
    ready: BTreeMap<Form, (PathBuf, Stamp)>,
}

impl Fetcher {
    /// The bundles in `dir`, and in `store` what they were unpacked to. What is done is said to `done`. `binary` is the program that has the verb
    /// `compile`.
    ///
    /// # Errors
    /// What the system says of the folder.
    pub fn open(
        dir: &Path,
        key: [u8; 32],
        binary: PathBuf,
        store: Store,
        bytes_max: u64,
        done: tokio::sync::mpsc::Sender<Prepared>,
    ) -> io::Result<Self> {
        let files = Files::open(dir, key)?;
        let mut found = files.list()?;
        found.sort_by_key(|(_, _, modified)| *modified);
        let entries = found.into_iter().zip(1..).map(|((digest, bytes, _), used)| (digest, Kept { bytes, used, ..Kept::default() }));
        let kept: BTreeMap<Digest, Kept> = entries.collect();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shared = Shared {
            files,
            store,
            binary,
            bytes_max,
            transfers: Semaphore::new(TRANSFERS_MAX),
            compilers: Semaphore::new(cores.div_ceil(2)),
            compatibility: [const { OnceLock::new() }; 2],
        };
        let uses = kept.len() as u64;
        Ok(Self { shared: Arc::new(shared), kept, active: BTreeMap::new(), uses, done })
    }

    /// The folders that an executor must be able to read.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        self.shared.files.folders()
    }

    /// Has `bundle` fetched over the first of `links` that gives it, and prepared; a [`Prepared`] follows. Each bundle is fetched once, however many
    /// forms of it are wanted at the same time.
    pub fn prepare(&mut self, bundle: Digest, form: Form, links: Vec<Connection>) {
        if let Some(ready) = self.ready(bundle, form) {
            let done = Prepared { bundle, form, result: Ok(ready) };
            return self.say(done);
        }
        if self.active.len() >= ACTIVE_MAX && !self.active.contains_key(&bundle) {
            let result = Err(PrepareError::Later(format!("{ACTIVE_MAX} bundles are being prepared already")));
            return self.say(Prepared { bundle, form, result });
        }
        let forms = self.active.entry(bundle).or_default();
        if !forms.contains(&form) {
            forms.push_back(form);
        }
        if forms.len() == 1 {
            self.work(bundle, form, links);
        }
    }

    /// Takes in what became of a bundle; `used` says which are waited for or run from and must stay. One that finds no room is thrown away
    /// and may be had later.
    pub fn prepared(&mut self, prepared: Prepared, links: Vec<Connection>, used: impl Fn(Digest) -> bool) -> Outcome {
        let Prepared { bundle, form, result } = prepared;
        if let Some(forms) = self.active.get_mut(&bundle) {
            forms.retain(|waiting| *waiting != form);
            match forms.front().copied() {
                Some(next) => self.work(bundle, next, links),
                None => drop(self.active.remove(&bundle)),
            }
        }
        let bytes = self.shared.files.bytes(bundle).unwrap_or(0);
        self.uses += 1;
        let kept = self.kept.entry(bundle).or_default();
        (kept.bytes, kept.used) = (bytes, self.uses);
        if let Ok(ready) = &result {
            kept.ready.insert(form, ready.clone());
        }
        let evicted = self.make_room(|digest| digest == bundle || used(digest));
        let alone = self.kept.get(&bundle).is_some_and(|kept| kept.ready.len() == 1) && !self.active.contains_key(&bundle);
        if self.total_bytes() > self.shared.bytes_max && result.is_ok() && alone {
            self.remove(bundle); // Nothing was ever started from it: it has become ready only now.
            let reason = format!("the bundles in use fill the cache of {} bytes", self.shared.bytes_max);
            return (Err(PrepareError::Later(reason)), evicted);
        }
        (result.map(|_| ()), evicted)
    }

    /// Where a bundle that was prepared is. None where its file was touched since: it is then forgotten, and to be prepared again.
    pub fn locate(&mut self, bundle: Digest, form: Form) -> Option<PathBuf> {
        self.ready(bundle, form).map(|(path, _)| path)
    }

    /// What a bundle that was prepared became; counts as a use. None where it is to be prepared again.
    pub fn unpacked(&mut self, bundle: Digest, form: Form) -> Option<container::Prepared> {
        self.ready(bundle, form)?;
        self.shared.store.locate(container::Digest(bundle.0), wanted(form)?)
    }

    fn ready(&mut self, bundle: Digest, form: Form) -> Option<(PathBuf, Stamp)> {
        self.uses += 1;
        let kept = self.kept.get_mut(&bundle)?;
        kept.used = self.uses;
        let (path, stamp) = kept.ready.get(&form)?.clone();
        let unpacked = wanted(form).is_none_or(|wanted| self.shared.store.locate(container::Digest(bundle.0), wanted).is_some());
        if unpacked && Stamp::of(&path).is_ok_and(|now| now == stamp) {
            return Some((path, stamp));
        }
        tracing::warn!(path = %path.display(), "a cached file was touched: it is checked again before it is used");
        kept.ready.remove(&form);
        None
    }

    fn say(&self, prepared: Prepared) {
        let done = self.done.clone();
        // The receiver is gone only when the agent ends.
        tokio::spawn(async move { drop(done.send(prepared).await) });
    }

    fn work(&self, bundle: Digest, form: Form, links: Vec<Connection>) {
        let (shared, done) = (Arc::clone(&self.shared), self.done.clone());
        tokio::spawn(async move {
            let result = shared.prepare(bundle, form, &links).await;
            drop(done.send(Prepared { bundle, form, result }).await);
        });
    }

    fn total_bytes(&self) -> u64 {
        self.kept.values().map(|kept| kept.bytes).sum::<u64>() + self.shared.store.bytes()
    }

    fn make_room(&mut self, keep: impl Fn(Digest) -> bool) -> Vec<Digest> {
        let mut evicted = Vec::new();
        if self.total_bytes() <= self.shared.bytes_max {
            return evicted;
        }
        let mut oldest: Vec<(u64, Digest)> = self.kept.iter().map(|(digest, kept)| (kept.used, *digest)).collect();
        oldest.sort_unstable();
        for (_, digest) in oldest {
            // Images share layers: what one of them frees is known only once it is gone.
            if self.total_bytes() <= self.shared.bytes_max {
                break;
            }
            if !keep(digest) && !self.active.contains_key(&digest) {
                self.remove(digest);
                evicted.push(digest);
            }
        }
        evicted
    }

    fn remove(&mut self, bundle: Digest) {
        self.kept.remove(&bundle);
        for wanted in [Wanted::Bundle, Wanted::Image] {
            self.shared.store.remove(container::Digest(bundle.0), wanted);
        }
        if let Err(error) = self.shared.files.remove(bundle) {
            tracing::error!(%bundle, %error, "a bundle could not be removed from the cache");
        }
    }
}

impl Shared {
    async fn prepare(self: &Arc<Self>, bundle: Digest, form: Form, links: &[Connection]) -> Result<(PathBuf, Stamp), PrepareError> {
        let path = match form {
            Form::Plain => {
                self.have_bundle(bundle, links).await?;
                self.files.bundle(bundle)
            }
            Form::Native => self.have_unpacked(bundle, Wanted::Bundle, links).await?,
            Form::Image => self.have_unpacked(bundle, Wanted::Image, links).await?,
            Form::Wasm(metering) => self.have_compiled(bundle, metering, links).await?,
        };
        let stamp = Stamp::of(&path).map_err(|error| later("looking at", &path, &error))?;
        Ok((path, stamp))
    }

    async fn have_compiled(self: &Arc<Self>, bundle: Digest, metering: Metering, links: &[Connection]) -> Result<PathBuf, PrepareError> {
        let kind = if metering == Metering::Fuel { runtime::Metering::Fuel } else { runtime::Metering::Epoch };
        let compatibility = match self.compatibility[usize::from(metering == Metering::Fuel)].get() {
            Some(known) => *known,
            None => {
                let found = blocking(move || compile::compatibility(kind)).await;
                let found = found.map_err(|error| PrepareError::Later(error.to_string()))?;
                *self.compatibility[usize::from(metering == Metering::Fuel)].get_or_init(|| found)
            }
        };
        let path = self.files.compiled(bundle, metering, compatibility);
        let (shared, sealed) = (Arc::clone(self), path.clone());
        let known = blocking(move || shared.files.is_sealed(&sealed)).await;
        if known.map_err(|error| later("reading", &path, &error))? {
            return Ok(path);
        }
        self.have_bundle(bundle, links).await?;
        let _place = self.compilers.acquire().await.expect("the semaphore is never closed");
        let new = path.with_extension("new");
        let compiled = compile::in_process(&self.binary, &self.files.bundle(bundle), &new, kind, CompileLimits::default()).await;
        compiled.map_err(|error| match error {
            CompileError::Refused(_) | CompileError::Limit(_) => PrepareError::Unusable(error.to_string()),
            CompileError::Failed(_) => PrepareError::Later(error.to_string()),
        })?;
        let (shared, sealed) = (Arc::clone(self), path.clone());
        let done = blocking(move || shared.files.seal(&new, &sealed)).await;
        done.map_err(|error| later("sealing", &path, &error))?;
        Ok(path)
    }

    /// Has the bundle unpacked, in a process that is thrown away; gives back where the archive is.
    async fn have_unpacked(self: &Arc<Self>, bundle: Digest, wanted: Wanted, links: &[Connection]) -> Result<PathBuf, PrepareError> {
        self.have_bundle(bundle, links).await?;
        let _place = self.compilers.acquire().await.expect("the semaphore is never closed");
        let archive = self.files.bundle(bundle);
        let unpacked = self.store.prepare(&archive, container::Digest(bundle.0), wanted).await;
        unpacked.map(|_| archive).map_err(|error| match error {
            UnpackError::Refused(_) | UnpackError::Limit(_) => PrepareError::Unusable(error.to_string()),
            UnpackError::Failed(_) => PrepareError::Later(error.to_string()),
        })
    }

    /// Has the bundle here, from the first of `links` that gives it: of several masters one may not have it yet.
    async fn have_bundle(self: &Arc<Self>, bundle: Digest, links: &[Connection]) -> Result<(), PrepareError> {
        let shared = Arc::clone(self);
        let here = blocking(move || shared.files.has_bundle(bundle)).await;
        if here.map_err(|error| later("reading", &self.files.bundle(bundle), &error))? {
            return Ok(());
        }
        let _place = self.transfers.acquire().await.expect("the semaphore is never closed");
        let mut last = PrepareError::Later("there is no connection to a master".into());
        for link in links {
            match self.fetch(bundle, link).await {
                Err(PrepareError::Later(reason)) => {
                    tracing::debug!(remote = %link.remote(), reason, "a master did not give a bundle");
                    last = PrepareError::Later(reason);
                }
                fetched => return fetched,
            }
        }
        Err(last)
    }

    async fn fetch(self: &Arc<Self>, bundle: Digest, link: &Connection) -> Result<(), PrepareError> {
        let part = self.files.part(bundle);
        let came = transfer::fetch(link, bundle, &part, self.bytes_max).await;
        came.map_err(|error| match error {
            TransferError::TooLong { .. } => PrepareError::Unusable(error.to_string()),
            _ => PrepareError::Later(error.to_string()),
        })?;
        let shared = Arc::clone(self);
        let finished = blocking(move || shared.files.finish_part(bundle)).await;
        finished.map_err(|error| later("finishing", &part, &error))?.map_err(|found| {
            tracing::error!(expected = %bundle, %found, "a bundle came that is not what its digest says: it is thrown away");
            PrepareError::Later(format!("bundle {bundle} came with the digest {found}"))
        })
    }
}

/// What a bundle of this form is unpacked as, if it is.
const fn wanted(form: Form) -> Option<Wanted> {
    match form {
        Form::Native => Some(Wanted::Bundle),
        Form::Image => Some(Wanted::Image),
        Form::Plain | Form::Wasm(_) => None,
    }
}

/// Runs what reads or hashes whole files beside the thread that beats.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("reading files does not panic, and nobody cancels it")
}

fn later(step: &str, path: &Path, error: &dyn std::fmt::Display) -> PrepareError {
    PrepareError::Later(format!("{step} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
