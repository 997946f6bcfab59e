//! What must be here before attempts can start: bundles asked for, had and waited for.

use protocol::message::Launch;
use protocol::{AttemptId, Digest, Exit, Loss, Program, Template, Time, Usage, task::REASON_BYTES_MAX};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::book::State;
use super::event::{Form, Output, PrepareError, Start};
use super::{Ledger, UPDATES_PENDING_MAX};

/// The wait before a bundle that could not be had is asked for again; doubled each time.
const RETRY_FIRST_MS: u64 = 250;
/// The longest such wait.
const RETRY_MAX_MS: u64 = 10_000;
/// So often a bundle is asked for; then the attempts that wait for it are given back, to be placed elsewhere. About a minute.
const TRIES_MAX: u32 = 10;
/// Most bundles asked for ahead of any launch; what is over is not.
const AHEAD_MAX: usize = 256;

/// A bundle in one form.
pub type Need = (Digest, Form);

/// Attempts of one launch that wait.
#[derive(Clone, Debug)]
struct Batch {
    launch: Arc<Launch>,
    attempts: Vec<(u32, u32)>,
}

#[derive(Clone, Debug)]
struct Want {
    tries: u32,
    /// When it is asked for again; none while an answer is on its way.
    retry_at: Option<Time>,
}

/// What is asked for, had and waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct Bundles {
    ready: BTreeSet<Need>,
    wanted: BTreeMap<Need, Want>,
    waiting: BTreeMap<Vec<Need>, VecDeque<Batch>>,
    /// True where something may be able to start that could not before.
    look: bool,
}

/// The bundles that tasks of this template need: of each member what runs, then what it reads.
pub fn needs(template: &Template) -> impl Iterator<Item = Need> {
    template.members.iter().flat_map(|member| [Some(need(&member.program)), member.stdin.map(|bundle| (bundle, Form::Plain))]).flatten()
}

/// What a program needs.
pub const fn need(program: &Program) -> Need {
    match program {
        Program::Wasm { bundle, metering, .. } => (*bundle, Form::Wasm(*metering)),
        Program::Native { bundle, .. } => (*bundle, Form::Native),
        Program::Image { bundle, .. } => (*bundle, Form::Image),
    }
}

impl Bundles {
    pub fn evicted(&mut self, bundle: Digest) {
        self.ready.retain(|(digest, _)| *digest != bundle);
    }

    pub const fn look_again(&mut self) {
        self.look = true;
    }

    pub fn timeout(&self) -> Option<Time> {
        self.wanted.values().filter_map(|want| want.retry_at).min()
    }

    pub fn ask_all_again(&mut self, now: Time) {
        for want in self.wanted.values_mut().filter(|want| want.retry_at.is_some()) {
            *want = Want { tries: 0, retry_at: Some(now) };
        }
    }
}

impl Ledger {
    /// Attempts that were taken on: they start as soon as all they need is here.
    pub(super) fn wait(&mut self, launch: Arc<Launch>, attempts: Vec<(u32, u32)>) {
        let mut key: Vec<Need> = needs(&launch.template).collect();
        key.sort_unstable();
        key.dedup();
        key.iter().for_each(|need| self.want(*need));
        self.bundles.waiting.entry(key).or_default().push_back(Batch { launch, attempts });
        self.bundles.look = true;
    }

    /// Fetches ahead of a launch. It is not compiled: the message does not say for which metering.
    pub(super) fn prepare_ahead(&mut self, bundle: Digest) {
        if self.bundles.wanted.len() < AHEAD_MAX {
            self.want((bundle, Form::Plain));
        }
    }

