//! What executors leave, ended and removed. What an executor wrote down is believed as far as it concerns itself: one that was taken over names
//! no other's processes, groups or files.

use super::places::{Places, Which};
use super::{TASK, Witness};
use crate::container::absent_is_fine;
use crate::executor::place::{self, Identity};
use crate::executor::record;
use crate::jail::cgroup::Hierarchies;
use crate::process::{IDS_PER_TASK, KEEPER, ProcessSpec};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// All files in an executor's directory. What says that a control group may be there goes last.
pub(super) const FILES: [&str; 7] = [place::SOCKET, place::IDENTITY, place::ERRORS, TASK, record::NAMES[0], record::NAMES[1], place::SPEC];

/// Ends an executor by force, if one lives; returns once it is dead.
pub(super) fn end(places: &Places, which: Which) -> io::Result<()> {
    let dir = places.dir(which);
    Identity::read(&dir)?.map_or(Ok(()), |identity| end_own(&dir, which, &identity))
}

/// The same, with all that it leaves: what still runs of its task, its control groups, its disk, and its directory. Doing it twice does no harm.
pub(super) fn clear(places: &Places, which: Which, hierarchies: &Hierarchies) -> io::Result<()> {
    let dir = places.dir(which);
    end(places, which)?;
    let Which::Process(key) = which else { return absent_is_fine(fs::remove_dir_all(&dir)) };
    if let Some(task) = Witness::of_task(&dir).0 {
        end_own(&dir, which, &task)?;
    }
    let spec = match fs::read(dir.join(place::SPEC)) {
        Ok(bytes) => postcard::from_bytes::<ProcessSpec>(&bytes).ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(spec) = spec.filter(|spec| places.has_group(&spec.cgroup)) {
        hierarchies.remove(&spec.cgroup).map_err(io::Error::other)?;
    }
    absent_is_fine(fs::remove_file(places.disk(key)))?;
    empty(&dir)?;
    absent_is_fine(fs::remove_dir(&dir))
}

/// Removes what an agent that was killed with all its processes leaves of native and container tasks: for whoever made its data directory `data`
/// for a moment only. Blocking.
///
/// # Errors
/// What the system says.
pub fn sweep(data: &Path) -> io::Result<()> {
    let Some(places) = Places::find(data) else { return Ok(()) };
    let hierarchies = Hierarchies::find();
    for entry in fs::read_dir(places.live())? {
        let key = entry?.file_name().to_str().and_then(|name| u128::from_str_radix(name, 16).ok());
        if let Some(key) = key {
            clear(&places, Which::Process(crate::Key(key)), &hierarchies)?;
        }
    }
    absent_is_fine(fs::remove_dir(places.live()))?;
    hierarchies.remove(places.group()).and_then(|()| hierarchies.remove(&places.idle_group())).map_err(io::Error::other)
}

/// Removes all files in a process's executor's directory.
pub(super) fn empty(dir: &Path) -> io::Result<()> {
    FILES.iter().try_for_each(|name| absent_is_fine(fs::remove_file(dir.join(name))))
}

/// Ends a process that the executor in `dir` says is its own or its task's, where it can be.
fn end_own(dir: &Path, which: Which, identity: &Identity) -> io::Result<()> {
    match is_own(dir, which, identity)? {
        Some(true) => place::end_process(identity),
        Some(false) => Err(io::Error::other(format!("process {}, which {} names, is none of it", identity.pid, dir.display()))),
        None => Ok(()),
    }
}

/// Whether a process can be what the executor in `dir` says: by its user, or as one that was forked as it was and has not become that user yet.
/// `None`: it has ended.
pub(super) fn is_own(dir: &Path, which: Which, identity: &Identity) -> io::Result<Option<bool>> {
    let owner = fs::symlink_metadata(dir)?.uid();
    // While it is root's nobody else has written there; and without root nobody can end what is not his.
    if owner == 0 || !rustix::process::geteuid().is_root() {
        return Ok(Some(true));
    }
    let status = fs::read_to_string(format!("/proc/{}/status", identity.pid)).unwrap_or_default();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse::<u32>().ok());
    let Some(user) = user else { return Ok(None) };
    let arguments = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let its = || arguments(&identity.pid.to_string());
    Ok(Some(match which {
        Which::Wasm(_) => user == owner || (user == 0 && its().ends_with(&[dir.as_os_str().as_encoded_bytes(), b"\0"].concat())),
        Which::Process(_) => {
            let first = owner.saturating_sub(KEEPER);
            (first..first + IDS_PER_TASK).contains(&user) || (user == 0 && its() == arguments("self"))
        }
    }))
}
