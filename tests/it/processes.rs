//! Native and container tasks through the whole cluster: beside wasm, in groups, with limits, through kills of their agent.

use crate::busybox::busybox;
use crate::cluster::{Cluster, Ends, ended, said, sample};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const RESOURCES: &str = "cpu=64,memory=64GiB,disk=4GiB,ports=20500-20599";

/// A file of the cluster's that may be executed.
pub fn write(cluster: &Cluster, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = cluster.folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A container image of busybox; `None`: there is no busybox to make it of.
pub fn image(cluster: &Cluster) -> Option<PathBuf> {
    match busybox() {
        Ok(bytes) => Some(write(cluster, "busybox.tar", bytes)),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

#[test]
fn a_program_a_folder_and_an_image_run_as_they_are() {
    let cluster = Cluster::of_one(RESOURCES);
    let script = write(&cluster, "who", "#!/bin/sh\necho \"$(basename $0) $SKEP_JOB $SKEP_TASK_INDEX $@\"; cat; exit 3\n");
    let input = write(&cluster, "input", "from a file\n");
    let run = |args: &[&str]| said(&cluster, &[&["run"], args].concat());
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (text, code) = run(&["--name", "one", "--stdin", &path(&input), &path(&script), "--", "a", "b ${task.index}"]);
    assert_eq!((text.as_str(), code), ("who one 0 a b 0\nfrom a file\n", Some(3)));

    let folder = cluster.folder.join("bundle");
    fs::create_dir_all(folder.join("lib")).unwrap();
    fs::write(folder.join("lib/data"), "data of the bundle\n").unwrap();
    fs::copy(&script, folder.join("run")).unwrap();
    let (text, code) = run(&["--name", "two", &path(&folder), "--", "./run", "x"]);
    assert_eq!((text.as_str(), code), ("run two 0 x\n", Some(3)));
    let (text, _) = run(&[&path(&folder), "--", "cat", "/bundle/lib/data"]);
    assert_eq!(text, "data of the bundle\n");
    let (text, code) = run(&[&path(&folder)]);
    assert!(text.contains("which program") && code == Some(2), "{text}");

    let Some(image) = image(&cluster) else { return };
    assert_eq!(run(&[&path(&image)]), ("hello from a container\n".into(), Some(0)));
    let (text, _) = run(&["--name", "who", &path(&image), "--", "id -un; pwd; hostname; echo x > /bin/x || echo closed"]);
    // Without root an image sees one user, whose all its files are.
    let closed = !rustix::process::geteuid().is_root() || text.contains("closed\n");
    assert!(text.starts_with("web\n/www\nwho-0\n") && closed, "{text}");
    let (text, _) = run(&["--user", "root", "--dir", "/tmp", &path(&image), "--", "id -u; pwd; echo x > /bin/x && echo open"]);
    assert_eq!(text, "0\n/tmp\nopen\n");
}

#[test]
fn all_three_kinds_make_one_task_and_the_first_that_fails_takes_the_others_with_it() {
    let cluster = Cluster::of_one(RESOURCES);
    write(&cluster, "script", "#!/bin/sh\necho native; exec \"$@\"\n");
    fs::copy(sample("nap.wasm"), cluster.folder.join("nap.wasm")).unwrap();
    let Some(_) = image(&cluster) else { return };
    let group = |name: &str, native: &str| {
        let text = format!(
            "name = \"{name}\"\nkind = \"batch\"\n\
             [[task]]\nname = \"w\"\nwasm = \"nap.wasm\"\nargs = [\"200\"]\n\
             [[task]]\nname = \"n\"\nnative = \"script\"\nargs = {native}\n\
             [[task]]\nname = \"c\"\nimage = \"busybox.tar\"\nargs = [\"echo container; sleep 0.2\"]\n"
        );
        write(&cluster, &format!("{name}.toml"), text)
    };
    let good = group("good", "[\"true\"]");
    let (text, code) = said(&cluster, &["run", good.to_str().unwrap()]);
    assert!(code == Some(0) && text.contains("native") && text.contains("container"), "{text}");
    let bad = group("bad", "[\"sh\", \"-c\", \"exit 9\"]");
    let (text, code) = said(&cluster, &["run", bad.to_str().unwrap()]);
    assert_eq!(code, Some(9), "{text}");
}

#[test]
fn the_host_is_for_roles_that_may_have_it() {
    let cluster = Cluster::of_one(RESOURCES);
    let script = write(&cluster, "script", "#!/bin/sh\nexec \"$@\"\n");
    let run = |args: &[&str]| said(&cluster, &[&["run", "--role", "ops"], args, &[script.to_str().unwrap(), "--"]].concat());
    let (text, code) = run(&["--network", "host"]);
    assert!(code == Some(2) && text.contains("skep roles set ops --host-network true"), "{text}");
    let shared = cluster.folder.join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "of the host\n").unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink("/etc", shared.join("link")).unwrap();
    let job = |from: &Path, writable: bool, command: &str| {
        let text = format!(
            "role = \"ops\"\nkind = \"batch\"\n[task]\nnative = \"script\"\nargs = [\"sh\", \"-c\", \"{command}\"]\n\
             mount = [{{ host = \"{}\", to = \"/mnt/x\", writable = {writable} }}]\n",
            from.display()
        );
        write(&cluster, "job.toml", text)
    };
    let file = job(&shared, false, "cat /mnt/x/file; echo y > /mnt/x/new || echo closed");
    let (text, code) = said(&cluster, &["run", file.to_str().unwrap()]);
    assert!(code == Some(2) && text.contains("--host-path"), "{text}");
    cluster.text(&["roles", "set", "ops", "--host-network", "true", "--host-path", shared.to_str().unwrap()]);
    assert!(cluster.text(&["roles"]).contains("ops"));
    let (text, _) = said(&cluster, &["run", file.to_str().unwrap()]);
    if text.contains("mkdir") || text.contains("making") {
        println!("skipped: {text}");
        return;
    }
    assert!(text.contains("of the host") && text.contains("closed"), "{text}");
    let (text, code) = said(&cluster, &["run", job(&shared, true, "true").to_str().unwrap()]);
    assert!(code == Some(2) && text.contains(":rw"), "{text}");
    // What a policy allows is a path, and not where a link on it leads.
    let (text, code) = said(&cluster, &["run", job(&shared.join("link"), false, "ls /mnt/x").to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("no link"), "{text}");
    for above in ["/", "/tmp"] {
        let (text, code) = said(&cluster, &["run", job(Path::new(above), false, "true").to_str().unwrap()]);
        assert!(code == Some(2), "{above}: {text}");
    }
}

#[test]
fn a_program_runs_beside_a_task_and_a_viewer_may_not() {
    let cluster = Cluster::of_one(RESOURCES);
    write(&cluster, "script", "#!/bin/sh\nexec sleep 600\n");
    let file = write(&cluster, "job.toml", "name = \"web\"\nkind = \"service\"\n[task]\nnative = \"script\"\n");
    cluster.text(&["apply", file.to_str().unwrap()]);
    assert_eq!(cluster.text(&["exec", "web.0", "--", "hostname"]), "web-0\n");
    assert_eq!(said(&cluster, &["exec", "web.0", "--", "sh", "-c", "echo no >&2; exit 7"]), ("no\n".into(), Some(7)));
    let (text, code) = said(&cluster, &["exec", "web.0", "--", "nothing"]);
    assert!(code == Some(1) && text.contains("PATH"), "{text}");
    let token = cluster.text(&["tokens", "create", "--level", "viewer"]);
    let output = cluster.command(&["exec", "web.0", "--", "id"]).env("SKEP_TOKEN", token.trim()).ends();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let nap = sample("nap.wasm");
    cluster.text(&["run", "--detach", "--name", "nap", nap.to_str().unwrap(), "--", "60000"]);
    cluster.until("it runs", |cluster| cluster.tasks("nap", "running") == 1);
    let (text, code) = said(&cluster, &["exec", "nap.0", "--", "id"]);
    assert!(code == Some(2) && text.contains("wasm"), "{text}");
}

/// Which process is the first of each task that is a process, and when it began: the same pair is the same process.
fn processes(cluster: &Cluster) -> BTreeMap<u32, String> {
    let folder = cluster.folder.to_str().unwrap();
    let find = |id: u32| {
        // As root an init has a name of its own, but mounts of files below the folder.
        let tells = |file: &str| fs::read(format!("/proc/{id}/{file}")).is_ok_and(|text| String::from_utf8_lossy(&text).contains(folder));
        let ours = tells("cmdline") || tells("mountinfo");
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().nth(1) == Some("1");
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        (ours && inside).then(|| (id, stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap_or_default().to_owned()))
    };
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(find).collect()
}

/// Whether a hierarchy of control groups of version 1 can be made here, with the option that a template wants.
fn may_mount_groups() -> bool {
    let dir = std::env::temp_dir().join(format!("skep-groups-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let mut mount = Command::new("unshare");
    mount.args(["-m", "mount", "-t", "cgroup", "-o", "none,name=skep-try,favordynmods", "cgroup"]).arg(&dir).stderr(Stdio::null());
    let made = mount.status().unwrap().success();
    fs::remove_dir(&dir).unwrap();
    made
}

#[test]
fn a_template_that_is_killed_has_a_successor_and_no_task_notices() {
    let cluster = Cluster::of_one(RESOURCES);
    let script = write(&cluster, "script", "#!/bin/sh\nexec \"$@\"\n");
    let script = script.to_str().unwrap();
    // Where it can be had, the kernel moves processes between control groups at once as long as a template lives.
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(groups.contains(":name=skep:") || !rustix::process::geteuid().is_root() || !may_mount_groups(), "{groups}");
    cluster.text(&["run", "--detach", "--name", "rest", "--count", "5", script, "--", "sleep", "600"]);
    cluster.until("they run", |cluster| cluster.tasks("rest", "running") == 5);
    let before = processes(&cluster);
    let executors = cluster.executors();
    let parent = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok())
    };
    // Of its two processes the one that works: it is the executors' parent.
    let template = parent(executors[0]).unwrap();
    assert!(cluster.templates().contains(&template));
    assert!(Command::new("kill").args(["-9", &template.to_string()]).status().unwrap().success());
    let (text, code) = said(&cluster, &["run", "--count", "20", script, "--", "echo", "on"]);
    assert!(code == Some(0) && text.matches("on").count() == 20, "{text}");
    assert_eq!(processes(&cluster), before);
    assert!(!cluster.templates().contains(&template));
    cluster.text(&["stop", "rest"]);
    let live = cluster.folder.join("a1/processes/live");
    cluster.until("nothing is left of them", |cluster| processes(cluster).is_empty() && fs::read_dir(&live).unwrap().count() == 0);
}

#[test]
fn an_agent_whose_whole_template_is_killed_ends_and_says_so_and_its_tasks_go_on() {
    let mut cluster = Cluster::of_one(RESOURCES);
    let script = write(&cluster, "script", "#!/bin/sh\nexec \"$@\"\n");
    let script = script.to_str().unwrap();
    cluster.text(&["run", "--detach", "--name", "rest", "--count", "3", script, "--", "sleep", "600"]);
    cluster.until("they run", |cluster| cluster.tasks("rest", "running") == 3);
    let (before, templates) = (processes(&cluster), cluster.templates());
    assert_eq!(templates.len(), 2);
    // The one that waits first: nobody is there then to fork the other again.
    let ids: Vec<String> = templates.iter().map(ToString::to_string).collect();
    assert!(Command::new("kill").arg("-9").args(&ids).status().unwrap().success());
    assert!(!cluster.agent_ended("a1").success());
    let log = fs::read_to_string(cluster.folder.join("a1.log")).unwrap();
    assert!(log.contains("start the agent again"), "{log}");
    assert_eq!(processes(&cluster), before);
    cluster.start_agent("a1");
    let (text, code) = said(&cluster, &["run", script, "--", "echo", "on"]);
    assert_eq!((text.as_str(), code), ("on\n", Some(0)));
    assert_eq!((processes(&cluster), cluster.tasks("rest", "running")), (before, 3));
    cluster.text(&["stop", "rest"]);
    cluster.until("they have ended", |cluster| processes(cluster).is_empty());
}

#[test]
fn a_template_of_another_build_leaves_its_place_to_the_binary() {
    let ran = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_skep-template")).args(args).stdin(Stdio::null()).ends();
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    };
    assert_eq!(ran(&["template", "/nowhere", "7", "0.0.1 0", "/bin/echo"]), ("template /nowhere 7\n".into(), Some(0)));
    assert_eq!(ran(&["template", "/nowhere", "7", "0.0.1 0", "/no/program"]), (String::new(), Some(1)));
    assert_eq!(ran(&["template", "/nowhere", "somebody", "0.0.1 0", "/bin/echo"]), (String::new(), Some(64)));
    assert_eq!(ran(&[]), (String::new(), Some(64)), "people do not start it");
}

/// How much of something the environment asks for: a hundred kills under fifty tasks of each kind are `SKEP_KILLS=100 SKEP_EACH=50`.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn a_killed_agent_finds_each_task_again_and_leaves_none_behind() {
    let each = number("SKEP_EACH", 15);
    let mut cluster = Cluster::of_one(RESOURCES);
    let script = write(&cluster, "script", "#!/bin/sh\nexec sleep 600\n");
    let nap = sample("sleep.wasm");
    let mut kinds =
        vec![("native", script.to_str().unwrap().to_owned(), vec![]), ("wasm", nap.to_str().unwrap().to_owned(), vec!["600000"])];
    if let Some(image) = image(&cluster) {
        kinds.push(("image", image.to_str().unwrap().to_owned(), vec!["sleep 600"]));
    }
    for (name, thing, args) in &kinds {
        let count = each.to_string();
        let flags = ["run", "--detach", "--name", name, "--count", &count, "--cpu", "0.01", "--memory", "8MiB", thing, "--"];
        cluster.text(&[&flags[..], &args[..]].concat());
        cluster.until("all run", |cluster| cluster.tasks(name, "running") == each);
    }
    let before = processes(&cluster);
    assert_eq!(before.len() as u64, each * (kinds.len() as u64 - 1));
    let kills = number("SKEP_KILLS", 5);
    for kill in 0..kills {
        cluster.kill_agent("a1");
        cluster.start_agent("a1");
        cluster.until("the agent is back", |cluster| cluster.reachable().contains(&"a1".to_owned()));
        for (name, ..) in &kinds {
            cluster.until("it owns all again", |cluster| cluster.tasks(name, "running") == each);
        }
        assert_eq!(processes(&cluster), before, "kill {kill}");
    }
    for (name, ..) in &kinds {
        let attempts = cluster.all_tasks(name).iter().filter(|task: &&Value| task["attempt"] != 1).count();
        assert_eq!(attempts, 0, "none was started again");
        cluster.text(&["stop", name]);
    }
    for (name, ..) in &kinds {
        cluster.until("all have ended", |cluster| cluster.tasks(name, "killed") == each);
    }
    cluster.until("no process is left", |cluster| processes(cluster).is_empty());
    let live = fs::canonicalize(cluster.folder.join("a1/processes/live")).unwrap();
    cluster.until("no directory is left", |_| fs::read_dir(&live).unwrap().next().is_none());
}

#[test]
fn who_follows_output_misses_none_of_it_while_it_is_rotated_and_its_agent_dies() {
    let mut cluster = Cluster::of_one(RESOURCES);
    // Each part is longer than what is kept, but the one that is printed while the agent is away.
    let text = "#!/bin/sh\n\
        say() { i=$1; while [ $i -lt $2 ]; do echo \"line $i $PAD\"; i=$((i+1)); [ $((i % 50)) = 0 ] && sleep $3; done; }\n\
        PAD=$(printf '%100s' x)\n\
        say 0 2000 0.05\nuntil [ -e /sandbox/away ]; do sleep 0.02; done\nsay 2000 2400 0\n\
        until [ -e /sandbox/back ]; do sleep 0.02; done\nsay 2400 4000 0.05\n";
    write(&cluster, "script", text);
    let job = "name = \"talk\"\nkind = \"batch\"\n[task]\nnative = \"script\"\n[limits]\nlog = \"128KiB\"\n";
    let file = write(&cluster, "talk.toml", job);
    cluster.text(&["run", "--detach", file.to_str().unwrap()]);
    let heard = cluster.folder.join("heard");
    let mut command = cluster.command(&["logs", "--follow", "talk.0"]);
    let follower = command.stdout(fs::File::create(&heard).unwrap()).spawn().unwrap();
    let has = |line: u32| fs::read_to_string(&heard).unwrap().contains(&format!("line {line} "));
    cluster.until("the first part is heard", |_| has(1999));
    cluster.text(&["exec", "talk.0", "--", "touch", "/sandbox/away"]);
    cluster.kill_agent("a1");
    std::thread::sleep(std::time::Duration::from_millis(500));
    cluster.start_agent("a1");
    cluster.until("what came meanwhile is heard", |_| has(2399));
    cluster.text(&["exec", "talk.0", "--", "touch", "/sandbox/back"]);
    assert!(ended(follower, "who follows output").status.success());
    let text = fs::read_to_string(&heard).unwrap();
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("line ")?.split(' ').next()).collect();
    let all: Vec<String> = (0..4000).map(|line| line.to_string()).collect();
    assert!(
        lines == all,
        "{} lines, the first that is not as expected: {:?}",
        lines.len(),
        lines.iter().zip(&all).find(|(line, all)| *line != all)
    );
}

