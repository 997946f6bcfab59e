//! What is accepted, what it becomes, and how refusals read. The catalogue of hostile jobs is in `tests/hostile/jobs`.

mod checks;
mod members;
mod place;
mod system;

use super::job::RETRIES_DEFAULT;
use super::member::{FUEL_DEFAULT, LOG_BYTES_DEFAULT, TABLE_ELEMENTS_MAX};
use super::spec::TaskSpec;
use super::*;
use protocol::job::RestartPolicy;
use protocol::{Digest, Job, Kind, Metering, Program};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn small(_: Digest) -> Option<Verdict> {
    let inspection = Inspection { kind: WasmKind::Module, memory_bytes_min: 1 << 16, table_elements_min: 1, functions: 1 };
    Some(Verdict { form: Form::Wasm, wasm: Ok(inspection) })
}

fn toml(text: &str) -> Result<Job, Vec<Problem>> {
    admit(parse(&text.replace("WASM", DIGEST), Format::Toml)?, &small)
}

fn codes(text: &str) -> Vec<(Code, String)> {
    toml(text).err().unwrap_or_default().into_iter().map(|problem| (problem.code, problem.field)).collect()
}

fn check(text: &str, expected: &[(Code, &str)]) {
    let expected: Vec<(Code, String)> = expected.iter().map(|(code, field)| (*code, (*field).to_owned())).collect();
    assert_eq!(codes(text), expected, "{text}");
}

#[test]
fn a_job_of_one_line_has_every_default() {
    let job = toml("task = { wasm = \"WASM\" }").unwrap();
    assert_eq!((job.kind, job.count, job.priority, job.role.as_str(), job.name), (Kind::Batch, 1, 50, "default", None));
    let limits = &job.template.first().limits;
    assert_eq!((limits.fuel_max, limits.cpu_time_ms_max, limits.time_ms_max), (Some(FUEL_DEFAULT), None, None));
    assert_eq!((limits.memory_bytes_max, job.template.resources.memory_bytes), (64 << 20, 64 << 20));
    assert_eq!((limits.log_bytes_max, limits.host_bytes_max, limits.table_elements_max), (LOG_BYTES_DEFAULT, 8 << 20, TABLE_ELEMENTS_MAX));
    assert_eq!((job.restart.policy, job.restart.retries_max, job.update_parallel), (RestartPolicy::Never, None, 1));
    assert!(job.template.resources.is_canonical());
}

#[test]
fn the_job_file_of_the_paper_is_read_as_it_says() {
    let text = r#"
        name = "shop"
        role = "web"
        priority = 50
        kind = "service"
        runtime = "strict"
        count = 3
        [task]
        wasm = "WASM"
        args = ["--port", "${port.http}"]
        env = { LOG = "info" }
        config = { greeting = "hi" }
        [resources]
        cpu = 0.5
        memory = "64MiB"
        disk = "0"
        ports = ["http"]
        devices = { gpu = 0.25 }
        [limits]
        cpu_time = "60s"
        time = "5m"
        memory = "128MiB"
        [update]
        parallel = 2
        [restart]
        policy = "on-failure"
        backoff = { first = "1s", factor = 1.15, max = "5m" }
    "#;
    let job = toml(text).unwrap();
    assert_eq!((job.kind, job.count, job.role.as_str(), job.update_parallel), (Kind::Service, 3, "web", 2));
    assert!(matches!(job.template.first().program, Program::Wasm { metering: Metering::Epoch, strict: true, .. }));
    assert_eq!(job.template.resources.cpu_milli, 500);
    assert_eq!(job.template.resources.devices[0].milli, 250);
    assert_eq!((job.template.first().limits.memory_bytes_max, job.template.first().limits.time_ms_max), (128 << 20, Some(300_000)));
    assert_eq!((job.restart.backoff_factor_milli, job.restart.retries_max), (1_150, None));
    // What the command line sends is the same job.
    let spec = parse(&text.replace("WASM", DIGEST), Format::Toml).unwrap();
    assert_eq!(admit(parse(&spec.to_json(), Format::Json).unwrap(), &small), Ok(job));
}

