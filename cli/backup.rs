//! `skep masters backup` and `restore`: where a backup goes and comes from. What is in it is the master's.

use crate::client::Client;
use crate::store::{Object, ended};
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::{Method, Url};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc;

/// Pieces of a backup that wait for the disk.
const PIECES_MAX: usize = 4;
/// How long a web server may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Where a backup is.
enum Place {
    /// Standard output, standard input.
    Pipe,
    File(PathBuf),
    /// To read only: no web server takes a stream and shows it when it is whole.
    Web(Url),
    Store(Object),
}

impl Place {
    async fn find(target: &Path) -> anyhow::Result<Self> {
        let Some(text) = target.to_str().filter(|text| text.contains("://")) else {
            return Ok(if target.as_os_str() == "-" { Self::Pipe } else { Self::File(target.to_owned()) });
        };
        let url: Url = text.parse().with_context(|| format!("{text} is no URL"))?;
        match url.scheme() {
            "file" => {
                let file = url.to_file_path().map_err(|()| anyhow!("{url} is no file of this machine\nhelp: file:///PATH"))?;
                Ok(Self::File(file))
            }
            "http" | "https" => Ok(Self::Web(url)),
            _ => Ok(Self::Store(Object::find(&url).await?)),
        }
    }
}

/// Writes a backup, which has its name only when it is whole.
pub async fn backup(client: &Client, target: &Path) -> anyhow::Result<ExitCode> {
    let place = Place::find(target).await?;
    match &place {
        Place::Pipe => {}
        Place::File(file) if file.exists() => bail!("{} is there already", file.display()),
        Place::File(_) => {}
        Place::Web(_) => bail!("a web server is only read from\nhelp: s3://BUCKET/PATH, gs://BUCKET/PATH, file:///PATH or a path"),
        Place::Store(object) => object.must_be_free().await?,
    }
    let response = client.send(client.request(Method::GET, "/v1/backup")).await?;
    let pieces = response.bytes_stream().map_err(|error| anyhow::Error::from(error).context("the backup broke off"));
    let bytes = match &place {
        Place::Pipe => {
            copy(pieces, &mut io::stdout()).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Place::Web(_) => unreachable!("it was refused"),
        Place::File(file) => to_file(pieces, file).await?,
        Place::Store(object) => object.write(pieces).await?,
    };
    println!("{bytes} bytes in {}: the cluster's keys are in it", target.display());
    Ok(ExitCode::SUCCESS)
}

async fn to_file(pieces: impl Stream<Item = anyhow::Result<Bytes>>, file: &Path) -> anyhow::Result<usize> {
    let scratch = file.with_extension("part");
    let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch);
    let mut out = opened.with_context(|| scratch.display().to_string())?;
    let written = async {
        let bytes = copy(pieces, &mut out).await?;
        out.sync_all()?;
        std::fs::rename(&scratch, file)?;
        Ok(bytes)
    };
    let written = written.await;
    if written.is_err() {
        let _ = std::fs::remove_file(&scratch);
    }
    written
}

async fn copy(pieces: impl Stream<Item = anyhow::Result<Bytes>>, out: &mut impl Write) -> anyhow::Result<usize> {
    let mut pieces = std::pin::pin!(pieces);
    let mut bytes = 0;
    while let Some(piece) = pieces.try_next().await? {
        bytes += piece.len();
        out.write_all(&piece)?;
    }
    out.flush()?;
    Ok(bytes)
}

/// Makes a data directory from a backup.
pub async fn restore(target: &Path, data: &Path) -> anyhow::Result<ExitCode> {
    let head = match Place::find(target).await? {
        Place::Pipe => master::drive::backup::restore(io::stdin(), data)?,
        Place::File(file) => {
            let file = std::fs::File::open(&file).with_context(|| file.display().to_string())?;
            master::drive::backup::restore(file, data)?
        }
        Place::Web(url) => unpack(from_web(&url).await?, data).await?,
        Place::Store(object) => unpack(object.read().await?, data).await?,
    };
    println!("cluster {} of {} shards is in {}", head.cluster, head.shards, data.display());
    println!(
        "start it with `skep master --data {}`; other masters join it anew, agents find it where they find one of its old masters",
        data.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// What may be secret in a URL stands behind its question mark, and is not shown.
async fn from_web(url: &Url) -> anyhow::Result<BoxStream<'static, anyhow::Result<Bytes>>> {
    protocol::link::install_crypto();
    let client = reqwest::Client::builder().connect_timeout(SILENCE_MAX).read_timeout(SILENCE_MAX).build()?;
    let mut shown = url.clone();
    shown.set_query(None);
    let failed = move |error: reqwest::Error| anyhow::Error::from(error.without_url()).context(format!("reading {shown}"));
    let response = client.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status).map_err(failed.clone())?;
    Ok(response.bytes_stream().map_err(failed).boxed())
}

/// Unpacks what comes, on a thread that may block. A signal makes it break off.
async fn unpack(mut pieces: BoxStream<'static, anyhow::Result<Bytes>>, data: &Path) -> anyhow::Result<master::drive::backup::Head> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let data = data.to_owned();
    let unpacked = tokio::task::spawn_blocking(move || master::drive::backup::restore(Pieces { receiver, rest: Bytes::new() }, &data));
    let mut ended = std::pin::pin!(ended());
    loop {
        let piece = tokio::select! {
            piece = pieces.next() => piece,
            () = sender.closed() => None,
            name = &mut ended => Some(name.and_then(|name| Err(anyhow!("{name} came")))),
        };
        let Some(piece) = piece else { break };
        let last = piece.is_err();
        if sender.send(piece).await.is_err() || last {
            break;
        }
    }
    drop(sender);
    Ok(unpacked.await??)
}

/// Pieces as one thing to read, for a thread that may block.
struct Pieces {
    receiver: mpsc::Receiver<anyhow::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.rest = piece.map_err(|error| io::Error::other(format!("{error:#}")))?,
                None => return Ok(0),
            }
        }
        let taken = self.rest.split_to(self.rest.len().min(into.len()));
        into[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_as_one_until_one_is_an_error() {
        let (sender, receiver) = mpsc::channel(8);
        for piece in ["ab", "", "cde"] {
            sender.try_send(Ok(Bytes::from_static(piece.as_bytes()))).unwrap();
        }
        sender.try_send(Err(anyhow!("inner").context("it broke off"))).unwrap();
        drop(sender);
        let (mut pieces, mut text) = (Pieces { receiver, rest: Bytes::new() }, Vec::new());
        assert_eq!(pieces.read_to_end(&mut text).unwrap_err().to_string(), "it broke off: inner");
        assert_eq!(text, b"abcde");
        assert_eq!(pieces.read(&mut [0; 8]).unwrap(), 0);
    }
}
