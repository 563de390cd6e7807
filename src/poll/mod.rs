//! The loop that keeps the promise: a record is marked as read only after it has been delivered.
//!
//! `run.rs` has what every mode works with, `marker.rs` the marks and the fence, `output.rs` the
//! way out. There is a mode, and a file, for each value of `acknowledge` (`never` has two more, for
//! reading by time and for a target), one for a target that the tap runs (`closed_loop.rs`, over
//! `session.rs`, `target.rs` and `stdin.rs`), and one that only shows records (`look.rs`). To add
//! one for `acknowledge`:
//!
//! 1. Write `src/poll/<mode>.rs` with a type that implements `Mode`. `write.rs` is the shortest one
//!    that marks.
//! 2. Add a variant to [`Acknowledge`] in `src/config/choices.rs`. Its word in a config file
//!    follows from its name, its meaning in the table of settings from its comment.
//! 3. The compiler names each `match` that needs an arm: whether what is written is marked, what a
//!    STATE holds, and `fn run` below, with the queue that it needs. Both do the same, but
//!    [`Count::UpTo`](crate::streamduo::Count) means about 2 MiB and 3 s with `pages`, and 16 MiB
//!    with `windows`: take those if one such peek has to show all that is written and not yet
//!    marked. A peek shows the same records until they are marked.
//! 4. `cargo test --workspace` then names the documents and the lists of words to change. By hand:
//!    `meltano.yml`, the descriptions of `markBy` and `pageSize`, the documents that name the modes
//!    (`grep -rn never docs CONTRIBUTING.md`), and a property in `src/poll/tests/properties.rs`;
//!    `commands.rs`, if the mode marks nothing or is bounded by `maxPending`.
//!
//! Only `commit` and `never` read the bookmark of a STATE (`singer::state`).

mod by_time;
mod closed_loop;
mod commit;
mod cursor;
mod look;
mod look_back;
mod marker;
mod never;
mod never_target;
mod output;
mod run;
mod session;
mod stdin;
pub mod target;
mod write;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Result;

use crate::config::{Acknowledge, Config, MarkBy};
use crate::metrics::RunMetrics;
use crate::progress::LiveLine;
use crate::record::MessageWriter;
use crate::shutdown::Shutdown;
use crate::singer::state::State;
use crate::streamduo::service::Service;
use crate::streamduo::{self, Tuning};

pub use look::Look;
pub use run::LeftByStop;

use by_time::ByTime;
use closed_loop::ClosedLoop;
use commit::CommitMode;
use marker::Marker;
use never_target::NeverTarget;
use output::Output;
use run::{Mode, Run};
use target::Target;
use write::WriteMode;

/// What a run reads from and writes to.
pub struct Endpoints<Q> {
    /// The service. It sends each request once.
    pub service: Q,
    /// Where messages go.
    pub writer: Box<dyn MessageWriter>,
    /// The name of the Singer stream.
    pub stream: String,
    /// The state of an earlier run.
    pub state: State,
    /// The target behind `writer`, if the tap runs it.
    pub target: Option<Box<dyn Target>>,
    /// Shows unread records, and marks nothing, whatever `acknowledge` is.
    pub look: Option<Look>,
}

/// Reads the stream until it is drained; with a pause to make between polls, until a stop is asked
/// for.
///
/// # Errors
/// When the service or stdout fails; [`Stopped`](crate::shutdown::Stopped) when a stop was asked
/// for, with [`LeftByStop`]. No undelivered record is marked as read.
pub fn run(
    config: &Config,
    tuning: Tuning,
    endpoints: Endpoints<impl Service + 'static>,
    pause: Option<Duration>,
    stop: Shutdown,
) -> Result<()> {
    let Endpoints { service, writer, stream, state, target, look } = endpoints;
    // A live line would tear them.
    let shows_records = look.is_some() || target.is_none() && io::stdout().is_terminal();
    let put = if look.is_some() { "left out" } else { "put aside" };
    let (state, returned) = state.of_stream(&stream, config);
    let marker = Marker::new(config, tuning);
    let by_time = || ByTime::new(config, state.time_bookmark());
    let pages = |service| streamduo::pages(config, tuning, service, &stop);
    let windows = |service| streamduo::windows(config, tuning, service, &stop);
    let (mut mode, queue): (Box<dyn Mode>, _) = match (look, target, config.acknowledge) {
        (Some(look), ..) => (Box::new(look), windows(service)),
        (None, Some(target), Acknowledge::Never) => {
            (Box::new(NeverTarget::new(config, by_time(), target)), pages(service))
        }
        // With a target the settings refuse `write`.
        (None, Some(target), Acknowledge::Commit | Acknowledge::Write) => {
            (Box::new(ClosedLoop::new(config, marker, target)), pages(service))
        }
        (None, None, Acknowledge::Never) => (Box::new(by_time()), pages(service)),
        (None, None, Acknowledge::Write) => {
            let mut queue = pages(service);
            queue.prefetch.is_on = config.mark_by == MarkBy::Position;
            (Box::new(WriteMode { page_size: config.page_size, marker }), queue)
        }
        (None, None, Acknowledge::Commit) => {
            (Box::new(CommitMode { max_pending: config.max_pending, returned, marker }), windows(service))
        }
    };
    let live = if shows_records { None } else { LiveLine::start() };
    let metrics = RunMetrics::start(&stream, put, live);
    let out = Output::new(writer, state, metrics, stop.clone());
    Run { queue, out, stop }.finish(&mut *mode, pause)
}
