//! How much this master says, in Mesos' words: the levels of `glog`'s `VLOG`, of which 0 is what a master says that was started so.

use super::words::{member, nanoseconds, number};
use crate::http::access::Caller;
use crate::http::error::ApiError;
use crate::http::{Api, log_level};
use crate::logging::Detail;
use crate::shard::event::Level;
use serde_json::Value;

/// The level; 0 also where it cannot be changed.
pub fn level(api: &Api) -> u32 {
    match log_level::of(api).map(|logging| logging.now().0) {
        Ok(Detail::Debug) => 1,
        Ok(Detail::Trace) => 3,
        Ok(Detail::Usual) | Err(_) => 0,
    }
}

/// Has a level hold for a time.
///
/// # Errors
/// What is wrong with the call.
pub fn set_level(api: &Api, caller: &Caller, call: &Value) -> Result<(), ApiError> {
    caller.must_for_all(Level::Operator)?;
    let missing = |name: &str| ApiError::invalid(name, format!("Expecting '{name}' to be present"));
    let of = member(call, "set_logging_level").ok_or_else(|| missing("set_logging_level"))?;
    let level = member(of, "level").and_then(number).ok_or_else(|| missing("level"))?;
    let detail = match level {
        0.0 => Detail::Usual,
        1.0 | 2.0 => Detail::Debug,
        3.0 => Detail::Trace,
        other => return Err(ApiError::invalid("level", format!("Invalid level '{other}': it is 0, 1, 2 or 3"))),
    };
    member(of, "duration").ok_or_else(|| missing("duration"))?;
    let ms = nanoseconds(of, "duration").ok_or_else(|| ApiError::invalid("duration", "Invalid duration: expecting 'nanoseconds'"))?;
    log_level::change(api, caller, detail, log_level::duration(ms, "duration")?)
}
