//! What this machine has: its resources, or what an operator says instead, and facts about it. Knows Linux' files; asks no network.

use protocol::agent::ATTRIBUTE_BYTES_MAX;
use protocol::resources::{DEVICES_MAX, PORT_RANGES_MAX, is_revocable};
use protocol::{Attributes, Device, Name, PortRange, Resources};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The ports that an agent gives to tasks unless it is told others: outside of those that Linux gives to outgoing connections.
pub const PORTS_DEFAULT: PortRange = PortRange { first: 20_000, last: 29_999 };
/// Of the memory that is there, so much is kept for the system, the agent and its executors: a sixteenth, in bounds.
const MEMORY_KEPT_BYTES: (u64, u64) = (64 << 20, 2 << 30);

/// The most of anything that an agent may say it has; a master takes no more.
pub const AMOUNT_MAX: u64 = 1 << 46;

/// What a machine has to promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Have {
    /// How much.
    pub capacity: Resources,
    /// Which ports its `ports` are.
    pub ports: Vec<PortRange>,
}

/// Why a text does not say what a machine has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resources: {field}: {reason}")]
pub struct ResourcesError {
    /// Which part.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

/// Why a machine cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[error("reading {path}: {reason}")]
pub struct FingerprintError {
    /// What was read.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// What this machine has; its disk is what is free where `data_dir` is.
///
/// # Errors
/// [`FingerprintError`] where the system does not say.
pub fn have(data_dir: &Path) -> Result<Have, FingerprintError> {
    let failed = |path: &Path, reason: String| FingerprintError { path: path.to_owned(), reason };
    let cores = std::thread::available_parallelism().map_err(|error| failed(Path::new("the number of cores"), error.to_string()))?;
    let meminfo = Path::new("/proc/meminfo");
    let text = fs::read_to_string(meminfo).map_err(|error| failed(meminfo, error.to_string()))?;
    let total_bytes = mem_total_bytes(&text).ok_or_else(|| failed(meminfo, "it has no line MemTotal in kB".into()))?;
    let memory_bytes = total_bytes.min(cgroup_limit_bytes().unwrap_or(u64::MAX));
    let kept_bytes = (memory_bytes / 16).clamp(MEMORY_KEPT_BYTES.0, MEMORY_KEPT_BYTES.1);
    let disk = rustix::fs::statvfs(data_dir).map_err(|error| failed(data_dir, error.to_string()))?;
    let capacity = Resources {
        cpu_milli: 1_000 * cores.get() as u64,
        memory_bytes: memory_bytes.saturating_sub(kept_bytes).min(AMOUNT_MAX),
        disk_bytes: disk.f_bavail.saturating_mul(disk.f_frsize).min(AMOUNT_MAX),
        ports: count(&[PORTS_DEFAULT]),
        devices: Vec::new(),
    };
    Ok(Have { capacity, ports: vec![PORTS_DEFAULT] })
}

/// `have`, with what `text` says instead: `cpu=2,memory=8GiB,disk=100GiB,ports=20000-29999,ports=31000-31999,gpu=1`. A name that is none of
/// the first four is a device.
///
/// # Errors
/// [`ResourcesError`] names the part that is wrong.
pub fn overridden(mut have: Have, text: &str) -> Result<Have, ResourcesError> {
    let mut seen = Vec::new();
    let mut ranges = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let error = |reason: String| ResourcesError { field: printable(part.split('=').next().unwrap_or(part)), reason };
        let (field, value) = part.split_once('=').ok_or_else(|| error("expected NAME=AMOUNT".into()))?;
        let (field, value) = (field.trim(), value.trim());
        if field != "ports" && seen.contains(&field) {
            return Err(error("is there twice".into()));
        }
        seen.push(field);
        match field {
            "cpu" => have.capacity.cpu_milli = milli(value).map_err(error)?,
            "memory" => have.capacity.memory_bytes = bytes(value).map_err(error)?,
            "disk" => have.capacity.disk_bytes = bytes(value).map_err(error)?,
            "ports" => ranges.push(range(value).map_err(error)?),
            _ => {
                let name = Name::new(field).map_err(|reason| error(reason.to_string()))?;
                if is_revocable(&name) {
                    return Err(error("is no device: what is revocable is measured, by an agent that is started with --revocable".into()));
                }
                let milli = milli(value).map_err(error)?;
                have.capacity.devices.retain(|device| device.name != name);
                have.capacity.devices.push(Device { name, milli });
            }
        }
    }
    let whole = |field: &str, reason: String| ResourcesError { field: field.to_owned(), reason };
    have.capacity.devices.retain(|device| device.milli > 0);
    have.capacity.devices.sort();
    if have.capacity.devices.len() > DEVICES_MAX {
        return Err(whole("devices", format!("at most {DEVICES_MAX} kinds are allowed")));
    }
    if seen.contains(&"ports") {
        ranges.sort();
        if ranges.len() > PORT_RANGES_MAX {
            return Err(whole("ports", format!("at most {PORT_RANGES_MAX} ranges are allowed")));
        }
        if let Some(pair) = ranges.windows(2).find(|pair| pair[0].last >= pair[1].first) {
            return Err(whole("ports", format!("{}-{} and {}-{} overlap", pair[0].first, pair[0].last, pair[1].first, pair[1].last)));
        }
        have.capacity.ports = count(&ranges);
        have.ports = ranges;
    }
    Ok(have)
}

/// The machine's architecture, system, kernel and host name, under what the operator says.
#[must_use]
pub fn attributes(said: &Attributes) -> Attributes {
    let uname = rustix::system::uname();
    let short = |text: String| cut(text.chars().filter(|c| !c.is_control()).collect(), ATTRIBUTE_BYTES_MAX);
    let mut attributes = Attributes::from([
        ("arch".to_owned(), std::env::consts::ARCH.to_owned()),
        ("os".to_owned(), std::env::consts::OS.to_owned()),
        ("kernel".to_owned(), short(uname.release().to_string_lossy().into_owned())),
        ("host".to_owned(), short(host())),
    ]);
    attributes.extend(said.iter().map(|(name, value)| (name.clone(), value.clone())));
    attributes
}

/// The machine's host name; `agent` where it has none.
#[must_use]
pub fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() || name == "(none)" { "agent".to_owned() } else { cut(name, ATTRIBUTE_BYTES_MAX) }
}

