//! What a framework says, in Mesos' words: the calls of `mesos/v1/scheduler/scheduler.proto`. What is missing or wrong is said as Mesos does, with
//! status 400.

use super::filters;
use super::reserved;
use super::words::{self, id, list, member, nanoseconds, number, text, whole};
use crate::frameworks::{Filters, FrameworkId, FrameworkInfo, REFUSE_MS_DEFAULT, REFUSE_MS_MAX};
use crate::http::frameworks_json::{inverse_id, offer_id};
use crate::shard::reservations::ReservationChange;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::{AgentId, OfferId, Role};
use serde_json::Value;

/// What is called.
#[derive(Debug)]
pub enum Said {
    Subscribe {
        info: FrameworkInfo,
        suppressed: Vec<Role>,
        filters: Filters,
    },
    /// Tasks still in Mesos' words: what of them can be run is looked at one by one.
    Accept {
        offers: Vec<OfferId>,
        reservations: Vec<ReservationChange>,
        tasks: Vec<Value>,
        groups: Vec<Vec<Value>>,
        others: Vec<String>,
        refuse_ms: u64,
    },
    Decline {
        offers: Vec<OfferId>,
        refuse_ms: u64,
    },
    Revive(Vec<Role>),
    Suppress(Vec<Role>),
    Kill {
        task: String,
        grace_ms: Option<u64>,
    },
    Acknowledge {
        task: String,
        uuid: u128,
    },
    Reconcile(Vec<String>),
    Update {
        info: FrameworkInfo,
        suppressed: Vec<Role>,
        filters: Filters,
    },
    AnswerInverse {
        accepted: bool,
        offers: Vec<OfferId>,
    },
    Message {
        task: String,
        agent: AgentId,
        data: Vec<u8>,
    },
    Teardown,
    /// Taken in, and nothing is done.
    Ignored,
    /// What this version of the API does not know.
    Unknown(String),
}

/// The framework that a call is of, and what it says.
///
/// # Errors
/// What is wrong with it.
pub fn read(call: &Value, principal: &str) -> Result<(Option<FrameworkId>, Said), String> {
    let kind = text(call, "type").ok_or("Failed to validate scheduler::Call: Expecting 'type' to be present")?;
    let framework = match id(call, "framework_id") {
        Some(text) => Some(text.parse::<FrameworkId>().map_err(|_| "Framework cannot be found".to_owned())?),
        None => None,
    };
    let within = |name: &str| member(call, name).ok_or(format!("Failed to validate scheduler::Call: Expecting '{name}' to be present"));
    let said = match kind {
        "SUBSCRIBE" => {
            let subscribe = within("subscribe")?;
            let info = info(subscribe, principal)?;
            if id(member(subscribe, "framework_info").unwrap_or(&Value::Null), "id") != id(call, "framework_id") {
                return Err("'framework_id' differs from 'subscribe.framework_info.id'".into());
            }
            Said::Subscribe { info, suppressed: roles(subscribe, "suppressed_roles")?, filters: filters::read(subscribe)? }
        }
        "ACCEPT" => accept(within("accept")?)?,
        "DECLINE" => {
            let decline = within("decline")?;
            Said::Decline { offers: offers(decline), refuse_ms: refuse_ms(decline) }
        }
        "REVIVE" => Said::Revive(member(call, "revive").map_or(Ok(vec![]), |revive| roles(revive, "roles"))?),
        "SUPPRESS" => Said::Suppress(member(call, "suppress").map_or(Ok(vec![]), |suppress| roles(suppress, "roles"))?),
        "KILL" => {
            let kill = within("kill")?;
            let grace_ms = member(kill, "kill_policy").and_then(|policy| nanoseconds(policy, "grace_period"));
            Said::Kill { task: needed(kill, "task_id")?, grace_ms }
        }
        "ACKNOWLEDGE" => {
            let acknowledge = within("acknowledge")?;
            needed(acknowledge, "agent_id").or_else(|error| id(acknowledge, "slave_id").map(str::to_owned).ok_or(error))?;
            let uuid = text(acknowledge, "uuid").and_then(|uuid| STANDARD.decode(uuid).ok()).and_then(|bytes| bytes.try_into().ok());
            let uuid = uuid.ok_or("'uuid' is not the 16 bytes of a UUID")?;
            Said::Acknowledge { task: needed(acknowledge, "task_id")?, uuid: u128::from_be_bytes(uuid) }
        }
        "RECONCILE" => {
            let tasks = list(within("reconcile")?, "tasks").iter();
            Said::Reconcile(tasks.map(|task| needed(task, "task_id")).collect::<Result<_, _>>()?)
        }
        "UPDATE_FRAMEWORK" => {
            let update = within("update_framework")?;
            if id(member(update, "framework_info").unwrap_or(&Value::Null), "id")
                .is_some_and(|given| Some(given) != id(call, "framework_id"))
            {
                return Err("'framework_id' differs from 'update_framework.framework_info.id'".into());
            }
            let suppressed = roles(update, "suppressed_roles")?;
            Said::Update { info: info(update, principal)?, suppressed, filters: filters::read(update)? }
        }
        "TEARDOWN" => Said::Teardown,
        "ACCEPT_INVERSE_OFFERS" => Said::AnswerInverse { accepted: true, offers: inverse(within("accept_inverse_offers")?) },
        "DECLINE_INVERSE_OFFERS" => Said::AnswerInverse { accepted: false, offers: inverse(within("decline_inverse_offers")?) },
        "MESSAGE" => {
            let message = within("message")?;
            let agent = needed(message, "agent_id").or_else(|error| id(message, "slave_id").map(str::to_owned).ok_or(error))?;
            // A task is its own executor, as with Mesos' command executor.
            let task = needed(message, "executor_id")?;
            let data = text(message, "data").and_then(|data| STANDARD.decode(data).ok());
            let data = data.ok_or("Failed to validate scheduler::Call: Expecting 'data' to be present")?;
            agent.parse().map_or(Said::Ignored, |agent| Said::Message { task, agent, data })
        }
        "SHUTDOWN" | "REQUEST" | "ACKNOWLEDGE_OPERATION_STATUS" | "RECONCILE_OPERATIONS" => Said::Ignored,
        other => Said::Unknown(other.into()),
    };
    if framework.is_none() && !matches!(said, Said::Subscribe { .. } | Said::Unknown(_)) {
        return Err("Failed to validate scheduler::Call: Expecting 'framework_id' to be present".into());
    }
    Ok((framework, said))
}

