//! Mesos' JSON: lenient in, to the letter out. Numbers and booleans may be text, `null` is nothing, what is not known is passed over
//! (stout's `protobuf.hpp`); the names are those of `mesos/v1/mesos.proto`.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use protocol::resources::ResourceKind;
use protocol::{AgentInfo, Name, PortRange, Resources, Role, Time};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::iter;

/// What Mesos calls the role of whoever names none.
pub const ANY_ROLE: &str = "*";
/// The device that Mesos has a word of its own for.
pub const GPU: &str = "gpu";
/// Bytes of one of Mesos' units of memory and disk.
const MIB: f64 = 1_048_576.0;
/// The longest port list that is read of one task.
const PORTS_MAX: usize = 64;
/// Base64 as Mesos reads it, padded or not.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// A member of an object; nothing where it is `null` or where there is no object.
pub fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|member| !member.is_null())
}

/// A member that is text.
pub fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    member(value, name)?.as_str()
}

/// The `value` of a member, as all of Mesos' ids are written.
pub fn id<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    text(member(value, name)?, "value")
}

/// The bytes of a member that is base64, in which white space means nothing; nothing where it is none.
pub fn bytes(value: &Value, name: &str) -> Option<Vec<u8>> {
    let letters: String = text(value, name)?.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
    BASE64.decode(letters).ok()
}

/// The members of a list; none where there is no list.
pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    member(value, name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A number, also one that is written as text.
pub fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// A boolean, also one that is written as text.
pub fn flag(value: &Value, name: &str, otherwise: bool) -> bool {
    let Some(member) = member(value, name) else { return otherwise };
    let text = member.as_str().map(|text| text.eq_ignore_ascii_case("true"));
    member.as_bool().or(text).unwrap_or(otherwise)
}

/// A time that is given in nanoseconds, in milliseconds.
pub fn nanoseconds(value: &Value, name: &str) -> Option<u64> {
    let nanoseconds = number(member(member(value, name)?, "nanoseconds")?)?;
    (nanoseconds >= 0.0).then(|| whole(nanoseconds / 1e6))
}

/// When an agent is not there.
pub fn unavailability(from: Time, until: Option<Time>) -> Value {
    let mut value = json!({ "start": { "nanoseconds": from.0.saturating_mul(1_000_000) } });
    let duration = until.map(|until| json!({ "nanoseconds": until.since(from).saturating_mul(1_000_000) }));
    put(&mut value, "duration", duration);
    value
}

/// The nearest whole number from 0 on; what is larger than one can be is the largest.
pub fn whole(number: f64) -> u64 {
    // A cast of a float saturates.
    number.round().max(0.0) as u64
}

/// What a part of a role begins with that is no name here: `slave_public` is `mesos--slave-5fpublic`, whose other bytes are two hexadecimal digits behind a
/// hyphen.
const ESCAPED: &str = "mesos--";

/// A role of Mesos' as one of ours: one whose parts are no names of ours has them in other words, and is shown as it was said.
///
/// # Errors
/// Why it is none here.
pub fn role(text: &str) -> Result<Role, String> {
    let name = if text == ANY_ROLE { protocol::ids::ROLE_DEFAULT } else { text };
    let parts: Vec<Cow<'_, str>> = name.split('/').map(escaped).collect();
    Role::new(&parts.join("/")).map_err(|error| format!("role {text:?}: {error}"))
}

/// What Mesos forbids (src/common/roles.cpp) stays as it is, and is no name.
fn escaped(part: &str) -> Cow<'_, str> {
    let forbidden =
        ["", ".", "..", ANY_ROLE].contains(&part) || part.starts_with('-') || part.chars().any(|c| c.is_whitespace() || c.is_control());
    if forbidden || Name::new(part).is_ok() && !part.starts_with(ESCAPED) {
        return part.into();
    }
    let bytes = part.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("-{other:02x}"),
    });
    iter::once(ESCAPED.to_owned()).chain(bytes).collect::<String>().into()
}

