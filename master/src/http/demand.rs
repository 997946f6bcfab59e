//! What a framework says that it wants, in the words of a job file.

use super::body;
use super::error::ApiError;
use super::{json_problems, spec};
use crate::admit::{self, Format};
use crate::frameworks::{WISHES_MAX, Wish};
use protocol::{Digest, Role};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// Tasks of one shape that a framework wants to place.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WishBody {
    /// For which of its roles; the first by name where it is not said.
    role: Option<String>,
    /// How many more of them it wants to place: each one that it places counts one off. 1 where it is not said.
    count: Option<u32>,
    /// 0 to 100, 50 where it is not said; higher is served first.
    priority: Option<u8>,
    /// What each of them needs, as in a job file.
    #[schema(value_type = Object)]
    resources: Value,
    /// What an agent must be, as in a job file: constraints alone, and none that counts tasks.
    #[schema(value_type = Object)]
    place: Option<Value>,
}

/// The wishes of a framework with these roles.
///
/// # Errors
/// An [`ApiError`] of status 400: what is wrong with one of them.
pub fn wishes(bodies: Vec<WishBody>, field: &str, roles: &[Role]) -> Result<Vec<Wish>, ApiError> {
    if bodies.len() > WISHES_MAX {
        return Err(ApiError::invalid(field, format!("a framework has at most {WISHES_MAX} wishes")));
    }
    bodies.into_iter().enumerate().map(|(at, wish)| self::wish(wish, &format!("{field}.{at}"), roles)).collect()
}

fn wish(body: WishBody, field: &str, roles: &[Role]) -> Result<Wish, ApiError> {
    let WishBody { role, count, priority, resources, place } = body;
    let named = role.as_deref().map(|role| body::parsed(&format!("{field}.role"), role)).transpose()?;
    let role = named.or_else(|| roles.first().cloned());
    let role = role.ok_or_else(|| ApiError::conflict("the framework is not subscribed at this master"))?;
    // A job like this has all that a wish has; whatever it would run.
    let mut job = json!({ "task": { "wasm": format!("sha256:{}", Digest([0; 32])) }, "resources": resources });
    if let Some(priority) = priority {
        job["priority"] = priority.into();
    }
    if let Some(place) = place {
        job["place"] = place;
    }
    let wrong = |message: String| ApiError::invalid(field, message);
    let spec = spec::parsed(job.to_string().as_bytes(), Format::Json).map_err(|error| wrong(json_problems(&error)))?;
    if !spec.place.spread.is_empty() {
        return Err(wrong("place.spread: over what its tasks are spread, a framework decides itself".into()));
    }
    let shape = admit::resources(&spec).ok_or_else(|| wrong("resources: more than there can be".into()))?;
    let priority = spec.priority.unwrap_or(protocol::job::PRIORITY_DEFAULT);
    Ok(Wish { role, priority, count: count.unwrap_or(1), shape, constraints: spec.place.constraints })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Wish, String> {
        let body: WishBody = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let wishes = wishes(vec![body], "demand", &[Role::new("web").unwrap()]).map_err(|error| error.body().message.clone())?;
        Ok(wishes.into_iter().next().unwrap())
    }

    #[test]
    fn a_wish_has_the_words_of_a_job_file() {
        let wish = check(
            r#"{"count": 3, "resources": {"cpu": 0.5, "memory": "64MiB", "ports": ["http"]}, "place": {"constraints": [["rack", "IS", "r1"]]}}"#,
        );
        let wish = wish.unwrap();
        assert_eq!((wish.role.as_str(), wish.count, wish.priority), ("web", 3, 50));
        assert_eq!((wish.shape.cpu_milli, wish.shape.memory_bytes, wish.shape.ports), (500, 64 << 20, 1));
        assert_eq!(wish.constraints[0].to_string(), r#"["rack", "IS", "r1"]"#);
    }

    #[test]
    fn what_is_wrong_with_a_wish_is_said() {
        for (text, why) in [
            (r#"{"resources": {"cpu": -1}}"#, "cpu"),
            (r#"{"resources": {"bananas": 1}}"#, "bananas"),
            (r#"{"resources": {"cpu": 1}, "priority": 101}"#, "priority"),
            (r#"{"resources": {"cpu": 1}, "place": {"constraints": [["rack", "LIKE", "("]]}}"#, "expression"),
            (r#"{"resources": {"cpu": 1}, "place": {"spread": ["rack"]}}"#, "spread"),
            (r#"{"resources": {"cpu": 1}, "role": "a//b"}"#, "role"),
            (r#"{"count": 1}"#, "resources"),
            (r#"{"resources": {"cpu": 1}, "counts": 1}"#, "counts"),
        ] {
            let refused = check(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
