//! What a framework is told, in Mesos' words: the events of `mesos/v1/scheduler/scheduler.proto`, as records of RecordIO (`SIZE\nDATA`).

use super::reserved::{self, Format};
use super::words;
use crate::frameworks::{Cause, FrameworkEvent, FrameworkInfo, InverseOffer, OpenOffer, StatusUpdate};
use crate::http::frameworks_json::{inverse_text, offer_text};
use crate::http::subscription::{HEARTBEAT, Words};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use protocol::{AgentId, Exit, Loss, Phase};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the adapter knows of the framework and of this master.
#[derive(Clone, Debug)]
pub struct Told {
    /// The framework's id, once it is known.
    pub framework: String,
    /// True where it takes the states of Mesos' partition-aware frameworks.
    pub partition_aware: bool,
    /// How it reads reservations.
    pub format: Format,
    /// True where it takes `TASK_KILLING`.
    pub knows_killing: bool,
    /// What it is told of the master.
    pub master: Value,
    /// When agents of the offers that follow are not there.
    pub unavailable: BTreeMap<AgentId, Value>,
}

impl Told {
    /// For a framework of this id, as far as it is known, that says this of itself.
    pub fn new(framework: String, info: &FrameworkInfo, master: Value) -> Self {
        Self {
            framework,
            partition_aware: info.is_partition_aware(),
            format: if info.knows_refinement() { Format::Refined } else { Format::Plain },
            knows_killing: info.knows_killing(),
            master,
            unavailable: BTreeMap::new(),
        }
    }

    /// An event as Mesos writes it.
    pub fn event(&mut self, event: &FrameworkEvent) -> Vec<Value> {
        let one = |value| vec![value];
        match event {
            FrameworkEvent::Subscribed(id) => {
                self.framework = id.to_string();
                one(json!({ "type": "SUBSCRIBED", "subscribed": {
                    "framework_id": { "value": self.framework },
                    "heartbeat_interval_seconds": HEARTBEAT.as_secs_f64(),
                    "master_info": self.master,
                } }))
            }
            FrameworkEvent::Offers(offers) => {
                let unavailable = std::mem::take(&mut self.unavailable);
                let all = offers.iter().map(|offer| {
                    let mut value = self::offer(offer, &self.framework, self.format);
                    words::put(&mut value, "unavailability", unavailable.get(&offer.agent).cloned());
                    value
                });
                let all: Vec<Value> = all.collect();
                one(json!({ "type": "OFFERS", "offers": { "offers": all } }))
            }
            FrameworkEvent::Rescinded(offers) => offers
                .iter()
                .map(|offer| json!({ "type": "RESCIND", "rescind": { "offer_id": { "value": offer_text(*offer) } } }))
                .collect(),
            FrameworkEvent::Update(update) => one(json!({ "type": "UPDATE", "update": { "status": self.status(update) } })),
            FrameworkEvent::Changed(info) => {
                (self.partition_aware, self.knows_killing) = (info.is_partition_aware(), info.knows_killing());
                vec![]
            }
            FrameworkEvent::Unavailable(agents) => {
                self.unavailable = agents.iter().map(|(agent, from, until)| (*agent, words::unavailability(*from, *until))).collect();
                vec![]
            }
            FrameworkEvent::InverseOffers(offers) => {
                let offer = |offer: &InverseOffer| {
                    json!({
                        "id": { "value": inverse_text(offer.id) },
                        "framework_id": { "value": self.framework },
                        "agent_id": { "value": offer.agent.to_string() },
                        "unavailability": words::unavailability(offer.from, offer.until),
                    })
                };
                let all: Vec<Value> = offers.iter().map(offer).collect();
                one(json!({ "type": "INVERSE_OFFERS", "inverse_offers": { "inverse_offers": all } }))
            }
            FrameworkEvent::InverseRescinded(offers) => offers
                .iter()
                .map(|offer| {
                    let id = json!({ "value": inverse_text(*offer) });
                    json!({ "type": "RESCIND_INVERSE_OFFER", "rescind_inverse_offer": { "inverse_offer_id": id } })
                })
                .collect(),
            FrameworkEvent::Message { task, agent, text, .. } => one(json!({ "type": "MESSAGE", "message": {
                "agent_id": { "value": agent.to_string() },
                "executor_id": { "value": task },
                "data": STANDARD.encode(text),
            } })),
            FrameworkEvent::Error(message) => one(json!({ "type": "ERROR", "error": { "message": message } })),
        }
    }

