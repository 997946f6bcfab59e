//! Which master is to lead a shard. Each shard has an order of its own in which masters are asked for ([`order`]), so leaders spread, and only
//! the shards of a master that goes away move. Knows nothing of connections: how fit each master is, the steward says.

use crate::journal::order;
use protocol::ShardId;

/// How fit a master is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It may lead.
    Ready,
    /// It may soon: whoever leads meanwhile goes on, since each hand-over costs all agents of the shard a registration.
    Soon,
    /// It is not reckoned with.
    Away,
}

/// Which of the masters that have a vote is to lead `shard`, which `own` leads; `None` where nothing is to change.
pub fn chosen(shard: ShardId, voters: &[u64], own: u64, fit: impl Fn(u64) -> Fit) -> Option<u64> {
    let must_go = fit(own) == Fit::Away;
    for master in order(shard.0, voters.iter().copied()) {
        match fit(master) {
            Fit::Ready => return (master != own).then_some(master),
            Fit::Soon if !must_go => return None,
            Fit::Soon | Fit::Away => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTERS: [u64; 3] = [1, 4, 9];

    #[test]
    fn a_shard_waits_for_its_first_choice_unless_who_leads_it_cannot_go_on() {
        use Fit::{Away, Ready, Soon};
        let shard = ShardId(3); // In turn 1, 9, 4.
        assert_eq!(order(shard.0, VOTERS), [1, 9, 4]);
        // Who leads; how fit 1, 4 and 9 are; who is to lead.
        let rows: [(u64, [Fit; 3], Option<u64>); 8] = [
            (4, [Ready, Ready, Ready], Some(1)),
            (1, [Ready, Ready, Ready], None),
            (4, [Soon, Ready, Ready], None),
            (4, [Away, Ready, Ready], Some(9)),
            (4, [Away, Ready, Soon], None),
            (1, [Away, Ready, Soon], Some(4)),
            (1, [Away, Soon, Soon], None),
            (4, [Away, Ready, Away], None),
        ];
        for (own, fits, expected) in rows {
            let fit = |master: u64| fits[VOTERS.iter().position(|voter| *voter == master).unwrap()];
            assert_eq!(chosen(shard, &VOTERS, own, fit), expected, "{own} leads, {fits:?}");
        }
    }
}
