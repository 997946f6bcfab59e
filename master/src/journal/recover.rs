//! The log read from its first segment to its end: what each group has, and where writing goes on.

use super::JournalError;
use super::frame::{HEAD_BYTES, Head, Key};
use super::index::{GroupIndex, Place};
use super::log::End;
use super::raft::{Ballot, Entry, EntryId};
use super::segment::{self, Expected, Frame, Reader, Segment};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// One thing in a frame: behind its length, a little-endian `u32`, in postcard. New variants at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Item {
    /// An entry.
    Entry {
        /// Whose.
        group: u16,
        /// Itself.
        entry: Entry,
    },
    /// A vote.
    Ballot {
        /// Whose.
        group: u16,
        /// Itself.
        ballot: Ballot,
    },
    /// An entry is committed, and all before it.
    Committed {
        /// Whose.
        group: u16,
        /// Which.
        id: Option<EntryId>,
    },
    /// The entries behind `last` are void.
    Truncate {
        /// Whose.
        group: u16,
        /// The first that is void.
        from: u64,
        /// The last that is not.
        last: Option<EntryId>,
    },
    /// The entries up to this one, itself among them, are no longer needed.
    Purge {
        /// Whose.
        group: u16,
        /// Which.
        upto: EntryId,
    },
    /// What was last said of a group, at the head of each segment.
    Group {
        /// Which.
        group: u16,
        /// Its vote.
        ballot: Option<Ballot>,
        /// Its last entry that is known to be committed.
        committed: Option<EntryId>,
        /// Its last entry that is no longer needed.
        purged: Option<EntryId>,
    },
    /// The log was closed in good order: what stood before it was durable.
    Closed,
}

/// Bytes of an item's length.
const LENGTH_BYTES: usize = 4;
/// Above the numbers of all frames and entries that any log can come to have, and so far from the largest that they can be counted on.
const NUMBER_MAX: u64 = 1 << 62;

impl Item {
    /// Appends it to a frame's body.
    pub fn encode(&self, body: &mut Vec<u8>) {
        let start = body.len();
        body.extend_from_slice(&[0; LENGTH_BYTES]);
        *body = postcard::to_extend(self, std::mem::take(body)).expect("items have no type that postcard cannot write");
        let length = u32::try_from(body.len() - start - LENGTH_BYTES).expect("an item fits into a segment");
        body[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    }

    /// The item at `offset` of a frame's body, and where the next begins; `None` where there is none.
    pub fn decode(body: &[u8], offset: usize) -> Option<(Self, usize)> {
        let start = offset.checked_add(LENGTH_BYTES)?;
        let length = u32::from_le_bytes(body.get(offset..start)?.try_into().ok()?) as usize;
        let end = start.checked_add(length)?;
        Some((postcard::from_bytes(body.get(start..end)?).ok()?, end))
    }

    /// The indices of entries that it names.
    fn numbers(&self) -> [Option<u64>; 2] {
        let index = |id: &Option<EntryId>| id.map(|id| id.index);
        match self {
            Self::Entry { entry, .. } => [Some(entry.log_id.index), None],
            Self::Committed { id, .. } => [index(id), None],
            Self::Truncate { from, last, .. } => [Some(*from), index(last)],
            Self::Purge { upto, .. } => [Some(upto.index), None],
            Self::Group { committed, purged, .. } => [index(committed), index(purged)],
            Self::Ballot { .. } | Self::Closed => [None, None],
        }
    }

    /// The entry `index` of `group` at `offset` of a frame's body; `None` where that is something else.
    pub fn entry_at(body: &[u8], offset: u32, group: u16, index: u64) -> Option<Entry> {
        match Self::decode(body, offset as usize) {
            Some((Self::Entry { group: of, entry }, _)) if of == group && entry.log_id.index == index => Some(entry),
            _ => None,
        }
    }
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// What each group has.
    pub groups: Vec<GroupIndex>,
    /// The segments.
    pub files: BTreeMap<u64, Arc<Segment>>,
    /// Where to go on.
    pub end: End,
}

/// Reads the log in `dir`; where there is none, makes its first segment of `first_bytes`.
pub fn recover(dir: &Path, groups: u16, first_bytes: u64) -> Result<Found, JournalError> {
    let mut found = Found { groups: (0..groups).map(|_| GroupIndex::default()).collect(), files: BTreeMap::new(), end: End::START };
    let sequences = segment::list(dir)?;
    if sequences.is_empty() {
        let segment = begin(dir, &dir.join("first"), (1, 1), |path| segment::make(path, first_bytes))?;
        found.files.insert(1, Arc::new(segment));
        found.end = End { sequence: 1, ..End::START };
        return Ok(found);
    }
    let mut previous = None;
    for sequence in sequences {
        let path = segment::path(dir, sequence);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| JournalError::io("open", &path, error))?;
        let (key, before) = read_segment(&mut found, &file, &path, sequence, previous)?;
        previous = Some(before);
        found.files.insert(sequence, Arc::new(Segment { file, key }));
    }
    for (shard, group) in (0..).zip(&found.groups) {
        let (from, until) = (group.purged.map_or(0, |id| id.index + 1), group.range().start);
        if !group.range().is_empty() && until > from {
            return Err(JournalError::Gap { shard, from, until });
        }
    }
    Ok(found)
}