fn unescaped(part: &str) -> Option<String> {
    let (mut rest, mut bytes) = (part.strip_prefix(ESCAPED)?, vec![]);
    while let Some(byte) = rest.bytes().next() {
        if byte == b'-' {
            bytes.push(u8::from_str_radix(rest.get(1..3)?, 16).ok()?);
            rest = &rest[3..];
        } else {
            bytes.push(byte);
            rest = &rest[1..];
        }
    }
    String::from_utf8(bytes).ok()
}

/// A role in Mesos' words.
pub fn role_text(role: &Role) -> Cow<'_, str> {
    match role.as_str() {
        protocol::ids::ROLE_DEFAULT => ANY_ROLE.into(),
        text if text.contains(ESCAPED) => {
            let parts: Vec<String> = text.split('/').map(|part| unescaped(part).unwrap_or_else(|| part.to_owned())).collect();
            parts.join("/").into()
        }
        text => text.into(),
    }
}

/// What of an agent is asked for: amounts, and ports by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Amounts, without ports.
    pub resources: Resources,
    /// Ports, in the order in which they are written.
    pub ports: Vec<u16>,
    /// Whether its cpus and mem are revocable, where it has some.
    pub revocable: Option<bool>,
}

/// Why a task cannot have a resource as it is written; nothing where it can. A disk is a part of its agent's, and goes with the task.
pub fn refusal(resource: &Value) -> Option<String> {
    let disk = member(resource, "disk").unwrap_or(&Value::Null);
    let says = |name: &str| member(disk, name).is_some();
    let why = if says("persistence") || says("volume") {
        "persistent volumes are not kept yet: leave disk.persistence and disk.volume out for a disk that goes with the task"
    } else if says("source") {
        "disks of their own are not given yet: leave disk.source out for a part of the agent's"
    } else if member(resource, "shared").is_some() {
        "resources are not shared between tasks yet: leave shared out"
    } else {
        return None;
    };
    Some(format!("{}: {why}", text(resource, "name").unwrap_or("a resource")))
}

/// The resources of a task.
///
/// # Errors
/// Why they are none that a task can have.
pub fn wanted(resources: &[Value]) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for resource in resources {
        let name = text(resource, "name").ok_or("a resource has no name")?;
        if matches!(name, "cpus" | "mem") {
            let revocable = member(resource, "revocable").is_some();
            if *wanted.revocable.get_or_insert(revocable) != revocable {
                return Err(format!("{name}: a task's cpus and mem are revocable, or both are not"));
            }
        } else if member(resource, "revocable").is_some() {
            return Err(format!("{name}: only cpus and mem are revocable"));
        }
        let scalar = || {
            let amount = member(resource, "scalar").and_then(|scalar| member(scalar, "value")).and_then(number);
            amount.filter(|amount| amount.is_finite() && *amount >= 0.0).ok_or_else(|| format!("{name}: an amount from 0 on is missing"))
        };
        if name == "ports" {
            wanted.ports.extend(ports(resource)?);
            continue;
        }
        // Mesos counts in thousandths. What is more than there can be is as much as there can be, and fits nowhere.
        let (kind, unit) = kind(name)?;
        let sum = crate::shard::amounts::of_kind(&kind, &wanted.resources).saturating_add(whole(scalar()? * unit));
        crate::shard::amounts::set(&mut wanted.resources, &kind, sum);
    }
    if wanted.ports.len() > PORTS_MAX {
        return Err(format!("a task has at most {PORTS_MAX} ports"));
    }
    Ok(wanted)
}

/// The kind of resource of this name, and how many of what we count make one of Mesos' units.
///
/// # Errors
/// Why there is none.
pub fn kind(name: &str) -> Result<(ResourceKind, f64), String> {
    let kind = match name {
        "cpus" => ResourceKind::Cpu,
        "mem" => ResourceKind::Memory,
        "disk" => ResourceKind::Disk,
        "ports" => return Err("ports: they are no amount".into()),
        other => {
            let name = if other == "gpus" { GPU } else { other };
            ResourceKind::Device(Name::new(name).map_err(|_| format!("there is no resource {name:?}"))?)
        }
    };
    let (_, unit) = kind_text(&kind);
    Ok((kind, unit))
}

