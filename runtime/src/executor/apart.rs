//! Which processors are left to those who were promised some, of all kinds of task. A kernel that lets tasks wait for whatever else wants a processor (`SCHED_IDLE`) still has
//! others wait behind them now and then until its next tick, which is milliseconds (sched(7); seen with 6.18 and ticks of 4 ms). So where others are
//! busy, these tasks have processors for themselves, and the others have the rest; where nobody is, all are shared.

use rustix::thread::{CpuSet, sched_getaffinity};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How often is looked.
pub(super) const LOOK_EACH: Duration = Duration::from_millis(250);
/// The most that others used in so many looks is what they need.
const LOOKS: usize = 5;
/// Others who need less than this, in thousandths of a processor, need none for themselves: they hardly ever run for long enough to be put off.
const SHARED_MILLI: u64 = 400;
/// What others may grow by before there are fewer processors than they need, in hundredths of that.
const MARGIN_PERCENT: u64 = 20;
/// Longest beginning of the file that is read: a line for each of several hundred processors.
const STAT_BYTES_MAX: usize = 64 << 10;

/// Looks at what others do.
pub(super) struct Watch {
    /// proc_stat(5), open since before the jail.
    stat: File,
    ticks_per_second: u64,
    /// Those that this process may run on; those of one core stand beside each other.
    processors: Vec<usize>,
    /// When, and what others had used by then, in microseconds.
    before: Option<(Instant, u64)>,
    needed: VecDeque<u64>,
    /// How many of the processors others have for themselves, once that is known.
    apart: Option<usize>,
}

impl Watch {
    /// `None` where there is one processor, or nothing says what others do.
    pub(super) fn open() -> Option<Self> {
        let may = sched_getaffinity(None).ok()?;
        let mut processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| may.is_set(*processor)).collect();
        processors.sort_by_cached_key(|processor| (core(*processor), *processor));
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        let stat = File::open("/proc/stat").ok().filter(|_| processors.len() > 1 && ticks_per_second > 0)?;
        Some(Self { stat, ticks_per_second, processors, before: None, needed: VecDeque::new(), apart: None })
    }

    /// Where tasks are to run from now on, at least one processor; `None`: as before, or it is not known yet.
    pub(super) fn look(&mut self) -> Option<Vec<usize>> {
        let mut bytes = vec![0; STAT_BYTES_MAX];
        let length = self.stat.read_at(&mut bytes, 0).ok()?;
        self.saw(Instant::now(), &String::from_utf8_lossy(&bytes[..length]))
    }

    /// Where tasks are to run as far as it is known.
    pub(super) fn processors(&self) -> &[usize] {
        &self.processors[self.apart.unwrap_or(0)..]
    }

    fn saw(&mut self, now: Instant, stat: &str) -> Option<Vec<usize>> {
        let used = used_us(stat, &self.processors, self.ticks_per_second);
        let (then, before) = self.before.replace((now, used))?;
        let elapsed_us = u64::try_from(now.duration_since(then).as_micros()).ok().filter(|elapsed_us| *elapsed_us > 0)?;
        self.needed.truncate(LOOKS - 1);
        self.needed.push_front(used.saturating_sub(before).saturating_mul(1_000) / elapsed_us);
        let need = self.needed.iter().copied().max().unwrap_or_default();
        let apart = apart(need, self.processors.len());
        (self.apart.replace(apart) != Some(apart)).then(|| self.processors().to_vec())
    }
}

/// How many of so many processors are for those who need `need_milli`.
fn apart(need_milli: u64, processors: usize) -> usize {
    if need_milli < SHARED_MILLI {
        return 0;
    }
    let need = (need_milli + need_milli * MARGIN_PERCENT / 100).div_ceil(1_000);
    usize::try_from(need).unwrap_or(usize::MAX).min(processors - 1)
}

