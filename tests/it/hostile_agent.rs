//! An agent that joined as all do, has a real certificate, and says what it likes: nothing of it reaches another agent's tasks, and the
//! master goes on in the memory that it has (G17, G19; "Protocol state" and "QUIC/postcard frames" of `design/guarantees.md`).

use crate::scene::{HONEST, Scene};
use crate::villain::{Noise, Villain, Wire, beat, hello, info, soon};
use protocol::identity::{Authority, Identity, JoinToken, csr};
use protocol::link::{self, CloseCode, LinkError};
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, BulkReply, BulkRequest, JoinReply};
use protocol::{AgentId, AgentInfo, AttemptId, Device, Digest, Exit, FromAgent, FromMaster, Held, JobId, Name, PortRange, Resources};
use protocol::{ShardId, TaskState, Time, Update, Usage};
use std::time::Duration;

/// By how much a master may grow through reports. More than G17 allows for anything else: a report may be of 131,072 attempts, each of
/// which every shard is told, and 27 to 34 MiB were seen (2026-11-26) after one of 100,000 and one that was cut off.
const REPORT_GROWTH_BYTES_MAX: u64 = 40 << 20;
/// Streams that come and go. Only sixteen are open at a time, so it takes as long as as many acknowledgements.
const STREAMS: u32 = 4_000;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn nothing_that_an_agent_says_reaches_others_or_ends_the_master() {
    let scene = Scene::new();
    scene.attempt("never says hello", silent(&scene));
    scene.attempt("bytes that are no frames", garbage(&scene));
    scene.attempt("thousands of streams", streams(&scene));
    scene.attempt("asks for what is not there", bulk(&scene));
    scene.attempt("speaks of others' tasks", forged(&scene));
    scene.attempt("repeats what is long over", replayed(&scene));
    scene.attempt("out of bounds", out_of_bounds(&scene));
    scene.attempt("another session", foreign_session(&scene));
    scene.attempt("10,000 registrations", registrations(&scene));
    scene.attempt("reads nothing of many launches", reads_no_launches(&scene));
    scene.attempt("reads no answers", reads_no_answers(&scene));
    scene.attempt("twice at once", twice(&scene));
    scene.attempt("gone", gone(&scene));
    scene.attempt("certificates of others, and old ones", certificates(&scene));
    scene.attempt("tokens that are not good", tokens(&scene));
    scene.end();
}

#[test]
fn a_hundred_thousand_attempts_that_do_not_exist_are_reported_in_vain() {
    let scene = Scene::new();
    scene.attempt("reports what does not exist", reports(&scene));
    scene.end_within(REPORT_GROWTH_BYTES_MAX);
}

/// Where the master has had enough, the connection is over, and it says so.
fn is_over(what: &str, end: &LinkError) {
    assert!(matches!(end, LinkError::Closed { .. } | LinkError::Lost { .. }), "{what}: {end}");
}

async fn silent(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let mute = villain.connect().await;
    let opened = villain.connect().await;
    let _streams = opened.open_control().await.unwrap();
    for (what, connection) in [("no stream", mute), ("a stream without a frame", opened)] {
        is_over(what, &soon(what, connection.closed()).await);
    }
}

async fn garbage(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let mut noise = Noise(0x5eed);
    let cases = [
        ("2^32 - 1 bytes", u32::MAX.to_le_bytes().to_vec()),
        ("a byte more than a frame may have", ((1 << 20) + 1_u32).to_le_bytes().to_vec()),
        ("no bytes", vec![0; 4]),
        ("an unknown message", [&[3, 0, 0, 0], &[0, 200, 1][..]].concat()),
        ("a number without an end", [&[11, 0, 0, 0], &[0xff; 11][..]].concat()),
        ("a list of 2^64 - 1 attempts", [&[12, 0, 0, 0, 0, 2], &[0xff; 9][..], &[1]].concat()),
        ("a message and a byte", { [&[3, 0, 0, 0], &[0, 5, 7][..]].concat() }),
        ("noise", noise.bytes(64 << 10)),
        ("noise in a frame", [&(64_u32 << 10).to_le_bytes()[..], &noise.bytes(64 << 10)].concat()),
    ];
    for (what, bytes) in cases {
        for after_hello in [false, true] {
            let connection = villain.bare(1 << 16).await;
            let (mut send, _receive) = connection.open_bi().await.unwrap();
            if after_hello {
                send.write_all(&hello()).await.unwrap();
            }
            // It may be closed before all is written.
            let _ = send.write_all(&bytes).await;
            soon(what, connection.closed()).await;
        }
    }
    // On any other stream it costs that stream.
    let mut wire = villain.take_office(info("villain", 0)).await;
    for _ in 0..20 {
        let (mut sender, mut receiver) = wire.connection.open_bulk().await.unwrap();
        sender.send(&noise.next()).await.unwrap();
        let answer = soon("an answer to noise", receiver.next::<BulkReply>()).await;
        assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
    }
    wire.beat().await;
    // A frame a byte at a time, and one that never ends.
    let slow = villain.bare(1 << 16).await;
    let (mut send, _receive) = slow.open_bi().await.unwrap();
    for byte in [hello(), villain.bytes(beat(1))].concat() {
        send.write_all(&[byte]).await.unwrap();
    }
    soon("a beat before registering", slow.closed()).await;
}

