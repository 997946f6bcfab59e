//! Masters over HTTP: who they are, what each leads and how far it is behind; and removed for good.

use super::access::Caller;
use super::body;
use super::error::{ApiError, ErrorAnswer};
use super::gate::Segment;
use super::{Api, find};
use crate::journal::Standing;
use crate::journal::network::{Answer, Ask, Carrier};
use crate::shard::HOME;
use crate::shard::event::{Level, Master, MasterRequest, Request};
use crate::shard::view::{View, Viewed};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// How long another master may take to say how it stands.
const STANDING_WITHIN: Duration = Duration::from_secs(1);

/// A master.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MasterBody {
    /// Its number.
    pub number: u16,
    /// `here` (it answers this), `connected` or `away`.
    pub state: &'static str,
    /// Where it listens for masters and agents.
    pub quic: String,
    /// Where it serves HTTP.
    pub http: String,
    /// The version of its binary; empty where it has not said it to this master.
    pub version: String,
    /// The shards that it leads.
    pub leads: Vec<u16>,
    /// In how many of the shards' groups it has a vote.
    pub votes: u16,
    /// How many agents are connected to it, as it said within the last second or two; nothing where it is away. One that hears far fewer than
    /// the others leads nothing.
    pub agents: Option<u32>,
    /// Entries of the journal, of all shards together, that it lacks of what the furthest has; nothing where it does not answer.
    pub lag: Option<u64>,
}

/// How the group of a shard stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GroupBody {
    /// The shard.
    pub shard: u16,
    /// The present term, which rises with each new leader.
    pub term: u64,
    /// The master that leads it; nothing where none does.
    pub leader: Option<u64>,
    /// The masters that have a vote.
    pub voters: Vec<u64>,
    /// The masters that are sent everything and have no vote.
    pub learners: Vec<u64>,
}

/// The masters of the cluster.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MastersPage {
    /// The masters, by number.
    pub masters: Vec<MasterBody>,
    /// The shards' groups, by shard.
    pub groups: Vec<GroupBody>,
    /// How many masters may fail, of those that have a vote, so that the cluster goes on.
    pub may_fail: usize,
}

/// Lists masters.
#[utoipa::path(get, path = "/v1/masters", tag = "cluster", responses((status = 200, body = MastersPage), (status = 401, body = ErrorAnswer)))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<MastersPage>, ApiError> {
    caller.must_level(Level::Viewer)?;
    let Viewed::Masters(mut masters) = find::view(&api, HOME, View::Masters).await? else {
        return Err(ApiError::internal("a shard answered another question than it was asked"));
    };
    let own = api.door.peers().own();
    if masters.is_empty() {
        masters.push(own.clone());
    }
    let standings = standings(&api, &masters).await;
    let groups = groups(&standings, api.door.shards());
    let bodies = masters.into_iter().map(|master| body_of(&api, master, &standings, &groups)).collect();
    let may_fail = groups.iter().map(|group| group.voters.len().saturating_sub(1) / 2).min().unwrap_or(0);
    Ok(Json(MastersPage { masters: bodies, groups, may_fail }))
}

/// Says that a master never comes back: it has a vote in nothing any more, and the others do not speak to it.
#[utoipa::path(post, path = "/v1/masters/{number}/remove", tag = "cluster", params(("number" = u16, Path, description = "a master's number")),
    responses((status = 204, description = "it is removed"), (status = 403, body = ErrorAnswer), (status = 404, body = ErrorAnswer), (status = 409, body = ErrorAnswer)))]
pub async fn remove(State(api): State<Arc<Api>>, caller: Caller, Segment(number): Segment) -> Result<StatusCode, ApiError> {
    caller.must_own_cluster()?;
    let number: u16 = body::parsed("number", &number)?;
    find::done(&api, HOME, Request::Master(MasterRequest::Remove { number })).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How each master's members of the groups stand; masters that do not answer are left out.
pub async fn standings(api: &Api, masters: &[Master]) -> BTreeMap<u16, Vec<Standing>> {
    let peers = api.door.peers();
    let own = peers.own().number;
    let ask = async |number: u16| {
        let mut standings = Vec::new();
        for shard in 0..api.door.shards() {
            standings.push(match number == own {
                true => peers.group(shard)?.standing(),
                false => match peers.carry(u64::from(number), shard, Ask::Standing).await? {
                    Answer::Standing(standing) => standing,
                    _ => return None,
                },
            });
        }
        Some((number, standings))
    };
    let asked = masters.iter().map(|master| tokio::time::timeout(STANDING_WITHIN, ask(master.number)));
    futures::future::join_all(asked).await.into_iter().filter_map(|answered| answered.ok().flatten()).collect()
}

/// How each group stands, by the word of whoever knows the highest term.
fn groups(standings: &BTreeMap<u16, Vec<Standing>>, shards: u16) -> Vec<GroupBody> {
    let of = |shard: u16| {
        let known = standings.values().filter_map(|standings| standings.get(usize::from(shard)));
        let latest = known.max_by_key(|standing| (standing.term, standing.leader.is_some(), standing.applied))?;
        let (voters, learners) = (latest.voters.iter().copied().collect(), latest.learners.iter().copied().collect());
        Some(GroupBody { shard, term: latest.term, leader: latest.leader, voters, learners })
    };
    (0..shards).filter_map(of).collect()
}

fn body_of(api: &Api, master: Master, standings: &BTreeMap<u16, Vec<Standing>>, groups: &[GroupBody]) -> MasterBody {
    let peers = api.door.peers();
    let Master { number, quic, http } = master;
    let member = u64::from(number);
    let peer = peers.find(member);
    let (state, version, agents) = match &peer {
        _ if number == peers.own().number => ("here", env!("CARGO_PKG_VERSION").to_owned(), Some(api.door.agents().count())),
        Some(peer) if peer.is_up() => ("connected", peer.version(), peer.agents()),
        Some(peer) => ("away", peer.version(), None),
        None => ("away", String::new(), None),
    };
    let furthest = |shard: usize| standings.values().filter_map(|standings| standings.get(shard)).map(|standing| standing.applied).max();
    let lag = standings.get(&number).map(|own| {
        let behind = own.iter().enumerate().map(|(shard, standing)| furthest(shard).unwrap_or(0).saturating_sub(standing.applied));
        behind.sum()
    });
    let leads = groups.iter().filter(|group| group.leader == Some(member)).map(|group| group.shard).collect();
    let votes = groups.iter().filter(|group| group.voters.contains(&member)).count();
    MasterBody { number, state, quic, http, version, leads, votes: u16::try_from(votes).unwrap_or(u16::MAX), agents, lag }
}
