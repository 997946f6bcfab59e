//! Where masters said that all masters are, in a file: an agent whose config names only masters that are gone finds the others by it.

use protocol::message::MASTERS_MAX;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::super::whole;

/// Its name in the data directory: one address a line.
pub const FILE: &str = "masters";
/// Longest address: a name (RFC 1035 section 2.3.4), a colon and a port.
const ADDRESS_BYTES_MAX: usize = 253 + 1 + 5;
/// As many as may be, each as long as it may be.
const FILE_BYTES_MAX: u64 = (MASTERS_MAX * (ADDRESS_BYTES_MAX + 1)) as u64;

/// What [`save`] wrote last; nothing where there is none or it cannot be read.
pub fn load(path: &Path) -> Vec<String> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "where the masters are could not be read"),
    }
    checked(text.lines().map(str::to_owned).collect())
}

/// Keeps these addresses, all or nothing. Blocks.
///
/// # Errors
/// The system's.
pub fn save(path: &Path, addresses: &[String]) -> io::Result<()> {
    let lines: String = addresses.iter().map(|address| format!("{address}\n")).collect();
    whole::write(path, lines.as_bytes())
}

/// Those that may be addresses, `HOST:PORT`, each once.
pub fn checked(mut addresses: Vec<String>) -> Vec<String> {
    addresses.truncate(MASTERS_MAX);
    addresses.retain(|address| {
        let parts = address.rsplit_once(':');
        let right = |(host, port): (&str, &str)| {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        let right = address.len() <= ADDRESS_BYTES_MAX && parts.is_some_and(right);
        if !right {
            tracing::warn!(?address, "a master's address that is none is passed over");
        }
        right
    });
    let mut known = std::collections::BTreeSet::new();
    addresses.retain(|address| known.insert(address.clone()));
    addresses
}