async fn streams(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let mut wire = villain.take_office(info("villain", 0)).await;
    let connection = villain.bare(1 << 16).await;
    let (mut send, _control) = connection.open_bi().await.unwrap();
    send.write_all(&hello()).await.unwrap();
    is_over("an older connection", &wire.ended().await);
    for number in 0..STREAMS {
        let (mut send, _receive) = soon("a stream", connection.open_bi()).await.unwrap();
        send.write_all(&[0]).await.unwrap();
        if number % 2 == 0 {
            send.reset(0_u32.into()).unwrap();
        } else {
            send.finish().unwrap();
        }
    }
    // These stay, each with a byte of a frame: more than may be open.
    let mut open = vec![];
    while let Ok(streams) = tokio::time::timeout(Duration::from_millis(50), connection.open_bi()).await {
        let mut streams = streams.unwrap();
        streams.0.write_all(&[0]).await.unwrap();
        open.push(streams);
        assert!(open.len() <= 64, "as many streams as it likes");
    }
}

async fn bulk(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let wire = villain.take_office(info("villain", 0)).await;
    let nobody = AttemptId::new(scene.honest, 0, 1);
    let known: Digest = scene.cluster.text(&["push", crate::cluster::sample("noop.wasm").to_str().unwrap()]).trim().parse().unwrap();
    let cases = [
        (BulkRequest::Log { member: protocol::MemberId::first(nobody), offset: 0, follow: true }, true),
        (BulkRequest::Bundle { bundle: Digest([7; 32]), offset: 0 }, true),
        (BulkRequest::Bundle { bundle: known, offset: u64::MAX }, true),
        (BulkRequest::Bundle { bundle: known, offset: 1 << 40 }, false),
    ];
    for (request, fails) in cases.iter().cycle().take(200) {
        let (mut sender, mut receiver) = soon("a stream", wire.connection.open_bulk()).await.unwrap();
        sender.send(request).await.unwrap();
        let answer = soon("an answer", receiver.next::<BulkReply>()).await.unwrap().unwrap();
        assert_eq!(matches!(answer, BulkReply::Failed { .. }), *fails, "{request:?}: {answer:?}");
    }
    // Bundles that are asked for and not read, as many as it may have open beside its control stream.
    let mut unread = vec![];
    for _ in 0..6 {
        let (mut sender, receiver) = soon("a stream", wire.connection.open_bulk()).await.unwrap();
        sender.send(&BulkRequest::Bundle { bundle: known, offset: 0 }).await.unwrap();
        unread.push((sender, receiver));
    }
}

fn ended(attempt: AttemptId, code: i32) -> Update {
    Update { attempt, state: TaskState::Ended { exit: Exit::Code(code), usage: Usage::default() } }
}

