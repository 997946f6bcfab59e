//! Native and container tasks, and groups of tasks.

use super::*;
use protocol::job::{HostMount, Network};

/// Everything was uploaded, and looks like this.
fn admitted(text: &str, form: Form) -> Result<Job, Vec<Problem>> {
    let wasm = small(Digest([0; 32])).unwrap().wasm;
    let wasm = if form == Form::Wasm { wasm } else { Err(Rejection::NotWasm) };
    admit(parse(&text.replace("DIGEST", DIGEST), Format::Toml)?, &|_| Some(Verdict { form, wasm: wasm.clone() }))
}

fn refused(text: &str, form: Form) -> Vec<(Code, String)> {
    let problems = admitted(text, form).err().unwrap_or_default();
    problems.into_iter().map(|problem| (problem.code, problem.field)).collect()
}

#[test]
fn a_native_task_says_how_it_is_started() {
    let text = r#"
        [task]
        native = "DIGEST"
        file = "server"
        args = ["--port", "${port.http}"]
        user = "nobody"
        dir = "/srv"
        stop_signal = "INT"
        mount = [{ host = "/srv/data", writable = true }, { host = "/etc/ssl", to = "/ssl" }]
        [resources]
        ports = ["http"]
        disk = "1GiB"
        [limits]
        egress = "host"
        processes = 8
        cpu_time = "5s"
        log_rate = "64KiB"
    "#;
    let job = admitted(text, Form::Executable).unwrap();
    let member = job.template.first();
    let Program::Native { file, process, .. } = &member.program else { panic!("{member:?}") };
    assert_eq!((file.as_str(), process.user.as_deref(), process.dir.as_deref()), ("server", Some("nobody"), Some("/srv")));
    assert_eq!((process.stop_signal, process.network), (Some(2), Network::Host));
    let mount = |from: &str, to: &str, writable| HostMount { from: from.into(), to: to.into(), writable };
    assert_eq!(process.mounts, [mount("/srv/data", "/srv/data", true), mount("/etc/ssl", "/ssl", false)]);
    let limits = &member.limits;
    assert_eq!((limits.processes_max, limits.cpu_time_ms_max, limits.log_bytes_per_s_max), (8, Some(5_000), 64 << 10));
    assert_eq!((limits.fuel_max, job.kind), (None, Kind::Service));
    assert_eq!(job.template.check(), Ok(()));
}

#[test]
fn a_group_has_a_place_for_each_of_its_tasks() {
    let text = r#"
        name = "shop"
        [[task]]
        name = "web"
        image = "DIGEST"
        resources = { cpu = 0.5, memory = "100MiB" }
        limits = { processes = 9 }
        [[task]]
        name = "log"
        native = "DIGEST"
        command = ["bin/log", "-v"]
    "#;
    let job = admitted(text, Form::Archive).unwrap();
    let names: Vec<_> = job.template.members.iter().map(|member| member.name.as_ref().unwrap().as_str()).collect();
    assert_eq!(names, ["web", "log"]);
    assert_eq!((job.template.resources.cpu_milli, job.template.resources.memory_bytes >> 20), (600, 164));
    assert_eq!(job.template.check(), Ok(()));
    let again = parse(&parse(&text.replace("DIGEST", DIGEST), Format::Toml).unwrap().to_json(), Format::Json).unwrap();
    let looked = |_: Digest| Some(Verdict { form: Form::Archive, wasm: Err(Rejection::NotWasm) });
    assert_eq!(admit(again, &looked).unwrap(), job);
}

