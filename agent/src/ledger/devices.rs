//! Which single devices attempts get: those that the master says, unless they are given already; or, where it has not said, those that leave least over.

use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent, Launch};
use protocol::{AttemptId, Given};
use std::collections::BTreeMap;

use super::Ledger;
use super::event::{Output, Record};

/// What was said last of a launch that is to come.
#[derive(Clone, Debug, Default)]
pub(super) struct Awaited {
    /// Of which session, and which launch in it.
    of: (u64, u64),
    given: Vec<Given>,
}

/// The devices of attempts of one launch.
#[derive(Clone, Debug, Default)]
pub(super) struct Devices {
    /// Of those that have any.
    given: Vec<(AttemptId, Given)>,
    /// True where the ledger chose some of them itself.
    chosen: bool,
}

impl Ledger {
    /// The attempts of a launch that comes next have these.
    pub(super) fn devices_said(&mut self, of: (u64, u64), given: Vec<Given>) {
        if of > self.awaited.of && given.len() <= ATTEMPTS_PER_MESSAGE_MAX {
            self.awaited = Awaited { of, given };
        }
    }

    /// What was said of this launch, by attempt; `None` where nothing was.
    pub(super) fn awaited_for(&mut self, launch: &Launch) -> Option<BTreeMap<(u32, u32), Given>> {
        if self.awaited.of != (launch.session, launch.sequence) || self.awaited.given.len() != launch.attempts.len() {
            return None;
        }
        Some(launch.attempts.iter().copied().zip(std::mem::take(&mut self.awaited.given)).collect())
    }

    /// The devices for the attempts of a launch. Takes those out of it that cannot have them, and gives them back.
    pub(super) fn fitting_devices(&self, launch: &mut Launch, said: Option<&BTreeMap<(u32, u32), Given>>) -> (Devices, Vec<(u32, u32)>) {
        let need = &launch.template.resources;
        let mut devices = Devices::default();
        let Some(mut singles) = self.book.singles().filter(|singles| singles.concerns(need)).cloned() else { return (devices, vec![]) };
        let mut misfits = Vec::new();
        let job = launch.job;
        launch.attempts.retain(|attempt| {
            let given = match said.and_then(|said| said.get(attempt)).filter(|given| !given.is_none()) {
                Some(said) => singles.suits(need, said).then(|| said.clone()),
                None => {
                    devices.chosen = true;
                    singles.choose(need)
                }
            };
            let Some(given) = given else {
                misfits.push(*attempt);
                return false;
            };
            singles.hold(need, &given, true);
            devices.given.push((AttemptId::new(job, attempt.0, attempt.1), given));
            true
        });
        (devices, misfits)
    }

    /// Puts the devices of those on record that were taken on; where the master does not know them, tells it.
    pub(super) fn give(&mut self, Devices { mut given, chosen }: Devices) {
        given.retain(|(attempt, _)| self.book.get(*attempt).is_some_and(|entry| entry.given.is_none()));
        if given.is_empty() {
            return;
        }
        self.book.give(&given);
        self.outputs.push_back(Output::Checkpoint(Record::Devices { given: given.clone() }));
        if let Some(own) = self.session.own().filter(|_| chosen) {
            self.send(own, FromAgent::Devices { given });
        }
    }

    /// Says which devices all attempts have that are held.
    pub(super) fn tell_devices(&mut self) {
        let Some(own) = self.session.own() else { return };
        let given: Vec<(AttemptId, Given)> = self.book.given().map(|(attempt, given)| (attempt, given.clone())).collect();
        for part in given.chunks(ATTEMPTS_PER_MESSAGE_MAX) {
            self.send(own, FromAgent::Devices { given: part.to_vec() });
        }
    }
}
