//! What the tasks of roles may have of their hosts, on record; on shard 0 only. Whoever admits jobs asks [`Policy::forbids`].

use super::event::{Change, HostPath, Policy};
use super::snapshot::LastingRest;
use super::{Record, Refusal, Response, Shard};
use protocol::job::{HostMount, Network, Process};
use protocol::{RequestId, Role, ShardId};

/// Most roles with a policy.
pub const POLICIES_MAX: usize = 10_000;
/// Most paths of one policy.
pub const HOST_PATHS_MAX: usize = 64;
/// Longest path of a policy, in bytes.
pub const HOST_PATH_BYTES_MAX: usize = 1_024;
/// When it makes sense to ask again where there are too many.
const RETRY_AFTER_MS: u64 = 10_000;

impl Policy {
    /// What a task wants of its host and may not have; `None`: it may.
    #[must_use]
    pub fn forbids<'a>(&self, process: &'a Process) -> Option<Forbidden<'a>> {
        if process.network == Network::Host && !self.host_network {
            return Some(Forbidden::Network);
        }
        process.mounts.iter().find(|mount| !self.host_paths.iter().any(|path| path.covers(mount))).map(Forbidden::Mount)
    }
}

/// What a task may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden<'a> {
    /// The host's network.
    Network,
    /// This part of the host.
    Mount(&'a HostMount),
}

impl HostPath {
    /// True where the mount is of this path or below it, name by name, and changes nothing that may not be changed.
    fn covers(&self, mount: &HostMount) -> bool {
        let below = mount.from.strip_prefix(self.path.trim_end_matches('/'));
        (self.writable || !mount.writable) && is_plain(&mount.from) && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// True for an absolute path whose every name is one: nothing in it goes up or stays.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    let mut names = path.strip_prefix('/').into_iter().flat_map(|rest| rest.split('/'));
    path == "/" || (path.starts_with('/') && names.all(|name| !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control)))
}

impl LastingRest {
    pub(super) fn policy_set(&mut self, role: &Role, policy: &Policy) {
        // One that allows nothing is none.
        if *policy == Policy::default() {
            self.policies.remove(role);
        } else {
            self.policies.insert(role.clone(), policy.clone());
        }
    }
}

impl Shard {
    pub(super) fn policy_request(&mut self, id: RequestId, role: Role, policy: Policy) {
        let response = match self.policy_refusal(&role, &policy) {
            Some(refusal) => Response::Refused(refusal),
            None => {
                self.commit(Record::PolicySet { role, policy, at: self.now });
                self.publish(Change::Policies);
                Response::Done
            }
        };
        self.reply(id, response);
    }

    fn policy_refusal(&self, role: &Role, policy: &Policy) -> Option<Refusal> {
        if self.config.id != ShardId(0) {
            return Some(Refusal::Invalid { reason: "policies are shard 0's".into() });
        }
        if policy.host_paths.len() > HOST_PATHS_MAX {
            return Some(Refusal::Invalid { reason: format!("a policy has at most {HOST_PATHS_MAX} paths") });
        }
        if let Some(wrong) = policy.host_paths.iter().find(|path| !is_plain(&path.path) || path.path.len() > HOST_PATH_BYTES_MAX) {
            let reason =
                format!("{:?}: a path of a host is absolute, without . and .., of at most {HOST_PATH_BYTES_MAX} bytes", wrong.path);
            return Some(Refusal::Invalid { reason });
        }
        let many = self.rest.policies.len() >= POLICIES_MAX && !self.rest.policies.contains_key(role);
        many.then(|| Refusal::Busy { reason: format!("there are {POLICIES_MAX} policies already"), retry_after_ms: RETRY_AFTER_MS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[(&str, bool)], from: &str, writable: bool, expected: bool) {
        let host_paths = allowed.iter().map(|(path, writable)| HostPath { path: (*path).into(), writable: *writable }).collect();
        let mounts = vec![HostMount { from: from.into(), to: "/data".into(), writable }];
        let process = Process { mounts, ..Process::default() };
        let forbidden = Policy { host_network: true, host_paths }.forbids(&process).is_some();
        assert_eq!(!forbidden, expected, "{from} (writable: {writable}) with {allowed:?}");
    }

    #[test]
    fn a_mount_is_allowed_by_whole_names_and_never_by_way_of_its_parent() {
        check(&[], "/data", false, false);
        check(&[("/data", false)], "/data", false, true);
        check(&[("/data", false)], "/data/a/b", false, true);
        check(&[("/data", false)], "/data", true, false);
        check(&[("/data", true)], "/data/a", true, true);
        check(&[("/data", true)], "/database", true, false);
        check(&[("/data/", true)], "/data/a", true, true);
        for from in ["/data/../etc", "/data/./a", "/data//a", "data/a", "/data/..", "", "/data/a\0"] {
            check(&[("/data", true)], from, false, false);
        }
        check(&[("/", false)], "/etc", false, true);
        check(&[("/a", true), ("/data", false)], "/data", true, false);
    }

    #[test]
    fn the_hosts_network_is_for_roles_that_may_have_it() {
        let process = Process { network: Network::Host, ..Process::default() };
        assert_eq!(Policy::default().forbids(&process), Some(Forbidden::Network));
        assert_eq!(Policy { host_network: true, host_paths: vec![] }.forbids(&process), None);
        assert_eq!(Policy::default().forbids(&Process::default()), None);
    }
}
