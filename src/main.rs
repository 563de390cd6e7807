//! Singer tap for StreamDuo: reads the unread records of a stream and writes them to stdout as Singer messages.
//!
//! # The promise
//!
//! **A record is marked as read only after it has been delivered**: written to stdout and flushed. A crash, a `kill -9`, a
//! closed pipe, a lost answer or a second tap costs at most duplicates of one page, never a record.
//! [`record::Delivered`] makes the wrong order a compile error, and [`poll`] is the loop that keeps the promise.
//!
//! # The way through the code
//!
//! ```text
//! Args -> Config -> Http -> TokenSource -> Api -> Page -> Writer -> Delivered -> Api
//! cli     config    http    auth           api    record  singer    record       api      poll: the loop over them
//! ```
//!
//! Beside them: [`catalog`] and [`state`] (files that come in and go out), [`retry`] (what passes by itself),
//! [`shutdown`] (signals), [`logging`] (stderr) and [`exit`] (exit codes). A module imports only from those before it in
//! this flow; only this file knows them all.

mod api;
mod auth;
mod catalog;
mod cli;
mod config;
mod exit;
mod http;
mod logging;
mod poll;
mod record;
mod retry;
mod shutdown;
mod singer;
mod state;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use log::{info, warn};

use crate::api::Api;
use crate::cli::Args;
use crate::config::{Acknowledge, Config, Invalid};
use crate::exit::Exit;
use crate::http::Http;
use crate::logging::Meter;
use crate::shutdown::{Shutdown, Stopped};
use crate::singer::Writer;
use crate::state::State;

fn main() -> ExitCode {
    let args = Args::parse();
    logging::init();
    let exit = match if args.discover { discover(&args) } else { sync(&args) } {
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

/// Prints the catalog.
fn discover(args: &Args) -> Result<()> {
    let name = if args.config.is_empty() { "records".to_owned() } else { Config::load(&args.config)?.stream_name };
    singer::print(&format!("{:#}", catalog::discover(&name)))
}

/// Reads the stream.
fn sync(args: &Args) -> Result<()> {
    let config = Config::load(&args.config)?;
    if args.follow && config.acknowledge == Acknowledge::Commit {
        return Err(Invalid::new(
            "--follow does not go with `acknowledge` `commit` yet: run the tap from cron instead",
        )
        .into());
    }
    let state = State::load(args.state.as_deref())?;
    let stream = match args.catalog() {
        None => catalog::default_stream(&config.stream_name)?,
        Some(path) => match catalog::load(path)? {
            Some(stream) => stream,
            None => {
                info!("the stream is not selected: nothing is read");
                return singer::print(&singer::state_message(&state.unchanged())?);
            }
        },
    };
    let stop = Shutdown::install()?;
    let out = Writer::new(singer::stdout()?, &stream)?;
    let api = Api::new(&config, Http::new(&config)?, stop.clone())?;
    info!("reading the unread records of stream {} from {}", config.stream_id, config.api_url);
    let meter = Meter::start(&stream.name);
    let pause = args.follow.then_some(config.poll_interval);
    poll::run(&config, api, out, state.of_stream(&stream.name, &config), pause, stop, meter)
}
