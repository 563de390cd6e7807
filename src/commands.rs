//! What the tap can be asked to do. Each command wires the parts that it needs.

use std::fs::File;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use log::{info, warn};
use serde_json::Value;

use crate::cli::Args;
use crate::config::{Acknowledge, Config, Invalid, PayloadFormat, PayloadSchema};
use crate::poll::target::{self, TargetCommand};
use crate::poll::{Endpoints, Look};
use crate::shutdown::{Shutdown, Stopped};
use crate::singer::dead_letters::{self, DeadLetters};
use crate::singer::state::State;
use crate::singer::{Stream, Writer, catalog, schema, state_message, stdout};
use crate::streamduo::api::Api;
use crate::streamduo::http::Http;
use crate::streamduo::payload::NoSample;
use crate::streamduo::{self, Count, RetryPolicy, Tuning};
use crate::{about, man, poll};

/// How many of the last records `payloadSchema` `sampled` looks at.
const SAMPLE: usize = 100;

/// Does what the command line asks for.
///
/// # Errors
/// The failure, with what to do about it.
pub fn run(args: &Args) -> Result<()> {
    match args {
        Args { completions: Some(shell), .. } => stdout::print(&Args::completions_for(*shell)),
        Args { man: true, .. } => stdout::print(&man::page()?),
        Args { about: true, .. } => stdout::print(&about::text(args.format)),
        Args { discover: true, .. } => discover(args),
        Args { test: true, .. } => test(args),
        Args { target, .. } if !target.is_empty() => load(args),
        _ => sync(args),
    }
}

/// Prints the catalog. Only a schema that is registered or sampled needs the service.
fn discover(args: &Args) -> Result<()> {
    if args.config.is_empty() {
        return stdout::print(&format!(
            "{:#}",
            catalog::discover("records", &schema::record(&schema::any()), Acknowledge::default())
        ));
    }
    let config = Config::load(&args.config)?;
    let mut api = connect(&config, &Shutdown::install()?)?;
    let schema = own_schema(&config, &mut api)?;
    stdout::print(&format!("{:#}", catalog::discover(&config.stream_name, &schema, config.acknowledge)))
}

/// Says whether the stream can be read with these settings.
fn test(args: &Args) -> Result<()> {
    let config = Config::load_for_test(&args.config)?;
    dead_letters::check(&config)?;
    info!("{}", in_use(&config));
    let stop = Shutdown::install()?;
    let mut queue = streamduo::pages(&config, Tuning::new(retries(&config)), connect(&config, &stop)?, false, &stop);
    let unread = if queue.peek(Count::AtOnce(1))?.is_empty() { "no unread record" } else { "unread records" };
    info!("stream {} at {} can be read: it has {unread}", config.stream_id, config.api_url);
    Ok(())
}

/// The settings that decide what a run reads, and when it marks.
fn in_use(config: &Config) -> String {
    let Config { stream_id, stream_name, acknowledge, page_size, max_pending, .. } = config;
    let word = acknowledge.to_possible_value().map_or_else(String::new, |word| word.get_name().to_owned());
    let size = match acknowledge {
        Acknowledge::Commit => format!("`maxPending` {max_pending}"),
        _ => format!("`pageSize` {page_size}"),
    };
    format!("in use: `streamId` {stream_id}, `streamName` {stream_name}, `acknowledge` {word}, {size}")
}

/// Reads the stream and writes it to stdout.
fn sync(args: &Args) -> Result<()> {
    let config = Config::load(&args.config)?;
    let out = stdout::open()?;
    let consumes = config.acknowledge != Acknowledge::Never;
    let terminal = (out.is_terminal() && consumes).then_some(Look::terminal(config.max_pending));
    if let Some(what) = args.peek.map(Look::peek).or(terminal) {
        return look(args, &config, what, out);
    }
    if args.follow && config.acknowledge == Acknowledge::Commit {
        return Err(Invalid::new(
            "--follow does not go with `acknowledge` `commit`, unless the tap runs the target: `tap-streamduo -c config.json \
             --follow -- target-x`",
        )
        .into());
    }
    let state = State::load(args.state.as_deref())?;
    dead_letters::check(&config)?;
    let stop = Shutdown::install()?;
    let mut api = connect(&config, &stop)?;
    let Some(stream) = selected_stream(args, &config, &mut api)? else {
        return stdout::print(&state_message(&state.unchanged()?));
    };
    let name = stream.name.clone();
    let writer = DeadLetters::around(Box::new(Writer::new(out, stream)?), &config);
    let endpoints = Endpoints { service: api, writer, stream: name, state, target: None };
    poll(args, &config, Tuning::new(retries(&config)), endpoints, stop)
}

/// Shows unread records. Nothing is marked, so the state of an earlier run is not read: what it proves stays for the next one.
fn look(args: &Args, config: &Config, what: Look, out: File) -> Result<()> {
    let stop = Shutdown::install()?;
    let mut api = connect(config, &stop)?;
    let Some(stream) = selected_stream(args, config, &mut api)? else { return Ok(()) };
    let name = stream.name.clone();
    let writer = DeadLetters::left_out(Box::new(Writer::new(out, stream)?), config);
    let endpoints = Endpoints { service: api, writer, stream: name, state: State::default(), target: None };
    log_start(config);
    poll::look(what, config, Tuning::new(retries(config)), endpoints, pause(args, config), stop)
}

