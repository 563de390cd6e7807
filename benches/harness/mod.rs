//! What the scenarios are made of.

pub mod benchmark;
pub mod client;
pub mod competitor;
pub mod fixture;
pub mod follow;
pub mod measure;
pub mod report;
pub mod target;
