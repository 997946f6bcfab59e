//! What a framework is told, as lines of JSON: data only, and how it is made of what the shard says.

use super::jobs_json::{AmountBody, ExitBody, phase_text};
use super::reservations::ReservationBody;
use super::subscription::{self, Words};
use crate::frameworks::{Cause, FrameworkEvent, InverseOffer, OpenOffer, StatusUpdate};
use bytes::{BufMut as _, Bytes, BytesMut};
use protocol::{AgentId, OfferId, ShardId, Time};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// One line that a framework is told: one of these. A line of an empty object says that the connection lives.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct EventBody<'a> {
    /// It is subscribed.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribed: Option<SubscribedBody>,
    /// It may take of these, until they are rescinded.
    #[serde(skip_serializing_if = "Option::is_none")]
    offers: Option<Vec<OfferBody<'a>>>,
    /// It may take nothing of these any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    rescinded: Option<Vec<String>>,
    /// A task is in another state; said again until it is acknowledged, where it has a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<UpdateBody<'a>>,
    /// A task has said how far it is, with `skep:task/context.progress`: the latest word, said once, and lost where nobody is subscribed.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageBody<'a>>,
    /// Can it do without its tasks on these agents, which are to be maintained?
    #[serde(skip_serializing_if = "Option::is_none")]
    inverse_offers: Option<Vec<InverseBody>>,
    /// It is not asked these any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    inverse_rescinded: Option<Vec<String>>,
    /// It is subscribed no more, and why: nothing follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Who a framework is.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubscribedBody {
    /// Its id: what it comes back with.
    id: String,
    /// The subscription: what its calls name.
    stream: String,
}

/// Resources of one agent.
#[derive(Debug, Serialize, ToSchema)]
pub struct OfferBody<'a> {
    /// Its id.
    id: String,
    /// The agent's id.
    agent: String,
    /// What people call the agent.
    name: &'a str,
    /// For which role.
    role: &'a str,
    /// How much.
    resources: AmountBody,
    /// What of it is of reservations for the role.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reserved: Vec<ReservationBody>,
    /// Ports that are not known to be taken, as ranges of which both ends belong to it.
    ports: Vec<[u16; 2]>,
    /// Facts about the agent.
    attributes: &'a BTreeMap<String, String>,
    /// Its region, zone and rack; an empty part is not known.
    domain: [&'a str; 3],
    /// When it is to be maintained; missing where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailability: Option<UnavailableBody>,
}

/// An agent that is to be maintained.
#[derive(Debug, Serialize, ToSchema)]
pub struct InverseBody {
    /// What an answer names.
    id: String,
    /// The agent's id.
    agent: String,
    /// When.
    unavailability: UnavailableBody,
}

/// When an agent is not there.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct UnavailableBody {
    /// From when on, in milliseconds of the Unix epoch.
    from_ms: u64,
    /// Until when, likewise; missing: until somebody ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
}

/// What a task says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageBody<'a> {
    /// What the framework calls the task.
    task: &'a str,
    /// Where it is.
    agent: String,
    /// How far it is, 0 to 100.
    percent: u8,
    /// In its own words, at most 256 bytes.
    text: &'a str,
}

/// The state of a task.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpdateBody<'a> {
    /// What the framework calls it.
    task: &'a str,
    /// Its job's id: `JOB.0` is what people call the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// Where it is, was or was to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    /// Its state.
    state: &'a str,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<ExitBody>,
    /// Why this is said: `news`, `reconciled`, `offers-gone`, `invalid`, `unknown` or `health`.
    cause: &'a str,
    /// Where that is why: whether its check succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    healthy: Option<bool>,
    /// The same for people, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Its ports.
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    ports: &'a [u16],
    /// When it got into this state, in milliseconds of the Unix epoch.
    at_ms: u64,
    /// To be acknowledged with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<String>,
}

/// An offer's id as text.
pub fn offer_text(offer: OfferId) -> String {
    format!("o{}-{}", offer.shard.0, offer.number)
}

/// The offer whose id this is.
pub fn offer_id(text: &str) -> Option<OfferId> {
    let (shard, number) = text.strip_prefix('o')?.split_once('-')?;
    Some(OfferId { shard: ShardId(shard.parse().ok()?), number: number.parse().ok()? })
}

/// An inverse offer's id as text.
pub fn inverse_text(offer: OfferId) -> String {
    format!("i{}-{}", offer.shard.0, offer.number)
}

/// The inverse offer whose id this is.
pub fn inverse_id(text: &str) -> Option<OfferId> {
    offer_id(&format!("o{}", text.strip_prefix('i')?))
}

impl<'a> OfferBody<'a> {
    fn of(offer: &'a OpenOffer, unavailable: &BTreeMap<AgentId, UnavailableBody>) -> Self {
        Self { unavailability: unavailable.get(&offer.agent).copied(), ..Self::from(offer) }
    }
}

impl UnavailableBody {
    fn new(from: Time, until: Option<Time>) -> Self {
        Self { from_ms: from.0, until_ms: until.map(|until| until.0) }
    }
}

/// Lines of JSON.
pub struct Lines {
    /// The number of the subscription.
    pub stream: u128,
}

