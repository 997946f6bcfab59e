//! Bundles and container images, from a file that somebody brought to folders that a task can be started from. Knows archives, image
//! formats and file trees; knows no job, no master, and of the jail only that unpacking happens inside one.
//!
//! On the way of an archive: [`Store::prepare`] asks for it, and a process of the template's ([`serve`]) starts `skep unpack` ([`unpack_main`]),
//! which is thrown away afterwards; in it
//! [`unpack`] finds out what the archive is (`archive`, `manifest`), reads its layers (`compressed`, `entries`) and writes them beneath one
//! folder (`contents`, `tree`); the store takes the finished folders in. At a launch [`start()`] makes a command, an environment and a user
//! out of an image's [`ImageConfig`] and what the job says instead.
//!
//! What is decided here, and holds for all of it:
//! * A layer is unpacked once for each diffID, as a lower folder of an overlay. What a layer deletes is a character device 0:0, or, where
//!   none can be made, an empty file with the attribute `user.overlay.whiteout`. A folder that hides those below it has the attribute
//!   `user.overlay.opaque`. Overlays of such layers are mounted with [`OVERLAY_OPTION`], as root too: setting `trusted` attributes would
//!   take a capability that the unpacking process is better without.
//! * A folder that a layer fills but does not name is what lower layers say it is. In an overlay it would be what nobody said, so an image
//!   where that makes a difference gets one more layer, of such folders only.
//! * As root, owners are those of the image; otherwise everything belongs to the user, and folders and files are at least his to read.
//! * Setuid and setgid bits are dropped: tasks run with `no_new_privs`, where they do nothing, and in the store they would be programs of
//!   strangers that run as root. Extended attributes are dropped, file capabilities among them.
//! * A bundle's files belong to the user who runs the agent and can be read by everyone and written by nobody.
//! * Devices and FIFOs are refused, but left out where they are in an image's `dev`: a container gets a `/dev` of its own.

mod archive;
pub mod build;
mod compressed;
mod config;
mod confined;
mod contents;
mod entries;
mod implied;
mod look;
mod manifest;
mod merged;
mod shelf;
mod start;
mod store;
mod tree;
mod unpack;

#[cfg(test)]
mod tests;

pub use config::{ImageConfig, Transport};
pub use look::{Look, look};
pub(crate) use shelf::absent_is_fine;
pub use shelf::{Work, serve};
pub use start::{Accounts, Overrides, Pieces, StartError, start};
pub use store::{Hands, Image, Prepared, Store};
pub use unpack::{LayerAbout, LayerUsed, Request, Unpacked, unpack, unpack_main};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use std::io;
use std::str::FromStr;

/// What overlays of unpacked layers must be mounted with (Documentation/filesystems/overlayfs.rst, "User xattr").
pub const OVERLAY_OPTION: &str = "userxattr";

/// A SHA-256 digest: of a bundle, of a blob, of an uncompressed layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// Why a text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a SHA-256 digest: `sha256:` and 64 lower-case hexadecimal digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    /// With or without `sha256:`. Nothing that is accepted here can be anything but a plain file name.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let digit = |letter: u8| match letter {
            b'0'..=b'9' => Ok(letter - b'0'),
            b'a'..=b'f' => Ok(letter - b'a' + 10),
            _ => Err(DigestError),
        };
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(DigestError);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What an archive is to be taken for. A native bundle may hold an image layout as its data, so the archive alone does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Wanted {
    /// A container image: an OCI layout in a tar archive, or what `docker save` writes.
    Image,
    /// What a native task runs: a tar archive, or a single file.
    Bundle,
}

/// The most that one archive may become. What is over is an error, and nothing stays of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of all its uncompressed layers together, or of the one tar archive that it is.
    pub bytes_max: u64,
    /// Bytes of one uncompressed layer.
    pub layer_bytes_max: u64,
    /// Files, folders and links of all its layers together.
    pub entries_max: u64,
    /// Files, folders and links of one layer.
    pub layer_entries_max: u64,
    /// Layers of an image; an overlay cannot have many more.
    pub layers_max: usize,
    /// Bytes of a path within the archive, and of what a link points to.
    pub path_bytes_max: usize,
    /// Folders on the way to a file.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 32 << 30,
            layer_bytes_max: 16 << 30,
            entries_max: 1_000_000,
            layer_entries_max: 500_000,
            layers_max: 127,
            path_bytes_max: 4_095,
            depth_max: 100,
        }
    }
}

/// Why an archive did not become what was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum UnpackError {
    /// It is not what it should be, or does what is not allowed: the user's move.
    #[error("{0}")]
    Refused(String),
    /// It is more than it may be: the user's move too.
    #[error("{0}")]
    Limit(String),
    /// This machine could not: the operator's move.
    #[error("unpacking failed: {0}")]
    Failed(String),
}

impl UnpackError {
    fn refused(what: impl Into<String>) -> Self {
        Self::Refused(what.into())
    }

    fn limit(what: impl Into<String>) -> Self {
        Self::Limit(what.into())
    }

    fn failed(tried: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::Failed(format!("{tried}: {error}"))
    }

    /// The same, and where in the archive it was.
    fn within(self, place: impl fmt::Display) -> Self {
        match self {
            Self::Refused(what) => Self::Refused(format!("{place}: {what}")),
            Self::Limit(what) => Self::Limit(format!("{place}: {what}")),
            Self::Failed(what) => Self::Failed(format!("{place}: {what}")),
        }
    }

    /// What went wrong while reading: an error of ours that came through [`io::Read`], the system's, or a decompressor's.
    fn reading(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) if error.raw_os_error().is_some() => Self::failed("reading the archive", error),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::refused("it ends too early"),
            Err(error) => Self::refused(format!("it is damaged: {error}")),
        }
    }
}

impl From<UnpackError> for io::Error {
    fn from(error: UnpackError) -> Self {
        Self::other(error)
    }
}

/// A name from an archive as people can read it, whatever bytes it has.
fn shown(name: &[u8]) -> String {
    const BYTES_MAX: usize = 200;
    match name.get(..BYTES_MAX) {
        Some(start) if name.len() > BYTES_MAX => format!("\"{}…\"", start.escape_ascii()),
        _ => format!("\"{}\"", name.escape_ascii()),
    }
}