async fn forged(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    // Under the honest agent's name, too.
    let mut wire = villain.take_office(info("a1", 0)).await;
    let theirs: Vec<AttemptId> = (0..HONEST as u32).map(|index| AttemptId::new(scene.honest, index, 1)).collect();
    let states = [
        TaskState::Starting,
        TaskState::Running { since: Time(u64::MAX), ports: vec![1; 64] },
        TaskState::Killing,
        TaskState::Ended { exit: Exit::Code(0), usage: Usage { fuel: u64::MAX, memory_peak_bytes: u64::MAX, ..Usage::default() } },
        TaskState::Ended { exit: Exit::Trap { reason: "x".repeat(900_000) }, usage: Usage::default() },
    ];
    for state in states {
        let updates: Vec<Update> = theirs.iter().take(1).map(|attempt| Update { attempt: *attempt, state: state.clone() }).collect();
        wire.say_to(scene.honest.shard(), FromAgent::Status { updates: updates.clone() }).await.unwrap();
        // To a shard whose task it is not.
        let other = ShardId((scene.honest.shard().0 + 1) % villain.shards);
        wire.say_to(other, FromAgent::Status { updates }).await.unwrap();
    }
    let all = theirs.iter().map(|attempt| ended(*attempt, 0)).collect();
    wire.say_to(scene.honest.shard(), FromAgent::Status { updates: all }).await.unwrap();
    let refused = FromAgent::Refused { attempts: theirs.clone(), reason: "\u{1b}[31m".repeat(100_000) };
    wire.say_to(scene.honest.shard(), refused).await.unwrap();
    wire.beat().await;
    // It says that it holds them, and beats as one that does.
    wire.register(info("a1", 0)).await;
    let held = theirs.iter().map(|attempt| Held { attempt: *attempt, ended: true }).collect();
    wire.say(FromAgent::Report { session: wire.session, held, last: true }).await.unwrap();
    wire.beat().await;
    wire.say(FromAgent::Leaving).await.unwrap();
    for shard in [villain.shards, u16::MAX] {
        let mut wire = villain.enter().await;
        wire.say_to(ShardId(shard), FromAgent::Leaving).await.unwrap();
        is_over("a shard that is not there", &wire.ended().await);
    }
    let other = ShardId((villain.shard.0 + 1) % villain.shards);
    let mut wire = villain.enter().await;
    wire.say_to(other, FromAgent::Register { info: info("villain", 9), incarnation: 1, number: 1 }).await.unwrap();
    is_over("another agent's shard", &wire.ended().await);
}

/// Submits tasks that only who has bait can run.
fn bait(scene: &Scene, name: &str, count: u32, rest: &str) {
    let file = scene.cluster.folder.join(format!("{name}.toml"));
    let wasm = crate::cluster::sample("noop.wasm");
    let text = format!(
        "name = {name:?}\ncount = {count}\n{rest}\n[task]\nwasm = {wasm:?}\n[resources]\ncpu = 0.001\nmemory = \"1MiB\"\ndevices = {{ bait = 1 }}\n"
    );
    std::fs::write(&file, text).unwrap();
    scene.cluster.text(&["run", "--detach", file.to_str().unwrap()]);
}

async fn replayed(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let mut wire = villain.take_office(info("villain", 1)).await;
    bait(scene, "replayed", 1, "restart = { policy = \"on-failure\", retries = 1, backoff = { first = \"10ms\" } }");
    let first = wire.launched().await[0];
    assert_eq!(first.number, 1);
    let to = first.shard();
    wire.say_to(to, FromAgent::Status { updates: vec![ended(first, 1)] }).await.unwrap();
    let second = wire.launched().await[0];
    assert_eq!(second, AttemptId { number: 2, ..first });
    let numbers = [0, 1, 3, u32::MAX];
    let mut old: Vec<Update> = numbers.iter().map(|number| ended(AttemptId { number: *number, ..first }, 0)).collect();
    old.push(ended(AttemptId::new(first.task.job, u32::MAX, 1), 0));
    old.push(ended(AttemptId::new(JobId(u64::MAX), 0, 1), 0));
    for update in old {
        wire.say_to(to, FromAgent::Status { updates: vec![update] }).await.unwrap();
    }
    wire.beat().await;
    let job = scene.cluster.json(&["status", "replayed"]);
    assert!(job["ended_ms"].is_null() && job["restarts"] == 1, "{job}");
    // Its own end counts, once: what comes first.
    let updates = vec![ended(second, 0), ended(second, 1), ended(second, 0)];
    wire.say_to(to, FromAgent::Status { updates }).await.unwrap();
    wire.say_to(to, FromAgent::Status { updates: vec![ended(second, 7)] }).await.unwrap();
    scene.cluster.until("the task ends", |cluster| !cluster.json(&["status", "replayed"])["ended_ms"].is_null());
    let job = scene.cluster.json(&["status", "replayed"]);
    assert!(job["tasks"]["finished"] == 1 && job["restarts"] == 1, "{job}");
}

