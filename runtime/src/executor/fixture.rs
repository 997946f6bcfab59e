//! What tests of executors stand on: folders that are removed again, and the example program that is an executor.

use super::process::{Started, Template};
use crate::process::{AGENT_IDS, ROLE_IDS};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A new folder, passable for everyone as those of an agent are; removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("skep-executor-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for dir in std::fs::read_dir(self.0.join("executors")).into_iter().flatten().flatten() {
            kill(&dir.path());
        }
        if let Ok(live) = std::fs::canonicalize(self.0.join("processes/live")) {
            let _ = std::fs::remove_dir_all(live);
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `examples/executor.rs`, which cargo builds beside the tests.
pub(crate) fn binary() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let binary = tests.parent().and_then(Path::parent).unwrap().join("examples/executor");
    assert!(binary.exists(), "{}: `cargo test -p runtime` builds it, `cargo test --lib` does not", binary.display());
    binary
}

/// Who executors become: somebody without a name, where that is possible.
pub(crate) fn uid() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(ROLE_IDS.start + 234)
}

/// Whom templates serve: where that is possible another one than who tests.
pub(crate) fn owner() -> u32 {
    let user = rustix::process::geteuid();
    if user.is_root() { AGENT_IDS.start + 234 } else { user.as_raw() }
}

/// A template of `folder`.
pub(crate) async fn template(folder: &Folder) -> Template {
    Started::start(&binary(), folder.path(), owner()).unwrap().meet().await.unwrap()
}

/// Ends the executor in `dir` by force.
pub(crate) fn kill(dir: &Path) {
    if let Ok(Some(identity)) = super::place::Identity::read(dir) {
        super::place::end_process(&identity).unwrap();
    }
}
