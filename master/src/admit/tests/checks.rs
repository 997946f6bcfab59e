//! `[health]` and `[readiness]`: every form, every default, and what is no check.

use super::*;
use crate::admit::checks::{EVERY_MS_DEFAULT, FAILURES_DEFAULT, GRACE_MS_DEFAULT, TIMEOUT_MS_DEFAULT};
use protocol::{Check, Checks, Name, Probe};

fn native(_: Digest) -> Option<Verdict> {
    Some(Verdict { form: Form::Executable, wasm: small(Digest([0; 32]))?.wasm })
}

fn admitted(text: &str) -> Result<Job, Vec<Problem>> {
    let spec = parse(&text.replace("BUNDLE", DIGEST), Format::Toml)?;
    let again = parse(&spec.to_json(), Format::Json)?;
    let is_wasm = text.contains("wasm = \"BUNDLE\"");
    let look = |digest| if is_wasm { small(digest) } else { native(digest) };
    let job = admit(spec, &look)?;
    assert_eq!(admit(again, &look).as_ref(), Ok(&job), "what the command line sends is the same job");
    Ok(job)
}

const SERVER: &str = "[task]\nnative = \"BUNDLE\"\n[resources]\nports = [\"http\", \"admin\"]\n[limits]\negress = \"host\"\n";

fn server(rest: &str) -> Checks {
    let job = admitted(&format!("{SERVER}{rest}")).unwrap_or_else(|problems| panic!("{rest}: {problems:?}"));
    assert_eq!((job.kind, job.since(), job.template.check()), (Kind::Service, 3, Ok(())), "{rest}");
    job.template.first().checks()
}

fn port(name: &str) -> Name {
    Name::new(name).unwrap()
}

#[test]
fn each_form_is_what_it_says_with_every_default() {
    let check = |probe| Check {
        probe,
        grace_ms: GRACE_MS_DEFAULT,
        every_ms: EVERY_MS_DEFAULT,
        timeout_ms: TIMEOUT_MS_DEFAULT,
        failures_max: FAILURES_DEFAULT,
        delay_ms: 0,
        ignores_1xx: false,
    };
    let http = |secure, name: &str, path: &str| Probe::Http { secure, port: port(name), path: path.into() };
    for (text, probe) in [
        ("http = \"/healthz\"", http(false, "http", "/healthz")),
        ("https = \"/x?a=b\"\nport = \"admin\"", http(true, "admin", "/x?a=b")),
        ("tcp = \"admin\"", Probe::Tcp { port: port("admin") }),
        ("exec = \"true\"", Probe::Exec { command: vec!["true".into()] }),
        ("exec = [\"nc\", \"${port.http}\"]", Probe::Exec { command: vec!["nc".into(), "${port.http}".into()] }),
    ] {
        assert_eq!(server(&format!("[health]\n{text}")).health, Some(check(probe.clone())), "{text}");
        assert_eq!(server(&format!("[readiness]\n{text}")), Checks { health: None, readiness: Some(check(probe)) }, "{text}");
    }
    let said = server("[health]\nhttp = \"/\"\ngrace = \"2m\"\nevery = \"100ms\"\ntimeout = \"1s\"\nfailures = 7").health.unwrap();
    assert_eq!((said.grace_ms, said.every_ms, said.timeout_ms, said.failures_max), (120_000, 100, 1_000, 7));
    let said = server("[health]\nhttp = \"/\"\ndelay = \"15s\"\nignore_1xx = true").health.unwrap();
    assert_eq!((said.delay_ms, said.ignores_1xx, said.grace_ms), (15_000, true, GRACE_MS_DEFAULT));
    assert!(server("[health]\ntcp = \"http\"\ndelay = \"1s\"\nignore_1xx = false").health.is_some());
    assert_eq!(server("[health]\nhttp = \"/\"\nfailures = 0").health.unwrap().failures_max, 0);
    let job = admitted("[task]\nwasm = \"BUNDLE\"\n[health]\nwasm = \"well\"").unwrap();
    assert_eq!(job.template.first().checks().health, Some(check(Probe::Wasm { export: "well".into() })));
    assert!(job.kind == Kind::Service && job.template.first().env.iter().all(|(name, _)| name == protocol::checks::CHECKS_VARIABLE));
    assert_eq!(admitted("[task]\nwasm = \"BUNDLE\"").unwrap().since(), 1);
}

