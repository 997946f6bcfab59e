//! `greet`: a component (WASI 0.2) that asks its agent who it is and what it may spend (`skep:task`), and its job how to greet
//! (`wasi:config`).

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
