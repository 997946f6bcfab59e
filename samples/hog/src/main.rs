//! `hog [MIB]`: takes memory, a MiB at a time, until it has so many (without end where nothing is said) or is stopped for it.

fn main() {
    let most: usize = std::env::args().nth(1).and_then(|most| most.parse().ok()).unwrap_or(usize::MAX);
    let mut held: Vec<Vec<u8>> = Vec::new();
    while held.len() < most {
        // Written, so that it is really there.
        held.push(vec![1; 1 << 20]);
        if held.len() % 16 == 0 {
            println!("{} MiB", held.len());
        }
    }
    let sum: usize = held.iter().map(|mib| usize::from(mib[mib.len() / 2])).sum();
    println!("done: {sum} MiB");
}