    /// The state of a task.
    pub fn status(&self, update: &StatusUpdate) -> Value {
        let (state, reason) = self.state(update);
        let source = match (&update.cause, update.phase) {
            (Cause::News, Phase::Unreachable | Phase::Lost) => "SOURCE_MASTER",
            (Cause::News, Phase::Rejected) => "SOURCE_AGENT",
            (Cause::News | Cause::Health { .. }, _) => "SOURCE_EXECUTOR",
            _ => "SOURCE_MASTER",
        };
        let message = match (&update.exit, &update.cause) {
            (Some(exit), _) => exit.to_string(),
            (None, Cause::Invalid(reason) | Cause::Group(reason) | Cause::Health { reason, .. }) => reason.clone(),
            (None, Cause::Offers) => "the offers do not hold any more".into(),
            (None, Cause::Unknown) => "there is no such task".into(),
            (None, Cause::Reconciled) => "reconciled: the latest state".into(),
            (None, Cause::News) => String::new(),
        };
        let mut status = json!({
            "task_id": { "value": update.task },
            "state": state,
            "source": source,
            "timestamp": update.at.0 as f64 / 1_000.0,
            "executor_id": { "value": update.task },
            "agent_id": { "value": update.agent.map(|agent| agent.to_string()).unwrap_or_default() },
        });
        words::put(&mut status, "message", (!message.is_empty()).then(|| message.into()));
        words::put(&mut status, "reason", reason.map(Value::from));
        let healthy = match (&update.cause, &update.exit) {
            (_, Some(Exit::Unhealthy { .. })) => Some(false),
            (Cause::Health { healthy, .. }, _) => Some(*healthy),
            _ => None,
        };
        words::put(&mut status, "healthy", healthy.map(Value::from));
        words::put(&mut status, "uuid", update.uuid.map(|uuid| STANDARD.encode(uuid.to_be_bytes()).into()));
        words::put(&mut status, "container_status", update.job.map(|job| json!({ "container_id": { "value": job.to_string() } })));
        let since = (update.phase == Phase::Unreachable).then(|| json!({ "nanoseconds": update.at.0.saturating_mul(1_000_000) }));
        words::put(&mut status, "unreachable_time", since);
        status
    }

    /// The state that a phase is, where nothing else is known of the task.
    pub fn state_of(&self, phase: Phase) -> &'static str {
        match phase {
            Phase::Waiting | Phase::Staging => "TASK_STAGING",
            Phase::Starting => "TASK_STARTING",
            Phase::Killing if self.knows_killing => "TASK_KILLING",
            Phase::Running | Phase::Killing => "TASK_RUNNING",
            Phase::Unreachable if self.partition_aware => "TASK_UNREACHABLE",
            Phase::Finished => "TASK_FINISHED",
            Phase::Failed => "TASK_FAILED",
            Phase::Killed => "TASK_KILLED",
            Phase::Rejected => "TASK_ERROR",
            Phase::Lost if self.partition_aware => "TASK_GONE",
            Phase::Lost | Phase::Unreachable => "TASK_LOST",
        }
    }

    fn state(&self, update: &StatusUpdate) -> (&'static str, Option<&'static str>) {
        let aware = |aware: &'static str| if self.partition_aware { aware } else { "TASK_LOST" };
        let asked = (update.cause == Cause::Reconciled).then_some("REASON_RECONCILIATION");
        match (&update.cause, &update.exit, update.phase) {
            (Cause::Offers, ..) => (aware("TASK_DROPPED"), Some("REASON_INVALID_OFFERS")),
            (Cause::Invalid(_), ..) => ("TASK_ERROR", Some("REASON_TASK_INVALID")),
            (Cause::Group(_), ..) => ("TASK_ERROR", Some("REASON_TASK_GROUP_INVALID")),
            (Cause::Unknown, ..) => (aware("TASK_UNKNOWN"), Some("REASON_RECONCILIATION")),
            (Cause::Health { .. }, ..) => (self.state_of(update.phase), Some("REASON_TASK_HEALTH_CHECK_STATUS_UPDATED")),
            (_, Some(exit), _) => {
                let (state, reason) = ended(exit);
                let known = !is_lost(exit) || matches!(state, "TASK_FAILED" | "TASK_KILLED");
                (if known { state } else { aware(state) }, asked.or(reason))
            }
            (_, None, Phase::Unreachable) => (self.state_of(Phase::Unreachable), asked.or(Some("REASON_AGENT_REMOVED"))),
            (_, None, phase) => (self.state_of(phase), asked),
        }
    }
}

