//! Files that only their owner may read, written all or nothing.

use super::IdentityError;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Longest file that is read: what is written here has a few thousand bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// One block of a PEM file (RFC 7468).
pub(super) struct Block {
    pub label: String,
    pub der: Vec<u8>,
}

/// The label of a certificate.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a key in PKCS #8.
pub(super) const KEY: &str = "PRIVATE KEY";

impl Block {
    pub(super) fn new(label: &str, der: &[u8]) -> Self {
        Self { label: label.into(), der: der.into() }
    }
}

/// What the system said about `path`.
pub(super) fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> IdentityError {
    let path = path.to_path_buf();
    move |source| IdentityError::File { path, source }
}

/// Makes `dir` and those above it, for the owner alone.
pub(super) fn create_dir(dir: &Path) -> Result<(), IdentityError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file_error(dir))
}

/// Puts `blocks` into `path`: after a crash it is as before or as after.
pub(super) fn write(path: &Path, blocks: &[Block]) -> Result<(), IdentityError> {
    let text: String = blocks.iter().map(|block| pem_of(&block.label, &block.der)).collect();
    let dir = path.parent().expect("the callers join a folder and a file's name");
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    written.map_err(file_error(path))?;
    sync_dir(dir)
}

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), IdentityError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(file_error(dir))
}

/// The blocks of `path`; `None` where there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<Block>>, IdentityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error(path)(error)),
    };
    let mode = file.metadata().map_err(file_error(path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.into(), mode });
    }
    let malformed = |reason: String| IdentityError::Malformed { what: path.display().to_string(), reason };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(file_error(path))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(malformed(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    let blocks = pem::parse_many(&text).map_err(|error| malformed(error.to_string()))?;
    Ok(Some(blocks.into_iter().map(|block| Block { label: block.tag().into(), der: block.into_contents() }).collect()))
}

/// `der` as text.
pub(super) fn pem_of(label: &str, der: &[u8]) -> String {
    pem::encode_config(&pem::Pem::new(label, der), pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}
