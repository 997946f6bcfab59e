//! Lines cut out of chunks of bytes: without a copy where a line lies within one chunk. Knows no meaning of them.

use bytes::{Buf as _, Bytes, BytesMut};

/// What was cut.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut {
    /// A line, without its end.
    Line(Bytes),
    /// A line of more bytes than allowed; it is passed over.
    TooLong,
    /// No whole line is here: more bytes are needed, or there are none.
    More,
}

/// Bytes on their way to lines. Holds at most one line of the greatest length and the chunk that was pushed last.
#[derive(Debug)]
pub struct Lines {
    bytes_max: usize,
    /// The beginning of a line whose end has not come.
    begun: BytesMut,
    chunk: Bytes,
    /// True while the rest of a line is passed over.
    skipping: bool,
    ended: bool,
}

impl Lines {
    /// No bytes yet; a line has at most `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, begun: BytesMut::new(), chunk: Bytes::new(), skipping: false, ended: false }
    }

    /// Takes more bytes, after all lines of those before were cut.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "a chunk is pushed when `cut` asks for it");
        self.chunk = chunk;
    }

    /// Says that no more bytes come: what has no end is a line too.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// True where nothing is left to be cut.
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.chunk.is_empty()
    }

    /// The next line.
    pub fn cut(&mut self) -> Cut {
        let end = self.chunk.iter().position(|byte| *byte == b'\n');
        let rest = self.chunk.split_to(end.unwrap_or(self.chunk.len()));
        if end.is_some() {
            self.chunk.advance(1);
        }
        if self.skipping {
            self.skipping = end.is_none();
            return if self.skipping { Cut::More } else { self.cut() };
        }
        if self.begun.len() + rest.len() > self.bytes_max {
            self.begun = BytesMut::new();
            self.skipping = end.is_none();
            return Cut::TooLong;
        }
        match (end, self.begun.is_empty()) {
            (Some(_), true) => Cut::Line(rest),
            (Some(_), false) => {
                self.begun.extend_from_slice(&rest);
                Cut::Line(self.begun.split().freeze())
            }
            (None, _) => {
                self.begun.extend_from_slice(&rest);
                match self.ended && !self.begun.is_empty() {
                    true => Cut::Line(self.begun.split().freeze()),
                    false => Cut::More,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], chunk_bytes: usize, expected: &[Result<&str, ()>]) {
        let mut lines = Lines::new(4);
        let mut found = vec![];
        let mut chunks = text.chunks(chunk_bytes).map(Bytes::copy_from_slice);
        loop {
            match lines.cut() {
                Cut::Line(line) => found.push(Ok(String::from_utf8(line.to_vec()).unwrap())),
                Cut::TooLong => found.push(Err(())),
                Cut::More => match chunks.next() {
                    Some(chunk) => lines.push(chunk),
                    None if lines.ended => break,
                    None => lines.end(),
                },
            }
        }
        let expected: Vec<_> = expected.iter().map(|line| line.map(str::to_owned)).collect();
        assert_eq!(found, expected, "{text:?} by {chunk_bytes}");
        assert!(lines.is_empty());
    }

    #[test]
    fn lines_are_the_same_however_their_bytes_come() {
        for chunk_bytes in 1..12 {
            check(b"", chunk_bytes, &[]);
            check(b"a\nbcd\n\ne", chunk_bytes, &[Ok("a"), Ok("bcd"), Ok(""), Ok("e")]);
            check(b"abcd\nabcde\nx\n", chunk_bytes, &[Ok("abcd"), Err(()), Ok("x")]);
            check(b"abcdefghijkl\n\nabcdefghijkl", chunk_bytes, &[Err(()), Ok(""), Err(())]);
        }
    }
}
