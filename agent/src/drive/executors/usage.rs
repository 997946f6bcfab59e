//! What wasm tasks use: asked of all executors at once, and told as they say it.

use super::{Executors, State};
use runtime::executor::wire::Used;
use std::collections::BTreeSet;
use tokio::sync::mpsc;

impl Executors {
    /// Asks all what their tasks use; what they say comes by itself, and ends when all have.
    pub fn ask_usage(&mut self) -> mpsc::UnboundedReceiver<Vec<Used>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut asked = BTreeSet::new();
        for (number, slot) in &mut self.slots {
            if let State::Here { commands, .. } = &mut slot.state {
                commands.ask_usage();
                asked.insert(*number);
            }
        }
        if !asked.is_empty() {
            self.asked.push((asked, sender));
        }
        receiver
    }

    pub(super) fn heard_used(&mut self, number: u32, used: &[Used]) {
        self.asked.retain_mut(|(asked, wants)| {
            if asked.remove(&number) {
                let _ = wants.send(used.to_vec()); // Whoever asked may be gone.
            }
            !asked.is_empty() && !wants.is_closed()
        });
    }
}
