//! One request and the first line of its answer. No redirect is followed and no body is read, so that neither costs anything.

use super::{connected, tls, words};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest first line of an answer.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Statuses that are a success, as Marathon has it.
const WELL: std::ops::RangeInclusive<u16> = 200..=399;
/// Statuses that say that the answer is still to come (RFC 9110 section 15.2).
pub(super) const INTERIM: std::ops::RangeInclusive<u16> = 100..=199;

/// Asks, however long that takes; gives back the status of the answer.
pub(super) async fn ask(secure: bool, port: u16, path: &str) -> Result<u16, String> {
    let stream = connected(port).await?;
    if secure { status(tls::begin(stream).await?, port, path).await } else { status(stream, port, path).await }
}

/// What a status says of the task that was asked for `what`.
pub(super) fn is_well(status: u16, what: &str) -> Result<(), String> {
    if WELL.contains(&status) { Ok(()) } else { Err(format!("HTTP {status} from {what}")) }
}

async fn status(mut stream: impl AsyncRead + AsyncWrite + Unpin, port: u16, path: &str) -> Result<u16, String> {
    let failed = |error: std::io::Error| format!("no answer of :{port}{path}: {}", words(&error));
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\nuser-agent: skep/{}\r\naccept: */*\r\nconnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let (mut line, mut piece) = (Vec::new(), [0; 512]);
    while !line.contains(&b'\n') && line.len() < LINE_BYTES_MAX {
        match stream.read(&mut piece).await.map_err(failed)? {
            0 => return Err(format!("no answer of :{port}{path}: it was closed")),
            length => line.extend_from_slice(&piece[..length]),
        }
    }
    parsed(&line).ok_or_else(|| format!("what :{port} answers is no HTTP"))
}

/// The status of an answer that begins so (RFC 9112 section 4).
fn parsed(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let [minor, b' ', status @ ..] = rest else { return None };
    let (status, rest) = status.split_first_chunk::<3>()?;
    let ended = rest.first().is_some_and(|byte| b" \r\n".contains(byte));
    (minor.is_ascii_digit() && ended && status.iter().all(u8::is_ascii_digit))
        .then(|| std::str::from_utf8(status).ok()?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_has_a_status() {
        for (line, status) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503\r\n", Some(503)),
            ("HTTP/1.1 404 ", Some(404)),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/1.1 20 OK\r\n", None),
            ("HTTP/2 200\r\n", None),
            ("HTTP/1.1  200\r\n", None),
            ("+OK\r\n", None),
            ("", None),
        ] {
            assert_eq!(parsed(line.as_bytes()), status, "{line}");
        }
    }
}
