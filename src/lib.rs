//! Singer tap for StreamDuo: reads the unread records of a stream and writes them to stdout as
//! Singer messages. The library is the program's inside, and makes no promise to other programs.
//!
//! # The map
//!
//! Arrows point at what a module uses; none points back.
//!
//! ```text
//! main ─> cli, commands ─> poll ─┬─> streamduo ─┬─┬─> record
//!                                └─> singer ────┘ └─> config
//! ```
//!
//! - [`config`]: the settings, checked before the first request.
//! - [`record`]: what a record is, and the proof that it was delivered.
//! - [`streamduo`]: the service: HTTP, tokens, retries, page sizes, prefetch.
//! - [`singer`]: the format: messages, STATE, catalog, schema, columns, and the way to stdout.
//! - [`poll`]: the loop, a file for each mode; and the target that the tap runs.
//! - [`commands`] wires them. All may use [`logging`], [`metrics`] with [`progress`] (the live
//!   line), and [`shutdown`] (signals). [`cli`], [`man`], [`about`] and [`exit`] are the program's
//!   command line, what it says of itself, and exit codes.
//!
//! # The promise
//!
//! **A record is marked as read only after it has been delivered**: written to stdout and flushed,
//! or committed by the target. A crash, a `kill -9` or a lost answer costs duplicates of a page or
//! so. `docs/guarantees.md` lists the cases that the service's own way of marking leaves open.
//!
//! The wrong order does not compile: the doc tests of [`promise`] show it.

pub mod about;
pub mod cli;
pub mod commands;
pub mod config;
pub mod exit;
pub mod logging;
pub mod man;
pub mod metrics;
pub mod poll;
pub mod progress;
pub mod promise;
pub mod record;
pub mod shutdown;
pub mod singer;
pub mod streamduo;
