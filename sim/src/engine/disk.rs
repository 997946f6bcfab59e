//! A master's disk where the real journal is: a directory of its own, and what an end of power leaves of what was written last.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are torn off the end of what was written.
const TORN_BYTES: usize = 16;
/// Makes the directories of one process differ.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A directory that is gone with it.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// An empty one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new() -> io::Result<Self> {
        let name = format!("skep-sim-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// All that was on it is gone.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn lose(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.0)?;
        fs::create_dir_all(&self.0)
    }

    /// The end of what was written last to the log is torn off.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn tear(&self) -> io::Result<()> {
        let logs = fs::read_dir(&self.0)?.collect::<io::Result<Vec<_>>>()?;
        let last = logs.into_iter().map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "log")).max();
        let Some(path) = last else { return Ok(()) };
        let bytes = fs::read(&path)?;
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // Its head was durable before it had its name.
        let from = end.saturating_sub(TORN_BYTES);
        if from < HEAD_BYTES {
            return Ok(());
        }
        let file: File = OpenOptions::new().write(true).open(&path)?;
        file.write_all_at(&vec![0; end - from], from as u64)
    }
}

/// Bytes of a segment's head.
const HEAD_BYTES: usize = 72;

impl Drop for Disk {
    fn drop(&mut self) {
        // What is left is in a directory for what may be left.
        let _ = fs::remove_dir_all(&self.0);
    }
}
