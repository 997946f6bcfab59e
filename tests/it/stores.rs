//! Backups in an object store: a real S3 server in this process, which checks signatures, and masters whose answers break off.

use crate::cluster::{Cluster, Ends, ended, folder, sample, skep};
use axum::body::{Body, Bytes};
use futures::stream::{self, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::dto::CompleteMultipartUploadInput;
use s3s::service::S3ServiceBuilder;
use s3s::{S3Request, S3Result, s3_error};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const KEY: &str = "AKIDSKEP";
const SECRET: &str = "bees/know+the=way";
/// What a master answers where it is no real one: three parts, of which the last is shorter.
const ANSWER_BYTES: usize = 40 << 20;

/// A store with one bucket, `hive`, and a runtime for other servers of a test.
struct Store {
    folder: PathBuf,
    endpoint: String,
    runtime: Runtime,
}

/// What the server itself leaves out: it takes any bucket's name. Objects named `raced` are there when they are completed.
struct Rules(PathBuf);

#[async_trait::async_trait]
impl S3Access for Rules {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        let bucket = request.s3_path().get_bucket_name().unwrap_or_default();
        match request.credentials() {
            None => Err(s3_error!(AccessDenied, "Signature is required")),
            Some(_) if !self.0.join(bucket).is_dir() => Err(s3_error!(NoSuchBucket, "The specified bucket does not exist")),
            Some(_) => Ok(()),
        }
    }

    async fn complete_multipart_upload(&self, request: &mut S3Request<CompleteMultipartUploadInput>) -> S3Result<()> {
        if request.input.key == "raced" {
            std::fs::write(self.0.join("hive/raced"), "another one's").unwrap();
        }
        Ok(())
    }
}

impl Store {
    fn new() -> Self {
        let (folder, runtime) = (folder(), tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
        std::fs::create_dir(folder.join("hive")).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&folder).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        builder.set_access(Rules(folder.clone()));
        let (service, listener) = (builder.build(), runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap());
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { folder, endpoint, runtime }
    }

    /// Lets a command use it.
    fn with(&self, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_ENDPOINT", &self.endpoint);
        command.env("AWS_ALLOW_HTTP", "true").env("NO_PROXY", "127.0.0.1");
        command
    }

