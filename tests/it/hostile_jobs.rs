//! Jobs that nobody should accept, one file each in `tests/hostile/jobs` (the catalogue of `design/guarantees.md`), and what a master says
//! of them: which kind of problem, with which field. What is too large for a file is made here.

use master::admit::Code::{BadValue, Conflict, DuplicateField, Missing, NotYet, Syntax, TooLarge, UnknownBundle, UnknownField, WrongType};
use master::admit::{Code, Form, Format, Inspection, PROBLEMS_MAX, Problem, Verdict, WasmKind, admit, parse, parse_bytes, render};
use protocol::Digest;
use std::fs;
use std::path::Path;

/// File, and the one problem with it; `None` where it only looks bad and is a job like any other.
const CASES: &[(&str, Option<(Code, &str)>)] = &[
    ("args-nul.json", Some((BadValue, "task.args"))),
    ("args-number.toml", Some((WrongType, "task.args"))),
    ("args-shell.toml", None),
    ("args-text.toml", Some((WrongType, "task.args"))),
    ("args-unknown-port.toml", Some((BadValue, "task.args"))),
    ("backoff-max-below-first.toml", Some((Conflict, "restart.backoff.max"))),
    ("backoff-shrinks.toml", Some((BadValue, "restart.backoff.factor"))),
    ("backoff-zero.toml", Some((BadValue, "restart.backoff.first"))),
    ("batch-for-ever.toml", Some((Conflict, "restart"))),
    ("blank.json", Some((Missing, "task.wasm"))),
    ("byte-order-mark.json", Some((Syntax, ""))),
    ("byte-order-mark.toml", Some((Syntax, ""))),
    ("case-of-field.toml", Some((UnknownField, "Name"))),
    ("comment.json", Some((Syntax, ""))),
    ("config-nul.json", Some((BadValue, "task.config"))),
    ("count-over-limit.toml", Some((TooLarge, "count"))),
    ("count-zero-batch.toml", Some((BadValue, "count"))),
    ("cut-off.json", Some((Syntax, "task"))),
    ("date-count.toml", Some((WrongType, "count"))),
    ("depends-on-itself.toml", Some((Conflict, "service.after"))),
    ("device-half-over.toml", Some((BadValue, "resources.devices"))),
    ("device-path.toml", Some((BadValue, "resources.devices./dev/sda"))),
    ("device-zero.toml", Some((BadValue, "resources.devices"))),
    ("digest-not-uploaded.toml", Some((UnknownBundle, "task.wasm"))),
    ("digest-short.toml", Some((BadValue, "task.wasm"))),
    ("digest-upper-case.toml", Some((BadValue, "task.wasm"))),
    ("duplicate-key-escaped.json", Some((DuplicateField, "count"))),
    ("duplicate-key.json", Some((DuplicateField, "resources.memory"))),
    ("duplicate-key.toml", Some((DuplicateField, "count"))),
    ("duplicate-table.toml", Some((DuplicateField, "task"))),
    ("empty.toml", Some((Missing, "task.wasm"))),
    ("env-checks.toml", Some((BadValue, "task.env"))),
    ("env-empty-name.toml", Some((BadValue, "task.env"))),
    ("env-equals.toml", Some((BadValue, "task.env"))),
    ("env-ld-preload.toml", None),
    ("env-list.toml", Some((WrongType, "task.env"))),
    ("env-nul.toml", Some((BadValue, "task.env"))),
    ("env-number.toml", Some((WrongType, "task.env.PORT"))),
    ("exponent-400.json", Some((TooLarge, "resources.memory"))),
    ("exponent-minus-400.json", Some((BadValue, "resources.cpu"))),
    ("fetch-file.toml", Some((NotYet, "task.fetch"))),
    ("float-count.json", Some((BadValue, "count"))),
    ("fuel-and-cpu-time.toml", Some((Conflict, "limits.cpu_time"))),
    ("fuel-zero.toml", Some((BadValue, "limits.fuel"))),
    ("group-of-nine.json", Some((TooLarge, "task"))),
    ("group-of-none.json", Some((TooLarge, "task"))),
    ("group-without-names.toml", Some((Missing, "task.0.name"))),
    ("health-blank-path.toml", Some((BadValue, "health.http"))),
    ("health-every-zero.toml", Some((BadValue, "health.every"))),
    ("health-for-ever.toml", Some((TooLarge, "health.timeout"))),
    ("health-nothing.toml", Some((Missing, "health"))),
    ("health-number.toml", Some((WrongType, "health.tcp"))),
    ("health-two.toml", Some((Conflict, "health.wasm"))),
    ("health-unknown-port.toml", Some((BadValue, "health.port"))),
    ("health-url.toml", Some((BadValue, "health.http"))),
    ("host-huge.toml", Some((TooLarge, "limits.host"))),
    ("huge-cpu.toml", Some((TooLarge, "resources.cpu"))),
    ("infinite.toml", Some((BadValue, "resources.cpu"))),
    ("integer-above-2-53.json", Some((TooLarge, "limits.fuel"))),
    ("integer-above-2-64.toml", Some((TooLarge, "count"))),
    ("integer-hex.toml", Some((TooLarge, "count"))),
    ("kind-unknown.toml", Some((BadValue, "kind"))),
    ("later-count-max.toml", Some((NotYet, "count.max"))),
    ("later-cron.toml", Some((NotYet, "kind"))),
    ("later-egress.toml", Some((NotYet, "limits.egress"))),
    ("later-health.toml", Some((NotYet, "health.http"))),
    ("later-runc.toml", Some((NotYet, "runtime"))),
    ("later-scratch.toml", Some((NotYet, "task.scratch"))),
    ("limit-below-promise.toml", Some((Conflict, "limits.memory"))),
    ("list.json", Some((WrongType, ""))),
    ("log-huge.toml", Some((TooLarge, "limits.log"))),
    ("lone-surrogate.json", Some((Syntax, "task.args"))),
    ("memory-2-63.toml", Some((TooLarge, "resources.memory"))),
    ("memory-list.toml", Some((WrongType, "resources.memory"))),
    ("memory-without-unit.toml", Some((BadValue, "resources.memory"))),
    ("minus-zero-float.json", Some((BadValue, "resources.cpu"))),
    ("minus-zero.json", Some((BadValue, "resources.cpu"))),
    ("mount-outside.toml", Some((BadValue, "task.mount"))),
    ("name-300-characters.toml", Some((BadValue, "name"))),
    ("name-dots.toml", Some((BadValue, "name"))),
    ("name-empty.toml", Some((BadValue, "name"))),
    ("name-homoglyph.toml", Some((BadValue, "name"))),
    ("name-newline.json", Some((BadValue, "name"))),
    ("name-nul.json", Some((BadValue, "name"))),
    ("name-right-to-left.json", Some((BadValue, "name"))),
    ("name-slash.toml", Some((BadValue, "name"))),
    ("name-terminal-escape.json", Some((BadValue, "name"))),
    ("name-upper-case.toml", Some((BadValue, "name"))),
    ("nan.json", Some((Syntax, "resources"))),
    ("nan.toml", Some((BadValue, "resources.cpu"))),
    ("negative-count.toml", Some((BadValue, "count"))),
    ("negative-memory.toml", Some((BadValue, "resources.memory"))),
    ("no-wasm.toml", Some((Missing, "task.wasm"))),
    ("nul-in-text.toml", Some((Syntax, "name"))),
    ("null.json", Some((WrongType, ""))),
    ("parallel-zero.toml", Some((BadValue, "update.parallel"))),
    ("place-like-blow-up.toml", Some((BadValue, "place.constraints.0"))),
    ("place-null.json", Some((WrongType, "place.constraints.0"))),
    ("place-terminal-escape.json", Some((BadValue, "place.constraints.0"))),
    ("port-0.toml", Some((WrongType, "resources.ports"))),
    ("port-65536.toml", Some((WrongType, "resources.ports"))),
    ("port-twice.toml", Some((DuplicateField, "resources.ports"))),
    ("ports-65.json", Some((TooLarge, "resources.ports"))),
    ("priority-101.toml", Some((TooLarge, "priority"))),
    ("priority-300.toml", Some((TooLarge, "priority"))),
    ("processes-of-wasm.toml", Some((Conflict, "limits.processes"))),
    ("raw-escape.json", Some((Syntax, "name"))),
    ("readiness-of-batch.toml", Some((Conflict, "readiness"))),
    ("restart-unknown.toml", Some((BadValue, "restart"))),
    ("role-path.toml", Some((BadValue, "role"))),
    ("runtime-true.toml", Some((WrongType, "runtime"))),
    ("runtime-unknown.toml", Some((BadValue, "runtime"))),
    ("stdin-of-host.toml", Some((BadValue, "task.stdin"))),
    ("sum-overflow.toml", Some((TooLarge, "count"))),
    ("system-beside.toml", Some((Conflict, "update.strategy"))),
    ("system-count.toml", Some((Conflict, "count"))),
    ("system-ends.toml", Some((Conflict, "restart"))),
    ("system-fenced.toml", Some((Conflict, "service.fenced"))),
    ("system-unique.toml", Some((Conflict, "place.constraints.0"))),
    ("tables-huge.toml", Some((TooLarge, "limits.tables"))),
    ("task-null.json", Some((WrongType, "task"))),
    ("text-count.json", Some((WrongType, "count"))),
    ("time-for-ever.toml", Some((TooLarge, "limits.time"))),
    ("time-without-unit.toml", Some((BadValue, "limits.time"))),
    ("tiny-cpu.toml", Some((BadValue, "resources.cpu"))),
    ("truncated-utf8.toml", Some((Syntax, ""))),
    ("two-programs.toml", Some((Conflict, "task.native"))),
    ("two-values.json", Some((Syntax, "task"))),
    ("unknown-field-terminal-escape.json", Some((UnknownField, "\u{fffd}[31m"))),
    ("unknown-field.toml", Some((UnknownField, "resources.memroy"))),
    ("unknown-unit.toml", Some((BadValue, "resources.memory"))),
    ("unknown-version.json", Some((UnknownField, "version"))),
    ("update-deadline-blink.toml", Some((BadValue, "update.deadline"))),
    ("update-healthy-minus.toml", Some((BadValue, "update.min_healthy"))),
    ("update-over-double.toml", Some((TooLarge, "update.max_over"))),
    ("update-rollback-text.toml", Some((WrongType, "update.auto_rollback"))),
    ("update-strategy.toml", Some((BadValue, "update.strategy"))),
    ("utf16.json", Some((Syntax, ""))),
    ("wasm-decimal-url.toml", Some((NotYet, "task.wasm"))),
    ("wasm-file-url.toml", Some((NotYet, "task.wasm"))),
    ("wasm-mapped-url.toml", Some((NotYet, "task.wasm"))),
    ("wasm-metadata-url.toml", Some((NotYet, "task.wasm"))),
    ("wasm-newline.json", Some((BadValue, "task.wasm"))),
    ("wasm-number.toml", Some((WrongType, "task.wasm"))),
    ("wasm-of-host.toml", Some((BadValue, "task.wasm"))),
    ("wasm-userinfo-url.toml", Some((NotYet, "task.wasm"))),
    ("zero-cpu.toml", Some((BadValue, "resources.cpu"))),
    ("zero-memory.toml", Some((BadValue, "resources.memory"))),
];

