//! What an uploaded file is, told by looking at its head: wasm, a program, a script, an archive. Nothing of it is unpacked or run here.

use super::wasm::{Inspection, Rejection};

/// Bytes of a file's head that are looked at: up to the magic of a tar archive (POSIX.1-1988, `ustar` at byte 257).
pub const HEAD_BYTES: usize = 265;

/// What a bundle looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A wasm module or component.
    Wasm,
    /// An executable (ELF).
    Executable,
    /// A script with a `#!` line.
    Script,
    /// A tar archive, bare or compressed with gzip (RFC 1952) or zstd (RFC 8878).
    Archive,
    /// Something else.
    Other,
}

/// What is known of a bundle that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it looks like.
    pub form: Form,
    /// What it is as wasm, or why it is none that can run.
    pub wasm: Result<Inspection, Rejection>,
}

impl Form {
    /// What a file is that begins with `head`, of which up to [`HEAD_BYTES`] matter.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0, b'a', b's', b'm', ..] => Self::Wasm,
            [0x7f, b'E', b'L', b'F', ..] => Self::Executable,
            [b'#', b'!', ..] => Self::Script,
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Archive,
            _ if head.get(257..262) == Some(b"ustar") => Self::Archive,
            _ => Self::Other,
        }
    }

    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Executable => "an executable",
            Self::Script => "a script",
            Self::Archive => "an archive",
            Self::Other => "none of wasm, executable, script and archive",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_what_a_file_is() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let heads: [(&[u8], Form); 8] = [
            (b"\0asm\x01\0\0\0", Form::Wasm),
            (b"\x7fELF\x02", Form::Executable),
            (b"#!/bin/sh\n", Form::Script),
            (b"\x1f\x8b\x08", Form::Archive),
            (b"\x28\xb5\x2f\xfd\0", Form::Archive),
            (&tar, Form::Archive),
            (b"", Form::Other),
            (b"hello", Form::Other),
        ];
        for (head, form) in heads {
            assert_eq!(Form::of(head), form, "{head:?}");
        }
    }
}
