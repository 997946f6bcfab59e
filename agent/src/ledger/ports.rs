//! Which ports of the machine are given to which attempt: a bit for each. Knows no attempt.

use protocol::PortRange;

const WORDS: usize = 1 << 10;

/// The ports that may be given, and those that are.
#[derive(Clone)]
pub(super) struct Ports {
    allowed: Box<[u64; WORDS]>,
    used: Box<[u64; WORDS]>,
    /// Where the next search begins: a port that was given back is given again as late as may be.
    next: u16,
}

impl Ports {
    pub(super) fn new(ranges: &[PortRange]) -> Self {
        let mut ports = Self { allowed: Box::new([0; WORDS]), used: Box::new([0; WORDS]), next: 0 };
        ports.allow(ranges);
        ports
    }

    /// These may be given from now on, and no others.
    pub(super) fn allow(&mut self, ranges: &[PortRange]) {
        *self.allowed = [0; WORDS];
        for port in ranges.iter().flat_map(|range| range.first..=range.last) {
            set(&mut self.allowed, port);
        }
    }

    /// Takes `count` free ports; none where there are fewer.
    pub(super) fn take(&mut self, count: usize) -> Option<Vec<u16>> {
        let mut taken = Vec::with_capacity(count);
        let start = usize::from(self.next) / 64;
        // The word in which the search begins is looked at twice: above the start first, and below it at last.
        for step in 0..=WORDS {
            let word = (start + step) % WORDS;
            let mut free = self.allowed[word] & !self.used[word];
            match step {
                0 => free &= u64::MAX << (self.next % 64),
                WORDS => free &= !(u64::MAX << (self.next % 64)),
                _ => {}
            }
            while free != 0 && taken.len() < count {
                taken.push(u16::try_from(word * 64).expect("1,024 words of 64 are 65,536 ports") + bit(free));
                free &= free - 1;
            }
            if taken.len() == count {
                taken.iter().for_each(|port| set(&mut self.used, *port));
                self.next = taken.last().map_or(self.next, |port| port.wrapping_add(1));
                return Some(taken);
            }
        }
        None
    }

    /// Takes for each of `wanted` the port of this number, or any that is free; none where one cannot be given.
    pub(super) fn take_these(&mut self, wanted: &[Option<u16>]) -> Option<Vec<u16>> {
        let numbers: Vec<u16> = wanted.iter().flatten().copied().collect();
        for (at, number) in numbers.iter().enumerate() {
            if !self.take_one(*number) {
                self.release(&numbers[..at]);
                return None;
            }
        }
        let Some(others) = self.take(wanted.len() - numbers.len()) else {
            self.release(&numbers);
            return None;
        };
        let mut others = others.into_iter();
        wanted.iter().map(|number| number.or_else(|| others.next())).collect()
    }

    fn take_one(&mut self, port: u16) -> bool {
        let (word, bit) = (usize::from(port / 64), 1_u64 << (port % 64));
        let is_free = self.allowed[word] & !self.used[word] & bit != 0;
        if is_free {
            self.used[word] |= bit;
        }
        is_free
    }

    /// Marks these as given, whether they may be given now or only might once.
    pub(super) fn mark(&mut self, ports: &[u16]) {
        ports.iter().for_each(|port| set(&mut self.used, *port));
    }

    pub(super) fn release(&mut self, ports: &[u16]) {
        for port in ports {
            self.used[usize::from(port / 64)] &= !(1 << (port % 64));
        }
    }
}

fn set(words: &mut [u64; WORDS], port: u16) {
    words[usize::from(port / 64)] |= 1 << (port % 64);
}

fn bit(word: u64) -> u16 {
    u16::try_from(word.trailing_zeros()).expect("at most 64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_wanted_by_its_number_is_given_or_nothing_is() {
        let mut ports = Ports::new(&[PortRange { first: 100, last: 103 }]);
        assert_eq!(ports.take_these(&[None, Some(100), None]), Some(vec![101, 100, 102]));
        assert_eq!(ports.take_these(&[Some(103), Some(100)]), None, "one is given already");
        assert_eq!(ports.take_these(&[Some(103), None]), None, "there is no other");
        assert_eq!(ports.take_these(&[Some(103), Some(103)]), None, "once");
        assert_eq!(ports.take_these(&[Some(104)]), None, "it is none of the machine's");
        assert_eq!(ports.take_these(&[Some(103)]), Some(vec![103]));
    }

    #[test]
    fn a_port_is_given_once_and_again_only_when_given_back() {
        let mut ports = Ports::new(&[PortRange { first: 100, last: 103 }, PortRange { first: 65_535, last: 65_535 }]);
        assert_eq!(ports.take(2), Some(vec![100, 101]));
        assert_eq!(ports.take(3), Some(vec![102, 103, 65_535]));
        assert_eq!(ports.take(1), None);
        ports.release(&[101, 100]);
        assert_eq!(ports.take(3), None);
        assert_eq!(ports.take(1), Some(vec![100]));
        ports.release(&[100]);
        assert_eq!(ports.take(2), Some(vec![101, 100]), "the search goes on where it stopped");
        assert_eq!(ports.take(0), Some(vec![]));
    }
}