/// Makes `scratch` the segment of this sequence and first frame: it has its name only once its head is durable.
pub fn begin(
    dir: &Path,
    scratch: &Path,
    (sequence, first_frame): (u64, u64),
    file: impl FnOnce(&Path) -> std::io::Result<File>,
) -> Result<Segment, JournalError> {
    let path = segment::path(dir, sequence);
    let begin = || {
        let head = Head { sequence, first_frame, key: Key::draw()? };
        let file = file(scratch)?;
        file.write_all_at(&head.encode(), 0)?;
        file.sync_all()?;
        fs::rename(scratch, &path)?;
        segment::sync_dir(dir)?;
        Ok(Segment { file, key: head.key })
    };
    begin().map_err(|error| JournalError::io("make", &path, error))
}

/// Where the segment before ended.
struct Before {
    /// What is expected next.
    expected: Expected,
    /// What is wrong where more was there once.
    lacking: JournalError,
}

fn read_segment(found: &mut Found, file: &File, path: &Path, sequence: u64, before: Option<Before>) -> Result<(Key, Before), JournalError> {
    let damaged_head = || JournalError::Damaged { path: path.to_owned(), offset: 0, what: "its head is damaged" };
    let can_be = |head: &Head| head.sequence == sequence && u32::try_from(sequence).is_ok() && (1..NUMBER_MAX).contains(&head.first_frame);
    let (mut reader, head) = Reader::open(file, path)?.filter(|(_, head)| can_be(head)).ok_or_else(damaged_head)?;
    let mut expected = match before {
        None => Expected { number: head.first_frame, previous: None },
        Some(before) if head.first_frame == before.expected.number => before.expected,
        Some(before) if head.first_frame > before.expected.number => return Err(before.lacking),
        Some(_) => return Err(damaged_head()),
    };
    while let Some(frame) = reader.next(expected)? {
        let impossible = "a frame holds what cannot follow from what stands before it";
        let fits = frame.head.number < NUMBER_MAX && found.fold(sequence, &frame).is_some();
        if !fits {
            return Err(JournalError::Damaged { path: path.to_owned(), offset: frame.offset, what: impossible });
        }
        expected = Expected { number: frame.head.number + 1, previous: Some(frame.head.checksum) };
    }
    reader.check_end(expected.number)?;
    let checksum = expected.previous.unwrap_or_default();
    found.end = End { sequence, offset: reader.offset(), frame: expected.number - 1, checksum };
    let lacking = reader.damaged("frames are missing here that a later segment says were durable");
    Ok((head.key, Before { expected, lacking }))
}

impl Found {
    /// Takes in what is in a frame; `None` where it makes no sense.
    fn fold(&mut self, sequence: u64, frame: &Frame) -> Option<()> {
        let mut offset = 0;
        while offset < frame.body.len() {
            let (item, next) = Item::decode(&frame.body, offset)?;
            let place = Place {
                segment: u32::try_from(sequence).ok()?,
                frame: u32::try_from(frame.offset).ok()?,
                item: u32::try_from(offset).ok()?,
            };
            self.fold_item(item, place, next - offset)?;
            offset = next;
        }
        Some(())
    }

    fn group(&mut self, group: u16) -> Option<&mut GroupIndex> {
        self.groups.get_mut(usize::from(group))
    }

    fn fold_item(&mut self, item: Item, place: Place, bytes: usize) -> Option<()> {
        if item.numbers().into_iter().flatten().any(|number| number >= NUMBER_MAX) {
            return None;
        }
        match item {
            Item::Entry { group, entry } => return self.group(group)?.push(entry.log_id, bytes, Some(place)).then_some(()),
            Item::Ballot { group, ballot } => self.group(group)?.ballot = Some(ballot),
            Item::Committed { group, id } => self.group(group)?.committed = id,
            Item::Truncate { group, from, last } => self.group(group)?.truncate(from, last),
            Item::Purge { group, upto } => self.group(group)?.purge(upto),
            Item::Group { group, ballot, committed, purged } => {
                let group = self.group(group)?;
                (group.ballot, group.committed) = (ballot, committed);
                if let Some(upto) = purged {
                    group.purge(upto);
                }
            }
            Item::Closed => {}
        }
        Some(())
    }
}

impl End {
    /// Before anything was written.
    const START: Self = Self { sequence: 0, offset: HEAD_BYTES as u64, frame: 0, checksum: [0; 16] };
}
