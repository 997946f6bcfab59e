//! `greet [MILLISECONDS]`: a component (WASI 0.2) that asks its agent who it is and what it may spend (`skep:task`), and its job how to greet
//! (`wasi:config`). Waits so long in the middle, so that one can see how far it says that it is.

use skep::task::context;
use wasi::config::store;

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "samples:greet/greet",
    generate_all,
});

fn main() {
    let greeting = match store::get("greeting") {
        Ok(greeting) => greeting.unwrap_or_else(|| "hello".to_owned()),
        Err(error) => {
            eprintln!("config: {error:?}");
            std::process::exit(1);
        }
    };
    let me = context::whoami();
    println!("{greeting} from {} (attempt {}) on {}", me.task, me.attempt, me.agent);
    context::progress(50, "asking what is left");
    if let Some(ms) = std::env::args().nth(1) {
        match ms.parse() {
            Ok(ms) => std::thread::sleep(std::time::Duration::from_millis(ms)),
            Err(_) => {
                eprintln!("usage: greet [MILLISECONDS]");
                std::process::exit(64);
            }
        }
    }
    let left = context::remaining();
    println!("memory: {} bytes at most", left.memory_limit);
    if let Some(fuel) = left.fuel_left {
        println!("fuel: {fuel} instructions left");
    }
    if let Some(ms) = left.deadline_ms {
        println!("time: {ms} ms left");
    }
    context::progress(100, if context::stopping() { "asked to stop" } else { "done" });
}