fn ghosts(count: usize, shards: u16) -> Vec<Held> {
    let ghost = |number: usize| {
        let job = JobId::new(ShardId((number % usize::from(shards)) as u16), (number as u64 / 8).wrapping_mul(0x9e37_79b9));
        Held { attempt: AttemptId::new(job, number as u32, 1), ended: number.is_multiple_of(3) }
    };
    (0..count).map(ghost).collect()
}

async fn reports(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let mut wire = villain.enter().await;
    wire.register(info("villain", 0)).await;
    for part in ghosts(100_000, villain.shards).chunks(ATTEMPTS_PER_MESSAGE_MAX) {
        wire.say(FromAgent::Report { session: 0, held: part.to_vec(), last: false }).await.unwrap();
    }
    wire.say(FromAgent::Report { session: 0, held: vec![], last: true }).await.unwrap();
    wire.beat().await;
    // More than one agent can have, and without an end.
    wire.register(info("villain", 0)).await;
    let part = ghosts(ATTEMPTS_PER_MESSAGE_MAX, villain.shards);
    let flood = async {
        while wire.sender.send(&protocol::message::ToShard { shard: villain.shard, message: report(wire.session, &part) }).await.is_ok() {}
    };
    soon("the end of a report without an end", flood).await;
    is_over("a report without an end", &wire.ended().await);
    // Not asked for, and of a session that never was.
    let mut wire = villain.take_office(info("villain", 0)).await;
    for session in [0, wire.session, u64::MAX] {
        wire.say(report(session, &part)).await.unwrap();
    }
    wire.beat().await;
}

fn report(session: u64, held: &[Held]) -> FromAgent {
    FromAgent::Report { session, held: held.to_vec(), last: false }
}

async fn out_of_bounds(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let fine = info("villain", 0);
    let device = |name: &str, milli| Device { name: Name::new(name).unwrap(), milli };
    let with = |devices: Vec<Device>| AgentInfo { capacity: Resources { devices, ..fine.capacity.clone() }, ..fine.clone() };
    let has = |capacity: Resources| AgentInfo { capacity, ..fine.clone() };
    let of = |cpu_milli, memory_bytes, disk_bytes| has(Resources { cpu_milli, memory_bytes, disk_bytes, ..Resources::NONE });
    let ranges = |ports: &[(u16, u16)], count| {
        let ports = ports.iter().map(|(first, last)| PortRange { first: *first, last: *last }).collect();
        AgentInfo { capacity: Resources { ports: count, ..fine.capacity.clone() }, ports, ..fine.clone() }
    };
    let long = "x".repeat(900_000);
    let facts = |count: usize, value: &str| (0..count).map(|number| (format!("a{number}"), value.to_owned())).collect();
    let cases = [
        ("as many cores as a number can say", of(u64::MAX, 1, 1)),
        ("as much memory", of(1, u64::MAX, 1)),
        ("as much disk", of(1, 1, u64::MAX)),
        ("as many devices", with(vec![device("bait", u64::MAX)])),
        ("devices out of order", with(vec![device("b", 1), device("a", 1)])),
        ("a device twice", with(vec![device("a", 1), device("a", 1)])),
        ("none of a device", with(vec![device("a", 0)])),
        ("seventeen devices", with((10..27).map(|number| device(&format!("d{number}"), 1)).collect())),
        ("port 0", ranges(&[(0, 9)], 10)),
        ("ports backwards", ranges(&[(9, 1)], 1)),
        ("ports twice", ranges(&[(1, 9), (9, 10)], 11)),
        ("ports that are not there", ranges(&[(1, 9)], u32::MAX)),
        ("257 ranges", ranges(&(0..257).map(|at| (2 * at + 1, 2 * at + 1)).collect::<Vec<_>>(), 257)),
        ("no name", AgentInfo { name: String::new(), ..fine.clone() }),
        ("a long name", AgentInfo { name: long.clone(), ..fine.clone() }),
        ("a name that writes on terminals", AgentInfo { name: "\u{1b}[31m\n".into(), ..fine.clone() }),
        ("a long version", AgentInfo { version: long.clone(), ..fine.clone() }),
        ("many facts", AgentInfo { attributes: facts(10_000, "x"), ..fine.clone() }),
        ("a long fact", AgentInfo { attributes: facts(1, &long), ..fine.clone() }),
        ("many weaknesses", AgentInfo { weaknesses: vec!["x".into(); 100_000], ..fine.clone() }),
        ("a long weakness", AgentInfo { weaknesses: vec![long], ..fine.clone() }),
    ];
    for (what, info) in cases {
        let mut wire = villain.enter().await;
        // It may be closed before all is written.
        let _ = wire.say(FromAgent::Register { info, incarnation: u64::MAX, number: 1 }).await;
        is_over(what, &wire.ended().await);
    }
    let agents = scene.cluster.json(&["agents"]);
    let seen = agents["agents"].as_array().unwrap().iter().any(|agent| agent["id"] == villain.id.to_string());
    assert!(!seen, "nothing that it said was taken: {agents}");
}

