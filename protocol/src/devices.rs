//! Single devices. What an agent has of a kind is devices of [`WHOLE_MILLI`] each, numbered from 0; a rest is one more, smaller. A task that asks for no
//! more than one gets that part of one device, any other gets whole ones that nobody else has a part of. Arithmetic only: who is given what is known
//! to whoever keeps a [`Singles`].

use crate::resources::{DEVICES_MAX, is_revocable};
use crate::{Device, Name, Resources, bounded};
use serde::{Deserialize, Serialize};

/// Most devices of one kind of an agent that are told apart. A kind of which it has more stays an amount, of which tasks have a part somewhere.
pub const SINGLES_MAX: usize = 16;
/// A whole device, in thousandths.
pub const WHOLE_MILLI: u64 = 1_000;

/// Which single devices a task has: for each kind of what it needs, in the order of [`Resources::devices`], a bit for each device by its number. No
/// bit is set for a kind that is not told apart; an empty one says that nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Given {
    /// The bits of each kind.
    #[serde(deserialize_with = "bounded::list::<_, _, DEVICES_MAX>")]
    pub masks: Vec<u16>,
}

/// The single devices of an agent, and how much of each is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Singles {
    kinds: Vec<Kind>,
}

/// Those of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What they are called.
    pub name: Name,
    /// How much there is of all of them, in thousandths.
    milli: u64,
    /// How much of each is held, in thousandths. More than it has, where somebody else decided so.
    held: [u32; SINGLES_MAX],
}

/// How many devices a task of so many thousandths gets, and how much of each.
#[must_use]
pub const fn parts(milli: u64) -> (u64, u32) {
    // More than one is whole ones, also where it was taken in when it needed not be a multiple.
    if milli <= WHOLE_MILLI { (1, milli as u32) } else { (milli.div_ceil(WHOLE_MILLI), WHOLE_MILLI as u32) }
}

/// True where a task may ask for so many thousandths of a kind.
#[must_use]
pub const fn may_ask(milli: u64) -> bool {
    milli <= WHOLE_MILLI || milli.is_multiple_of(WHOLE_MILLI)
}

/// What has to be free at once for a task of so much of a kind: whole devices where it gets several.
#[must_use]
pub fn reached_by(device: &Device) -> u64 {
    let (count, each) = parts(device.milli);
    if device.is_revocable() { device.milli } else { count.saturating_mul(u64::from(each)) }
}

impl Given {
    /// True where it names no device.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.masks.iter().all(|mask| *mask == 0)
    }

    /// The kinds of `need` of which it names devices, and which.
    pub fn named<'a>(&'a self, need: &'a Resources) -> impl Iterator<Item = (&'a Device, u16)> {
        need.devices.iter().zip(&self.masks).map(|(device, mask)| (device, *mask)).filter(|(_, mask)| *mask != 0)
    }
}

/// The numbers of the devices in a mask, from the lowest.
pub fn numbers(mask: u16) -> impl Iterator<Item = usize> {
    (0..SINGLES_MAX).filter(move |at| mask >> at & 1 == 1)
}

