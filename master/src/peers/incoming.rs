//! A connection that another master opened: what it says is done, what it asks is answered.

use super::message::{Answered, Messages, Said, queue, shift};
use super::{Peer, Shelf, lock};
use crate::drive::Door;
use crate::drive::inbox::{Letter, Waiter};
use crate::drive::routes::Route;
use crate::journal::network::Answer;
use crate::shard::{PeerMessage, Refusal, Response};
use protocol::link::{CloseCode, Connection, LinkError, Sender};
use protocol::{RequestId, ShardId};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Answers that wait to be sent to one master. One that reads so slowly misses some, which its askers notice.
const ANSWERS_MAX: usize = 65_536;

/// Listens to a master until its connection ends.
///
/// # Errors
/// What ended it.
pub async fn attend(shelf: &Shelf, door: &Door, number: u16, connection: Connection) -> Result<(), LinkError> {
    let peers = shelf.peers();
    let Some(peer) = peers.find(u64::from(number)) else {
        connection.close(CloseCode::NotAllowed, "this master is not on record: it was removed, or another one of its number is");
        return Ok(());
    };
    let (mut sender, receiver) = connection.accept_control().await?;
    let mut quick = Messages::new(receiver);
    let Some(Said::Hello { version, master }) = quick.next().await? else { return Err(LinkError::Reset) };
    peers.introduced(&peer, version, &master);
    queue(&mut sender, &Answered::Hello { version: env!("CARGO_PKG_VERSION").into(), master: peers.own() }).await?;
    sender.flush().await?;
    let (long_sender, receiver) = connection.accept_bulk().await?;
    let mut long = Messages::new(receiver);
    let Some(Said::Long) = long.next().await? else { return Err(LinkError::Reset) };
    // What it said over an older connection is done before anything that it says over this one.
    if let Some(older) = lock(&peer.heard_over).replace(connection.clone()) {
        older.close(CloseCode::Replaced, "this master has a newer connection");
    }
    let _alone = peer.listening.lock().await;
    peer.hears(None);
    let (quick_answer, quick_answers) = mpsc::channel(ANSWERS_MAX);
    let (respond, responses) = mpsc::channel(ANSWERS_MAX);
    let (long_answer, long_answers) = mpsc::channel(ANSWERS_MAX);
    let hears = Hears { shelf, door, peer: &peer, respond };
    let ended = tokio::select! {
        ended = hears.listen(&mut quick, &quick_answer) => ended,
        ended = hears.listen(&mut long, &long_answer) => ended,
        ended = answer(sender, quick_answers, responses) => ended,
        ended = answer(long_sender, long_answers, mpsc::channel(1).1) => ended,
        () = shelf.clone().serve(connection.clone()) => Ok(()),
    };
    connection.close(CloseCode::Leaving, "");
    ended
}

/// Whoever listens to one master.
struct Hears<'a> {
    shelf: &'a Shelf,
    door: &'a Door,
    peer: &'a Arc<Peer>,
    respond: mpsc::Sender<(RequestId, Response)>,
}

impl Hears<'_> {
    async fn listen(&self, messages: &mut Messages, answer: &mpsc::Sender<Answered>) -> Result<(), LinkError> {
        while let Some(said) = messages.next::<Said>().await? {
            match said {
                Said::Leads { shard, term } => self.door.led(shard, self.peer.number, term),
                Said::Ask { call, group, ask } => {
                    let peers = Arc::clone(self.shelf.peers());
                    reply(answer, async move {
                        let answer = match peers.group(group) {
                            Some(member) => member.answer(ask).await,
                            None => Answer::Failed("this master is only starting".into()),
                        };
                        Answered::Ask { call, answer }
                    });
                }
                Said::Letter { to, from, sent, mut message } => {
                    if self.speaks_for(from) {
                        shift(&mut message, sent, self.door.clock().now());
                        self.door.deliver(to, from, message);
                    }
                }
                Said::Anew { from } => {
                    if self.speaks_for(from) {
                        self.door.deliver_to_all(from, &PeerMessage::Led);
                    }
                }
                Said::Request { call, to, request } => {
                    let waiter = Waiter::Many(RequestId(call), self.respond.clone());
                    match self.door.routes().find(to) {
                        Some(Route::Here) => self.door.put(Letter::Request { to, request, waiter }),
                        _ => waiter.refuse(Refusal::Unled),
                    }
                }
                Said::Told(json) => {
                    if let Ok(told) = serde_json::from_slice(&json) {
                        self.door.publish_here(told);
                    }
                }
                Said::Changed(_) => {}
                Said::Hold { call, bundle } => {
                    let shelf = self.shelf.clone();
                    reply(answer, async move {
                        let held = shelf.ensure(bundle).await.is_some();
                        let answer = if held { Answer::Done } else { Answer::Failed("it could not be fetched".into()) };
                        Answered::Ask { call, answer }
                    });
                }
                Said::Bundles { call } => {
                    let shelf = self.shelf.clone();
                    reply(answer, async move { Answered::Bundles { call, bundles: shelf.list().await } });
                }
                Said::Agents(count) => self.peer.hears(Some(count)),
                Said::Hello { .. } | Said::Long => {}
            }
        }
        Ok(())
    }

    /// True where this master leads that shard, as far as is known here: one that was overtaken may not have noticed.
    fn speaks_for(&self, shard: ShardId) -> bool {
        self.door.routes().find(shard) == Some(Route::At(self.peer.number))
    }
}

/// Answers when the answer is there; meanwhile others are heard.
fn reply(answer: &mpsc::Sender<Answered>, answered: impl Future<Output = Answered> + Send + 'static) {
    let answer = answer.clone();
    tokio::spawn(async move {
        // The connection may be over.
        let _ = answer.send(answered.await).await;
    });
}

/// Sends answers as they come.
async fn answer(
    mut sender: Sender,
    mut answers: mpsc::Receiver<Answered>,
    mut responses: mpsc::Receiver<(RequestId, Response)>,
) -> Result<(), LinkError> {
    loop {
        let first = tokio::select! {
            Some(answer) = answers.recv() => answer,
            Some((RequestId(call), response)) = responses.recv() => Answered::Response { call, response },
            else => return Ok(()),
        };
        queue(&mut sender, &first).await?;
        while let Ok(answer) = answers.try_recv() {
            queue(&mut sender, &answer).await?;
        }
        while let Ok((RequestId(call), response)) = responses.try_recv() {
            queue(&mut sender, &Answered::Response { call, response }).await?;
        }
        sender.flush().await?;
    }
}
