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
//! Beside them: [`settings`] (the table of settings), [`pages`] (how many records to ask for), [`catalog`], [`schema`], [`selection`] and [`shape`] (what a record
//! looks like when it is written), [`state`], [`retry`] (what passes by itself), [`shutdown`] (signals), [`logging`]
//! (stderr), [`about`] and [`exit`] (exit codes). A module imports only from those before it in this flow; only this file
//! knows them all.

mod about;
mod api;
mod auth;
mod catalog;
mod cli;
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

use anyhow::Result;
use clap::Parser;
use log::{info, warn};

use crate::api::{Api, Queue};
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
    let exit = match run(&args) {
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

fn run(args: &Args) -> Result<()> {
    match args {
        Args { completions: Some(shell), .. } => singer::print(&Args::completions_for(*shell)),
        Args { man: true, .. } => singer::print(&Args::man_page()?),
        Args { about: true, .. } => singer::print(&about::text(args.format)),
        Args { discover: true, .. } => discover(args),
        Args { test: true, .. } => test(args),
        _ => sync(args),
    }
}

/// Prints the catalog. Only a schema that is registered or sampled needs the service.
fn discover(args: &Args) -> Result<()> {
    if args.config.is_empty() {
        return singer::print(&format!("{:#}", catalog::discover("records", &schema::record(&schema::any()))));
    }
    let config = Config::load(&args.config)?;
    let mut api = connect(&config, &Shutdown::install()?)?;
    let schema = own_schema(&config, &mut api)?;
    singer::print(&format!("{:#}", catalog::discover(&config.stream_name, &schema)))
}

/// Says whether the stream can be read with these settings.
fn test(args: &Args) -> Result<()> {
    let config = Config::load(&args.config)?;
    let mut api = connect(&config, &Shutdown::install()?)?;
    let unread = if api.peek(1)?.is_empty() { "no unread record" } else { "unread records" };
    info!("stream {} at {} can be read: it has {unread}", config.stream_id, config.api_url);
    Ok(())
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
    let stdout = singer::stdout()?;
    let stop = Shutdown::install()?;
    let mut api = connect(&config, &stop)?;
    let stream = match args.catalog() {
        None => Some(catalog::whole_stream(&config, &own_schema(&config, &mut api)?)?),
        Some(path) => catalog::load(path, &config, || own_schema(&config, &mut api))?,
    };
    let Some(stream) = stream else {
        info!("the stream is not selected: nothing is read");
        return singer::print(&singer::state_message(&state.unchanged())?);
    };
    info!("reading the unread records of stream {} from {}", config.stream_id, config.api_url);
    let meter = Meter::start(&stream.name);
    let state = state.of_stream(&stream.name, &config);
    let pause = args.follow.then_some(config.poll_interval);
    poll::run(&config, api, Writer::new(stdout, stream)?, state, pause, stop, meter)
}

fn connect(config: &Config, stop: &Shutdown) -> Result<Api> {
    Api::new(config, Http::new(config)?, stop.clone())
}

/// The schema of the stream's records as the settings make it.
fn own_schema(config: &Config, api: &mut Api) -> Result<serde_json::Value> {
    let mut schema = schema::record(&schema::payload(config, api)?);
    schema::shape(&mut schema, config);
    Ok(schema)
}