    pub(super) fn prepared(&mut self, now: Time, bundle: Digest, form: Form, result: Result<(), PrepareError>) {
        let need = (bundle, form);
        let Some(want) = self.bundles.wanted.get_mut(&need) else { return };
        match result {
            Ok(()) => {
                self.bundles.wanted.remove(&need);
                self.bundles.ready.insert(need);
                self.bundles.look = true;
            }
            Err(PrepareError::Unusable(reason)) => self.give_up(now, need, &Exit::Rejected { reason: shortened(reason, REASON_BYTES_MAX) }),
            Err(PrepareError::Later(_)) if want.tries + 1 >= TRIES_MAX => {
                self.give_up(now, need, &Exit::Lost { reason: Loss::Refused });
            }
            Err(PrepareError::Later(_)) => {
                let wait_ms = (RETRY_FIRST_MS << want.tries).min(RETRY_MAX_MS);
                *want = Want { tries: want.tries + 1, retry_at: Some(now + wait_ms) };
            }
        }
    }

    pub(super) fn ask_again(&mut self, now: Time) {
        for ((bundle, form), want) in &mut self.bundles.wanted {
            if want.retry_at.is_some_and(|at| at <= now) {
                want.retry_at = None;
                self.outputs.push_back(Output::Prepare { bundle: *bundle, form: *form });
            }
        }
    }

    /// Starts what waits for nothing any more, until too many ends wait for their acknowledgement.
    pub(super) fn start_ready(&mut self, now: Time) {
        if !std::mem::take(&mut self.bundles.look) {
            return;
        }
        let lease = self.leases.until().filter(|until| *until > now);
        let Bundles { ready, waiting, .. } = &mut self.bundles;
        for (needs, batches) in waiting.iter_mut() {
            if !needs.iter().all(|need| ready.contains(need)) {
                continue;
            }
            while self.book.ended() < UPDATES_PENDING_MAX {
                let Some(batch) = batches.pop_front() else { break };
                let mut launch = Launch { attempts: Vec::with_capacity(batch.attempts.len()), ..batch.launch.as_ref().clone() };
                let (mut ports, mut given) = (Vec::with_capacity(batch.attempts.len()), Vec::new());
                for (index, number) in batch.attempts {
                    let attempt = AttemptId::new(launch.job, index, number);
                    // One that was killed meanwhile has ended.
                    let Some(entry) = self.book.get(attempt).filter(|entry| entry.state == State::Waiting) else { continue };
                    ports.push(entry.ports.clone());
                    if !launch.template.resources.devices.is_empty() {
                        given.push(entry.given.clone());
                    }
                    launch.attempts.push((index, number));
                    self.book.set(attempt, State::Starting);
                }
                if !launch.attempts.is_empty() {
                    // What is fenced and waits has a lease: it has ended where that is over.
                    let until = lease.filter(|_| launch.template.is_fenced());
                    self.outputs.push_back(Output::Start(Start { launch, ports, given, until }));
                }
            }
        }
        waiting.retain(|_, batches| !batches.is_empty());
    }

    fn want(&mut self, need: Need) {
        if !self.bundles.ready.contains(&need) && !self.bundles.wanted.contains_key(&need) {
            self.bundles.wanted.insert(need, Want { tries: 0, retry_at: None });
            self.outputs.push_back(Output::Prepare { bundle: need.0, form: need.1 });
        }
    }

    /// Ends all attempts that wait for `need`, which cannot be had.
    fn give_up(&mut self, now: Time, need: Need, exit: &Exit) {
        self.bundles.wanted.remove(&need);
        let mut given_up = Vec::new();
        let book = &self.book;
        self.bundles.waiting.retain(|needs, batches| {
            if !needs.contains(&need) {
                return true;
            }
            for batch in batches.drain(..) {
                let ids = batch.attempts.iter().map(|(index, number)| AttemptId::new(batch.launch.job, *index, *number));
                let waiting = ids.filter(|id| book.get(*id).is_some_and(|entry| entry.state == State::Waiting));
                given_up.extend(waiting.map(|id| (id, exit.clone(), Usage::default())));
            }
            false
        });
        self.end(now, given_up);
    }
}

/// At most `bytes_max` bytes of a text, cut between characters.
pub(super) fn shortened(mut reason: String, bytes_max: usize) -> String {
    let mut end = reason.len().min(bytes_max);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}
