//! A native or container task as its executor is told of it: what the job says, what the bundle says, and what this machine gives.

use protocol::checks::CHECKS_VARIABLE;
use protocol::job::{FENCE_VARIABLE, HostMount, Network, Process};
use protocol::message::Launch;
use protocol::{AttemptId, Given, Member, Program};
use runtime::Key;
use runtime::container::{self, Overrides, Pieces};
use runtime::process::{
    BUNDLE_DIR, IDS_PER_TASK, Ids, MESSAGES_FD, MESSAGES_VARIABLE, Mount, ProcessLimits, ProcessSpec, Root, SANDBOX_DIR,
};
use runtime::text::{Gaps, Text};
use std::path::PathBuf;

/// Where native programs are looked for: the bundle first.
const PATH: &str = "/bundle/bin:/bundle:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where a task learns at which addresses services are found by name.
const DNS_VARIABLE: &str = "SKEP_DNS";
/// The one user of a native task, inside.
const TASK_ID: u32 = 1_000;
/// Longest host name (hostname(7)).
const TITLE_BYTES_MAX: usize = 63;
const SIGTERM: i32 = 15;

/// What all tasks of a launch have in common.
pub(super) struct Common<'a> {
    pub launch: &'a Launch,
    pub member: &'a Member,
    pub prepared: &'a container::Prepared,
    pub stdin: Option<PathBuf>,
    /// What people call the machine.
    pub agent: &'a str,
    /// Where names of services are answered for, `HOST:PORT` with commas between them; empty: nobody said.
    pub dns: &'a str,
    /// The parent of its control group.
    pub group: String,
}

/// One of them.
pub(super) struct One<'a> {
    pub key: Key,
    pub index: u32,
    pub attempt: u32,
    /// In the order of the template's names.
    pub ports: &'a [u16],
    /// The single devices that it has.
    pub given: Given,
    /// The first of its ids; `None`: it runs as who runs the agent.
    pub ids: Option<u32>,
}

/// The spec of one task.
///
/// # Errors
/// Why it can be started nowhere: for its user.
pub(super) fn spec(common: &Common<'_>, one: &One<'_>) -> Result<ProcessSpec, String> {
    let Common { launch, member, prepared, .. } = common;
    let (Program::Native { process, .. } | Program::Image { process, .. }) = &member.program else {
        return Err("a wasm task is no process".into());
    };
    let fill = filler(common, one);
    let command: Vec<String> = process.command.iter().map(|text| fill(text)).collect();
    let args: Vec<String> = member.args.iter().map(|text| fill(text)).collect();
    let env = environment(common, one, &fill);
    let pieces = match (&member.program, prepared) {
        (Program::Image { .. }, container::Prepared::Image(image)) => {
            let overrides = Overrides {
                command: (!command.is_empty()).then_some(command),
                args: (!args.is_empty()).then_some(args),
                env,
                user: process.user.clone(),
                dir: process.dir.clone(),
            };
            (Root::Layers { layers: image.layers.clone() }, container::start(image, &overrides).map_err(|error| error.to_string())?)
        }
        (Program::Native { file, .. }, container::Prepared::File(path)) => {
            let command = if command.is_empty() { vec![format!("{BUNDLE_DIR}/{file}")] } else { command };
            (Root::Host { bundle: path.clone(), name: Some(file.clone()) }, native(process, command, args, env)?)
        }
        (Program::Native { .. }, container::Prepared::Folder(path)) => {
            (Root::Host { bundle: path.clone(), name: None }, native(process, command, args, env)?)
        }
        _ => return Err("the bundle is not what the job says it is".into()),
    };
    let (root, Pieces { command, env, dir, uid, gid, groups, stop_signal }) = pieces;
    let ids = match (&root, one.ids) {
        // Without root there is one user inside, whoever the image says.
        (_, None) => Ids { inside: uid, outside: None, count: 1, uid, gid: uid, groups: vec![] },
        (Root::Layers { .. }, outside) => Ids { inside: 0, outside, count: IDS_PER_TASK - 1, uid, gid, groups },
        (Root::Host { .. }, outside) => Ids { inside: uid, outside, count: 1, uid, gid, groups },
    };
    Ok(ProcessSpec {
        key: one.key,
        title: title(&launch.title, one.index),
        root,
        command,
        env,
        dir,
        stdin: common.stdin.clone(),
        ids,
        network: if process.network == Network::Host { runtime::process::Network::Host } else { runtime::process::Network::None },
        ports: one.ports.to_vec(),
        mounts: process.mounts.iter().map(mount).collect(),
        stop_signal: process.stop_signal.map(i32::from).or(stop_signal).unwrap_or(SIGTERM),
        init: true,
        limits: limits(member),
        cgroup: format!("{}/{:032x}", common.group, one.key.0),
    })
}

