//! Reservations in Mesos' words: a resource that is reserved names the stack of its reservations (`reservations`, from capability
//! RESERVATION_REFINEMENT on), or its one role (`role` and `reservation`, before that). Both are read; which is written, the reader's capability says.

use super::words::{self, list, member, text};
use crate::shard::amounts;
use crate::shard::reservations::ReservationChange;
use protocol::{Attributes, PortRange, Reservation, ReservedFor, Resources, Role};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How a reservation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The stack.
    Refined,
    /// The role alone: of a framework that knows no stacks.
    Plain,
    /// Both: to operators.
    Both,
}

/// Resources some of which are of reservations.
pub fn resources(all: &Resources, ports: &[PortRange], parts: &[Reservation], role: &Role, format: Format) -> Vec<Value> {
    let (mut rest, mut ports_left, mut written) = (all.clone(), ports.to_vec(), vec![]);
    for part in parts {
        amounts::sub(&mut rest, &part.resources, 1);
        let ports = first_ports(&mut ports_left, part.resources.ports);
        let mut entries = words::resources(&part.resources, &ports, role);
        entries.iter_mut().for_each(|entry| mark(entry, &part.reserved, format));
        written.extend(entries);
    }
    let mut unreserved = words::resources(&rest, &ports_left, role);
    unreserved.extend(written);
    unreserved
}

fn mark(entry: &mut Value, reserved: &ReservedFor, format: Format) {
    let labels: Vec<(String, String)> = reserved.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let labels = (!labels.is_empty()).then(|| words::labels(&labels));
    if format != Format::Plain {
        let outer = reserved.within.iter().map(|role| json!({ "type": "DYNAMIC", "role": words::role_text(role) }));
        let mut last = json!({ "type": if reserved.fixed { "STATIC" } else { "DYNAMIC" }, "role": words::role_text(&reserved.role) });
        if !reserved.fixed {
            words::put(&mut last, "principal", Some(reserved.principal.clone().into()));
            words::put(&mut last, "labels", labels.clone());
        }
        words::put(entry, "reservations", Some(outer.chain([last]).collect()));
    }
    match format {
        // As Mesos has it: a role that is said beside a stack would be one too many.
        Format::Refined => drop(entry.as_object_mut().and_then(|entry| entry.remove("role"))),
        Format::Plain | Format::Both => words::put(entry, "role", Some(words::role_text(&reserved.role).into())),
    }
    if format != Format::Refined && !reserved.fixed {
        let mut reservation = json!({ "principal": reserved.principal });
        words::put(&mut reservation, "labels", labels);
        words::put(entry, "reservation", Some(reservation));
    }
}

/// Takes the first `count` ports out of these ranges.
fn first_ports(ranges: &mut Vec<PortRange>, count: u32) -> Vec<PortRange> {
    let (mut left, mut taken) = (count, vec![]);
    while let Some(range) = ranges.first_mut().filter(|_| left > 0) {
        let size = u32::from(range.last - range.first) + 1;
        if size <= left {
            left -= size;
            taken.push(ranges.remove(0));
        } else {
            let cut = range.first + u16::try_from(left).expect("less than the ports of a range");
            taken.push(PortRange { first: range.first, last: cut - 1 });
            (range.first, left) = (cut, 0);
        }
    }
    taken
}

/// What an operation on these resources changes: each is of one kind, and those of one reservation go together.
///
/// # Errors
/// Why it is none.
pub fn changes(resources: &[Value], make: bool) -> Result<Vec<ReservationChange>, String> {
    let mut all: BTreeMap<(Role, Vec<Role>, Attributes), Resources> = BTreeMap::new();
    for resource in resources {
        let key = key(resource)?.ok_or("a resource that is reserved names its role")?;
        let wanted = words::wanted(std::slice::from_ref(resource))?;
        if wanted.revocable == Some(true) {
            return Err("what is revocable is reserved for nobody".into());
        }
        let ports = u32::try_from(wanted.ports.len()).unwrap_or(u32::MAX);
        let amount = all.entry(key).or_default();
        amounts::add(amount, &wanted.resources, 1);
        amount.ports = amount.ports.saturating_add(ports);
    }
    Ok(all.into_iter().map(|((role, within, labels), resources)| ReservationChange { make, role, within, labels, resources }).collect())
}

/// What an operation that reserves changes: where it says what its resources are reserved as before (`source`, since Mesos 1.9), they are given up there
/// first.
///
/// # Errors
/// Why it is none.
pub fn operation(of: &Value, make: bool) -> Result<Vec<ReservationChange>, String> {
    let mut all = vec![];
    if make {
        for source in list(of, "source") {
            let before = key(source)?;
            // What is refined stays reserved as it was.
            let stays = |(role, within, _): &(Role, Vec<Role>, Attributes)| {
                let outer: Vec<Role> = within.iter().chain([role]).cloned().collect();
                list(of, "resources")
                    .iter()
                    .any(|now| key(now).is_ok_and(|now| now.is_some_and(|(_, within, _)| within.starts_with(&outer))))
            };
            if before.is_some_and(|before| !stays(&before)) {
                all.extend(changes(std::slice::from_ref(source), false)?);
            }
        }
    }
    all.extend(changes(list(of, "resources"), make)?);
    Ok(all)
}

