//! How an image is started: what its maker says, with what a job says instead, and who its user is by its own `/etc/passwd` and
//! `/etc/group`, which were read when it was unpacked. Knows no limits and no mounts.

use super::merged::View;
use super::{Image, ImageConfig, UnpackError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where programs are looked for in an image that does not say it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest `/etc/passwd` and `/etc/group` that are read.
const ACCOUNTS_BYTES_MAX: u64 = 1 << 20;
/// Most other groups that a user is in (setgroups(2)).
const GROUPS_MAX: usize = 65_536;

/// What a job says about how its image is started; what is `None` or empty is as the image says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Instead of the entrypoint. The image's arguments are then left out too: they were meant for another program.
    pub command: Option<Vec<String>>,
    /// Instead of the image's arguments.
    pub args: Option<Vec<String>>,
    /// Besides the image's environment, and instead of what has the same name there.
    pub env: Vec<(String, String)>,
    /// `USER` or `USER:GROUP`, names or numbers.
    pub user: Option<String>,
    /// The working directory; from the root where it does not say so.
    pub dir: Option<String>,
}

/// How a task of an image is started: these parts of a [`ProcessSpec`](crate::process::ProcessSpec).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// The program and its arguments. Not empty.
    pub command: Vec<String>,
    /// The whole environment, each name once; has `PATH` and `HOME`.
    pub env: Vec<(String, String)>,
    /// The working directory, absolute.
    pub dir: String,
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups, ascending.
    pub groups: Vec<u32>,
    /// What asks it to stop, where the image says so.
    pub stop_signal: Option<i32>,
}

/// Why a task of an image cannot be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Neither the image nor the job says what is run.
    #[error("the image has no entrypoint and no command, and the job names none: nothing says what is run")]
    Command,
    /// The image has no such user.
    #[error("user {user:?}: the image's /etc/passwd has none of that name")]
    User {
        /// Which.
        user: String,
    },
    /// The image has no such group.
    #[error("group {group:?}: the image's /etc/group has none of that name")]
    Group {
        /// Which.
        group: String,
    },
    /// A text has a NUL in it, or a name of the environment is empty or has a `=`.
    #[error("{what}: it cannot be given to a program")]
    Text {
        /// Which.
        what: String,
    },
    /// The image's accounts cannot be read.
    #[error(transparent)]
    Accounts(#[from] UnpackError),
}

/// Who there is in an image: its `/etc/passwd` and `/etc/group`, empty where it has none; or why they cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    passwd: Result<String, UnpackError>,
    group: Result<String, UnpackError>,
}

impl Accounts {
    /// Those of an image with these layers, the lowest first. Blocks, for some small files.
    pub(super) fn read(layers: &[PathBuf]) -> Self {
        let view = View::new(layers);
        let text = |path| {
            let bytes = view.read(path, ACCOUNTS_BYTES_MAX)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Self { passwd: text("/etc/passwd"), group: text("/etc/group") }
    }
}

/// Merges what `image` and the job say.
///
/// # Errors
/// Where nothing says what is run, or its user is not known.
pub fn start(image: &Image, overrides: &Overrides) -> Result<Pieces, StartError> {
    let ImageConfig { entrypoint, command, env, user, dir, stop_signal, ports: _ } = &image.config;
    let args = match (&overrides.args, &overrides.command) {
        (Some(args), _) => args.as_slice(),
        (None, Some(_)) => &[],
        (None, None) => command,
    };
    let command: Vec<String> = overrides.command.as_ref().unwrap_or(entrypoint).iter().chain(args).cloned().collect();
    if command.first().is_none_or(String::is_empty) {
        return Err(StartError::Command);
    }
    let account = account(&image.accounts, overrides.user.as_ref().unwrap_or(user))?;
    let env = environment(env.iter().chain(&overrides.env), &account.home);
    let dir = match overrides.dir.as_ref().unwrap_or(dir) {
        dir if dir.starts_with('/') => dir.clone(),
        dir => format!("/{dir}"),
    };
    for text in command.iter().chain([&dir]).chain(env.iter().flat_map(|(name, value)| [name, value])) {
        if text.contains('\0') {
            return Err(StartError::Text { what: format!("{text:?} has a NUL in it") });
        }
    }
    if let Some((name, _)) = env.iter().find(|(name, _)| name.is_empty() || name.contains('=')) {
        return Err(StartError::Text { what: format!("an environment with the name {name:?}") });
    }
    Ok(Pieces { command, env, dir, uid: account.uid, gid: account.gid, groups: account.groups, stop_signal: *stop_signal })
}

/// In the order in which names come first; of the same name the last.
fn environment<'a>(said: impl Iterator<Item = &'a (String, String)>, home: &str) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = vec![];
    let mut places = BTreeMap::new();
    for (name, value) in said {
        let place = *places.entry(name).or_insert(env.len());
        match env.get_mut(place) {
            Some(pair) => pair.1.clone_from(value),
            None => env.push((name.clone(), value.clone())),
        }
    }
    for (name, value) in [("PATH", PATH), ("HOME", home)] {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.into(), value.into()));
        }
    }
    env
}

#[derive(Debug, PartialEq, Eq)]
struct Account {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: String,
}

/// Who `user` is, as container engines take it (moby/sys, user/user.go, `GetExecUser`): a name, or else a number, which need not be known;
/// its groups are those of the image unless one is named.
fn account(accounts: &Accounts, user: &str) -> Result<Account, StartError> {
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group).filter(|group| !group.is_empty())));
    let user = if user.is_empty() { "0" } else { user };
    let (passwd, groups) = (accounts.passwd.as_ref(), accounts.group.as_ref());
    let (passwd, groups) = (passwd.map_err(UnpackError::clone)?.lines(), groups.map_err(UnpackError::clone)?.lines());
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id <= i32::MAX.unsigned_abs());
    // NAME:PASSWORD:UID:GID:COMMENT:HOME:SHELL (passwd(5)); NAME:PASSWORD:GID:MEMBERS (group(5)).
    let known = passwd.map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 6);
    let known: Vec<_> =
        known.filter_map(|fields| Some((fields[0].to_owned(), number(fields[2])?, number(fields[3])?, fields[5]))).collect();
    let found = known.iter().find(|(name, ..)| name == user).or_else(|| known.iter().find(|(_, uid, ..)| Some(*uid) == number(user)));
    let (name, uid, gid, home) = match (found, number(user)) {
        (Some((name, uid, gid, home)), _) => (Some(name.as_str()), *uid, *gid, *home),
        (None, Some(uid)) => (None, uid, 0, ""),
        (None, None) => return Err(StartError::User { user: user.chars().take(64).collect() }),
    };
    let home = if home.is_empty() { "/".to_owned() } else { home.to_owned() };
    let named = groups.map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 3);
    let named: Vec<_> = named.filter_map(|fields| Some((fields[0], number(fields[2])?, fields.get(3).copied().unwrap_or("")))).collect();
    let Some(group) = group else {
        let member = |members: &str| name.is_some_and(|name| members.split(',').any(|member| member == name));
        let mut groups: Vec<u32> = named.iter().filter(|(_, _, members)| member(members)).map(|(_, gid, _)| *gid).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.truncate(GROUPS_MAX);
        return Ok(Account { uid, gid, groups, home });
    };
    let gid = named.iter().find(|(name, ..)| *name == group).map(|(_, gid, _)| *gid).or_else(|| number(group));
    let gid = gid.ok_or_else(|| StartError::Group { group: group.chars().take(64).collect() })?;
    Ok(Account { uid, gid, groups: vec![], home })
}
