//! What the tap can be asked to do: each wires the parts that it needs.

use anyhow::Result;
use log::info;
use serde_json::Value;

use crate::api::{Api, Queue};
use crate::cli::Args;
use crate::config::{Acknowledge, Config, Invalid};
use crate::http::Http;
use crate::logging::Meter;
use crate::shutdown::Shutdown;
use crate::singer::Writer;
use crate::state::State;
use crate::{about, catalog, poll, schema, singer};

/// Does what the command line asks for.
///
/// # Errors
/// Whatever goes wrong, with what to do about it.
pub fn run(args: &Args) -> Result<()> {
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
fn own_schema(config: &Config, api: &mut Api) -> Result<Value> {
    let mut schema = schema::record(&schema::payload(config, api)?);
    schema::shape(&mut schema, config);
    Ok(schema)
}
