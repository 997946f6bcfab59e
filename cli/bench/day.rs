//! The service of `skep bench night`, as a task: a server and its callers over loopback. Callers come by a clock, whether they were answered or not, and so
//! many as the time of day says; what each waits for is counted from when it was to come.

use super::figure::quantile;
use anyhow::Context;
use protocol::Digest;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is hashed for one answer.
const WORK_BYTES: usize = 1 << 20;
/// By night so large a part of the callers come, in hundredths.
const NIGHT_PERCENT: f64 = 5.0;
/// Tries of which the quickest is what an answer costs.
const TRIES: usize = 200;

/// Processor time that one answer costs on this machine.
pub fn answer_cost() -> Duration {
    let work = vec![7; WORK_BYTES];
    let one = |_| {
        let start = Instant::now();
        std::hint::black_box(Digest::of(std::hint::black_box(&work)));
        start.elapsed()
    };
    (0..TRIES).map(one).min().unwrap_or_default()
}

/// The task: idle for `lead`, then a whole day in `day`, at whose noon `rate` callers come in a second; prints what they waited. And then, where
/// `wake` is not nothing, a thread that wants a whole core for so long; prints when it began.
pub fn serve(lead: Duration, day: Duration, rate: f64, wake: Duration) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening")?;
    let address = listener.local_addr()?;
    thread::spawn(move || answer(&listener));
    let calls = TcpStream::connect(address).context("calling")?;
    calls.set_nodelay(true)?;
    thread::sleep(lead);
    let mut waits = call(calls, day, rate)?;
    waits.sort_by(f64::total_cmp);
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_ms = used.tv_sec as f64 * 1_000.0 + used.tv_nsec as f64 / 1_000_000.0;
    println!("{}", json!({ "calls": waits.len(), "p50_us": quantile(&waits, 0.5), "p99_us": quantile(&waits, 0.99), "cpu_ms": cpu_ms }));
    if !wake.is_zero() {
        thread::sleep(lead);
        let woken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        println!("{}", json!({ "woken_ms": woken.as_secs_f64() * 1_000.0 }));
        let start = Instant::now();
        while start.elapsed() < wake {
            std::hint::black_box(Digest::of(&[7; 4_096]));
        }
    }
    Ok(())
}

/// One byte in, one byte out, and work between.
fn answer(listener: &TcpListener) {
    let work = vec![7; WORK_BYTES];
    let Ok((mut caller, _)) = listener.accept() else { return };
    let _ = caller.set_nodelay(true); // It is slower without.
    let mut byte = [0];
    while caller.read_exact(&mut byte).is_ok() {
        byte[0] = std::hint::black_box(Digest::of(std::hint::black_box(&work))).0[0];
        if caller.write_all(&byte).is_err() {
            return;
        }
    }
}

/// What each caller of a day waited, in microseconds.
fn call(mut calls: TcpStream, day: Duration, rate: f64) -> anyhow::Result<Vec<f64>> {
    let mut answers = calls.try_clone()?;
    let (said, due) = mpsc::channel::<Instant>();
    let waiting = thread::spawn(move || {
        let (mut waits, mut byte) = (Vec::new(), [0]);
        for at in due {
            if answers.read_exact(&mut byte).is_err() {
                break;
            }
            waits.push(at.elapsed().as_secs_f64() * 1_000_000.0);
        }
        waits
    });
    let start = Instant::now();
    let mut at = Duration::ZERO;
    while at < day {
        let phase = at.as_secs_f64() / day.as_secs_f64() * std::f64::consts::TAU;
        let part = NIGHT_PERCENT / 100.0 + (1.0 - NIGHT_PERCENT / 100.0) * (1.0 - phase.cos()) / 2.0;
        at += Duration::from_secs_f64(1.0 / (rate * part));
        thread::sleep((start + at).saturating_duration_since(Instant::now()));
        said.send(start + at).context("whoever counts is gone")?;
        calls.write_all(&[1]).context("calling")?;
    }
    drop(said);
    waiting.join().map_err(|_| anyhow::anyhow!("whoever counts panicked"))
}
