//! Who the masters are, and which of them leads what: keeps every group's members what shard 0 has on record, has new masters fill up before
//! they get a vote, spreads the leaders over the masters that agents can reach, and hands them over when this master ends.

use super::MasterConfig;
use super::choice::{Fit, chosen};
use super::door::Door;
use super::inbox::Letter;
use super::routes::Route;
use crate::journal::{Standing, order};
use crate::peers::message::Said;
use crate::peers::{Peer, Peers};
use crate::shard::HOME;
use crate::shard::event::{Change, Master, MasterRequest};
use crate::shard::view::{View, Viewed};
use crate::shard::{Refusal, Request, Response};
use protocol::ShardId;
use protocol::message::FromMaster;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Most masters with a vote: more would make each commit slower, and no cluster safer.
pub const VOTERS_MAX: usize = 5;
/// How often is looked whether all is as it should be.
const LOOK: Duration = Duration::from_secs(1);
/// How often where there is one master and its groups are its own: it hears at once of one that joins.
const LOOK_ALONE: Duration = Duration::from_secs(30);
/// How long a master must have been connected before it is given shards to lead: one that comes and goes gets none.
const SETTLED: Duration = Duration::from_secs(3);
/// How long a master must have been away until its shards are dealt out to the others: most are only started again.
const AWAY: Duration = Duration::from_secs(10);
/// A master is given shards where it hears so much of the agents that the best of the masters hears, in percent.
const HEARS_MOST_PERCENT: u64 = 90;
/// It hands over what it leads where it hears less than so much of them.
const HEARS_ENOUGH_PERCENT: u64 = 50;
/// Fewer agents than this say nothing of who can be reached.
const AGENTS_MIN: u32 = 4;
/// How long handing over all that is led may take when a master ends.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// Where a master is, as others are to reach it.
pub fn advertised(config: &MasterConfig, number: u16, quic: SocketAddr, http: SocketAddr) -> Master {
    let quic = config.quic_advertised.clone().unwrap_or_else(|| quic.to_string());
    let http = config.http_advertised.clone().unwrap_or_else(|| format!("https://{http}"));
    Master { number, quic, http }
}

/// Where agents find the masters.
pub fn addresses(peers: &Peers) -> Vec<String> {
    let mut masters: Vec<Master> = peers.all().iter().map(|peer| peer.master()).collect();
    masters.push(peers.own());
    masters.sort_by_key(|master| master.number);
    masters.into_iter().map(|master| master.quic).collect()
}

/// Sees to it for as long as this master runs.
pub async fn run(door: Door) {
    let mut changes = door.changes();
    let mut steward = Steward { door, said: Vec::new(), connected: BTreeMap::new(), removed: false, whole: false };
    loop {
        let introduced = steward.look().await;
        let next = match introduced {
            true if steward.is_alone() => LOOK_ALONE,
            true => LOOK,
            false => LOOK / 4,
        };
        let deadline = Instant::now() + next;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => break,
                changed = changes.recv() => match changed {
                    Ok(told) if matches!(told.change(), Some(Change::Masters)) => break,
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                    _ => {}
                },
            }
        }
    }
}

struct Steward {
    door: Door,
    /// Where agents were last told that masters are.
    said: Vec<String>,
    /// Whether each other master is connected, and since when that is so.
    connected: BTreeMap<u64, (bool, Instant)>,
    /// True where it was said that this master was removed.
    removed: bool,
    /// True where the groups that this master leads had the members that they are to have.
    whole: bool,
}

impl Steward {
    /// True where there is nobody to look after.
    fn is_alone(&self) -> bool {
        self.whole && self.door.peers().all().is_empty()
    }

    /// Looks once; false where shard 0 could not be asked.
    async fn look(&mut self) -> bool {
        let agents = self.door.agents().count();
        self.door.peers().tell_all(|| Said::Agents(agents));
        let own = self.door.peers().own();
        let seen = self.door.ask(HOME, Request::Master(MasterRequest::Seen(own.clone()))).await;
        let removed = matches!(seen, Ok(Response::Refused(Refusal::NotFound { .. })));
        if removed && !self.removed {
            tracing::error!(number = own.number, "this master was removed from the cluster: it decides nothing any more, and may be ended");
        }
        self.removed = removed;
        let Some(masters) = self.masters().await else { return false };
        let peers = Arc::clone(self.door.peers());
        peers.replace(&masters);
        let addresses = addresses(&peers);
        if addresses != self.said {
            self.door.agents().tell_all(ShardId(0), &FromMaster::Masters { addresses: addresses.clone() });
            self.said = addresses;
        }
        self.note_connected();
        let voters = voters(&masters);
        let wanted: BTreeMap<u64, String> = masters.into_iter().map(|master| (u64::from(master.number), master.quic)).collect();
        let led = self.door.routes().led_by(self.door.routes().member());
        self.whole = led.len() == usize::from(self.door.shards());
        for (shard, _) in led {
            let Some(member) = peers.group(shard.0) else { continue };
            let became = member.become_members(&wanted, &voters).await;
            self.whole &= became == Ok(true);
            match became {
                Ok(true) => self.balance(shard, &member.standing()),
                Ok(false) => {}
                Err(reason) => tracing::debug!(%shard, reason, "the members of a group are not yet as they should be"),
            }
        }
        true
    }