impl Words for Lines {
    fn write(&mut self, events: &[FrameworkEvent]) -> Bytes {
        let mut output = BytesMut::new();
        let mut line = |body: &EventBody<'_>| {
            serde_json::to_writer((&mut output).writer(), body)
                .expect("an event has text for keys, and memory does not fail to be written");
            output.put_u8(b'\n');
        };
        if events.is_empty() {
            line(&EventBody::default());
        }
        let mut unavailable = BTreeMap::new();
        for event in events {
            line(&match event {
                FrameworkEvent::Unavailable(agents) => {
                    unavailable.extend(agents.iter().map(|(agent, from, until)| (*agent, UnavailableBody::new(*from, *until))));
                    continue;
                }
                FrameworkEvent::InverseOffers(offers) => {
                    let offer = |offer: &InverseOffer| InverseBody {
                        id: inverse_text(offer.id),
                        agent: offer.agent.to_string(),
                        unavailability: UnavailableBody::new(offer.from, offer.until),
                    };
                    EventBody { inverse_offers: Some(offers.iter().map(offer).collect()), ..EventBody::default() }
                }
                FrameworkEvent::InverseRescinded(offers) => {
                    let offers = offers.iter().copied().map(inverse_text).collect();
                    EventBody { inverse_rescinded: Some(offers), ..EventBody::default() }
                }
                FrameworkEvent::Subscribed(id) => {
                    let subscribed = SubscribedBody { id: id.to_string(), stream: subscription::text(self.stream) };
                    EventBody { subscribed: Some(subscribed), ..EventBody::default() }
                }
                FrameworkEvent::Offers(offers) => {
                    let told = |offer| OfferBody::of(offer, &unavailable);
                    EventBody { offers: Some(offers.iter().map(told).collect()), ..EventBody::default() }
                }
                FrameworkEvent::Rescinded(offers) => {
                    EventBody { rescinded: Some(offers.iter().copied().map(offer_text).collect()), ..EventBody::default() }
                }
                FrameworkEvent::Update(update) => EventBody { update: Some(update.into()), ..EventBody::default() },
                FrameworkEvent::Message { task, agent, percent, text, .. } => {
                    let message = MessageBody { task, agent: agent.to_string(), percent: *percent, text };
                    EventBody { message: Some(message), ..EventBody::default() }
                }
                // It said so itself.
                FrameworkEvent::Changed(_) => continue,
                FrameworkEvent::Error(reason) => EventBody { error: Some(reason), ..EventBody::default() },
            });
        }
        output.freeze()
    }
}

impl<'a> From<&'a OpenOffer> for OfferBody<'a> {
    fn from(offer: &'a OpenOffer) -> Self {
        let domain = &offer.info.domain;
        Self {
            id: offer_text(offer.id),
            agent: offer.agent.to_string(),
            name: &offer.info.name,
            role: offer.role.as_str(),
            resources: (&offer.resources).into(),
            reserved: offer.reserved.iter().map(ReservationBody::from).collect(),
            ports: offer.ports.iter().map(|range| [range.first, range.last]).collect(),
            attributes: &offer.info.attributes,
            domain: [&domain.region, &domain.zone, &domain.rack],
            unavailability: None,
        }
    }
}

impl<'a> From<&'a StatusUpdate> for UpdateBody<'a> {
    fn from(update: &'a StatusUpdate) -> Self {
        let (cause, reason) = match &update.cause {
            Cause::News => ("news", None),
            Cause::Reconciled => ("reconciled", None),
            Cause::Offers => ("offers-gone", Some("the offers do not hold any more")),
            Cause::Invalid(reason) => ("invalid", Some(reason.as_str())),
            Cause::Unknown => ("unknown", Some("there is no such task")),
            Cause::Group(reason) => ("invalid", Some(reason.as_str())),
            Cause::Health { reason, .. } => ("health", Some(reason.as_str()).filter(|reason| !reason.is_empty())),
        };
        let healthy = if let Cause::Health { healthy, .. } = update.cause { Some(healthy) } else { None };
        Self {
            task: &update.task,
            job: update.job.map(|job| job.to_string()),
            agent: update.agent.map(|agent| agent.to_string()),
            state: phase_text(update.phase),
            exit: update.exit.as_ref().map(ExitBody::from),
            cause,
            healthy,
            reason,
            ports: &update.ports,
            at_ms: update.at.0,
            uuid: update.uuid.map(subscription::text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frameworks::FrameworkId;

    #[test]
    fn a_line_says_one_thing_and_an_empty_one_that_the_connection_lives() {
        let mut lines = Lines { stream: 7 };
        let offer = OfferId { shard: ShardId(3), number: 9 };
        let events =
            [FrameworkEvent::Subscribed(FrameworkId(5)), FrameworkEvent::Rescinded(vec![offer]), FrameworkEvent::Error("over".into())];
        let stream = subscription::text(7);
        let expected =
            format!("{{\"subscribed\":{{\"id\":\"f5\",\"stream\":\"{stream}\"}}}}\n{{\"rescinded\":[\"o3-9\"]}}\n{{\"error\":\"over\"}}\n");
        assert_eq!(std::str::from_utf8(&lines.write(&events)).unwrap(), expected);
        assert_eq!(lines.write(&[]), "{}\n");
        let cause = Cause::Health { healthy: false, reason: "no answer".into() };
        let (phase, at) = (protocol::Phase::Running, protocol::Time(7));
        let update = StatusUpdate { task: "t".into(), job: None, agent: None, phase, exit: None, cause, ports: vec![], at, uuid: None };
        let line = lines.write(&[FrameworkEvent::Update(update)]);
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let body = &line["update"];
        assert_eq!((&body["cause"], &body["healthy"], &body["reason"]), (&"health".into(), &false.into(), &"no answer".into()), "{line}");
        assert_eq!((offer_id("o3-9"), offer_id("o3"), offer_id("3-9"), offer_id("o-1-2")), (Some(offer), None, None, None));
    }
}
