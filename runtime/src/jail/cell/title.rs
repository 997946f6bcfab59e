//! What `/proc/PID/cmdline` shows of a task's init: its name. It was forked, so else it would be what the template was started with, and with that
//! paths of the host.

use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

const TITLE: &[u8] = b"skep-init";

/// Where in its memory a process has its arguments, and so has each that is forked from it.
static ARGUMENTS: OnceLock<Option<Range<u64>>> = OnceLock::new();

/// Finds out once, for all that is forked afterwards, what [`set`] needs.
pub(super) fn prepare() {
    arguments();
}

/// Writes it into the memory of `pid`, a process that was forked from this one and has executed nothing since. Without root the kernel forbids
/// it, and the process shows what this one shows.
pub(super) fn set(pid: u32) {
    let Some(place) = arguments() else { return };
    let mut bytes = vec![0; usize::try_from(place.end - place.start).unwrap_or(0)];
    // The last byte stays zero: else the kernel reads on in the environment.
    let shown = TITLE.len().min(bytes.len().saturating_sub(1));
    bytes[..shown].copy_from_slice(&TITLE[..shown]);
    let _ = OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).and_then(|memory| memory.write_all_at(&bytes, place.start));
}

/// Fields 48 and 49 of `/proc/self/stat`, `arg_start` and `arg_end` (proc_pid_stat(5)).
fn arguments() -> &'static Option<Range<u64>> {
    ARGUMENTS.get_or_init(|| {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may hold anything; what follows it begins with field 3.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace().skip(45).map(|field| field.parse::<u64>().ok());
        let (start, end) = (fields.next()??, fields.next()??);
        (start > 0 && start < end).then_some(start..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_where_the_kernel_says() {
        let place = arguments().clone().unwrap();
        let shown = fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(place.end - place.start, shown.len() as u64);
        let mut bytes = vec![0; shown.len()];
        fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, place.start).unwrap();
        assert_eq!(bytes, shown);
    }
}
