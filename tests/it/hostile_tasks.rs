//! Hostile wasm on the real binary: bytes that nobody should run are refused before an agent sees them, with words for people; what is valid
//! and means no good ends by itself, in its own way, and its neighbours in the same executor do not notice ("Wasm" of
//! `design/guarantees.md`; what modules alone do to an engine stands in the runtime).

use crate::cluster::{Cluster, sample};
use crate::scene::{Scene, memory_bytes};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// By how much an executor may grow through tasks that have ended: compiled code, and what the allocator keeps.
const GROWTH_BYTES_MAX: u64 = 96 << 20;
/// A task's output in the two tests of it.
const LOG_BYTES_MAX: u64 = 1 << 20;

fn compiled(text: &[u8]) -> Vec<u8> {
    wat::parse_bytes(text).unwrap().into_owned()
}

fn catalogue(file: &str) -> Vec<u8> {
    compiled(&fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/wasm").join(file)).unwrap())
}

fn write(cluster: &Cluster, name: &str, bytes: &[u8]) -> PathBuf {
    let path = cluster.folder.join(format!("{}.wasm", name.replace(' ', "-")));
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn bytes_that_nobody_should_run_are_refused_with_exit_code_2() {
    let scene = Scene::new();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no bytes", vec![], "empty"),
        ("magic only", b"\0asm".to_vec(), ""),
        ("text", b"echo hello\n".to_vec(), "nothing that runs"),
        ("an archive without a program", b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "which program"),
        (
            "too large",
            {
                let mut bytes = b"\0asm\x01\0\0\0".to_vec();
                bytes.resize((64 << 20) + 1, 0);
                bytes
            },
            "",
        ),
        ("memory64", catalogue("memory64-small.wat"), "memory64"),
        ("unknown import", catalogue("import-unknown.wat"), ""),
        ("no entry", catalogue("no-entry.wat"), "_start"),
        ("terminal escape", catalogue("import-with-terminal-escape.wat"), ""),
        ("4 GiB at once", catalogue("memory-of-4-gib.wat"), "4GiB"),
        ("a table of 2^32", catalogue("table-of-2-32.wat"), "limits.tables"),
        ("shared memory", catalogue("shared-memory.wat"), ""),
        ("types do not fit", catalogue("stack-of-another-type.wat"), ""),
        ("a component that serves", catalogue("component-serves-http.wat"), ""),
        ("cut off", fs::read(sample("hello.wasm")).unwrap()[..10_000].to_vec(), ""),
    ];
    for (what, bytes, word) in cases {
        let path = write(&scene.cluster, what, &bytes);
        let output = scene.cluster.run(&["run", path.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{what}: {said}");
        assert!(said.len() > 20 && said.len() < 4_096 && said.contains(word), "{what}: {said}");
        assert!(said.chars().all(|letter| letter == '\n' || !letter.is_control()), "{what}: {said:?}");
    }
    scene.check("after all of them");
    scene.end();
}

/// Calls `fd_write` with the same 64 KiB of `byte` for ever, and keeps no answer.
fn flood(byte: &str) -> Vec<u8> {
    let line = byte.repeat(1 << 10);
    let mut data = String::new();
    for at in 0..64 {
        write!(data, "(data (i32.const {}) \"{line}\")", 4_096 + (at << 10)).unwrap();
    }
    let text = format!(
        "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export \"memory\") 2) (data (i32.const 0) \"\\00\\10\\00\\00\\00\\00\\01\\00\") {data}
            (func (export \"_start\") (loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))) (br 0))))"
    );
    compiled(text.as_bytes())
}

#[test]
fn a_hostile_task_ends_in_its_own_way_and_its_neighbours_do_not_notice() {
    let scene = Scene::new();
    let executor = scene.cluster.executors()[0];
    let before = memory_bytes(executor);
    let grows = b"(module (memory 1) (func (export \"_start\") (loop (drop (memory.grow (i32.const 1))) (br 0))))";
    let touches = b"(module (memory 1) (func (export \"_start\") (local i32) (loop
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (i32.const 1)) (br 0))))";
    let table =
        b"(module (table 1 funcref) (func (export \"_start\") (loop (drop (table.grow (ref.null func) (i32.const 65536))) (br 0))))";
    let of_preview_1 = |name: &str, kind: &str, body: &str| {
        let text = format!(
            "(module (import \"wasi_snapshot_preview1\" {name:?} (func $call {kind})) (memory (export \"memory\") 1) (func (export \"_start\") {body}))"
        );
        text.into_bytes()
    };
    let exit = of_preview_1("proc_exit", "(param i32)", "(call $call (i32.const -2147483648))");
    let random = of_preview_1(
        "random_get",
        "(param i32 i32) (result i32)",
        "(if (call $call (i32.const 0) (i32.const 67108864)) (then unreachable))",
    );
    let sleeps = of_preview_1(
        "poll_oneoff",
        "(param i32 i32 i32 i32) (result i32)",
        "(i64.store (i32.const 24) (i64.const -1)) (drop (call $call (i32.const 0) (i32.const 1000) (i32.const 1) (i32.const 2000)))",
    );
    let renumbers = of_preview_1(
        "fd_renumber",
        "(param i32 i32) (result i32)",
        "(local i32) (loop (drop (call $call (i32.const 1) (i32.const 0))) (drop (call $call (i32.const -1) (local.get 0)))
        (drop (call $call (local.get 0) (i32.const -2))) (local.set 0 (i32.add (local.get 0) (i32.const 1)))
        (br_if 0 (i32.lt_u (local.get 0) (i32.const 50000)))) unreachable",
    );
    let cases: Vec<(&str, Vec<u8>, &[&str], &str)> = vec![
        ("exits-with-a-huge-code", exit, &[], "code"),
        ("wants-64-mib-of-random", random, &[], "trap"),
        ("sleeps-for-ever", sleeps, &["--time", "200ms"], "out-of-time"),
        ("renumbers-files", renumbers, &[], "trap"),
        ("start-loops", catalogue("start-loops.wat"), &["--fuel", "100M"], "out-of-fuel"),
        ("start-loops-by-time", catalogue("start-loops.wat"), &["--fuel", "100T", "--time", "200ms"], "out-of-time"),
        ("start-traps", catalogue("start-traps.wat"), &[], "trap"),
        ("data", catalogue("data-out-of-bounds.wat"), &[], "trap"),
        ("elements", catalogue("elements-out-of-bounds.wat"), &[], "trap"),
        ("recursion", catalogue("recursion-without-end.wat"), &[], "trap"),
        ("tail-calls", catalogue("tail-calls-without-end.wat"), &["--fuel", "100M"], "out-of-fuel"),
        ("grows", grows.to_vec(), &["--memory", "16MiB", "--fuel", "100M"], "out-of-memory"),
        ("grows-and-touches", touches.to_vec(), &["--memory", "64MiB", "--fuel", "1G"], "out-of-memory"),
        ("grows-a-table", table.to_vec(), &["--fuel", "100M"], "out-of-table"),
    ];
    for (what, text, flags, kind) in cases {
        let path = write(&scene.cluster, what, &compiled(&text));
        let args: Vec<&str> = ["run", "--name", what].iter().chain(flags).copied().chain([path.to_str().unwrap()]).collect();
        let output = scene.cluster.run(&args);
        assert_eq!(output.status.code(), Some(1), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        let task = &scene.cluster.all_tasks(what)[0];
        assert_eq!(task["exit"]["kind"], kind, "{what}: {task}");
        println!("{what}: {}", task["exit"]);
    }
    scene.check("after all of them");
    assert!(scene.cluster.executors().contains(&executor), "the neighbours' executor lives");
    let growth = memory_bytes(executor).saturating_sub(before);
    println!("the executor has {} KiB more", growth >> 10);
    assert!(growth < GROWTH_BYTES_MAX, "the executor has {} KiB more", growth >> 10);
    scene.end();
}

/// Bytes of files below a folder.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.metadata().map_or(0, |meta| if meta.is_dir() { disk_bytes(&entry.path()) } else { meta.len() })).sum()
}

