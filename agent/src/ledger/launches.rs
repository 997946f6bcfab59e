//! What a launch does: which of its attempts are taken on, which refused, which passed over.

use protocol::job::COUNT_MAX;
use protocol::job::number_of;
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent, Launch};
use protocol::{AttemptId, Time};
use std::sync::Arc;

use super::book::State;
use super::devices::Devices;
use super::event::{Output, Record};
use super::{ATTEMPTS_HELD_MAX, Ledger};

impl Ledger {
    pub(super) fn launch(&mut self, now: Time, mut launch: Launch) {
        if !self.session.advance(launch.session, launch.sequence) {
            self.counts.stale += 1;
            return;
        }
        if launch.job.shard().0 >= self.session.shards().unwrap_or(0) {
            return; // There is no shard to answer to.
        }
        if let Some(reason) = malformed(&launch) {
            launch.attempts.truncate(ATTEMPTS_PER_MESSAGE_MAX);
            let attempts = std::mem::take(&mut launch.attempts);
            self.refuse(&launch, &attempts, reason);
            return;
        }
        let said = self.awaited_for(&launch);
        self.pass_over_known(now, &mut launch);
        let (devices, misfits) = self.fitting_devices(&mut launch, said.as_ref());
        if !misfits.is_empty() {
            self.refuse(&launch, &misfits, "no single devices are free for it, or not those that the master says".into());
        }
        let ports = self.fitting_ports(&launch);
        let refused = launch.attempts.split_off(ports.len());
        if !launch.attempts.is_empty() {
            self.take(now, launch.clone(), ports, devices);
        }
        if !refused.is_empty() {
            let short = self.book.free().short_of(&launch.template.resources);
            let short: Vec<String> = short.iter().map(ToString::to_string).collect();
            let reason = if short.is_empty() { "too many attempts are held".to_owned() } else { format!("short of {}", short.join(", ")) };
            self.refuse(&launch, &refused, reason);
        }
    }

    /// Takes out what was ever taken on, and tells again what is still held of it: whoever launches it twice did not hear.
    fn pass_over_known(&mut self, now: Time, launch: &mut Launch) {
        if launch.attempts.windows(2).any(|pair| pair[0] >= pair[1]) {
            launch.attempts.sort_unstable();
            launch.attempts.dedup();
        }
        let mut held = Vec::new();
        let (job, before) = (launch.job, launch.attempts.len());
        launch.attempts.retain(|(index, number)| {
            let attempt = AttemptId::new(job, *index, *number);
            let known = self.book.knows(attempt);
            if known && self.book.get(attempt).is_some() {
                held.push(attempt);
            }
            !known
        });
        self.counts.repeated += (before - launch.attempts.len()) as u64;
        self.tell_later(now, held);
    }

    /// The ports of as many of the attempts, the first ones, as there is room for.
    fn fitting_ports(&mut self, launch: &Launch) -> Vec<Vec<u16>> {
        let need = &launch.template.resources;
        let most = launch.attempts.len().min(ATTEMPTS_HELD_MAX - self.book.held().min(ATTEMPTS_HELD_MAX));
        let fit = self.book.free().times(need, u32::try_from(most).expect("ATTEMPTS_HELD_MAX fits"));
        let mut ports = Vec::with_capacity(fit as usize);
        let wanted: Vec<Option<u16>> = launch.template.ports().map(number_of).collect();
        for _ in 0..fit {
            // Fewer than the capacity says only after it was changed while tasks ran, or where one is wanted by its number that is given.
            let Some(next) = self.book.take_ports(&wanted) else { break };
            ports.push(next);
        }
        ports
    }

    fn take(&mut self, now: Time, launch: Launch, ports: Vec<Vec<u16>>, devices: Devices) {
        self.book.take(&launch, &ports, &State::Waiting);
        let attempts = launch.attempts.clone();
        let ids = attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number)).collect();
        self.counts.taken += attempts.len() as u64;
        let shared = Arc::new(Launch { attempts: Vec::new(), ..launch.clone() });
        self.outputs.push_back(Output::Checkpoint(Record::Taken { launch, ports }));
        self.give(devices);
        self.wait(shared, attempts);
        self.tell_later(now, ids);
    }

    fn refuse(&mut self, launch: &Launch, attempts: &[(u32, u32)], reason: String) {
        self.counts.refused += attempts.len() as u64;
        let attempts = attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number)).collect();
        self.send(launch.job.shard(), FromAgent::Refused { attempts, reason });
    }
}

/// Why no agent could take this launch.
fn malformed(launch: &Launch) -> Option<String> {
    if launch.attempts.len() > ATTEMPTS_PER_MESSAGE_MAX {
        Some("too many attempts in one launch".into())
    } else if launch.template.is_fenced() && launch.attempts.len() > 1 {
        Some("a fenced job has one task".into())
    } else if let Err(error) = launch.template.check() {
        Some(error.to_string())
    } else if launch.attempts.iter().any(|(index, number)| *number == 0 || *index >= COUNT_MAX) {
        Some("attempts are numbered from 1, and tasks are not so many".into())
    } else {
        None
    }
}
