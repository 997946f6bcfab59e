//! Which executors this agent ever started that are not yet cleared away, and which user each role's tasks run as. One small file, replaced
//! at each change.

use protocol::message::Launch;
use protocol::{Digest, JobId, Member, Metering, Program, Role};
use runtime::process::ROLE_IDS;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const CHECKSUM_BYTES: usize = 8;

/// What decides which executor a task goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Kind {
    pub role: Role,
    pub metering: Metering,
    /// A job that has an executor of its own.
    pub job: Option<JobId>,
    /// True where its tasks are revocable. It stands behind the rows, where builds of before look for nothing.
    #[serde(skip)]
    pub revocable: bool,
}

/// The kinds of executor that the wasm members of a task of this launch go to, and which members they are.
pub(super) fn kinds(launch: &Launch) -> impl Iterator<Item = (Kind, u8)> {
    // What is revocable runs with what others leave of the processors, and so does its executor.
    let revocable = launch.template.is_revocable();
    let kind = move |(member, at): (&Member, u8)| match member.program {
        Program::Wasm { metering, strict, .. } => {
            // What is fenced must be ended in time, whatever else its role runs.
            let own = strict || launch.template.is_fenced();
            Some((Kind { role: launch.role.clone(), metering, job: own.then_some(launch.job), revocable }, at))
        }
        Program::Native { .. } | Program::Image { .. } => None,
    };
    launch.template.members.iter().zip(0..).filter_map(kind)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Names its directory.
    pub number: u32,
    pub kind: Kind,
    pub uid: Option<u32>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rows {
    next: u32,
    uids: BTreeMap<Role, u32>,
    rows: Vec<Row>,
}

/// The table and its file.
#[derive(Debug)]
pub(super) struct Table {
    file: PathBuf,
    dir: PathBuf,
    rows: Rows,
}

impl Table {
    /// The table in `file` of the executors in `dir`. One that is damaged is taken for empty: its directories are then nobody's, and are ended and
    /// cleared away.
    pub fn open(file: &Path, dir: &Path) -> io::Result<Self> {
        let rows = match fs::read(file) {
            Ok(content) => parse(&content).unwrap_or_else(|| {
                tracing::error!(path = %file.display(), "the table of executors is damaged: those that run are ended");
                Rows::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Rows::default(),
            Err(error) => return Err(error),
        };
        let mut table = Self { file: file.to_owned(), dir: dir.to_owned(), rows };
        // A number is never given twice, even where the table was lost.
        let used = table.numbers_on_disk()?.into_iter().max().map_or(0, |number| number.saturating_add(1));
        table.rows.next = table.rows.next.max(used);
        Ok(table)
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows.rows
    }

    /// Directories that no row speaks of.
    pub fn strays(&self) -> io::Result<Vec<u32>> {
        let known = |number: &u32| self.rows.rows.iter().any(|row| row.number == *number);
        Ok(self.numbers_on_disk()?.into_iter().filter(|number| !known(number)).collect())
    }

    /// A row for a new executor; with a user of its role's own where `root`.
    pub fn add(&mut self, kind: Kind, root: bool) -> io::Result<Row> {
        let uid = root.then(|| self.uid(&kind.role)).flatten();
        let row = Row { number: self.rows.next, kind, uid };
        self.rows.next += 1;
        self.rows.rows.push(row.clone());
        self.save()?;
        Ok(row)
    }

    pub fn remove(&mut self, number: u32) -> io::Result<()> {
        self.rows.rows.retain(|row| row.number != number);
        self.save()
    }

    /// The role's user: by a hash of its name, the next free one where that is taken.
    fn uid(&mut self, role: &Role) -> Option<u32> {
        if let Some(uid) = self.rows.uids.get(role) {
            return Some(*uid);
        }
        let hash = Digest::of(role.as_str().as_bytes()).0;
        let many = ROLE_IDS.end - ROLE_IDS.start;
        let start = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]) % many;
        let taken: BTreeSet<u32> = self.rows.uids.values().copied().collect();
        let uid = (0..many).map(|step| ROLE_IDS.start + (start + step) % many).find(|uid| !taken.contains(uid))?;
        self.rows.uids.insert(role.clone(), uid);
        Some(uid)
    }

    fn save(&self) -> io::Result<()> {
        let revocable: BTreeSet<u32> = self.rows.rows.iter().filter(|row| row.kind.revocable).map(|row| row.number).collect();
        let body = postcard::to_stdvec(&(&self.rows, revocable)).map_err(io::Error::other)?;
        let mut content = blake3::hash(&body).as_bytes()[..CHECKSUM_BYTES].to_vec();
        content.extend(body);
        let new = self.file.with_extension("new");
        fs::write(&new, content)?;
        fs::rename(new, &self.file)
    }

    fn numbers_on_disk(&self) -> io::Result<Vec<u32>> {
        let entries = fs::read_dir(&self.dir)?.collect::<io::Result<Vec<_>>>()?;
        Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }
}

fn parse(content: &[u8]) -> Option<Rows> {
    let (checksum, body) = content.split_at_checked(CHECKSUM_BYTES)?;
    if blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] != *checksum {
        return None;
    }
    let (mut rows, rest): (Rows, &[u8]) = postcard::take_from_bytes(body).ok()?;
    let revocable: BTreeSet<u32> = if rest.is_empty() { BTreeSet::new() } else { postcard::from_bytes(rest).ok()? };
    rows.rows.iter_mut().for_each(|row| row.kind.revocable = revocable.contains(&row.number));
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn kind(role: &str) -> Kind {
        Kind { role: Role::new(role).unwrap(), metering: Metering::Fuel, job: None, revocable: false }
    }

    #[test]
    fn roles_keep_their_users_and_no_two_have_the_same() {
        let dir = Scratch::new();
        let mut table = Table::open(&dir.path().join("table"), dir.path()).unwrap();
        let uids: Vec<u32> = (0..300).map(|n| table.add(kind(&format!("r{n}")), true).unwrap().uid.unwrap()).collect();
        let distinct: BTreeSet<&u32> = uids.iter().collect();
        assert_eq!(distinct.len(), 300);
        assert!(uids.iter().all(|uid| ROLE_IDS.contains(uid)));
        let mut table = Table::open(&dir.path().join("table"), dir.path()).unwrap();
        let again = table.add(kind("r7"), true).unwrap();
        assert_eq!((again.uid, again.number), (Some(uids[7]), 300));
        assert_eq!(table.add(kind("r7"), false).unwrap().uid, None);
    }

    #[test]
    fn what_is_revocable_is_told_apart_and_a_table_of_before_is_read() {
        let dir = Scratch::new();
        let file = dir.path().join("table");
        let mut table = Table::open(&file, dir.path()).unwrap();
        let plain = table.add(kind("a"), false).unwrap();
        let lent = table.add(Kind { revocable: true, ..kind("a") }, false).unwrap();
        assert_ne!(plain.kind, lent.kind);
        assert_eq!(Table::open(&file, dir.path()).unwrap().rows(), [plain.clone(), lent]);
        table.remove(1).unwrap();
        let body = postcard::to_stdvec(&table.rows).unwrap();
        fs::write(&file, [&blake3::hash(&body).as_bytes()[..CHECKSUM_BYTES], &body].concat()).unwrap();
        assert_eq!(Table::open(&file, dir.path()).unwrap().rows(), [plain]);
    }

    #[test]
    fn a_damaged_table_is_empty_and_gives_no_number_twice() {
        let dir = Scratch::new();
        let mut table = Table::open(&dir.path().join("table"), dir.path()).unwrap();
        let row = table.add(kind("a"), false).unwrap();
        fs::create_dir(dir.path().join(row.number.to_string())).unwrap();
        fs::write(dir.path().join("table"), b"12345678").unwrap();
        let mut table = Table::open(&dir.path().join("table"), dir.path()).unwrap();
        assert_eq!((table.rows().len(), table.strays().unwrap()), (0, vec![0]));
        assert_eq!(table.add(kind("a"), false).unwrap().number, 1);
        table.remove(1).unwrap();
        assert!(table.rows().is_empty());
    }
}
