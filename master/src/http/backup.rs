//! A backup of the whole cluster over HTTP, streamed as it is made.

use super::Api;
use super::access::Caller;
use super::error::{ApiError, ErrorAnswer};
use super::masters::standings;
use crate::drive::backup::{Contents, Head, write};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes that are sent at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait for a slow reader.
const PIECES_MAX: usize = 4;

/// Makes a backup: all that is on record, what masters certify with, and the bundles. Whoever has it can be a master of this cluster.
#[utoipa::path(get, path = "/v1/backup", tag = "cluster",
    responses((status = 200, body = Vec<u8>, content_type = "application/x-tar"), (status = 403, body = ErrorAnswer), (status = 503, body = ErrorAnswer)))]
pub async fn backup(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, ApiError> {
    caller.must_own_cluster()?;
    let mut masters: Vec<_> = api.door.peers().all().iter().map(|peer| peer.master()).collect();
    masters.push(api.door.peers().own());
    let standings = standings(&api, &masters).await;
    let mut snapshots = Vec::new();
    for shard in 0..api.door.shards() {
        let known = standings.values().filter_map(|standings| standings.get(usize::from(shard)));
        let upto = known.map(|standing| standing.applied).max().unwrap_or(0);
        let member = api.door.peers().group(shard).ok_or_else(|| ApiError::unavailable("this master is only starting"))?;
        snapshots.push(member.snapshot(upto).await.map_err(ApiError::unavailable)?);
    }
    let head = Head {
        version: 1,
        cluster: api.cluster.clone(),
        shards: api.door.shards(),
        made_ms: super::access::now().0,
        binary: env!("CARGO_PKG_VERSION").into(),
    };
    let contents = Contents { head, data_dir: api.data_dir.clone(), snapshots, bundles: api.bundles.clone() };
    let (pieces, sent) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let written = write(contents, BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces.clone())));
        if let Err(error) = written {
            // The reader sees that it broke off, or is the one that went away.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let stream = futures::stream::unfold(sent, |mut sent| async move { sent.recv().await.map(|piece| (piece, sent)) });
    let mut response = Body::from_stream(stream).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(response)
}

/// What is written is sent.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
