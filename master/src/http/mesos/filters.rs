//! What a framework wants to be offered, in Mesos' words: `OfferFilters` of its info and `OfferConstraints` of its call.

use super::words::{self, list, member, text};
use crate::frameworks::{Condition, Fact, Filter, Filters, Sieve, Test};
use protocol::{Resources, Role};
use serde_json::{Map, Value};

/// The filters of a subscription, or of an update.
///
/// # Errors
/// What is wrong with them.
pub fn read(call: &Value) -> Result<Filters, String> {
    let mut filters = Filters::new();
    let by_role = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let info = member(call, "framework_info").unwrap_or(&Value::Null);
    for (role, filter) in by_role(member(info, "offer_filters")) {
        filters.entry(words::role(&role)?).or_default().least = least(&filter)?;
    }
    let constraints: Map<String, Value> = by_role(member(call, "offer_constraints").and_then(|all| member(all, "role_constraints")));
    for (role, constraints) in constraints {
        let groups = list(&constraints, "groups").iter().map(group).collect::<Result<_, String>>()?;
        filters.entry(words::role(&role)?).or_default().groups = groups;
    }
    filters.retain(|_: &Role, filter| *filter != Filter::default());
    Sieve::new(&filters).map(|_| filters)
}

fn least(filter: &Value) -> Result<Vec<Resources>, String> {
    let Some(least) = member(filter, "min_allocatable_resources") else { return Ok(vec![]) };
    let amounts = |quantities: &Value| {
        let quantities = member(quantities, "quantities").and_then(Value::as_object).cloned().unwrap_or_default();
        let scalar = |(name, value): (String, Value)| serde_json::json!({ "name": name, "scalar": value });
        let resources: Vec<Value> = quantities.into_iter().map(scalar).collect();
        words::wanted(&resources).map(|wanted| wanted.resources).map_err(|error| format!("offer_filters: {error}"))
    };
    list(least, "quantities").iter().map(amounts).collect()
}

fn group(group: &Value) -> Result<Vec<Condition>, String> {
    list(group, "attribute_constraints").iter().map(condition).collect()
}

fn condition(constraint: &Value) -> Result<Condition, String> {
    let wrong = |what: &str| format!("offer_constraints: a constraint has no {what} that is known");
    let selector = member(constraint, "selector").ok_or_else(|| wrong("selector"))?;
    let of = match (text(selector, "attribute_name"), text(selector, "pseudoattribute_type")) {
        (Some(name), None) => Fact::Attribute(name.into()),
        (None, Some("HOSTNAME")) => Fact::Name,
        (None, Some("REGION")) => Fact::Region,
        (None, Some("ZONE")) => Fact::Zone,
        _ => return Err(wrong("selector")),
    };
    let predicate = member(constraint, "predicate").and_then(Value::as_object).ok_or_else(|| wrong("predicate"))?;
    let mut given = predicate.iter().filter(|(_, value)| !value.is_null());
    let (Some((kind, value)), None) = (given.next(), given.next()) else { return Err(wrong("predicate")) };
    let said = |name: &str| text(value, name).map(str::to_owned).ok_or_else(|| wrong("predicate"));
    let is = match kind.as_str() {
        "exists" => Test::Exists,
        "not_exists" => Test::Missing,
        "text_equals" => Test::Equals(said("value")?),
        "text_not_equals" => Test::Differs(said("value")?),
        "text_matches" => Test::Matches(said("regex")?),
        "text_not_matches" => Test::Mismatches(said("regex")?),
        _ => return Err(wrong("predicate")),
    };
    Ok(Condition { of, is })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn filters_and_constraints_are_read_as_clients_write_them() {
        let call = json!({
            "framework_info": { "offer_filters": { "*": { "min_allocatable_resources": { "quantities": [
                { "quantities": { "cpus": { "value": 0.5 }, "mem": { "value": 64 } } }, { "quantities": { "gpus": { "value": 1 } } }] } } } },
            "offer_constraints": { "role_constraints": { "web": { "groups": [{ "attribute_constraints": [
                { "selector": { "attribute_name": "disk" }, "predicate": { "exists": {} } },
                { "selector": { "pseudoattribute_type": "HOSTNAME" }, "predicate": { "text_matches": { "regex": "a.*" } } }] }] } } },
        });
        let filters = read(&call).unwrap();
        let role = |text: &str| words::role(text).unwrap();
        assert_eq!((filters[&role("*")].least.len(), filters[&role("*")].least[0].cpu_milli), (2, 500));
        assert_eq!(filters[&role("web")].groups[0][1], Condition { of: Fact::Name, is: Test::Matches("a.*".into()) });
        assert!(read(&json!({})).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_with_them_is_said() {
        let constraint = |constraint: Value| json!({ "offer_constraints": { "role_constraints": { "web": { "groups": [{ "attribute_constraints": [constraint] }] } } } });
        let least = |amount: Value| json!({ "framework_info": { "offer_filters": { "*": { "min_allocatable_resources": { "quantities": [{ "quantities": { "cpus": { "value": amount } } }] } } } } });
        let of = json!({ "attribute_name": "x" });
        for call in [
            constraint(json!({})),
            constraint(json!({ "selector": of })),
            constraint(json!({ "selector": {}, "predicate": { "exists": {} } })),
            constraint(json!({ "selector": of, "predicate": { "exists": {}, "not_exists": {} } })),
            constraint(json!({ "selector": of, "predicate": { "newer": {} } })),
            constraint(json!({ "selector": of, "predicate": { "text_equals": {} } })),
            constraint(json!({ "selector": of, "predicate": { "text_matches": { "regex": "(" } } })),
            least(json!(-1)),
            least(json!("NaN")),
            json!({ "framework_info": { "offer_filters": { "A/../B": {} } } }),
        ] {
            assert!(read(&call).is_err(), "{call}");
        }
    }
}
