//! Bundles over a real link, from a master that says what it likes.

use super::*;
use crate::scratch::Scratch;
use protocol::AgentId;
use protocol::identity::{AGENT_LIFETIME, Authority, Identity, MASTER_LIFETIME, csr};
use protocol::link::{Limits, Listener, ResetKey, connect};
use protocol::message::{BulkReply, BulkRequest};
use std::fs;
use tokio::sync::mpsc;

const BUNDLE: &[u8] = b"the bytes of a bundle";

/// A link, and what the master was asked for; to each request it answers with the next of `answers`.
async fn link(dir: &Scratch, answers: Vec<Vec<BulkReply>>) -> (Connection, mpsc::Receiver<BulkRequest>) {
    let authority = Authority::open_or_create(&dir.path().join("ca")).unwrap();
    let master = authority.issue_master(1, &["localhost".into(), "127.0.0.1".into()], MASTER_LIFETIME).unwrap();
    let (key, request) = csr().unwrap();
    let agent = Identity::new(authority.issue_agent(AgentId(7), &request, AGENT_LIFETIME).unwrap(), key).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &master, &ResetKey::new([7; 32]), Limits::default()).unwrap();
    let address = listener.address();
    let (say, asked) = mpsc::channel(16);
    tokio::spawn(async move {
        let (_, connection) = listener.accept().await.unwrap().admit().await.unwrap();
        for replies in answers {
            let Ok((mut sender, mut receiver)) = connection.accept_bulk().await else { return };
            let Some(request) = receiver.next().await.unwrap() else { return };
            say.send(request).await.unwrap();
            for reply in &replies {
                sender.queue(reply).unwrap();
            }
            // The other side may have given the stream up by then.
            let _ = sender.flush().await;
            sender.finish();
        }
        connection.closed().await;
    });
    (connect(address, &agent).await.unwrap(), asked)
}

fn chunk(offset: u64, bytes: &'static [u8]) -> BulkReply {
    BulkReply::Chunk { offset, bytes: bytes.into() }
}

async fn fetcher(dir: &Scratch, bytes_max: u64) -> (Fetcher, mpsc::Receiver<Prepared>) {
    let (done, is_done) = mpsc::channel(16);
    let unpacked = dir.path().join("unpacked");
    let hands: container::Hands = {
        let unpacked = unpacked.clone();
        Arc::new(move |work, archive| {
            let unpacked = unpacked.clone();
            Box::pin(async move {
                let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
                std::thread::spawn(move || container::serve(&unpacked, Path::new("/nonexistent"), &work, archive, theirs));
                ours.set_nonblocking(true)?;
                tokio::net::UnixStream::from_std(ours)
            })
        })
    };
    let store = Store::open(unpacked, container::Limits::default(), hands).await.unwrap();
    (Fetcher::open(&dir.path().join("cache"), [1; 32], "/nonexistent".into(), store, bytes_max, done).unwrap(), is_done)
}

#[tokio::test]
async fn a_transfer_goes_on_where_it_stopped_and_stops_at_nonsense() {
    type Expected = fn(&Result<(), TransferError>) -> bool;
    /// What was there, what the master says, what comes of it, what is there then.
    type Case = (&'static [u8], Vec<BulkReply>, Expected, &'static [u8]);
    let refused = BulkReply::Failed { reason: "no such bundle".into() };
    let cases: [Case; 8] = [
        (b"", vec![chunk(0, BUNDLE), BulkReply::End], |result| result.is_ok(), BUNDLE),
        (&BUNDLE[..5], vec![chunk(5, &BUNDLE[5..9]), chunk(9, &BUNDLE[9..]), BulkReply::End], |result| result.is_ok(), BUNDLE),
        (&BUNDLE[..5], vec![chunk(0, BUNDLE)], |result| matches!(result, Err(TransferError::Broken { .. })), &BUNDLE[..5]),
        (b"", vec![chunk(u64::MAX, BUNDLE)], |result| matches!(result, Err(TransferError::Broken { .. })), b""),
        (b"", vec![chunk(0, b"")], |result| matches!(result, Err(TransferError::Broken { .. })), b""),
        (b"", vec![chunk(0, b"the ")], |result| matches!(result, Err(TransferError::Broken { .. })), b"the "),
        (b"", vec![refused], |result| matches!(result, Err(TransferError::Refused { .. })), b""),
        (b"", vec![chunk(0, &[7; 200])], |result| matches!(result, Err(TransferError::TooLong { .. })), b""),
    ];
    let dir = Scratch::new();
    let (link, mut asked) = link(&dir, cases.iter().map(|(_, replies, ..)| replies.clone()).collect()).await;
    for (at, (before, _, expected, after)) in cases.iter().enumerate() {
        let part = dir.path().join(format!("{at}.part"));
        fs::write(&part, before).unwrap();
        let result = transfer::fetch(&link, Digest::of(BUNDLE), &part, 100).await;
        assert!(expected(&result), "case {at}: {result:?}");
        assert_eq!(fs::read(&part).unwrap(), *after, "case {at}");
        let request = BulkRequest::Bundle { bundle: Digest::of(BUNDLE), offset: before.len() as u64 };
        assert_eq!(asked.recv().await, Some(request), "case {at}");
    }
}