#[test]
fn each_task_of_a_group_has_its_own() {
    let text = "[[task]]\nname = \"a\"\nnative = \"BUNDLE\"\nresources = { ports = [\"http\"] }\nlimits = { egress = \"host\" }\nhealth = { http = \"/\" }\n\
        [[task]]\nname = \"b\"\nnative = \"BUNDLE\"\nhealth = { tcp = \"http\" }\n[task.readiness]\nexec = [\"ready\"]\n";
    let job = admitted(text).unwrap();
    let probes: Vec<Probe> = job.template.members.iter().flat_map(|member| member.checks().health).map(|check| check.probe).collect();
    assert_eq!(probes, [Probe::Http { secure: false, port: port("http"), path: "/".into() }, Probe::Tcp { port: port("http") }]);
    assert!(job.template.members[1].checks().readiness.is_some());
    let problems = |text: &str| admitted(text).unwrap_err().into_iter().map(|problem| (problem.code, problem.field)).collect::<Vec<_>>();
    assert_eq!(problems(&format!("{text}[health]\nhttp = \"/\"\n")), [(Code::Conflict, "health".to_owned())]);
    assert_eq!(problems(&text.replace("\"ready\"", "\"${port.none}\"")), [(Code::BadValue, "task.1.readiness.exec".to_owned())]);
}

#[test]
fn what_is_no_check_is_said_with_its_field() {
    let wasm = "[task]\nwasm = \"BUNDLE\"\n";
    let closed = "[task]\nnative = \"BUNDLE\"\n";
    for (text, code, field) in [
        (format!("{wasm}[health]\nexec = \"true\""), Code::Conflict, "health.exec"),
        (format!("{wasm}[health]\ntcp = \"http\"\n[resources]\nports = [\"http\"]"), Code::NotYet, "health.tcp"),
        (format!("{wasm}[health]\nwasm = \"well\"\nport = \"http\"\n[resources]\nports = [\"http\"]"), Code::Conflict, "health.port"),
        (format!("{wasm}[health]\nwasm = \"\""), Code::BadValue, "health.wasm"),
        (format!("{wasm}[readiness]\nwasm = \"well\"\ngrace = \"1s\""), Code::Conflict, "readiness.grace"),
        (format!("{wasm}[readiness]\nwasm = \"well\"\nfailures = 1"), Code::Conflict, "readiness.failures"),
        (format!("{wasm}[readiness]\nwasm = \"well\"\ndelay = \"1s\""), Code::Conflict, "readiness.delay"),
        (format!("{SERVER}[readiness]\nhttp = \"/\"\nignore_1xx = true"), Code::Conflict, "readiness.ignore_1xx"),
        (format!("{SERVER}[health]\ntcp = \"http\"\nignore_1xx = true"), Code::Conflict, "health.ignore_1xx"),
        (format!("{SERVER}[health]\nhttp = \"/\"\nignore_1xx = 1"), Code::WrongType, "health.ignore_1xx"),
        (format!("{SERVER}[health]\nhttp = \"/\"\ndelay = \"2d\""), Code::TooLarge, "health.delay"),
        (format!("{closed}[health]\nhttp = \"/\""), Code::Missing, "health.port"),
        (format!("{closed}[health]\nwasm = \"well\""), Code::Conflict, "health.wasm"),
        (format!("{closed}[health]\nexec = [\"\"]"), Code::BadValue, "health.exec"),
        (format!("{SERVER}[health]\nhttp = \"healthz\""), Code::BadValue, "health.http"),
        (format!("{SERVER}[health]\nhttps = \"/{}\"", "x".repeat(1_024)), Code::TooLarge, "health.https"),
        (format!("{SERVER}[health]\ntcp = \"admni\""), Code::BadValue, "health.tcp"),
        (format!("{SERVER}[health]\nhttp = \"/\"\nfailures = 1001"), Code::TooLarge, "health.failures"),
        (format!("{SERVER}[health]\nhttp = \"/\"\nevery = \"10ms\""), Code::BadValue, "health.every"),
        (format!("{SERVER}[health]\nhttp = \"/\"\ngrace = \"2d\""), Code::TooLarge, "health.grace"),
        (format!("{SERVER}[health]\nhttp = \"/\"\nintervall = \"2s\""), Code::UnknownField, "health.intervall"),
        (format!("{SERVER}[health]\nhttp = 80"), Code::WrongType, "health.http"),
        ("[task]\nnative = \"BUNDLE\"\nhealth = { exec = \"true\" }".to_owned(), Code::UnknownField, "task.health"),
    ] {
        let found: Vec<_> = admitted(&text).err().unwrap_or_default().into_iter().map(|problem| (problem.code, problem.field)).collect();
        assert_eq!(found, [(code, field.to_owned())], "{text}");
    }
}
