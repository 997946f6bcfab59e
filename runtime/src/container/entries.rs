//! Entries of a tar archive, one after the other (POSIX pax, "ustar" and "pax Interchange Format"; the GNU tar manual, "Basic Tar Format").
//! Where programs would read an archive differently it is refused. Writes nothing; knows no rule about names but that they have no NUL.

use super::compressed::Source;
use super::{UnpackError, shown};
use std::io::{self, Read};
use tar::Header;

/// Bytes of a block, and what the data of each entry is filled up to.
pub(super) const BLOCK_BYTES: usize = 512;
/// Longest extended header that is read.
const EXTENDED_BYTES_MAX: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    Device,
    Fifo,
}

/// One entry, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As the archive has it.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// What a link points to; else empty.
    pub(super) link: Vec<u8>,
    /// Bytes of data that follow.
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub(super) mtime: (i64, u32),
}

/// The entries of an archive; reads as the data of the last one.
pub(super) struct Entries<R> {
    from: R,
    /// Of the last entry's data, and of what fills it up.
    left: u64,
    padding: u64,
    /// Where in the archive it is.
    at: u64,
    marked: bool,
}

impl<R: Source> Entries<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, left: 0, padding: 0, at: 0, marked: false }
    }

    /// Where the data of the last entry begins, in bytes from the archive's beginning, where none of it was read.
    pub(super) fn data_at(&self) -> u64 {
        self.at
    }

    /// True where the archive ended with its mark. One without it may have been cut.
    pub(super) fn is_marked(&self) -> bool {
        self.marked
    }

    pub(super) fn into_inner(self) -> R {
        self.from
    }

    /// The next entry, or `None` at the end.
    ///
    /// # Errors
    /// Where it is no tar archive, is cut, or could be read in more than one way.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        self.pass()?;
        let mut said = Said::default();
        loop {
            let Some(block) = self.block()? else {
                return if said == Said::default() { Ok(None) } else { refused("it ends after an extended header") };
            };
            let header = Header::from_byte_slice(&block);
            check_sum(&block)?;
            let size = number(header.as_old().size.as_slice(), || header.size())?;
            match header.as_old().linkflag[0] {
                b'x' => {
                    let data = self.extended(size)?;
                    said.take_pax(&data)?;
                }
                b'g' => {
                    // For all entries that follow. Version control writes comments so; nobody names or measures files so.
                    let mut global = Said::default();
                    global.take_pax(&self.extended(size)?)?;
                    if global != Said::default() {
                        return refused("a global extended header says more than a comment");
                    }
                }
                b'L' => once(&mut said.path, self.long_name(size)?)?,
                b'K' => once(&mut said.link, self.long_name(size)?)?,
                kind => return self.entry(header, kind, size, said).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, flag: u8, size: u64, said: Said) -> Result<Entry, UnpackError> {
        let path = said.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let within = |error: UnpackError| error.within(format_args!("entry {}", shown(&path)));
        let kind = match flag {
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Folder,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            b'S' => return refused("a sparse file: they are not unpacked").map_err(within),
            other => return refused(format!("an entry of type {:?}, which is not known", char::from(other))).map_err(within),
        };
        if said.sparse {
            return refused("a sparse file: they are not unpacked").map_err(within);
        }
        let size = said.size.unwrap_or(size);
        if kind != Kind::File && size != 0 {
            return refused(format!("it is no file and yet has {size} bytes: programs differ in how they read that")).map_err(within);
        }
        let old = header.as_old();
        let link = match kind {
            Kind::Symlink | Kind::HardLink => {
                said.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned())).unwrap_or_default()
            }
            _ => vec![],
        };
        if path.contains(&0) || link.contains(&0) {
            return refused("a name has a NUL in it").map_err(within);
        }
        let id = |said: Option<u64>, header: u64| match u32::try_from(said.unwrap_or(header)) {
            // To the system it means: leave it.
            Ok(u32::MAX) | Err(_) => refused("its owner's number is too large"),
            Ok(id) => Ok(id),
        };
        let uid = number(&old.uid, || header.uid()).and_then(|uid| id(said.uid, uid)).map_err(within)?;
        let gid = number(&old.gid, || header.gid()).and_then(|gid| id(said.gid, gid)).map_err(within)?;
        let mode = number(&old.mode, || header.mode().map(u64::from)).map_err(within)?;
        let mtime = said.mtime.unwrap_or_else(|| (header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0));
        let mode = u32::try_from(mode & 0o7777).expect("it has twelve bits");
        self.begin_data(size).map_err(within)?;
        Ok(Entry { kind, link, size, mode, uid, gid, mtime, path })
    }

    fn begin_data(&mut self, size: u64) -> Result<(), UnpackError> {
        let block = BLOCK_BYTES as u64;
        if size > i64::MAX.unsigned_abs() - block {
            return refused("its size is more than any file can have");
        }
        self.left = size;
        self.padding = (block - size % block) % block;
        Ok(())
    }

    /// The next header; `None` at the end, marked or not.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, UnpackError> {
        if self.marked {
            return Ok(None);
        }
        let Some(block) = self.read_block()? else { return Ok(None) };
        if block != [0; BLOCK_BYTES] {
            return Ok(Some(block));
        }
        match self.read_block()? {
            Some(second) if second != [0; BLOCK_BYTES] => refused("an empty block between its entries"),
            _ => {
                self.marked = true;
                Ok(None)
            }
        }
    }

    fn read_block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, UnpackError> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        self.from.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block).map_err(UnpackError::reading)?;
        self.at += block.len() as u64;
        match block.len() {
            0 => Ok(None),
            BLOCK_BYTES => Ok(Some(block.try_into().expect("its length was just looked at"))),
            _ => refused("it ends within a header"),
        }
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > EXTENDED_BYTES_MAX {
            return Err(UnpackError::limit(format!("an extended header of {size} bytes: at most {EXTENDED_BYTES_MAX} are read")));
        }
        self.begin_data(size)?;
        let mut data = Vec::new();
        self.read_to_end(&mut data).map_err(UnpackError::reading)?;
        self.pass()?;
        Ok(data)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        let mut name = self.extended(size)?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        Ok(name)
    }

    /// Passes over what is left of the last entry.
    fn pass(&mut self) -> Result<(), UnpackError> {
        self.from.skip(self.left).map_err(UnpackError::reading)?;
        // Some programs leave the last entry as it is, and the end without its mark: then there is no next header either.
        let filled = io::copy(&mut self.from.by_ref().take(self.padding), &mut io::sink()).map_err(UnpackError::reading)?;
        self.at += self.left + filled;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let read = self.from.read(&mut into[..most])?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        self.at += read as u64;
        Ok(read)
    }
}

