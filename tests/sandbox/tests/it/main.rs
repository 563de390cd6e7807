//! Tests of the sandbox over plain HTTP.

mod client;
mod faults;
mod limits;
mod network;
mod program;
mod records;
mod streams;
mod tokens;
