//! What a framework says, in Mesos' words: the calls of `mesos/v1/scheduler/scheduler.proto`. What is missing or wrong is said as Mesos does, with
//! status 400.

use super::filters;
use super::reserved;
use super::words::{self, id, list, member, nanoseconds, number, text, whole};
use crate::frameworks::{CALL_ITEMS_MAX, Filters, FrameworkId, FrameworkInfo, REFUSE_MS_DEFAULT, REFUSE_MS_MAX};
use crate::http::frameworks_json::{inverse_id, offer_id};
use crate::shard::HOME;
use crate::shard::reservations::ReservationChange;
use protocol::{AgentId, OfferId, Role};
use serde_json::Value;

/// The framework of an id that none was given: one that is no more.
pub const NOBODY: FrameworkId = FrameworkId::new(HOME, u64::MAX);

/// What is called.
#[derive(Debug)]
pub enum Said {
    /// It may be that there can be no such framework: with Mesos it hears that as an event.
    Subscribe(Result<Wish, String>),
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
    /// End the task, where it is on this agent.
    Shutdown {
        task: String,
        agent: AgentId,
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

/// What subscribes.
#[derive(Debug)]
pub struct Wish {
    pub info: FrameworkInfo,
    pub suppressed: Vec<Role>,
    pub filters: Filters,
}

/// The framework that a call is of, and what it says.
///
/// # Errors
/// What is wrong with it.
pub fn read(call: &Value, principal: &str) -> Result<(Option<FrameworkId>, Said), String> {
    let kind = text(call, "type").ok_or("Failed to validate scheduler::Call: Expecting 'type' to be present")?;
    let framework = framework(call, kind)?;
    let within = |name: &str| member(call, name).ok_or(format!("Failed to validate scheduler::Call: Expecting '{name}' to be present"));
    let said = match kind {
        "SUBSCRIBE" => {
            let subscribe = within("subscribe")?;
            let given = given(subscribe)?;
            if id(given, "id").unwrap_or("") != id(call, "framework_id").unwrap_or("") {
                return Err("'framework_id' differs from 'subscribe.framework_info.id'".into());
            }
            Said::Subscribe(wish(subscribe, given, principal))
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
            agent(acknowledge)?;
            let uuid = words::bytes(acknowledge, "uuid").and_then(|bytes| bytes.try_into().ok());
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
            Said::Update { info: info(given(update)?, principal)?, suppressed, filters: filters::read(update)? }
        }
        "TEARDOWN" => Said::Teardown,
        "ACCEPT_INVERSE_OFFERS" => Said::AnswerInverse { accepted: true, offers: inverse(within("accept_inverse_offers")?) },
        "DECLINE_INVERSE_OFFERS" => Said::AnswerInverse { accepted: false, offers: inverse(within("decline_inverse_offers")?) },
        "MESSAGE" => {
            let message = within("message")?;
            let (task, agent) = executor(message)?;
            let data = words::bytes(message, "data").ok_or("Failed to validate scheduler::Call: Expecting 'data' to be present")?;
            agent.map_or(Said::Ignored, |agent| Said::Message { task, agent, data })
        }
        "SHUTDOWN" => {
            let (task, agent) = executor(within("shutdown")?)?;
            agent.map_or(Said::Ignored, |agent| Said::Shutdown { task, agent })
        }
        "REQUEST" | "ACKNOWLEDGE_OPERATION_STATUS" | "RECONCILE_OPERATIONS" => Said::Ignored,
        other => Said::Unknown(other.into()),
    };
    if framework.is_none() && !matches!(said, Said::Subscribe(_) | Said::Unknown(_)) {
        return Err("Failed to validate scheduler::Call: Expecting 'framework_id' to be present".into());
    }
    Ok((framework, said))
}

/// Which framework a call of this type is of: an empty id is that of a new one, and one that is no id that of one that is no more.
fn framework(call: &Value, kind: &str) -> Result<Option<FrameworkId>, String> {
    match (id(call, "framework_id"), kind) {
        (None, _) | (Some(""), "SUBSCRIBE") => Ok(None),
        (Some(text), "SUBSCRIBE") => Ok(Some(text.parse().unwrap_or(NOBODY))),
        (Some(text), _) => text.parse().map(Some).map_err(|_| "Framework cannot be found".to_owned()),
    }
}

fn needed(value: &Value, name: &str) -> Result<String, String> {
    id(value, name).map(str::to_owned).ok_or_else(|| format!("Failed to validate scheduler::Call: Expecting '{name}' to be present"))
}

/// The id of an agent, also under the name that it had before.
fn agent(value: &Value) -> Result<String, String> {
    needed(value, "agent_id").or_else(|error| id(value, "slave_id").map(str::to_owned).ok_or(error))
}

/// An executor, and where it is; nowhere where there is no agent of such an id. A task is its own executor, as with Mesos' command executor.
fn executor(value: &Value) -> Result<(String, Option<AgentId>), String> {
    Ok((needed(value, "executor_id")?, agent(value)?.parse().ok()))
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
    // A shard says the same, once each of them was looked at.
    if groups.iter().fold(tasks.len(), |sum, group: &Vec<Value>| sum + group.len()) > CALL_ITEMS_MAX {
        return Err(format!("a call has at most {CALL_ITEMS_MAX} tasks"));
    }
    // What was reserved is to be shown again as that, and at once.
    let refuse_ms = if reservations.is_empty() { refuse_ms(accept) } else { 0 };
    Ok(Said::Accept { offers: offers(accept), reservations, tasks, groups, others, refuse_ms })
}

/// The tasks of a group; those of an executor that is not Mesos' own, or has what cannot be had, keep it and are refused for it.
fn group(operation: &Value) -> Result<Vec<Value>, String> {
    let launch = member(operation, "launch_group").ok_or("a LAUNCH_GROUP operation has no 'launch_group'")?;
    let mut tasks = list(member(launch, "task_group").ok_or("a LAUNCH_GROUP operation has no 'task_group'")?, "tasks").to_vec();
    let wrong = |executor: &&Value| {
        text(executor, "type") != Some("DEFAULT") || list(executor, "resources").iter().any(|resource| words::refusal(resource).is_some())
    };
    let executor = member(launch, "executor").filter(wrong);
    if let Some(executor) = executor {
        tasks.iter_mut().for_each(|task| words::put(task, "executor", Some(executor.clone())));
    }
    Ok(tasks)
}

/// What a framework says of itself: whole, whether it makes sense or not.
fn given(within: &Value) -> Result<&Value, String> {
    let info = member(within, "framework_info").ok_or("Failed to validate scheduler::Call: Expecting 'framework_info' to be present")?;
    match ["name", "user"].into_iter().find(|name| text(info, name).is_none()) {
        Some(name) => Err(format!("Expecting 'framework_info.{name}' to be present")),
        None => Ok(info),
    }
}

fn wish(subscribe: &Value, given: &Value, principal: &str) -> Result<Wish, String> {
    let info = info(given, principal)?;
    Ok(Wish { info, suppressed: roles(subscribe, "suppressed_roles")?, filters: filters::read(subscribe)? })
}

/// What a framework says of itself, in our words.
fn info(info: &Value, principal: &str) -> Result<FrameworkInfo, String> {
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
        name: text(info, "name").unwrap_or("").into(),
        user: text(info, "user").unwrap_or("").into(),
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
        let Said::Subscribe(Ok(Wish { info, suppressed, .. })) = said else { panic!("{said:?}") };
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
    fn an_empty_id_is_none_and_one_that_is_no_id_is_of_nobody() {
        let info = |own: Value| json!({ "framework_info": { "name": "x", "user": "y", "id": own } });
        for (framework, own, expected) in [
            (json!({ "value": "" }), Value::Null, None),
            (json!({ "value": "" }), json!({ "value": "" }), None),
            (Value::Null, json!({ "value": "" }), None),
            (json!({ "value": "a-b-c" }), json!({ "value": "a-b-c" }), Some(NOBODY)),
            (json!({ "value": "f1" }), json!({ "value": "f1" }), Some(FrameworkId(1))),
        ] {
            let call = json!({ "type": "SUBSCRIBE", "framework_id": framework, "subscribe": info(own) });
            assert_eq!(read(&call, "").unwrap().0, expected, "{call}");
        }
        let other = json!({ "type": "SUBSCRIBE", "framework_id": { "value": "f1" }, "subscribe": info(json!({ "value": "" })) });
        assert!(read(&other, "").unwrap_err().contains("differs"));
        assert!(read(&json!({ "type": "REVIVE", "framework_id": { "value": "" } }), "").unwrap_err().contains("cannot be found"));
    }

    #[test]
    fn an_executor_is_ended_on_its_agent() {
        let call = |shutdown: Value| read(&json!({ "type": "SHUTDOWN", "framework_id": { "value": "f1" }, "shutdown": shutdown }), "");
        let (executor, agent) = (json!({ "value": "t" }), json!({ "value": "00000000000000ff" }));
        let said = call(json!({ "executor_id": executor, "agent_id": agent })).unwrap().1;
        assert!(matches!(&said, Said::Shutdown { task, agent: AgentId(255) } if task == "t"), "{said:?}");
        let nowhere = call(json!({ "executor_id": executor, "agent_id": { "value": "nowhere" } })).unwrap().1;
        assert!(matches!(nowhere, Said::Ignored), "{nowhere:?}");
        assert!(call(json!({ "agent_id": agent })).unwrap_err().contains("executor_id"));
        assert!(call(json!({ "executor_id": executor })).unwrap_err().contains("agent_id"));
    }

    #[test]
    fn a_group_whose_executor_wants_a_volume_keeps_it() {
        let disk = json!({ "name": "disk", "scalar": { "value": 64 }, "disk": { "persistence": { "id": "x" } } });
        let of = |resources: Value| {
            let executor = json!({ "type": "DEFAULT", "resources": resources });
            group(&json!({ "launch_group": { "executor": executor, "task_group": { "tasks": [{}] } } })).unwrap()
        };
        assert!(of(json!([disk]))[0]["executor"].is_object());
        assert_eq!(of(json!([{ "name": "cpus", "scalar": { "value": 0.1 } }])), [json!({})]);
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
    #[test]
    fn a_framework_that_cannot_be_as_it_says_is_no_wrong_call() {
        for (info, why) in [
            (json!({ "name": "x", "user": "y", "role": "a//b" }), "role"),
            (json!({ "name": "x", "user": "y", "failover_timeout": -1 }), "failover"),
        ] {
            let call = json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": info } });
            let Said::Subscribe(Err(error)) = read(&call, "").unwrap().1 else { panic!("{call}") };
            assert!(error.contains(why), "{call}: {error}");
        }
        let update = json!({ "type": "UPDATE_FRAMEWORK", "framework_id": { "value": "f1" },
            "update_framework": { "framework_info": { "name": "x", "user": "y", "role": "a//b" } } });
        assert!(read(&update, "").unwrap_err().contains("role"), "where there is a framework, the call is");
    }
}
