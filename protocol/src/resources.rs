//! Amounts: integers with units, and arithmetic that says when it would not hold. Knows no machine and no task.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Most kinds of named device in one [`Resources`].
pub const DEVICES_MAX: usize = 16;
/// Most port ranges in one [`Resources`].
pub const PORT_RANGES_MAX: usize = 256;
/// Most ports one task may ask for.
pub const PORTS_PER_TASK_MAX: u16 = 64;

/// Revocable cores, as a device by this name: thousandths of one.
///
/// What is revocable is a part of a machine that was measured idle, lent on top of its capacity to tasks that may be ended at any moment. It has
/// kinds of its own, and so is booked, offered and waited for as any other kind. Of a device it has no more than the place: nobody asks for one by
/// this name, and no agent has one; a role's share, limit and guarantee speak of the others.
const REVOCABLE_CPU: &str = "revocable-cpu";
/// Revocable memory, as a device by this name: bytes, though its place is called `milli`.
const REVOCABLE_MEMORY: &str = "revocable-memory";
/// Most kinds of device that users name for a task which asks for what is revocable: those two have their places.
pub const DEVICES_BESIDE_REVOCABLE_MAX: usize = DEVICES_MAX - 2;

/// Ports from `first` to `last`, both included; `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// Lowest port of it.
    pub first: u16,
    /// Highest port of it.
    pub last: u16,
}

/// An amount of a named kind of device, such as `gpu`, in thousandths of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Device {
    /// The kind: 1 to 63 of `[a-z0-9-]`.
    pub name: crate::Name,
    /// How much of it, in thousandths.
    pub milli: u64,
}

impl Device {
    /// True where it is no device, but a revocable kind.
    #[must_use]
    pub fn is_revocable(&self) -> bool {
        is_revocable(&self.name)
    }
}

/// True for names that no device may have: those of revocable kinds.
#[must_use]
pub fn is_revocable(name: &crate::Name) -> bool {
    matches!(name.as_str(), REVOCABLE_CPU | REVOCABLE_MEMORY)
}

/// An amount of everything that an agent has and a task may hold.
///
/// A machine's ports are ranges; a task asks for a number of ports (`ports`) and is given ones when it is launched. So ports are counted
/// here, and which of them a task has is its agent's affair.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// Number of ports.
    pub ports: u32,
    /// Named devices: sorted by name, no name twice, none of zero.
    #[serde(deserialize_with = "crate::bounded::list::<_, _, DEVICES_MAX>")]
    pub devices: Vec<Device>,
}

/// One kind of resource, to say which one was short.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResourceKind {
    /// `cpu_milli`.
    Cpu,
    /// `memory_bytes`.
    Memory,
    /// `disk_bytes`.
    Disk,
    /// `ports`.
    Ports,
    /// A device by its name.
    Device(crate::Name),
}

impl ResourceKind {
    /// True where it is counted in bytes.
    #[must_use]
    pub fn is_bytes(&self) -> bool {
        match self {
            Self::Memory | Self::Disk => true,
            Self::Device(name) => name.as_str() == REVOCABLE_MEMORY,
            Self::Cpu | Self::Ports => false,
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Memory => f.write_str("memory"),
            Self::Disk => f.write_str("disk"),
            Self::Ports => f.write_str("ports"),
            Self::Device(name) => match name.as_str() {
                REVOCABLE_CPU => f.write_str("revocable cpu"),
                REVOCABLE_MEMORY => f.write_str("revocable memory"),
                name => write!(f, "device {name}"),
            },
        }
    }
}

impl Resources {
    /// Nothing.
    pub const NONE: Self = Self { cpu_milli: 0, memory_bytes: 0, disk_bytes: 0, ports: 0, devices: Vec::new() };

    /// True where there is none of anything.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// How much there is of the device `name`, in thousandths.
    #[must_use]
    pub fn device(&self, name: &crate::Name) -> u64 {
        self.device_at(name).map_or(0, |at| self.devices[at].milli)
    }

    /// Where among `devices` the device `name` is, or would be. One whose name is the same in memory is found without reading that.
    ///
    /// # Errors
    /// Where it is to be put, where there is none.
    pub fn device_at(&self, name: &crate::Name) -> Result<usize, usize> {
        let same = self.devices.iter().position(|device| device.name == *name);
        same.ok_or_else(|| self.devices.partition_point(|device| device.name < *name))
    }

    /// True where `need` is within this, kind by kind.
    #[must_use]
    pub fn contains(&self, need: &Self) -> bool {
        self.cpu_milli >= need.cpu_milli
            && self.memory_bytes >= need.memory_bytes
            && self.disk_bytes >= need.disk_bytes
            && self.ports >= need.ports
            && need.devices.iter().all(|device| self.device(&device.name) >= device.milli)
    }

