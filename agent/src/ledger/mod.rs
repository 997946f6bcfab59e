//! Placeholder.

pub mod event;
