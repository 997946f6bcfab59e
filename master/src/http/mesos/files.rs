//! What a task printed, as the files of its sandbox: `…/frameworks/F/executors/T/runs/R/stdout`, where Mesos' tools look for it. `R` is `latest`, or the
//! container's id, which is the job's here. Read from where `skep logs` reads.

use super::words::{self, member, number, text};
use crate::frameworks::FrameworkId;
use crate::http::access::Caller;
use crate::http::error::ApiError;
use crate::http::{Api, find, logs};
use crate::shard::view::{View, Viewed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::JobId;
use serde_json::{Value, json};
use std::sync::Arc;

/// The files of a sandbox.
const FILES: [(&str, u8); 2] = [("stdout", 1), ("stderr", 2)];
/// Most bytes of one answer, as Mesos has it.
const LENGTH_MAX: usize = 1 << 20;

/// Lists what is in a sandbox.
pub async fn list(api: &Arc<Api>, caller: &Caller, call: &Value) -> Result<Value, ApiError> {
    let path = path(call, "list_files")?;
    let job = sandbox(api, caller, &path).await?;
    let mut files = vec![];
    for (name, stream) in FILES {
        let size = logs::whole(api, job, stream).await?.len();
        let path = format!("{}/{name}", path.trim_end_matches('/'));
        files.push(json!({ "path": path, "size": size, "nlink": 1, "mode": 0o100_644, "uid": "root", "gid": "root" }));
    }
    Ok(json!({ "file_infos": files }))
}

/// Reads a part of one.
pub async fn read(api: &Arc<Api>, caller: &Caller, call: &Value) -> Result<Value, ApiError> {
    let path = path(call, "read_file")?;
    let missing = || ApiError::not_found("file");
    let (folder, name) = path.rsplit_once('/').ok_or_else(missing)?;
    let (_, stream) = FILES.into_iter().find(|(file, _)| *file == name).ok_or_else(missing)?;
    let job = sandbox(api, caller, folder).await?;
    let all = logs::whole(api, job, stream).await?;
    let read = member(call, "read_file").unwrap_or(&Value::Null);
    let given = |name: &str| member(read, name).and_then(number).map(|n| usize::try_from(words::whole(n)).unwrap_or(usize::MAX));
    let from = given("offset").unwrap_or(0).min(all.len());
    let to = from.saturating_add(given("length").unwrap_or(LENGTH_MAX).min(LENGTH_MAX)).min(all.len());
    Ok(json!({ "size": all.len(), "data": STANDARD.encode(&all[from..to]) }))
}

fn path(call: &Value, name: &str) -> Result<String, ApiError> {
    let path = member(call, name).and_then(|of| text(of, "path"));
    path.map(str::to_owned).ok_or_else(|| ApiError::invalid("path", format!("Expecting '{name}.path' to be present")))
}

/// The job whose sandbox this is, where the caller may see it.
async fn sandbox(api: &Arc<Api>, caller: &Caller, path: &str) -> Result<JobId, ApiError> {
    let (framework, task, run) = parts(path).ok_or_else(|| ApiError::not_found("file"))?;
    let job = match run.parse::<JobId>() {
        Ok(job) => job,
        Err(_) => {
            let framework: FrameworkId = framework.parse().map_err(|_| ApiError::not_found("framework"))?;
            if framework.shard().0 >= api.door.shards() {
                return Err(ApiError::not_found("framework"));
            }
            let view = View::FrameworkTasks { framework, from: task.to_owned(), skip: 0, limit: 1 };
            let Viewed::FrameworkTasks(tasks) = find::view(api, framework.shard(), view).await? else {
                return Err(ApiError::not_found("task"));
            };
            tasks.into_iter().find(|own| own.name == task).ok_or_else(|| ApiError::not_found("task"))?.job
        }
    };
    Ok(find::job(api, caller, &job.to_string(), None).await?.id)
}

/// The framework, the task and the run of a sandbox's path.
fn parts(path: &str) -> Option<(&str, &str, &str)> {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let at = names.iter().position(|name| *name == "frameworks")?;
    match names[at..] {
        [_, framework, "executors", task, "runs", run] => Some((framework, task, run)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_found_by_the_end_of_its_path() {
        let found = parts("/var/lib/mesos/slaves/a/frameworks/f1/executors/t.1/runs/latest/");
        assert_eq!(found, Some(("f1", "t.1", "latest")));
        for path in ["", "/", "/frameworks/f1", "/frameworks/f1/executors/t/runs", "/frameworks/f1/executors/t/runs/latest/x/y"] {
            assert_eq!(parts(path), None, "{path}");
        }
    }
}
