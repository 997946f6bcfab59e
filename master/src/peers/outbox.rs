//! What waits to be said on one stream.

use super::lock;
use super::message::{self, Said};
use protocol::link::{CloseCode, Connection, LinkError, Sender};
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::Notify;

/// Messages that may wait to be sent to one master; at the limit its connection is closed, and both begin anew when it reads again.
const WAITING_MAX: usize = 262_144;

/// What waits.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<VecDeque<Said>>,
    filled: Notify,
}

impl Outbox {
    /// Puts a message behind those that wait.
    pub fn put(&self, said: Said, connection: &Connection) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= WAITING_MAX {
            drop(waiting);
            return connection.close(CloseCode::Late, "too much waits to be read by this master");
        }
        waiting.push_back(said);
        let first = waiting.len() == 1;
        drop(waiting);
        if first {
            self.filled.notify_one();
        }
    }

    /// Forgets what waits: it was for another connection.
    pub fn clear(&self) {
        lock(&self.waiting).clear();
    }

    /// Sends what is put in, all that waits at once, until the connection ends.
    pub async fn send_all(&self, mut sender: Sender) -> LinkError {
        loop {
            let all = std::mem::take(&mut *lock(&self.waiting));
            if all.is_empty() {
                self.filled.notified().await;
                continue;
            }
            for said in &all {
                if let Err(error) = message::queue(&mut sender, said).await {
                    return error;
                }
            }
            if let Err(error) = sender.flush().await {
                return error;
            }
        }
    }
}
