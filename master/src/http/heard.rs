//! What somebody has heard: of each master the last thing that it told. As text it is the `id` of an event, so that any master can go on from it.
//!
//! `MASTER.SINCE-NUMBER` for each of them in hexadecimal, with `_` between: `1.18f2a3b4c5d-2a_2.18f2a3b4d00-7`.

use crate::drive::told::Life;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

/// Masters that one text names at most: those that were removed for good are among them until a master forgets them.
const MASTERS_MAX: usize = 16;

/// Of each master the last that was heard: in which of its lives, and the number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard(BTreeMap<u64, (u64, u64)>);

impl Heard {
    /// The last that was heard of this life; `None` where it is another than the last that was heard of.
    pub fn of(&self, life: Life) -> Option<u64> {
        self.0.get(&life.master).filter(|(since, _)| *since == life.since).map(|(_, number)| *number)
    }

    /// When the last life began that was heard of this master.
    pub fn since(&self, master: u64) -> Option<u64> {
        self.0.get(&master).map(|(since, _)| *since)
    }

    /// True where that was heard, or is of a life before the last that was heard of.
    pub fn covers(&self, life: Life, number: u64) -> bool {
        self.0.get(&life.master).is_some_and(|heard| (life.since, number) <= *heard)
    }

    /// All up to that was heard. What was heard of a later life stays.
    pub fn hear(&mut self, life: Life, number: u64) {
        if !self.covers(life, number) {
            self.0.insert(life.master, (life.since, number));
        }
        if self.0.len() > MASTERS_MAX {
            // The one that has been quiet for longest is most likely gone.
            let oldest = self.0.iter().min_by_key(|(_, (since, _))| *since).map(|(master, _)| *master);
            oldest.and_then(|master| self.0.remove(&master));
        }
    }

    /// All that `other` heard too.
    pub fn hear_all(&mut self, other: &Self) {
        other.lives().for_each(|(life, number)| self.hear(life, number));
    }

    /// Nothing more of a master.
    pub fn forget(&mut self, master: u64) {
        self.0.remove(&master);
    }

    /// Of each master the last life and number.
    pub fn lives(&self) -> impl Iterator<Item = (Life, u64)> {
        self.0.iter().map(|(master, (since, number))| (Life { master: *master, since: *since }, *number))
    }
}

impl Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (Life { master, since }, number)) in self.lives().enumerate() {
            let between = if at == 0 { "" } else { "_" };
            write!(f, "{between}{master:x}.{since:x}-{number:x}")?;
        }
        Ok(())
    }
}

impl FromStr for Heard {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let one = |part: &str| {
            let (life, number) = part.split_once('-')?;
            let (master, since) = life.split_once('.')?;
            Some((hex(master)?, (hex(since)?, hex(number)?)))
        };
        let parts = text.split('_').take(MASTERS_MAX + 1).map(one).collect::<Option<BTreeMap<_, _>>>().ok_or(())?;
        if parts.len() > MASTERS_MAX { Err(()) } else { Ok(Self(parts)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_says_what_was_heard_and_nothing_else_is_taken_for_it() {
        let mut heard = Heard::default();
        for (master, since, number) in [(2, 0x20, 7), (1, 0x10, 42), (1, 0x10, 41), (2, 0x1f, 99)] {
            heard.hear(Life { master, since }, number);
        }
        assert_eq!(heard.to_string(), "1.10-2a_2.20-7");
        assert_eq!("1.10-2a_2.20-7".parse(), Ok(heard));
        let long = ["1.1-1"; MASTERS_MAX + 2].join("_");
        let many: Vec<String> = (0..=MASTERS_MAX).map(|master| format!("{master:x}.1-1")).collect();
        for bad in ["", "x", "1", "1.10", "1-2", "1.10-", "1.10-2a_", "another-7", "1.10-2g", "1.10-11111111111111111", &many.join("_")] {
            assert_eq!(bad.parse::<Heard>(), Err(()), "{bad}");
        }
        // The same master twice is one master.
        assert_eq!(long.parse::<Heard>().map(|heard| heard.lives().count()), Ok(1));
    }
}
