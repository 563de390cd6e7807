//! Singer tap for StreamDuo: reads the unread records of a stream and writes them to stdout as Singer messages.
//!
//! # The promise
//!
//! **A record is marked as read only after it has been delivered**: written to stdout and flushed, or committed by the target.
//! A crash, a `kill -9`, a closed pipe or a lost answer costs duplicates of a page or so, never a record. What the service's
//! own way of marking leaves open is in the README. [`record::Delivered`] makes the wrong order a compile error, and [`poll`]
//! is the loop that keeps the promise.
//!
//! # The way through the code
//!
//! ```text
//! Args -> Config -> Http -> TokenSource -> Api -> Page -> Writer -> Delivered -> Api
//! cli     config    http    auth           api    record  singer    record       api      poll: the loop over them
//! ```
//!
//! Beside them: [`settings`] (the table of settings), [`pages`] (how many records to ask for), [`catalog`], [`schema`],
//! [`selection`] and [`shape`] (what a record looks like when it is written), [`state`], [`retry`] (what passes by itself),
//! [`shutdown`] (signals), [`logging`] (stderr), [`about`] and [`exit`] (exit codes). A module imports only from those
//! before it in this flow; only [`commands`] knows them all.

mod about;
mod api;
mod auth;
mod catalog;
mod cli;
mod commands;
mod config;
mod exit;
mod http;
mod logging;
mod pages;
mod poll;
mod record;
mod retry;
mod schema;
mod selection;
mod settings;
mod shape;
mod shutdown;
mod singer;
mod state;

use std::process::ExitCode;

use clap::Parser;
use log::warn;

use crate::cli::Args;
use crate::exit::Exit;
use crate::shutdown::Stopped;

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init();
    let exit = match commands::run(&args) {
        Ok(()) => Exit::Success,
        Err(error) => {
            match error.downcast_ref::<Stopped>() {
                Some(stopped) => {
                    warn!("{stopped}: what was written last may not be marked as read yet, and comes again")
                }
                None => logging::fatal(&error),
            }
            Exit::of(&error)
        }
    };
    ExitCode::from(exit.code())
}
