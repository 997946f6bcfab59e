//! `doze [MILLISECONDS]`: waits, 1,000 ms where nothing is said. A component (WASI 0.2) without std, as small as `sleep` is among the
//! modules: `nap` is the same with std, and takes four times the memory.
#![no_std]

extern crate alloc;

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};

wit_bindgen::generate!({ path: "wit", world: "doze", generate_all });

struct Doze;

export!(Doze);

impl exports::wasi::cli::run::Guest for Doze {
    fn run() -> Result<(), ()> {
        let arguments = wasi::cli::environment::get_arguments();
        let ms = match arguments.get(1) {
            Some(text) => text.parse::<u64>().map_err(|_| ())?,
            None => 1_000,
        };
        wasi::clocks::monotonic_clock::subscribe_duration(ms.saturating_mul(1_000_000)).block();
        Ok(())
    }
}

/// Bytes for all that is ever allocated: the arguments.
const HEAP_BYTES: usize = 4 << 10;

/// Gives bytes away and takes none back.
struct Heap {
    bytes: core::cell::UnsafeCell<[u8; HEAP_BYTES]>,
    used: AtomicUsize,
}

// SAFETY: a component has one thread, and each byte is given away once.
unsafe impl Sync for Heap {}

// SAFETY: each call gets bytes that no other got, aligned as it wants, or null.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = self.bytes.get() as usize;
        let at = (start + self.used.load(Ordering::Relaxed)).next_multiple_of(layout.align());
        let end = at + layout.size();
        if end > start + HEAP_BYTES {
            return core::ptr::null_mut();
        }
        self.used.store(end - start, Ordering::Relaxed);
        at as *mut u8
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP: Heap = Heap { bytes: core::cell::UnsafeCell::new([0; HEAP_BYTES]), used: AtomicUsize::new(0) };

/// Where the host puts what it returns (Component Model, Canonical ABI: `realloc`).
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
unsafe extern "C" fn cabi_realloc(_old: *mut u8, old_bytes: usize, align: usize, bytes: usize) -> *mut u8 {
    match Layout::from_size_align(bytes, align) {
        // SAFETY: the layout is one.
        Ok(layout) if old_bytes == 0 => unsafe { HEAP.alloc(layout) },
        _ => core::arch::wasm32::unreachable(),
    }
}

/// What compilers call to copy bytes, and no C library brings: one instruction of wasm 2.0.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
#[target_feature(enable = "bulk-memory")]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    // SAFETY: the caller's contract is memcpy's.
    unsafe { core::ptr::copy_nonoverlapping(from, to, bytes) };
    to
}

#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
