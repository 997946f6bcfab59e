//! The built-in framework: wanted against actual. Pure.
