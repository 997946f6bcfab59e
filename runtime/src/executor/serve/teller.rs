//! Tells the client, and before that the record: takes what happened, writes the ends down, books them, and sends what the client will take.
//! One at a time, so that a new client's account of all that is held, and what it is told after it, fit together.

use super::connection::Arrival;
use super::tasks::{RECORD_AGAIN, Tasks};
use crate::Key;
use crate::executor::record::Record;
use crate::executor::wire::{self, BATCH_BYTES_MAX, EVENT_BYTES_MAX, Told};
use crate::executor::{ExecutorEvent, Held};
use bytes::{Buf, BytesMut};
use futures::StreamExt;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Most events, or things held, in one frame.
const FRAME_EVENTS_MAX: usize = BATCH_BYTES_MAX / EVENT_BYTES_MAX;
/// While so many bytes wait for the client, no more are made ready.
const SEND_BYTES_MAX: usize = 1 << 20;
/// How often progress is told, at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// An executor without a client, and with nothing that one could ask for, ends after so long.
const IDLE_EXIT: Duration = Duration::from_secs(60);

/// The client, as long as there is one.
struct Client {
    stream: OwnedWriteHalf,
    /// It takes nothing any more; what it said before that is still to be read.
    deaf: bool,
    /// Obeys its words until the last.
    reading: JoinHandle<()>,
    /// Bytes on their way; then what is to follow them. Of each task at most its start, its end, what was dropped and one progress, so bounded by
    /// what is held.
    sending: BytesMut,
    queued: VecDeque<ExecutorEvent>,
}

struct Teller {
    tasks: Arc<Tasks>,
    client: Option<Client>,
    /// Events whose ends are not on record yet, because the disk is full.
    unrecorded: Vec<ExecutorEvent>,
    record_again: Option<Instant>,
    progress_next: Instant,
    idle_since: Option<Instant>,
}

/// Serves until the executor shall end.
pub(super) async fn tell(tasks: Arc<Tasks>, mut arrivals: mpsc::Receiver<Arrival>) {
    let mut teller =
        Teller { tasks, client: None, unrecorded: vec![], record_again: None, progress_next: Instant::now(), idle_since: None };
    let tasks = Arc::clone(&teller.tasks);
    loop {
        let wait_until = teller.next_timer();
        tokio::select! {
            biased;
            arrival = arrivals.recv() => match arrival {
                Some(arrival) => teller.welcome(arrival).await,
                None => return,
            },
            () = tasks.wake.notified() => {}
            here = stirred(teller.client.as_mut()) => if !here { teller.client = None },
            () = sleep_until(wait_until.unwrap_or_else(Instant::now)), if wait_until.is_some() => {}
        }
        teller.settle();
        teller.send();
        if teller.shall_end() {
            return;
        }
    }
}

/// Waits until the client may take what is to be sent (true), or is gone and all its words are obeyed (false). Never comes without one.
async fn stirred(client: Option<&mut Client>) -> bool {
    let Some(Client { stream, deaf, reading, sending, .. }) = client else { return std::future::pending().await };
    let room = async { if *deaf || sending.is_empty() { std::future::pending().await } else { stream.writable().await } };
    tokio::select! {
        _ = room => true,
        _ = reading => false,
    }
}

impl Teller {
    /// A new client takes the place of the old. What that had sent is obeyed first, since it may have been killed right after; then the new
    /// one is told all that is held.
    async fn welcome(&mut self, arrival: Arrival) {
        if let Some(mut old) = self.client.take() {
            // What is on its way can still be read, and nothing more can be sent.
            let _ = rustix::net::shutdown(old.stream.as_ref(), rustix::net::Shutdown::Read);
            let _ = (&mut old.reading).await;
        }
        self.settle();
        let mut sending = BytesMut::new();
        self.account().iter().for_each(|told| wire::encode(told, &mut sending).expect("cut to fit a frame"));
        let (tasks, mut frames) = (Arc::clone(&self.tasks), arrival.frames);
        let reading = tokio::spawn(async move {
            while let Some(Ok(frame)) = frames.next().await {
                let Ok(command) = wire::decode(&frame) else { return };
                tasks.obey(command);
            }
        });
        self.client = Some(Client { stream: arrival.stream, deaf: false, reading, sending, queued: VecDeque::new() });
    }

    /// All that is held, in parts that fit a frame.
    fn account(&self) -> Vec<Told> {
        let book = self.tasks.book();
        let live: Vec<(Key, Option<u64>)> = book.live.iter().map(|(key, live)| (*key, live.since_ms)).collect();
        let ended: Vec<_> = book.ended.iter().map(|(key, (exit, usage))| (*key, exit.clone(), *usage)).collect();
        drop(book);
        let live = live.chunks(FRAME_EVENTS_MAX).map(|live| Held { live: live.to_vec(), ended: vec![] });
        let ended = ended.chunks(FRAME_EVENTS_MAX).map(|ended| Held { live: vec![], ended: ended.to_vec() });
        let parts = live.chain(ended).map(|part| Told::Held { part, more: true });
        parts.chain([Told::Held { part: Held::default(), more: false }]).collect()
    }

