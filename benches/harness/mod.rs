//! What the scenarios are made of.

pub mod client;
pub mod process;
pub mod report;
pub mod rival;
pub mod scene;
