//! Programs beside a task, as `skep exec` has them.

use super::super::session::{EXIT, FAILED, STDIN, Session, frame};
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs a program beside a task; what it printed, and its exit code or why it has none.
pub(super) async fn beside(
    template: &Template,
    key: u128,
    command: &[&str],
    terminal: Option<(u16, u16)>,
    input: &[u8],
) -> (String, Result<i32, String>) {
    let command = command.iter().map(|text| (*text).to_owned()).collect();
    let mut stream = template.session(Session { key: Key(key), command, terminal }).await.unwrap();
    let mut frames = if input.is_empty() { vec![] } else { frame(STDIN, input) };
    frames.extend(frame(STDIN, &[]));
    // A program that has ended by now reads nothing, and what it said is still to be read.
    let _ = stream.write_all(&frames).await;
    let mut printed = vec![];
    loop {
        let kind = stream.read_u8().await.unwrap();
        let mut body = vec![0; stream.read_u32().await.unwrap() as usize];
        stream.read_exact(&mut body).await.unwrap();
        match kind {
            EXIT => return (String::from_utf8_lossy(&printed).into_owned(), Ok(i32::from_be_bytes(body.try_into().unwrap()))),
            FAILED => return (String::from_utf8_lossy(&printed).into_owned(), Err(String::from_utf8(body).unwrap())),
            _ => printed.extend(body),
        }
    }
}

#[tokio::test]
async fn a_program_beside_a_task_has_its_rights_and_no_others() {
    let scene = Scene::new().await;
    let mut executor = scene.0.start(&script(&scene, 1, "echo mine > /tmp/x; echo ready; exec sleep 60")).await.unwrap();
    while printed(&scene, 1).is_empty() {
        tokio::task::yield_now().await;
    }
    let run = async |command: &[&str], terminal, input: &[u8]| beside(&scene.0, 1, command, terminal, input).await;
    assert_eq!(run(&["cat", "/tmp/x", "-"], None, b"from outside").await, ("mine\nfrom outside".into(), Ok(0)));
    let (said, code) =
        run(&["sh", "-c", "id -u; hostname; grep -E '^(CapEff|Seccomp:|NoNew)' /proc/self/status; ls /proc/1/fd"], None, b"").await;
    assert!(said.starts_with("1000\ntest-1\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"), "{said}");
    assert_eq!(code, Ok(2));
    let (said, code) = run(&["sh", "-c", "tty; stty size; cat"], Some((33, 44)), b"typed\n").await;
    assert!(said.contains("/dev/pts/0") && said.contains("33 44") && said.contains("typed"), "{said}");
    assert_eq!(code, Ok(0));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"], None, b"").await.1, Ok(137));
    let (_, failed) = run(&["nothing"], None, b"").await;
    assert!(failed.clone().unwrap_err().contains("in no folder of PATH"), "{failed:?}");
    // It is in the task's group, and ends with the task.
    let waits = run(&["sh", "-c", "echo > /tmp/here; exec sleep 60"], None, b"");
    let (waiting, ()) = tokio::join!(waits, async {
        while run(&["test", "-e", "/tmp/here"], None, b"").await.1 != Ok(0) {}
        executor.commands.stop(vec![Key(1)], 0);
        executor.commands.flush().await.unwrap();
    });
    assert_eq!(waiting.1, Ok(137));
    assert_eq!(end(&mut executor).await.0, Exit::Killed);
    let (_, failed) = run(&["true"], None, b"").await;
    assert!(failed.clone().unwrap_err().contains("ended"), "{failed:?}");
}
