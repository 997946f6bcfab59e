//! Frames on streams: batches, bulk, and what a hostile peer may write.

use super::*;
use crate::frame::{self, FRAME_BYTES_MAX};
use crate::message::{BulkReply, CHUNK_BYTES_MAX, Hello};
use bytes::Bytes;

/// The agent's raw stream and the master's connection: what is written here is what a hostile agent could write.
async fn raw(agent: &Connection) -> (quinn::SendStream, quinn::RecvStream) {
    agent.quinn().open_bi().await.unwrap()
}

fn hello(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(&Hello { version: text.into() }, &mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_batch_is_written_once_and_read_to_its_end() {
    let cluster = Cluster::new();
    let (agent, master) = cluster.pair().await;
    let (mut sender, mut replies) = agent.open_control().await.unwrap();
    let count = 20_000_u64;
    let reading = async {
        let (mut back, mut receiver) = master.accept_control().await.unwrap();
        let mut expected = 0;
        while expected < count {
            let mut message = receiver.next::<u64>().await.unwrap();
            while let Some(number) = message {
                assert_eq!(number, expected);
                expected += 1;
                message = receiver.try_next().unwrap();
            }
        }
        back.send(&expected).await.unwrap();
        back.finish();
    };
    let writing = async {
        for number in 0..count {
            sender.queue(&number).unwrap();
        }
        assert!(sender.queued_bytes() > 100_000);
        sender.flush().await.unwrap();
        assert_eq!(sender.queued_bytes(), 0);
        assert_eq!(replies.next::<u64>().await.unwrap(), Some(count));
        assert_eq!(replies.next::<u64>().await.unwrap(), None);
    };
    tokio::join!(reading, writing);
}

#[tokio::test]
async fn chunks_and_control_go_side_by_side() {
    let cluster = Cluster::new();
    let (agent, master) = cluster.pair().await;
    let chunk = BulkReply::Chunk { offset: 0, bytes: Bytes::from(vec![7; CHUNK_BYTES_MAX]) };
    let (mut request, mut chunks) = agent.open_bulk().await.unwrap();
    let (mut control, mut answers) = agent.open_control().await.unwrap();
    let serving = async {
        request.send(&1_u8).await.unwrap();
        let (mut bulk, mut asked) = master.accept_bulk().await.unwrap();
        assert_eq!(asked.next::<u8>().await.unwrap(), Some(1));
        control.send(&2_u8).await.unwrap();
        let (mut reply, mut said) = master.accept_bulk().await.unwrap();
        assert_eq!(said.next::<u8>().await.unwrap(), Some(2));
        let copying = async {
            for _ in 0..16 {
                bulk.send(&chunk).await.unwrap();
            }
            bulk.finish();
        };
        let talking = async {
            for number in 0..100_u32 {
                reply.send(&number).await.unwrap();
            }
        };
        tokio::join!(copying, talking);
    };
    let receiving = async {
        // Control is heard to the end before one chunk is read: what is not read holds nothing up.
        for number in 0..100_u32 {
            assert_eq!(answers.next::<u32>().await.unwrap(), Some(number));
        }
        let mut count = 0;
        while let Some(received) = chunks.next::<BulkReply>().await.unwrap() {
            assert_eq!(received, chunk);
            count += 1;
        }
        assert_eq!(count, 16);
    };
    tokio::join!(serving, receiving);
}

#[tokio::test]
async fn streams_that_are_not_read_do_not_hold_up_control() {
    let cluster = Cluster::new();
    let (agent, master) = cluster.pair().await;
    let (mut control, _answers) = agent.open_control().await.unwrap();
    control.send(&0_u32).await.unwrap();
    let (_back, mut said) = master.accept_control().await.unwrap();
    assert_eq!(said.next::<u32>().await.unwrap(), Some(0));
    // Six streams of the agent's and sixteen of the master's, each filled by the agent as far as it goes.
    let mut full = Vec::new();
    for index in 0..22 {
        let (mut send, _receive) = if index < 6 {
            raw(&agent).await
        } else {
            let (mut sender, receiver) = master.open_bulk().await.unwrap();
            sender.send(&1_u8).await.unwrap();
            full.push((None, None, Some((sender, receiver))));
            agent.quinn().accept_bi().await.unwrap()
        };
        let noise = vec![0; 64 << 10];
        // The window is a whole number of these: the one that is not taken whole is never begun.
        for _ in 0..2 {
            send.write_all(&noise).await.unwrap();
        }
        full.push((Some(send), Some(_receive), None));
    }
    for number in 1..1_000_u32 {
        control.send(&number).await.unwrap();
        assert_eq!(said.next::<u32>().await.unwrap(), Some(number));
    }
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let cluster = Cluster::new();
    let (agent, master) = cluster.pair().await;
    let (mut send, _receive) = raw(&agent).await;
    let writing = async {
        for byte in [hello("one"), hello("two")].concat() {
            send.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        send.finish().unwrap();
    };
    let reading = async {
        let (_, mut receiver) = master.accept_control().await.unwrap();
        for version in ["one", "two"] {
            assert_eq!(receiver.next::<Hello>().await.unwrap().unwrap().version, version);
        }
        assert!(receiver.next::<Hello>().await.unwrap().is_none());
    };
    tokio::join!(writing, reading);
}

#[tokio::test]
async fn what_is_no_frame_ends_its_stream_with_a_clear_error_and_nothing_else() {
    let cluster = Cluster::new();
    let (agent, master) = cluster.pair().await;
    let whole = hello("a");
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("a length of 2^32-1", vec![0xff; 4], "4294967295 bytes"),
        ("one byte too long", (FRAME_BYTES_MAX as u32 + 1).to_le_bytes().to_vec(), "1048577 bytes"),
        ("no bytes", vec![0; 4], "an empty frame"),
        ("half a header", whole[..2].to_vec(), "2 bytes into a frame"),
        ("half a frame", whole[..5].to_vec(), "5 bytes into a frame"),
        ("nothing", vec![], "0 bytes into a frame"),
        ("bytes behind the message", [&[3, 0, 0, 0], &whole[4..], &[9]].concat(), "1 bytes behind"),
        ("a text that says it is longer", vec![2, 0, 0, 0, 200, b'a'], "no message"),
        ("a text that is none", vec![2, 0, 0, 0, 1, 0xff], "no message"),
    ];
    for (name, bytes, expected) in cases {
        let (mut send, _receive) = raw(&agent).await;
        // An empty stream is opened by its end.
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        let first = match master.accept_bulk().await {
            Ok((_, mut receiver)) => receiver.next::<Hello>().await.map(|_| ()),
            Err(error) => Err(error),
        };
        let error = first.expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    assert!(agent.close_reason().is_none() && master.close_reason().is_none());
    let (mut sender, _receiver) = agent.open_bulk().await.unwrap();
    sender.send(&Hello { version: "after".into() }).await.unwrap();
    let (_, mut receiver) = master.accept_bulk().await.unwrap();
    assert_eq!(receiver.next::<Hello>().await.unwrap().unwrap().version, "after");
}

#[tokio::test]
async fn a_stream_given_up_inside_a_frame_says_so() {
    let cluster = Cluster::new();
    let (agent, master) = cluster.pair().await;
    let (mut sender, _receiver) = agent.open_bulk().await.unwrap();
    sender.send(&1_u8).await.unwrap();
    let (_, mut receiver) = master.accept_bulk().await.unwrap();
    assert_eq!(receiver.next::<u8>().await.unwrap(), Some(1));
    // Queued and never flushed: dropping is giving up.
    sender.queue(&2_u8).unwrap();
    drop(sender);
    assert!(matches!(receiver.next::<u8>().await, Err(LinkError::Reset)));
}

#[tokio::test]
async fn what_no_frame_can_hold_is_not_queued() {
    let cluster = Cluster::new();
    let (agent, _master) = cluster.pair().await;
    let (mut sender, _receiver) = agent.open_bulk().await.unwrap();
    sender.queue(&1_u8).unwrap();
    let before = sender.queued_bytes();
    let error = sender.queue(&Bytes::from(vec![0; FRAME_BYTES_MAX])).unwrap_err();
    assert!(matches!(error, LinkError::Frame(FrameError::TooLong { .. })), "{error}");
    assert_eq!(sender.queued_bytes(), before);
    let large = Bytes::from(vec![0; FRAME_BYTES_MAX - 8]);
    let refused = (0..=QUEUED_BYTES_MAX / large.len() + 1).find_map(|_| sender.queue(&large).err());
    assert!(matches!(refused, Some(LinkError::Backlog { .. })));
}

#[tokio::test]
async fn a_first_frame_that_does_not_come_whole_is_not_waited_for() {
    let cluster = Cluster::new();
    let (agent, master) = cluster.pair().await;
    let (mut send, _receive) = raw(&agent).await;
    send.write_all(&hello("slow")[..3]).await.unwrap();
    let (_agent, silent) = cluster.pair().await;
    // Both at once: these are the real two seconds.
    let (slow, silent) = tokio::join!(master.accept_control(), silent.accept_control());
    for accepted in [slow, silent] {
        assert!(matches!(accepted.err().unwrap(), LinkError::Late { .. }));
    }
    assert!(agent.close_reason().is_none());
}

#[tokio::test]
async fn a_stranger_has_one_stream_and_an_agent_seven() {
    let cluster = Cluster::new();
    let (agent, _master) = cluster.pair().await;
    let trust = tls::Trust::Pinned(cluster.authority.root_digest());
    let (stranger, admitted) = tokio::join!(client::connect_as(cluster.address(), &trust, ALPN_JOIN), cluster.admit());
    let (stranger, _admitted) = (stranger.unwrap(), admitted.unwrap());
    for (connection, expected) in [(&stranger, 1), (&agent, 7)] {
        let mut held = Vec::new();
        for _ in 0..expected {
            held.push(raw(connection).await);
        }
        let mut next = Box::pin(connection.quinn().open_bi());
        // Nothing can come but from the other side, which gives no more: a round of everything that is ready shows it.
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert!(std::future::poll_fn(|context| std::task::Poll::Ready(next.as_mut().poll(context).is_pending())).await);
        }
    }
}

#[tokio::test]
async fn a_strangers_frames_are_short() {
    let cluster = Cluster::new();
    let trust = tls::Trust::Pinned(cluster.authority.root_digest());
    for (bytes, is_right) in [(STRANGER_FRAME_BYTES_MAX, true), (STRANGER_FRAME_BYTES_MAX + 1, false)] {
        let (stranger, admitted) = tokio::join!(client::connect_as(cluster.address(), &trust, ALPN_JOIN), cluster.admit());
        let (stranger, (_, admitted)) = (stranger.unwrap(), admitted.unwrap());
        let (mut sender, _receiver) = stranger.open_control().await.unwrap();
        // A text's length takes two bytes of it.
        sender.send(&"x".repeat(bytes - 2)).await.unwrap();
        match admitted.accept_control().await {
            Ok((_, mut receiver)) => assert!(is_right && receiver.next::<String>().await.unwrap().is_some()),
            Err(error) => assert!(!is_right && matches!(error, LinkError::StrangerFrame { .. }), "{error}"),
        }
    }
}