/// Reads the stream into a target that the tap runs.
fn load(args: &Args) -> Result<()> {
    let config = Config::load_for_target(&args.config)?;
    let state = state_for_target(args, &config)?;
    let command = TargetCommand::find(&args.target)?;
    dead_letters::check(&config)?;
    let stop = Shutdown::install()?;
    let mut api = connect(&config, &stop)?;
    let Some(stream) = selected_stream(args, &config, &mut api)? else { return Ok(()) };
    let name = stream.name.clone();
    let (writer, target) = target::connect(command, stream);
    let writer = DeadLetters::around(Box::new(writer), &config);
    let endpoints = Endpoints { service: api, writer, stream: name, state, target: Some(Box::new(target)) };
    poll(args, &config, Tuning::for_target(retries(&config)), endpoints, stop)
}

/// The state for a run that starts a target. Without marks, only a file can keep the position.
fn state_for_target(args: &Args, config: &Config) -> Result<State> {
    match (&args.state, config.acknowledge) {
        (Some(_), Acknowledge::Never) => Ok(State::load(args.state.as_deref())?),
        (Some(_), _) => Err(Invalid::new(
            "--state does not go with a target, unless `acknowledge` is `never`: the read status at the service is the state",
        )
        .into()),
        (None, Acknowledge::Never) => {
            info!("no --state: the next run begins at `startTimestamp` again");
            Ok(State::default())
        }
        (None, _) => Ok(State::default()),
    }
}

/// The stream as the catalog has it; `None` if it is not selected.
fn selected_stream(args: &Args, config: &Config, api: &mut Api) -> Result<Option<Stream>> {
    let stream = match args.catalog() {
        None => Some(catalog::whole_stream(config, &own_schema(config, api)?)?),
        Some(path) => catalog::load(path, config, || own_schema(config, api))?,
    };
    if stream.is_none() {
        info!("the stream is not selected: nothing is read");
    }
    Ok(stream)
}

fn poll(args: &Args, config: &Config, tuning: Tuning, endpoints: Endpoints<Api>, stop: Shutdown) -> Result<()> {
    log_start(config);
    poll::run(config, tuning, endpoints, pause(args, config), stop)
}

fn log_start(config: &Config) {
    let Config { stream_id, api_url, .. } = config;
    match config.acknowledge {
        Acknowledge::Never => info!("reading stream {stream_id} by time from {api_url}, and marking nothing"),
        _ => info!("reading the unread records of stream {stream_id} from {api_url}"),
    }
}

/// The pause between two polls, if there is a second one.
fn pause(args: &Args, config: &Config) -> Option<Duration> {
    args.follow.then_some(config.poll_interval)
}

/// How often and how soon a request is repeated.
fn retries(config: &Config) -> RetryPolicy {
    RetryPolicy::new(config.max_retries)
}

fn connect(config: &Config, stop: &Shutdown) -> Result<Api> {
    Api::new(config, Http::new(config)?, retries(config), stop)
}

/// The schema of the stream's records, with the settings applied.
fn own_schema(config: &Config, api: &mut Api) -> Result<Value> {
    let mut schema = schema::record(&payload_schema(config, api)?);
    schema::apply_settings(&mut schema, config);
    Ok(schema)
}

/// The schema of the stream's payloads that the settings ask for. What cannot be had falls back to [`schema::any`], with a
/// warning.
fn payload_schema(config: &Config, api: &mut Api) -> Result<Value> {
    match config.payload_schema {
        _ if config.payload_format == PayloadFormat::String => Ok(schema::any()),
        PayloadSchema::Any => Ok(schema::any()),
        PayloadSchema::Registered => registered_schema(api),
        PayloadSchema::Sampled => sampled_schema(api),
    }
}

fn registered_schema(api: &mut Api) -> Result<Value> {
    let problem = match api.active_schema() {
        Ok(Some(schema)) if schema.kind == "JSON" => match schema::registered(&schema.text) {
            Ok(schema) => return Ok(schema),
            Err(error) => format!("it is not JSON ({error})"),
        },
        Ok(Some(schema)) => format!("it is an {} schema", schema.kind),
        Ok(None) => "the stream has none".to_owned(),
        Err(error) if error.is::<Stopped>() => return Err(error),
        Err(error) => format!("{error:#}"),
    };
    warn!("no registered schema to use, so that the payload may be anything: {problem}");
    Ok(schema::any())
}

fn sampled_schema(api: &mut Api) -> Result<Value> {
    let page = match api.last(SAMPLE) {
        Ok(page) => page,
        Err(error) if error.is::<NoSample>() => {
            warn!("no record can be had as a sample, so that the payload may be anything: {error:#}");
            return Ok(schema::any());
        }
        Err(error) => return Err(error),
    };
    let (schema, seen) = schema::sampled(&page);
    match seen {
        0 => warn!("no records to sample, so that the payload may be anything"),
        1 => info!("the payload's schema is that of the last record"),
        _ => info!("the payload's schema is that of the last {seen} records"),
    }
    Ok(schema)
}
