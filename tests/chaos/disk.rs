//! A disk of a master's own: a file system in a file, whose power can be cut and which can be full.

use crate::network::must;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Room for a journal of a few segments of 64 MiB.
const BYTES: u64 = 320 << 20;
/// `ioctl(EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH)`, Linux fs/ext4/ext4.h: nothing that was not synced is written any more.
const SHUTDOWN: &str = "import fcntl,os,struct,sys
fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587d,struct.pack('I',2))";

/// A disk.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// Makes one and mounts it at `at`; `None` where that does not work here.
    pub fn make(image: &Path, at: &Path) -> Option<Self> {
        let file = std::fs::File::create(image).unwrap();
        file.set_len(BYTES).unwrap();
        std::fs::create_dir_all(at).unwrap();
        let disk = Self { image: image.to_owned(), at: at.to_owned() };
        let works =
            |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        let made = works(Command::new("mkfs.ext4").args(["-q", "-m0", "-F"]).arg(image));
        (made && works(Command::new("mount").args(["-o", "loop"]).arg(&disk.image).arg(&disk.at))).then_some(disk)
    }

    /// True where its power can be cut.
    pub fn has_switch() -> bool {
        Command::new("python3").args(["-c", "import fcntl"]).status().is_ok_and(|status| status.success())
    }

    /// Nothing that was not synced reaches it any more, and all that is tried fails.
    pub fn cut_power(&self) {
        must("python3", &["-c", SHUTDOWN, self.at.to_str().unwrap()]);
    }

    /// Power is back. Nobody may have anything open on it.
    pub fn restore(&self) {
        self.end();
        must("mount", &["-o", "loop", self.image.to_str().unwrap(), self.at.to_str().unwrap()]);
    }

    /// Takes it away.
    pub fn end(&self) {
        must("umount", &[self.at.to_str().unwrap()]);
    }

    /// Takes all room there is.
    pub fn fill(&self) {
        let file = OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        let mut length = 0;
        for piece in [64 << 20, 4 << 20, 256 << 10, 4 << 10] {
            while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, piece).is_ok() {
                length += piece;
            }
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        let _ = std::fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}
