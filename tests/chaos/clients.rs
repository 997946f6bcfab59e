//! Clients at all masters: jobs submitted under keys, services scaled, stopped and read, ends watched, long tasks watched.

use crate::Flags;
use crate::api::{Api, Outcome};
use crate::cluster::{MASTERS, REPLACE_AFTER_MS};
use crate::history::{History, Register, Submission};
use crate::random::Random;
use crate::register::Op;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Submissions that are tried at once; at the limit none is begun.
const SUBMISSIONS_MAX: usize = 48;
/// The wait before something is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// Services whose counts are registers, and how often each is written until it is stopped and another made.
const REGISTERS: u64 = 2;
const WRITES_MAX: u64 = 120;
/// Long tasks, of a service and of a batch job each.
pub const SLEEPERS: u64 = 12;
/// How much shorter than its limit a silence may seem to whoever made it.
const SILENCE_SLACK_MS: u64 = 1_500;

/// What every client has.
#[derive(Clone)]
pub struct Client {
    pub api: Api,
    pub history: Arc<History>,
    noop: Arc<str>,
    sleep: Arc<str>,
    over: Arc<AtomicBool>,
}

/// Clients at work.
pub struct Load {
    client: Client,
    tasks: JoinSet<()>,
}

impl Load {
    /// Uploads what runs, starts the long tasks, and begins.
    pub async fn start(api: Api, history: Arc<History>, flags: &Flags) -> Self {
        let seed = flags.seed;
        let upload = async |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/dist").join(name);
            let bytes = std::fs::read(&path).unwrap_or_else(|_| panic!("{} is missing: run samples/build", path.display()));
            Arc::from(api.upload(bytes).await.expect("a bundle is taken"))
        };
        let (noop, sleep) = (upload("noop.wasm").await, upload("sleep.wasm").await);
        let client = Client { api, history, noop, sleep, over: Arc::default() };
        client.begin_sleepers().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(client.clone().submit_all(flags.rate(), Random::new(seed ^ 0x51)));
        for number in 0..REGISTERS {
            tasks.spawn(client.clone().keep_register(number, Random::new(seed ^ 0x52 ^ number << 8)));
        }
        for number in 0..4 {
            tasks.spawn(client.clone().read_registers(Random::new(seed ^ 0x53 ^ number << 8)));
        }
        tasks.spawn(client.clone().watch_ends(Random::new(seed ^ 0x54)));
        tasks.spawn(client.clone().watch_sleepers());
        Self { client, tasks }
    }

    /// Has all clients finish what they are at: what was submitted is submitted until it is acknowledged.
    pub async fn end(self) {
        self.client.over.store(true, Ordering::Relaxed);
        let ended = tokio::time::timeout(Duration::from_secs(60), self.tasks.join_all()).await;
        if ended.is_err() {
            self.client.history.violated("submissions are still not acknowledged 60 s after the last fault".into());
        }
    }
}

