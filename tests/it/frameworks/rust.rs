//! The client and the scheduler in Rust, as they stand among the samples.

#[allow(dead_code, reason = "a client has more than one scheduler needs")]
#[path = "../../../samples/frameworks/rust/client.rs"]
mod client;

#[path = "../../../samples/frameworks/rust/batch.rs"]
mod batch;

use super::TASKS;
use super::caller::on_runtime;
use crate::cluster::sample;
use crate::masters::Masters;
use std::time::Duration;

#[test]
fn a_framework_in_rust_says_what_it_wants_and_places_it_through_the_loss_of_masters() {
    let mut masters = Masters::three();
    let cluster = &masters.cluster;
    let pushed = cluster.json(&["push", sample("nap.wasm").to_str().unwrap()]);
    let wasm = pushed["digest"].as_str().unwrap().to_owned();
    protocol::link::install_crypto();
    let root = reqwest::Certificate::from_pem(&std::fs::read(cluster.ca()).unwrap()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([root]).no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let urls = cluster.url.split(',').map(str::to_owned).collect();
    let reach = client::Cluster { http, urls, token: cluster.token.clone() };
    let count = TASKS as usize;
    let placing = std::thread::spawn(move || {
        on_runtime(async { assert_eq!(batch::place_all(reach, &wasm, &["1500"], count).await.unwrap(), count) })
    });
    for number in [1, 2] {
        std::thread::sleep(Duration::from_millis(700));
        masters.kill(number);
        masters.start(number);
        masters.until_led(3);
    }
    placing.join().unwrap();
}
