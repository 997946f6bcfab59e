//! The door end to end.
