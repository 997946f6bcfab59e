//! The connections that this master opens: one to each other, again and again.

use super::message::{Answered, Messages, Said, queue};
use super::{Peer, Peers, Reply, lock};
use crate::drive::Door;
use crate::drive::inbox::Letter;
use crate::shard::PeerMessage;
use protocol::identity::Identity;
use protocol::link::{self, CloseCode, Connection, LinkError, Sender, Who};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The wait before another try to connect.
const RETRY: Duration = Duration::from_millis(100);
/// How long a master may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(3);

/// Keeps a connection to each of the others, for as long as it is one.
pub async fn keep_all(peers: Arc<Peers>, door: Door, identity: Identity) {
    let mut changes = peers.changes();
    let mut kept: BTreeMap<u64, JoinHandle<()>> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let all = peers.all();
        kept.retain(|number, task| {
            let stays = all.iter().any(|peer| peer.number == *number);
            if !stays {
                task.abort();
            }
            stays
        });
        for peer in all {
            let number = peer.number;
            let (peers, door, identity) = (Arc::clone(&peers), door.clone(), identity.clone());
            kept.entry(number).or_insert_with(|| tokio::spawn(keep(peers, peer, door, identity)));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps a connection to one of them.
async fn keep(peers: Arc<Peers>, peer: Arc<Peer>, door: Door, identity: Identity) {
    let mut said = String::new();
    loop {
        // One that listens at any free port says which when it comes.
        if peer.master().quic.ends_with(":0") {
            tokio::time::sleep(RETRY).await;
            continue;
        }
        let error = match session(&peers, &peer, &door, &identity).await {
            Ok(()) => continue,
            Err(error) => error.to_string(),
        };
        // The same words are not said ten times a second.
        if error != said {
            tracing::warn!(master = peer.number, error, "no connection to a master");
            said = error;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// One connection from its beginning to its end.
async fn session(peers: &Peers, peer: &Arc<Peer>, door: &Door, identity: &Identity) -> Result<(), LinkError> {
    let address = resolve(&peer.master().quic).await?;
    let connection = link::connect_master(address, identity).await?;
    let Who::Master(number) = connection.who() else { return Err(not_it(address, "it is no master")) };
    if u64::from(number) != peer.number {
        connection.close(CloseCode::NotAllowed, "another master was looked for");
        return Err(not_it(address, "another master listens there"));
    }
    let late = |_| LinkError::Late { what: "a master's first answer", deadline: HELLO_WITHIN };
    let streams = tokio::time::timeout(HELLO_WITHIN, greet(peers, peer, &connection)).await.map_err(late)??;
    let Streams { quick, quick_answers, long, long_answers } = streams;
    peer.quick.clear();
    peer.long.clear();
    peer.spoke.store(connection.version(), Ordering::Relaxed);
    *lock(&peer.up) = Some(connection.clone());
    tracing::info!(master = peer.number, %address, "connected to a master");
    begin(peer, door);
    let ended = tokio::select! {
        error = peer.quick.send_all(quick) => error,
        error = peer.long.send_all(long) => error,
        error = listen(peer, door, quick_answers) => error,
        error = listen(peer, door, long_answers) => error,
    };
    *lock(&peer.up) = None;
    connection.close(CloseCode::Leaving, "");
    lock(&peer.asks).clear();
    peer.part(|_| true).into_iter().for_each(|(to, request, waiter)| door.put(Letter::Request { to, request, waiter }));
    Err(ended)
}

struct Streams {
    quick: Sender,
    quick_answers: Messages,
    long: Sender,
    long_answers: Messages,
}

async fn greet(peers: &Peers, peer: &Peer, connection: &Connection) -> Result<Streams, LinkError> {
    let (mut quick, receiver) = connection.open_control().await?;
    let mut quick_answers = Messages::new(receiver);
    queue(&mut quick, &Said::Hello { version: env!("CARGO_PKG_VERSION").into(), master: peers.own() }).await?;
    quick.flush().await?;
    let Some(Answered::Hello { version, master }) = quick_answers.next().await? else { return Err(LinkError::Reset) };
    peers.introduced(peer, version, &master);
    let (mut long, receiver) = connection.open_bulk().await?;
    queue(&mut long, &Said::Long).await?;
    long.flush().await?;
    Ok(Streams { quick, quick_answers, long, long_answers: Messages::new(receiver) })
}

/// What was said over an earlier connection may have been lost: both sides say it anew.
fn begin(peer: &Peer, door: &Door) {
    let routes = door.routes();
    let here = routes.led_by(routes.member());
    for (shard, term) in &here {
        peer.say(Said::Leads { shard: *shard, term: *term });
    }
    for (shard, _) in &here {
        peer.say(Said::Anew { from: *shard });
    }
    door.catch_up(|said| peer.say(said));
    for (from, _) in routes.led_by(peer.number) {
        door.deliver_to_all(from, &PeerMessage::Led);
    }
    routes.stir();
}

/// Takes answers until the connection ends.
async fn listen(peer: &Peer, door: &Door, mut answers: Messages) -> LinkError {
    loop {
        match answers.next::<Answered>().await {
            Ok(Some(Answered::Ask { call, answer })) => peer.answered(call, Reply::Answer(answer)),
            Ok(Some(Answered::Bundles { call, bundles })) => peer.answered(call, Reply::Bundles(bundles)),
            Ok(Some(Answered::Response { call, response })) => {
                if let Some((to, request, waiter)) = peer.responded(call, response) {
                    door.park(Letter::Request { to, request, waiter });
                }
            }
            Ok(Some(Answered::Hello { .. })) => {}
            Ok(None) => return LinkError::Reset,
            Err(error) => return error,
        }
    }
}

async fn resolve(address: &str) -> Result<SocketAddr, LinkError> {
    let unknown = |reason: String| LinkError::Lost { reason: format!("{address}: {reason}") };
    let mut found = tokio::net::lookup_host(address).await.map_err(|error| unknown(error.to_string()))?;
    found.next().ok_or_else(|| unknown("nobody knows this name".into()))
}

fn not_it(address: SocketAddr, reason: &str) -> LinkError {
    LinkError::NotAllowed { remote: address, reason: reason.into() }
}