    /// Takes what happened: on record, then in the book, then for the client.
    fn settle(&mut self) {
        let mut events = std::mem::take(&mut self.unrecorded);
        events.extend(self.tasks.take_events());
        let ends: Vec<_> = events.iter().filter_map(end).collect();
        let mut record = self.tasks.record.lock().unwrap_or_else(PoisonError::into_inner);
        if !ends.is_empty() && record.append(&Record::Ended(ends)).is_err() {
            self.unrecorded = events;
            self.record_again = Some(Instant::now() + RECORD_AGAIN);
            return;
        }
        self.record_again = None;
        let mut book = self.tasks.book();
        for event in &events {
            match event {
                ExecutorEvent::Started { key, since_ms } => {
                    if let Some(live) = book.live.get_mut(key) {
                        live.since_ms = Some(*since_ms);
                    }
                }
                // One that was refused was never taken: there is nothing to forget.
                ExecutorEvent::Ended { key, exit, usage } => {
                    if book.live.remove(key).is_some() {
                        book.ended.insert(*key, (exit.clone(), *usage));
                    }
                }
                ExecutorEvent::Progress { .. } | ExecutorEvent::Dropped { .. } => {}
            }
        }
        if record.is_long() {
            let live = book.live.keys().copied().collect();
            let ended: Vec<_> = book.ended.iter().map(|(key, (exit, usage))| (*key, exit.clone(), *usage)).collect();
            // The long file is as good: it is tried again with the next event.
            let _ = record.compact(live, &ended);
        }
        drop((book, record));
        let Some(client) = self.client.as_mut().filter(|client| !client.deaf) else { return };
        client.queued.extend(events);
        if client.queued.is_empty() && Instant::now() >= self.progress_next && self.tasks.has_progress() {
            let said = self.tasks.take_progress();
            let book = self.tasks.book();
            client.queued.extend(
                said.into_iter().filter(|event| matches!(event, ExecutorEvent::Progress { key, .. } if book.live.contains_key(key))),
            );
            self.progress_next = Instant::now() + PROGRESS_EVERY;
        }
    }

    /// Sends what the client takes without waiting.
    fn send(&mut self) {
        let Some(client) = self.client.as_mut().filter(|client| !client.deaf) else { return };
        // One that does not read what it asked for is told it once it does.
        if client.sending.len() < SEND_BYTES_MAX && self.tasks.usage_wanted.swap(false, Ordering::SeqCst) {
            wire::encode(&Told::Used(self.tasks.used()), &mut client.sending).expect("cut to fit a frame");
        }
        if client.sending.len() < SEND_BYTES_MAX {
            let answers = self.tasks.asks.take();
            answers.chunks(FRAME_EVENTS_MAX).for_each(|part| {
                wire::encode(&Told::Answers(part.to_vec()), &mut client.sending).expect("cut to fit a frame");
            });
        }
        loop {
            while client.sending.len() < SEND_BYTES_MAX && !client.queued.is_empty() {
                let part = client.queued.drain(..client.queued.len().min(FRAME_EVENTS_MAX)).collect();
                wire::encode(&Told::Events(part), &mut client.sending).expect("cut to fit a frame");
            }
            if client.sending.is_empty() {
                return;
            }
            match client.stream.try_write(&client.sending) {
                Ok(sent) => client.sending.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    client.deaf = true;
                    return;
                }
            }
        }
    }

    /// The next moment at which something is due by itself; none while tasks only come and go.
    fn next_timer(&mut self) -> Option<Instant> {
        let idle = self.client.is_none() && {
            let book = self.tasks.book();
            book.live.is_empty() && book.ended.is_empty()
        };
        self.idle_since = idle.then(|| self.idle_since.unwrap_or_else(Instant::now));
        let progress = self.client.as_ref().is_some_and(|client| !client.deaf && client.queued.is_empty()) && self.tasks.has_progress();
        let due = [self.record_again, progress.then_some(self.progress_next), self.idle_since.map(|since| since + IDLE_EXIT)];
        due.into_iter().flatten().min()
    }

    fn shall_end(&self) -> bool {
        if self.tasks.quit.load(Ordering::SeqCst) {
            return true;
        }
        let (live, ended) = {
            let book = self.tasks.book();
            (book.live.len(), book.ended.len())
        };
        // What ended and was not asked for stays on record.
        let retired = self.tasks.retired.load(Ordering::SeqCst) && live == 0 && (ended == 0 || self.client.is_none());
        let idle = self.client.is_none() && live == 0 && ended == 0 && self.idle_since.is_some_and(|since| since.elapsed() >= IDLE_EXIT);
        retired || idle
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn end(event: &ExecutorEvent) -> Option<(Key, crate::Exit, crate::Usage)> {
    match event {
        ExecutorEvent::Ended { key, exit, usage } => Some((*key, exit.clone(), *usage)),
        _ => None,
    }
}