const fn is_lost(exit: &Exit) -> bool {
    matches!(exit, Exit::Lost { .. })
}

/// How a task ended, in the states of partition-aware frameworks.
const fn ended(exit: &Exit) -> (&'static str, Option<&'static str>) {
    match exit {
        Exit::Code(0) => ("TASK_FINISHED", None),
        // With Mesos an executor kills what is not well, and says so beside it (`src/launcher/executor.cpp`).
        Exit::Killed | Exit::Unhealthy { .. } => ("TASK_KILLED", None),
        Exit::Rejected { .. } => ("TASK_ERROR", Some("REASON_TASK_INVALID")),
        Exit::OutOfMemory { .. } => ("TASK_FAILED", Some("REASON_CONTAINER_LIMITATION_MEMORY")),
        Exit::OutOfDisk { .. } => ("TASK_FAILED", Some("REASON_CONTAINER_LIMITATION_DISK")),
        Exit::OutOfTime { .. } => ("TASK_FAILED", Some("REASON_MAX_COMPLETION_TIME_REACHED")),
        Exit::OutOfFuel { .. }
        | Exit::OutOfCpuTime { .. }
        | Exit::OutOfProcesses { .. }
        | Exit::OutOfTable { .. }
        | Exit::OutOfHostBytes { .. } => ("TASK_FAILED", Some("REASON_CONTAINER_LIMITATION")),
        Exit::Lost { reason } => match reason {
            Loss::Refused => ("TASK_DROPPED", Some("REASON_RESOURCES_UNKNOWN")),
            Loss::AgentGone => ("TASK_GONE_BY_OPERATOR", Some("REASON_AGENT_REMOVED_BY_OPERATOR")),
            Loss::Drained => ("TASK_KILLED", Some("REASON_AGENT_DRAINING")),
            Loss::Preempted | Loss::Revoked => ("TASK_GONE", Some("REASON_CONTAINER_PREEMPTED")),
            Loss::Executor => ("TASK_FAILED", Some("REASON_EXECUTOR_TERMINATED")),
            Loss::Reboot | Loss::Forgotten => ("TASK_GONE", Some("REASON_AGENT_RESTARTED")),
            Loss::AgentSilent | Loss::LeaseOver => ("TASK_GONE", Some("REASON_AGENT_REMOVED")),
        },
        _ => ("TASK_FAILED", Some("REASON_COMMAND_EXECUTOR_FAILED")),
    }
}

impl Words for Told {
    const HEARS_OF_AGENTS: bool = true;

    fn write_gone(&mut self, agents: &[AgentId]) -> Bytes {
        let failure = |agent: &AgentId| json!({ "type": "FAILURE", "failure": { "agent_id": { "value": agent.to_string() } } });
        let mut output = BytesMut::new();
        records(&agents.iter().map(failure).collect::<Vec<_>>(), &mut output);
        output.freeze()
    }

    fn write(&mut self, events: &[FrameworkEvent]) -> Bytes {
        let mut output = BytesMut::new();
        let events: Vec<Value> = events.iter().flat_map(|event| self.event(event)).collect();
        records(&events, &mut output);
        output.freeze()
    }
}

/// An offer.
pub fn offer(offer: &OpenOffer, framework: &str, format: Format) -> Value {
    let mut value = json!({
        "id": { "value": offer_text(offer.id) },
        "framework_id": { "value": framework },
        "agent_id": { "value": offer.agent.to_string() },
        "hostname": offer.info.name,
        "url": words::address(&offer.info),
        "resources": reserved::resources(&offer.resources, &offer.ports, &offer.reserved, &offer.role, format),
        "attributes": words::attributes(&offer.info),
        "executor_ids": [],
        "allocation_info": { "role": words::role_text(&offer.role) },
    });
    words::put(&mut value, "domain", words::domain(&offer.info));
    value
}

/// The same JSON without a character beyond ASCII: clients count characters where a record's size is in bytes.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            c if c.is_ascii() => text.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    text
}