fn needed(value: &Value, name: &str) -> Result<String, String> {
    id(value, name).map(str::to_owned).ok_or_else(|| format!("Failed to validate scheduler::Call: Expecting '{name}' to be present"))
}

fn roles(value: &Value, name: &str) -> Result<Vec<Role>, String> {
    list(value, name).iter().map(|role| words::role(role.as_str().unwrap_or(""))).collect()
}

fn offers(value: &Value) -> Vec<OfferId> {
    // One that was never made is one that does not hold.
    let none = OfferId { shard: protocol::ShardId(u16::MAX), number: 0 };
    list(value, "offer_ids").iter().map(|offer| text(offer, "value").and_then(offer_id).unwrap_or(none)).collect()
}

/// Those that were never made are passed over.
fn inverse(value: &Value) -> Vec<OfferId> {
    list(value, "inverse_offer_ids").iter().filter_map(|offer| text(offer, "value").and_then(inverse_id)).collect()
}

fn refuse_ms(value: &Value) -> u64 {
    let seconds = member(value, "filters").and_then(|filters| member(filters, "refuse_seconds")).and_then(number);
    let given = seconds.map(|seconds| if seconds >= 0.0 { whole(seconds * 1_000.0).min(REFUSE_MS_MAX) } else { REFUSE_MS_DEFAULT });
    given.unwrap_or(REFUSE_MS_DEFAULT)
}

fn accept(accept: &Value) -> Result<Said, String> {
    let (mut tasks, mut groups, mut others, mut reservations) = (vec![], vec![], vec![], vec![]);
    for operation in list(accept, "operations") {
        match text(operation, "type").ok_or("an operation has no type")? {
            "LAUNCH" => {
                tasks.extend_from_slice(list(member(operation, "launch").ok_or("a LAUNCH operation has no 'launch'")?, "task_infos"))
            }
            "LAUNCH_GROUP" => groups.push(group(operation)?),
            kind @ ("RESERVE" | "UNRESERVE") => {
                let of = member(operation, if kind == "RESERVE" { "reserve" } else { "unreserve" });
                reservations.extend(reserved::operation(of.unwrap_or(&Value::Null), kind == "RESERVE")?);
            }
            other => others.push(other.to_owned()),
        }
    }
    // What was reserved is to be shown again as that, and at once.
    let refuse_ms = if reservations.is_empty() { refuse_ms(accept) } else { 0 };
    Ok(Said::Accept { offers: offers(accept), reservations, tasks, groups, others, refuse_ms })
}

/// The tasks of a group; those of an executor that is not Mesos' own keep it, and are refused for it.
fn group(operation: &Value) -> Result<Vec<Value>, String> {
    let launch = member(operation, "launch_group").ok_or("a LAUNCH_GROUP operation has no 'launch_group'")?;
    let mut tasks = list(member(launch, "task_group").ok_or("a LAUNCH_GROUP operation has no 'task_group'")?, "tasks").to_vec();
    let executor = member(launch, "executor").filter(|executor| text(executor, "type") != Some("DEFAULT"));
    if let Some(executor) = executor {
        tasks.iter_mut().for_each(|task| words::put(task, "executor", Some(executor.clone())));
    }
    Ok(tasks)
}

