//! `parrot [MILLISECONDS]`: a component that prints each message of its framework (`skep:task/messages`) on a line of its own, until one says `quit`, it is
//! asked to stop, or nothing was said for so long; 600,000 ms where nothing is said.

use skep::task::{context, messages};

wit_bindgen::generate!({ path: "../../wit", world: "skep:task/task" });

fn main() {
    let silent_ms = std::env::args().nth(1).map_or(Ok(600_000), |ms| ms.parse());
    let Ok(silent_ms) = silent_ms else {
        eprintln!("usage: parrot [MILLISECONDS]");
        std::process::exit(64);
    };
    let mut heard = 0_u64;
    while let Some(message) = messages::wait(silent_ms) {
        if message == b"quit" {
            break;
        }
        println!("{}", String::from_utf8_lossy(&message));
        heard += 1;
        context::progress(0, &format!("{heard} heard"));
    }
}
