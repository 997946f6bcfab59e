//! What a file is, by its first bytes. Reads no more of it.

use super::UnpackError;
use super::compressed::{Form, form};
use super::entries::{BLOCK_BYTES, is_tar};
use std::fs::File;
use std::io::Read;

/// What a file is for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A module or a component.
    Wasm,
    /// Machine code.
    Elf,
    /// Begins with `#!`.
    Script,
    /// A tar archive, or something compressed: a bundle of files, or an image.
    Archive,
    /// None of these: run as a single file, if its command knows what to do with it.
    Other,
}

/// Looks at the first bytes of `file`.
///
/// # Errors
/// Where it cannot be read, or is compressed in a way that is not read here.
pub fn look(file: &File) -> Result<Look, UnpackError> {
    let mut head = Vec::new();
    file.take(BLOCK_BYTES as u64).read_to_end(&mut head).map_err(UnpackError::reading)?;
    Ok(match head.as_slice() {
        [] => return Err(UnpackError::refused("it is empty")),
        [0, b'a', b's', b'm', ..] => Look::Wasm,
        [0x7f, b'E', b'L', b'F', ..] => Look::Elf,
        [b'#', b'!', ..] => Look::Script,
        head if form(head)? != Form::Plain || is_tar(head) => Look::Archive,
        _ => Look::Other,
    })
}
