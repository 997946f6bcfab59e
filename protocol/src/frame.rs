//! The bytes of one message: a little-endian `u32` that counts the bytes after it, then the message in postcard's format. The version of
//! the messages is that of the connection (its ALPN), so a frame carries none. Knows no stream and no message.

use serde::{Serialize, de::DeserializeOwned};

/// Most bytes of a frame, its length not counted. Checked before anything is allocated.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of the length that stands first.
pub const HEADER_BYTES: usize = 4;

/// Why bytes are no frame, or a message no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It says that it is, or would be, longer than [`FRAME_BYTES_MAX`].
    #[error("a frame of {bytes} bytes: at most {FRAME_BYTES_MAX} are allowed")]
    TooLong {
        /// How long.
        bytes: u64,
    },
    /// It is empty: no message has no bytes.
    #[error("an empty frame")]
    Empty,
    /// Its bytes are no message.
    #[error("the bytes of a frame are no message: {reason}")]
    Malformed {
        /// In postcard's words.
        reason: String,
    },
    /// Bytes are left behind its message.
    #[error("{bytes} bytes behind the message of a frame")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// Appends the frame of `message` to `buffer`.
///
/// # Errors
/// [`FrameError::TooLong`]; `buffer` is then as it was.
pub fn encode<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    let taken = std::mem::take(buffer);
    *buffer = postcard::to_extend(message, taken).map_err(|error| FrameError::Malformed { reason: error.to_string() })?;
    let bytes = buffer.len() - start - HEADER_BYTES;
    if bytes > FRAME_BYTES_MAX {
        buffer.truncate(start);
        return Err(FrameError::TooLong { bytes: bytes as u64 });
    }
    let header = u32::try_from(bytes).expect("FRAME_BYTES_MAX fits").to_le_bytes();
    buffer[start..start + HEADER_BYTES].copy_from_slice(&header);
    Ok(())
}

/// How many bytes follow this header.
///
/// # Errors
/// [`FrameError::TooLong`] and [`FrameError::Empty`].
pub fn length(header: [u8; HEADER_BYTES]) -> Result<usize, FrameError> {
    match u32::from_le_bytes(header) as usize {
        0 => Err(FrameError::Empty),
        bytes if bytes > FRAME_BYTES_MAX => Err(FrameError::TooLong { bytes: bytes as u64 }),
        bytes => Ok(bytes),
    }
}

/// The message in `body`, which is a frame without its header.
///
/// # Errors
/// [`FrameError::Malformed`] and [`FrameError::Trailing`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (message, rest) = postcard::take_from_bytes(body).map_err(|error| FrameError::Malformed { reason: error.to_string() })?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::Trailing { bytes: rest.len() }) }
}