/// What was used of these processors until then by all but those who are nice: processor time of those is counted by itself.
fn used_us(stat: &str, processors: &[usize], ticks_per_second: u64) -> u64 {
    let lines = stat.lines().filter_map(|line| line.strip_prefix("cpu"));
    let used = lines.filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        // Behind `cpu` alone stands a space: the sum of all.
        let processor = line.starts_with(|first: char| first.is_ascii_digit()).then(|| fields.next()?.parse().ok())??;
        processors.contains(&processor).then(|| {
            let ticks: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
            // user, nice, system, idle, iowait, irq, softirq, steal, …
            [0, 2, 5, 6].into_iter().filter_map(|field| ticks.get(field)).sum::<u64>()
        })
    });
    used.sum::<u64>().saturating_mul(1_000_000) / ticks_per_second
}

/// Its package and core; of no use where the kernel does not say so, and then all are alike.
fn core(processor: usize) -> (u64, u64) {
    let read = |what: &str| {
        let text = fs::read_to_string(format!("/sys/devices/system/cpu/cpu{processor}/topology/{what}"));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    (read("physical_package_id"), read("core_id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(processors: Vec<usize>) -> Watch {
        let stat = File::open("/proc/stat").unwrap();
        Watch { stat, ticks_per_second: 100, processors, before: None, needed: VecDeque::new(), apart: None }
    }

    /// As many ticks of users on the first processor, and of the nice on all.
    fn stat(used: u64, nice: u64) -> String {
        format!("cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 {used} {nice} 0 50 9 0 0 0 0 0\ncpu1 0 {nice} 0 50 9 0 0 0 0 0\nintr 12 3\nctxt 5\n")
    }

    #[test]
    fn others_have_what_they_need_and_a_little_more() {
        let need = |milli| apart(milli, 64);
        assert_eq!([0, 399, 400, 800, 840, 20_000, 70_000].map(need), [0, 0, 1, 1, 2, 24, 63]);
        assert_eq!([399, 500, 1_700].map(|milli| apart(milli, 2)), [0, 1, 1], "one is left at the least");
    }

    #[test]
    fn processors_are_left_at_once_and_shared_again_once_they_were_not_needed_for_a_while() {
        let (mut watch, start) = (watch(vec![0, 1]), Instant::now());
        let (mut looks, mut used) = (0, 0);
        let mut after = |count: u32, milli: u64| {
            let changes = (0..count).filter_map(|_| {
                looks += 1;
                used += milli * 25 / 1_000;
                watch.saw(start + LOOK_EACH * looks, &stat(used, u64::from(looks) * 25))
            });
            changes.collect::<Vec<_>>()
        };
        assert_eq!(after(3, 80), [[0, 1]], "all are shared");
        assert_eq!(after(1, 600), [[1]], "at once");
        assert!(after(4, 80).is_empty(), "it may be needed again");
        assert_eq!(after(1, 80), [[0, 1]]);
    }

    #[test]
    fn only_processors_that_this_process_may_use_count_and_whatever_is_written_there_does_no_harm() {
        assert_eq!(
            used_us("cpu 1 1 1\ncpu0 5 70 3 9 9 2 1 6\ncpu3 10 0 0 0 0 0 0\ncpu12 4\n", &[0, 12], 100),
            (5 + 3 + 2 + 1 + 4) * 10_000
        );
        for strange in ["", "cpu", "cpux 5", "cpu0", "cpu0 a b c", "cpu18446744073709551616 5 5 5", "cpu\u{661} 5"] {
            assert_eq!(used_us(strange, &[0], 100), 0, "{strange:?}");
        }
        assert_eq!(used_us("cpu0 18446744073709551615", &[0], 100), u64::MAX / 100);
    }

    #[test]
    fn this_machine_says_what_its_processors_do() {
        let Some(mut watch) = Watch::open() else {
            println!("skipped: one processor, or no /proc/stat");
            return;
        };
        watch.look();
        let (_, before) = watch.before.expect("it could be read");
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        watch.look();
        assert!(watch.before.is_some_and(|(_, after)| after > before), "this test used some");
    }
}
