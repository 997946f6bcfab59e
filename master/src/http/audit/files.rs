//! An audit record on the disk: lines of JSON in files of a bounded size, of which the oldest goes when there are too many. Knows no request.

use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes of a file from which on the next one is begun.
pub const FILE_BYTES_MAX: u64 = 8 << 20;
/// Most files that are kept.
pub const FILES_MAX: usize = 16;
/// What the name of a file ends with; before it stands the number of its first call.
const ENDING: &str = ".jsonl";

/// A call that was to change something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its number, rising in the order in which calls were answered.
    pub number: u64,
    /// When it came in, in milliseconds of the Unix epoch.
    pub at_ms: u64,
    /// The id of the caller's token; empty where none is asked for.
    pub token: String,
    /// `POST`, say.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// What it was, where the path does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// The status of its answer; nothing where its client left before that.
    #[serde(default)]
    pub status: Option<u16>,
}

/// The files, of which the last one is written to.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    /// The numbers of their first calls, rising.
    firsts: Vec<u64>,
    /// The last of them and its bytes; `None`: the next call begins one.
    open: Option<(File, u64)>,
    /// The number of the next call.
    next: u64,
    bytes_max: u64,
}

impl Files {
    /// Those in `dir`, which is made where its parent is there. What was written half is cut off.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(dir: PathBuf, bytes_max: u64) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut firsts = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let name = entry?.file_name();
            firsts.extend(name.to_str().and_then(|name| name.strip_suffix(ENDING)?.parse::<u64>().ok()));
        }
        firsts.sort_unstable();
        let mut files = Self { dir, firsts, open: None, next: 1, bytes_max };
        let Some(&last) = files.firsts.last() else { return Ok(files) };
        let path = files.path(last);
        let text = fs::read(&path)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        files.next = calls(&text).next().map_or(last, |call| call.number.saturating_add(1));
        let file = File::options().append(true).open(&path)?;
        file.set_len(whole as u64)?;
        files.open = Some((file, whole as u64));
        Ok(files)
    }

    /// Adds calls, and gives them their numbers.
    ///
    /// # Errors
    /// What the system says; then none of them is there.
    pub fn add(&mut self, calls: &mut [Call]) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(_, bytes)| *bytes >= self.bytes_max) {
            self.begin()?;
        }
        let (file, bytes) = self.open.as_mut().expect("one was begun");
        let mut text = Vec::new();
        for (call, number) in calls.iter_mut().zip(self.next..) {
            call.number = number;
            serde_json::to_writer(&mut text, call)?;
            text.push(b'\n');
        }
        if let Err(error) = file.write_all(&text) {
            // Where that fails too, a line is not whole, and is passed over by who reads.
            let _ = file.set_len(*bytes);
            return Err(error);
        }
        *bytes += text.len() as u64;
        self.next += calls.len() as u64;
        Ok(())
    }

    /// At most `limit` calls of numbers below `before`, the newest first.
    ///
    /// # Errors
    /// What the system says.
    pub fn before(&self, before: u64, limit: usize) -> io::Result<Vec<Call>> {
        let mut found = Vec::new();
        for first in self.firsts.iter().rev().filter(|first| **first < before) {
            let text = fs::read(self.path(*first))?;
            found.extend(calls(&text).filter(|call| call.number < before).take(limit - found.len()));
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    fn path(&self, first: u64) -> PathBuf {
        path(&self.dir, first)
    }

    /// Begins the next file, and removes what is too many.
    fn begin(&mut self) -> io::Result<()> {
        // Where the last one has no call that can be read, it is gone on with.
        let file = File::options().append(true).create(true).mode(0o600).open(self.path(self.next))?;
        let bytes = file.metadata()?.len();
        self.open = Some((file, bytes));
        if self.firsts.last() != Some(&self.next) {
            self.firsts.push(self.next);
        }
        while self.firsts.len() > FILES_MAX {
            fs::remove_file(path(&self.dir, self.firsts.remove(0)))?;
        }
        Ok(())
    }
}

fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}{ENDING}"))
}

/// The calls of a file from its end on; what is no call is passed over.
fn calls(text: &[u8]) -> impl Iterator<Item = Call> + '_ {
    text.rsplit(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::Folder;

    fn call(path: &str) -> Call {
        let (token, method) = ("a".to_owned(), "POST".to_owned());
        Call { number: 0, at_ms: 5, token, method, path: path.into(), what: None, status: Some(200) }
    }

    fn numbers(files: &Files, before: u64, limit: usize) -> Vec<u64> {
        files.before(before, limit).unwrap().iter().map(|call| call.number).collect()
    }

    #[test]
    fn calls_are_read_newest_first_over_all_files_and_the_oldest_file_goes() {
        let folder = Folder::new();
        let dir = folder.path().join("audit");
        let each = serde_json::to_vec(&call("/0000000")).unwrap().len() as u64;
        // Two calls to a file.
        let mut files = Files::open(dir.clone(), each + 5).unwrap();
        assert_eq!(numbers(&files, u64::MAX, 10), [0; 0]);
        for n in 0..5 {
            files.add(&mut [call(&format!("/{n:07}"))]).unwrap();
        }
        assert_eq!(numbers(&files, u64::MAX, 10), [5, 4, 3, 2, 1]);
        assert_eq!(numbers(&files, 5, 2), [4, 3]);
        assert_eq!(numbers(&files, 3, 2), [2, 1]);
        assert_eq!(numbers(&files, 1, 2), [0; 0]);
        drop(files);
        let mut files = Files::open(dir.clone(), each + 5).unwrap();
        for n in 5..2 * FILES_MAX as u64 + 6 {
            files.add(&mut [call(&format!("/{n:07}"))]).unwrap();
        }
        let kept = fs::read_dir(&dir).unwrap().count();
        let all = numbers(&files, u64::MAX, 1_000);
        assert_eq!((kept, all[0]), (FILES_MAX, 2 * FILES_MAX as u64 + 6));
        assert!(all.windows(2).all(|pair| pair[0] == pair[1] + 1) && all.len() <= 2 * FILES_MAX && all.len() > 2 * FILES_MAX - 2);
    }

    #[test]
    fn what_was_written_half_is_cut_off_and_what_is_no_call_passed_over() {
        let folder = Folder::new();
        let dir = folder.path().join("audit");
        let mut files = Files::open(dir.clone(), 1 << 20).unwrap();
        files.add(&mut [call("/1"), call("/2")]).unwrap();
        drop(files);
        let name = path(&dir, 1);
        let mut text = fs::read(&name).unwrap();
        text.extend(b"no call\n{\"number\":9,\"at_");
        fs::write(&name, &text).unwrap();
        let mut files = Files::open(dir.clone(), 1 << 20).unwrap();
        files.add(&mut [call("/3")]).unwrap();
        assert_eq!(numbers(&files, u64::MAX, 10), [3, 2, 1]);
        drop(files);
        // A file of which nothing is whole is gone on with.
        fs::write(&name, b"{\"numb").unwrap();
        let mut files = Files::open(dir, 1 << 20).unwrap();
        files.add(&mut [call("/1")]).unwrap();
        assert_eq!(numbers(&files, u64::MAX, 10), [1]);
    }

    #[test]
    fn without_a_data_directory_there_is_none() {
        assert!(Files::open("nowhere/audit".into(), 1).is_err());
    }
}
