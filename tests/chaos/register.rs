//! Whether what clients saw of a register is linearizable: one that holds a value, where no value is written twice.
//!
//! Gibbons and Korach, "Testing shared memories", SIAM J. Comput. 26(4), 1997, section 4.2: the operations of one value are a cluster, which
//! lies between its first end and its last beginning. A history holds where no value is read before its write began, no two clusters overlap
//! whose first end comes before their last beginning, and none whose last beginning comes first lies inside one of those.

use std::collections::BTreeMap;

/// What a client did, with the microseconds of its beginning and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Which value it wrote or read.
    pub value: u64,
    /// True where it wrote.
    pub wrote: bool,
    /// When it began.
    pub from: u64,
    /// When it ended; the last moment there is, where nobody knows whether it did.
    pub to: u64,
}

#[derive(Clone, Copy, Debug)]
struct Zone {
    value: u64,
    /// The first end of its operations.
    end: u64,
    /// The last beginning.
    begin: u64,
}

impl Zone {
    fn is_forward(&self) -> bool {
        self.end < self.begin
    }
}

/// Checks a history.
///
/// # Errors
/// What is wrong with it, for people.
pub fn check(ops: &[Op]) -> Result<(), String> {
    let mut clusters: BTreeMap<u64, Vec<Op>> = BTreeMap::new();
    ops.iter().for_each(|op| clusters.entry(op.value).or_default().push(*op));
    let mut zones = Vec::new();
    for (value, ops) in clusters {
        let Some(write) = ops.iter().find(|op| op.wrote) else { return Err(format!("{value} was read, which nobody wrote")) };
        let read = ops.iter().filter(|op| !op.wrote).map(|op| op.to).min();
        if read.is_some_and(|read| read < write.from) {
            return Err(format!("{value} was read at {read:?} us, before its write began at {} us", write.from));
        }
        if read.is_none() && write.to == u64::MAX {
            continue; // It may never have been.
        }
        let end = ops.iter().map(|op| op.to).min().unwrap_or(u64::MAX);
        let begin = ops.iter().map(|op| op.from).max().unwrap_or(0);
        zones.push(Zone { value, end, begin });
    }
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) = zones.into_iter().partition(Zone::is_forward);
    forward.sort_by_key(|zone| zone.end);
    for pair in forward.windows(2) {
        let [first, second] = pair else { continue };
        if second.end < first.begin {
            return Err(format!(
                "{} was there from {} until {} us, and {} from {} until {} us",
                first.value, first.end, first.begin, second.value, second.end, second.begin
            ));
        }
    }
    for outer in &forward {
        if let Some(inner) = backward.iter().find(|inner| outer.end < inner.begin && inner.end < outer.begin) {
            return Err(format!(
                "{} was there from {} until {} us, and {} was written meanwhile, {} until {} us",
                outer.value, outer.end, outer.begin, inner.value, inner.begin, inner.end
            ));
        }
    }
    Ok(())
}

/// Holds the check itself to known histories, before it is relied on.
pub fn prove() {
    let write = |value, from, to| Op { value, wrote: true, from, to };
    let read = |value, from, to| Op { value, wrote: false, from, to };
    let lost = u64::MAX;
    let cases: [(&str, &[Op], bool); 11] = [
        ("reads follow writes", &[write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)], true),
        ("a stale read", &[write(1, 0, 1), write(2, 4, 5), read(1, 6, 7)], false),
        ("a read beside a write may see either", &[write(1, 0, 1), write(2, 4, 9), read(1, 5, 6), read(2, 7, 8)], true),
        ("reads go back", &[write(1, 0, 1), write(2, 4, 9), read(2, 5, 6), read(1, 7, 8)], false),
        ("a lost write that was seen stays", &[write(1, 0, 1), write(2, 4, lost), read(2, 5, 6), read(1, 7, 8)], false),
        ("a lost write may come late", &[write(1, 0, 1), write(2, 4, lost), read(1, 5, 6), read(2, 7, 8)], true),
        ("a lost write may never come", &[write(1, 0, 1), write(2, 4, lost), read(1, 50, 60)], true),
        ("a value from nowhere", &[write(1, 0, 1), read(2, 5, 6)], false),
        ("a value before its write", &[write(1, 0, 1), read(2, 2, 3), write(2, 4, 5)], false),
        ("a write between reads of another value", &[write(1, 0, 1), write(2, 3, 4), read(1, 2, 3), read(1, 5, 6)], false),
        ("two writes at once in either order", &[write(1, 0, 5), write(2, 0, 5), read(2, 6, 7), read(2, 8, 9)], true),
    ];
    for (what, ops, holds) in cases {
        assert_eq!(check(ops).is_ok(), holds, "{what}: {:?}", check(ops));
    }
}