/// The empty file is the only one that was uploaded, and stands for a module.
fn uploaded(digest: Digest) -> Option<Verdict> {
    let inspection = Inspection { kind: WasmKind::Module, memory_bytes_min: 1 << 16, table_elements_min: 0, functions: 1 };
    (digest == Digest::of(b"")).then_some(Verdict { form: Form::Wasm, wasm: Ok(inspection) })
}

fn problems(bytes: &[u8], format: Format) -> Vec<Problem> {
    parse_bytes(bytes, format).and_then(|spec| admit(spec, &uploaded)).err().unwrap_or_default()
}

fn is_safe(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !(c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)))
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/jobs")
}

#[test]
fn a_hostile_job_is_refused_for_its_field_and_nothing_else() {
    let mut wrong = Vec::new();
    for (file, expected) in CASES {
        let bytes = fs::read(folder().join(file)).expect(file);
        let format = if file.ends_with(".json") { Format::Json } else { Format::Toml };
        let found = problems(&bytes, format);
        let seen: Vec<_> = found.iter().map(|problem| (problem.code, problem.field.as_str())).collect();
        if seen != expected.iter().copied().collect::<Vec<_>>() {
            wrong.push(format!("{file}: expected {expected:?}, found {found:#?}"));
        }
        let text = String::from_utf8_lossy(&bytes);
        for problem in &found {
            let drawn = render(problem, &text);
            assert!(is_safe(&drawn) && drawn.len() < 4_096, "{file}: {drawn:?}");
            assert!(problem.span.is_none() || problem.line > 0, "{file}: a place without a line");
            assert!(serde_json::to_string(problem).expect("a problem is JSON").contains(problem.code.as_str()), "{file}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_of_the_catalogue_has_its_row() {
    let files = fs::read_dir(folder()).expect("the catalogue is in the checkout");
    let mut names: Vec<String> = files.map(|file| file.expect("readable").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    assert_eq!(names, CASES.iter().map(|(file, _)| (*file).to_owned()).collect::<Vec<_>>());
}

#[test]
fn what_is_too_large_for_a_file_is_refused_as_well() {
    let wasm = format!("sha256:{}", Digest::of(b""));
    let of = |rest: &str| format!("{{\"task\": {{\"wasm\": \"{wasm}\"}}, {rest}}}");
    let args = |args: String| format!("{{\"task\": {{\"wasm\": \"{wasm}\", \"args\": [{args}]}}}}");
    let deep = 100_000;
    let json = [
        (of(&format!("\"name\": \"{}\"", "x".repeat(10 << 20))), TooLarge, ""),
        (format!("{{\"name\": {}{}}}", "[".repeat(deep), "]".repeat(deep)), TooLarge, "name"),
        (format!("{}1{}", "{\"task\":".repeat(deep), "}".repeat(deep)), TooLarge, "task"),
        ("[".repeat(deep), Syntax, ""),
        (args(format!("\"{}\"", "x".repeat(200_000))), TooLarge, "task.args"),
        (args(vec!["\"x\""; 1_025].join(",")), TooLarge, "task.args"),
        (of(&format!("\"count\": 1{}", "0".repeat(100_000))), TooLarge, "count"),
        (of(&format!("\"count\": 0.{}1", "0".repeat(100_000))), BadValue, "count"),
    ];
    for (text, code, field) in json {
        let found = problems(text.as_bytes(), Format::Json);
        assert!(
            found.iter().any(|problem| (problem.code, problem.field.as_str()) == (code, field)),
            "{code:?} {field}: {:?}",
            found.first()
        );
    }
    let toml = [
        format!("name = {}{}", "[".repeat(deep), "]".repeat(deep)),
        format!("name = {}1{}", "{a=".repeat(deep), "}".repeat(deep)),
        format!("{}a = 1", "a.".repeat(deep)),
        format!("[{}a]", "a.".repeat(deep)),
        (0..50_000).map(|at| format!("f{at} = 1\n")).collect(),
        "[[task]]\n".repeat(50_000),
    ];
    for text in toml {
        let found = problems(text.as_bytes(), Format::Toml);
        assert!(!found.is_empty() && found.len() <= PROBLEMS_MAX, "{} problems with {:.40}", found.len(), text);
    }
}

#[test]
fn a_job_cut_off_or_bent_anywhere_never_ends_the_process() {
    let text = "name = \"a\"\nrestart = { policy = \"never\", retries = 3 }\n[task]\nwasm = \"a.wasm\"\nargs = [\"é\", '${job}']\n[limits]\nfuel = 2e3\n";
    let json = parse(text, Format::Toml).expect("a job").to_json();
    for (text, format) in [(text, Format::Toml), (json.as_str(), Format::Json)] {
        for at in 0..text.len() {
            for byte in [0, b'"', b'[', b'{', b'}', b'=', b'e', b'-', b'9', 0x80, 0xff] {
                let mut bent = text.as_bytes().to_vec();
                bent[at] = byte;
                let drawn: String =
                    problems(&bent, format).iter().map(|problem| render(problem, &String::from_utf8_lossy(&bent))).collect();
                assert!(is_safe(&drawn));
            }
            assert!(problems(&text.as_bytes()[..at], format).len() <= PROBLEMS_MAX);
        }
    }
}
