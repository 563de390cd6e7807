//! What the tap can be asked to do. Each command wires the parts that it needs.

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use log::{info, warn};
use serde_json::Value;

use crate::cli::Args;
use crate::config::{Acknowledge, Config, Invalid, PayloadSchema};
use crate::poll::target::{self, Ends, TargetCommand};
use crate::poll::{Endpoints, Look};
use crate::shutdown::{Shutdown, Stopped};
use crate::singer::columns::Splitter;
use crate::singer::dead_letters::{self, DeadLetters};
use crate::singer::files::are_same;
use crate::singer::state::State;
use crate::singer::transform::PAYLOAD;
use crate::singer::{Stream, Writer, catalog, schema, state_message, stdout};
use crate::streamduo::api::Api;
use crate::streamduo::request::RecordRequest;
use crate::streamduo::{self, Count, Retry, Tuning};
use crate::{about, man, poll};

/// Does what the command line asks for. An error says what to do about it.
pub fn run(args: &Args) -> Result<()> {
    match args {
        Args { completions: Some(shell), .. } => return stdout::print(&Args::completions_for(*shell)),
        Args { man: true, .. } => return stdout::print(&man::page()?),
        Args { about: true, .. } => return stdout::print(&about::text(args.format)),
        Args { discover: true, config, .. } if config.is_empty() => {
            return print_catalog("records", schema::record(), Acknowledge::default());
        }
        _ => {}
    }
    let has_target = !args.target.is_empty();
    let config = Config::load(&args.config, args.test, has_target)?;
    check_roles(args, &config)?;
    match args {
        Args { discover: true, .. } => discover(args, &config),
        Args { test: true, .. } => test(args, &config),
        _ if has_target => load(args, &config),
        _ => sync(args, &config),
    }
}

/// Prints the catalog. Only columns need the service.
fn discover(args: &Args, config: &Config) -> Result<()> {
    let mut schema = catalog::whole_stream(config).schema;
    if let Some(mut splitter) = Splitter::load(config, false)? {
        let mut api = Api::new(config, retries(args, config), &Shutdown::install()?)?;
        learn(&mut splitter, config, &mut api)?;
        if config.payload_schema == PayloadSchema::Sampled && config.acknowledge != Acknowledge::Never {
            api.sample(RecordRequest::peek)?.iter().for_each(|page| splitter.sample(page));
        }
        splitter.start(&mut schema);
    }
    print_catalog(&config.stream_name, schema, config.acknowledge)
}

fn print_catalog(stream: &str, schema: Value, acknowledge: Acknowledge) -> Result<()> {
    stdout::print(&format!("{:#}", catalog::discover(stream, schema, acknowledge)))
}

/// Checks that no file is named for two things: one of them would be overwritten, or read as
/// another.
fn check_roles(args: &Args, config: &Config) -> Result<()> {
    let others = [
        ("--state", args.state.as_ref()),
        ("--catalog", args.catalog.as_ref()),
        ("`columnsFile`", config.columns_file.as_ref()),
        ("`deadLetterFile`", config.dead_letter_file.as_ref()),
    ];
    let files = args.config.iter().map(|path| ("--config", Some(path))).chain(others);
    let files: Vec<_> = files.filter_map(|(role, path)| Some((role, path?))).collect();
    for (role, path) in &files {
        let mut before = files.iter().take_while(|(other, _)| other != role);
        if let Some((other, _)) = before.find(|(_, other)| are_same(other, path)) {
            let path = path.display();
            bail!(Invalid::new(format!("{other} and {role} are one file, {path}: name another one for one of them")));
        }
    }
    Ok(())
}

/// Says whether the stream can be read with these settings.
fn test(args: &Args, config: &Config) -> Result<()> {
    dead_letters::check(config)?;
    Splitter::load(config, false)?;
    // What decides what a run reads, and when it marks.
    let Config { stream_id, stream_name, acknowledge, page_size, max_pending, api_url, .. } = config;
    let word = acknowledge.to_possible_value();
    let word = word.as_ref().map_or("", |word| word.get_name());
    let size = match acknowledge {
        Acknowledge::Commit => format!("`maxPending` {max_pending}"),
        _ => format!("`pageSize` {page_size}"),
    };
    info!("in use: `streamId` {stream_id}, `streamName` {stream_name}, `acknowledge` {word}, {size}");
    let stop = Shutdown::install()?;
    // Somebody waits for the answer.
    let retries = Retry { max_retries: config.max_retries.min(1), ..retries(args, config) };
    let api = Api::new(config, retries, &stop)?;
    let is_drained = streamduo::pages(config, Tuning::new(retries), api, &stop).peek(Count::AtOnce(1))?.is_empty();
    let unread = if is_drained { "no unread record" } else { "unread records" };
    info!("stream {stream_id} at {api_url} can be read: it has {unread}");
    Ok(())
}

