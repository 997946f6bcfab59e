//! How an agent begins: its directory, who it is, what it took on before, and its executors.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use protocol::agent::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, WEAKNESSES_MAX};
use protocol::message::Launch;
use protocol::{AgentId, AgentInfo, Member};
use runtime::jail::cgroup::Hierarchies;
use tokio::sync::mpsc;

use super::executors::{Executors, Settings};
use super::processes::{self, Processes};
use super::uplink::{self, Uplink};
use super::{AgentConfig, AgentError, Clock, Door, INBOX_MAX, now};
use crate::checkpoint::{Checkpoint, Damage};
use crate::fetch::Fetcher;
use crate::fingerprint;
use crate::ledger::bundles::need;
use crate::ledger::event::{Event, Record};
use crate::ledger::{Ledger, LedgerConfig};

/// How often an agent beats until a master says otherwise, in milliseconds.
const HEARTBEAT_MS: u64 = 500;
/// The largest memory of one wasm task: what 32-bit addresses reach.
const MEMORY_BYTES_MAX: u64 = 4 << 30;

impl Door {
    pub(super) async fn open(config: AgentConfig) -> Result<Self, AgentError> {
        let lock = lock(&config.data_dir)?;
        let identity_dir = config.data_dir.join("identity");
        // What an operator got wrong is said before anybody is asked.
        let mut info = info(&config)?;
        let identity = uplink::identity(&identity_dir, &config.masters, config.join.as_ref()).await?;
        let agent = identity.agent().ok_or_else(|| AgentError::NoIdentity { dir: identity_dir.clone() })?;
        let found = config.binary.map_or_else(std::env::current_exe, Ok);
        let binary = found.map_err(|source| AgentError::File { step: "finding", path: "this program".into(), source })?;
        let (heard_sender, heard) = mpsc::channel(INBOX_MAX);
        let (said_sender, said) = mpsc::channel(INBOX_MAX);
        let (said_of_processes_sender, said_of_processes) = mpsc::channel(INBOX_MAX);
        let (prepared_sender, prepared) = mpsc::channel(INBOX_MAX);

        let cache_dir = config.data_dir.join("cache");
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| AgentError::File { step, path, source }
        };
        let key = cache_key(&config.data_dir.join("cache.key"))?;
        let fetcher = Fetcher::open(&cache_dir, key, binary.clone(), config.bundle_cache_bytes_max, prepared_sender);
        let fetcher = fetcher.map_err(failed("opening", &cache_dir))?;

        let executors_dir = config.data_dir.join("executors");
        make_dir(&executors_dir, 0o711)?;
        let executors_dir = fs::canonicalize(&executors_dir).map_err(failed("finding", &executors_dir))?;
        let root = own_users(&executors_dir, &mut info);
        let settings = Settings {
            dir: executors_dir.clone(),
            binary: binary.clone(),
            readable: fetcher.folders().iter().map(fs::canonicalize).collect::<io::Result<_>>().map_err(failed("finding", &cache_dir))?,
            memory_bytes_max: info.capacity.memory_bytes.min(MEMORY_BYTES_MAX),
            root,
        };
        let mut executors = Executors::open(settings, said_sender).map_err(failed("opening", &executors_dir))?;
        let found = executors.recover().await.map_err(failed("recovering executors in", &executors_dir))?;

        let (processes, found_of_processes) = open_processes(&config.data_dir, agent, binary, said_of_processes_sender).await?;

        let name = info.name.clone();
        let (checkpoint, mut ledger) = ledger(&config.data_dir.join("ledger"), agent, info)?;
        let clock = Clock { start: now(), since: tokio::time::Instant::now() };
        for event in found.into_iter().chain(found_of_processes).chain([Event::Surveyed]) {
            ledger.handle(clock.now(), event);
        }
        let uplink = Uplink { masters: config.masters, dir: identity_dir, identity, heard: heard_sender };
        let uplink = tokio::spawn(uplink.run());
        Ok(Self {
            agent,
            name,
            ledger,
            checkpoint,
            executors,
            processes,
            fetcher,
            clock,
            up: None,
            heard,
            said,
            said_of_processes,
            prepared,
            uplink,
            executors_dir,
            group: format!("skep-{:016x}", agent.0),
            own_ids: rustix::process::geteuid().is_root(),
            data_dir: config.data_dir,
            quit: None,
            _lock: lock,
        })
    }
}

