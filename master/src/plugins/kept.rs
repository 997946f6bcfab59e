//! The plug-ins of this master: what is on record, each loaded once; those that order agents are handed to the shards that it leads, those that judge jobs
//! are asked here.

use super::{ASIDE_MS, Admission, Kind, LoadError, Loaded, Loader, Score, Tally};
use crate::drive::Door;
use crate::drive::told::What;
use crate::http::bundles::Bundles;
use crate::peers::Shelf;
use crate::shard::HOME;
use crate::shard::event::{Change, Request, Response};
use crate::shard::plugins::{Place, PlugIn};
use crate::shard::view::{View, Viewed};
use protocol::{Digest, Job, Role};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

/// How long a job waits for one that is being loaded.
const LOADED_WITHIN: Duration = Duration::from_secs(5);
/// The wait before another try to read or load what could not be.
const RETRY: Duration = Duration::from_secs(2);
/// How often at most it is logged that one failed.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What a plug-in says of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is taken.
    Taken,
    /// It is not, for this reason.
    Refused(String),
    /// The plug-in does not answer, and jobs are refused then: why it does not.
    Closed(String),
}

/// A plug-in as this master knows it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What it is for.
    pub place: Place,
    /// What is on record.
    pub plug_in: PlugIn,
    /// Why it is not loaded here, where it is not.
    pub missing: Option<String>,
    /// How it fared here, where it judges jobs.
    pub tally: Tally,
    /// True where it is put aside here.
    pub aside: bool,
}

/// The plug-ins of this master.
#[derive(Debug)]
pub struct PlugIns {
    loader: Option<Arc<dyn Loader>>,
    /// Where compiled code goes.
    dir: PathBuf,
    bundles: Bundles,
    shelf: Shelf,
    door: Door,
    known: Mutex<BTreeMap<Place, Held>>,
    /// Counts changes of `known`.
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct Held {
    plug_in: PlugIn,
    state: State,
    tally: Tally,
    aside_until: Option<Instant>,
    logged: Option<Instant>,
}

#[derive(Clone, Debug)]
enum State {
    Loading,
    Ready(Loaded),
    Broken(String),
}

impl PlugIns {
    /// None yet.
    pub fn new(loader: Option<Arc<dyn Loader>>, dir: PathBuf, shelf: Shelf, bundles: Bundles, door: Door) -> Self {
        Self { loader, dir, bundles, shelf, door, known: Mutex::default(), version: watch::Sender::new(0) }
    }

    /// True where this master can load some.
    pub const fn are_possible(&self) -> bool {
        self.loader.is_some()
    }

    /// Those that are known, and how they fare here.
    pub fn shown(&self) -> Vec<Shown> {
        let now = Instant::now();
        let shown = |(place, held): (&Place, &Held)| Shown {
            place: place.clone(),
            plug_in: held.plug_in.clone(),
            missing: match &held.state {
                State::Loading => Some("it is being loaded".into()),
                State::Broken(reason) => Some(reason.clone()),
                State::Ready(_) => None,
            },
            tally: held.tally.clone(),
            aside: held.aside_until.is_some_and(|until| now < until),
        };
        self.lock().iter().map(shown).collect()
    }

    /// Counts what is known: what a job was judged by is the same while this is.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Whether jobs of this role are judged.
    pub fn judges(&self, role: &Role) -> bool {
        let known = self.lock();
        !known.is_empty() && place_of(&known, Kind::Admission, role).is_some()
    }

    /// What its role's plug-in says of a job; of those that have none, that it is taken.
    pub async fn judge(&self, job: &Job) -> Judged {
        let found = self.found(Kind::Admission, &job.role).await;
        let Some((place, closed, state)) = found else { return Judged::Taken };
        let failure = match state {
            Ok(Loaded::Admission(admission)) => match self.ask(&place, admission, job).await {
                Ok(Ok(())) => return Judged::Taken,
                Ok(Err(reason)) => return Judged::Refused(reason),
                Err(reason) => reason,
            },
            Ok(Loaded::Score(_)) => "it says nothing of jobs".into(),
            Err(reason) => reason,
        };
        if closed { Judged::Closed(failure) } else { Judged::Taken }
    }

