//! What a component brings itself that imports nothing, not even WASI: memory to give away, and an end for panics. For policies, of which each
//! call has a new instance: nothing is ever given back.
#![no_std]

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};

/// As much as 32 agents with the longest attributes take, several times over.
const HEAP_BYTES: usize = 4 << 20;

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

#[cfg_attr(target_arch = "wasm32", global_allocator)]
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
static HEAP: Heap = Heap { bytes: core::cell::UnsafeCell::new([0; HEAP_BYTES]), used: AtomicUsize::new(0) };

#[cfg(target_arch = "wasm32")]
mod wasm {
    use super::{GlobalAlloc, HEAP, Layout};

    /// Where the host puts what it gives (Component Model, Canonical ABI: `realloc`).
    #[unsafe(no_mangle)]
    unsafe extern "C" fn cabi_realloc(_old: *mut u8, old_bytes: usize, align: usize, bytes: usize) -> *mut u8 {
        match Layout::from_size_align(bytes, align) {
            // SAFETY: the layout is one.
            Ok(layout) if old_bytes == 0 => unsafe { HEAP.alloc(layout) },
            _ => core::arch::wasm32::unreachable(),
        }
    }

    /// What compilers call to copy bytes, and no C library brings: one instruction of wasm 2.0, as the next two.
    #[unsafe(no_mangle)]
    #[target_feature(enable = "bulk-memory")]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's contract is memcpy's.
        unsafe { core::ptr::copy_nonoverlapping(from, to, bytes) };
        to
    }

    #[unsafe(no_mangle)]
    #[target_feature(enable = "bulk-memory")]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's contract is memmove's.
        unsafe { core::ptr::copy(from, to, bytes) };
        to
    }

    #[unsafe(no_mangle)]
    #[target_feature(enable = "bulk-memory")]
    unsafe extern "C" fn memset(to: *mut u8, value: i32, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's contract is memset's.
        unsafe { core::ptr::write_bytes(to, value as u8, bytes) };
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, bytes: usize) -> i32 {
        for at in 0..bytes {
            // SAFETY: the caller's contract is memcmp's: both have so many bytes.
            let (a, b) = unsafe { (*one.add(at), *other.add(at)) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    #[panic_handler]
    fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
        core::arch::wasm32::unreachable()
    }
}
