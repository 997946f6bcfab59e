//! A scheduler in Rust: places so many tasks of one wasm module, as many at a time as it is shown room for, and counts how many have finished. One that is
//! lost is placed again, through the loss of masters too.

use super::client::{Cluster, Error, Event, Framework, task, wish};
use serde_json::json;
use std::collections::BTreeSet;

const CPU_MILLI: u64 = 100;
const MEMORY_BYTES: u64 = 16 << 20;

/// Places `count` tasks of a module, which is named by its digest; gives back how many have finished: all.
///
/// # Errors
/// What a master refused.
pub async fn place_all(cluster: Cluster, wasm: &str, args: &[&str], count: usize) -> Result<usize, Error> {
    let needs = json!({ "cpu": CPU_MILLI as f64 / 1_000.0, "memory": MEMORY_BYTES.to_string() });
    let job = json!({ "task": { "wasm": wasm, "args": args }, "resources": needs });
    let mut waiting: Vec<String> = (0..count).map(|n| format!("t-{n}")).collect();
    // By name: those that were placed and have not ended, and how often each was.
    let (mut placed, mut finished) = (BTreeSet::<String>::new(), 0);
    let mut framework = Framework::new(cluster, "batch").wanting(vec![wish(count, needs.clone())]);
    while let Some(event) = framework.next().await? {
        match event {
            Event::Subscribed if !placed.is_empty() => {
                let names: Vec<&String> = placed.iter().collect();
                framework.say(json!({ "reconcile": names })).await?;
                framework.want(vec![wish(waiting.len(), needs.clone())]).await?;
            }
            Event::Offers(offers) => {
                for offer in offers {
                    let room = (offer.resources.cpu_milli / CPU_MILLI).min(offer.resources.memory_bytes / MEMORY_BYTES);
                    let some = waiting.split_off(waiting.len() - waiting.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
                    if some.is_empty() {
                        framework.decline(&[offer], 0).await?;
                        continue;
                    }
                    placed.extend(some.iter().cloned());
                    framework.accept(&[offer], some.iter().map(|name| task(name, job.clone())).collect()).await?;
                }
            }
            Event::Update(update) => {
                framework.acknowledge(&update).await?;
                if !update.is_end() || !placed.remove(&update.task) {
                    continue;
                }
                if update.state == "finished" {
                    finished += 1;
                } else {
                    waiting.push(format!("{}x", update.task));
                    framework.want(vec![wish(waiting.len(), needs.clone())]).await?;
                }
                if finished == count {
                    framework.say(json!({ "teardown": true })).await?;
                    return Ok(finished);
                }
            }
            _ => {}
        }
    }
    Ok(finished)
}
