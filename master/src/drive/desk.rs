//! One shard on its thread: while this master leads it, what it wants on record, gathered into batches of which one is on its way at a time,
//! and what waits for that.

use crate::journal::{Batch, Fate, Group, JournalError, Member, Recovered};
use crate::shard::{Action, Output, Record, Shard};
use protocol::ShardId;
use std::collections::VecDeque;

/// Records in one batch at most; what is over waits for the next.
const BATCH_RECORDS_MAX: usize = 16_384;
/// Records that wait until the thread takes no further letters: the disk is behind, so those who ask are told to come again.
pub const RECORDS_WAITING_MAX: usize = 65_536;

/// One shard on its thread.
pub struct Desk {
    /// Which.
    pub id: ShardId,
    /// Its journal.
    pub group: Group,
    /// Asked whether it leads.
    member: Member,
    /// There while this master leads it.
    pub lead: Option<Lead>,
    /// Counts how often it began to lead: what was proposed before concerns nobody any more.
    pub reign: u64,
    /// The master that the shard is to be handed over to once nothing waits for the journal; until then nothing is taken in.
    pub next: Option<u64>,
}

/// A shard that is led here.
pub struct Lead {
    /// Itself.
    pub shard: Shard,
    term: u64,
    held: Held,
}

impl Desk {
    /// A shard's place, with its journal.
    pub fn new(id: ShardId, group: Group) -> Self {
        Self { id, member: group.member(), group, lead: None, reign: 0, next: None }
    }

    /// Takes the shard in: this master leads it from now on.
    pub fn begin(&mut self, recovered: Recovered) -> &mut Lead {
        self.reign += 1;
        let Recovered { shard, term, .. } = recovered;
        self.lead.insert(Lead { shard, term, held: Held::default() })
    }

    /// Drops the shard and all that waits for its journal: this master leads it no more. False where it did not.
    pub fn let_go(&mut self) -> bool {
        self.next = None;
        self.lead.take().is_some()
    }

    /// False where another master may lead the shard by now, though it is still here.
    pub fn leads(&self) -> bool {
        self.lead.is_none() || self.member.leads()
    }

    /// Proposes a batch; what is returned also says in which reign it was.
    ///
    /// # Errors
    /// [`JournalError`], also from what is returned.
    pub async fn propose(
        &self,
        batch: Batch,
    ) -> Result<impl Future<Output = (u64, Result<Fate, JournalError>)> + Send + use<>, JournalError> {
        let (reign, proposed) = (self.reign, self.group.propose(batch).await?);
        Ok(async move { (reign, proposed.await) })
    }
}

impl Lead {
    /// Takes what the shard wants; what can be done at once is put behind `due`.
    pub fn sort(&mut self, due: &mut VecDeque<Action>) {
        while let Some(output) = self.shard.poll_output() {
            self.held.sort(output, due);
        }
    }

    /// The next batch to propose; `None` where there is none, or one is on its way.
    pub fn next_batch(&mut self) -> Option<Batch> {
        self.held.next_batch(self.term)
    }

    /// The batch that was on its way is committed; what waited for it is put behind `due`.
    pub fn committed(&mut self, due: &mut VecDeque<Action>) {
        self.held.committed(due);
    }

    /// True where so many records wait that no more letters are to be taken.
    pub fn is_behind(&self) -> bool {
        self.held.records.len() >= RECORDS_WAITING_MAX
    }

    /// True where something waits for the journal.
    pub fn waits(&self) -> bool {
        !self.held.records.is_empty() || self.held.proposed > self.held.committed
    }
}

/// What waits for the journal. Records are counted from 1; an action waits for the last that was made before it.
#[derive(Debug, Default)]
struct Held {
    records: VecDeque<Record>,
    actions: VecDeque<(u64, Action)>,
    made: u64,
    proposed: u64,
    committed: u64,
}

impl Held {
    fn sort(&mut self, output: Output, due: &mut VecDeque<Action>) {
        match output {
            Output::Journal(record) => {
                self.made += 1;
                self.records.push_back(record);
            }
            Output::Now(action) => due.push_back(action),
            // Behind others that wait, even where this one need not: they are in order.
            Output::Held(action) if self.made > self.committed || !self.actions.is_empty() => self.actions.push_back((self.made, action)),
            Output::Held(action) => due.push_back(action),
        }
    }

    fn next_batch(&mut self, term: u64) -> Option<Batch> {
        if self.proposed > self.committed || self.records.is_empty() {
            return None;
        }
        let count = self.records.len().min(BATCH_RECORDS_MAX);
        let records: Vec<Record> = self.records.drain(..count).collect();
        self.proposed += count as u64;
        Some(Batch::encode(term, &records))
    }

    fn committed(&mut self, due: &mut VecDeque<Action>) {
        self.committed = self.proposed;
        while let Some((_, action)) = self.actions.pop_front_if(|(after, _)| *after <= self.committed) {
            due.push_back(action);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Response;
    use protocol::{AgentId, RequestId, Time};

    fn record() -> Output {
        Output::Journal(Record::AgentGone { agent: AgentId(1), at: Time(1) })
    }

    fn reply(id: u64) -> Action {
        Action::Reply { id: RequestId(id), response: Response::Done }
    }

    fn ids(due: &mut VecDeque<Action>) -> Vec<u64> {
        let id = |action| match action {
            Action::Reply { id, .. } => id.0,
            other => panic!("{other:?}"),
        };
        due.drain(..).map(id).collect()
    }

    #[test]
    fn nothing_held_is_done_before_the_records_before_it_are_committed() {
        let (mut held, mut due) = (Held::default(), VecDeque::new());
        for output in [Output::Held(reply(1)), record(), Output::Held(reply(2)), Output::Now(reply(3))] {
            held.sort(output, &mut due);
        }
        assert_eq!(ids(&mut due), [1, 3]);
        assert!(held.next_batch(1).is_some());
        // Made while the first batch is on its way: for the next.
        for output in [Output::Held(reply(4)), record(), Output::Held(reply(5))] {
            held.sort(output, &mut due);
        }
        assert!(due.is_empty() && held.next_batch(1).is_none());
        held.committed(&mut due);
        assert_eq!(ids(&mut due), [2, 4]);
        assert!(held.next_batch(1).is_some());
        held.committed(&mut due);
        assert_eq!(ids(&mut due), [5]);
        held.sort(Output::Held(reply(6)), &mut due);
        assert_eq!(ids(&mut due), [6]);
    }
}
