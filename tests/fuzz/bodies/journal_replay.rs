//! Any bytes as what a journal holds. As records they are folded into a shard, which no record may panic; as edits of a segment file that
//! was written properly they are recovered from, or refused with a reason.

use master::journal::{Log, LogConfig};
use master::shard::{Record, Shard, ShardConfig};
use protocol::job::{Restart, RestartPolicy};
use protocol::{AgentId, AgentInfo, Digest, Job, Kind, Limits, Member, Metering, Name, Program, Resources, ShardId, Template, Time};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// A folder of this process alone.
fn folder(name: &str) -> PathBuf {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let folder = std::env::temp_dir().join(format!("skep-fuzz-{name}-{}-{since}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder can be made");
    folder
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() }
}

/// The files of a log that was opened and closed properly.
fn written() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = folder("journal");
        drop(Log::open(&dir, 2, config()).expect("a new log can be made"));
        let entries = fs::read_dir(&dir).expect("it was just made").map(|entry| entry.expect("readable"));
        let files = entries.filter(|entry| entry.metadata().is_ok_and(|about| about.is_file())).map(|entry| {
            let name = entry.file_name().into_string().expect("our names are text");
            (name, fs::read(entry.path()).expect("readable"))
        });
        let files = files.collect();
        fs::remove_dir_all(&dir).expect("ours to remove");
        files
    })
}

fn fold(bytes: &[u8]) {
    let mut shard = Shard::new(ShardConfig::default());
    let mut rest = bytes;
    while let Ok((record, after)) = postcard::take_from_bytes::<Record>(rest) {
        shard.apply(&record);
        rest = after;
    }
    let again = Shard::restore(ShardConfig::default(), shard.snapshot());
    assert_eq!(shard.hash(), again.hash());
    shard.lead(Time(1));
    while shard.poll_output().is_some() {}
}

fn recover(edits: &[u8]) {
    let dir = folder("replay");
    for (name, content) in written() {
        let mut content = content.clone();
        // Three bytes say where, in the first 64 KiB and mostly near the front, and what.
        for edit in edits.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % content.len().max(1);
            if let Some(byte) = content.get_mut(at) {
                *byte ^= edit[2];
            }
        }
        fs::write(dir.join(name), content).expect("a temporary file can be written");
    }
    if let Err(error) = Log::open(&dir, 2, config()) {
        assert!(!error.to_string().is_empty());
    }
    fs::remove_dir_all(&dir).expect("ours to remove");
}

/// One input: as what, then the bytes.
pub fn run(input: &[u8]) {
    match input.split_first() {
        Some((kind, bytes)) if kind % 8 == 7 => recover(bytes),
        Some((_, bytes)) => fold(bytes),
        None => {}
    }
}

fn job() -> Job {
    let limits = Limits {
        fuel_max: Some(9),
        cpu_time_ms_max: None,
        time_ms_max: None,
        memory_bytes_max: 1 << 20,
        table_elements_max: 1,
        host_bytes_max: 1,
        processes_max: 1,
        log_bytes_max: 1,
        log_bytes_per_s_max: 1,
    };
    let member = Member {
        name: None,
        program: Program::Wasm { bundle: Digest([0; 32]), metering: Metering::Fuel, strict: false },
        args: vec![],
        env: vec![],
        config: vec![],
        stdin: None,
        resources: Resources::NONE,
        ports: vec![],
        limits,
    };
    let restart = Restart {
        policy: RestartPolicy::Always,
        retries_max: Some(3),
        backoff_first_ms: 10,
        backoff_factor_milli: 2_000,
        backoff_max_ms: 9,
    };
    let name = |text: &str| Name::new(text).expect("a name");
    Job {
        role: name("r"),
        name: Some(name("n")),
        kind: Kind::Service,
        priority: 1,
        count: 3,
        template: Arc::new(Template { members: vec![member], resources: Resources::NONE }),
        restart,
        update_parallel: 1,
    }
}

/// Inputs to begin with: the life of a job, and edits at a segment's head.
pub fn seeds() -> Vec<Vec<u8>> {
    let id = protocol::JobId::new(ShardId(0), 1);
    let records = [
        Record::AgentSeen { agent: AgentId(1), info: AgentInfo::default(), incarnation: 1, at: Time(1) },
        Record::Submitted { id, job: job(), key: Some("k".into()), at: Time(2) },
        Record::Staged { id, agent: AgentId(1), incarnation: 1, attempts: vec![(0, 1), (1, 1)], at: Time(3) },
        Record::Scaled { id, count: 1, at: Time(4) },
        Record::Applied { id, job: job(), at: Time(5) },
        Record::Stopped { id, grace_ms: 5, at: Time(6) },
        Record::AgentGone { agent: AgentId(1), at: Time(7) },
    ];
    let bytes: Vec<u8> = records.iter().flat_map(|record| postcard::to_stdvec(record).expect("plain data")).collect();
    vec![[vec![0], bytes].concat(), vec![7, 0, 0, 1, 9, 0, 255], vec![7, 40, 0, 1], vec![7, 0, 4, 8]]
}
