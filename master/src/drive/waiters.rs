//! Who waits for which answer of a thread's shards. A request's number inside the thread is this room's own; the asker's comes back with the
//! answer.

use super::inbox::Waiter;
use crate::frameworks::{FrameworkEvent, FrameworkRequest};
use crate::shard::{Refusal, Request, Response};
use protocol::{RequestId, ShardId};
use std::collections::HashMap;

/// Who waits for which answer.
#[derive(Debug, Default)]
pub struct Waiters {
    last: u64,
    waiting: HashMap<RequestId, Waiting>,
    /// Those that did not take an answer though more would have followed.
    deaf: Vec<(ShardId, RequestId)>,
}

#[derive(Debug)]
struct Waiting {
    asked: ShardId,
    waiter: Waiter,
    follows: Follows,
}

/// Which answers are not the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    Nothing,
    /// Of a submission whose end is waited for, the first.
    Submission,
    /// Of a framework's subscription, all but an error.
    Subscription,
}

impl Follows {
    fn of(request: &Request) -> Self {
        match request {
            Request::Submit { follow: true, .. } => Self::Submission,
            Request::Framework(FrameworkRequest::Subscribe { .. }) => Self::Subscription,
            _ => Self::Nothing,
        }
    }

    fn after(self, response: &Response) -> bool {
        match (self, response) {
            (Self::Submission, Response::Submitted { .. }) => true,
            (Self::Subscription, Response::Framework(events)) => !events.iter().any(|event| matches!(event, FrameworkEvent::Error(_))),
            _ => false,
        }
    }
}

impl Waiters {
    /// Takes in who asked `asked` for `request`; returns the request's number.
    pub fn add(&mut self, asked: ShardId, request: &Request, waiter: Waiter) -> RequestId {
        self.last += 1;
        let id = RequestId(self.last);
        let follows = Follows::of(request);
        self.waiting.insert(id, Waiting { asked, waiter, follows });
        id
    }

    /// Hands an answer to who waits for it, if somebody still does.
    pub fn answer(&mut self, id: RequestId, response: Response) {
        let Some(waiting) = self.waiting.remove(&id) else { return };
        let more = waiting.follows.after(&response);
        match waiting.waiter {
            // Who no longer waits is not told.
            Waiter::Once(sender) => drop(sender.send(response)),
            Waiter::Many(theirs, sender) => {
                let sent = sender.try_send((theirs, response)).is_ok();
                if more && !sent {
                    self.deaf.push((waiting.asked, id));
                } else if more {
                    self.waiting.insert(id, Waiting { waiter: Waiter::Many(theirs, sender), ..waiting });
                }
            }
        }
    }

    /// True where nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets those who no longer wait; returns what they had asked.
    pub fn sweep(&mut self) -> Vec<(ShardId, RequestId)> {
        let gone = self.waiting.extract_if(|_, waiting| waiting.waiter.is_gone());
        gone.map(|(id, waiting)| (waiting.asked, id)).chain(self.deaf.drain(..)).collect()
    }

    /// Tells all who wait for `asked` that nothing will come: this master leads it no more, and what became of their requests is not known.
    pub fn part(&mut self, asked: ShardId) {
        for (_, waiting) in self.waiting.extract_if(|_, waiting| waiting.asked == asked) {
            waiting.waiter.lose();
        }
    }

    /// Tells all who wait that nothing will come.
    pub fn refuse(&mut self, reason: &str) {
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            if let Waiter::Many(theirs, sender) = waiting.waiter {
                let refusal =
                    Refusal::Busy { reason: format!("this master has stopped deciding: {reason}"), retry_after_ms: RETRY_AFTER_MS };
                // Who no longer waits is not told. One who waits for a single answer sees that its sender is gone.
                let _ = sender.try_send((theirs, Response::Refused(refusal)));
            }
        }
    }
}

/// When it makes sense to ask a master again that has stopped: somebody has to start it anew.
const RETRY_AFTER_MS: u64 = 5_000;
