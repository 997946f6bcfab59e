//! Questions of whether tasks are well: each calls an export of a task's program in an instance of its own, beside the task, and is answered once. Only
//! of tasks that are held here: whoever asks may not know which executor that is, and asks several.

use super::tasks::Tasks;
use crate::executor::wire::{ASKS_MAX, Answer, Ask};
use crate::wasm::ANSWER_BYTES_MAX;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is asked, and what was answered and not told yet.
#[derive(Default)]
pub(super) struct Asks {
    asked: AtomicUsize,
    answers: Mutex<Vec<Answer>>,
}

impl Asks {
    fn answer(&self, answer: Answer) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }

    /// What was answered since it was asked last. A client that does not read is told nothing more than it asked.
    pub(super) fn take(&self) -> Vec<Answer> {
        std::mem::take(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tasks {
    /// Has a question answered.
    pub(super) fn ask(self: &Arc<Self>, ask: Ask) {
        if !self.book().live.contains_key(&ask.start.key) {
            return;
        }
        let number = ask.number;
        let refuse = |reason: String| {
            let mut reason = reason;
            reason.truncate(reason.floor_char_boundary(ANSWER_BYTES_MAX));
            self.asks.answer((number, Err(reason)));
            self.wake.notify_one();
        };
        if ask.plan.limits.memory_bytes_max > self.memory_bytes_max {
            return refuse("it wants more memory than its executor grants".into());
        }
        let prepared = match self.engine.prepare(Arc::new(ask.plan)) {
            Ok(prepared) => prepared,
            Err(error) => return refuse(error.to_string()),
        };
        if self.asks.asked.fetch_add(1, Ordering::SeqCst) >= ASKS_MAX {
            self.asks.asked.fetch_sub(1, Ordering::SeqCst);
            return refuse("its executor is asked too much at once".into());
        }
        let (tasks, start, export, wait) = (Arc::clone(self), ask.start, ask.export, Duration::from_millis(ask.wait_ms));
        let asking = async move {
            let answer = tasks.engine.ask(&prepared, &start, &export, wait).await;
            tasks.asks.asked.fetch_sub(1, Ordering::SeqCst);
            tasks.asks.answer((number, answer));
            tasks.wake.notify_one();
        };
        match &self.workers {
            Some(workers) => workers.spawn(asking),
            None => drop(tokio::spawn(asking)),
        }
    }
}
