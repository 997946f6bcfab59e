//! Sums of many equal amounts, in place. Saturating: what is added was admitted or bounded when it came in, so no sum gets there.

use protocol::resources::ResourceKind;
use protocol::{Device, Resources};

/// Adds `n` times `each` to `sum`.
pub fn add(sum: &mut Resources, each: &Resources, n: u32) {
    let times = |amount: u64| amount.saturating_mul(u64::from(n));
    sum.cpu_milli = sum.cpu_milli.saturating_add(times(each.cpu_milli));
    sum.memory_bytes = sum.memory_bytes.saturating_add(times(each.memory_bytes));
    sum.disk_bytes = sum.disk_bytes.saturating_add(times(each.disk_bytes));
    sum.ports = sum.ports.saturating_add(each.ports.saturating_mul(n));
    for device in &each.devices {
        match sum.device_at(&device.name) {
            Ok(at) => sum.devices[at].milli = sum.devices[at].milli.saturating_add(times(device.milli)),
            Err(at) if n > 0 => sum.devices.insert(at, Device { name: device.name.clone(), milli: times(device.milli) }),
            Err(_) => {}
        }
    }
}

/// Takes `n` times `each` out of `sum`; what is not there is not missed.
pub fn sub(sum: &mut Resources, each: &Resources, n: u32) {
    let times = |amount: u64| amount.saturating_mul(u64::from(n));
    sum.cpu_milli = sum.cpu_milli.saturating_sub(times(each.cpu_milli));
    sum.memory_bytes = sum.memory_bytes.saturating_sub(times(each.memory_bytes));
    sum.disk_bytes = sum.disk_bytes.saturating_sub(times(each.disk_bytes));
    sum.ports = sum.ports.saturating_sub(each.ports.saturating_mul(n));
    for device in &each.devices {
        if let Ok(at) = sum.device_at(&device.name) {
            sum.devices[at].milli = sum.devices[at].milli.saturating_sub(times(device.milli));
            if sum.devices[at].milli == 0 {
                sum.devices.remove(at);
            }
        }
    }
}

/// The most of each plain kind.
pub fn max(most: &mut Resources, other: &Resources) {
    most.cpu_milli = most.cpu_milli.max(other.cpu_milli);
    most.memory_bytes = most.memory_bytes.max(other.memory_bytes);
    most.disk_bytes = most.disk_bytes.max(other.disk_bytes);
    most.ports = most.ports.max(other.ports);
}

/// Leaves no more than there is of each kind in `most`.
pub fn min(of: &mut Resources, most: &Resources) {
    of.cpu_milli = of.cpu_milli.min(most.cpu_milli);
    of.memory_bytes = of.memory_bytes.min(most.memory_bytes);
    of.disk_bytes = of.disk_bytes.min(most.disk_bytes);
    of.ports = of.ports.min(most.ports);
    of.devices.iter_mut().for_each(|device| device.milli = device.milli.min(most.device(&device.name)));
    of.devices.retain(|device| device.milli > 0);
}

/// Makes `to` what `from` is, in the room that `to` has.
pub fn copy(to: &mut Resources, from: &Resources) {
    let Resources { cpu_milli, memory_bytes, disk_bytes, ports, ref devices } = *from;
    (to.cpu_milli, to.memory_bytes, to.disk_bytes, to.ports) = (cpu_milli, memory_bytes, disk_bytes, ports);
    // Most are of the same kinds as before: names are not touched then.
    let alike = to.devices.len() == devices.len() && to.devices.iter().zip(devices).all(|(to, from)| to.name == from.name);
    match alike {
        true => to.devices.iter_mut().zip(devices).for_each(|(to, from)| to.milli = from.milli),
        false => to.devices.clone_from(devices),
    }
}

/// How much there is of a kind: in thousandths, bytes, or ports.
#[must_use]
pub fn of_kind(kind: &ResourceKind, of: &Resources) -> u64 {
    match kind {
        ResourceKind::Cpu => of.cpu_milli,
        ResourceKind::Memory => of.memory_bytes,
        ResourceKind::Disk => of.disk_bytes,
        ResourceKind::Ports => u64::from(of.ports),
        ResourceKind::Device(name) => of.device(name),
    }
}

/// The kinds that there is some of, and how much.
#[must_use]
pub fn kinds(of: &Resources) -> Vec<(ResourceKind, u64)> {
    let plain = [ResourceKind::Cpu, ResourceKind::Memory, ResourceKind::Disk, ResourceKind::Ports];
    let devices = of.devices.iter().map(|device| ResourceKind::Device(device.name.clone()));
    plain.into_iter().chain(devices).map(|kind| (of_kind(&kind, of), kind)).filter(|(amount, _)| *amount > 0).map(|(a, k)| (k, a)).collect()
}

