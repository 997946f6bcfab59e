//! The binary end to end, hostile inputs, and the rules of the house.

mod cluster;
mod run;
mod survive;
mod tidy;