    /// Something else that answers GET, under its URL.
    fn serve(&self, path: &str, answer: impl Fn() -> Body + Clone + Send + Sync + 'static) -> String {
        let router = axum::Router::new().route(path, axum::routing::get(async move || answer()));
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        self.runtime.spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn object(&self, name: &str) -> PathBuf {
        self.folder.join("hive").join(name)
    }

    /// Files of uploads that were begun and neither completed nor given up.
    fn unfinished(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name.starts_with(".upload")).collect()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a command said that was refused.
fn refused(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    said
}

/// `skep masters restore` is refused with these words, and leaves nothing.
fn cannot_restore(mut command: Command, from: &str, to: &Path, words: &[&str]) {
    let said = refused(&command.args(["masters", "restore", from, "--data"]).arg(to).ends());
    for word in words {
        assert!(said.contains(word), "restoring {from}: {word:?} is not in {said:?}");
    }
    assert!(!to.exists(), "restoring {from} left something");
}

fn text(mut command: Command, args: &[&str]) -> String {
    let output = command.args(args).ends();
    assert!(output.status.success(), "skep {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_cluster_is_made_again_from_a_backup_in_a_store() {
    let store = Store::new();
    let mut cluster = Cluster::of_one("cpu=4,memory=4GiB,disk=1GiB");
    let hello = sample("hello.wasm");
    cluster.text(&["run", "--detach", "--name", "before", hello.to_str().unwrap(), "--", "x"]);
    cluster.until("it ends", |cluster| cluster.tasks("before", "finished") == 1);
    let (url, backup) = ("s3://hive/clusters/one.tar", ["masters", "backup", "s3://hive/clusters/one.tar"]);
    let said = text(store.with(cluster.command(&[])), &backup);
    let bytes = std::fs::read(store.object("clusters/one.tar")).unwrap();
    assert_eq!(said, format!("{} bytes in {url}: the cluster's keys are in it\n", bytes.len()));
    let said = refused(&store.with(cluster.command(&backup)).ends());
    assert!(said.contains("s3://hive/clusters/one.tar is there already"), "{said}");
    assert_eq!(std::fs::read(store.object("clusters/one.tar")).unwrap(), bytes);
    assert!(store.unfinished().is_empty());

    // The same by other ways.
    let web = store.serve("/one.tar", {
        let bytes = bytes.clone();
        move || bytes.clone().into()
    });
    let file = format!("file://{}", store.object("clusters/one.tar").display());
    for (number, from) in [format!("{web}/one.tar?secret=1"), file].iter().enumerate() {
        let data = cluster.folder.join(format!("other{number}"));
        text(store.with(skep()), &["masters", "restore", from, "--data", data.to_str().unwrap()]);
        assert!(data.join("journal").is_dir() && data.join("authority").is_dir());
    }
    cannot_restore(store.with(skep()), &format!("{web}/two.tar?secret=1"), &cluster.folder.join("two"), &["/two.tar: ", "404"]);
    cut_off_it_is_refused(&cluster.folder, &bytes);

    cluster.kill_master();
    let data = cluster.folder.join("restored");
    text(store.with(skep()), &["masters", "restore", url, "--data", data.to_str().unwrap()]);
    let http = cluster.url.strip_prefix("https://").unwrap();
    let log = std::fs::File::create(cluster.folder.join("restored.log")).unwrap();
    let mut command = skep();
    command.args(["--output", "json", "master", "--http", http, "--quic", &cluster.quic, "--data"]).arg(data);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
    cluster.master = Some(child);
    assert!(ready.is_some_and(|line| line.is_ok()), "the restored master does not start");
    assert_eq!(cluster.tasks("before", "finished"), 1);
    cluster.until("the agent is back", |cluster| cluster.reachable() == ["a1"]);
    assert_eq!(cluster.text(&["run", hello.to_str().unwrap(), "--", "again"]), "hello, again\n");
}

/// Wherever a backup breaks off, it is seen: between any two of its files, within them, and before the very end.
fn cut_off_it_is_refused(folder: &Path, bytes: &[u8]) {
    let mut archive = tar::Archive::new(bytes);
    let begins = archive.entries().unwrap().map(|entry| entry.unwrap().raw_header_position()).collect::<Vec<u64>>();
    assert!(begins.len() > 10, "a head, two certificates, eight shards and a bundle");
    let last = begins.last().unwrap();
    let within = begins.iter().map(|begin| begin + 700).chain([last + 100, bytes.len() as u64 - 1024, bytes.len() as u64 - 512]);
    for end in begins.iter().copied().chain(within).filter(|end| *end < bytes.len() as u64) {
        let half = folder.join("half.tar");
        std::fs::write(&half, &bytes[..usize::try_from(end).unwrap()]).unwrap();
        cannot_restore(skep(), half.to_str().unwrap(), &folder.join("half"), &["no whole backup of a cluster", "help: "]);
    }
    // A directory that was there stays, and stays empty.
    let (half, empty) = (folder.join("half.tar"), folder.join("empty"));
    std::fs::create_dir(&empty).unwrap();
    refused(&skep().arg("masters").arg("restore").arg(half).arg("--data").arg(&empty).ends());
    assert_eq!(std::fs::read_dir(empty).unwrap().count(), 0);
}

#[test]
fn what_a_store_refuses_is_said_clearly() {
    let store = Store::new();
    let data = store.folder.join("data");
    let check = |url: &str, settings: &[(&str, &str)], words: &[&str]| {
        let mut command = store.with(skep());
        for (name, value) in settings {
            if value.is_empty() {
                command.env_remove(name)
            } else {
                command.env(name, value)
            };
        }
        cannot_restore(command, url, &data, words);
    };
    let url = "s3://hive/none.tar";
    check(url, &[], &["s3://hive/none.tar cannot be read: there is no such object", "NoSuchKey", "help: "]);
    check("s3://nest/none.tar", &[], &["there is no such bucket", "NoSuchBucket", "help: make it"]);
    check(
        url,
        &[("AWS_SECRET_ACCESS_KEY", "wrong")],
        &["the secret does not fit the key", "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"],
    );
    check(url, &[("AWS_ACCESS_KEY_ID", "AKIDWASP")], &["does not know the key", "AWS_ACCESS_KEY_ID"]);
    check(url, &[("AWS_SKIP_SIGNATURE", "true")], &["who asks may not", "AccessDenied", "s3:GetObject"]);
    check(url, &[("AWS_SECRET_ACCESS_KEY", "")], &["no credentials", "SecretAccessKey", "help: set AWS_ACCESS_KEY_ID"]);
    check(url, &[("AWS_ALLOW_HTTP", "")], &["not HTTPS", "AWS_ALLOW_HTTP"]);
    // Nobody listens on the discard port.
    check(url, &[("AWS_ENDPOINT", "http://127.0.0.1:9")], &["cannot be reached", "refused", "AWS_ENDPOINT"]);
    let nobody = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")];
    check(url, &nobody, &["there are no credentials to be had", "help: set AWS_ACCESS_KEY_ID"]);
    let no_key = [("GOOGLE_SERVICE_ACCOUNT", "/nowhere/key.json")];
    check("gs://hive/none.tar", &no_key, &["there are no credentials to be had", "/nowhere/key.json", "GOOGLE_SERVICE_ACCOUNT"]);
    check("ftp://hive/none.tar", &[], &["no store is known by ftp://", "help: s3://"]);
    check("s3://hive", &[], &["names no object"]);
    check("file://elsewhere/none.tar", &[], &["no file of this machine"]);
    std::fs::write(store.object("text"), "no archive at all, but longer than a block of one would be: ".repeat(20)).unwrap();
    check("s3://hive/text", &[], &["no whole backup of a cluster"]);
}

#[test]
fn a_backup_is_in_a_store_whole_or_not_at_all() {
    let store = Store::new();
    let cluster = Cluster::master(&[]);
    let whole: Vec<u8> = (0..ANSWER_BYTES).map(|at| (at / 251 % 256) as u8).collect();
    let pieces = |bytes: &[u8]| bytes.chunks(100_000).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let (all, half) = (pieces(&whole), pieces(&whole[..ANSWER_BYTES / 2]));
    let sent = |pieces: &[Bytes]| stream::iter(pieces.to_vec()).map(Ok::<_, std::io::Error>);
    let first = half.clone();
    let good = store.serve("/v1/backup", move || Body::from_stream(sent(&all)));
    let broken =
        store.serve("/v1/backup", move || Body::from_stream(sent(&first).chain(stream::iter([Err(std::io::Error::other("the disk"))]))));
    let stuck = store.serve("/v1/backup", move || Body::from_stream(sent(&half).chain(stream::pending())));
    let backup = |master: &str, url: &str| {
        let mut command = store.with(cluster.command(&["masters", "backup", url]));
        command.env("SKEP_MASTER", master);
        command
    };

    text(backup(&good, "s3://hive/good"), &[]);
    assert!(std::fs::read(store.object("good")).unwrap() == whole, "it is written part by part, and all of it");

    let said = refused(&backup(&broken, "s3://hive/broken").ends());
    assert!(said.contains("the backup broke off"), "{said}");

    // It has sent a part and waits when it is told to end.
    let child = backup(&stuck, "s3://hive/stuck").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    cluster.until("a part is sent", |_| store.unfinished().iter().any(|name| name.contains(".part-1")));
    assert!(!store.object("stuck").exists());
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = ended(child, "a backup that is to end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.contains("SIGTERM came")), (Some(1), true), "{said}");

    // Another backup takes the name after it was looked at for the last time: the store itself refuses.
    let said = refused(&backup(&good, "s3://hive/raced").ends());
    assert!(said.contains("it is there already: another was faster") && said.contains("PreconditionFailed"), "{said}");
    assert_eq!(std::fs::read_to_string(store.object("raced")).unwrap(), "another one's");

    let said = refused(&backup(&good, "http://127.0.0.1:9/x").ends());
    assert!(said.contains("only read from"), "{said}");
    let mut command = backup(&good, "s3://hive/unsigned");
    let said = refused(&command.env("AWS_SECRET_ACCESS_KEY", "wrong").ends());
    assert!(said.contains("s3://hive/unsigned cannot be looked at: the secret does not fit the key"), "{said}");

    let mut names: Vec<_> = std::fs::read_dir(store.folder.join("hive")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["good", "raced"], "what was not written to its end has no name");
    assert_eq!(store.unfinished(), Vec::<String>::new(), "nor are there parts of it");
}