    /// The plug-in of a role once it is loaded, or why it does not answer now; and whether it is closed.
    async fn found(&self, kind: Kind, role: &Role) -> Option<(Place, bool, Result<Loaded, String>)> {
        let mut changes = self.version.subscribe();
        let wait = tokio::time::sleep(LOADED_WITHIN);
        tokio::pin!(wait);
        loop {
            {
                let mut known = self.lock();
                let place = place_of(&known, kind, role)?;
                let held = known.get_mut(&place)?;
                let closed = held.plug_in.closed;
                let aside = held.aside_until.is_some_and(|until| Instant::now() < until);
                match &held.state {
                    _ if aside => return Some((place, closed, Err(format!("it failed too often in a row: {}", held.tally.last)))),
                    State::Ready(loaded) => return Some((place, closed, Ok(loaded.clone()))),
                    State::Broken(reason) => return Some((place, closed, Err(reason.clone()))),
                    State::Loading if wait.is_elapsed() => return Some((place, closed, Err("it is being loaded".into()))),
                    State::Loading => {}
                }
            }
            tokio::select! {
                () = &mut wait => {}
                changed = changes.changed() => changed.ok()?,
            }
        }
    }

    async fn ask(&self, place: &Place, admission: Arc<dyn Admission>, job: &Job) -> Result<Result<(), String>, String> {
        let (job, json) = (job.clone(), crate::http::jobs_json::SpecBody::from(job));
        let asked = tokio::task::spawn_blocking(move || {
            let json = serde_json::to_string(&json).map_err(|error| error.to_string())?;
            admission.admit(&job, &json)
        });
        let answer = asked.await.unwrap_or_else(|_| Err("asking it failed".into()));
        self.count(place, answer.as_ref().err().map(String::as_str));
        answer
    }

    fn count(&self, place: &Place, failure: Option<&str>) {
        let mut known = self.lock();
        let Some(held) = known.get_mut(place) else { return };
        if held.tally.count(failure) {
            held.aside_until = Some(Instant::now() + Duration::from_millis(ASIDE_MS));
        }
        if let Some(reason) = failure
            && held.logged.is_none_or(|at| at.elapsed() > LOG_EVERY)
        {
            held.logged = Some(Instant::now());
            tracing::warn!(kind = place.0.text(), reason, failures = held.tally.failures, "a policy did not answer");
        }
    }

    /// Loads a component before it is put on record: what is none is never there.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn try_out(&self, kind: Kind, bundle: Digest) -> Result<(), LoadError> {
        self.load(kind, bundle).await.map(drop)
    }

    async fn load(&self, kind: Kind, bundle: Digest) -> Result<Loaded, LoadError> {
        let loader = self.loader.clone().ok_or_else(|| LoadError::Failed("this master runs no policies".into()))?;
        if self.shelf.ensure(bundle).await.is_none() {
            return Err(LoadError::Failed("no master that can be reached has its component".into()));
        }
        let dir = self.dir.clone();
        let made = tokio::task::spawn_blocking(move || std::fs::create_dir_all(dir)).await;
        made.map_err(|error| error.to_string()).and_then(|made| made.map_err(|error| error.to_string())).map_err(LoadError::Failed)?;
        let compiled = self.dir.join(format!("{}-{bundle}", kind.text()));
        loader.load(kind, self.bundles.path(bundle), compiled).await
    }

