//! Wasm tasks: wasmtime in an executor. Knows modules, components, and what one store may use; knows no socket and no file but the compiled
//! code and standard input. The only folder that names wasmtime.
//!
//! Three phases, kept apart: per process [`Engine`] (pool, linkers, ticker); per plan [`Prepared`] (code, arguments with their gaps found);
//! per task [`Engine::run`].

pub mod compile;
pub mod policy;

mod ask;
mod cache;
mod control;
mod engine;
mod host;
mod inbox;
mod limits;
mod run;
mod streams;
mod template;

#[cfg(test)]
mod tests;

pub use ask::ANSWER_BYTES_MAX;
pub use cache::LoadError;
pub use control::{Control, NOTE_BYTES_MAX, Output, Progress};
pub use engine::{Engine, EngineError, Obtained, Prepared, Sizing};