impl Kind {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from(self.milli.div_ceil(WHOLE_MILLI)).map_or(SINGLES_MAX, |count| count.min(SINGLES_MAX))
    }

    /// How much the one of this number has; 0 where there is none.
    #[must_use]
    pub fn size(&self, at: usize) -> u32 {
        let before = at as u64 * WHOLE_MILLI;
        u32::try_from(self.milli.saturating_sub(before).min(WHOLE_MILLI)).unwrap_or(0)
    }

    /// How much of the one of this number is held.
    #[must_use]
    pub fn held(&self, at: usize) -> u32 {
        self.held.get(at).copied().unwrap_or(0)
    }

    /// How much of the one of this number is free.
    #[must_use]
    pub fn free(&self, at: usize) -> u32 {
        self.size(at).saturating_sub(self.held(at))
    }

    /// How much of each is free, in their order.
    pub fn each_free(&self) -> impl Iterator<Item = u32> {
        (0..self.count()).map(|at| self.free(at))
    }

    /// The most that one task can have of what is free.
    #[must_use]
    pub fn reach(&self) -> u64 {
        let whole = self.each_free().filter(|free| u64::from(*free) == WHOLE_MILLI).count() as u64;
        if whole > 0 { whole * WHOLE_MILLI } else { u64::from(self.each_free().max().unwrap_or(0)) }
    }

    /// How many tasks of so many thousandths each fit into what is free, at most `most`.
    fn times(&self, milli: u64, most: u32) -> u32 {
        let (count, each) = parts(milli);
        let each_fit = self.each_free().map(|free| free.checked_div(each).unwrap_or(most));
        let fit = each_fit.fold(0_u64, |sum, fit| sum + u64::from(fit)) / count;
        u32::try_from(fit).unwrap_or(u32::MAX).min(most)
    }

    /// The devices for a task of so many thousandths: those that leave least over, of equals the first. `None` where there are too few.
    fn choose(&self, milli: u64) -> Option<u16> {
        let (count, each) = parts(milli);
        let mut good: Vec<usize> = (0..self.count()).filter(|at| self.free(*at) >= each).collect();
        good.sort_by_key(|at| self.free(*at));
        let count = usize::try_from(count).ok().filter(|count| *count <= good.len())?;
        Some(mask_of(&good[..count]))
    }

    /// As [`Self::choose`], whether there is enough or not: those that have most free.
    fn nearest(&self, milli: u64) -> u16 {
        let (count, each) = parts(milli);
        let mut all: Vec<usize> = (0..self.count()).filter(|at| self.size(*at) >= each).collect();
        all.sort_by_key(|at| std::cmp::Reverse(self.free(*at)));
        all.truncate(usize::try_from(count).unwrap_or(SINGLES_MAX));
        mask_of(&all)
    }

    /// True where these are as many as a task of so many thousandths gets, and each has enough free.
    fn suits(&self, milli: u64, mask: u16) -> bool {
        let (count, each) = parts(milli);
        u64::from(mask.count_ones()) == count && numbers(mask).all(|at| at < self.count() && self.free(at) >= each)
    }

    fn hold(&mut self, milli: u64, mask: u16, more: bool) {
        let (_, each) = parts(milli);
        for at in numbers(mask) {
            let held = self.held[at];
            self.held[at] = if more { held.saturating_add(each) } else { held.saturating_sub(each) };
        }
    }
}

fn mask_of(numbers: &[usize]) -> u16 {
    numbers.iter().fold(0, |mask, at| mask | 1 << at)
}

impl Singles {
    /// Those of an agent that has so much, none of which is held; `None` where it has no kind that is told apart.
    #[must_use]
    pub fn of(capacity: &Resources) -> Option<Self> {
        let most = SINGLES_MAX as u64 * WHOLE_MILLI;
        let apart = capacity.devices.iter().filter(|device| !is_revocable(&device.name) && device.milli <= most);
        let kinds: Vec<Kind> =
            apart.map(|device| Kind { name: device.name.clone(), milli: device.milli, held: [0; SINGLES_MAX] }).collect();
        (!kinds.is_empty()).then_some(Self { kinds })
    }

    /// By kind, in the order of their names.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Those of one kind; `None` where it has none that are told apart.
    #[must_use]
    pub fn kind(&self, name: &Name) -> Option<&Kind> {
        self.kinds.binary_search_by(|kind| kind.name.cmp(name)).ok().map(|at| &self.kinds[at])
    }

    /// The same with nothing held.
    #[must_use]
    pub fn empty(&self) -> Self {
        let kinds = self.kinds.iter().map(|kind| Kind { held: [0; SINGLES_MAX], ..kind.clone() });
        Self { kinds: kinds.collect() }
    }