/// Writes records, each an event; and behind them a heartbeat, since clients that read lines see a record only when the next one begins.
pub fn records(events: &[Value], output: &mut BytesMut) {
    for event in events.iter().chain([&json!({ "type": "HEARTBEAT" })]) {
        let text = ascii(&event.to_string());
        output.put_slice(text.len().to_string().as_bytes());
        output.put_u8(b'\n');
        output.put_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frameworks::FrameworkId;

    #[test]
    fn a_burst_is_followed_by_a_heartbeat_and_is_ascii() {
        let mut output = BytesMut::new();
        records(&[json!({ "a": "é𝄞" })], &mut output);
        assert_eq!(std::str::from_utf8(&output).unwrap(), "26\n{\"a\":\"\\u00e9\\ud834\\udd1e\"}20\n{\"type\":\"HEARTBEAT\"}");
    }

    #[test]
    fn states_and_reasons_are_those_that_a_framework_can_take() {
        let told = |partition_aware, knows_killing| Told {
            format: Format::Plain,
            framework: "f1".into(),
            partition_aware,
            knows_killing,
            master: Value::Null,
            unavailable: BTreeMap::new(),
        };
        let update = |phase, exit, cause| StatusUpdate {
            task: "t".into(),
            job: None,
            agent: None,
            phase,
            exit,
            cause,
            ports: vec![],
            at: protocol::Time(1_500),
            uuid: Some(1),
        };
        let lost = |reason| Some(Exit::Lost { reason });
        for (phase, exit, cause, aware, other) in [
            (Phase::Running, None, Cause::News, "TASK_RUNNING", "TASK_RUNNING"),
            (Phase::Killing, None, Cause::News, "TASK_KILLING", "TASK_RUNNING"),
            (Phase::Unreachable, None, Cause::News, "TASK_UNREACHABLE", "TASK_LOST"),
            (Phase::Finished, Some(Exit::Code(0)), Cause::News, "TASK_FINISHED", "TASK_FINISHED"),
            (Phase::Failed, Some(Exit::Code(1)), Cause::News, "TASK_FAILED", "TASK_FAILED"),
            (Phase::Killed, Some(Exit::Killed), Cause::Reconciled, "TASK_KILLED", "TASK_KILLED"),
            (Phase::Lost, lost(Loss::Refused), Cause::News, "TASK_DROPPED", "TASK_LOST"),
            (Phase::Lost, lost(Loss::AgentGone), Cause::News, "TASK_GONE_BY_OPERATOR", "TASK_LOST"),
            (Phase::Lost, lost(Loss::Executor), Cause::News, "TASK_FAILED", "TASK_FAILED"),
            (Phase::Lost, lost(Loss::Drained), Cause::News, "TASK_KILLED", "TASK_KILLED"),
            (Phase::Lost, lost(Loss::AgentSilent), Cause::News, "TASK_GONE", "TASK_LOST"),
            (Phase::Lost, None, Cause::Offers, "TASK_DROPPED", "TASK_LOST"),
            (Phase::Lost, None, Cause::Unknown, "TASK_UNKNOWN", "TASK_LOST"),
            (Phase::Rejected, None, Cause::Invalid("x".into()), "TASK_ERROR", "TASK_ERROR"),
            (Phase::Running, None, Cause::Health { healthy: true, reason: String::new() }, "TASK_RUNNING", "TASK_RUNNING"),
            (Phase::Failed, Some(Exit::Unhealthy { reason: "x".into() }), Cause::News, "TASK_KILLED", "TASK_KILLED"),
        ] {
            let update = update(phase, exit, cause);
            assert_eq!(told(true, true).status(&update)["state"], aware, "{update:?}");
            let status = told(false, false).status(&update);
            assert_eq!(
                (&status["state"], &status["timestamp"], &status["uuid"]),
                (&json!(other), &json!(1.5), &json!("AAAAAAAAAAAAAAAAAAAAAQ=="))
            );
            let healthy = match (&update.cause, &update.exit) {
                (Cause::Health { .. }, _) => json!(true),
                (_, Some(Exit::Unhealthy { .. })) => json!(false),
                _ => Value::Null,
            };
            assert_eq!(status["healthy"], healthy, "{update:?}");
        }
    }

    #[test]
    fn what_a_framework_is_told_has_the_form_of_the_protos() {
        let mut told = Told {
            format: Format::Plain,
            framework: String::new(),
            partition_aware: false,
            knows_killing: false,
            master: json!({}),
            unavailable: BTreeMap::new(),
        };
        let subscribed = told.event(&FrameworkEvent::Subscribed(FrameworkId(5)));
        assert_eq!(subscribed[0]["subscribed"]["framework_id"]["value"], "f5");
        let offer = protocol::OfferId { shard: protocol::ShardId(3), number: 9 };
        assert_eq!(told.event(&FrameworkEvent::Rescinded(vec![offer]))[0]["rescind"]["offer_id"]["value"], "o3-9");
        assert_eq!(told.event(&FrameworkEvent::Error("x".into()))[0]["error"]["message"], "x");
    }
}
