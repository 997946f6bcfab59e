//! One page of memory: 16 KiB of stack first, then data.

fn main() {
    for argument in ["-zstack-size=16384", "--stack-first", "--initial-memory=65536"] {
        println!("cargo:rustc-link-arg-cdylib={argument}");
    }
}