/// Makes it so much of a kind.
pub fn set(of: &mut Resources, kind: &ResourceKind, amount: u64) {
    match kind {
        ResourceKind::Cpu => of.cpu_milli = amount,
        ResourceKind::Memory => of.memory_bytes = amount,
        ResourceKind::Disk => of.disk_bytes = amount,
        ResourceKind::Ports => of.ports = u32::try_from(amount).unwrap_or(u32::MAX),
        ResourceKind::Device(name) => {
            at_most(of, kind, 0);
            let milli = [Device { name: name.clone(), milli: amount }];
            add(of, &Resources { devices: milli.to_vec(), ..Resources::NONE }, u32::from(amount > 0));
        }
    }
}

/// Leaves no more than `most` of a kind.
pub fn at_most(of: &mut Resources, kind: &ResourceKind, most: u64) {
    match kind {
        ResourceKind::Cpu => of.cpu_milli = of.cpu_milli.min(most),
        ResourceKind::Memory => of.memory_bytes = of.memory_bytes.min(most),
        ResourceKind::Disk => of.disk_bytes = of.disk_bytes.min(most),
        ResourceKind::Ports => of.ports = of.ports.min(u32::try_from(most).unwrap_or(u32::MAX)),
        ResourceKind::Device(name) => {
            if let Ok(at) = of.device_at(name) {
                of.devices[at].milli = of.devices[at].milli.min(most);
            }
            of.devices.retain(|device| device.milli > 0);
        }
    }
}

/// What there is in `of` of the kinds that `kinds` has some of.
#[must_use]
pub fn only(of: &Resources, kinds: &Resources) -> Resources {
    let keep = |amount: u64, kind: u64| if kind > 0 { amount } else { 0 };
    Resources {
        cpu_milli: keep(of.cpu_milli, kinds.cpu_milli),
        memory_bytes: keep(of.memory_bytes, kinds.memory_bytes),
        disk_bytes: keep(of.disk_bytes, kinds.disk_bytes),
        ports: if kinds.ports > 0 { of.ports } else { 0 },
        devices: of.devices.iter().filter(|device| kinds.device(&device.name) > 0).cloned().collect(),
    }
}

/// So large a part of `of`, kind by kind, as `part` is of `whole`; rounded up, all of it where `part` is the whole.
#[must_use]
pub fn part(of: &Resources, part: &Resources, whole: &Resources) -> Resources {
    let scale = |of: u64, part: u64, whole: u64| match whole {
        0 => of,
        whole => u64::try_from((u128::from(of) * u128::from(part.min(whole))).div_ceil(u128::from(whole))).unwrap_or(u64::MAX),
    };
    let device = |device: &Device| {
        let milli = scale(device.milli, part.device(&device.name), whole.device(&device.name));
        Device { name: device.name.clone(), milli }
    };
    Resources {
        cpu_milli: scale(of.cpu_milli, part.cpu_milli, whole.cpu_milli),
        memory_bytes: scale(of.memory_bytes, part.memory_bytes, whole.memory_bytes),
        disk_bytes: scale(of.disk_bytes, part.disk_bytes, whole.disk_bytes),
        ports: u32::try_from(scale(u64::from(of.ports), u64::from(part.ports), u64::from(whole.ports))).unwrap_or(u32::MAX),
        devices: of.devices.iter().map(device).filter(|device| device.milli > 0).collect(),
    }
}

/// The whole, in the parts that a share is counted in.
pub const SHARE_ONE: u64 = 1 << 32;

/// The largest fraction that two parts together are of `total` in any kind, as [`dominant_share`].
#[must_use]
pub fn dominant_share_of_both(part: &Resources, other: &Resources, total: &Resources) -> u64 {
    if other.is_none() {
        return dominant_share(part, total);
    }
    let mut both = part.clone();
    add(&mut both, other, 1);
    dominant_share(&both, total)
}

/// The largest fraction that `part` is of `total` in any kind, in parts of [`SHARE_ONE`] (dominant share: Ghodsi et al., NSDI 2011).
/// What is revocable is of nobody's part.
#[must_use]
pub fn dominant_share(part: &Resources, total: &Resources) -> u64 {
    let share = |part: u64, total: u64| match (part, total) {
        (0, _) => 0,
        (_, 0) => u64::MAX,
        (part, total) => u64::try_from((u128::from(part) << 32) / u128::from(total)).unwrap_or(u64::MAX),
    };
    let plain = share(part.cpu_milli, total.cpu_milli)
        .max(share(part.memory_bytes, total.memory_bytes))
        .max(share(part.disk_bytes, total.disk_bytes))
        .max(share(u64::from(part.ports), u64::from(total.ports)));
    let devices = part.devices.iter().filter(|device| !device.is_revocable());
    devices.map(|device| share(device.milli, total.device(&device.name))).fold(plain, u64::max)
}
