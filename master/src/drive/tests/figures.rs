//! What the door costs, printed and judged by nobody: `cargo test --release -p master --lib figures -- --ignored --nocapture`.

use super::script::Script;
use super::{Scratch, config, job, start};
use crate::shard::{Request, Response};
use protocol::{RequestId, ShardId};
use std::time::Instant;
use tokio::sync::mpsc;

#[tokio::test]
#[ignore = "prints figures, checks nothing"]
async fn one_at_a_time_pipelined_and_as_one_job() {
    let dir = Scratch::new();
    let master = start(config(&dir.0)).await.unwrap();
    let agent = Script::join(&master).await.spawn();
    let (replies, mut answers) = mpsc::channel(65_536);
    let post = |n: u64, count: u32| {
        let request = Request::Submit { job: job(count), key: None, follow: true };
        master.door().post(ShardId((n % 2) as u16), request, RequestId(n), replies.clone()).unwrap();
    };
    let mut took = Vec::new();
    for n in 0..1_100 {
        let begun = Instant::now();
        post(n, 1);
        while !matches!(answers.recv().await.unwrap().1, Response::Ended(_)) {}
        took.push(begun.elapsed().as_micros());
    }
    let took = &mut took[100..];
    took.sort_unstable();
    println!("one at a time, durable: p50 {} µs, p99 {} µs", took[500], took[990]);

    let begun = Instant::now();
    let (mut posted, mut ended) = (0, 0);
    while ended < 20_000 {
        while posted < 20_000 && posted - ended < 1_024 {
            post(posted, 1);
            posted += 1;
        }
        ended += u64::from(matches!(answers.recv().await.unwrap().1, Response::Ended(_)));
    }
    println!("pipelined: {:.0} jobs/s", 20_000.0 / begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    post(0, 100_000);
    while !matches!(answers.recv().await.unwrap().1, Response::Ended(_)) {}
    println!("one job of 100,000: {:.0} tasks/s", 100_000.0 / begun.elapsed().as_secs_f64());
    agent.abort();
    master.shutdown().await;
}