impl Client {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Notes what did not go well.
    fn failed(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Done(_) => {}
            Outcome::NotDone(why) | Outcome::Unknown(why) => self.history.failed(why),
            Outcome::Refused(_, why) => {
                self.history.failed(why);
                self.history.violated(format!("a good request was refused: {why}"));
            }
        }
    }

    async fn begin_sleepers(&self) {
        for kind in ["service", "batch"] {
            let task = json!({ "wasm": &*self.sleep, "args": ["36000000"] });
            let resources = json!({ "cpu": 0.2, "memory": "1MiB" });
            let name = format!("sleepers-{kind}");
            let job = json!({ "name": name, "kind": kind, "count": SLEEPERS, "task": task, "resources": resources });
            let made = self.api.call(0, Method::PUT, &format!("/v1/jobs/{name}"), Some(job), None).await;
            assert!(matches!(made, Outcome::Done(_)), "{made:?}");
        }
        loop {
            let all = self.sleepers().await.unwrap_or_default();
            if all.len() as u64 == 2 * SLEEPERS && all.iter().all(|task| task["phase"] == "running") {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// All long tasks; nothing where no master answers.
    pub async fn sleepers(&self) -> Option<Vec<Value>> {
        let mut all = Vec::new();
        for kind in ["service", "batch"] {
            let page = self.api.any(&format!("/v1/jobs/sleepers-{kind}/tasks?limit=1000")).await?;
            all.extend(page["tasks"].as_array()?.clone());
        }
        Some(all)
    }

    /// A long task may be started again, or end, only where its agent was silent for longer than that may be.
    async fn watch_sleepers(self) {
        let mut known: BTreeMap<String, (u64, String)> = BTreeMap::new();
        while !self.is_over() {
            sleep(Duration::from_millis(500)).await;
            for task in self.sleepers().await.into_iter().flatten() {
                let (id, attempt) = (text(&task["id"]), task["attempt"].as_u64().unwrap_or(0));
                let agent = text(&task["agent"]);
                let Some((before, on)) = known.insert(id.clone(), (attempt, agent)) else { continue };
                let ended = !task["exit"].is_null() && task["phase"] != "waiting";
                if before == attempt && !ended {
                    continue;
                }
                if self.history.was_silent(&self.name_of(&on).await, REPLACE_AFTER_MS - SILENCE_SLACK_MS) {
                    self.history.records().restarts += 1;
                } else {
                    let exit = &task["exit"]["text"];
                    self.history.violated(format!("task {id} went from attempt {before} on {on} to {attempt}, {}: {exit}", task["phase"]));
                }
            }
        }
    }

    async fn name_of(&self, agent: &str) -> String {
        let page = self.api.any("/v1/agents").await.unwrap_or_default();
        let rows = page["agents"].as_array().cloned().unwrap_or_default();
        rows.iter().find(|row| row["id"] == agent).map(|row| text(&row["name"])).unwrap_or_default()
    }

    async fn submit_all(self, rate: u64, mut random: Random) {
        let mut due = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).expect("a rate"));
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut all, room, mut number) = (JoinSet::new(), Arc::new(Semaphore::new(SUBMISSIONS_MAX)), 0);
        while !self.is_over() {
            if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
                number += 1;
                let (client, random) = (self.clone(), Random::new(random.next()));
                all.spawn(async move {
                    client.submit(format!("k{number}"), random).await;
                    drop(permit);
                });
            }
            due.tick().await;
            while all.try_join_next().is_some() {}
        }
        all.join_all().await;
    }

    fn job(&self, key: &str) -> Value {
        let restart = json!({ "policy": "on-failure", "retries": 3 });
        json!({ "kind": "batch", "task": { "wasm": &*self.noop, "env": { "KEY": key } }, "resources": { "cpu": 0.01, "memory": "1MiB" }, "restart": restart })
    }

    async fn post(&self, master: usize, key: &str, job: Value) -> Outcome {
        self.api.call(master, Method::POST, "/v1/jobs", Some(job), Some(key)).await
    }

    /// Submits one job until it is acknowledged, and looks at once whether it is there.
    async fn submit(&self, key: String, mut random: Random) {
        let from = self.history.ms();
        self.history.records().submissions.insert(key.clone(), Submission { from, ..Submission::default() });
        let id = loop {
            let outcome = self.post(any_master(&mut random), &key, self.job(&key)).await;
            self.failed(&outcome);
            self.history.records().submissions.get_mut(&key).unwrap().tries += 1;
            if let Outcome::Done(answer) = outcome {
                break text(&answer["id"]);
            }
            sleep(AGAIN).await;
        };
        self.history.acknowledged();
        let acked = Some((self.history.ms(), id.clone()));
        {
            let mut records = self.history.records();
            records.submissions.get_mut(&key).unwrap().acked = acked;
            records.acked.push(key.clone());
        }
        match self.api.get(any_master(&mut random), &format!("/v1/jobs/{id}")).await {
            Outcome::Done(job) if job["spec"]["tasks"][0]["env"]["KEY"] == json!(key) => self.history.records().reads += 1,
            Outcome::Done(job) => self.history.violated(format!("job {id} of key {key} is another: {job}")),
            Outcome::Refused(_, why) => self.history.violated(format!("job {id} of key {key} was acknowledged and then not found: {why}")),
            Outcome::NotDone(why) | Outcome::Unknown(why) => self.history.failed(&why),
        }
        if random.chance(200) {
            match self.post(any_master(&mut random), &key, self.job(&key)).await {
                Outcome::Done(answer) if answer["id"] == *id && answer["new"] == false => {}
                Outcome::Done(answer) => self.history.violated(format!("key {key} made {id} and, again, {answer}")),
                outcome => self.failed(&outcome),
            }
        } else if random.chance(100) {
            match self.post(any_master(&mut random), &key, self.job("another")).await {
                Outcome::Refused(StatusCode::CONFLICT, _) => {}
                Outcome::Done(answer) => self.history.violated(format!("key {key} made {id} and took another job: {answer}")),
                outcome => self.failed(&outcome),
            }
        }
    }

    /// Makes a service that fits nowhere, writes its count again and again, stops it, and makes the next.
    async fn keep_register(self, number: u64, mut random: Random) {
        for round in 0_u64.. {
            let name = format!("register-{number}-{round}");
            let resources = json!({ "cpu": 4_000, "memory": "1MiB" });
            let job = json!({ "name": name, "kind": "service", "count": 1, "task": { "wasm": &*self.sleep, "args": ["1"] }, "resources": resources });
            let from = self.history.us();
            let made = loop {
                if self.is_over() {
                    return;
                }
                let made = self.post(any_master(&mut random), &name, job.clone()).await;
                self.failed(&made);
                match made {
                    Outcome::Done(answer) => break answer,
                    _ => sleep(AGAIN).await,
                }
            };
            let (id, first) = (text(&made["id"]), Op { value: 1, wrote: true, from, to: self.history.us() });
            self.history.records().registers.insert(id.clone(), Register { ops: vec![first], stopped: None });
            for value in 2..WRITES_MAX {
                if self.is_over() {
                    return;
                }
                self.write(&id, value, any_master(&mut random)).await;
                sleep(Duration::from_millis(random.between(50, 250))).await;
            }
            self.stop(&id, &mut random).await;
        }
    }

    async fn write(&self, id: &str, value: u64, master: usize) {
        let from = self.history.us();
        let outcome = self.api.call(master, Method::POST, &format!("/v1/jobs/{id}/scale"), Some(json!({ "count": value })), None).await;
        self.failed(&outcome);
        let to = match outcome {
            Outcome::Done(_) => self.history.us(),
            // What is read of it all the same is read from nowhere.
            Outcome::NotDone(_) => return,
            Outcome::Unknown(_) | Outcome::Refused(..) => u64::MAX,
        };
        if to < u64::MAX {
            self.history.acknowledged();
        }
        self.history.records().registers.get_mut(id).unwrap().ops.push(Op { value, wrote: true, from, to });
    }

    async fn stop(&self, id: &str, random: &mut Random) {
        loop {
            let outcome = self.api.call(any_master(random), Method::POST, &format!("/v1/jobs/{id}/stop"), Some(json!({})), None).await;
            self.failed(&outcome);
            if let Outcome::Done(_) = outcome {
                self.history.acknowledged();
                let now = self.history.us();
                self.history.records().registers.get_mut(id).unwrap().stopped.get_or_insert(now);
                return;
            }
            sleep(AGAIN).await;
        }
    }

    async fn read_registers(self, mut random: Random) {
        while !self.is_over() {
            sleep(Duration::from_millis(random.between(20, 80))).await;
            let ids: Vec<String> = self.history.records().registers.keys().cloned().collect();
            if ids.is_empty() {
                continue;
            }
            let place = random.below(ids.len() as u64) as usize;
            self.read(&ids[place], any_master(&mut random)).await;
        }
    }

    async fn read(&self, id: &str, master: usize) {
        let from = self.history.us();
        let outcome = self.api.get(master, &format!("/v1/jobs/{id}")).await;
        self.failed(&outcome);
        let Outcome::Done(job) = outcome else { return };
        let (to, live) = (self.history.us(), job["state"] == "live");
        let mut records = self.history.records();
        records.reads += 1;
        let register = records.registers.get_mut(id).unwrap();
        let stopped = register.stopped;
        if !live {
            register.stopped.get_or_insert(to);
        } else {
            register.ops.push(Op { value: job["count"].as_u64().unwrap(), wrote: false, from, to });
        }
        drop(records);
        if live && stopped.is_some_and(|stopped| stopped < from) {
            self.history
                .violated(format!("job {id} was stopped at {stopped:?} us and read as live at {from} us from master {}", master + 1));
        }
    }

    /// Reads jobs that were acknowledged: one that has ended stays so, with the record it had.
    async fn watch_ends(self, mut random: Random) {
        while !self.is_over() {
            sleep(Duration::from_millis(60)).await;
            let drawn = {
                let records = self.history.records();
                let count = records.acked.len() as u64;
                (count > 0).then(|| {
                    let key = records.acked[random.below(count) as usize].clone();
                    let id = records.submissions[&key].acked.as_ref().map(|(_, id)| id.clone());
                    (key, id.unwrap_or_default())
                })
            };
            if let Some((key, id)) = drawn {
                self.look(&key, &id, any_master(&mut random)).await;
            }
        }
    }

    /// Reads the task of a job; true where it has ended for good.
    pub async fn look(&self, key: &str, id: &str, master: usize) -> bool {
        let from = self.history.us();
        let outcome = self.api.get(master, &format!("/v1/jobs/{id}/tasks")).await;
        self.failed(&outcome);
        let Outcome::Done(page) = outcome else { return false };
        let to = self.history.us();
        let tasks = page["tasks"].as_array().cloned().unwrap_or_default();
        if tasks.len() != 1 {
            self.history.violated(format!("job {id} of key {key} has {} tasks", tasks.len()));
            return false;
        }
        let task = &tasks[0];
        let record = json!([task["attempt"], task["phase"], task["exit"], task["agent"]]).to_string();
        let ended = ["finished", "failed", "killed", "rejected", "lost"].iter().any(|phase| task["phase"] == *phase);
        let mut records = self.history.records();
        records.reads += 1;
        let known = records.ends.get(key).cloned();
        if ended && known.is_none() {
            records.ends.insert(key.to_owned(), (to, record.clone()));
        }
        drop(records);
        if let Some((at, before)) = known
            && at < from
            && before != record
        {
            self.history.violated(format!("job {id} of key {key} had ended at {at} us as {before} and was read at {from} us as {record}"));
        }
        if ended && task["phase"] != "finished" {
            self.history.violated(format!("job {id} of key {key}, which does nothing, ended as {record}"));
        }
        ended
    }

    /// For whoever looks when the load is over.
    pub fn reader(api: Api, history: Arc<History>) -> Self {
        Self { api, history, noop: "".into(), sleep: "".into(), over: Arc::default() }
    }
}

fn any_master(random: &mut Random) -> usize {
    random.below(MASTERS as u64) as usize
}

/// A JSON text without its quotes; empty where it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