#[test]
fn bombs_end_alone_and_the_neighbour_does_not_notice() {
    let cluster = Cluster::of_one(RESOURCES);
    if cluster.text(&["status", "a1"]).contains("no control group") {
        println!("skipped: nothing bounds memory and processes here");
        return;
    }
    let script = write(&cluster, "script", "#!/bin/sh\nexec \"$@\"\n");
    let script = script.to_str().unwrap();
    cluster.text(&["run", "--detach", "--name", "neighbour", script, "--", "sh", "-c", "while :; do echo tick; sleep 0.05; done"]);
    cluster.until("it ticks", |cluster| cluster.text(&["logs", "neighbour"]).contains("tick"));
    for (name, bomb, kind) in [
        ("memory", "tail /dev/zero", "out-of-memory"),
        ("forks", "b() { b | b & b; }; b", "out-of-processes"),
        ("files", "i=0; while : > $i; do i=$((i+1)); done; exit 1", "out-of-disk"),
        ("disk", "cat /dev/zero > x; exit 1", "out-of-disk"),
        ("time", "trap '' TERM INT HUP; while :; do :; done", "out-of-time"),
    ] {
        let flags = ["run", "--name", name, "--memory", "32MiB", "--disk", "16MiB", "--time", "5s", "--quiet"];
        let run = cluster.run(&[&flags[..], &[script, "--", "sh", "-c", bomb]].concat());
        assert_ne!(run.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&run.stderr));
        let task = &cluster.all_tasks(name)[0];
        let found = task["exit"]["kind"].as_str().unwrap_or_default();
        assert!(found == kind || (name == "forks" && ["out-of-memory", "out-of-time", "code"].contains(&found)), "{name}: {task}");
    }
    assert_eq!(cluster.tasks("neighbour", "running"), 1);
    let neighbour = &cluster.all_tasks("neighbour")[0];
    assert_eq!(neighbour["attempt"], 1);
    let ticks = cluster.text(&["logs", "neighbour"]).matches("tick").count();
    cluster.until("it ticks on", |cluster| cluster.text(&["logs", "neighbour"]).matches("tick").count() > ticks);
}

