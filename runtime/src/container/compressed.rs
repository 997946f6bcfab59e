//! Bytes out of a file, plain, gzip or zstd, told apart by their first bytes; bounded and hashed while they stream. Knows no archive.

use super::{Digest, UnpackError};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// Bytes that are looked at to tell what something is.
pub(super) const HEAD_BYTES: usize = 6;
/// Bytes read from the system at once.
const READ_BYTES: usize = 128 << 10;
/// How many times as long as it was it may become, once it is longer than [`RATIO_FREE_BYTES`]. Layers shrink to a third or a tenth.
const RATIO_MAX: u64 = 200;
/// A layer may have a large file of zeros.
const RATIO_FREE_BYTES: u64 = 64 << 20;

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Gzip,
    Zstd,
}

/// Tells by the first bytes (RFC 1952 2.3.1; RFC 8878 3.1.1 and 3.1.2, where a frame that is skipped may come first).
///
/// # Errors
/// Where they are of a form that is known, but not read here.
pub(super) fn form(head: &[u8]) -> Result<Form, UnpackError> {
    let other = |name: &str| Err(UnpackError::refused(format!("it is compressed by {name}: only gzip and zstd are read")));
    match head {
        [0x1f, 0x8b, ..] => Ok(Form::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Form::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => other("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] => other("bzip2"),
        _ => Ok(Form::Plain),
    }
}

/// What is read from, and where what is not needed can be passed over.
pub(super) trait Source: Read + Sized {
    /// Passes over `bytes` bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        match io::copy(&mut self.by_ref().take(bytes), &mut io::sink())? {
            passed if passed == bytes => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A part of a file.
#[derive(Clone)]
pub(super) struct Window<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a File, at: u64, bytes: u64) -> Self {
        Self { file, at, left: bytes }
    }

    pub(super) fn len(&self) -> u64 {
        self.left
    }

    /// The next bytes; the window stays where it is.
    pub(super) fn peek(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        self.clone().take(bytes as u64).read_to_end(&mut head)?;
        Ok(head)
    }
}

impl Read for Window<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let read = self.file.read_at(&mut into[..most], self.at)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Source for Window<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.at += bytes;
        Ok(())
    }
}

/// What went in so far.
#[derive(Default)]
struct Seen {
    bytes: u64,
    hash: Sha256,
}

/// Hashes what goes through.
struct Hashed<R> {
    from: R,
    seen: Rc<RefCell<Seen>>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        let mut seen = self.seen.borrow_mut();
        seen.bytes += read as u64;
        seen.hash.update(&into[..read]);
        Ok(read)
    }
}

/// Uncompressed bytes: a stream that ends in an error where it is longer than it may be.
pub(super) struct Uncompressed<'a> {
    from: Box<dyn Read + 'a>,
    into: Seen,
    packed: Rc<RefCell<Seen>>,
    bytes_max: u64,
}

/// What a stream was, when all of it was read.
pub(super) struct Sums {
    pub(super) bytes: u64,
    pub(super) uncompressed: Digest,
    pub(super) compressed: Digest,
}

impl<'a> Uncompressed<'a> {
    /// # Errors
    /// Where it is of a form that is not read here, or cannot be read.
    pub(super) fn new(from: Window<'a>, bytes_max: u64) -> Result<Self, UnpackError> {
        let form = form(&from.peek(HEAD_BYTES).map_err(UnpackError::reading)?)?;
        let packed = Rc::new(RefCell::new(Seen::default()));
        let hashed = BufReader::with_capacity(READ_BYTES, Hashed { from, seen: Rc::clone(&packed) });
        let from: Box<dyn Read + 'a> = match form {
            Form::Plain => Box::new(hashed),
            Form::Gzip => Box::new(MultiGzDecoder::new(hashed)),
            Form::Zstd => Box::new(Zstd { from: hashed, frame: FrameDecoder::new(), inside: false }),
        };
        Ok(Self { from, into: Seen::default(), packed, bytes_max })
    }

    /// Reads what is left and says what all of it was.
    ///
    /// # Errors
    /// Where it is damaged or too long.
    pub(super) fn finish(mut self) -> Result<Sums, UnpackError> {
        io::copy(&mut self, &mut io::sink()).map_err(UnpackError::reading)?;
        let packed = self.packed.take();
        Ok(Sums {
            bytes: self.into.bytes,
            uncompressed: Digest(self.into.hash.finalize().into()),
            compressed: Digest(packed.hash.finalize().into()),
        })
    }
}

impl Read for Uncompressed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.into.bytes += read as u64;
        self.into.hash.update(&into[..read]);
        let bytes = self.into.bytes;
        if bytes > self.bytes_max {
            return Err(UnpackError::limit(format!("it becomes longer than {} bytes", self.bytes_max)).into());
        }
        if bytes > RATIO_FREE_BYTES && bytes / RATIO_MAX > self.packed.borrow().bytes {
            return Err(
                UnpackError::limit(format!("it becomes more than {RATIO_MAX} times as long as it was, {bytes} bytes so far")).into()
            );
        }
        Ok(read)
    }
}

impl Source for Uncompressed<'_> {}

/// Frames of zstd after each other, of which some are to be skipped (RFC 8878 3.1). The decoder bounds its window by itself.
struct Zstd<R> {
    from: R,
    frame: FrameDecoder,
    inside: bool,
}

impl<R: BufRead> Zstd<R> {
    /// Begins the next frame; false at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.from.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.from) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.from.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(zstd_error(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside && !self.next_frame()? {
                return Ok(0);
            }
            self.inside = true;
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                self.frame.decode_blocks(&mut self.from, BlockDecodingStrategy::UptoBlocks(1)).map_err(zstd_error)?;
            }
            let read = self.frame.read(into)?;
            if read > 0 {
                return Ok(read);
            }
            self.inside = false;
        }
    }
}

fn zstd_error(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}"))
}
