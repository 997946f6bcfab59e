//! Placeholder.

pub mod event;
pub mod record;
pub mod view;
