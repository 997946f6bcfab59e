//! Any bytes as what a journal holds. As records they are folded into a shard, which no record may panic. As the only segment of a log, as
//! frames of one that are sealed as they should be, or as edits of what a master left when it was killed, they are recovered from, to what it
//! had decided at some moment, or refused with a reason.

use master::jobs::rollout::{Cause, Turn as Step};
use master::journal::network::{Alone, Timing};
use master::journal::{Batch, Group, JournalError, Log, LogConfig, Recovered, Seat, Turn};
use master::shard::{Record, Shard, ShardConfig};
use protocol::job::{Restart, RestartPolicy};
use protocol::{AgentId, AgentInfo, Digest, Job, Kind, Limits, Member, Metering, Name, Program, Resources, Role, ShardId, Template, Time};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Runtime;

const SEGMENT: &str = "0000000000000001.log";
/// Bytes of a segment's head and of a frame's, as `master/src/journal/frame.rs` has them.
const HEAD_BYTES: usize = 72;
const FRAME_HEAD_BYTES: usize = 56;
/// Zeros behind what is written, as a segment has them that is made ahead.
const ROOM_BYTES: usize = 4_096;

/// A folder of one input alone; it is gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("skep-fuzz-journal-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a temporary folder can be made");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("ours to remove");
    }
}

/// Nothing here outlives the process, so nothing is flushed.
fn config() -> LogConfig {
    LogConfig { segment_bytes: 1 << 20, sync: |_| Ok(()), ..LogConfig::default() }
}

