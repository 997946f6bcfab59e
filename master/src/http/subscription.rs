//! A framework's subscription as the body of an answer: what it is told, in whatever words, until it has another or is gone; and something now and
//! then, so that both ends notice a dead connection.

use super::Api;
use super::error::ApiError;
use super::failures::gone;
use crate::frameworks::{Filters, FrameworkEvent, FrameworkId, FrameworkInfo, FrameworkRequest, Wish};
use crate::shard::event::{Refusal, Request, Response as Answer};
use axum::body::Body;
use bytes::Bytes;
use protocol::{AgentId, RequestId, Role, ShardId};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval};

/// How often a subscription hears something.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Batches of events that wait to be read; a framework that is further behind is cut off and has to subscribe anew.
const EVENTS_WAITING_MAX: usize = 4_096;
/// How long the first answer to a subscription may take.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(10);

/// How what a framework is told is written; nothing to tell is a sign of life.
pub trait Words: Send + 'static {
    /// True where the framework is told of each agent that goes away.
    const HEARS_OF_AGENTS: bool = false;

    /// Writes it.
    fn write(&mut self, events: &[FrameworkEvent]) -> Bytes;

    /// Writes that these agents went away.
    fn write_gone(&mut self, _agents: &[AgentId]) -> Bytes {
        Bytes::new()
    }
}

/// Who subscribes.
pub struct Subscriber {
    /// Which framework; `None`: a new one.
    pub framework: Option<FrameworkId>,
    /// What it is.
    pub info: FrameworkInfo,
    /// Roles that want no offers yet.
    pub suppressed: Vec<Role>,
    /// What it wants to be shown.
    pub filters: Filters,
    /// What it wants; nothing: whatever comes.
    pub wishes: Vec<Wish>,
    /// The number of the subscription, [`draw`]n.
    pub stream: u128,
}

/// Subscribes; the body ends with the subscription. A framework that was removed is told so in the body.
///
/// # Errors
/// An [`ApiError`]: why there is no subscription.
pub async fn subscribe<W: Words>(api: &Arc<Api>, subscriber: Subscriber, mut words: W) -> Result<Body, ApiError> {
    let Subscriber { framework, info, suppressed, filters, wishes, stream } = subscriber;
    let shard = framework.map_or_else(|| api.shard_led_here(), |framework| Some(framework.shard()));
    let shard = shard.ok_or(Refusal::Unled)?;
    api.all_understand()?;
    let (replies, mut answers) = mpsc::channel(EVENTS_WAITING_MAX);
    let subscribed = Request::Framework(FrameworkRequest::Subscribe { framework, info: info.clone(), suppressed, filters, wishes, stream });
    api.door.post(shard, subscribed, RequestId(0), replies)?;
    let first = tokio::time::timeout(SUBSCRIBED_WITHIN, answers.recv()).await.ok().flatten();
    let events = match first {
        Some((_, Answer::Framework(events))) => events,
        Some((_, Answer::Refused(Refusal::Conflict { reason }))) => vec![FrameworkEvent::Error(reason)],
        Some((_, Answer::Refused(refusal))) => return Err(refusal.into()),
        _ => return Err(Refusal::Unled.into()),
    };
    let id = events.iter().find_map(|event| if let FrameworkEvent::Subscribed(id) = event { Some(*id) } else { None });
    if let Some(id) = id {
        api.frameworks.insert(id, info);
    }
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let left = Left { api: Arc::clone(api), shard, framework: id, stream };
    let failures = W::HEARS_OF_AGENTS.then(|| api.failures.listen());
    let reading = Reading { first: Some(words.write(&events)), over: ends(&events), words, answers, failures, heartbeat, left };
    Ok(Body::from_stream(futures::stream::unfold(reading, next)))
}

/// A number for a subscription: a UUID of version 4, variant 1 (RFC 9562 section 5.4).
///
/// # Errors
/// An [`ApiError`] where the system gives no random bytes.
pub fn draw() -> Result<u128, ApiError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ApiError::internal("the system gives no random bytes"))?;
    (bytes[6], bytes[8]) = (bytes[6] & 0x0f | 0x40, bytes[8] & 0x3f | 0x80);
    Ok(u128::from_be_bytes(bytes))
}

/// The number of a subscription as people see it.
#[must_use]
pub fn text(stream: u128) -> String {
    let digits = format!("{stream:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// The number that this text is.
#[must_use]
pub fn number(text: &str) -> Option<u128> {
    let digits = text.replace('-', "");
    (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten()
}

/// A subscription that is read.
struct Reading<W> {
    first: Option<Bytes>,
    over: bool,
    words: W,
    answers: mpsc::Receiver<(RequestId, Answer)>,
    failures: Option<Receiver<AgentId>>,
    heartbeat: Interval,
    left: Left,
}

/// Says, when it is dropped, that nobody reads any more.
struct Left {
    api: Arc<Api>,
    shard: ShardId,
    framework: Option<FrameworkId>,
    stream: u128,
}

impl Drop for Left {
    fn drop(&mut self) {
        let Some(framework) = self.framework else { return };
        let gone = Request::Framework(FrameworkRequest::Unsubscribe { framework, stream: self.stream });
        // Where it cannot be said now, the shard notices when it looks who still waits.
        let _ = self.api.door.post(self.shard, gone, RequestId(0), mpsc::channel(1).0);
    }
}

async fn next<W: Words>(mut reading: Reading<W>) -> Option<(Result<Bytes, Infallible>, Reading<W>)> {
    if let Some(first) = reading.first.take() {
        return Some((Ok(first), reading));
    }
    if reading.over {
        return None;
    }
    let mut events = tokio::select! {
        answer = reading.answers.recv() => match answer {
            Some((_, Answer::Framework(events))) => events,
            Some((_, Answer::Refused(refusal))) => vec![FrameworkEvent::Error(refusal.to_string())],
            // It was ended.
            _ => return None,
        },
        agents = gone(&mut reading.failures) => {
            let written = reading.words.write_gone(&agents);
            return Some((Ok(written), reading));
        }
        _ = reading.heartbeat.tick() => vec![],
    };
    while let Ok((_, Answer::Framework(more))) = reading.answers.try_recv() {
        events.extend(more);
    }
    if let (Some(id), Some(info)) = (reading.left.framework, changed(&events)) {
        reading.left.api.frameworks.insert(id, info.clone());
    }
    reading.over = ends(&events);
    Some((Ok(reading.words.write(&events)), reading))
}

/// What the framework is now, where it is another than before.
fn changed(events: &[FrameworkEvent]) -> Option<&FrameworkInfo> {
    events.iter().rev().find_map(|event| if let FrameworkEvent::Changed(info) = event { Some(&**info) } else { None })
}

fn ends(events: &[FrameworkEvent]) -> bool {
    events.iter().any(|event| matches!(event, FrameworkEvent::Error(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_stream_is_a_uuid() {
        let stream = draw().unwrap();
        let text = text(stream);
        assert_eq!((text.len(), number(&text)), (36, Some(stream)));
        assert_eq!((&text[14..15], text.matches('-').count()), ("4", 4));
        assert_eq!((number("x"), number("")), (None, None));
    }
}
