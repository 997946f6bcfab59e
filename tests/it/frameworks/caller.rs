//! A framework over our own API, a call at a time.

use crate::cluster::{Cluster, PATIENCE};
use futures::StreamExt as _;
use serde_json::{Value, json};

/// A client of the API, with a token.
pub struct Caller {
    pub http: reqwest::Client,
    pub url: String,
    pub token: String,
}

impl Caller {
    pub fn new(cluster: &Cluster, token: &str) -> Self {
        protocol::link::install_crypto();
        let root = reqwest::Certificate::from_pem(&std::fs::read(cluster.ca()).unwrap()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([root]).no_proxy().build().unwrap();
        Self { http, url: cluster.url.clone(), token: token.to_owned() }
    }

    pub async fn post(&self, body: String) -> reqwest::Response {
        let request = self.http.post(format!("{}/v1/framework", self.url)).bearer_auth(&self.token);
        request.header("content-type", "application/json").body(body).send().await.unwrap()
    }

    pub async fn subscribe(&self, name: &str) -> Subscribed<'_> {
        self.subscribe_as(json!({ "name": name, "failover_ms": 1_000 })).await
    }

    /// Subscribes with all that a framework may say then.
    pub async fn subscribe_as(&self, about: Value) -> Subscribed<'_> {
        let answer = self.post(json!({ "subscribe": about }).to_string()).await;
        assert_eq!(answer.status(), 200);
        let mut framework = Subscribed { caller: self, bytes: answer.bytes_stream().boxed(), kept: vec![], who: Value::Null };
        framework.who = framework.until("subscribed").await;
        framework
    }
}

/// A subscription.
pub struct Subscribed<'a> {
    pub caller: &'a Caller,
    pub bytes: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    pub kept: Vec<u8>,
    pub who: Value,
}

impl Subscribed<'_> {
    /// The next thing of this kind that it is told.
    pub async fn until(&mut self, kind: &str) -> Value {
        let told = tokio::time::timeout(PATIENCE, self.next_of(kind)).await;
        told.unwrap_or_else(|_| panic!("no {kind} was told"))
    }

    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            while let Some(end) = self.kept.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.kept.drain(..=end).collect();
                let line: Value = serde_json::from_slice(&line).unwrap();
                if let Some(body) = line.get(kind) {
                    return body.clone();
                }
            }
            self.kept.extend_from_slice(&self.bytes.next().await.expect("it goes on").unwrap());
        }
    }

    /// Says something; gives back the status and the text of the answer.
    pub async fn say(&self, mut call: Value) -> (u16, String) {
        if call.get("id").is_none() {
            call["id"] = self.who["id"].clone();
        }
        if call.get("stream").is_none() {
            call["stream"] = self.who["stream"].clone();
        }
        let answer = self.caller.post(call.to_string()).await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

/// Has a test wait for what it asks.
pub fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}
