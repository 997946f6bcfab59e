//! Jobs whose tasks may not go everywhere: which a part of the seeds has, and whether what is staged is as they say. Judged by what is on record
//! alone, in its order. Groups are left out: they are even when an entry is whole, not between its records.

use crate::random::Random;
use master::shard::{Event, PeerMessage, Record};
use protocol::{AgentId, Constraint, Field, Job, JobId, Placement, Rule, Stand, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many racks machines stand in.
const RACKS: usize = 3;

/// The rack of a machine.
#[must_use]
pub fn rack(number: usize) -> String {
    format!("r{}", number % RACKS)
}

/// A placement, for some jobs.
pub fn draw(random: &mut Random) -> Option<Arc<Placement>> {
    let rule = |field: &str, rule| vec![Constraint { field: Field::named(field), rule }];
    let mut place = Placement::default();
    match random.below(10) {
        0 => place.constraints = rule("hostname", Rule::Unique),
        1 => place.constraints = rule("rack", Rule::MaxPer(random.between(1, 3) as u32)),
        2 => place.constraints = rule("rack", Rule::Is(rack(random.below(RACKS as u64) as usize))),
        3 => place.constraints = rule("rack", Rule::Cluster(None)),
        4 => place.constraints = rule("rack", Rule::GroupBy(2)),
        5 => place.spread = vec![Field::Rack],
        _ => return None,
    }
    Some(Arc::new(place))
}

/// Lets the agents of offers stand where no other does.
pub fn misplace(event: &mut Event) {
    if let Event::Peer { message: PeerMessage::OffersPlaced { offers }, .. } = event {
        for placed in offers {
            let nowhere = format!("nowhere-{}", placed.offer.id.number);
            let mut stand = Stand { name: nowhere.clone(), ..Stand::default() };
            stand.domain.rack = nowhere;
            placed.stand = Arc::new(stand);
        }
    }
}

/// How agents stand, as they said when they registered.
#[derive(Default)]
pub struct Places {
    stands: BTreeMap<AgentId, Stand>,
}

impl Places {
    /// A record was made.
    pub fn note(&mut self, record: &Record) {
        if let Record::AgentSeen { agent, info, .. } = record {
            self.stands.insert(*agent, Stand::from(info));
        }
    }

    /// A task of a job was staged on an agent, among those that live: itself too.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn holds(&self, jobs: &BTreeMap<JobId, Job>, live: &BTreeMap<TaskId, (u32, AgentId)>, task: TaskId) -> Result<(), String> {
        crate::system::alone(jobs, live, task)?;
        let Some(place) = jobs.get(&task.job).and_then(|job| job.place.as_ref()) else { return Ok(()) };
        let agent = |task: &TaskId| live.get(task).and_then(|(_, agent)| self.stands.get(agent));
        let Some(stand) = agent(&task) else { return Err(format!("{task} was staged on an agent that nobody knows")) };
        let others = || live.range(TaskId { index: 0, ..task }..=TaskId { index: u32::MAX, ..task }).map(|(other, _)| other);
        for constraint in &place.constraints {
            let value = constraint.field.of(stand);
            let same = others().filter(|other| agent(other).and_then(|stand| constraint.field.of(stand)) == value).count();
            let good = match &constraint.rule {
                Rule::Unique => same == 1,
                Rule::MaxPer(most) => same <= *most as usize,
                Rule::Cluster(None) => same == others().count(),
                Rule::Is(wanted) => value == Some(wanted.as_str()),
                _ => true,
            };
            if !good {
                return Err(format!("{task} was staged at {value:?} with {same} of its job there, against {constraint}"));
            }
        }
        Ok(())
    }
}