/// Reads the stream and writes it to stdout.
fn sync(args: &Args, config: &Config) -> Result<()> {
    let mut out = Some(stdout::open(config.acknowledge.marks_what_is_written())?);
    let open = move || out.take().ok_or_else(|| io::ErrorKind::BrokenPipe.into());
    let would_mark = io::stdout().is_terminal() && config.acknowledge != Acknowledge::Never;
    let terminal = would_mark.then_some(Look::terminal(config.max_pending));
    let look = args.peek.map(Look::peek).or(terminal);
    if look.is_none() && args.follow && config.acknowledge == Acknowledge::Commit {
        bail!(Invalid::new(
            "--follow does not go with `acknowledge` `commit`, unless the tap runs the target: `tap-streamduo -c config.json \
             --follow -- target-x`",
        ));
    }
    // A look marks nothing, so what the state of an earlier run proves is kept for the next one.
    let state = State::load(args.state.as_deref().filter(|_| look.is_none()), false)?;
    read(args, config, state, look, |stream| (Box::new(Writer::new(open, stream)), None))
}

/// Reads the stream into a target that the tap runs.
fn load(args: &Args, config: &Config) -> Result<()> {
    // Without marks, only a file can keep the position.
    let marks = config.acknowledge != Acknowledge::Never;
    if marks && args.state.is_some() {
        bail!(Invalid::new(
            "--state does not go with a target, unless `acknowledge` is `never`: the read status at the service is the state",
        ));
    }
    if !marks && args.state.is_none() {
        info!("no --state: the next run begins at `startTimestamp` again");
    }
    let state = State::load(args.state.as_deref(), true)?;
    let command = TargetCommand::find(&args.target)?;
    read(args, config, state, None, |stream| target::connect(command, stream))
}

/// Reads the stream, or only looks at it. `open` makes the writer for its messages, and the target
/// behind it if the tap runs one.
fn read(
    args: &Args,
    config: &Config,
    state: State,
    look: Option<Look>,
    open: impl FnOnce(Stream) -> Ends,
) -> Result<()> {
    if look.is_none() {
        dead_letters::check(config)?;
    }
    let stop = Shutdown::install()?;
    let retries = retries(args, config);
    let mut service = Api::new(config, retries, &stop)?;
    let Some(selected) = selected_stream(args, config, &mut service, look.is_none())? else {
        info!("the stream is not selected: nothing is read");
        let writes_state = look.is_none() && args.target.is_empty();
        return if writes_state { stdout::print(&state_message(&state.unchanged()?)) } else { Ok(()) };
    };
    let stream = selected.name.clone();
    let (writer, target) = open(selected);
    let pause = args.follow.then_some(config.poll_interval);
    let Config { stream_id, api_url, .. } = config;
    match config.acknowledge {
        Acknowledge::Never => info!("reading stream {stream_id} by time from {api_url}, and marking nothing"),
        _ => info!("reading the unread records of stream {stream_id} from {api_url}"),
    }
    let writer = DeadLetters::around(writer, config, look.is_none());
    let tuning = Tuning::new(retries);
    let endpoints = Endpoints { service, writer, stream, state, target, look };
    poll::run(config, tuning, endpoints, pause, stop)
}

/// The stream as the catalog has it; `None` if it is not selected. With `writes`, new columns are
/// added to `columnsFile`.
fn selected_stream(args: &Args, config: &Config, api: &mut Api, writes: bool) -> Result<Option<Stream>> {
    let splitter = Splitter::load(config, writes)?;
    let stream = match &args.catalog {
        None => Some(catalog::whole_stream(config)),
        Some(path) => catalog::load(path, config)?,
    };
    let Some(mut stream) = stream else { return Ok(None) };
    let is_selected = |_: &Splitter| !stream.transform.selection.leaves_out(PAYLOAD);
    if let Some(mut splitter) = splitter.filter(is_selected) {
        splitter.select(&stream.transform.selection);
        if writes {
            learn(&mut splitter, config, api)?;
        }
        stream.transform.splitter = Some(splitter);
    }
    Ok(Some(stream))
}

/// How often and how soon a request is repeated. A run that follows waits as long as it is asked
/// to.
fn retries(args: &Args, config: &Config) -> Retry {
    let retries = Retry::new(config.max_retries);
    if args.follow { Retry { max_retry_after: Duration::MAX, ..retries } } else { retries }
}

/// Looks for columns in what the service has besides unread records. A failure is a warning.
fn learn(splitter: &mut Splitter, config: &Config, api: &mut Api) -> Result<()> {
    if config.payload_schema == PayloadSchema::Sampled {
        api.sample(RecordRequest::last)?.iter().for_each(|page| splitter.sample(page));
        return Ok(());
    }
    let register = |schema: String| splitter.register(&schema).map_err(|error| anyhow!("it is not JSON ({error})"));
    match api.active_schema().and_then(register) {
        Err(error) if !error.is::<Stopped>() => warn!("no registered schema to use: {error:#}"),
        registered => registered?,
    }
    Ok(())
}