/// The same the other way round.
pub fn kind_text(kind: &ResourceKind) -> (&str, f64) {
    match kind {
        ResourceKind::Cpu => ("cpus", 1_000.0),
        ResourceKind::Memory => ("mem", MIB),
        ResourceKind::Disk => ("disk", MIB),
        ResourceKind::Ports => ("ports", 1.0),
        ResourceKind::Device(name) if name.as_str() == GPU => ("gpus", 1_000.0),
        ResourceKind::Device(name) => (name.as_str(), 1_000.0),
    }
}

fn ports(resource: &Value) -> Result<Vec<u16>, String> {
    let mut found = Vec::new();
    for range in member(resource, "ranges").map_or(&[][..], |ranges| list(ranges, "range")) {
        let end = |name| member(range, name).and_then(number).filter(|port| (1.0..=65_535.0).contains(port)).map(|port| port as u16);
        let (first, last) = end("begin").zip(end("end")).filter(|(first, last)| first <= last).ok_or("ports: a range from 1 to 65535")?;
        found.extend((first..=last).take(PORTS_MAX + 1));
    }
    Ok(found)
}

/// Resources as they are offered, or as a task has them.
pub fn resources(amounts: &Resources, ports: &[PortRange], role: &Role) -> Vec<Value> {
    let allocated = json!({ "role": role_text(role) });
    let scalar = |name: &str, amount: f64| json!({ "name": name, "type": "SCALAR", "scalar": { "value": amount }, "role": ANY_ROLE, "allocation_info": allocated });
    let milli = |amount: u64| amount as f64 / 1_000.0;
    let mebi = |amount: u64| amount as f64 / f64::from(1 << 20);
    let mut all = Vec::new();
    let plain = [("cpus", milli(amounts.cpu_milli)), ("mem", mebi(amounts.memory_bytes)), ("disk", mebi(amounts.disk_bytes))];
    all.extend(plain.into_iter().filter(|(_, amount)| *amount > 0.0).map(|(name, amount)| scalar(name, amount)));
    let lent = amounts.lent();
    let lent = [("cpus", milli(lent.cpu_milli)), ("mem", mebi(lent.memory_bytes))].into_iter().filter(|(_, amount)| *amount > 0.0);
    all.extend(lent.map(|(name, amount)| {
        let mut resource = scalar(name, amount);
        resource["revocable"] = json!({});
        resource
    }));
    let devices = amounts.devices.iter().filter(|device| !device.is_revocable());
    let devices = devices.map(|device| (device.name.as_str(), milli(device.milli)));
    all.extend(devices.map(|(name, amount)| scalar(if name == GPU { "gpus" } else { name }, amount)));
    if !ports.is_empty() {
        let ranges: Vec<Value> = ports.iter().map(|range| json!({ "begin": range.first, "end": range.last })).collect();
        let ranges = json!({ "range": ranges });
        all.push(json!({ "name": "ports", "type": "RANGES", "ranges": ranges, "role": ANY_ROLE, "allocation_info": allocated }));
    }
    all
}

/// Resources as version 0 of the API writes them: numbers by name, and ports as text.
pub fn amounts(amounts: &Resources, ports: &[PortRange]) -> Value {
    let ranges: Vec<String> = ports.iter().map(|range| format!("{}-{}", range.first, range.last)).collect();
    let mut all = Map::new();
    all.insert("cpus".into(), json!(amounts.cpu_milli as f64 / 1_000.0));
    all.insert("mem".into(), json!(amounts.memory_bytes as f64 / f64::from(1 << 20)));
    all.insert("disk".into(), json!(amounts.disk_bytes as f64 / f64::from(1 << 20)));
    all.insert("gpus".into(), json!(Name::new(GPU).map_or(0, |gpu| amounts.device(&gpu)) as f64 / 1_000.0));
    if !ranges.is_empty() {
        all.insert("ports".into(), json!(format!("[{}]", ranges.join(", "))));
    }
    Value::Object(all)
}

