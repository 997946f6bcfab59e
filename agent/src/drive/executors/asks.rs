//! Whether wasm tasks are well: asked of the executors that may have them, of which one answers.

use super::{Executors, State};
use protocol::MemberId;
use runtime::executor::wire::{Answer, Ask};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Questions that were not answered yet. Whoever asked waits for a while only.
#[derive(Default)]
pub(super) struct Asks {
    number: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Result<(), String>>>,
}

impl Asks {
    pub(super) fn answered(&mut self, answers: Vec<Answer>) {
        for (number, answer) in answers {
            let asked = self.waiting.remove(&number);
            asked.map(|asked| asked.send(answer)); // Whoever asked may be gone.
        }
    }
}

impl Executors {
    /// Asks of a task that is wasm; the answer may never come.
    pub fn ask(&mut self, member: MemberId, ask: Ask) -> oneshot::Receiver<Result<(), String>> {
        let (sender, answer) = oneshot::channel();
        self.asks.waiting.retain(|_, asked| !asked.is_closed());
        self.asks.number += 1;
        let ask = Ask { number: self.asks.number, ..ask };
        let mut any = false;
        for number in self.routes.get(&member.attempt.task.job).into_iter().flatten() {
            if let Some(State::Here { commands, .. }) = self.slots.get_mut(number).map(|slot| &mut slot.state) {
                any |= commands.ask(ask.clone());
            }
        }
        if any {
            self.asks.waiting.insert(ask.number, sender);
        }
        answer
    }
}
