//! What frameworks say to wasm tasks. May be lost: nothing waits for an executor that is away, or that does not read.

use super::{Executors, State};
use crate::logs::key;
use bytes::Bytes;
use protocol::MemberId;

impl Executors {
    /// Says this to these of them that are wasm tasks.
    pub fn message(&mut self, members: &[MemberId], bytes: &Bytes) {
        for member in members {
            let Some(numbers) = self.routes.get(&member.attempt.task.job) else { continue };
            for number in numbers {
                if let Some(State::Here { commands, .. }) = self.slots.get_mut(number).map(|slot| &mut slot.state) {
                    let _ = commands.message(key(*member), bytes.clone()); // Else it is lost.
                }
            }
        }
    }
}
