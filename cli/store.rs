//! One object of an object store, `s3://BUCKET/PATH` or `gs://BUCKET/PATH`: written once and whole, in parts; read as a stream. Who asks, and
//! where the store is, comes from the environment. Knows nothing of what is in the object.

mod refusal;

use anyhow::{anyhow, bail, ensure};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, GetOptions, GetRange, HeaderMap, HeaderValue, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
};
use refusal::{Doing, code, no_credentials, refusal};
use reqwest::{Url, header};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Bytes of one part: all but the last are this long, which some stores demand. At least 5 MiB is what S3 demands.
const PART_BYTES: usize = 16 << 20;
/// Most parts of one object, as S3 has it: 156 GiB at [`PART_BYTES`]. What is longer is refused, and nothing of it is left.
const PARTS_MAX: usize = 10_000;
/// Parts that are sent at a time; each is kept in memory until the store has it.
const PARTS_AT_ONCE: usize = 2;
/// How long a request is tried again where the store does not answer or has an error of its own.
const RETRY_WITHIN: Duration = Duration::from_secs(10);
/// How long the store may say nothing, also while it takes a part.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// An object, which may be there or not.
pub struct Object {
    url: String,
    path: Path,
    store: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    /// Completes what `parts` began; where `conditional`, only if there is no object yet.
    last: Arc<dyn MultipartStore>,
    conditional: bool,
}

impl Object {
    /// The object of this name in the store that the environment says. Asks for credentials where they are not in the environment.
    ///
    /// # Errors
    /// The URL names no object, its store is not known here, or there are no credentials.
    pub async fn find(url: &Url) -> anyhow::Result<Self> {
        protocol::link::install_crypto();
        let plain = url.username().is_empty() && url.password().is_none() && url.port().is_none();
        ensure!(
            plain,
            "{}://{}: credentials and the store's address come from the environment",
            url.scheme(),
            url.host_str().unwrap_or("")
        );
        ensure!(url.query().is_none() && url.fragment().is_none(), "{url}: a ? in a name is written %3F, a # is written %23");
        let path = Path::from_url_path(url.path()).map_err(|error| anyhow!("{url}: {error}"))?;
        let named = url.host_str().is_some_and(|bucket| !bucket.is_empty()) && !path.as_ref().is_empty() && !url.path().ends_with('/');
        ensure!(named, "{url} names no object\nhelp: {}://BUCKET/PATH", url.scheme());
        match url.scheme() {
            "s3" => Self::of_s3(url, path).await,
            "gs" => Self::of_google(url, path).await,
            scheme => bail!("{url}: no store is known by {scheme}://\nhelp: s3://BUCKET/PATH, gs://BUCKET/PATH, file:///PATH or a path"),
        }
    }

    async fn of_s3(url: &Url, path: Path) -> anyhow::Result<Self> {
        let (mut builder, mut options) = (AmazonS3Builder::new().with_retry(retry()), client());
        for (name, value) in settings("AWS_") {
            match name.parse() {
                Ok(AmazonS3ConfigKey::Client(key)) => options = options.with_config(key, value),
                Ok(key) => builder = builder.with_config(key, value),
                Err(_) => {}
            }
        }
        let set = |key| builder.get_config_value(&key).unwrap_or_default();
        let signs = !yes(&set(AmazonS3ConfigKey::SkipSignature));
        let conditional = set(AmazonS3ConfigKey::ConditionalPut) != S3ConditionalPut::Disabled.to_string();
        let builder = builder.with_url(url.as_str());
        let store = builder.clone().with_client_options(options.clone()).build().map_err(|error| no_credentials(url, &error))?;
        if signs {
            store.credentials().get_credential().await.map_err(|error| no_credentials(url, &error))?;
        }
        // The crate has no other way to complete under a condition, which S3 knows: API reference, CompleteMultipartUpload, If-None-Match.
        let condition = HeaderMap::from_iter(conditional.then_some((header::IF_NONE_MATCH, HeaderValue::from_static("*"))));
        let last = builder.with_credentials(store.credentials().clone()).with_client_options(options.with_default_headers(condition));
        let last = Arc::new(last.build().map_err(|error| no_credentials(url, &error))?);
        let store = Arc::new(store);
        Ok(Self { url: url.to_string(), path, store: store.clone(), parts: store, last, conditional })
    }

