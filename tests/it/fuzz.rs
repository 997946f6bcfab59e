//! What the fuzzers try, driven by a small mutator of our own with fixed seeds: so it runs in every test run, on any compiler. `make fuzz`
//! drives the same with libFuzzer, for as long as one likes. Each runs in a process of its own that can have so much memory and no more.

use std::process::Command;

#[path = "../fuzz/bodies/frame_decode.rs"]
mod frame_decode;
#[path = "../fuzz/bodies/http_router.rs"]
mod http_router;
#[path = "../fuzz/bodies/job_file.rs"]
mod job_file;
#[path = "../fuzz/bodies/journal_replay.rs"]
mod journal_replay;
#[path = "../fuzz/bodies/wasm_intake.rs"]
mod wasm_intake;

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Bends `input` once: a bit, a byte, a length, a cut, a piece doubled, a piece of another input.
fn bend(input: &mut Vec<u8>, other: &[u8], draws: &mut Draws) {
    let at = draws.below(input.len());
    match draws.below(8) {
        0 if !input.is_empty() => input[at] ^= 1 << draws.below(8),
        1 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'[', b'9'][draws.below(8)],
        2 => input.truncate(at),
        3 => {
            let last = (at + draws.below(16)).min(input.len());
            let piece = input[at..last].to_vec();
            input.splice(at..at, piece);
        }
        4 => {
            let from = draws.below(other.len());
            let last = (from + draws.below(64)).min(other.len());
            input.splice(at..at, other[from..last].iter().copied());
        }
        5 => {
            let last = (at + draws.below(8)).min(input.len());
            input.drain(at..last);
        }
        6 => input.splice(at..at, std::iter::repeat_n(0xff, draws.below(10))).for_each(drop),
        _ => input.splice(at..at, draws.next().to_le_bytes()).for_each(drop),
    }
}

/// Set in the process that tries the inputs.
const INSIDE: &str = "SKEP_FUZZ_INSIDE";
/// Most memory that such a process may write to, in KiB: what it has before its first input, and several times what any input is worth.
const MEMORY_KIB_MAX: u64 = 96 << 10;

/// Runs `rounds` inputs, each a seed that was bent a few times; the first ones are the seeds themselves. A panic names its input.
fn drive(name: &str, seeds: fn() -> Vec<Vec<u8>>, rounds: u64, run: fn(&[u8])) {
    if std::env::var_os(INSIDE).is_none() {
        return within_bounds(name);
    }
    let seeds = seeds();
    for seed in &seeds {
        let ran = std::panic::catch_unwind(|| run(seed));
        assert!(ran.is_ok(), "{name}, a seed: {seed:?}");
    }
    for round in 0..rounds {
        let mut draws = Draws(round);
        let mut input = seeds[draws.below(seeds.len())].clone();
        for _ in 0..=draws.below(6) {
            let other = &seeds[draws.below(seeds.len())];
            bend(&mut input, other, &mut draws);
        }
        let ran = std::panic::catch_unwind(|| run(&input));
        assert!(ran.is_ok(), "{name}, round {round}: {input:?}");
    }
}

/// Runs this test again, alone in a process with bounds.
fn within_bounds(name: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -d "$0" && exec "$@""#, &MEMORY_KIB_MAX.to_string()]);
    shell.arg(std::env::current_exe().expect("a process knows its program")).args(["--exact", &format!("fuzz::{name}"), "--nocapture"]);
    let ran = shell.env(INSIDE, "1").output().expect("there is a shell");
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(ran.status.success() && said.contains("1 passed"), "{}: {said}", ran.status);
}

#[test]
fn no_bytes_of_a_frame_end_the_process() {
    drive("no_bytes_of_a_frame_end_the_process", frame_decode::seeds, 400_000, frame_decode::run);
}

#[test]
fn no_bytes_of_a_wasm_file_end_the_process() {
    drive("no_bytes_of_a_wasm_file_end_the_process", wasm_intake::seeds, 100_000, wasm_intake::run);
}

#[test]
fn no_bytes_of_a_job_file_end_the_process() {
    drive("no_bytes_of_a_job_file_end_the_process", job_file::seeds, 100_000, job_file::run);
}

#[test]
fn no_bytes_of_a_journal_end_the_process() {
    drive("no_bytes_of_a_journal_end_the_process", journal_replay::seeds, 6_000, journal_replay::run);
}

#[test]
fn no_bytes_of_a_client_end_the_process() {
    drive("no_bytes_of_a_client_end_the_process", http_router::seeds, 4_000, http_router::run);
}