/// What is drawn anew by each start of the machine.
///
/// # Errors
/// [`FingerprintError`] where the kernel does not say.
pub fn boot_id() -> Result<String, FingerprintError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let read = fs::read_to_string(path).map_err(|error| FingerprintError { path: path.to_owned(), reason: error.to_string() })?;
    Ok(cut(read.trim().to_owned(), ATTRIBUTE_BYTES_MAX))
}

/// Bytes that nobody can guess.
///
/// # Errors
/// [`FingerprintError`] where the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], FingerprintError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| FingerprintError { path: path.to_owned(), reason: error.to_string() })?;
    Ok(bytes)
}

fn count(ranges: &[PortRange]) -> u32 {
    ranges.iter().map(|range| u32::from(range.last - range.first) + 1).sum()
}

fn mem_total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The memory limit that the agent itself is under, in a container for example.
fn cgroup_limit_bytes() -> Option<u64> {
    let paths = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    paths.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
}

/// `1.5` as 1,500.
fn milli(text: &str) -> Result<u64, String> {
    let wrong = || format!("{:?} is no amount: expected such as 2 or 0.5, at most three digits behind the point", printable(text));
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return Err(wrong());
    }
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    bounded(whole.checked_mul(1_000).and_then(|milli| milli.checked_add(part)), text)
}

