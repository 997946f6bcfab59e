//! `skep exec`: a program beside a task, with this terminal or this command's pipes.

use crate::args::{Exec, Reach};
use crate::client::Client;
use crate::show::Named;
use anyhow::{Context, bail};
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use reqwest::Method;
use runtime::executor::process::session::{EXIT, FAILED, FRAME_BYTES_MAX, HEADER_BYTES, RESIZE, STDERR, STDIN, STDOUT, frame};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Frames on their way; whoever types faster waits.
const FRAMES_MAX: usize = 64;

/// Runs it; its exit code is ours.
pub async fn exec(reach: &Reach, flags: Exec) -> anyhow::Result<ExitCode> {
    let client = Client::find(reach)?;
    let Named { job, index, .. } = Named::parse(&flags.task, None);
    let index = index.with_context(|| format!("{}: name one task, as {}.0", flags.task, flags.task))?;
    let is_terminal = isatty(std::io::stdin()) && isatty(std::io::stdout());
    let mut query = vec![("command", serde_json::to_string(&flags.command)?)];
    query.extend(flags.role.map(|role| ("role", role)));
    query.extend(flags.member.map(|member| ("member", member)));
    if is_terminal {
        let (rows, columns) = size();
        query.extend([("rows", rows.to_string()), ("columns", columns.to_string())]);
    }
    let (frames, rest) = mpsc::channel::<Result<Bytes, Infallible>>(FRAMES_MAX);
    let body = reqwest::Body::wrap_stream(futures::stream::unfold(rest, |mut rest| async move { Some((rest.recv().await?, rest)) }));
    let query = reqwest::Url::parse_with_params("https://any/", &query)?.query().unwrap_or_default().to_owned();
    let request = client.request(Method::POST, &format!("/v1/jobs/{job}/tasks/{index}/exec?{query}")).body(body);
    let answer = client.send(request).await?;
    // Until here an error is printed as any other.
    let raw = if is_terminal { Some(Raw::enter()?) } else { None };
    type_in(frames.clone());
    if is_terminal {
        follow_size(frames)?;
    } else {
        drop(frames);
    }
    let code = print(answer).await;
    drop(raw);
    // What reads standard input cannot be told to end.
    let code = code?;
    std::io::stdout().flush()?;
    std::process::exit(code);
}

/// Prints what comes, until the exit code.
async fn print(answer: reqwest::Response) -> anyhow::Result<i32> {
    let mut pieces = answer.bytes_stream();
    let mut came = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        came.extend_from_slice(&piece.context("the session broke off")?);
        while let Some(header) = came.first_chunk::<HEADER_BYTES>() {
            let (kind, length) = (header[0], u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize);
            if length > FRAME_BYTES_MAX {
                bail!("the session said something that is no frame");
            }
            if came.len() < HEADER_BYTES + length {
                break;
            }
            came.advance(HEADER_BYTES);
            let body = came.split_to(length);
            match kind {
                STDOUT => std::io::stdout().write_all(&body).and_then(|()| std::io::stdout().flush())?,
                STDERR => std::io::stderr().write_all(&body)?,
                EXIT => return Ok(i32::from_be_bytes(body.as_ref().try_into().context("an exit code has four bytes")?)),
                FAILED => bail!("{}", crate::print::plain(&String::from_utf8_lossy(&body))),
                other => bail!("the session said {other}, which is nothing"),
            }
        }
    }
    bail!("the session broke off: its agent or the task has ended")
}

/// Reads standard input on a thread of its own, since a terminal cannot be read without waiting.
fn type_in(frames: mpsc::Sender<Result<Bytes, Infallible>>) {
    std::thread::spawn(move || {
        let mut piece = vec![0; FRAME_BYTES_MAX];
        loop {
            let length = std::io::stdin().read(&mut piece).unwrap_or(0);
            if frames.blocking_send(Ok(frame(STDIN, &piece[..length]).into())).is_err() || length == 0 {
                return;
            }
        }
    });
}

/// Tells when this terminal has another size.
fn follow_size(frames: mpsc::Sender<Result<Bytes, Infallible>>) -> anyhow::Result<()> {
    let mut changed = signal(SignalKind::window_change())?;
    tokio::spawn(async move {
        while changed.recv().await.is_some() {
            let (rows, columns) = size();
            let bytes = [rows.to_be_bytes(), columns.to_be_bytes()].concat();
            if frames.send(Ok(frame(RESIZE, &bytes).into())).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn size() -> (u16, u16) {
    let found = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    found.map_or((24, 80), |size| (size.ws_row, size.ws_col))
}

/// This terminal, passed on key by key; as it was again when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0); // The terminal may be gone.
    }
}
