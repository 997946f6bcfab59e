//! A policy of which jobs are taken: none whose tasks together need more than 64 cores.
#![no_std]

extern crate alloc;
extern crate lone as _;

use alloc::format;
use alloc::string::String;

wit_bindgen::generate!({ path: "../../wit/policy", world: "admission" });

/// Most cores of one job, in thousandths.
const CPU_MILLI_MAX: u64 = 64_000;

struct Modest;

export!(Modest);

impl Guest for Modest {
    fn admit(job: Job) -> Result<(), String> {
        let all = job.needs.cpu_milli.saturating_mul(job.count.into());
        if all <= CPU_MILLI_MAX {
            return Ok(());
        }
        Err(format!("its {} tasks need {} cores together; a job may have {}", job.count, all.div_ceil(1_000), CPU_MILLI_MAX / 1_000))
    }
}