/// Runs a server of Debian's as a service with the host's network; `None`: it is not installed.
fn server(program: &str, args: &str, files: &[(&str, &str)]) -> Option<(Cluster, u16)> {
    if Command::new("sh").args(["-c", &format!("PATH=$PATH:/usr/sbin command -v {program}")]).ends().stdout.is_empty() {
        println!("skipped: {program} is not installed");
        return None;
    }
    let cluster = Cluster::of_one(RESOURCES);
    let folder = cluster.folder.join("bundle");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("readme"), "").unwrap();
    files.iter().for_each(|(name, content)| fs::write(folder.join(name), content).unwrap());
    cluster.text(&["roles", "set", "default", "--host-network", "true"]);
    let text = format!(
        "name = \"server\"\nkind = \"service\"\n[task]\nnative = \"bundle\"\ncommand = \"{program}\"\nargs = {args}\n\
         [resources]\nmemory = \"64MiB\"\nports = [\"main\"]\n[limits]\negress = \"host\"\n"
    );
    let file = write(&cluster, "job.toml", text);
    cluster.text(&["apply", file.to_str().unwrap()]);
    let port = cluster.text(&["exec", "server.0", "--", "sh", "-c", "echo $PORT_MAIN"]).trim().parse().unwrap();
    Some((cluster, port))
}