/// The role of a reservation, those around it, and its labels; `None` of what is not reserved.
fn key(resource: &Value) -> Result<Option<(Role, Vec<Role>, Attributes)>, String> {
    let labels = |of: &Value| -> Attributes {
        let labels = member(of, "labels").map_or(&[][..], |labels| list(labels, "labels"));
        let label = |label: &Value| Some((text(label, "key")?.to_owned(), text(label, "value").unwrap_or("").to_owned()));
        labels.iter().filter_map(label).collect()
    };
    if let Some((last, outer)) = list(resource, "reservations").split_last() {
        let role = |of: &Value| words::role(text(of, "role").unwrap_or(""));
        let within = outer.iter().map(role).collect::<Result<_, _>>()?;
        return Ok(Some((role(last)?, within, labels(last))));
    }
    match text(resource, "role").filter(|role| *role != words::ANY_ROLE) {
        Some(role) => Ok(Some((words::role(role)?, vec![], member(resource, "reservation").map(labels).unwrap_or_default()))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(cpu_milli: u64, ports: u32) -> Resources {
        Resources { cpu_milli, ports, ..Resources::NONE }
    }

    #[test]
    fn what_is_reserved_stands_apart_as_its_reader_knows_it() {
        let web = Role::new("web").unwrap();
        let made = ReservedFor {
            fixed: false,
            principal: "ops".into(),
            labels: [("k".into(), "v".into())].into(),
            ..ReservedFor::fixed(web.clone())
        };
        let parts = [Reservation { reserved: made, resources: amount(500, 2) }];
        let ports = [PortRange { first: 10, last: 10 }, PortRange { first: 20, last: 29 }];
        let written = |format| resources(&amount(2_000, 11), &ports, &parts, &web, format);
        let refined = written(Format::Refined);
        let of = |entry: &Value| (entry["name"].clone(), entry["scalar"]["value"].clone(), entry["ranges"]["range"].clone());
        assert_eq!(of(&refined[0]), (json!("cpus"), json!(1.5), Value::Null));
        assert_eq!(of(&refined[1]), (json!("ports"), Value::Null, json!([{ "begin": 21, "end": 29 }])));
        assert_eq!(of(&refined[2]), (json!("cpus"), json!(0.5), Value::Null));
        assert_eq!(of(&refined[3]), (json!("ports"), Value::Null, json!([{ "begin": 10, "end": 10 }, { "begin": 20, "end": 20 }])));
        let stack =
            json!([{ "type": "DYNAMIC", "role": "web", "principal": "ops", "labels": { "labels": [{ "key": "k", "value": "v" }] } }]);
        assert_eq!((&refined[2]["reservations"], &refined[2]["role"]), (&stack, &Value::Null));
        let plain = written(Format::Plain);
        assert_eq!(
            (&plain[2]["reservations"], &plain[2]["role"], &plain[2]["reservation"]["principal"]),
            (&Value::Null, &json!("web"), &json!("ops"))
        );
        assert_eq!((&written(Format::Both)[2]["reservations"], &plain[0]["role"]), (&stack, &json!("*")));
        // What is written is read again.
        for written in [&refined, &plain] {
            let read = changes(&written[2..], true).unwrap();
            assert_eq!((read.len(), &read[0].role, &read[0].resources, read[0].labels.len()), (1, &web, &amount(500, 2), 1));
        }
    }

    #[test]
    fn a_stack_is_read_and_a_source_is_given_up_unless_it_is_refined() {
        let cpus = |stack: Value| json!({ "name": "cpus", "type": "SCALAR", "scalar": { "value": 1 }, "reservations": stack });
        let (outer, inner) = (json!({ "type": "DYNAMIC", "role": "a" }), json!({ "type": "DYNAMIC", "role": "a/b" }));
        let read = |of: &Value| {
            let all = operation(of, true).unwrap();
            all.into_iter().map(|change| (change.make, change.role.to_string(), change.within.len())).collect::<Vec<_>>()
        };
        let refined = json!({ "source": [cpus(json!([outer]))], "resources": [cpus(json!([outer, inner]))] });
        assert_eq!(read(&refined), [(true, "a/b".to_owned(), 1)]);
        let moved = json!({ "source": [cpus(json!([outer]))], "resources": [cpus(json!([{ "type": "DYNAMIC", "role": "c" }]))] });
        assert_eq!(read(&moved), [(false, "a".to_owned(), 0), (true, "c".to_owned(), 0)]);
        let unreserved = json!({ "source": [{ "name": "cpus", "scalar": { "value": 1 } }], "resources": [cpus(json!([outer]))] });
        assert_eq!(read(&unreserved), [(true, "a".to_owned(), 0)]);
        assert!(changes(&[json!({ "name": "cpus", "scalar": { "value": 1 } })], true).is_err());
        assert!(changes(&[cpus(json!([{ "role": "a//b" }]))], true).is_err());
    }
}