/// Native and container tasks, and what those of earlier lives hold.
async fn open_processes(
    data_dir: &Path,
    agent: AgentId,
    binary: PathBuf,
    said: mpsc::Sender<processes::Said>,
) -> Result<(Processes, Vec<Event>), AgentError> {
    let home = data_dir.join("processes");
    let failed = |step| {
        let path = home.clone();
        move |source| AgentError::File { step, path, source }
    };
    make_dir(&home, 0o711)?;
    let home = fs::canonicalize(&home).map_err(failed("finding"))?;
    let here = home.join("live");
    let live = live_dir(agent).unwrap_or_else(|| here.clone());
    if live != here {
        // So that it is found by who looks here.
        let _ = fs::remove_file(&here);
        let _ = std::os::unix::fs::symlink(&live, &here);
    }
    let settings = processes::Settings { home: home.clone(), live, binary };
    let mut processes =
        Processes::open(settings, said).map_err(|source| AgentError::File { step: "opening", path: home.clone(), source })?;
    let found = processes.recover().await.map_err(|source| AgentError::File { step: "recovering tasks in", path: home, source })?;
    Ok((processes, found))
}

/// What a wasm member of the tasks of a launch has in common, for its executor.
pub(super) fn plan(launch: &Launch, member: &Member, compiled: PathBuf, stdin: Option<PathBuf>, agent: &str) -> runtime::Plan {
    let (bundle, _) = need(&member.program);
    let limits = &member.limits;
    runtime::Plan {
        compiled,
        digest: bundle.0,
        args: member.args.clone(),
        env: member.env.clone(),
        config: member.config.clone(),
        stdin,
        port_names: launch.template.ports().map(ToString::to_string).collect(),
        limits: runtime::Limits {
            fuel_max: limits.fuel_max,
            cpu_time_ms_max: limits.cpu_time_ms_max,
            time_ms_max: limits.time_ms_max,
            memory_bytes_max: limits.memory_bytes_max,
            table_elements_max: limits.table_elements_max,
            host_bytes_max: limits.host_bytes_max,
            log_bytes_max: limits.log_bytes_max,
        },
        job: launch.title.clone(),
        agent: agent.to_owned(),
    }
}

/// What the agent says of itself; what the operator said of it is checked.
fn info(config: &AgentConfig) -> Result<AgentInfo, AgentError> {
    let mut have = fingerprint::have(&config.data_dir)?;
    if let Some(text) = &config.resources {
        have = fingerprint::overridden(have, text)?;
    }
    let info = AgentInfo {
        name: config.name.clone().unwrap_or_else(fingerprint::host),
        capacity: have.capacity,
        ports: have.ports,
        attributes: fingerprint::attributes(&config.attributes),
        domain: config.domain.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        weaknesses: runtime::jail::probe().into_iter().chain(runtime::jail::cell::lacks()).chain(Hierarchies::find().lacks()).collect(),
    };
    let wrong = |field| {
        let reason = format!("1 to {ATTRIBUTE_BYTES_MAX} bytes without control characters are allowed, and {ATTRIBUTES_MAX} attributes");
        AgentError::Info { field, reason }
    };
    let short = |text: &str| text.len() <= ATTRIBUTE_BYTES_MAX && !text.chars().any(char::is_control);
    let domain = [&info.domain.region, &info.domain.zone, &info.domain.rack];
    if info.name.is_empty() || !short(&info.name) {
        return Err(wrong("name"));
    }
    if info.attributes.len() > ATTRIBUTES_MAX
        || !info.attributes.iter().all(|(name, value)| !name.is_empty() && short(name) && short(value))
    {
        return Err(wrong("attributes"));
    }
    if !domain.into_iter().all(|part| short(part)) {
        return Err(wrong("domain"));
    }
    assert!(AgentInfo { weaknesses: vec![], ..info.clone() }.is_bounded(), "each part was checked where it was made");
    Ok(info)
}

