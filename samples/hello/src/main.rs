//! `hello [NAME]`: greets, and shows what a task is given: its arguments, its environment, its standard input, its exit code.

use std::io::Read as _;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "world".to_owned());
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "hello".to_owned());
    println!("{greeting}, {name}");
    for line in std::env::vars().filter(|(key, _)| key != "GREETING").map(|(key, value)| format!("env: {key}={value}")) {
        println!("{line}");
    }
    let mut input = String::new();
    match std::io::stdin().take(64 << 10).read_to_string(&mut input) {
        Ok(0) => {}
        Ok(bytes) => println!("stdin: {bytes} bytes, {} lines", input.lines().count()),
        Err(error) => eprintln!("stdin: {error}"),
    }
    // `hello NAME 3` ends with code 3.
    let code = std::env::args().nth(2).map_or(Ok(0), |code| code.parse());
    std::process::exit(code.unwrap_or_else(|_| {
        eprintln!("usage: hello [NAME [EXIT-CODE]]");
        64
    }));
}