/// `8GiB`, `500MB` or plain bytes.
fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let wrong = || format!("{:?} is no amount of bytes: expected such as 512MiB, 8GiB or 1000000", printable(text));
    let unit = UNITS.iter().find_map(|(unit, times)| text.strip_suffix(unit).map(|number| (number.trim(), *times)));
    let (number, times) = unit.unwrap_or((text, 1));
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    bounded(number.parse::<u64>().ok().and_then(|number| number.checked_mul(times)), text)
}

fn bounded(amount: Option<u64>, text: &str) -> Result<u64, String> {
    amount.filter(|amount| *amount <= AMOUNT_MAX).ok_or_else(|| format!("{:?} is too much", printable(text)))
}

fn range(text: &str) -> Result<PortRange, String> {
    let wrong = || format!("{:?} is no range of ports: expected such as 20000-29999, from 1 to 65535", printable(text));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err(wrong()) } else { Ok(PortRange { first, last }) }
}

fn printable(text: &str) -> String {
    cut(text.chars().filter(|c| !c.is_control()).collect(), 64)
}

fn cut(mut text: String, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Have {
        Have { capacity: Resources::NONE, ports: vec![] }
    }

    #[test]
    fn this_machine_has_something() {
        let have = have(Path::new("/")).unwrap();
        assert!(have.capacity.cpu_milli >= 1_000 && have.capacity.memory_bytes > 0 && have.capacity.ports == 10_000);
        assert!(!boot_id().unwrap().is_empty() && !host().is_empty());
        assert_eq!(attributes(&Attributes::from([("arch".into(), "other".into())]))["arch"], "other");
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
    }

    #[test]
    fn what_an_operator_says_is_what_there_is() {
        let have = overridden(nothing(), "cpu=2.5, memory=8GiB,disk=100MB,ports=300-399,ports=100,gpu=1,fpga=0.25").unwrap();
        assert_eq!((have.capacity.cpu_milli, have.capacity.memory_bytes, have.capacity.disk_bytes), (2_500, 8 << 30, 100_000_000));
        assert_eq!(have.ports, [PortRange { first: 100, last: 100 }, PortRange { first: 300, last: 399 }]);
        assert_eq!((have.capacity.ports, have.capacity.devices.len()), (101, 2));
        assert!(have.capacity.is_canonical());
        assert_eq!(overridden(have.clone(), " , ").unwrap(), have);
    }

    #[test]
    fn an_error_names_the_field() {
        let cases = [
            ("cpu", "cpu"),
            ("cpu=", "cpu"),
            ("cpu=-1", "cpu"),
            ("cpu=1e3", "cpu"),
            ("cpu=NaN", "cpu"),
            ("cpu=0.0001", "cpu"),
            ("cpu=18446744073709551615", "cpu"),
            ("cpu=1,cpu=2", "cpu"),
            ("memory=8Gb", "memory"),
            ("memory=GiB", "memory"),
            ("memory=99999999999TiB", "memory"),
            ("memory=65TiB", "memory"),
            ("disk=1.5GiB", "disk"),
            ("ports=0-1", "ports"),
            ("ports=5-4", "ports"),
            ("ports=1-65536", "ports"),
            ("ports=1-10,ports=10-20", "ports"),
            ("GPU=1", "GPU"),
            ("revocable-cpu=1", "revocable-cpu"),
            ("a b=1", "a b"),
            ("gpu=x", "gpu"),
            ("=1", ""),
            ("\u{1b}[31m=1", "[31m"),
        ];
        for (text, field) in cases {
            let error = overridden(nothing(), text).unwrap_err();
            assert_eq!(error.field, field, "{text}: {error}");
            assert!(!error.to_string().contains('\u{1b}'));
        }
        let many: Vec<String> = (0..=DEVICES_MAX).map(|n| format!("d{n}=1")).collect();
        assert_eq!(overridden(nothing(), &many.join(",")).unwrap_err().field, "devices");
    }

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(mem_total_bytes("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(mem_total_bytes("MemFree: 1 kB\n"), None);
    }
}