    /// Its store knows no condition for what is sent in parts: Google's guide, *XML API multipart uploads*, considerations.
    async fn of_google(url: &Url, path: Path) -> anyhow::Result<Self> {
        let (mut builder, mut options) = (GoogleCloudStorageBuilder::new().with_retry(retry()), client());
        for (name, value) in settings("GOOGLE_") {
            match name.parse() {
                Ok(GoogleConfigKey::Client(key)) => options = options.with_config(key, value),
                Ok(key) => builder = builder.with_config(key, value),
                Err(_) => {}
            }
        }
        let signs = !yes(&builder.get_config_value(&GoogleConfigKey::SkipSignature).unwrap_or_default());
        let store = builder.with_url(url.as_str()).with_client_options(options).build().map_err(|error| no_credentials(url, &error))?;
        if signs {
            store.credentials().get_credential().await.map_err(|error| no_credentials(url, &error))?;
        }
        let store = Arc::new(store);
        Ok(Self { url: url.to_string(), path, store: store.clone(), parts: store.clone(), last: store, conditional: false })
    }

    /// Looks whether the name is free. Another may take it a moment later; [`Self::write`] looks again.
    ///
    /// # Errors
    /// It is taken, or the store does not say.
    pub async fn must_be_free(&self) -> anyhow::Result<()> {
        // A byte is asked for and not the head alone, whose refusal would be without words.
        let options = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
        match self.store.get_opts(&self.path, options).await {
            Ok(_) => bail!("{} is there already\nhelp: a backup goes under a name of its own", self.url),
            Err(error) if code(&error).as_deref() == Some("InvalidRange") => bail!("{} is there already, and empty", self.url),
            Err(error @ Error::NotFound { .. }) if code(&error).as_deref() != Some("NoSuchBucket") => Ok(()),
            // Who may write and not read. The store looks itself when all is there.
            Err(error @ Error::PermissionDenied { .. }) if self.conditional && code(&error).as_deref() == Some("AccessDenied") => Ok(()),
            Err(error) => Err(refusal(&self.url, Doing::Look, &error)),
        }
    }

    /// Writes it from what comes, and returns its bytes. It is there when all of it is, and not before; where something breaks off or a
    /// signal ends this process, the store is told to forget the parts.
    ///
    /// # Errors
    /// The source's own, the store's, or the name is taken by then.
    pub async fn write(&self, pieces: impl Stream<Item = anyhow::Result<Bytes>>) -> anyhow::Result<usize> {
        let refused = |error| refusal(&self.url, Doing::Write, &error);
        let id = self.parts.create_multipart(&self.path).await.map_err(refused)?;
        let bytes = Cell::new(0);
        let fill = async {
            let send = |(at, part): (usize, anyhow::Result<PutPayload>)| {
                let (id, bytes) = (&id, &bytes);
                async move {
                    let part = part?;
                    ensure!(
                        at < PARTS_MAX,
                        "{}: longer than {PARTS_MAX} parts of {PART_BYTES} bytes, which is all that it may be",
                        self.url
                    );
                    bytes.set(bytes.get() + part.content_length());
                    self.parts.put_part(&self.path, id, at, part).await.map_err(refused)
                }
            };
            let parts: Vec<PartId> = in_parts(pieces, PART_BYTES).enumerate().map(send).buffered(PARTS_AT_ONCE).try_collect().await?;
            self.must_be_free().await?;
            self.last.complete_multipart(&self.path, &id, parts).await.map_err(refused)
        };
        let written = tokio::select! {
            written = fill => written,
            name = ended() => Err(anyhow!("{}: not written, since {} came", self.url, name?)),
        };
        if written.is_err()
            && let Err(error) = self.parts.abort_multipart(&self.path, &id).await
        {
            let error = refusal(&self.url, Doing::Write, &error);
            eprintln!("skep: parts of it are left in the store, under no name, until it forgets them: {error:#}");
        }
        written.map(|_| bytes.get())
    }