/// What extended headers say of the entry after them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    sparse: bool,
}

impl Said {
    /// Records of `LENGTH KEY=VALUE\n`, where the length counts all of it and the value may have newlines.
    fn take_pax(&mut self, mut data: &[u8]) -> Result<(), UnpackError> {
        while !data.is_empty() {
            let (record, rest) = record(data).ok_or_else(|| UnpackError::refused("an extended header that is not well formed"))?;
            data = rest;
            let Some(equals) = record.iter().position(|byte| *byte == b'=') else {
                return refused("an extended header that is not well formed");
            };
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let count = || decimal(value).ok_or_else(|| UnpackError::refused(format!("{} is no number", shown(key))));
            match key {
                b"path" => once(&mut self.path, value.to_vec())?,
                b"linkpath" => once(&mut self.link, value.to_vec())?,
                b"size" => once(&mut self.size, count()?)?,
                b"uid" => once(&mut self.uid, count()?)?,
                b"gid" => once(&mut self.gid, count()?)?,
                b"mtime" => self.mtime = time(value),
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                // Other times, names of owners, comments, attributes: not kept.
                _ => {}
            }
        }
        Ok(())
    }
}

fn record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&data[..space])?).ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    Some((record.get(space + 1..)?.strip_suffix(b"\n")?, rest))
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// `-1.5` is half a second before -1 s; what cannot be read is no time.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = part.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match nanos {
        0 => Some((seconds, 0)),
        nanos if whole.starts_with('-') => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        nanos => Some((seconds, nanos)),
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), UnpackError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => refused("extended headers say the same thing twice of an entry"),
    }
}

/// A number of a header; a field that is blank is 0, as some programs leave those that they do not need.
fn number(field: &[u8], read: impl FnOnce() -> io::Result<u64>) -> Result<u64, UnpackError> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    read().map_err(|error| UnpackError::refused(format!("a header with a bad number: {error}")))
}

/// The sum of the header's bytes, its own field taken as spaces; some old programs took the bytes as signed.
fn check_sum(block: &[u8; BLOCK_BYTES]) -> Result<(), UnpackError> {
    const FIELD: std::ops::Range<usize> = 148..156;
    let bytes = block.iter().enumerate().map(|(at, byte)| if FIELD.contains(&at) { b' ' } else { *byte });
    let unsigned: i64 = bytes.clone().map(i64::from).sum();
    let signed: i64 = bytes.map(|byte| i64::from(byte.cast_signed())).sum();
    let said = Header::from_byte_slice(block).cksum().map(i64::from);
    if said.is_ok_and(|said| said == unsigned || said == signed) {
        return Ok(());
    }
    refused("it is no tar archive, or is damaged: a header's sum is wrong")
}

/// True where `head`, a first block, begins a tar archive.
pub(super) fn is_tar(head: &[u8]) -> bool {
    head.first_chunk().is_some_and(|block| *block == [0; BLOCK_BYTES] || check_sum(block).is_ok())
}

fn refused<T>(what: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::refused(what))
}