#[test]
fn output_without_end_takes_its_share_of_disk_and_no_more() {
    let scene = Scene::new();
    let executor = scene.cluster.executors()[0];
    let before = memory_bytes(executor);
    for (what, byte) in [("lines", "\\0a"), ("one-line", "x"), ("escapes", "\\1b"), ("no-letters", "\\ff")] {
        let wasm = write(&scene.cluster, what, &flood(byte));
        let file = scene.cluster.folder.join(format!("{what}.toml"));
        let text = format!(
            "name = {what:?}\n[task]\nwasm = {wasm:?}\n[limits]\nlog = \"1MiB\"\ntime = \"500ms\"\n[resources]\nmemory = \"8MiB\"\n"
        );
        fs::write(&file, text).unwrap();
        let disk = disk_bytes(&scene.cluster.folder.join("a1"));
        scene.cluster.text(&["run", "--detach", file.to_str().unwrap()]);
        scene.cluster.until("the flood ends", |cluster| !cluster.json(&["status", what])["ended_ms"].is_null());
        let task = &scene.cluster.all_tasks(what)[0];
        assert_eq!(task["exit"]["kind"], "out-of-time", "{what}: {task}");
        let more = disk_bytes(&scene.cluster.folder.join("a1")).saturating_sub(disk);
        // Compiled code and records are counted with it.
        assert!(more < LOG_BYTES_MAX + (4 << 20), "{what}: {more} bytes on disk");
        let shown = scene.cluster.run(&["logs", what]);
        assert!(shown.status.success(), "{what}: {}", String::from_utf8_lossy(&shown.stderr));
        assert!(shown.stdout.len() as u64 > LOG_BYTES_MAX / 4, "{what}: {} bytes are shown", shown.stdout.len());
        println!("{what}: {more} bytes on disk, {} shown", shown.stdout.len());
    }
    let growth = memory_bytes(executor).saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "the executor has {} KiB more", growth >> 10);
    // A client that follows such a task is not drowned either.
    let wasm = write(&scene.cluster, "followed", &flood("x"));
    let output = scene.cluster.run(&["run", "--name", "followed", "--time", "300ms", "--memory", "8MiB", wasm.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    scene.check("after all of it");
    scene.end();
}