#[test]
fn what_does_not_fit_its_kind_is_refused_by_name() {
    let conflict = |field: &str| vec![(Code::Conflict, field.to_owned())];
    let cases = [
        ("task.native = \"DIGEST\"\nlimits.fuel = 5", Form::Script, conflict("limits.fuel")),
        ("task.native = \"DIGEST\"\ntask.config = { a = \"b\" }", Form::Script, conflict("task.config")),
        ("task.wasm = \"DIGEST\"\nlimits.processes = 5", Form::Wasm, conflict("limits.processes")),
        ("task.wasm = \"DIGEST\"\ntask.user = \"root\"", Form::Wasm, conflict("task.user")),
        ("task.image = \"DIGEST\"\ntask.file = \"x\"", Form::Archive, conflict("task.file")),
        ("task.image = \"DIGEST\"\ntask.native = \"DIGEST\"", Form::Archive, conflict("task.image")),
        ("task.native = \"DIGEST\"\nresources.ports = [\"http\"]", Form::Script, conflict("resources.ports")),
        ("task.native = \"DIGEST\"", Form::Wasm, vec![(Code::BadBundle, "task.native".into())]),
        ("task.native = \"DIGEST\"", Form::Other, vec![(Code::BadBundle, "task.native".into())]),
        ("task.native = \"DIGEST\"\ntask.command = [\"x\"]", Form::Wasm, vec![(Code::BadBundle, "task.native".into())]),
        ("task.native = \"DIGEST\"", Form::Archive, vec![(Code::Missing, "task.command".into())]),
        ("task.image = \"DIGEST\"", Form::Executable, vec![(Code::BadBundle, "task.image".into())]),
        ("task.native = \"DIGEST\"\ntask.dir = \"../x\"", Form::Script, vec![(Code::BadValue, "task.dir".into())]),
        ("task.native = \"DIGEST\"\ntask.file = \"../x\"", Form::Script, vec![(Code::BadValue, "task.file".into())]),
        ("task.native = \"DIGEST\"\ntask.stop_signal = \"KILL\"", Form::Script, vec![(Code::BadValue, "task.stop_signal".into())]),
        ("task.native = \"DIGEST\"\ntask.mount = [{ to = \"/x\" }]", Form::Script, vec![(Code::Missing, "task.mount".into())]),
        (
            "task.native = \"DIGEST\"\ntask.mount = [{ host = \"/a/../b\", to = \"/x\" }]",
            Form::Script,
            vec![(Code::BadValue, "task.mount".into())],
        ),
        ("[[task]]\nnative = \"DIGEST\"", Form::Script, vec![(Code::Missing, "task.0.name".into())]),
        (
            "[[task]]\nname = \"a\"\nnative = \"DIGEST\"\n[[task]]\nname = \"a\"\nnative = \"DIGEST\"",
            Form::Script,
            vec![(Code::DuplicateField, "task.1.name".into())],
        ),
        ("[[task]]\nname = \"a\"\nnative = \"DIGEST\"\n[resources]\ncpu = 1", Form::Script, conflict("resources")),
    ];
    for (text, form, expected) in cases {
        assert_eq!(refused(text, form), expected, "{text}");
    }
}

#[test]
fn what_is_revocable_has_kinds_of_its_own() {
    let text =
        "task.wasm = \"DIGEST\"\n[resources]\ncpu = 0.5\nmemory = \"64MiB\"\ndisk = 0\nrevocable = REVOCABLE\ndevices = { gpu = 1 }\n";
    let lent = admitted(&text.replace("REVOCABLE", "true"), Form::Wasm).unwrap();
    let firm = admitted(&text.replace("REVOCABLE", "false"), Form::Wasm).unwrap();
    assert_eq!(lent.template.resources, firm.template.resources.clone().made_revocable());
    assert_eq!((lent.template.first().limits.memory_bytes_max, lent.template.check()), (64 << 20, Ok(())));
    assert_eq!((lent.since(), firm.since()), (3, 1), "a master of before would not know why it waits");
    assert_eq!(refused(&text.replace("REVOCABLE", "1"), Form::Wasm), [(Code::WrongType, "resources.revocable".to_owned())]);
}

#[test]
fn what_is_revocable_is_no_device_and_of_a_whole_group() {
    let devices = "task.wasm = \"DIGEST\"\n[resources.devices]\nrevocable-cpu = 1\n";
    assert_eq!(refused(devices, Form::Wasm), [(Code::BadValue, "resources.devices".to_owned())]);
    let many = |n: usize| {
        let devices: Vec<String> = (0..n).map(|n| format!("d{n:02} = 1\n")).collect();
        format!("task.wasm = \"DIGEST\"\nresources.revocable = true\n[resources.devices]\n{}", devices.concat())
    };
    assert_eq!(admitted(&many(14), Form::Wasm).unwrap().template.check(), Ok(()));
    assert_eq!(refused(&many(15), Form::Wasm), [(Code::TooLarge, "resources.devices".to_owned())]);
    let task = |name: &str, revocable: bool| {
        format!("[[task]]\nname = \"{name}\"\nwasm = \"DIGEST\"\nresources = {{ revocable = {revocable} }}\n")
    };
    assert!(admitted(&[task("a", true), task("b", true)].concat(), Form::Wasm).is_ok());
    let mixed = refused(&[task("a", false), task("b", true)].concat(), Form::Wasm);
    assert_eq!(mixed, [(Code::Conflict, "task.1.resources.revocable".to_owned())]);
}

#[test]
fn with_a_command_any_file_is_what_a_program_of_the_machine_reads() {
    let text = "task.native = \"DIGEST\"\ntask.file = \"redis.conf\"\ntask.command = [\"redis-server\", \"/bundle/redis.conf\"]";
    let job = admitted(text, Form::Other).unwrap();
    let Program::Native { file, process, .. } = &job.template.first().program else { panic!("it is native") };
    assert_eq!((file.as_str(), process.command[0].as_str()), ("redis.conf", "redis-server"));
}