#[tokio::test]
async fn wrong_bytes_are_never_a_bundle_and_wants_at_the_same_time_fetch_once() {
    let dir = Scratch::new();
    let bundle = Digest::of(BUNDLE);
    let wrong = vec![chunk(0, b"other bytes"), BulkReply::End];
    let right = vec![chunk(0, BUNDLE), BulkReply::End];
    let (link, mut asked) = link(&dir, vec![wrong, right]).await;
    let (mut fetcher, mut done) = fetcher(&dir, 1_000).await;
    fetcher.prepare(bundle, Form::Plain, vec![link.clone()]);
    let (result, evicted) = fetcher.prepared(done.recv().await.unwrap(), vec![], |_| false);
    assert!(matches!(&result, Err(PrepareError::Later(reason)) if reason.contains(&Digest::of(b"other bytes").to_string())), "{result:?}");
    assert!(evicted.is_empty() && fetcher.locate(bundle, Form::Plain).is_none());
    for _ in 0..3 {
        fetcher.prepare(bundle, Form::Plain, vec![link.clone()]);
    }
    assert_eq!(fetcher.prepared(done.recv().await.unwrap(), vec![], |_| false).0, Ok(()));
    for _ in 0..2 {
        assert!(asked.recv().await.is_some());
    }
    assert!(asked.try_recv().is_err(), "it was fetched once");
    let path = fetcher.locate(bundle, Form::Plain).unwrap();
    fs::write(&path, b"somebody else's").unwrap();
    assert!(fetcher.locate(bundle, Form::Plain).is_none(), "a touched file is not used");
    fetcher.prepare(bundle, Form::Plain, vec![]);
    let (result, _) = fetcher.prepared(done.recv().await.unwrap(), vec![], |_| false);
    assert!(matches!(result, Err(PrepareError::Later(_))), "and is found to be wrong: {result:?}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_bundle_that_one_master_does_not_give_comes_from_another() {
    let dir = Scratch::new();
    let bundle = Digest::of(BUNDLE);
    let dead = link(&dir, vec![]).await.0;
    dead.close(protocol::link::CloseCode::Leaving, "");
    let (without, mut first) = link(&dir, vec![vec![BulkReply::Failed { reason: "no such bundle".into() }]]).await;
    let (stops, mut second) = link(&dir, vec![vec![chunk(0, &BUNDLE[..5])]]).await;
    let (with, mut third) = link(&dir, vec![vec![chunk(5, &BUNDLE[5..]), BulkReply::End]]).await;
    let (mut fetcher, mut done) = fetcher(&dir, 1_000).await;
    fetcher.prepare(bundle, Form::Plain, vec![dead, without, stops, with]);
    assert_eq!(fetcher.prepared(done.recv().await.unwrap(), vec![], |_| false).0, Ok(()));
    let offsets = [&mut first, &mut second, &mut third].map(|asked| asked.try_recv().unwrap());
    assert_eq!(offsets, [0, 0, 5].map(|offset| BulkRequest::Bundle { bundle, offset }), "what one began the next one ends");
}

#[tokio::test]
async fn the_cache_keeps_its_limit_and_what_is_in_use() {
    let dir = Scratch::new();
    let bundles: Vec<Digest> = (0..4_u8).map(|n| Digest::of(&[n; 40])).collect();
    let (mut fetcher, mut done) = fetcher(&dir, 100).await;
    let mut kept = vec![];
    for (n, bundle) in bundles.iter().enumerate() {
        fs::write(fetcher.shared.files.bundle(*bundle), [n as u8; 40]).unwrap();
        fetcher.prepare(*bundle, Form::Plain, vec![]);
        let used = |digest| digest == bundles[0] || (n == 3 && digest == bundles[2]);
        let (result, evicted) = fetcher.prepared(done.recv().await.unwrap(), vec![], used);
        kept.push((result.is_ok(), evicted));
    }
    let none = (true, vec![]);
    assert_eq!(kept, [none.clone(), none, (true, vec![bundles[1]]), (false, vec![])]);
    assert!(fetcher.locate(bundles[0], Form::Plain).is_some() && fetcher.locate(bundles[1], Form::Plain).is_none());
    assert_eq!(fetcher.total_bytes(), 80);
}
