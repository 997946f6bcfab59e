//! The page under load: a browser looks at one master with thousands of agents (`crowd`) and their tasks, while jobs come and go. What is measured is
//! what its reader feels: bytes until it is there, and how long the browser's main thread was busy at a time.

use super::agents::{self, until};
use super::cluster::{Cluster, cpu_us, temporary};
use super::crowd::{Crowd, NICE};
use super::figure::{Figures, What};
use super::member::{Member, STAYS};
use super::{job, upload};
use crate::browser::{Browser, BrowserError, program};
use crate::client::Client;
use anyhow::Context;
use reqwest::Method;
use serde_json::Value;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long each page is looked at.
const LOOK: Duration = Duration::from_secs(8);
/// How long it may take to be there.
const THERE_WITHIN: Duration = Duration::from_secs(60);
/// The wait between two jobs that come and go, and the tasks of each.
const COMES: Duration = Duration::from_millis(100);
const TASKS_EACH: u32 = 20;

/// Runs before anything of a page: keeps how long tasks of the main thread were (the browser tells those of 50 ms and more), and the longest wait of a
/// timer that is due every 5 ms.
const WATCH: &str = "window.seen = { longest: 0, long: 0, gap: 0 }; \
    new PerformanceObserver((list) => { for (const one of list.getEntries()) { seen.long += 1; seen.longest = Math.max(seen.longest, one.duration); } }) \
      .observe({ type: 'longtask', buffered: true }); \
    let last = performance.now(); \
    setInterval(() => { const now = performance.now(); seen.gap = Math.max(seen.gap, now - last - 5); last = now; }, 5);";

/// The pages, with what is done on each every so many milliseconds while it is looked at.
const PAGES: [(&str, u32, &str); 7] = [
    (
        "overview",
        50,
        "const map = document.querySelector('skep-map'); const box = map.getBoundingClientRect(); window.at = (window.at ?? 0) + 997; \
         map.canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + at % box.width, clientY: box.top + (at / 7) % box.height }));",
    ),
    ("jobs", 1_000, ""),
    (
        "agents",
        1_000,
        "const field = document.querySelector('.filter'); field.value = 'crowd-' + Math.floor(Math.random() * 99); \
         field.dispatchEvent(new Event('input'));",
    ),
    ("events", 1_000, ""),
    ("roles", 1_000, ""),
    ("jobs/STAYS", 500, "[...document.querySelectorAll('.pager button')].at(-1)?.click();"),
    ("jobs/STAYS/tasks/7", 1_000, ""),
];

/// One run with so many agents and tasks.
pub async fn page(figures: &mut Figures, samples: &Path, run: u32, (count, tasks): (u32, u32)) -> anyhow::Result<()> {
    program()?;
    agents::may_open(u64::from(count))?;
    let cluster = Cluster::master(&[]).await?;
    let (client, master) = (&cluster.client, cluster.master.id());
    let identities = agents::join(client, cluster.quic()?, count).await?;
    let mut crowd = Crowd::start(&[cluster.quic()?], &identities, &Member::count(1), NICE).await?;
    agents::until_registered(client, &mut crowd, count).await?;
    let wasm = upload(client, samples, "noop.wasm").await?;
    let mut staying = job(&wasm, &[], tasks);
    (staying["name"], staying["kind"]) = (STAYS.into(), "service".into());
    let made = client.call(Method::POST, "/v1/jobs", &staying).await?;
    let id = made["id"].as_str().context("no id in the answer")?.to_owned();
    until(client, &mut crowd, "all run", &format!("/v1/jobs/{STAYS}"), |job| job["tasks"]["running"] == tasks).await?;

    let access = client.access().clone();
    let what = What { bench: "page", kind: "crowd", n: u64::from(count), run };
    let used = (cpu_us(master)?, Instant::now());
    let looking = tokio::task::spawn_blocking(move || look(&access.url, &access.token, &id));
    let seen = tokio::select! {
        seen = looking => seen??,
        ended = come_and_go(client, &wasm) => return Err(ended),
        ended = crowd.gone() => return Err(ended),
    };
    let percent = (cpu_us(master)? - used.0) as f64 / used.1.elapsed().as_micros() as f64 * 100.0;
    figures.add(&what, "first_load", seen.bytes as f64 / 1024.0, "KiB");
    figures.add(&what, "first_map", seen.there.as_secs_f64() * 1_000.0, "ms");
    for (name, longest, gap) in seen.pages {
        figures.add(&what, &format!("{name}_longest_task"), longest, "ms");
        figures.add(&what, &format!("{name}_longest_wait"), gap, "ms");
    }
    figures.add(&what, "master", percent, "percent");
    Ok(())
}

/// Jobs that come and go, until one cannot.
async fn come_and_go(client: &Client, wasm: &str) -> anyhow::Error {
    loop {
        if let Err(error) = client.call(Method::POST, "/v1/jobs", &job(wasm, &[], TASKS_EACH)).await {
            return error.context("a job that comes and goes");
        }
        tokio::time::sleep(COMES).await;
    }
}

/// What was seen.
struct Seen {
    /// Until the map is drawn.
    bytes: u64,
    there: Duration,
    /// By page the longest task of the main thread, 0 where none took 50 ms, and the longest wait of a timer, in milliseconds.
    pages: Vec<(String, f64, f64)>,
}

fn look(url: &str, token: &str, stays: &str) -> Result<Seen, BrowserError> {
    let folder = temporary("browser").map_err(|error| BrowserError::Ended(error.to_string()))?;
    let mut browser = Browser::start(&folder, (1_440, 900))?;
    browser.call("Page.addScriptToEvaluateOnNewDocument", serde_json::json!({ "source": WATCH }))?;
    let start = Instant::now();
    browser.go(&format!("{url}/#token={token}"))?;
    browser.until(
        "the map is drawn",
        "/^\\d.* agents in /.test(document.querySelector('canvas')?.getAttribute('aria-label'))",
        THERE_WITHIN,
    )?;
    let (there, bytes) = (start.elapsed(), browser.bytes);
    let mut pages = vec![];
    for (page, every, doing) in PAGES {
        let path = page.replace("STAYS", stays);
        let name = match page.rsplit_once('/') {
            None => page,
            Some(("jobs", _)) => "job",
            Some(_) => "task",
        };
        browser.eval(&format!("Object.assign(seen, {{ longest: 0, long: 0, gap: 0 }}); location.hash = '#/{path}'"))?;
        browser.until("it has a heading", "document.querySelector('main h1') !== null", THERE_WITHIN)?;
        browser.eval(&format!("clearInterval(window.doing); window.doing = setInterval(() => {{ {doing} }}, {every}); 0"))?;
        sleep(LOOK);
        let seen: Value = browser.eval("seen")?;
        let of = |name: &str| seen[name].as_f64().unwrap_or(f64::NAN);
        pages.push((name.to_owned(), of("longest"), of("gap")));
    }
    match browser.complaints.first() {
        None => Ok(Seen { bytes, there, pages }),
        Some(first) => Err(BrowserError::Ended(format!("the page complained: {first}"))),
    }
}
