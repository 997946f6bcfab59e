//! `spin`: an endless loop that asks for nothing. Fuel, CPU time or wall-clock time ends it.

fn main() {
    println!("spinning");
    let mut turns: u64 = 0;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}