fn native(process: &Process, mut command: Vec<String>, args: Vec<String>, mut env: Vec<(String, String)>) -> Result<Pieces, String> {
    let Some(program) = command.first_mut().filter(|program| !program.is_empty()) else {
        return Err("the bundle is an archive, and the job does not say which program of it is run: name it as the task's command".into());
    };
    // A path that is not absolute is one in the bundle; a name alone is looked for in PATH, where the bundle is first.
    if program.contains('/') && !program.starts_with('/') {
        *program = format!("{BUNDLE_DIR}/{}", program.strip_prefix("./").unwrap_or(program));
    }
    command.extend(args);
    for (name, value) in [("PATH", PATH), ("HOME", SANDBOX_DIR)] {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.into(), value.into()));
        }
    }
    let dir = process.dir.clone().unwrap_or_else(|| SANDBOX_DIR.into());
    Ok(Pieces { command, env, dir, uid: TASK_ID, gid: TASK_ID, groups: vec![], stop_signal: None })
}

/// Fills the gaps of a text with what this task has.
fn filler<'a>(common: &'a Common<'_>, one: &'a One<'_>) -> impl Fn(&str) -> String + 'a {
    let port_names: Vec<String> = common.launch.template.ports().map(ToString::to_string).collect();
    let job_id = common.launch.job.to_string();
    move |text| {
        let gaps = Gaps { job: &common.launch.title, job_id: &job_id, agent: common.agent, port_names: &port_names };
        Text::scan(text, &gaps).fill(one.index, one.attempt, one.ports)
    }
}

/// What the job says, and what a task can know of itself, where the job does not use the name for something else.
fn environment(common: &Common<'_>, one: &One<'_>, fill: &impl Fn(&str) -> String) -> Vec<(String, String)> {
    let token = || AttemptId::new(common.launch.job, one.index, one.attempt).fence().to_string();
    let value = |(name, value): &(String, String)| (name.clone(), if name == FENCE_VARIABLE { token() } else { fill(value) });
    let own = common.member.env.iter().filter(|(name, _)| name != CHECKS_VARIABLE);
    let mut env: Vec<(String, String)> = own.map(value).collect();
    let own = [
        ("SKEP_JOB".to_owned(), common.launch.title.clone()),
        ("SKEP_TASK_INDEX".to_owned(), one.index.to_string()),
        ("SKEP_ATTEMPT".to_owned(), one.attempt.to_string()),
        ("SKEP_AGENT".to_owned(), common.agent.to_owned()),
        (MESSAGES_VARIABLE.to_owned(), MESSAGES_FD.to_string()),
    ];
    let dns = (!common.dns.is_empty()).then(|| (DNS_VARIABLE.to_owned(), common.dns.to_owned()));
    let ports = common.launch.template.ports().zip(one.ports);
    let ports = ports.map(|(name, port)| (format!("PORT_{}", name.as_str().to_uppercase().replace('-', "_")), port.to_string()));
    let devices = super::devices::environment(common.launch, common.member, &one.given);
    for (name, value) in own.into_iter().chain(dns).chain(ports).chain(devices) {
        if !env.iter().any(|(known, _)| *known == name) {
            env.push((name, value));
        }
    }
    env
}

fn mount(mount: &HostMount) -> Mount {
    Mount { from: PathBuf::from(&mount.from), to: mount.to.clone(), read_only: !mount.writable }
}

fn limits(member: &Member) -> ProcessLimits {
    let limits = &member.limits;
    ProcessLimits {
        memory_bytes_max: limits.memory_bytes_max,
        cpu_milli: member.resources.cpu_milli,
        processes_max: limits.processes_max,
        time_ms_max: limits.time_ms_max,
        cpu_time_ms_max: limits.cpu_time_ms_max,
        disk_bytes_max: member.resources.disk_bytes,
        log_bytes_max: limits.log_bytes_max,
        log_bytes_per_s_max: limits.log_bytes_per_s_max,
    }
}

/// A host name: `JOB-INDEX`, of which the job's name is cut.
fn title(job: &str, index: u32) -> String {
    let index = format!("-{index}");
    let plain: String = job.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' }).collect();
    let job = plain.get(..TITLE_BYTES_MAX - index.len()).unwrap_or(&plain);
    format!("{}{index}", job.trim_matches('-'))
}