async fn foreign_session(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let mut wire = villain.enter().await;
    wire.say(beat(0)).await.unwrap();
    is_over("a beat before registering", &wire.ended().await);
    for change in [-1_i64, 1, i64::MAX] {
        let mut wire = villain.take_office(info("villain", 0)).await;
        wire.say(beat(wire.session.wrapping_add_signed(change))).await.unwrap();
        is_over("a beat of another session", &wire.ended().await);
    }
}

async fn registrations(scene: &Scene) {
    const COUNT: usize = 10_000;
    let villain = Villain::join(&scene.cluster).await;
    let Wire { connection: _connection, mut sender, mut receiver, shard, .. } = villain.enter().await;
    let saying = async {
        for number in 0..COUNT {
            let info = info(&format!("villain-{number}"), 0);
            let message = FromAgent::Register { info, incarnation: number as u64, number: 1 };
            sender.send(&protocol::message::ToShard { shard, message }).await.unwrap();
        }
    };
    let hearing = async {
        let (mut heard, mut last) = (0, 0);
        while heard < COUNT {
            let said = soon("a registration", receiver.next::<protocol::message::ToAgent>()).await.unwrap().unwrap();
            if let FromMaster::Registered { session, .. } = said.message {
                assert!(session > last, "each has a session of its own");
                (heard, last) = (heard + 1, session);
            }
        }
    };
    tokio::join!(saying, hearing);
    let known = scene.cluster.json(&["agents"]).to_string().matches("villain-").count();
    assert_eq!(known, 1, "one agent, however often it comes");
}

async fn reads_no_launches(scene: &Scene) {
    const JOBS: usize = 40;
    let villain = Villain::join(&scene.cluster).await;
    let connection = villain.bare(1 << 10).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let register = FromAgent::Register { info: info("villain", 4_000), incarnation: 1, number: 1 };
    let report = FromAgent::Report { session: 0, held: vec![], last: true };
    send.write_all(&[hello(), villain.bytes(register), villain.bytes(report)].concat()).await.unwrap();
    let names: Vec<String> = (0..JOBS).map(|number| format!("unread-{number}")).collect();
    for name in &names {
        bait(scene, name, 100, "");
    }
    // What was placed there comes back when the agent is given up.
    scene.cluster.text(&["agents", "gone", &villain.id.to_string()]);
    soon("the end of an agent that is gone", connection.closed()).await;
    for name in &names {
        scene.cluster.text(&["stop", name, "--grace", "0"]);
    }
    let is_over = |name: &String| !scene.cluster.json(&["status", name])["ended_ms"].is_null();
    scene.cluster.until("all jobs end", |_| names.iter().all(is_over));
}

async fn reads_no_answers(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let wire = villain.take_office(info("villain", 0)).await;
    let session = wire.session;
    drop(wire);
    let connection = villain.bare(1 << 10).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&hello()).await.unwrap();
    let beats = villain.bytes(beat(session)).repeat(1_000);
    let flood = async { while send.write_all(&beats).await.is_ok() {} };
    soon("the end of an agent that reads no answers", flood).await;
}

async fn twice(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let mut older = villain.take_office(info("villain", 0)).await;
    let mut newer = villain.take_office(info("villain", 0)).await;
    let end = older.ended().await;
    assert!(matches!(end, LinkError::Closed { code: CloseCode::Replaced, .. }), "{end}");
    newer.beat().await;
    // Many at once: the last has the place, and the others are closed.
    let mut all = vec![];
    for _ in 0..16 {
        all.push(villain.enter().await);
    }
    let mut last = all.pop().unwrap();
    for mut other in all {
        is_over("one of many", &other.ended().await);
    }
    is_over("one of before", &newer.ended().await);
    last.register(info("villain", 0)).await;
    last.beat().await;
}

