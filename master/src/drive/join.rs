//! How a new master comes into a cluster: it shows a token to one that is there, and is given a number, what it certifies with, and where the
//! others are. All of that is in its data directory before anything else is made there.

use super::data_dir::DataDir;
use super::{MasterConfig, StartError};
use crate::shard::event::Master;
use protocol::identity::{Authority, JoinToken};
use protocol::link;
use protocol::message::{JoinReply, MasterPlace};
use std::net::SocketAddr;
use std::time::Duration;

/// How often a cluster is asked that does not answer, and the wait between.
const TRIES_MAX: u32 = 10;
const RETRY: Duration = Duration::from_millis(500);

/// Joins; returns the number that this master has from now on.
pub async fn join(data: &DataDir, masters: &[String], token: &JoinToken, config: &MasterConfig) -> Result<u16, StartError> {
    let quic = config.quic_advertised.clone().unwrap_or_else(|| config.quic_addr.to_string());
    let http = config.http_advertised.clone().unwrap_or_else(|| format!("https://{}", config.http_addr));
    let (number, shards, parts, masters) = match ask(masters, token, quic, http).await? {
        JoinReply::Master { number, shards, root_der, intermediate_der, key_der, masters } => {
            (number, shards, (root_der, intermediate_der, key_der), masters)
        }
        JoinReply::Refused { reason } => return Err(StartError::Join { reason }),
        JoinReply::Welcome { .. } => return Err(StartError::Join { reason: "it was taken for an agent".into() }),
    };
    let authority = data.authority();
    // What an earlier try left half done is worth nothing: its number was never used.
    match std::fs::remove_dir_all(&authority) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(StartError::data("clear", &authority, error)),
        _ => {}
    }
    Authority::adopt(&authority, &parts.0, &parts.1, &parts.2)?;
    data.shards(shards)?;
    let place = |MasterPlace { number, quic, http }| Master { number, quic, http };
    let masters: Vec<Master> = masters.into_iter().map(place).collect();
    data.write("masters.json", &serde_json::to_vec(&masters).expect("masters have text for keys"))?;
    data.set_member(number, false)?;
    Ok(number)
}

async fn ask(masters: &[String], token: &JoinToken, quic: String, http: String) -> Result<JoinReply, StartError> {
    let mut last = "no address leads anywhere".to_owned();
    for _ in 0..TRIES_MAX {
        for master in masters {
            let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(master).await {
                Ok(found) => found.collect(),
                Err(error) => {
                    last = format!("{master}: {error}");
                    continue;
                }
            };
            for address in addresses {
                match link::join_master(address, token, quic.clone(), http.clone()).await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => last = error.to_string(),
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
    Err(StartError::Join { reason: last })
}
