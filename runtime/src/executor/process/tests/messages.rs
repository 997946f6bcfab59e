//! What its framework says to a task that is a process.

use super::*;
use bytes::Bytes;

/// Prints each message on a line of its own, until one says `quit`.
const ECHO: &str = "while set -- $(dd bs=1 count=4 <&3 2>/dev/null | od -An -tu1) && [ $# = 4 ]; do
    word=$(dd bs=1 count=$(($3 * 256 + $4)) <&3 2>/dev/null)
    echo \"<$word>\"
    [ \"$word\" = quit ] && exit 5
done";

#[tokio::test]
async fn messages_come_in_order_and_whole_and_only_to_whom_they_are_for() {
    let scene = Scene::new().await;
    let mut executor = scene.0.start(&script(&scene, 1, ECHO)).await.unwrap();
    let long = "x".repeat(3_000);
    for (key, text) in [(1, "first"), (2, "another's"), (1, ""), (1, &long), (1, "quit")] {
        assert!(executor.commands.message(Key(key), Bytes::copy_from_slice(text.as_bytes())));
    }
    executor.commands.flush().await.unwrap();
    assert_eq!(end(&mut executor).await.0, Exit::Code(5));
    assert_eq!(printed(&scene, 1), format!("<first>\n<>\n<{long}>\n<quit>\n"));
}

#[tokio::test]
async fn a_task_has_its_streams_and_its_messages_and_no_other_descriptor() {
    // That of `ls` itself is the last.
    for init in [true, false] {
        let scene = Scene::new().await;
        let spec =
            ProcessSpec { init, ..script(&scene, 1, "ls /proc/self/fd; cat /proc/self/fdinfo/3 | grep flags; echo x >&3 || exit 0") };
        let (exit, _, said) = ran(spec, &scene).await;
        let lines: Vec<&str> = said.lines().take(5).collect();
        assert_eq!((exit, lines), (Exit::Code(0), vec!["0", "1", "2", "3", "4"]), "{said}");
    }
}

#[tokio::test]
async fn a_task_that_reads_nothing_costs_its_bound_and_what_it_loses_is_told() {
    let scene = Scene::new().await;
    let mut executor = scene.0.start(&script(&scene, 1, "echo ready; exec sleep 600")).await.unwrap();
    let (count, size) = (200_u64, 10_000);
    let mut taken = 0;
    for _ in 0..count {
        taken += u64::from(executor.commands.message(Key(1), vec![0; size].into()));
        executor.commands.flush().await.unwrap();
    }
    executor.commands.stop(vec![Key(1)], 0);
    executor.commands.flush().await.unwrap();
    let mut told = vec![];
    while !matches!(told.last(), Some(ExecutorEvent::Ended { .. })) {
        told.extend(executor.events.next().await.expect("it tells the end"));
    }
    let dropped =
        told.iter().find_map(|event| if let ExecutorEvent::Dropped { key: Key(1), messages } = event { Some(*messages) } else { None });
    // What the pipe holds, and what waits behind it.
    let most = ((1 << 20) + crate::messages::WAITING_BYTES_MAX) as u64 / size as u64;
    let dropped = dropped.expect("some were dropped");
    assert!(taken == count && dropped < count && dropped >= count - most, "{dropped} of {count}");
}

#[tokio::test]
async fn a_program_beside_a_task_hears_nothing() {
    let scene = Scene::new().await;
    let mut spec = script(&scene, 1, "echo ${SKEP_MESSAGES_FD}; exec sleep 60");
    spec.env.push((crate::process::MESSAGES_VARIABLE.into(), "3".into()));
    let _executor = scene.0.start(&spec).await.unwrap();
    while printed(&scene, 1).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(printed(&scene, 1), "3\n");
    let command = ["sh", "-c", "echo ${SKEP_MESSAGES_FD-none}; cat <&3"];
    let (said, code) = beside::beside(&scene.0, 1, &command, None, b"").await;
    assert!(said.starts_with("none\n") && code != Ok(0), "{said}: {code:?}");
    scene.0.end(Which::Process(Key(1))).await.unwrap();
}
