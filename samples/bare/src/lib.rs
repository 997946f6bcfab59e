//! WASI preview 1 without std: a task's arguments, its exit code, and a wait. Knows the two dozen bytes of the interface that it needs.
#![no_std]

use core::mem::MaybeUninit;

/// Most bytes of all arguments together.
const ARGS_BYTES_MAX: usize = 512;
/// Most arguments, the program's name included.
const ARGS_MAX: usize = 8;
/// Exit code for wrong usage (sysexits.h).
pub const USAGE: u32 = 64;

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn args_sizes_get(count: *mut usize, bytes: *mut usize) -> u32;
    fn args_get(pointers: *mut *const u8, bytes: *mut u8) -> u32;
    fn proc_exit(code: u32) -> !;
    fn poll_oneoff(subscriptions: *const Subscription, events: *mut [u64; 4], count: usize, done: *mut usize) -> u32;
}

/// A subscription to the clock (`subscription` of the interface, 48 bytes).
#[repr(C)]
struct Subscription {
    userdata: u64,
    kind: u64,
    clock: u64,
    timeout_ns: u64,
    precision_ns: u64,
    flags: u64,
}

/// Ends the task.
pub fn exit(code: u32) -> ! {
    // SAFETY: the host ends the task in this call.
    unsafe { proc_exit(code) }
}

/// Waits on the monotonic clock.
pub fn sleep(timeout_ns: u64) {
    let subscription = Subscription { userdata: 0, kind: 0, clock: 1, timeout_ns, precision_ns: 1, flags: 0 };
    let (mut event, mut done) = ([0; 4], 0);
    // SAFETY: both point to values of the interface's size and alignment, which live until the call returns.
    let error = unsafe { poll_oneoff(&subscription, &mut event, 1, &mut done) };
    if error != 0 {
        exit(1);
    }
}

/// The arguments behind the program's name that are numbers, in order; how many there are. Anything else ends the task.
pub fn numbers<const N: usize>() -> ([u64; N], usize) {
    let (mut count, mut bytes) = (0, 0);
    // SAFETY: both point to a value of the interface's size.
    let error = unsafe { args_sizes_get(&mut count, &mut bytes) };
    if error != 0 || count > ARGS_MAX || count > N + 1 || bytes > ARGS_BYTES_MAX {
        exit(USAGE);
    }
    let mut numbers = [0; N];
    if count <= 1 {
        return (numbers, 0);
    }
    // Not filled with zeros: for that some compilers call a C library, which is not there.
    let mut pointers = [const { MaybeUninit::<*const u8>::uninit() }; ARGS_MAX];
    let mut buffer = [const { MaybeUninit::<u8>::uninit() }; ARGS_BYTES_MAX];
    // SAFETY: the host writes `count` pointers and `bytes` bytes, which were just compared with the room there is.
    if unsafe { args_get(pointers.as_mut_ptr().cast(), buffer.as_mut_ptr().cast()) } != 0 {
        exit(USAGE);
    }
    // SAFETY: the host has written so many bytes, and there is room for more.
    let texts = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), bytes) };
    // They stand in the buffer one behind the other, each with a zero at its end.
    let texts = texts.split(|byte| *byte == 0);
    for (number, text) in numbers.iter_mut().zip(texts.skip(1).take(count - 1)) {
        *number = parse(text);
    }
    (numbers, count - 1)
}

fn parse(text: &[u8]) -> u64 {
    let digits = !text.is_empty() && text.len() < 20 && text.iter().all(u8::is_ascii_digit);
    if !digits {
        exit(USAGE);
    }
    text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): what decides, from a seed and an index, which tasks trap.
pub const fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
