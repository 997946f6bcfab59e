//! `sieve [MOST]`: counts the primes up to `MOST`, ten million where nothing is said, by the sieve of Eratosthenes. Burns fuel, the same
//! amount each time.

fn main() {
    let most = std::env::args().nth(1).map_or(Ok(10_000_000), |most| most.parse());
    let Ok(most @ 2..=500_000_000) = most else {
        eprintln!("usage: sieve [MOST], 2 to 500000000");
        std::process::exit(64);
    };
    println!("{} primes up to {most}", primes(most));
}

/// How many primes there are up to `most`: one bit for each odd number above 2.
fn primes(most: usize) -> usize {
    let odd = (most - 1) / 2;
    let mut composite = vec![0_u64; odd / 64 + 1];
    let mut count = 1;
    for at in 0..odd {
        if composite[at / 64] >> (at % 64) & 1 == 1 {
            continue;
        }
        count += 1;
        let prime = 2 * at + 3;
        for multiple in ((prime * prime - 3) / 2..odd).step_by(prime).take_while(|_| prime <= most / prime) {
            composite[multiple / 64] |= 1 << (multiple % 64);
        }
    }
    count
}