/// What a framework says of itself.
fn info(within: &Value, principal: &str) -> Result<FrameworkInfo, String> {
    let info = member(within, "framework_info").ok_or("Failed to validate scheduler::Call: Expecting 'framework_info' to be present")?;
    let needed = |name: &str| text(info, name).ok_or(format!("Expecting 'framework_info.{name}' to be present"));
    let capabilities: Vec<String> =
        list(info, "capabilities").iter().filter_map(|capability| text(capability, "type")).map(str::to_owned).collect();
    let several = list(info, "roles");
    let mut roles = roles(info, "roles")?;
    if several.is_empty() {
        let is_multi_role = capabilities.iter().any(|capability| capability == "MULTI_ROLE");
        // With MULTI_ROLE and no roles a framework is offered nothing, until it says some; here it is of everybody's.
        roles.push(words::role(if is_multi_role { words::ANY_ROLE } else { text(info, "role").unwrap_or(words::ANY_ROLE) })?);
    }
    roles.sort();
    roles.dedup();
    let failover = member(info, "failover_timeout").and_then(number).unwrap_or(0.0);
    if !failover.is_finite() || failover < 0.0 {
        return Err("The framework's 'failover_timeout' is not valid".into());
    }
    let label = |label: &Value| Some((text(label, "key")?.to_owned(), text(label, "value").unwrap_or("").to_owned()));
    Ok(FrameworkInfo {
        name: needed("name")?.into(),
        user: needed("user")?.into(),
        roles,
        failover_ms: whole(failover * 1_000.0).min(crate::frameworks::FAILOVER_MS_MAX),
        hostname: text(info, "hostname").unwrap_or("").into(),
        webui_url: text(info, "webui_url").unwrap_or("").into(),
        principal: principal.into(),
        capabilities,
        labels: member(info, "labels").map_or(&[][..], |labels| list(labels, "labels")).iter().filter_map(label).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn calls_are_taken_as_clients_write_them() {
        let subscribe = json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": { "user": "root", "name": "x", "role": "*", "failover_timeout": "10" } } });
        let (framework, said) = read(&subscribe, "").unwrap();
        let Said::Subscribe { info, suppressed, .. } = said else { panic!("{said:?}") };
        assert_eq!((framework, info.failover_ms, info.roles.len(), suppressed.len()), (None, 10_000, 1, 0));
        let accept = json!({ "type": "ACCEPT", "framework_id": { "value": "f1" }, "accept": { "offer_ids": [{ "value": "o3-9" }, { "value": "?" }],
            "operations": [{ "type": "LAUNCH", "launch": { "task_infos": [{}] } }, { "type": "CREATE" },
                { "type": "LAUNCH_GROUP", "launch_group": { "executor": { "type": "DEFAULT" }, "task_group": { "tasks": [{}, {}] } } }], "filters": { "refuse_seconds": 0.5 } } });
        let (framework, said) = read(&accept, "").unwrap();
        let Said::Accept { offers, tasks, groups, others, refuse_ms, .. } = said else { panic!("{said:?}") };
        assert_eq!(
            (framework, offers.len(), tasks.len(), groups, others, refuse_ms),
            (Some(FrameworkId(1)), 2, 1, vec![vec![json!({}), json!({})]], vec!["CREATE".to_owned()], 500)
        );
        assert!(
            matches!(read(&json!({ "type": "REVIVE", "framework_id": { "value": "f1" } }), "").unwrap().1, Said::Revive(roles) if roles.is_empty())
        );
        let ack = json!({ "type": "ACKNOWLEDGE", "framework_id": { "value": "f1" }, "acknowledge": {
            "agent_id": { "value": "a" }, "task_id": { "value": "t" }, "uuid": "AAAAAAAAAAAAAAAAAAAAAQ==" } });
        assert!(matches!(read(&ack, "").unwrap().1, Said::Acknowledge { uuid: 1, .. }));
    }

    #[test]
    fn what_is_missing_is_said() {
        for (call, why) in [
            (json!({}), "type"),
            (json!({ "type": "SUBSCRIBE" }), "subscribe"),
            (json!({ "type": "SUBSCRIBE", "subscribe": {} }), "framework_info"),
            (json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": { "name": "x" } } }), "user"),
            (
                json!({ "type": "SUBSCRIBE", "framework_id": { "value": "f1" }, "subscribe": { "framework_info": { "name": "x", "user": "y" } } }),
                "differs",
            ),
            (json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": { "name": "x", "user": "y", "role": "a//b" } } }), "role"),
            (
                json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": { "name": "x", "user": "y", "failover_timeout": -1 } } }),
                "failover",
            ),
            (json!({ "type": "KILL" }), "kill"),
            (json!({ "type": "TEARDOWN" }), "framework_id"),
            (json!({ "type": "TEARDOWN", "framework_id": { "value": "nobody" } }), "cannot be found"),
            (
                json!({ "type": "ACKNOWLEDGE", "framework_id": { "value": "f1" }, "acknowledge": { "agent_id": { "value": "a" }, "uuid": "x" } }),
                "uuid",
            ),
        ] {
            let error = read(&call, "").unwrap_err();
            assert!(error.contains(why), "{call}: {error}");
        }
    }
}