/// What an agent says of itself, as attributes: text, all of it.
pub fn attributes(info: &AgentInfo) -> Vec<Value> {
    info.attributes.iter().map(|(name, value)| json!({ "name": name, "type": "TEXT", "text": { "value": value } })).collect()
}

/// Facts, as Mesos' `Labels`.
pub fn labels(labels: &[(String, String)]) -> Value {
    let label = |(key, value): &(String, String)| json!({ "key": key, "value": value });
    json!({ "labels": labels.iter().map(label).collect::<Vec<_>>() })
}

/// Where an agent stands; `None` where nobody said so.
pub fn domain(info: &AgentInfo) -> Option<Value> {
    let domain = &info.domain;
    (!domain.region.is_empty() || !domain.zone.is_empty())
        .then(|| json!({ "fault_domain": { "region": { "name": domain.region }, "zone": { "name": domain.zone } } }))
}

/// An agent, for whoever wants to reach it: by its name, at the port that Mesos' agents have.
pub fn address(info: &AgentInfo) -> Value {
    json!({ "scheme": "http", "address": { "hostname": info.name, "port": 5051 }, "path": "/slave(1)", "query": [] })
}

/// Puts a member where there is something to say.
pub fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_leniently_and_in_thousandths() {
        let asked = json!([
            { "name": "cpus", "type": "SCALAR", "scalar": { "value": 0.1004 } },
            { "name": "mem", "type": "SCALAR", "scalar": { "value": "32" }, "role": null },
            { "name": "disk", "scalar": { "value": 0 } },
            { "name": "gpus", "scalar": { "value": 2 } },
            { "name": "ports", "type": "RANGES", "ranges": { "range": [{ "begin": 31_000, "end": "31001" }, { "begin": 5, "end": 5 }] } },
        ]);
        let found = wanted(asked.as_array().unwrap()).unwrap();
        assert_eq!((found.resources.cpu_milli, found.resources.memory_bytes, found.resources.disk_bytes), (100, 32 << 20, 0));
        assert_eq!(found.resources.device(&Name::new("gpu").unwrap()), 2_000);
        assert_eq!(found.ports, [31_000, 31_001, 5]);
        let absurd = json!([{ "name": "mem", "scalar": { "value": 1e300 } }, { "name": "mem", "scalar": { "value": 1e300 } },
            { "name": "x", "scalar": { "value": 1e300 } }, { "name": "x", "scalar": { "value": 1 } }]);
        assert_eq!(wanted(absurd.as_array().unwrap()).unwrap().resources.memory_bytes, u64::MAX);
        for (wrong, why) in [
            (json!([{ "name": "cpus", "scalar": { "value": -1 } }]), "an amount"),
            (json!([{ "name": "cpus", "scalar": { "value": "NaN" } }]), "an amount"),
            (json!([{ "name": "cpus" }]), "an amount"),
            (json!([{ "scalar": { "value": 1 } }]), "no name"),
            (json!([{ "name": "ports", "ranges": { "range": [{ "begin": 1, "end": 70_000 }] } }]), "a range"),
            (json!([{ "name": "ports", "ranges": { "range": [{ "begin": 1, "end": 60_000 }] } }]), "at most"),
            (json!([{ "name": "Weird!", "scalar": { "value": 1 } }]), "no resource"),
            (json!([{ "name": "disk", "scalar": { "value": 1 }, "revocable": {} }]), "only cpus and mem"),
            (
                json!([{ "name": "cpus", "scalar": { "value": 1 }, "revocable": {} }, { "name": "mem", "scalar": { "value": 1 } }]),
                "or both",
            ),
        ] {
            let error = wanted(wrong.as_array().unwrap()).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_lent_is_offered_as_revocable_and_asked_for_so() {
        let lent = Resources { cpu_milli: 500, memory_bytes: 32 << 20, ..Resources::NONE }.made_revocable();
        let own = Resources { cpu_milli: 2_000, ..Resources::NONE };
        let shown = resources(&own.checked_add(&lent).unwrap(), &[], &Role::new("web").unwrap());
        let told = |one: &Value| (one["name"].clone(), one["scalar"]["value"].clone(), one["revocable"].is_object());
        let expected = [(json!("cpus"), json!(2.0), false), (json!("cpus"), json!(0.5), true), (json!("mem"), json!(32.0), true)];
        assert_eq!(shown.iter().map(told).collect::<Vec<_>>(), expected);
        let asked = wanted(&shown[1..]).unwrap();
        assert_eq!((asked.resources.made_revocable(), asked.revocable), (lent, Some(true)));
        assert_eq!(wanted(&shown[..1]).unwrap().revocable, Some(false));
    }

    #[test]
    fn only_a_disk_that_goes_with_its_task_can_be_had() {
        let disk = |disk: Value| json!({ "name": "disk", "type": "SCALAR", "scalar": { "value": 64 }, "disk": disk });
        let persistence = json!({ "id": "data", "principal": "ops" });
        let volume = json!({ "container_path": "data", "mode": "RW" });
        for (resource, why) in [
            (disk(json!({ "persistence": persistence, "volume": volume })), "disk: persistent"),
            (disk(json!({ "persistence": persistence })), "disk: persistent"),
            (disk(json!({ "volume": volume })), "disk: persistent"),
            (disk(json!({ "source": { "type": "MOUNT", "mount": { "root": "/mnt" } } })), "disks of their own"),
            (json!({ "name": "disk", "scalar": { "value": 64 }, "shared": {} }), "not shared"),
        ] {
            let error = refusal(&resource).unwrap_or_default();
            assert!(error.contains(why), "{resource}: {error}");
        }
        for resource in [disk(json!({})), disk(Value::Null), json!({ "name": "disk", "scalar": { "value": 64 }, "shared": null }), json!(7)]
        {
            assert_eq!(refusal(&resource), None, "{resource}");
        }
    }

    #[test]
    fn base64_is_read_padded_or_not_and_broken_into_lines() {
        let read = |text: &str| bytes(&json!({ "data": text }), "data");
        for text in ["aGVsbG8=", "aGVsbG8", " aGVs\r\nbG8=\n"] {
            assert_eq!(read(text).as_deref(), Some(&b"hello"[..]), "{text:?}");
        }
        assert_eq!((read("?"), read("aGVsb"), bytes(&json!({ "data": 7 }), "data")), (None, None, None));
    }

    #[test]
    fn roles_that_are_no_names_here_are_said_in_other_words_and_shown_as_they_were() {
        for (text, here) in [
            ("*", "default"),
            ("web", "web"),
            ("web/shop-1", "web/shop-1"),
            ("slave_public", "mesos--slave-5fpublic"),
            ("dev__a-role", "mesos--dev-5f-5fa-2drole"),
            ("Prod", "mesos---50rod"),
            ("a.b/c", "mesos--a-2eb/c"),
            ("a-", "mesos--a-2d"),
            ("mesos--x", "mesos--mesos-2d-2dx"),
            ("\u{e4}", "mesos---c3-a4"),
        ] {
            let role = role(text).unwrap();
            assert_eq!((role.as_str(), &*role_text(&role)), (here, text));
        }
        for wrong in ["", "a/", "/a", "a//b", ".", "a/..", "*/a", "-a", "a b", "a\t", "\n", &"_".repeat(63)] {
            assert!(role(wrong).is_err(), "{wrong:?}");
        }
        // People may call a role of theirs so: it is shown as it is.
        for own in ["mesos--a-5", "mesos--a-zz", "mesos---ff"] {
            assert_eq!(role_text(&Role::new(own).unwrap()), own);
        }
    }

    #[test]
    fn booleans_numbers_and_nothing_are_read_as_mesos_does() {
        let value = json!({ "a": "True", "b": false, "c": null, "n": "2.5", "t": { "nanoseconds": "2500000" } });
        assert!(flag(&value, "a", false) && !flag(&value, "b", true) && flag(&value, "c", true));
        assert_eq!((number(&value["n"]), nanoseconds(&value, "t"), nanoseconds(&value, "c")), (Some(2.5), Some(3), None));
    }
}
