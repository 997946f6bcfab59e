//! How an agent begins: its directory, who it is, what it took on before, and its executors.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::agent::WEAKNESSES_MAX;
use protocol::checks::CHECKS_VARIABLE;
use protocol::job::FENCE_VARIABLE;
use protocol::message::Launch;
use protocol::{AgentId, AgentInfo, AttemptId, Member, Reservation};
use runtime::container::{Hands, Limits, Store, UnpackError};
use runtime::executor::process::{Template, is_passable};
use tokio::sync::mpsc;

use super::asks::Asker;
use super::clock::Clock;
use super::executors::{Executors, Settings};
use super::measure::Meter;
use super::processes::Processes;
use super::shape::Shape;
use super::turns::Turns;
use super::uplink::{self, Uplink};
use super::ways::Ways;
use super::{AgentConfig, AgentError, Door, INBOX_MAX};
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
        let mut shape = Shape::open(&config)?;
        let identity = uplink::identity(&identity_dir, &config.masters, config.join.as_ref()).await?;
        let agent = identity.agent().ok_or_else(|| AgentError::NoIdentity { dir: identity_dir.clone() })?;
        // Whatever folders it lies in, this process may start itself.
        let binary = PathBuf::from("/proc/self/exe");
        let (heard_sender, heard) = mpsc::channel(INBOX_MAX);
        let (said_sender, said) = mpsc::channel(INBOX_MAX);
        let (said_of_processes_sender, said_of_processes) = mpsc::channel(INBOX_MAX);
        let (prepared_sender, prepared) = mpsc::channel(INBOX_MAX);
        let (asker, answered) = Asker::new();
        let template = config.template;
        let cache_dir = config.data_dir.join("cache");
        let key = cache_key(&config.data_dir.join("cache.key"))?;
        let store = open_store(&template).await?;
        let fetcher = Fetcher::open(&cache_dir, key, binary, store, config.bundle_cache_bytes_max, prepared_sender);
        let fetcher = fetcher.map_err(failed("opening", &cache_dir))?;

        let executors_dir = template.places().executors();
        let settings = Settings {
            table: config.data_dir.join("executors.table"),
            readable: fetcher.folders().iter().map(fs::canonicalize).collect::<io::Result<_>>().map_err(failed("finding", &cache_dir))?,
            memory_bytes_max: shape.info()?.capacity.memory_bytes.min(MEMORY_BYTES_MAX),
            own_users: own_users(&template, &mut shape),
            template: Arc::clone(&template),
        };
        let mut executors = Executors::open(settings, said_sender).map_err(failed("opening", &executors_dir))?;
        let found = executors.recover().await.map_err(failed("recovering executors in", &executors_dir))?;

        let home = template.places().processes();
        let mut processes = Processes::open(Arc::clone(&template), said_of_processes_sender).map_err(failed("opening", &home))?;
        let found_of_processes = processes.recover().await.map_err(failed("recovering tasks in", &home))?;
        let about = (shape.info()?, shape.reservations.clone());
        let (checkpoint, mut ledger) = ledger(&config.data_dir.join("ledger"), agent, about, config.revocable)?;
        let clock = Clock::start();
        for event in found.into_iter().chain(found_of_processes).chain([Event::Surveyed]) {
            ledger.handle(clock.now(), event);
        }
        let (masters, data_dir, turns) = (config.masters, config.data_dir.clone(), Turns::default());
        let uplink = tokio::spawn(Uplink { masters, data_dir, identity_dir, identity, turns: turns.clone(), heard: heard_sender }.run());
        Ok(Self {
            agent,
            name: shape.name.clone(),
            shape,
            ledger,
            checkpoint,
            executors,
            processes,
            fetcher,
            clock,
            ways: Ways::default(),
            turns,
            heard,
            said,
            said_of_processes,
            prepared,
            asker,
            answered,
            meter: config.revocable.then(Meter::new),
            uplink,
            template,
            data_dir: config.data_dir,
            quit: None,
            _lock: lock,
        })
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AgentError + use<> {
    let path = path.to_owned();
    move |source| AgentError::File { step, path, source }
}

/// The store of what native and container tasks are started from, in which the template has all work done.
async fn open_store(template: &Arc<Template>) -> Result<Store, UnpackError> {
    let hands: Hands = {
        let template = Arc::clone(template);
        Arc::new(move |work, archive| {
            let template = Arc::clone(&template);
            Box::pin(async move { template.unpack(work, archive).await })
        })
    };
    Store::open(template.places().unpacked(), Limits::default(), hands).await
}

/// What a wasm member of the tasks of a launch has in common, for its executor.
pub(super) fn plan(launch: &Launch, member: &Member, compiled: PathBuf, stdin: Option<PathBuf>, agent: &str) -> runtime::Plan {
    let (bundle, _) = need(&member.program);
    let limits = &member.limits;
    // What is fenced is launched one by one.
    let token = launch.attempts.first().map(|(index, number)| AttemptId::new(launch.job, *index, *number).fence());
    // Executors fill the other gaps, which depend on the task.
    let id = launch.job.to_string();
    let fill = |text: &String| text.replace("${job.id}", &id);
    let value = |(name, value): &(String, String)| match token.filter(|_| name == FENCE_VARIABLE) {
        Some(token) => (name.clone(), token.to_string()),
        None => (name.clone(), fill(value)),
    };
    runtime::Plan {
        compiled,
        digest: bundle.0,
        args: member.args.iter().map(fill).collect(),
        env: member.env.iter().filter(|(name, _)| name != CHECKS_VARIABLE).map(value).collect(),
        config: member.config.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
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

/// The ledger as it was when the agent last ran on this start of the machine, or a new one.
fn ledger(
    path: &Path,
    agent: AgentId,
    (info, reservations): (AgentInfo, Vec<Reservation>),
    lends: bool,
) -> Result<(Checkpoint, Ledger), AgentError> {
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
    let config = LedgerConfig { agent, info, reservations, heartbeat_ms: HEARTBEAT_MS, lends };
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

/// True where each role's executors have a user of their own; what holds them in less is noted.
fn own_users(template: &Template, shape: &mut Shape) -> bool {
    let passable = is_passable(&template.places().executors());
    if template.own_ids() && !passable {
        let sentence = "the data directory is closed to other users: the agent stays root, and executors of wasm run as root without capabilities, instead of one user for each role";
        shape.weaknesses.push(sentence.into());
    }
    shape.weaknesses.truncate(WEAKNESSES_MAX);
    template.own_ids() && passable
}