    async fn masters(&self) -> Option<Vec<Master>> {
        match self.door.ask(HOME, Request::View(View::Masters)).await.ok()? {
            Response::Viewed(viewed) => match *viewed {
                Viewed::Masters(masters) if !masters.is_empty() => Some(masters),
                _ => None,
            },
            _ => None,
        }
    }

    fn note_connected(&mut self) {
        let peers = self.door.peers().all();
        self.connected.retain(|number, _| peers.iter().any(|peer| peer.number() == *number));
        for peer in peers {
            let (is_up, now) = (peer.is_up(), Instant::now());
            let (was, since) = self.connected.entry(peer.number()).or_insert((is_up, now));
            if *was != is_up {
                (*was, *since) = (is_up, now);
            }
        }
    }

    /// Hands a shard over to the master that it is to be led by, if that is ready.
    fn balance(&self, shard: ShardId, standing: &Standing) {
        let own = self.door.routes().member();
        let voters: Vec<u64> = standing.voters.iter().copied().collect();
        let near = |voter: u64| standing.matching.get(&voter).is_some_and(|have| have + 64 >= standing.last);
        if let Some(to) = chosen(shard, &voters, own, |voter| self.fit(voter)).filter(|to| near(*to)) {
            hand_over(&self.door, shard, to);
        }
    }

    /// How fit a master is to lead.
    fn fit(&self, master: u64) -> Fit {
        let (peers, own) = (self.door.peers(), self.door.agents().count());
        let heard = |peer: &Arc<Peer>| if peer.is_up() { peer.agents() } else { None };
        let most = peers.all().iter().filter_map(heard).fold(own, u32::max);
        let hears = |agents: u32, percent| u64::from(agents) * 100 >= u64::from(most) * percent;
        if master == self.door.routes().member() {
            return if most < AGENTS_MIN || hears(own, HEARS_ENOUGH_PERCENT) { Fit::Ready } else { Fit::Away };
        }
        let agents = peers.find(master).as_ref().and_then(heard);
        match self.connected.get(&master) {
            Some((true, since)) if since.elapsed() >= SETTLED && agents.is_some_and(|agents| hears(agents, HEARS_MOST_PERCENT)) => {
                Fit::Ready
            }
            Some((is_up, since)) if *is_up || since.elapsed() < AWAY => Fit::Soon,
            _ => Fit::Away,
        }
    }
}

/// Who has a vote: an odd number, the oldest masters first, so that one that comes while another is away changes nothing.
fn voters(masters: &[Master]) -> BTreeSet<u64> {
    let most = masters.len().min(VOTERS_MAX);
    let odd = if most.is_multiple_of(2) { most.saturating_sub(1) } else { most };
    masters.iter().take(odd).map(|master| u64::from(master.number)).collect()
}

/// Asks the thread of a shard to hand it over.
fn hand_over(door: &Door, shard: ShardId, next: u64) {
    if let Some(inbox) = door.inbox(shard) {
        inbox.force(&mut vec![Letter::HandOver { to: shard, next }]);
    }
}

/// Hands all shards over that this master leads, as far as others can lead them: it ends.
pub async fn hand_over_all(door: &Door) {
    let own = door.routes().member();
    let mut going: Vec<ShardId> = Vec::new();
    for (shard, _) in door.routes().led_by(own) {
        let Some(member) = door.peers().group(shard.0) else { continue };
        let standing = member.standing();
        let is_up = |voter: &u64| *voter != own && door.peers().find(*voter).is_some_and(|peer| peer.is_up());
        let voters: Vec<u64> = standing.voters.iter().copied().collect();
        // Without a majority of the others nobody could be elected.
        let enough = voters.iter().filter(|voter| is_up(voter)).count() > voters.len() / 2;
        if let Some(next) = order(shard.0, voters).into_iter().find(is_up).filter(|_| enough) {
            hand_over(door, shard, next);
            going.push(shard);
        }
    }
    let mut changes = door.routes().changes();
    let all_gone = async {
        let led_elsewhere = |shard: &ShardId| matches!(door.routes().find(*shard), Some(Route::At(_)));
        while !going.iter().all(led_elsewhere) && changes.changed().await.is_ok() {}
    };
    // What is not handed over by then is led by others once this master's lease is over.
    let _ = tokio::time::timeout(LEAVE_WITHIN, all_gone).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masters(numbers: &[u16]) -> Vec<Master> {
        numbers.iter().map(|number| Master { number: *number, quic: "a:1".into(), http: "https://a:2".into() }).collect()
    }

    #[test]
    fn an_odd_number_has_a_vote() {
        let sets: [(&[u16], &[u64]); 6] = [
            (&[1], &[1]),
            (&[1, 2], &[1]),
            (&[1, 2, 3], &[1, 2, 3]),
            (&[2, 3, 4, 7], &[2, 3, 4]),
            (&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]),
            (&[1, 2, 3, 4, 5, 6, 7], &[1, 2, 3, 4, 5]),
        ];
        for (all, expected) in sets {
            assert_eq!(voters(&masters(all)).into_iter().collect::<Vec<_>>(), expected, "{all:?}");
        }
    }
}
