//! Who a task is, seen from outside: its user namespace's maps, and the user whom the namespace belongs to.

use super::super::failed;
use crate::process::{Ids, ProcessSpec};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::process::{Uid, getegid, geteuid};

pub(super) fn lacks() -> Option<String> {
    let user = geteuid();
    let sentence = || {
        let who = user.as_raw();
        format!(
            "not root: native and container tasks run as this user ({who}) in user namespaces, not each as a user of its own, and images see one user only"
        )
    };
    (!user.is_root()).then(sentence)
}

/// The effective user becomes `keeper`: a user namespace belongs to who makes it, and its owner may do all inside and nothing else.
pub(super) fn become_keeper(keeper: Option<u32>) -> Result<(), String> {
    let Some(keeper) = keeper else { return Ok(()) };
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::from_raw(keeper), Uid::ROOT)
        .map_err(|error| failed(&format!("setresuid 0 {keeper} 0"), error))
}

/// After the fork, in the process that forked.
pub(super) fn become_root_again(keeper: Option<u32>) -> Result<(), String> {
    if keeper.is_none() {
        return Ok(());
    }
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(|error| failed("setresuid 0 0 0", error))
}

/// Writes the maps of the process `pid`, which has just been forked into its user namespace.
pub(super) fn write(spec: &ProcessSpec, pid: u32) -> Result<(), String> {
    let Ids { inside, outside, count, .. } = spec.ids;
    let path = format!("/proc/{pid}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(path.as_str(), flags, Mode::empty()).map_err(|error| failed(&format!("opening {path}"), error))?;
    let put = |file: &str, text: String| {
        let opened = openat(&folder, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let written = opened.and_then(|file| rustix::io::write(file, text.as_bytes()));
        written.map(drop).map_err(|error| failed(&format!("writing {} to {path}/{file}", text.trim()), error))
    };
    match outside {
        Some(outside) => {
            // The executor is the last that the kernel ends for want of memory; the task is as any other.
            put("oom_score_adj", "0\n".into())?;
            put("uid_map", format!("{inside} {outside} {count}\n"))?;
            put("gid_map", format!("{inside} {outside} {count}\n"))
        }
        None => {
            // Who is not root may map his own ids only, and gives up setgroups(2) for it (user_namespaces(7)).
            put("setgroups", "deny".into())?;
            put("uid_map", format!("{inside} {} 1\n", geteuid().as_raw()))?;
            put("gid_map", format!("{inside} {} 1\n", getegid().as_raw()))
        }
    }
}