    /// Takes what is on record, as shard 0 says.
    ///
    /// # Errors
    /// That it does not answer now.
    pub async fn refresh(&self) -> Result<(), String> {
        let answer = self.door.ask(HOME, Request::View(View::PlugIns)).await.map_err(|busy| busy.to_string())?;
        let on_record = match answer {
            Response::Viewed(viewed) => match *viewed {
                Viewed::PlugIns(view) => view.on_record,
                _ => return Err("a shard answered another question than it was asked".into()),
            },
            Response::Refused(refusal) => return Err(refusal.to_string()),
            _ => return Err("a shard answered another question than it was asked".into()),
        };
        let on_record: BTreeMap<Place, PlugIn> = on_record.into_iter().collect();
        let mut known = self.lock();
        let before = std::mem::take(&mut *known);
        let mut kept: BTreeMap<Place, Held> =
            before.into_iter().filter(|(place, held)| on_record.get(place) == Some(&held.plug_in)).collect();
        for (place, plug_in) in on_record {
            let fresh = || Held { plug_in, state: State::Loading, tally: Tally::default(), aside_until: None, logged: None };
            kept.entry(place).or_insert_with(fresh);
        }
        *known = kept;
        drop(known);
        self.version.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Loads what is not loaded, and hands what orders agents to the shards. True where something is still missing.
    pub async fn load_all(&self) -> bool {
        let unloaded = |(place, held): (&Place, &Held)| match held.state {
            State::Ready(_) => None,
            State::Loading | State::Broken(_) => Some((place.clone(), held.plug_in.clone())),
        };
        let missing: Vec<(Place, PlugIn)> = self.lock().iter().filter_map(unloaded).collect();
        let mut left = false;
        for (place, plug_in) in missing {
            let state = match self.load(place.0, plug_in.bundle).await {
                Ok(loaded) => State::Ready(loaded),
                Err(error) => {
                    tracing::warn!(kind = place.0.text(), bundle = %plug_in.bundle, %error, "a policy cannot be loaded");
                    // What is none of its kind is none the next time.
                    left |= matches!(error, LoadError::Failed(_));
                    State::Broken(error.to_string())
                }
            };
            if let Some(held) = self.lock().get_mut(&place).filter(|held| held.plug_in == plug_in) {
                held.state = state;
            }
        }
        let scores = |(place, held): (&Place, &Held)| match (&held.state, place) {
            (State::Ready(Loaded::Score(score)), (Kind::Score, role)) => Some((role.clone(), Arc::clone(score))),
            _ => None,
        };
        let map: BTreeMap<Option<Role>, Arc<dyn Score>> = self.lock().iter().filter_map(scores).collect();
        self.door.plug_in(map);
        self.version.send_modify(|version| *version += 1);
        left
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Held>> {
        // Nothing inside the lock can panic half way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose plug-in judges a role: its own, or else that of the next which it is below, or else that of all.
fn place_of(known: &BTreeMap<Place, Held>, kind: Kind, role: &Role) -> Option<Place> {
    let places = role.and_above().map(|role| (kind, Some(role))).chain([(kind, None)]);
    places.into_iter().find(|place| known.contains_key(place))
}

/// Keeps the plug-ins as they are on record, for as long as somebody holds them.
pub async fn keep(plug_ins: Weak<PlugIns>, door: Door) {
    let mut changes = door.changes();
    let (mut unread, mut unloaded) = (true, true);
    loop {
        if unread || unloaded {
            let Some(plug_ins) = plug_ins.upgrade() else { return };
            if unread {
                unread = plug_ins.refresh().await.is_err();
            }
            if !unread {
                unloaded = plug_ins.load_all().await;
            }
        }
        let changed = tokio::select! {
            changed = changes.recv() => changed,
            () = tokio::time::sleep(RETRY), if unread || unloaded => continue,
        };
        match changed {
            Ok(told) => unread |= matches!(told.what, What::Change(Change::PlugIns) | What::Led(HOME)),
            Err(RecvError::Lagged(_)) => unread = true,
            Err(RecvError::Closed) => return,
        }
        unloaded |= unread;
    }
}
