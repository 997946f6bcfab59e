//! Every limit, every way to end, and what hostile bytes do, each on a real engine. Programs are written as text.

mod ask;
mod ends;
mod hostile;
mod measure;
mod messages;
mod policies;
mod talk;

use super::{Control, Engine, LoadError, Output, Prepared, Sizing, compile};
use crate::{Exit, Key, Limits, Metering, Plan, Start, Stream, Usage};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

/// One engine of each kind for all tests: a pool is large.
static FUEL: LazyLock<Engine> = LazyLock::new(|| Engine::new(Metering::Fuel, &Sizing { tasks_max: 64 }).unwrap());
static EPOCH: LazyLock<Engine> = LazyLock::new(|| Engine::new(Metering::Epoch, &Sizing { tasks_max: 64 }).unwrap());

/// A directory of one test, removed with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let path = std::env::temp_dir().join(format!("skep-wasm-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Keeps what a task wrote, up to a bound, and counts all of it.
#[derive(Default)]
struct Kept {
    text: Mutex<Vec<u8>>,
    bytes: AtomicU64,
    started: AtomicU64,
}

impl Output for Kept {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        assert!(!bytes.is_empty());
        let mut text = self.text.lock().unwrap();
        if text.len() < 4_096 {
            text.push(if stream == Stream::Stdout { b'>' } else { b'!' });
            text.extend_from_slice(&bytes[..bytes.len().min(256)]);
        }
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    fn started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }
}

fn limits() -> Limits {
    Limits {
        fuel_max: None,
        cpu_time_ms_max: None,
        time_ms_max: Some(60_000),
        memory_bytes_max: 16 << 20,
        table_elements_max: 1_000,
        host_bytes_max: 1 << 20,
        log_bytes_max: 1 << 20,
    }
}

fn start() -> Start {
    Start { key: Key(1), index: 7, attempt: 2, ports: vec![8080, 9090] }
}

/// A program in its directory, and the plan that runs it.
struct Program {
    _dir: Dir,
    engine: &'static Engine,
    plan: Plan,
    output: Arc<Kept>,
}

impl Program {
    fn new(engine: &'static Engine, text: &str) -> Self {
        let dir = Dir::new();
        let wasm = wat::parse_str(text).unwrap();
        let compiled = dir.file("compiled", &compile::compile(&wasm, engine.metering()).unwrap());
        let digest = *blake3::hash(&[text.as_bytes(), &[engine.metering() as u8]].concat()).as_bytes();
        let plan = Plan {
            compiled,
            digest,
            args: vec![],
            env: vec![],
            config: vec![],
            stdin: None,
            port_names: vec!["http".into(), "admin".into()],
            limits: limits(),
            job: "sieve".into(),
            agent: "a1".into(),
        };
        Self { _dir: dir, engine, plan, output: Arc::default() }
    }

    fn prepare(&self) -> Result<Arc<Prepared>, LoadError> {
        self.engine.prepare(Arc::new(self.plan.clone()))
    }

    async fn run(&self) -> (Exit, Usage) {
        self.run_with(&Control::new()).await
    }

    async fn run_with(&self, control: &Control) -> (Exit, Usage) {
        self.engine.run(&self.prepare().unwrap(), &start(), self.output.clone(), control).await
    }

    fn text(&self) -> String {
        String::from_utf8(self.output.text.lock().unwrap().clone()).unwrap()
    }
}

/// A core module with one page of memory and `body` as its `_start`.
fn core(imports: &str, body: &str) -> String {
    format!(r#"(module {imports} (memory (export "memory") 1) (func (export "_start") {body}))"#)
}

const SPIN: &str = "(loop $on (br $on))";
const PROC_EXIT: &str = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
const FD_WRITE: &str = r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))"#;
const POLL: &str = r#"(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#;
/// Sleeps on the monotonic clock; the time in nanoseconds is put in the place of `NS`.
const SLEEP: &str = r#"
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const NS))
    (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))"#;

fn sleep(nanoseconds: u64) -> String {
    core(POLL, &SLEEP.replace("NS", &nanoseconds.cast_signed().to_string()))
}

/// A component that is a WASI command; `run` is the core function's body, which gives 0 or 1.
fn component(run: &str) -> String {
    format!(
        r#"(component
            (core module $m (memory (export "memory") 1) (func (export "run") (result i32) {run}))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#
    )
}

/// The same sleep as a component: its monotonic clock and a pollable.
fn component_sleep(nanoseconds: u64) -> String {
    r#"(component
        (import "wasi:io/poll@0.2.0" (instance $poll
            (export "pollable" (type $p (sub resource)))
            (export "[method]pollable.block" (func (param "self" (borrow $p))))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
            (alias outer 1 $pollable (type $p))
            (export "pollable" (type $q (eq $p)))
            (export "subscribe-duration" (func (param "when" u64) (result (own $q))))))
        (core func $block (canon lower (func $poll "[method]pollable.block")))
        (core func $subscribe (canon lower (func $clock "subscribe-duration")))
        (core module $m
            (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
            (import "host" "block" (func $block (param i32)))
            (memory 1)
            (func (export "run") (result i32) (call $block (call $subscribe (i64.const NS))) i32.const 0))
        (core instance $i (instantiate $m
            (with "host" (instance (export "subscribe" (func $subscribe)) (export "block" (func $block))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $command (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $command)))"#
        .replace("NS", &nanoseconds.cast_signed().to_string())
}