#[test]
fn a_kind_that_is_not_named_is_guessed() {
    for (rest, kind) in [
        ("", Kind::Batch),
        ("restart = \"never\"", Kind::Batch),
        ("restart = \"on-failure\"", Kind::Batch),
        ("restart = \"always\"", Kind::Service),
        ("resources.ports = [\"http\"]", Kind::Service),
        ("restart = \"never\"\nresources.ports = [\"http\"]", Kind::Batch),
        ("update.parallel = 1", Kind::Service),
        ("service.fenced = true", Kind::Service),
    ] {
        assert_eq!(toml(&format!("task.wasm = \"WASM\"\n{rest}")).unwrap().kind, kind, "{rest}");
    }
    let batch = toml("task.wasm = \"WASM\"\nrestart = \"on-failure\"").unwrap();
    assert_eq!(batch.restart.retries_max, Some(RETRIES_DEFAULT));
    let service = toml("task.wasm = \"WASM\"\nkind = \"service\"").unwrap();
    assert_eq!((service.template.first().limits.fuel_max, service.restart.policy), (None, RestartPolicy::Always));
}

#[test]
fn a_fenced_service_has_one_task_and_its_token_is_not_its_own_to_set() {
    let job = toml("task.wasm = \"WASM\"\ntask.env = { A = \"\", Z = \"\" }\nservice.fenced = true").unwrap();
    assert!(job.template.is_fenced() && job.template.first().env.is_sorted() && job.count == 1, "{job:?}");
    assert!(!toml("task.wasm = \"WASM\"\nservice.fenced = false").unwrap().template.is_fenced());
    let spec = parse(&format!("task.wasm = \"{DIGEST}\"\nservice.fenced = true"), Format::Toml).unwrap();
    assert!(admit(parse(&spec.to_json(), Format::Json).unwrap(), &small).unwrap().template.is_fenced());
    check("count = 2\ntask.wasm = \"WASM\"\nservice.fenced = true", &[(Code::Conflict, "count")]);
    check("kind = \"batch\"\ntask.wasm = \"WASM\"\nservice.fenced = true", &[(Code::Conflict, "service.fenced")]);
    check("task.wasm = \"WASM\"\nservice.fenced = 1", &[(Code::WrongType, "service.fenced")]);
    check("task.wasm = \"WASM\"\ntask.env = { SKEP_FENCE = \"7\" }", &[(Code::BadValue, "task.env")]);
}

#[test]
fn memory_that_is_named_once_is_promised_and_allowed() {
    let both = |text: &str| {
        let job = toml(&format!("task.wasm = \"WASM\"\n{text}")).unwrap();
        (job.template.resources.memory_bytes >> 20, job.template.first().limits.memory_bytes_max >> 20)
    };
    assert_eq!(both("resources.memory = \"4MiB\""), (4, 4));
    assert_eq!(both("limits.memory = \"8MiB\""), (8, 8));
    assert_eq!(both("resources.memory = \"4MiB\"\nlimits.memory = \"8MiB\""), (4, 8));
}

#[test]
fn all_problems_of_a_file_come_at_once_and_in_its_order() {
    let text = "nmae = \"x\"\npriority = 101\n[task]\nwasm = \"WASM\"\nnative = \"./server\"\n[resources]\ncpu = 0\nmemory = \"64 megs\"\n";
    let expected = [
        (Code::UnknownField, "nmae"),
        (Code::TooLarge, "priority"),
        (Code::Conflict, "task.native"),
        (Code::BadValue, "resources.cpu"),
        (Code::BadValue, "resources.memory"),
    ];
    check(text, &expected);
    let problems = toml(text).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [1, 2, 5, 7, 8]);
    assert_eq!(problems[0].help.as_deref(), Some("did you mean 'name'?"));
}

#[test]
fn a_broken_line_hides_only_itself() {
    check("name = \npriority = 101\ntask.wasm = \"WASM\"\n", &[(Code::Syntax, "name"), (Code::TooLarge, "priority")]);
    check("task.wasm = \"WASM\"\ncount = 1\ncount = 2\n", &[(Code::DuplicateField, "count")]);
    check("task.wasm = \"WASM\"\n[task.env]\n\"a b\" = \"\"\n\"a b\" = \"\"\n", &[(Code::DuplicateField, "\"a b\"")]);
}

#[test]
fn a_key_without_characters_has_a_name_in_problems() {
    check("'' = 1\ntask.wasm = \"WASM\"\n", &[(Code::UnknownField, "\"\"")]);
    check("task.wasm = \"WASM\"\ntask.'' = 1\n", &[(Code::UnknownField, "task.\"\"")]);
    let problems = toml("\u{c}=={\u{c}").unwrap_err();
    assert!(problems.iter().any(|problem| problem.code == Code::DuplicateField && problem.field == "\"\""), "{problems:?}");
}