    /// True where it has something to say of such a task: a kind that it needs is told apart.
    #[must_use]
    pub fn concerns(&self, need: &Resources) -> bool {
        need.devices.iter().any(|device| self.kind(&device.name).is_some())
    }

    /// How many such tasks fit at once, at most `most`; kinds that are not told apart aside.
    #[must_use]
    pub fn times(&self, need: &Resources, most: u32) -> u32 {
        let known = need.devices.iter().filter_map(|device| Some((device, self.kind(&device.name)?)));
        known.map(|(device, kind)| kind.times(device.milli, most)).min().unwrap_or(most)
    }

    /// The kinds of which no devices are free as such a task needs them.
    pub fn short_of<'a>(&'a self, need: &'a Resources) -> impl Iterator<Item = &'a Name> {
        let short = |device: &&Device| self.kind(&device.name).is_some_and(|kind| kind.times(device.milli, 1) == 0);
        need.devices.iter().filter(short).map(|device| &device.name)
    }

    /// The devices for one such task, those that leave least over; `None` where it does not fit.
    #[must_use]
    pub fn choose(&self, need: &Resources) -> Option<Given> {
        let mask = |device: &Device| self.kind(&device.name).map_or(Some(0), |kind| kind.choose(device.milli));
        Some(Given { masks: need.devices.iter().map(mask).collect::<Option<_>>()? })
    }

    /// The devices that come nearest to what one such task needs, whether they are free or not.
    #[must_use]
    pub fn nearest(&self, need: &Resources) -> Given {
        let mask = |device: &Device| self.kind(&device.name).map_or(0, |kind| kind.nearest(device.milli));
        Given { masks: need.devices.iter().map(mask).collect() }
    }

    /// True where these are devices for one such task, and free.
    #[must_use]
    pub fn suits(&self, need: &Resources, given: &Given) -> bool {
        let good = |(device, mask): (&Device, &u16)| match self.kind(&device.name) {
            Some(kind) => kind.suits(device.milli, *mask),
            None => *mask == 0,
        };
        need.devices.len() == given.masks.len() && need.devices.iter().zip(&given.masks).all(good)
    }