async fn refused(what: &str, identity: &Identity, master: std::net::SocketAddr) {
    let end = match link::connect(master, identity).await {
        Ok(connection) => soon(what, connection.closed()).await,
        Err(error) => error,
    };
    assert!(!matches!(end, LinkError::Late { .. }), "{what}: {end}");
}

async fn gone(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let mut wire = villain.take_office(info("villain", 0)).await;
    scene.cluster.text(&["agents", "gone", &villain.id.to_string()]);
    is_over("gone", &wire.ended().await);
    refused("gone", &villain.identity, villain.master).await;
    let (_, request) = csr().unwrap();
    let renewed = soon("an answer", link::renew(villain.master, &villain.identity, request)).await;
    assert!(!matches!(renewed, Ok(JoinReply::Welcome { .. })), "an agent that is gone has no new certificate");
}

async fn certificates(scene: &Scene) {
    let villain = Villain::join(&scene.cluster).await;
    let of = |authority: &Authority, agent: AgentId, lifetime| {
        let (key, request) = csr().unwrap();
        Identity::new(authority.issue_agent(agent, &request, lifetime).unwrap(), key).unwrap()
    };
    let elsewhere = Authority::open_or_create(&scene.cluster.folder.join("elsewhere")).unwrap();
    refused("another cluster's", &of(&elsewhere, villain.id, 60 * SECOND), villain.master).await;
    // As the other cluster's, at a master that it takes for its own: the master looks, too.
    let stranger = Villain { identity: of(&elsewhere, villain.id, 60 * SECOND), ..Villain::join(&scene.cluster).await };
    let (_, request) = csr().unwrap();
    assert!(!matches!(link::renew(stranger.master, &stranger.identity, request).await, Ok(JoinReply::Welcome { .. })));
    // The test is on the master's machine and may take its keys.
    let ours = Authority::open_or_create(&scene.cluster.folder.join("master/authority")).unwrap();
    let short = of(&ours, villain.id, SECOND);
    while short.lifetime_left() > Duration::ZERO {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    refused("expired", &short, villain.master).await;
    // Expired, it may be renewed, and for its own agent only.
    let (key, request) = csr().unwrap();
    let Ok(JoinReply::Welcome { agent, chain_der, .. }) = link::renew(villain.master, &short, request).await else {
        panic!("what has expired may be renewed");
    };
    assert_eq!((agent, Identity::new(chain_der, key).unwrap().agent()), (villain.id, Some(villain.id)));
    let as_master = ours.issue_master(1, &[], 60 * SECOND).unwrap();
    refused("a master's", &as_master, villain.master).await;
}

async fn tokens(scene: &Scene) {
    let text = scene.cluster.text(&["tokens", "create", "--level", "join"]);
    let good: JoinToken = text.trim().parse().unwrap();
    let master = scene.cluster.quic.parse().unwrap();
    let (_, request) = csr().unwrap();
    let ask = async |token: JoinToken, request: Vec<u8>| match soon("an answer", link::join(master, &token, request)).await {
        Ok(JoinReply::Welcome { .. }) => true,
        Ok(JoinReply::Refused { reason }) => {
            assert!(!reason.is_empty() && !reason.contains(&good.secret), "{reason}");
            false
        }
        Ok(JoinReply::Master { .. }) | Err(_) => false,
    };
    for number in 0..20 {
        let wrong = JoinToken { secret: format!("{number:064x}"), ..good.clone() };
        assert!(!ask(wrong, request.clone()).await, "a guessed secret");
    }
    let nobody = JoinToken { id: "nobody".into(), ..good.clone() };
    assert!(!ask(nobody, request.clone()).await, "an unknown token");
    let elsewhere = JoinToken { root: Digest([1; 32]), ..good.clone() };
    assert!(!ask(elsewhere, request.clone()).await, "a token of another cluster");
    for (what, bytes) in
        [("no bytes", vec![]), ("noise", Noise(7).bytes(300)), ("a long one", vec![0x30; 7_000]), ("a longer one", vec![0; 1 << 19])]
    {
        assert!(!ask(good.clone(), bytes).await, "a request of {what}");
    }
    assert!(ask(good.clone(), request.clone()).await, "none of it used the token up");
    assert!(!ask(good.clone(), request).await, "a token takes in one agent");
}
