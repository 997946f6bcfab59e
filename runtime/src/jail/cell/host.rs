//! The root of native tasks, prepared once: folders, links, devices, and what the host's programs read of its /etc, in a folder of ours that
//! tasks see read-only. Made anew when something of the host has changed; tasks that run keep what they began with.

use super::super::failed;
use rustix::fs::{FileType, Mode, mknodat};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Folders of the host's programs and libraries. Where one is a link, as on systems with a merged /usr, so it is inside.
const FOLDERS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What programs of the host read of its /etc, and nothing else of it: no accounts, no keys, no other service's settings.
const SETTINGS: [&str; 15] = [
    "alternatives",
    "fonts",
    "gai.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];
/// Most bytes of one such file; what is longer is none of those that are meant.
const SETTING_BYTES_MAX: u64 = 16 << 20;
/// Folders that are mounted over, or empty.
const PLACES: [&str; 13] =
    ["bundle", "dev/pts", "dev/shm", "etc/ssl", "proc", "run", "sandbox", "sys", "tmp", "var/cache", "var/lib", "var/log", "empty"];
const LINKS: [(&str, &str); 7] = [
    ("var/tmp", "/tmp"),
    ("var/run", "/run"),
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "fd/0"),
    ("dev/stdout", "fd/1"),
    ("dev/stderr", "fd/2"),
    ("dev/ptmx", "pts/ptmx"),
];
/// Devices that everyone may have, with their numbers (Documentation/admin-guide/devices.txt).
pub(super) const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const FILES: [(&str, &str); 4] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/:/usr/sbin/nologin\ntask:x:1000:1000:task:/sandbox:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    ("etc/group", "root:x:0:\ntask:x:1000:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"),
    ("etc/resolv.conf", ""),
];

/// A root that is ready.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Where the roots are.
    parent: PathBuf,
    /// The one for new tasks.
    pub(super) root: PathBuf,
    /// Of the host's folders those that are folders, to be mounted.
    pub(super) mounted: Vec<&'static str>,
    stamp: u64,
}

impl Host {
    /// Prepares one in `parent`, or takes the one that is there.
    ///
    /// # Errors
    /// What was tried, and the system's words.
    pub(crate) fn prepare(parent: &Path) -> Result<Self, String> {
        let stamp = stamp();
        let root = parent.join(format!("root-{stamp:016x}"));
        let mut host = Self { parent: parent.into(), root, mounted: vec![], stamp };
        if !host.root.exists() {
            // Not there under its name before it is whole.
            let new = parent.join(format!("new-{}", std::process::id()));
            let _ = fs::remove_dir_all(&new);
            make(&new).map_err(|(tried, error)| failed(&format!("{tried} in {}", new.display()), error))?;
            match fs::rename(&new, &host.root) {
                Err(error) if !host.root.exists() => return Err(failed(&format!("renaming {}", new.display()), error)),
                _ => {}
            }
        }
        host.mounted =
            FOLDERS.into_iter().filter(|name| fs::symlink_metadata(host.root.join(name)).is_ok_and(|found| found.is_dir())).collect();
        Ok(host)
    }

    /// Another one where the host has changed.
    pub(crate) fn renew(&mut self) {
        if stamp() == self.stamp {
            return;
        }
        // The old one is as good as it was.
        if let Ok(new) = Self::prepare(&self.parent) {
            *self = new;
        }
    }

    /// Devices and their links alone, for roots of images.
    pub(super) fn devices(&self) -> PathBuf {
        self.root.join("dev")
    }
}

/// What would be another root when the host changes: the state of each thing that is taken from it.
fn stamp() -> u64 {
    let mut hash = DefaultHasher::new();
    for path in FOLDERS.iter().map(|name| format!("/{name}")).chain(SETTINGS.iter().map(|name| format!("/etc/{name}"))) {
        if let Ok(found) = fs::metadata(path) {
            // The host's programs may change without being another root.
            let changed = if found.is_dir() && found.ino() != 0 { (0, 0) } else { (found.mtime(), found.mtime_nsec()) };
            (found.ino(), found.dev(), changed).hash(&mut hash);
        }
    }
    for folder in ["/etc/ssl/certs", "/etc/alternatives"] {
        fs::metadata(folder).map_or(0, |found| found.mtime()).hash(&mut hash);
    }
    hash.finish()
}

fn make(root: &Path) -> Result<(), (String, io::Error)> {
    let tried = |what: &str, name: &str| {
        let tried = format!("{what} {name}");
        move |error| (tried, error)
    };
    for name in PLACES {
        fs::create_dir_all(root.join(name)).map_err(tried("mkdir", name))?;
    }
    for (name, target) in LINKS {
        symlink(target, root.join(name)).map_err(tried("linking", name))?;
    }
    for (name, content) in FILES {
        fs::write(root.join(name), content).map_err(tried("writing", name))?;
    }
    for (name, major, minor) in DEVICES {
        let path = root.join("dev").join(name);
        if !rustix::process::geteuid().is_root() {
            // Places, then: the host's own go there.
            fs::write(&path, "").map_err(tried("writing dev/", name))?;
            continue;
        }
        let made =
            mknodat(rustix::fs::CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), rustix::fs::makedev(major, minor));
        made.map_err(|error| tried("mknod", name)(error.into()))?;
        // The umask does not know what everyone may have.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(tried("chmod", name))?;
    }
    for name in FOLDERS {
        let from = Path::new("/").join(name);
        match fs::symlink_metadata(&from) {
            Ok(found) if found.is_symlink() => {
                fs::read_link(&from).and_then(|target| symlink(target, root.join(name))).map_err(tried("linking", name))?;
            }
            Ok(_) => fs::create_dir(root.join(name)).map_err(tried("mkdir", name))?,
            Err(_) => {}
        }
    }
    for name in SETTINGS {
        copy(&Path::new("/etc").join(name), &root.join("etc").join(name)).map_err(tried("copying /etc/", name))?;
    }
    Ok(())
}

/// Copies files and folders that everyone may read; links as they are, but not the first. What is not there is left out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(found) = fs::metadata(from) else { return Ok(()) };
    if found.permissions().mode() & 0o004 == 0 {
        return Ok(());
    }
    if found.is_file() && found.len() <= SETTING_BYTES_MAX {
        return fs::copy(from, to).and_then(|_| fs::set_permissions(to, fs::Permissions::from_mode(0o444)));
    }
    if !found.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else {
            copy(&from, &to)?;
        }
    }
    Ok(())
}
