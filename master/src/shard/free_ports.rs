//! Which ports of an agent are shown: the first that are not known to be taken.

use protocol::PortRange;
use std::collections::BTreeSet;

/// The first `count` ports of these ranges that are not among `taken`.
pub(super) fn free_ports<'a>(ranges: &[PortRange], taken: impl Iterator<Item = &'a u16>, count: u32) -> Vec<PortRange> {
    let taken: BTreeSet<u16> = taken.copied().collect();
    let (mut left, mut found) = (count, Vec::<PortRange>::new());
    for range in ranges {
        let mut first = u32::from(range.first);
        let last = u32::from(range.last);
        for cut in taken.range(range.first..=range.last).map(|port| u32::from(*port)).chain([last + 1]) {
            let size = (cut - first).min(left);
            if size > 0 {
                let port = |port: u32| u16::try_from(port).expect("within a range of ports");
                found.push(PortRange { first: port(first), last: port(first + size - 1) });
                left -= size;
            }
            first = cut + 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_taken_are_not_shown() {
        let ranges = [PortRange { first: 100, last: 104 }, PortRange { first: 65_534, last: 65_535 }];
        let check = |taken: &[u16], count, expected: &[(u16, u16)]| {
            let found: Vec<(u16, u16)> = free_ports(&ranges, taken.iter(), count).iter().map(|range| (range.first, range.last)).collect();
            assert_eq!(found, expected, "{taken:?}, {count}");
        };
        check(&[], 7, &[(100, 104), (65_534, 65_535)]);
        check(&[], 3, &[(100, 102)]);
        check(&[100, 102, 65_535], 4, &[(101, 101), (103, 104), (65_534, 65_534)]);
        check(&[], 0, &[]);
        check(&[100, 101, 102, 103, 104, 65_534, 65_535, 7], 5, &[]);
    }
}