    /// The kinds of which there is less than `need`.
    #[must_use]
    pub fn short_of(&self, need: &Self) -> Vec<ResourceKind> {
        let plain = [
            (self.cpu_milli < need.cpu_milli, ResourceKind::Cpu),
            (self.memory_bytes < need.memory_bytes, ResourceKind::Memory),
            (self.disk_bytes < need.disk_bytes, ResourceKind::Disk),
            (self.ports < need.ports, ResourceKind::Ports),
        ];
        let devices = need.devices.iter().filter(|device| self.device(&device.name) < device.milli);
        let plain = plain.into_iter().filter(|(short, _)| *short).map(|(_, kind)| kind);
        plain.chain(devices.map(|device| ResourceKind::Device(device.name.clone()))).collect()
    }

    /// This and `more`; `None` where a sum does not fit its integer.
    #[must_use]
    pub fn checked_add(&self, more: &Self) -> Option<Self> {
        let mut sum = Self {
            cpu_milli: self.cpu_milli.checked_add(more.cpu_milli)?,
            memory_bytes: self.memory_bytes.checked_add(more.memory_bytes)?,
            disk_bytes: self.disk_bytes.checked_add(more.disk_bytes)?,
            ports: self.ports.checked_add(more.ports)?,
            devices: self.devices.clone(),
        };
        for device in &more.devices {
            match sum.device_at(&device.name) {
                Ok(at) => sum.devices[at].milli = sum.devices[at].milli.checked_add(device.milli)?,
                Err(at) => sum.devices.insert(at, device.clone()),
            }
        }
        Some(sum)
    }

    /// This without `less`; `None` where `less` is not within it.
    #[must_use]
    pub fn checked_sub(&self, less: &Self) -> Option<Self> {
        let mut rest = Self {
            cpu_milli: self.cpu_milli.checked_sub(less.cpu_milli)?,
            memory_bytes: self.memory_bytes.checked_sub(less.memory_bytes)?,
            disk_bytes: self.disk_bytes.checked_sub(less.disk_bytes)?,
            ports: self.ports.checked_sub(less.ports)?,
            devices: self.devices.clone(),
        };
        for device in &less.devices {
            let at = rest.device_at(&device.name).ok()?;
            rest.devices[at].milli = rest.devices[at].milli.checked_sub(device.milli)?;
        }
        rest.devices.retain(|device| device.milli > 0);
        Some(rest)
    }

    /// `n` times this; `None` where a product does not fit its integer.
    #[must_use]
    pub fn checked_mul(&self, n: u32) -> Option<Self> {
        if n == 0 {
            return Some(Self::NONE);
        }
        let mut product = Self {
            cpu_milli: self.cpu_milli.checked_mul(u64::from(n))?,
            memory_bytes: self.memory_bytes.checked_mul(u64::from(n))?,
            disk_bytes: self.disk_bytes.checked_mul(u64::from(n))?,
            ports: self.ports.checked_mul(n)?,
            devices: self.devices.clone(),
        };
        for device in &mut product.devices {
            device.milli = device.milli.checked_mul(u64::from(n))?;
        }
        Some(product)
    }

    /// How many times `need` is within this, at most `most`; `most` where `need` is nothing.
    #[must_use]
    pub fn times(&self, need: &Self, most: u32) -> u32 {
        let fits = |have: u64, need: u64| have.checked_div(need).unwrap_or(u64::from(most));
        let plain = [
            fits(self.cpu_milli, need.cpu_milli),
            fits(self.memory_bytes, need.memory_bytes),
            fits(self.disk_bytes, need.disk_bytes),
            fits(u64::from(self.ports), u64::from(need.ports)),
        ];
        let devices = need.devices.iter().map(|device| fits(self.device(&device.name), device.milli));
        let times = plain.into_iter().chain(devices).min().unwrap_or(0);
        u32::try_from(times).unwrap_or(u32::MAX).min(most)
    }

    /// So much that is revocable, and nothing else.
    ///
    /// # Panics
    /// Never: the names are right.
    #[must_use]
    pub fn revocable(Lent { cpu_milli, memory_bytes }: Lent) -> Self {
        let device = |(name, milli): (&str, u64)| Device { name: crate::Name::new(name).expect("it is a name"), milli };
        let kinds = [(REVOCABLE_CPU, cpu_milli), (REVOCABLE_MEMORY, memory_bytes)];
        Self { devices: kinds.into_iter().filter(|(_, milli)| *milli > 0).map(device).collect(), ..Self::NONE }
    }

    /// The same task, with cores and memory that are revocable.
    #[must_use]
    pub fn made_revocable(self) -> Self {
        let lent = Lent { cpu_milli: self.cpu_milli, memory_bytes: self.memory_bytes };
        let rest = Self { cpu_milli: 0, memory_bytes: 0, ..self };
        rest.checked_add(&Self::revocable(lent)).unwrap_or(rest)
    }

