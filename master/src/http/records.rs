//! What a task printed, as agents keep it: `[u8 stream][u32 LE length][bytes]`, one after the other, so that the order of both streams is
//! kept. An agent may be hostile: what is no record is said to be none.

/// Bytes before those that were printed.
const HEAD_BYTES: usize = 5;

/// What was printed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// 1: standard output, 2: standard error.
    pub stream: u8,
    /// What was printed.
    pub bytes: &'a [u8],
    /// Where the next record begins.
    pub next: u64,
}

/// The agent sent what is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the agent keeps is damaged from byte {offset} on")]
pub struct RecordError {
    /// Where.
    pub offset: u64,
}

/// The records of `bytes`, the first of which stands at `offset`; nothing follows an error.
pub fn records(offset: u64, bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, RecordError>> {
    let mut rest = bytes;
    let mut offset = offset;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = first(offset, rest);
        match record {
            Some(record) => {
                rest = &rest[HEAD_BYTES + record.bytes.len()..];
                offset = record.next;
            }
            None => rest = &[],
        }
        Some(record.ok_or(RecordError { offset }))
    })
}

fn first(offset: u64, bytes: &[u8]) -> Option<Record<'_>> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let [stream, length @ ..] = *head;
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    let bytes = rest.get(..length).filter(|_| stream == 1 || stream == 2)?;
    Some(Record { stream, bytes, next: offset.checked_add((HEAD_BYTES + length) as u64)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_until_the_first_that_is_none() {
        let good = b"\x01\x02\0\0\0hi\x02\0\0\0\0";
        let hi = Record { stream: 1, bytes: b"hi", next: 17 };
        let nothing = Record { stream: 2, bytes: b"", next: 22 };
        assert_eq!(records(10, good).collect::<Vec<_>>(), [Ok(hi), Ok(nothing)]);
        assert_eq!(records(0, b"").count(), 0);
        let damaged: [&[u8]; 5] = [b"\x01", b"\x01\0\0\0", b"\x03\0\0\0\0", b"\x01\xff\xff\xff\xffx", b"\x01\x02\0\0\0h"];
        for bytes in damaged {
            assert_eq!(records(7, bytes).collect::<Vec<_>>(), [Err(RecordError { offset: 7 })], "{bytes:?}");
        }
        assert_eq!(records(u64::MAX, good).collect::<Vec<_>>(), [Err(RecordError { offset: u64::MAX })]);
    }
}
