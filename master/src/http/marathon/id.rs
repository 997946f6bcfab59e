//! Ids of apps and groups, `/web/shop/api`, as roles and names, and ids of tasks.
//!
//! The groups of an app are its role and the rest is its name: `/web/shop/api` is the job `api` of role `web/shop`, and an app without a group
//! is one of role `default`. Two apps are never the same job: what a name cannot hold is written so that it can be read back.

use protocol::ids::{NAME_BYTES_MAX, ROLE_BYTES_MAX, ROLE_DEFAULT, ROLE_NAMES_MAX};
use protocol::{AttemptId, JobId, Name, Role};
use std::fmt;

/// Longest id, in bytes.
const ID_BYTES_MAX: usize = 1_024;
/// Last parts of paths that mean something else than an app.
pub const RESERVED: [&str; 4] = ["restart", "tasks", "versions", "delay"];

/// The id of an app or a group: absolute, `/` for the group of all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(String);

impl AppId {
    /// The group of all.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// The id that `text` is, seen from the group of all.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::root().resolve(text)
    }

    /// The id that `text` is, seen from this one; several slashes are one.
    ///
    /// # Errors
    /// Why it is none.
    pub fn resolve(&self, text: &str) -> Result<Self, String> {
        if text.len() > ID_BYTES_MAX {
            return Err(format!("an id has at most {ID_BYTES_MAX} bytes"));
        }
        let mut parts: Vec<&str> = if text.starts_with('/') { vec![] } else { self.parts().collect() };
        for part in text.split('/').filter(|part| !part.is_empty()) {
            match part {
                "." => {}
                ".." => drop(parts.pop()),
                part if is_part(part) => parts.push(part),
                _ => {
                    return Err("must fully match regular expression \
                         '^(([a-z0-9]|[a-z0-9][a-z0-9\\-]*[a-z0-9])\\.)*([a-z0-9]|[a-z0-9][a-z0-9\\-]*[a-z0-9])|(\\.|\\.\\.)$'"
                        .into());
                }
            }
        }
        Ok(Self(format!("/{}", parts.join("/"))))
    }

    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its parts.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// True for the group of all.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The group that it is in; that of all is in itself.
    pub fn parent(&self) -> Self {
        match self.0.rsplit_once('/') {
            Some(("", _)) | None => Self::root(),
            Some((parent, _)) => Self(parent.into()),
        }
    }

    /// True where it is `group`, or somewhere in it.
    pub fn is_within(&self, group: &Self) -> bool {
        group.is_root() || self.0.strip_prefix(&group.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The role and the name of the job that an app of this id is.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn place(&self) -> Result<(Role, Name), String> {
        let mut parts: Vec<String> = self.parts().map(written).collect();
        let name = parts.pop().ok_or("an app has a name")?;
        let too_long = || format!("each part has at most {NAME_BYTES_MAX} bytes, two for each '.'");
        let name = Name::new(&name).map_err(|_| too_long())?;
        if parts.is_empty() {
            return Ok((Role::new(ROLE_DEFAULT).map_err(|error| error.to_string())?, name));
        }
        if parts[0] == ROLE_DEFAULT {
            parts[0].push_str(GROUP);
        }
        if parts.iter().any(|part| part.len() > NAME_BYTES_MAX) {
            return Err(too_long());
        }
        let role = Role::new(&parts.join("/"));
        let role =
            role.map_err(|_| format!("the groups of an app are its role: at most {ROLE_NAMES_MAX} of {ROLE_BYTES_MAX} bytes together"))?;
        Ok((role, name))
    }

    /// The app that a job is; `None` where no app has such a role or name.
    pub fn of(role: &Role, name: &Name) -> Option<Self> {
        let mut id = String::new();
        if role.as_str() != ROLE_DEFAULT {
            for (at, part) in role.as_str().split('/').enumerate() {
                let part = if at == 0 { part.strip_suffix(GROUP).filter(|part| *part == ROLE_DEFAULT).unwrap_or(part) } else { part };
                id.push('/');
                id.push_str(&read(part)?);
            }
        }
        id.push('/');
        id.push_str(&read(name.as_str())?);
        let id = Self(id);
        // Another writing of the same would be another job.
        (id.place().ok()? == (role.clone(), name.clone())).then_some(id)
    }

    /// What the ids of its tasks begin with.
    pub fn task_prefix(&self) -> String {
        self.parts().collect::<Vec<_>>().join("_")
    }
}

/// What stands behind `default` where that is a group, since the role of that name has the apps without one.
const GROUP: &str = "--g";

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names with dots between, as Marathon's ids have them.
fn is_part(part: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(inside) && !name.starts_with('-') && !name.ends_with('-');
    part.split('.').all(is_name)
}

/// A part of an id as a name: itself, where it has neither a dot nor two hyphens side by side; else `--d` for each dot and `--h` for each hyphen.
fn written(part: &str) -> String {
    match part.contains('.') || part.contains("--") {
        true => part.replace('-', "--h").replace('.', "--d"),
        false => part.to_owned(),
    }
}

/// The part of an id that a name was written of.
fn read(name: &str) -> Option<String> {
    if !name.contains("--") {
        return Some(name.to_owned());
    }
    let part = name.replace("--d", ".").replace("--h", "-");
    is_part(&part).then_some(part)
}

/// The id of a task, as clients see it: the app's, and which attempt it is.
pub fn task_id(prefix: &str, attempt: AttemptId) -> String {
    format!("{prefix}.{}-{}-{}", attempt.task.job, attempt.task.index, attempt.number)
}

/// The same as an agent fills it in.
pub fn task_id_gap(prefix: &str) -> String {
    format!("{prefix}.${{job.id}}-${{task.index}}-${{task.attempt}}")
}

/// The attempt that a task's id names.
pub fn attempt(text: &str) -> Option<AttemptId> {
    let (_, tail) = text.rsplit_once('.')?;
    let mut parts = tail.splitn(3, '-');
    let job: JobId = parts.next()?.parse().ok()?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let (index, number) = (number(parts.next()?)?, number(parts.next()?)?);
    Some(AttemptId::new(job, index, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> AppId {
        AppId::parse(text).unwrap()
    }

    #[test]
    fn slashes_and_dots_of_a_path_are_taken_as_marathon_takes_them() {
        for (text, expected) in
            [("a", "/a"), ("//a", "/a"), ("/a//b/", "/a/b"), ("a/./b/../c", "/a/c"), ("/..", "/"), ("", "/"), ("a.b-c", "/a.b-c")]
        {
            assert_eq!(id(text).as_str(), expected, "{text}");
        }
        assert_eq!(id("/g").resolve("x/y").unwrap(), id("/g/x/y"));
        assert_eq!(id("/g").resolve("/x").unwrap(), id("/x"));
        assert_eq!((id("/a/b").parent(), id("/a").parent(), id("/").parent()), (id("/a"), id("/"), id("/")));
        assert!(id("/a/b").is_within(&id("/a")) && !id("/ab").is_within(&id("/a")) && id("/a").is_within(&id("/")));
        for wrong in
            ["/A", "/a_b", "/-a", "/a-", "/a b", "/é", "/a\u{1b}[31m", "/<b>", "/a.", "/.a", "/a/*", &format!("/{}", "x".repeat(2_000))]
        {
            assert!(AppId::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_app_is_a_job_of_its_own_and_can_be_told_from_it() {
        let all = [
            ("/app", "default", "app"),
            ("/default/app", "default--g", "app"),
            ("/default/default/app", "default--g/default", "app"),
            ("/web/shop/api", "web/shop", "api"),
            ("/web/default", "web", "default"),
            ("/a.b", "default", "a--db"),
            ("/a-b.c", "default", "a--hb--dc"),
            ("/a--db", "default", "a--h--hdb"),
            ("/default--g/app", "default--h--hg", "app"),
            ("/a-b", "default", "a-b"),
        ];
        for (text, role, name) in all {
            let (own_role, own_name) = id(text).place().unwrap();
            assert_eq!((own_role.as_str(), own_name.as_str()), (role, name), "{text}");
            assert_eq!(AppId::of(&own_role, &own_name), Some(id(text)));
        }
        let job = |role: &str, name: &str| AppId::of(&Role::new(role).unwrap(), &Name::new(name).unwrap());
        for (role, name) in [("default", "a--b"), ("default", "a--hb"), ("web--g", "a"), ("default", "a--d")] {
            assert_eq!(job(role, name), None, "{role} {name}");
        }
        assert!(id("/a/b/c/d/e/f/g/h/i/j").place().is_err() && id(&format!("/{}", "x".repeat(64))).place().is_err());
        assert!(id(&format!("/{}/x", "x".repeat(64))).place().is_err() && AppId::root().place().is_err());
    }

    #[test]
    fn a_tasks_id_names_its_attempt() {
        let one = AttemptId::new(JobId(42), 3, 2);
        let text = task_id(&id("/web/a.b").task_prefix(), one);
        assert_eq!((text.as_str(), attempt(&text)), ("web_a.b.j2a-3-2", Some(one)));
        for wrong in ["", "x", "a.j2a", "a.j2a-1", "a.j2a-1-2-3", "a.x-1-2", "a.j2a--1-2", "a.j2a-1-+2"] {
            assert_eq!(attempt(wrong), None, "{wrong}");
        }
    }
}
