//! The framework's shard: offers for tasks that may not go everywhere. It knows where the other tasks of their job are, on record, and judges last:
//! of what several shards offer at once it takes as many as the rules let.

use super::event::PlacedOffer;
use super::{Record, Shard};
use crate::jobs::placed::Aimed;
use crate::jobs::state::Pick;
use protocol::{JobId, ShardId};
use std::collections::BTreeMap;

impl Shard {
    /// Takes of offers what their lines' tasks may take.
    pub(super) fn take_placed(&mut self, from: ShardId, offers: Vec<PlacedOffer>) {
        let mut by_want: BTreeMap<u64, Vec<PlacedOffer>> = BTreeMap::new();
        for placed in offers {
            if self.hears_offer(from, &placed.offer) {
                by_want.entry(placed.want).or_default().push(placed);
            }
        }
        for (want, offers) in by_want {
            match self.jobs.aimed(want) {
                Aimed::Nobody => offers.iter().for_each(|placed| self.demands.decline(placed.offer.id)),
                Aimed::Any => {
                    for placed in &offers {
                        let picks = self.jobs.pick_placed(want, &self.clipped(&placed.offer));
                        self.take_or_decline(from, &placed.offer, picks);
                    }
                }
                Aimed::Counted(job) if self.jobs.systems.contains(&job) => self.take_everywhere(from, job, &offers),
                Aimed::Counted(job) => self.take_counted(from, job, &offers),
            }
        }
    }

    /// Takes what is offered for those tasks of a system job that wait for its agents.
    fn take_everywhere(&mut self, from: ShardId, job: JobId, offers: &[PlacedOffer]) {
        for PlacedOffer { offer, .. } in offers {
            let picks = self.jobs.pick_at(job, offer.agent, &self.clipped(offer));
            self.take_or_decline(from, offer, picks);
        }
    }

    fn take_counted(&mut self, from: ShardId, job: JobId, offers: &[PlacedOffer]) {
        // Where an agent stands elsewhere than when it was given its last task, its tasks do too.
        for PlacedOffer { offer, stand, .. } in offers {
            if self.jobs.stands_somehow(job, offer.agent) && !self.jobs.stands_so(job, offer.agent, stand) {
                self.commit(Record::AgentStands { id: job, agent: offer.agent, stand: (**stand).clone(), at: self.now });
            }
        }
        let plan: Vec<_> = offers.iter().map(|placed| (&*placed.stand, &placed.offer.resources)).collect();
        let plan = self.jobs.plan(job, &plan);
        for (PlacedOffer { offer, stand, .. }, most) in offers.iter().zip(plan) {
            let mut picks: Vec<Pick> = Vec::new();
            let most = most.min(self.may_place(job));
            if most > 0 {
                picks.extend(Some(self.jobs.pick_counted(job, most)).filter(|pick| !pick.attempts.is_empty()));
            }
            if !picks.is_empty() && !self.jobs.stands_so(job, offer.agent, stand) {
                self.commit(Record::AgentStands { id: job, agent: offer.agent, stand: (**stand).clone(), at: self.now });
            }
            self.take_or_decline(from, offer, picks);
        }
    }
}