/// What the server answers, once it does.
fn asked(cluster: &Cluster, port: u16, question: &str) -> String {
    use std::io::{Read, Write};
    let ask = || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(question.as_bytes()).ok()?;
        stream.shutdown(std::net::Shutdown::Write).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    cluster.until("it answers", |_| ask().is_some());
    ask().unwrap()
}

#[test]
fn redis_of_debian_runs_as_a_native_task() {
    let args = r#"["--port", "${port.main}", "--bind", "127.0.0.1", "--dir", "/sandbox", "--save", ""]"#;
    let Some((cluster, port)) = server("redis-server", args, &[]) else { return };
    assert_eq!(asked(&cluster, port, "SET a 1\r\nGET a\r\n"), "+OK\r\n$1\r\n1\r\n");
    cluster.text(&["stop", "server"]);
    cluster.until("it has ended", |cluster| cluster.tasks("server", "killed") == 1);
}

#[test]
fn nginx_of_debian_runs_as_a_native_task() {
    let settings = "daemon off; error_log stderr; pid /sandbox/pid; events {}\n\
        http { access_log off; client_body_temp_path /sandbox/b; proxy_temp_path /sandbox/p; fastcgi_temp_path /sandbox/f;\n\
        uwsgi_temp_path /sandbox/u; scgi_temp_path /sandbox/s; server { listen unix:/sandbox/http; return 200 \"served\"; } }\n";
    let command = "sed \\\"s,unix:/sandbox/http,127.0.0.1:$PORT_MAIN,\\\" /bundle/nginx.conf > /sandbox/c; exec /usr/sbin/nginx -e stderr -c /sandbox/c";
    if !Path::new("/usr/sbin/nginx").exists() {
        println!("skipped: nginx is not installed");
        return;
    }
    let Some((cluster, port)) = server("sh", &format!("[\"-c\", \"{command}\"]"), &[("nginx.conf", settings)]) else { return };
    let answer = asked(&cluster, port, "GET / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("served"), "{answer}");
    cluster.text(&["stop", "server"]);
    cluster.until("it has ended", |cluster| cluster.tasks("server", "killed") == 1);
}

#[test]
fn a_root_of_debian_runs_as_a_container() {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/images/debian.tar");
    if !archive.exists() {
        println!("skipped: target/images/debian.tar is not there (make images)");
        return;
    }
    let cluster = Cluster::of_one(RESOURCES);
    let run = |command: &str| said(&cluster, &["run", "--memory", "128MiB", archive.to_str().unwrap(), "--", "/bin/bash", "-c", command]);
    let (text, code) =
        run("grep ^ID= /etc/os-release; id -u; dpkg -l base-files | tail -1 | cut -c1-2; touch /x && ls /x; perl -e 'print 6*7'");
    assert_eq!((text.as_str(), code), ("ID=debian\n0\nii\n/x\n42", Some(0)));
}
