//! System jobs: what they may say, and what is said against the rest.

use super::*;
use protocol::Rule;

fn system(text: &str) -> String {
    format!("name = \"log\"\nkind = \"system\"\n{text}")
}

#[test]
fn a_system_job_has_no_number_and_is_always_started_again() {
    let text = system(
        r#"
        priority = 70
        [[task]]
        name = "ship"
        wasm = "WASM"
        resources = { cpu = 0.1, memory = "16MiB", ports = ["http"], devices = { gpu = 0.5 } }
        [[task]]
        name = "watch"
        wasm = "WASM"
        readiness = { wasm = "ready" }
        [restart]
        policy = "always"
        backoff = { first = "2s" }
        [update]
        parallel = 4
        canary = 1
        strategy = "rolling"
        [service]
        after = ["db"]
        [place]
        constraints = [["rack", "IS", "r1"], ["disk", "LIKE", "ssd.*"], ["zone", "UNLIKE", "b"], ["region", "CLUSTER", "eu"]]
        "#,
    );
    let job = toml(&text).unwrap();
    assert_eq!((job.kind, job.count, job.update_parallel, job.update.canary), (Kind::System, 0, 4, 1));
    assert_eq!((job.restart.policy, job.restart.retries_max), (RestartPolicy::Always, None));
    let place = job.place.clone().unwrap();
    assert!(place.constraints.len() == 4 && place.constraints.iter().all(|constraint| !matches!(constraint.rule, Rule::Unique)));
    let spec = parse(&text.replace("WASM", DIGEST), Format::Toml).unwrap();
    assert_eq!(admit(parse(&spec.to_json(), Format::Json).unwrap(), &small), Ok(job));
    assert_eq!(toml(&system("task.wasm = \"WASM\"")).unwrap().restart.policy, RestartPolicy::Always);
}

#[test]
fn what_makes_no_sense_of_a_system_job_is_refused_under_its_line() {
    let check = |text: &str, code: Code, field: &str, line: usize| {
        let problems = toml(&system(&format!("task.wasm = \"WASM\"\n{text}"))).unwrap_err();
        let found: Vec<_> = problems.iter().map(|problem| (problem.code, problem.field.as_str(), problem.line)).collect();
        assert_eq!(found, [(code, field, line)], "{text}");
        assert!(!problems[0].message.is_empty() && problems[0].help.as_ref().is_some_and(|help| !help.is_empty()), "{text}");
    };
    check("count = 3", Code::Conflict, "count", 4);
    check("count = 1", Code::Conflict, "count", 4);
    check("count = { min = 1 }", Code::NotYet, "count.min", 4);
    check("[service]\nfenced = true", Code::Conflict, "service.fenced", 5);
    check("restart = \"never\"", Code::Conflict, "restart", 4);
    check("[restart]\npolicy = \"on-failure\"", Code::Conflict, "restart.policy", 5);
    check("[restart]\nretries = 3", Code::Conflict, "restart.retries", 5);
    check("[update]\nmin_healthy = 0.5", Code::Conflict, "update.min_healthy", 5);
    check("[update]\nmax_over = 0.5", Code::Conflict, "update.max_over", 5);
    check("[update]\nstrategy = \"blue-green\"", Code::Conflict, "update.strategy", 5);
    check("[place]\nspread = [\"rack\"]", Code::Conflict, "place.spread", 5);
    for rule in ["\"UNIQUE\"", "\"GROUP_BY\", \"2\"", "\"MAX_PER\", \"1\"", "\"CLUSTER\""] {
        check(&format!("[place]\nconstraints = [\n[\"rack\", {rule}]]"), Code::Conflict, "place.constraints.0", 6);
    }
    for rule in ["NEAR", "APART"] {
        check(&format!("[place]\nconstraints = [\n[\"hostname\", \"{rule}\", \"db\"]]"), Code::Conflict, "place.constraints.0", 6);
    }
    let problems = toml("task.wasm = \"WASM\"\nkind = \"cron\"").unwrap_err();
    assert_eq!((problems[0].code, problems[0].line), (Code::NotYet, 2));
}