    /// Such a task holds these, or no longer does.
    pub fn hold(&mut self, need: &Resources, given: &Given, more: bool) {
        for (device, mask) in given.named(need) {
            if let Ok(at) = self.kinds.binary_search_by(|kind| kind.name.cmp(&device.name)) {
                self.kinds[at].hold(device.milli, mask, more);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(kinds: &[(&str, u64)]) -> Resources {
        let device = |(name, milli): &(&str, u64)| Device { name: Name::new(name).unwrap(), milli: *milli };
        Resources { devices: kinds.iter().map(device).collect(), ..Resources::NONE }
    }

    fn singles(kinds: &[(&str, u64)]) -> Singles {
        Singles::of(&amount(kinds)).unwrap()
    }

    fn take(singles: &mut Singles, need: &Resources) -> Option<Vec<u16>> {
        let given = singles.choose(need)?;
        assert!(singles.suits(need, &given));
        singles.hold(need, &given, true);
        Some(given.masks)
    }

    #[test]
    fn two_parts_do_not_fit_where_no_single_device_has_enough() {
        let (mut gpus, need) = (singles(&[("gpu", 2_000)]), amount(&[("gpu", 600)]));
        assert_eq!(gpus.times(&need, 9), 2);
        assert_eq!(take(&mut gpus, &need), Some(vec![0b01]));
        assert_eq!(take(&mut gpus, &need), Some(vec![0b10]));
        assert_eq!((take(&mut gpus, &need), gpus.times(&need, 9)), (None, 0));
        assert_eq!(gpus.short_of(&need).count(), 1);
        assert_eq!(take(&mut gpus, &amount(&[("gpu", 400)])), Some(vec![0b01]), "what leaves least over");
        assert_eq!(gpus.kinds()[0].each_free().collect::<Vec<_>>(), [0, 400]);
    }

    #[test]
    fn more_than_one_is_whole_ones_that_nobody_has_a_part_of() {
        let mut gpus = singles(&[("gpu", 4_000)]);
        assert_eq!(take(&mut gpus, &amount(&[("gpu", 1)])), Some(vec![0b0001]));
        assert_eq!(gpus.times(&amount(&[("gpu", 2_000)]), 9), 1);
        assert_eq!(take(&mut gpus, &amount(&[("gpu", 2_000)])), Some(vec![0b0110]));
        assert_eq!((gpus.kinds()[0].reach(), gpus.choose(&amount(&[("gpu", 2_000)]))), (1_000, None));
        // Of jobs of before.
        assert_eq!(singles(&[("gpu", 2_000)]).choose(&amount(&[("gpu", 1_500)])).map(|given| given.masks), Some(vec![0b11]));
        assert!(may_ask(1) && may_ask(1_000) && may_ask(3_000) && !may_ask(1_500) && !may_ask(1_001));
    }

    #[test]
    fn a_rest_is_a_smaller_device_and_what_is_held_is_given_back() {
        let mut gpus = singles(&[("gpu", 2_500)]);
        assert_eq!(gpus.kinds()[0].each_free().collect::<Vec<_>>(), [1_000, 1_000, 500]);
        let (need, before) = (amount(&[("gpu", 500)]), gpus.clone());
        assert_eq!(take(&mut gpus, &need), Some(vec![0b100]));
        gpus.hold(&need, &Given { masks: vec![0b100] }, false);
        assert_eq!(gpus, before);
        assert_eq!(gpus.choose(&amount(&[("gpu", 3_000)])), None);
        // Held by whoever did not ask: less than nothing is nothing.
        gpus.hold(&amount(&[("gpu", 700)]), &Given { masks: vec![0b100] }, true);
        assert_eq!((gpus.kinds()[0].free(2), gpus.kinds()[0].held(2), gpus.empty()), (0, 700, before));
    }

    #[test]
    fn each_kind_is_for_itself_and_one_of_too_many_stays_an_amount() {
        let mut all = singles(&[("fpga", 1_000), ("gpu", 2_000), ("license", 17_000)]);
        let need = amount(&[("fpga", 500), ("gpu", 1_000), ("license", 2_000)]);
        assert_eq!(all.times(&need, 9), 2);
        assert_eq!(take(&mut all, &need), Some(vec![0b1, 0b01, 0]));
        assert_eq!(take(&mut all, &need), Some(vec![0b1, 0b10, 0]));
        assert_eq!(all.short_of(&need).map(Name::as_str).collect::<Vec<_>>(), ["fpga", "gpu"]);
        assert!(all.concerns(&need) && !all.concerns(&amount(&[("license", 1)])));
        assert_eq!(Singles::of(&amount(&[("license", 17_000)])), None);
        assert_eq!(Singles::of(&Resources::NONE), None);
    }

    #[test]
    fn what_is_promised_twice_or_is_not_there_does_not_suit() {
        let mut gpus = singles(&[("gpu", 2_000)]);
        let (part, two) = (amount(&[("gpu", 600)]), amount(&[("gpu", 2_000)]));
        let suits = |gpus: &Singles, need: &Resources, mask: u16| gpus.suits(need, &Given { masks: vec![mask] });
        assert!(suits(&gpus, &part, 0b10) && suits(&gpus, &two, 0b11));
        for wrong in [0, 0b11, 0b100, u16::MAX] {
            assert!(!suits(&gpus, &part, wrong), "{wrong}");
        }
        gpus.hold(&part, &Given { masks: vec![0b10] }, true);
        assert!(!suits(&gpus, &part, 0b10) && !suits(&gpus, &two, 0b11) && suits(&gpus, &part, 0b01));
        assert!(!gpus.suits(&part, &Given::default()));
        assert_eq!(gpus.nearest(&two).masks, [0b11]);
        assert_eq!(gpus.nearest(&amount(&[("gpu", 1_000)])).masks, [0b01]);
    }
}