    /// The same task, with cores and memory of its own instead.
    #[must_use]
    pub fn made_firm(&self) -> Self {
        let (lent, firm) = (self.lent(), self.firm());
        let own = Self { cpu_milli: lent.cpu_milli, memory_bytes: lent.memory_bytes, ..Self::NONE };
        firm.checked_add(&own).unwrap_or(firm)
    }

    /// What of it is revocable.
    #[must_use]
    pub fn lent(&self) -> Lent {
        let of = |name| self.devices.iter().find(|device| device.name.as_str() == name).map_or(0, |device| device.milli);
        Lent { cpu_milli: of(REVOCABLE_CPU), memory_bytes: of(REVOCABLE_MEMORY) }
    }

    /// True where something of it is revocable: whoever is promised that may be ended at any moment.
    #[must_use]
    pub fn is_revocable(&self) -> bool {
        self.devices.iter().any(Device::is_revocable)
    }

    /// It without what is revocable.
    #[must_use]
    pub fn firm(&self) -> Self {
        let mut firm = self.clone();
        firm.devices.retain(|device| !device.is_revocable());
        firm
    }

    /// True where the devices are as the field says: sorted, none twice, none of zero, at most [`DEVICES_MAX`]. What comes off the wire
    /// is asked this before it is used.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        let sorted = self.devices.windows(2).all(|pair| pair[0].name < pair[1].name);
        sorted && self.devices.len() <= DEVICES_MAX && self.devices.iter().all(|device| device.milli > 0)
    }
}

/// Amounts of what is revocable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lent {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

impl Lent {
    /// Nothing.
    pub const NONE: Self = Self { cpu_milli: 0, memory_bytes: 0 };

    /// Each kind by itself.
    #[must_use]
    pub fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self { cpu_milli: of(self.cpu_milli, other.cpu_milli), memory_bytes: of(self.memory_bytes, other.memory_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;

    fn amount(cpu_milli: u64, memory_bytes: u64, gpu: u64) -> Resources {
        let devices = if gpu == 0 { vec![] } else { vec![Device { name: Name::new("gpu").unwrap(), milli: gpu }] };
        Resources { cpu_milli, memory_bytes, devices, ..Resources::NONE }
    }

    #[test]
    fn what_is_added_can_be_taken_away() {
        let (a, b) = (amount(1_500, 64, 0), amount(500, 1, 250));
        let sum = a.checked_add(&b).unwrap();
        assert_eq!(sum, amount(2_000, 65, 250));
        assert_eq!(sum.checked_sub(&b).unwrap(), a);
        assert!(sum.contains(&b) && !a.contains(&b));
        assert_eq!(a.short_of(&b), [ResourceKind::Device(Name::new("gpu").unwrap())]);
    }

    #[test]
    fn arithmetic_refuses_what_would_not_hold() {
        let (most, one) = (amount(u64::MAX, 0, 0), amount(1, 0, 0));
        assert_eq!(most.checked_add(&one), None);
        assert_eq!(one.checked_sub(&most), None);
        assert_eq!(most.checked_mul(2), None);
        assert_eq!(Resources::NONE.checked_sub(&amount(0, 0, 1)), None);
    }

    #[test]
    fn what_is_revocable_is_apart_from_the_rest() {
        let firm = amount(1_500, 64, 250);
        let revocable = firm.clone().made_revocable();
        assert!(revocable.is_canonical() && revocable.is_revocable() && !firm.is_revocable());
        assert_eq!((revocable.cpu_milli, revocable.memory_bytes), (0, 0));
        assert_eq!((revocable.lent(), firm.lent()), (Lent { cpu_milli: 1_500, memory_bytes: 64 }, Lent::NONE));
        assert_eq!((revocable.firm(), revocable.made_firm()), (amount(0, 0, 250), firm.clone()));
        let room = firm.checked_add(&Resources::revocable(Lent { cpu_milli: 1_000, memory_bytes: 64 })).unwrap();
        let short: Vec<String> = room.short_of(&revocable).iter().map(ToString::to_string).collect();
        assert_eq!((room.firm(), short), (firm, vec!["revocable cpu".to_owned()]));
        assert_eq!(Resources::revocable(Lent::NONE), Resources::NONE);
    }

    #[test]
    fn times_is_bounded_by_the_scarcest_kind() {
        assert_eq!(amount(2_000, 100, 1_000).times(&amount(100, 1, 250), 1_000), 4);
        assert_eq!(amount(2_000, 0, 0).times(&Resources::NONE, 7), 7);
        assert_eq!(amount(2_000, 0, 0).times(&amount(1, 0, 1), 7), 0);
    }
}
