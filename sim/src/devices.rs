//! Agents with single devices: which have some, which tasks want parts of one or whole ones, and what must hold (D1): nothing that runs, and nothing
//! that a ledger holds, has of a device more than there is of it; and once all is well, masters hold each attempt to have what its agent gave it.

use crate::check::{Verdict, hold};
use crate::machine::Machine;
use crate::plan::{Bug, Plan};
use crate::random::Random;
use crate::world::World;
use protocol::message::shard_of_agent;
use protocol::{Device, Given, Job, Name, Resources, Singles};
use std::sync::Arc;

/// Of a thousand agents so many have devices, where there are any.
const WITH_DEVICES: u64 = 700;
/// Of a thousand jobs so many want some.
const WANTS: u64 = 400;

fn gpu(milli: u64) -> Device {
    Device { name: Name::new("gpu").expect("a name"), milli }
}

/// The devices of a machine.
#[must_use]
pub fn of_machine(plan: &Plan, number: usize) -> Vec<Device> {
    let mut random = Random::new(plan.seed ^ (0xd1d1 + number as u64));
    let has = plan.devices && random.chance(WITH_DEVICES);
    if has { vec![gpu([500, 1_000, 2_000, 2_000, 3_500, 4_000][random.below(6) as usize])] } else { vec![] }
}

/// As much as one task can have of these.
#[must_use]
pub fn for_one(mut largest: Resources) -> Resources {
    for device in largest.devices.iter_mut().filter(|device| device.milli > 1_000) {
        device.milli -= device.milli % 1_000;
    }
    largest
}

/// Draws which jobs want devices.
pub struct Wants(Option<Random>);

impl Wants {
    /// None of them where agents have none.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self(plan.devices.then(|| Random::new(plan.seed ^ 0xde71)))
    }

    /// Perhaps makes it so.
    pub fn draw(&mut self, job: &mut Job) {
        let Some(random) = self.0.as_mut() else { return };
        if !random.chance(WANTS) {
            return;
        }
        let template = Arc::make_mut(&mut job.template);
        let milli = [100, 300, 500, 600, 1_000, 2_000][random.below(6) as usize];
        template.members[0].resources.devices.push(gpu(milli));
        template.resources = template.members[0].resources.clone();
    }
}

/// Nothing has of a device more than the machine has of it: neither what runs, nor what its ledger holds.
///
/// # Errors
/// The promise that is broken.
pub fn judge(machine: &Machine) -> Verdict {
    let Some(there) = Singles::of(&machine.info.capacity) else { return Ok(()) };
    let mut runs = there.clone();
    for run in machine.runs.values().filter(|run| run.end.is_none()) {
        runs.hold(&run.resources, &run.given, true);
    }
    let ledger = machine.ledger.as_ref().and_then(|ledger| ledger.singles());
    for (whose, singles) in [("runs", Some(&runs)), ("is held", ledger)] {
        for kind in singles.into_iter().flat_map(Singles::kinds) {
            let over = (0..protocol::devices::SINGLES_MAX).find(|at| {
                let size = there.kind(&kind.name).map_or(0, |kind| kind.size(*at));
                kind.held(*at) > size
            });
            hold(over.is_none(), || {
                format!("D1: of {} {over:?} of {} more {whose} than there is: {kind:?}", kind.name, machine.info.name)
            })?;
        }
    }
    Ok(())
}

/// An agent puts on record what its attempts have; with the bug it does not.
#[must_use]
pub fn is_forgotten(bug: Option<Bug>, record: &agent::ledger::event::Record) -> bool {
    bug == Some(Bug::ForgetsDevices) && matches!(record, agent::ledger::event::Record::Devices { .. })
}

impl World {
    /// All has been well for long: whoever leads an agent's shard knows which devices its attempts have.
    pub(crate) fn judge_devices(&self) -> Verdict {
        for (at, machine) in self.machines.iter().enumerate() {
            let shard = usize::from(shard_of_agent(machine.id, self.plan.shards).0);
            // What is said of them is of version 3.
            let leader = self.leader(shard).filter(|leader| self.spoken(at, *leader) >= 3);
            let seat = leader.and_then(|leader| self.masters[leader].seats[shard].as_ref());
            let (Some(seat), Some(ledger)) = (seat, machine.ledger.as_ref()) else { continue };
            let held: Vec<_> = ledger.devices().collect();
            for (attempt, given) in seat.shard.devices_of(machine.id) {
                let own: Option<&Given> = held.iter().find(|(held, _)| *held == attempt).map(|(_, own)| *own);
                hold(own.is_none_or(|own| own == given), || {
                    format!("D1: {attempt} has {own:?} on {} and its shard takes it for {given:?}", machine.info.name)
                })?;
            }
        }
        Ok(())
    }
}
