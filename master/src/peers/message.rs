//! What masters say to each other, and how it stands on a stream: each message in postcard, cut into parts that fit into frames. Closed enums,
//! new variants only at the end. Whoever opened the connection says [`Said`], the other answers with [`Answered`].

use crate::journal::network::{Answer, Ask};
use crate::shard::event::Master;
use crate::shard::{PeerMessage, Request, Response};
use bytes::Bytes;
use protocol::link::{LinkError, Receiver, Sender};
use protocol::{Digest, ShardId, Time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of a message in one frame.
const PART_BYTES_MAX: usize = 256 << 10;
/// Bytes of a message: a batch of the journal is the longest.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// What a master says on a connection that it opened.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// The first on the first stream: who speaks, and where it is.
    Hello {
        /// The version of its binary, for people.
        version: String,
        /// Itself.
        master: Master,
    },
    /// The first on the second stream, which is for what may be long.
    Long,
    /// The speaker leads a shard.
    Leads {
        /// Which.
        shard: ShardId,
        /// In which term.
        term: u64,
    },
    /// A member of a group asks another.
    Ask {
        /// Given back with the answer.
        call: u64,
        /// Which group.
        group: u16,
        /// What.
        ask: Ask,
    },
    /// A shard that the speaker leads says something to one that the listener leads.
    Letter {
        /// To whom.
        to: ShardId,
        /// Who.
        from: ShardId,
        /// When, by the speaker's clock: moments in the message are by that too.
        sent: Time,
        /// What.
        message: PeerMessage,
    },
    /// What this shard, which the speaker leads, said to those that the listener leads may have been lost: as [`PeerMessage::Led`] to each.
    Anew {
        /// Which.
        from: ShardId,
    },
    /// Somebody asks a shard that the listener leads.
    Request {
        /// Given back with each answer.
        call: u64,
        /// Whom.
        to: ShardId,
        /// What.
        request: Request,
    },
    /// Of version 1, which nobody speaks any more.
    Changed(Bytes),
    /// Fetch this bundle from the speaker.
    Hold {
        /// Given back with the answer.
        call: u64,
        /// Which.
        bundle: Digest,
    },
    /// Which bundles are there?
    Bundles {
        /// Given back with the answer.
        call: u64,
    },
    /// So many agents are connected to the speaker.
    Agents(u32),
    /// What those who watch are told ([`crate::drive::told::Told`]), in JSON.
    Told(Bytes),
}

impl Said {
    /// Whether it is said over a connection of this version.
    pub const fn is_of(&self, version: u16) -> bool {
        match self {
            Self::Changed(_) => false,
            Self::Letter { message, .. } => message.since() <= version,
            _ => true,
        }
    }
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answered {
    /// To [`Said::Hello`].
    Hello {
        /// The version of its binary, for people.
        version: String,
        /// Itself.
        master: Master,
    },
    /// To [`Said::Ask`], and to [`Said::Hold`] as if it were one.
    Ask {
        /// From the question.
        call: u64,
        /// The answer.
        answer: Answer,
    },
    /// To [`Said::Request`]: a submission that is followed has two.
    Response {
        /// From the question.
        call: u64,
        /// The answer.
        response: Response,
    },
    /// To [`Said::Bundles`].
    Bundles {
        /// From the question.
        call: u64,
        /// All of them.
        bundles: Vec<Digest>,
    },
}

/// A part of a message.
#[derive(Serialize, Deserialize)]
struct Part {
    /// False where more of the same message follows.
    last: bool,
    /// At most [`PART_BYTES_MAX`].
    bytes: Bytes,
}

/// Puts a message behind what is queued, and sends where that is much.
///
/// # Errors
/// The connection's end.
pub async fn queue<T: Serialize>(sender: &mut Sender, message: &T) -> Result<(), LinkError> {
    let bytes: Bytes = postcard::to_allocvec(message).expect("messages have no type that postcard cannot write").into();
    let mut rest = bytes;
    loop {
        let part = rest.split_to(rest.len().min(PART_BYTES_MAX));
        let part = Part { last: rest.is_empty(), bytes: part };
        match sender.queue(&part) {
            Err(LinkError::Backlog { .. }) => {
                sender.flush().await?;
                sender.queue(&part)?;
            }
            queued => queued?,
        }
        if part.last {
            return Ok(());
        }
    }
}

/// Messages as they come.
pub struct Messages {
    receiver: Receiver,
    whole: Vec<u8>,
}

impl Messages {
    /// Of this stream.
    pub const fn new(receiver: Receiver) -> Self {
        Self { receiver, whole: Vec::new() }
    }

    /// The next message; `None` where the other side finished the stream. Cancelled, it has lost nothing.
    ///
    /// # Errors
    /// What is no message, and the connection's end.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LinkError> {
        loop {
            let Some(Part { last, bytes }) = self.receiver.next::<Part>().await? else { return Ok(None) };
            if self.whole.len() + bytes.len() > MESSAGE_BYTES_MAX {
                return Err(misbehaved("a message that is too long"));
            }
            if last && self.whole.is_empty() {
                return decode(&bytes).map(Some);
            }
            self.whole.extend_from_slice(&bytes);
            if last {
                let whole = std::mem::take(&mut self.whole);
                return decode(&whole).map(Some);
            }
        }
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, LinkError> {
    postcard::from_bytes(bytes).map_err(|_| misbehaved("a message that cannot be understood: is it of a newer version?"))
}

fn misbehaved(reason: &str) -> LinkError {
    LinkError::Lost { reason: reason.into() }
}

/// Moves the moments in a message from the speaker's clock, which showed `sent`, to the listener's, which shows `now`: clocks of two machines
/// differ, and an offer is for a while, not until a date.
pub fn shift(message: &mut PeerMessage, sent: Time, now: Time) {
    let shifted = |deadline: &mut Time| *deadline = now + deadline.since(sent);
    match message {
        PeerMessage::Offers { offers } => offers.iter_mut().for_each(|offer| shifted(&mut offer.deadline)),
        PeerMessage::OffersPlaced { offers } => offers.iter_mut().for_each(|placed| shifted(&mut placed.offer.deadline)),
        _ => {}
    }
}