fn shard_config() -> ShardConfig {
    ShardConfig { id: ShardId(0), shards: 1, ..ShardConfig::default() }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

/// A log with a record in each frame, as a master leaves it that is killed, and the hashes that its shard had, one after the other.
struct Life {
    segment: Vec<u8>,
    spare: Vec<u8>,
    hashes: Vec<u64>,
}

fn life() -> &'static Life {
    static LIFE: OnceLock<Life> = OnceLock::new();
    LIFE.get_or_init(|| {
        let folder = Folder::new();
        runtime().block_on(async {
            let log = Arc::new(Log::open(&folder.0, 1, config()).expect("a new log can be made"));
            let (group, Recovered { mut shard, term, .. }) = opened(&log, &folder.0).await.expect("a new group can be made");
            let mut hashes = vec![shard.hash()];
            for record in records() {
                shard.apply(&record);
                hashes.push(shard.hash());
                group.propose(Batch::encode(term, &[record])).await.expect("the engine runs").await.expect("it is committed");
            }
            let mut segment = fs::read(folder.0.join(SEGMENT)).expect("it was just written");
            let used = segment.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            segment.truncate(used + ROOM_BYTES);
            group.close().await;
            drop(log);
            Life { segment, spare: vec![0; 1 << 20], hashes }
        })
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

/// Opens a log of this one segment. Where that works and it was a master's, its shard is as it was at some moment.
fn recover(segment: &[u8], hashes: Option<&[u64]>) {
    let folder = Folder::new();
    fs::write(folder.0.join(SEGMENT), segment).expect("a temporary file can be written");
    fs::write(folder.0.join("spare"), &life().spare).expect("a temporary file can be written");
    match (Log::open(&folder.0, 1, config()), hashes) {
        (Err(error), _) => assert!(!error.to_string().is_empty()),
        (Ok(log), Some(hashes)) => runtime().block_on(lead(Arc::new(log), &folder.0, hashes)),
        (Ok(log), None) => drop(log),
    }
}

/// The group, and its shard once it leads.
async fn opened(log: &Arc<Log>, folder: &Path) -> Result<(Group, Recovered), JournalError> {
    let seat = Seat { member: 1, carrier: Arc::new(Alone), timing: Timing::default() };
    let (group, mut turns) = Group::open(log, folder, shard_config(), &seat).await?;
    group.found("").await?;
    match turns.recv().await {
        Some(Turn::Begins(recovered)) => Ok((group, *recovered)),
        _ => panic!("one that is alone leads"),
    }
}

async fn lead(log: Arc<Log>, folder: &Path, hashes: &[u64]) {
    match opened(&log, folder).await {
        Ok((group, recovered)) => {
            assert!(hashes.contains(&recovered.shard.hash()), "a shard as it never was");
            group.close().await;
        }
        Err(error) => assert!(!error.to_string().to_lowercase().contains("panic"), "{error}"),
    }
}

/// Three bytes say where in the segment, and what is turned there.
fn edited(edits: &[u8]) {
    let mut segment = life().segment.clone();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % segment.len();
        segment[at] ^= edit[2];
    }
    recover(&segment, Some(&life().hashes));
}

fn checksum(hasher: &mut blake3::Hasher, parts: [&[u8]; 2]) -> [u8; 16] {
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().as_bytes()[..16].try_into().expect("16 of 32 bytes are 16 bytes")
}

fn head(sequence: u64, first_frame: u64, key: [u8; 32]) -> Vec<u8> {
    let head = [&b"SKEPLOG1"[..], &sequence.to_le_bytes(), &first_frame.to_le_bytes(), &key].concat();
    let checksum = checksum(&mut blake3::Hasher::new(), [&head, &[]]);
    let head = [&head[..], &checksum].concat();
    assert_eq!(head.len(), HEAD_BYTES);
    head
}

fn frame(key: [u8; 32], number: u64, durable: u64, previous: [u8; 16], body: &[u8]) -> (Vec<u8>, [u8; 16]) {
    let length = u32::try_from(body.len()).expect("an input is short").to_le_bytes();
    let head = [&key[..4], &length, &number.to_le_bytes(), &durable.to_le_bytes(), &previous].concat();
    let checksum = checksum(&mut blake3::Hasher::new_keyed(&key), [&head, body]);
    let frame = [&head[..], &checksum, body].concat();
    assert_eq!(frame.len(), FRAME_HEAD_BYTES + body.len());
    (frame, checksum)
}

/// Frames as somebody would write them who has the file: their numbers begin where the first eight bytes say, and each item is a byte that
/// says how long it is and as many bytes. A length of 0 ends a frame.
fn sealed(bytes: &[u8]) {
    let Some((first, mut rest)) = bytes.split_first_chunk::<8>() else { return };
    let first = u64::from_le_bytes(*first);
    let key = [7; 32];
    let mut segment = head(1, first, key);
    let (mut number, mut previous, mut body) = (first, [0; 16], vec![]);
    while let Some((length, after)) = rest.split_first() {
        let (item, after) = after.split_at(after.len().min(usize::from(*length)));
        body.extend_from_slice(&u32::from(*length).to_le_bytes());
        body.extend_from_slice(item);
        if *length == 0 || after.is_empty() {
            let (frame, sum) = frame(key, number, number.wrapping_sub(1), previous, &body[..body.len() - if *length == 0 { 4 } else { 0 }]);
            segment.extend(frame);
            segment.resize(segment.len().next_multiple_of(8), 0);
            (number, previous) = (number.wrapping_add(1), sum);
            body.clear();
        }
        rest = after;
    }
    segment.resize(segment.len() + ROOM_BYTES, 0);
    recover(&segment, None);
}

/// One input: as what, then the bytes.
pub fn run(input: &[u8]) {
    match input.split_first() {
        Some((5, bytes)) => recover(bytes, None),
        Some((6, bytes)) => edited(bytes),
        Some((7, bytes)) => sealed(bytes),
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
        role: Role::new("r").expect("a role"),
        name: Some(name("n")),
        kind: Kind::Service,
        priority: 1,
        count: 3,
        template: Arc::new(Template { members: vec![member], resources: Resources::NONE }),
        restart,
        update_parallel: 1,
        place: None,
        about: None,
        update: protocol::job::Update::default(),
        after: vec![],
    }
}

/// The life of a job.
fn records() -> [Record; 15] {
    let id = protocol::JobId::new(ShardId(0), 1);
    [
        Record::AgentSeen { agent: AgentId(1), info: AgentInfo::default(), incarnation: 1, at: Time(1) },
        Record::Submitted { id, job: job(), key: Some("k".into()), at: Time(2) },
        Record::Staged { id, agent: AgentId(1), incarnation: 1, attempts: vec![(0, 1), (1, 1)], at: Time(3) },
        Record::Scaled { id, count: 1, at: Time(4) },
        Record::Applied { id, job: job(), at: Time(5) },
        Record::DeploymentTurned { id, turn: Step::Began, at: Time(5) },
        Record::Deployed { id, job: job(), back_to: None, cause: Cause::Applied, at: Time(5) },
        Record::DeploymentTurned { id, turn: Step::Extra(2), at: Time(5) },
        Record::Turned { id, indexes: vec![0, 1], at: Time(5) },
        Record::DeploymentTurned { id, turn: Step::Failed("x".into()), at: Time(5) },
        Record::Deployed { id, job: job(), back_to: Some(2), cause: Cause::Failed, at: Time(5) },
        Record::Retuned { id, job: job(), at: Time(5) },
        Record::DeploymentTurned { id, turn: Step::Resized(3), at: Time(5) },
        Record::Stopped { id, grace_ms: 5, at: Time(6) },
        Record::AgentGone { agent: AgentId(1), at: Time(7) },
    ]
}

/// Inputs to begin with: the life of a job, a log of it, edits at heads and in the middle, and frames with one item of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let bytes: Vec<u8> = records().iter().flat_map(|record| postcard::to_stdvec(record).expect("plain data")).collect();
    // In the order of `Item` in `master/src/journal/recover.rs`: an entry (blank), a vote, what is committed, truncated, purged, a group, the end.
    let vast = [&[0xff; 9][..], &[1]].concat();
    let items: [&[u8]; 9] = [
        &[0, 0, 1, 1, 0, 0],
        &[1, 0, 1, 1, 1],
        &[2, 0, 1, 1, 1, 0],
        &[3, 0, 0, 1, 1, 1, 0],
        &[4, 0, 1, 1, 0],
        &[5, 0, 0, 0, 1, 1, 1, 0],
        &[6],
        &[&[4, 0, 1, 1][..], &vast].concat(),
        &[&[0, 0, 1, 1][..], &vast, &[0]].concat(),
    ];
    let item = |item: &[u8]| [&[u8::try_from(item.len()).expect("it is short")], item].concat();
    let frames = |first: u64, items: &[&[u8]]| {
        let items: Vec<u8> = items.iter().flat_map(|bytes| [item(bytes), vec![0]].concat()).collect();
        [&[7][..], &first.to_le_bytes(), &items].concat()
    };
    let mut seeds = vec![
        [vec![0], bytes].concat(),
        [&[5][..], &life().segment].concat(),
        [&[5][..], &head(1, 1, [7; 32])].concat(),
        vec![6, 0, 0, 1, 9, 0, 255],
        vec![6, 72, 0, 1],
        vec![6, 0, 4, 8],
        frames(1, &items[..7]),
        frames(0, &items[6..7]),
        frames(u64::MAX, &items[6..7]),
    ];
    seeds.extend(items.iter().map(|item| frames(1, &[item])));
    seeds
}