#[test]
fn a_field_in_the_wrong_place_is_told_where_it_belongs() {
    let help = |text: &str| toml(text).unwrap_err()[0].help.clone().unwrap_or_default();
    assert_eq!(help("task.wasm = \"WASM\"\nmemory = \"1MiB\""), "'memory' stands under [resources] or [limits]");
    assert_eq!(help("[task]\nwasm = \"WASM\"\ncount = 2"), "'count' stands before the first table");
    assert_eq!(help("task.wsam = \"WASM\""), "did you mean 'wasm'?");
    assert!(help("task.wasm = \"WASM\"\nfrobnicate = 1").starts_with("the fields here are name, role"));
}

#[test]
fn json_and_toml_accept_and_refuse_the_same() {
    for (json, toml_text) in [
        (r#"{"task":{"wasm":"WASM"},"count":2}"#, "count = 2\ntask.wasm = \"WASM\""),
        (r#"{"task":{"wasm":"WASM"},"resources":{"cpu":1e-1}}"#, "task.wasm = \"WASM\"\nresources.cpu = 1e-1"),
        (r#"{"task":{"wasm":"WASM","args":["\u0061\n"]}}"#, "task.wasm = \"WASM\"\ntask.args = [\"\\u0061\\n\"]"),
    ] {
        let json = parse(&json.replace("WASM", DIGEST), Format::Json).and_then(|spec| admit(spec, &small));
        assert_eq!(json, toml(toml_text));
        assert!(json.is_ok());
    }
    let json = parse("{\n \"task\": {\"wasm\": \"x.wasm\", \"native\": 1},\n \"count\": -1}", Format::Json).unwrap_err();
    let places: Vec<_> = json.iter().map(|problem| (problem.field.as_str(), problem.line, problem.column)).collect();
    assert_eq!(places, [("task.native", 2, 39), ("count", 3, 11)]);
}

#[test]
fn a_master_reads_no_files_and_knows_its_bundles() {
    let file = parse("[task]\nwasm = \"api.wasm\"\nstdin = \"in.txt\"", Format::Toml).unwrap();
    let problems = admit(file, &small).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), ["task.wasm", "task.stdin"]);
    let spec = || parse(&format!("[task]\nwasm = \"{DIGEST}\""), Format::Toml).unwrap();
    assert_eq!(admit(spec(), &|_| None).unwrap_err()[0].code, Code::UnknownBundle);
    let as_text = |_| Some(Verdict { form: Form::Other, wasm: Err(Rejection::Text) });
    let text = admit(spec(), &as_text).unwrap_err();
    assert_eq!((text[0].code, text[0].field.as_str(), text[0].span.is_some()), (Code::BadWasm, "task.wasm", true));
    let large = |memory_bytes_min, table_elements_min| {
        let inspection = Inspection { kind: WasmKind::Component, memory_bytes_min, table_elements_min, functions: 1 };
        move |_: Digest| Some(Verdict { form: Form::Wasm, wasm: Ok(inspection) })
    };
    assert_eq!(admit(spec(), &large(65 << 20, 0)).unwrap_err()[0].help.as_deref(), Some("memory = \"65MiB\" or more"));
    assert_eq!(admit(spec(), &large(0, 20_001)).unwrap_err()[0].field, "limits.tables");
}

#[test]
fn names_that_stand_for_nothing_are_refused_and_others_left_alone() {
    check(
        "task.wasm = \"WASM\"\ntask.args = [\"${port.web}\", \"${task.name}\"]",
        &[(Code::BadValue, "task.args"), (Code::BadValue, "task.args")],
    );
    check("task.wasm = \"WASM\"\ntask.args = [\"${HOME} ${task.index} ${job} ${task.attempt} ${\"]", &[]);
}

#[test]
fn a_spec_built_in_code_is_judged_like_a_file() {
    assert_eq!(admit(JobSpec::default(), &small).unwrap_err()[0].field, "task");
    let mut spec = JobSpec { count: Some(u32::MAX), tasks: vec![TaskSpec::default()], ..JobSpec::default() };
    spec.tasks[0].env = vec![("B".to_owned(), String::new()), ("A".to_owned(), String::new())];
    let problems = admit(spec, &small).unwrap_err();
    let found: Vec<_> = problems.iter().map(|problem| (problem.code, problem.field.as_str())).collect();
    assert_eq!(found, [(Code::TooLarge, "count"), (Code::Missing, "task.wasm"), (Code::DuplicateField, "task.env")]);
}

#[test]
fn every_sample_is_a_job() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_job = path.extension().is_some_and(|ending| ending == "toml") && !path.ends_with("Cargo.toml");
        if is_job {
            let spec = parse(&std::fs::read_to_string(&path).unwrap(), Format::Toml);
            assert!(spec.is_ok(), "{}: {spec:?}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen} job files in {folder}");
}
