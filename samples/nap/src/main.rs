//! `nap [MILLISECONDS]`: waits, 1,000 ms where nothing is said. Built as a component (WASI 0.2): what `sleep` is as a core module.

fn main() {
    let ms = std::env::args().nth(1).map_or(Ok(1_000), |ms| ms.parse());
    match ms {
        Ok(ms) => std::thread::sleep(std::time::Duration::from_millis(ms)),
        Err(_) => {
            eprintln!("usage: nap [MILLISECONDS]");
            std::process::exit(64);
        }
    }
}
