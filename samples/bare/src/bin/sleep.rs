//! `sleep [MILLISECONDS]`: waits, 1,000 ms where nothing is said, and ends with code 0. One page of memory: what ten thousand idle tasks
//! are made of. `well` says that all is well: what a health check may ask.
#![no_std]
#![no_main]

#[unsafe(no_mangle)]
extern "C" fn _start() {
    let ([ms], given) = bare::numbers::<1>();
    let ms = if given == 0 { 1_000 } else { ms };
    bare::sleep(ms.saturating_mul(1_000_000));
}

#[unsafe(no_mangle)]
extern "C" fn well() -> u32 {
    0
}
