//! A policy that goes wrong in the way that a role or a job is called after: what that does to a cluster is nothing, and can be looked at.
#![no_std]

extern crate alloc;
extern crate lone as _;

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

wit_bindgen::generate!({ path: ["../../wit/policy", "wit"], world: "skep:wayward/wayward", generate_all });

struct Wayward;

export!(Wayward);

impl Guest for Wayward {
    fn score(want: Want, candidates: Vec<Candidate>) -> Ranking {
        go_wrong(&want.role);
        let count = candidates.len();
        let scores = match want.role.as_str() {
            "nan" => vec![f64::NAN; count],
            "few" => vec![1.0; count.saturating_sub(1)],
            "many" => vec![1.0; count + 1],
            "infinite" => vec![f64::INFINITY; count],
            // Right: the last of them is the best.
            _ => (0..count).map(|at| at as f64).collect(),
        };
        Ranking { scores, fill: false }
    }

    fn admit(job: Job) -> Result<(), String> {
        let name = job.name.unwrap_or_default();
        go_wrong(&name);
        if name == "no" { Err("this policy says no".to_string()) } else { Ok(()) }
    }
}

fn go_wrong(how: &str) {
    match how {
        "loops" => loop {
            core::hint::black_box(());
        },
        "traps" => panic!(),
        "hungry" => drop(core::hint::black_box(vec![1_u8; 64 << 20])),
        _ => {}
    }
}
