//! How a task is asked whether it is well: over HTTP, by a connection, by a program beside it, or by an export of its own program. Each way is bounded:
//! in time by its check, in memory by what is kept of an answer. What the answers mean is the ledger's.

mod exec;
mod http;
mod tls;

use crate::ledger::event::Answer;
use protocol::task::HEALTH_BYTES_MAX;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// What is asked, with all that it takes.
pub enum Way<S> {
    /// `GET` of a path at a port of this machine; over TLS, where it is `secure`.
    Http {
        /// True: over TLS, with whatever certificate there is.
        secure: bool,
        /// Where.
        port: u16,
        /// From `/` on.
        path: String,
        /// True: a status from 100 to 199 says nothing.
        ignores_1xx: bool,
    },
    /// A connection to a port of this machine.
    Tcp {
        /// Which.
        port: u16,
    },
    /// A program in the task's cell: its name, and what comes to a stream to it.
    Exec(String, S),
}

/// Asks, for at most `wait`. Why it is not well is for people: one line, at most [`HEALTH_BYTES_MAX`] bytes.
pub async fn ask<S: Future<Output = Result<UnixStream, String>>>(way: Way<S>, wait: Duration) -> Answer {
    let (what, asked) = match way {
        Way::Http { secure, port, path, ignores_1xx } => {
            let what = format!(":{port}{path}");
            match tokio::time::timeout(wait, http::ask(secure, port, &path)).await {
                Ok(Ok(status)) if ignores_1xx && http::INTERIM.contains(&status) => return Answer::Nothing,
                answer => (what.clone(), answer.map(|status| http::is_well(status?, &what))),
            }
        }
        Way::Tcp { port } => (format!(":{port}"), tokio::time::timeout(wait, tcp(port)).await),
        Way::Exec(name, stream) => {
            let asked = tokio::time::timeout(wait, exec::ask(&name, stream)).await;
            (name, asked)
        }
    };
    let answer = asked.unwrap_or_else(|_| Err(format!("no answer of {what} in {} ms", wait.as_millis())));
    answer.map_err(|reason| plain(&reason)).into()
}

async fn tcp(port: u16) -> Result<(), String> {
    connected(port).await.map(drop)
}

/// A connection to a port of this machine, by the first of its two addresses that takes one.
async fn connected(port: u16) -> Result<TcpStream, String> {
    let first = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let second = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await;
    second.map_err(|_| format!("no connection to :{port}: {}", words(&first)))
}

/// What the system says, without its number.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "it is refused".into(),
        io::ErrorKind::ConnectionReset => "it was reset".into(),
        io::ErrorKind::UnexpectedEof => "it was closed".into(),
        _ => error.to_string(),
    }
}

/// A reason as people may see it: one line, short, without control characters and what turns the direction of writing.
#[must_use]
pub fn plain(reason: &str) -> String {
    let shown = |letter: char| match letter {
        '\t' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' => '\u{fffd}',
        letter if letter.is_control() => '\u{fffd}',
        letter => letter,
    };
    let mut plain: String = reason.chars().take(HEALTH_BYTES_MAX).map(shown).collect();
    plain.truncate(plain.floor_char_boundary(HEALTH_BYTES_MAX));
    plain
}

#[cfg(test)]
mod tests;
