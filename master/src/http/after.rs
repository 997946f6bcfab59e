//! Services that begin after others: whether some of them would wait for each other for ever.

use super::error::ApiError;
use super::{Api, find};
use protocol::{Job, Name};
use std::collections::BTreeMap;

/// Most jobs that are looked at.
const LOOKED_MAX: usize = 256;

/// Refuses a job that would begin after itself, by way of others.
///
/// # Errors
/// An [`ApiError`] of status 422 that names all of them.
pub(super) async fn check(api: &Api, job: &Job) -> Result<(), ApiError> {
    let Some(own) = job.name.as_ref().filter(|_| !job.after.is_empty()) else { return Ok(()) };
    // By name: the one before it on the way.
    let mut seen: BTreeMap<Name, Name> = BTreeMap::new();
    let mut next: Vec<(Name, Name)> = job.after.iter().map(|name| (name.clone(), own.clone())).collect();
    while let Some((name, before)) = next.pop() {
        if name == *own {
            let mut way = vec![own.to_string()];
            let mut at = &before;
            while at != own {
                way.push(at.to_string());
                at = seen.get(at).unwrap_or(own);
            }
            way.push(own.to_string());
            way.reverse();
            let message = format!("a cycle, none of which could ever begin: {}", way.join(" after "));
            return Err(ApiError::unprocessable("service.after", message));
        }
        if seen.len() >= LOOKED_MAX || seen.contains_key(&name) {
            continue;
        }
        let others = find::named(api, &job.role, &name).await?.map(|view| view.job.after).unwrap_or_default();
        next.extend(others.into_iter().map(|after| (after, name.clone())));
        seen.insert(name, before);
    }
    Ok(())
}
