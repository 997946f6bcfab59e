//! `dependencies` of apps: which of them a service begins after. Only those of its own group: a service waits for others of its role alone.

use super::change::{Change, What};
use super::held::{self, Held};
use super::id::AppId;
use super::words::Object;
use super::wrong::Wrong;
use crate::http::Api;
use crate::http::access::Caller;
use crate::shard::event::Level;
use protocol::{Job, Name, Role};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Most apps that are looked at for one cycle.
const LOOKED_MAX: usize = 1_024;

/// The services that an app of this role begins after, by name.
pub fn after(fields: &Object, role: &Role) -> Vec<Name> {
    let all = fields.get("dependencies").and_then(Value::as_array).into_iter().flatten();
    let places = all.filter_map(|text| AppId::parse(text.as_str()?).ok()?.place().ok());
    places.filter(|(other, _)| other == role).map(|(_, name)| name).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Leaves out of what services begin after what is not there, since Marathon waits for nothing that is not.
///
/// # Errors
/// [`Wrong`] of status 422 where some of these apps would wait for each other for ever.
pub async fn judge(api: &Api, changes: &mut [Change]) -> Result<(), Wrong> {
    let mut made: BTreeMap<AppId, Vec<AppId>> = BTreeMap::new();
    let (mut lives, mut ends) = (BTreeSet::new(), BTreeSet::new());
    for change in changes.iter() {
        match change.what {
            What::Remove => drop(ends.insert(change.id.clone())),
            _ => drop(lives.insert(change.id.clone())),
        }
    }
    for change in changes.iter_mut() {
        let What::Apply(job) = &mut change.what else { continue };
        let mut kept = vec![];
        for name in std::mem::take(&mut job.after) {
            let Some(id) = AppId::of(&job.role, &name).filter(|id| !ends.contains(id)) else { continue };
            if lives.contains(&id) || other(api, &id).await?.is_some() {
                kept.push(name);
            }
        }
        job.after = kept;
        made.insert(change.id.clone(), waits_for(job));
    }
    // Of one alone it was looked at before, with all that is there.
    for (id, first) in made.iter().filter(|(_, first)| !first.is_empty() && made.len() > 1) {
        let (mut seen, mut next) = (BTreeSet::new(), first.clone());
        while let Some(at) = next.pop().filter(|_| seen.len() < LOOKED_MAX) {
            if at == *id {
                return Err(Wrong::at(
                    "/dependencies",
                    format!("{id} would begin after itself: a cycle, of which nothing could ever begin"),
                ));
            }
            if seen.insert(at.clone()) {
                next.extend(match made.get(&at) {
                    Some(known) => known.clone(),
                    None => other(api, &at).await?.map(|held| waits_for(&held.view.job)).unwrap_or_default(),
                });
            }
        }
    }
    Ok(())
}

fn waits_for(job: &Job) -> Vec<AppId> {
    job.after.iter().filter_map(|name| AppId::of(&job.role, name)).collect()
}

async fn other(api: &Api, id: &AppId) -> Result<Option<Held>, Wrong> {
    Ok(held::known(api, &Caller::of_all_roles(Level::Viewer), id).await?.filter(Held::lives))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_app_begins_after_those_of_its_own_group() {
        let fields = json!({ "dependencies": ["/web/db", "/web/cache", "/other/x", "/web/deep/x", "/db", "/web/db"] });
        let names = |role: &str| {
            let after = after(fields.as_object().unwrap(), &Role::new(role).unwrap());
            after.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("web"), ["cache", "db"]);
        assert_eq!((names("default"), names("none").len()), (vec!["db".to_owned()], 0));
    }
}
