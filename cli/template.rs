//! The template alone: what of the binary keeps root, and nothing else of it. Lies beside `skep`, which has the same verb within; it is forked
//! again and again, and a small process costs less to fork.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [verb, data, owner, version, binary] if verb == "template" => {
            if let Some(owner) = owner.to_str().and_then(|owner| owner.parse().ok()) {
                return runtime::executor::process::main_of(Path::new(data), owner, version, Path::new(binary));
            }
        }
        _ => {}
    }
    eprintln!("skep-template: started by an agent, and not by people");
    ExitCode::from(64)
}