    /// What is in it, as it comes.
    ///
    /// # Errors
    /// It is not there, or the store does not give it; later in the stream, that it broke off.
    pub async fn read(&self) -> anyhow::Result<BoxStream<'static, anyhow::Result<Bytes>>> {
        let found = self.store.get(&self.path).await.map_err(|error| refusal(&self.url, Doing::Read, &error))?;
        let url = self.url.clone();
        Ok(found.into_stream().map_err(move |error| refusal(&url, Doing::Read, &error)).boxed())
    }
}

/// The settings of a store in the environment, with names as the crate has them.
fn settings(prefix: &'static str) -> impl Iterator<Item = (String, String)> {
    let texts = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let ours = texts.filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty());
    ours.map(|(name, value)| (name.to_ascii_lowercase(), value))
}

/// What the crate takes for a yes.
fn yes(text: &str) -> bool {
    ["1", "true", "on", "yes", "y"].contains(&text.to_ascii_lowercase().as_str())
}

/// As long as a part may take, and not one moment for all of an answer.
fn client() -> ClientOptions {
    ClientOptions::new().with_timeout_disabled().with_read_timeout(SILENCE_MAX)
}

fn retry() -> RetryConfig {
    RetryConfig { retry_timeout: RETRY_WITHIN, ..RetryConfig::default() }
}

/// Cuts what comes into parts of `part_bytes`, of which the last may be shorter; of nothing there are none.
fn in_parts(pieces: impl Stream<Item = anyhow::Result<Bytes>>, part_bytes: usize) -> impl Stream<Item = anyhow::Result<PutPayload>> {
    stream::try_unfold((Box::pin(pieces.fuse()), Bytes::new()), move |(mut pieces, mut rest)| async move {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < part_bytes {
            if rest.is_empty() {
                match pieces.try_next().await? {
                    Some(piece) => rest = piece,
                    None => break,
                }
            }
            let taken = rest.split_to(rest.len().min(part_bytes - bytes));
            bytes += taken.len();
            part.push(taken);
        }
        Ok((bytes > 0).then(|| (PutPayload::from_iter(part), (pieces, rest))))
    })
}

/// Waits for a signal that ends this process; returns its name.
pub async fn ended() -> anyhow::Result<&'static str> {
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt.map(|()| "SIGINT").map_err(Into::into),
        _ = term.recv() => Ok("SIGTERM"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&'static str], expected: &[&str]) {
        let pieces = stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect::<Vec<_>>());
        let parts = in_parts(pieces, 4).map_ok(|part| String::from_utf8(Bytes::from(part).to_vec()).unwrap());
        let parts: anyhow::Result<Vec<String>> = futures::executor::block_on(parts.try_collect());
        assert_eq!(parts.unwrap(), expected);
    }

    #[test]
    fn all_parts_but_the_last_are_of_one_length() {
        check(&[], &[]);
        check(&["", ""], &[]);
        check(&["abcd"], &["abcd"]);
        check(&["a", "", "bc", "defghijk"], &["abcd", "efgh", "ijk"]);
        check(&["abcdefgh", "i"], &["abcd", "efgh", "i"]);
    }

    #[tokio::test]
    async fn a_url_that_names_no_object_of_a_known_store_is_refused() {
        let check = async |url: &str, expected: &str| {
            let refused = Object::find(&url.parse().unwrap()).await.err().unwrap().to_string();
            assert!(refused.contains(expected), "{url}: {refused}");
        };
        check("ftp://a/b", "no store is known by ftp://").await;
        check("s3://bucket", "names no object").await;
        check("s3://bucket/", "names no object").await;
        check("s3://bucket/folder/", "names no object").await;
        check("s3:///path", "names no object").await;
        check("s3://key:secret@bucket/path", "from the environment").await;
        check("s3://bucket/path?x", "%3F").await;
        check("gs://bucket/path#x", "%23").await;
    }
}
