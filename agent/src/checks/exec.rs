//! A program in the task's cell: its exit code is the answer, and the last line that it prints says why. When nobody waits for it any more it is ended
//! with the stream to it.

use runtime::executor::process::session::{EXIT, FAILED, FRAME_BYTES_MAX, HEADER_BYTES, STDIN, frame};
use std::future::Future;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// What is kept of what it prints.
const KEPT_BYTES: usize = 256;

/// Asks, however long that takes.
pub(super) async fn ask(name: &str, stream: impl Future<Output = Result<UnixStream, String>>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let mut stream = stream.await?;
    stream.write_all(&frame(STDIN, &[])).await.map_err(failed)?;
    let mut kept: Vec<u8> = Vec::new();
    loop {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await.map_err(failed)?;
        let [kind, length @ ..] = header;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(format!("{name}: its output is no output"));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.map_err(failed)?;
        match kind {
            EXIT if body == [0; 4] => return Ok(()),
            EXIT => {
                let code = <[u8; 4]>::try_from(&body[..]).map_or(-1, i32::from_be_bytes);
                let printed = String::from_utf8_lossy(&kept);
                let line = printed.trim_end().rsplit('\n').next().unwrap_or_default();
                return Err(if line.is_empty() {
                    format!("{name}: exit code {code}")
                } else {
                    format!("{name}: exit code {code}: {line}")
                });
            }
            FAILED => return Err(format!("{name}: {}", String::from_utf8_lossy(&body))),
            _ => {
                kept.extend_from_slice(&body[body.len().saturating_sub(KEPT_BYTES)..]);
                kept.drain(..kept.len().saturating_sub(KEPT_BYTES));
            }
        }
    }
}
