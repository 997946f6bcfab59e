//! What a framework says to its tasks: a component, a native program, and through Mesos' API.

use super::caller::{Caller, Subscribed, on_runtime};
use crate::cluster::{Cluster, sample};
use crate::processes::write;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A program that prints each message on a line of its own, until one says `quit`.
pub const ECHO: &str = r#"#!/bin/sh
fd=$SKEP_MESSAGES_FD
while set -- $(dd bs=1 count=4 <&$fd 2>/dev/null | od -An -tu1) && [ $# = 4 ]; do
    word=$(dd bs=1 count=$(($3 * 256 + $4)) <&$fd 2>/dev/null)
    [ "$word" = quit ] && exit 0
    echo "$word"
done
exit 1
"#;

fn pushed(cluster: &Cluster, path: &std::path::Path) -> String {
    let pushed = cluster.json(&["push", path.to_str().unwrap()]);
    format!("sha256:{}", pushed["digest"].as_str().unwrap().trim_start_matches("sha256:"))
}

/// The lines that the one task of a job has printed.
fn printed(cluster: &Cluster, job: &str) -> Vec<String> {
    let prefix = format!("{job}.0: ");
    cluster.text(&["logs", job]).lines().map(|line| line.strip_prefix(&prefix).unwrap_or(line).to_owned()).collect()
}

fn message(task: &str, bytes: impl AsRef<[u8]>) -> Value {
    json!({ "message": { "task": task, "data": STANDARD.encode(bytes) } })
}

/// Reads until each of these tasks is in this state, and acknowledges all that is told; gives back the jobs that they are.
async fn until_all(framework: &mut Subscribed<'_>, tasks: &[&str], state: &str) -> BTreeMap<String, String> {
    let mut jobs = BTreeMap::new();
    while jobs.len() < tasks.len() {
        let update = framework.until("update").await;
        let task = update["task"].as_str().unwrap().to_owned();
        assert_eq!(framework.say(json!({ "acknowledge": { "task": task, "uuid": update["uuid"] } })).await.0, 204);
        if update["state"] == state {
            jobs.insert(task, update["job"].as_str().unwrap().to_owned());
        }
    }
    jobs
}

#[test]
fn a_component_and_a_program_hear_what_their_framework_says_and_nobody_elses() {
    let cluster = Cluster::of_one("cpu=4,memory=1GiB");
    let parrot = pushed(&cluster, &sample("parrot.wasm"));
    let echo = pushed(&cluster, &write(&cluster, "echo", ECHO));
    on_runtime(async {
        let caller = Caller::new(&cluster, &cluster.token);
        let mut framework = caller.subscribe("speaker").await;
        let offers = framework.until("offers").await;
        let resources = json!({ "cpu": 0.5, "memory": "64MiB" });
        let tasks = json!([
            { "name": "bird", "job": { "task": { "wasm": parrot }, "resources": resources } },
            { "name": "program", "job": { "task": { "native": echo }, "resources": resources } },
        ]);
        assert_eq!(framework.say(message("bird", "nobody yet")).await.0, 404);
        let accept = json!({ "accept": { "offers": [offers[0]["id"]], "tasks": tasks } });
        assert_eq!(framework.say(accept).await.0, 204);
        let jobs = until_all(&mut framework, &["bird", "program"], "running").await;

        let other = caller.subscribe("stranger").await;
        let (status, answer) = other.say(message("bird", "psst")).await;
        assert!(status == 404 && answer.contains("task"), "{status} {answer}");
        for (call, field) in [
            (json!({ "message": { "task": "bird", "data": "no base64" } }), "message.data"),
            (message("bird", vec![0; 65_537]), "message.data"),
            (json!({ "message": { "task": "bird" } }), "body"),
        ] {
            let (status, answer) = framework.say(call).await;
            assert!(status == 400 && answer.contains(field), "{field}: {status} {answer}");
        }
        let long = "x".repeat(40_000);
        let words = ["one", "two", "three", &long, "four"];
        for (n, word) in words.iter().enumerate() {
            for task in ["bird", "program"] {
                assert_eq!(framework.say(message(task, word)).await.0, 204);
            }
            // Which it says by its progress: so that no more wait than may.
            while framework.until("message").await["text"] != format!("{} heard", n + 1) {}
        }
        for task in ["bird", "program"] {
            assert_eq!(framework.say(message(task, "quit")).await.0, 204);
        }
        until_all(&mut framework, &["bird", "program"], "finished").await;
        for (task, job) in &jobs {
            let said = printed(&cluster, job);
            assert!(said == words, "{task}: {}", said.join("\n").replace(&long, "…"));
        }
        assert_eq!(framework.say(message("bird", "too late")).await.0, 404, "its end is acknowledged: it is nobody's task any more");
    });
}

#[test]
fn a_framework_that_floods_a_task_which_never_listens_is_served_and_everybody_else_is_too() {
    let cluster = Cluster::of_one("cpu=4,memory=1GiB");
    let deaf = pushed(&cluster, &write(&cluster, "deaf", "#!/bin/sh\nexec sleep 600\n"));
    let echo = pushed(&cluster, &write(&cluster, "echo", ECHO));
    on_runtime(async {
        let caller = Caller::new(&cluster, &cluster.token);
        let mut framework = caller.subscribe("flood").await;
        let offers = framework.until("offers").await;
        let resources = json!({ "cpu": 0.5, "memory": "64MiB" });
        let tasks = json!([
            { "name": "deaf", "job": { "task": { "native": deaf }, "resources": resources } },
            { "name": "program", "job": { "task": { "native": echo }, "resources": resources } },
        ]);
        assert_eq!(framework.say(json!({ "accept": { "offers": [offers[0]["id"]], "tasks": tasks } })).await.0, 204);
        let jobs = until_all(&mut framework, &["deaf", "program"], "running").await;
        for _ in 0..300 {
            assert_eq!(framework.say(message("deaf", vec![0; 65_536])).await.0, 204);
        }
        // What comes behind the flood may be dropped with it, until the agent has read that.
        let until = std::time::Instant::now() + crate::cluster::PATIENCE;
        while printed(&cluster, &jobs["program"]).first().is_none_or(|line| line != "still here") {
            assert!(std::time::Instant::now() < until, "the other task hears nothing");
            assert_eq!(framework.say(message("program", "still here")).await.0, 204);
        }
        assert_eq!(framework.say(message("program", "quit")).await.0, 204);
        until_all(&mut framework, &["program"], "finished").await;
        assert_eq!(framework.say(json!({ "kill": { "task": "deaf", "grace_ms": 0 } })).await.0, 204);
        until_all(&mut framework, &["deaf"], "killed").await;
    });
}
