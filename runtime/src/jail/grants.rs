//! Which files a process may reach: Landlock, as far as the kernel has it.

use super::{Confinement, failed};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use std::path::Path;

/// The newest rights that we know how to deny: files (1), truncation (3), TCP (4), device ioctls (5), abstract sockets and signals (6).
const KNOWN: ABI = ABI::V6;

const NONE: &str =
    "the kernel has no Landlock (5.13 or later, with landlock in its lsm list): seccomp and the executor's own user hold its files instead";
const PART: &str =
    "the kernel's Landlock is older than 6.12: seccomp alone keeps executors from networks, other processes' sockets and signals";

fn ruleset(level: CompatLevel) -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))
}

pub(super) fn lacks() -> Option<String> {
    if ruleset(CompatLevel::HardRequirement).and_then(Ruleset::create).is_ok() {
        return None;
    }
    let files = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::from_all(ABI::V1));
    Some(if files.and_then(Ruleset::create).is_ok() { PART.into() } else { NONE.into() })
}

pub(super) fn enter(confinement: &Confinement) -> Result<Option<String>, String> {
    let rule = |path: &Path, access: BitFlags<AccessFs>| {
        let opened = PathFd::new(path).map_err(|error| failed(&format!("opening {}", path.display()), error))?;
        // Rights on directories mean nothing for a file, and the kernel refuses them.
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
        Ok::<_, String>(PathBeneath::new(opened, access))
    };
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Truncate;
    let mut rules = ruleset(CompatLevel::BestEffort).and_then(Ruleset::create).map_err(|error| failed("landlock_create_ruleset", error))?;
    let readable = confinement.readable.iter().map(|path| (path, read));
    for (path, access) in readable.chain(confinement.writable.iter().map(|path| (path, write))) {
        rules = rules.add_rule(rule(path, access)?).map_err(|error| failed(&format!("landlock_add_rule {}", path.display()), error))?;
    }
    let status = rules.restrict_self().map_err(|error| failed("landlock_restrict_self", error))?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => Some(PART.into()),
        RulesetStatus::NotEnforced => Some(NONE.into()),
    })
}