/// The ledger as it was when the agent last ran on this start of the machine, or a new one.
fn ledger(path: &Path, agent: AgentId, info: AgentInfo) -> Result<(Checkpoint, Ledger), AgentError> {
    let boot = fingerprint::boot_id()?;
    let (mut checkpoint, found) = Checkpoint::open(path)?;
    match found.damage {
        Some(Damage::TornTail { bytes }) => {
            tracing::warn!(path = %path.display(), bytes, "the last record was not wholly written: it is cut off")
        }
        Some(Damage::Middle { offset, bytes }) => tracing::error!(
            path = %path.display(), offset, bytes,
            "the ledger is damaged: what follows is given up; tasks that executors do not name are lost, those that only they name are ended"
        ),
        None => {}
    }
    // Of several beginnings the last one counts.
    let began = found.records.iter().rposition(|record| matches!(record, Record::Began { .. })).unwrap_or(0);
    let config = LedgerConfig { agent, info, heartbeat_ms: HEARTBEAT_MS };
    let recovered = Ledger::recover(config.clone(), &found.records[began.min(found.records.len())..]);
    let draw = || fingerprint::random().map(u64::from_le_bytes);
    match recovered.filter(|ledger| ledger.boot() == boot) {
        Some(mut ledger) => {
            if matches!(found.damage, Some(Damage::Middle { .. })) {
                ledger.renew(draw()?);
            }
            Ok((checkpoint, ledger))
        }
        None => {
            // Nothing survives a reboot; the new beginning is the first record of an empty file.
            checkpoint.replace(&[])?;
            Ok((checkpoint, Ledger::new(config, draw()?, boot)))
        }
    }
}

fn lock(dir: &Path) -> Result<File, AgentError> {
    make_dir(dir, 0o711)?;
    let path = dir.join("lock");
    let failed = |source| AgentError::File { step: "locking", path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(AgentError::InUse { dir: dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The key that seals compiled code; drawn once.
fn cache_key(path: &Path) -> Result<[u8; 32], AgentError> {
    let failed = |step| move |source| AgentError::File { step, path: path.to_owned(), source };
    match fs::read(path) {
        Ok(content) => {
            if let Ok(key) = <[u8; 32]>::try_from(content) {
                return Ok(key);
            }
            tracing::error!(path = %path.display(), "the cache's key is damaged: a new one is drawn, and all is compiled again");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("reading")(error)),
    }
    let key = fingerprint::random::<32>()?;
    let new = path.with_extension("new");
    let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&new);
    file.and_then(|mut file| io::Write::write_all(&mut file, &key)).map_err(failed("writing"))?;
    fs::rename(&new, path).map_err(failed("renaming to"))?;
    Ok(key)
}

/// Makes a directory that others may pass through but not look into.
fn make_dir(dir: &Path, mode: u32) -> Result<(), AgentError> {
    let failed = |source| AgentError::File { step: "making", path: dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(failed)?;
    fs::set_permissions(dir, Permissions::from_mode(mode)).map_err(failed)
}

/// Where executors of processes have their directories: in memory, where files cost little and are gone after a reboot, as what they speak of is.
/// None where there is no such place that is ours alone.
fn live_dir(agent: AgentId) -> Option<PathBuf> {
    // linux/magic.h
    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
    let in_memory = |dir: &&str| rustix::fs::statfs(*dir).is_ok_and(|found| found.f_type == TMPFS_MAGIC);
    let parent =
        ["/run", "/dev/shm"].into_iter().filter(in_memory).find(|dir| rustix::fs::access(*dir, rustix::fs::Access::WRITE_OK).is_ok())?;
    let dir = Path::new(parent).join(format!("skep-{:016x}", agent.0));
    let _ = fs::DirBuilder::new().mode(0o711).create(&dir); // It may be there.
    // Others may write to the parent: one of theirs is not ours.
    let found = fs::symlink_metadata(&dir).ok()?;
    let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    ours.then_some(dir)
}

/// True where each role's executors have a user of their own; what holds them in less is noted.
fn own_users(dir: &Path, info: &mut AgentInfo) -> bool {
    let (root, passable) = (rustix::process::geteuid().is_root(), is_passable(dir));
    if root && !passable {
        let sentence =
            "the data directory is closed to other users: executors run as root, without capabilities, instead of one user for each role";
        info.weaknesses.push(sentence.into());
    }
    info.weaknesses.truncate(WEAKNESSES_MAX);
    root && passable
}

/// True where a user other than the owner may reach `dir`.
fn is_passable(dir: &Path) -> bool {
    dir.ancestors().all(|part| fs::metadata(part).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0))
}
