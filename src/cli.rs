//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use clap_complete::Shell;

use crate::config::settings::MAX_RECORDS;

/// What help and the man page say below the options: narrow enough for a man page in 80 columns.
const AFTER_HELP: &str = "\
Exit codes:
  0        the stream is drained, or what was asked for is printed
  1        the run failed; what was not delivered is not marked as read
  2        the command line, the configuration, a file named there, or
           a variable for proxy or certificates is wrong, or the target
           cannot be started
  3        the target failed, or did not commit everything; what it has
           committed is marked as read
  128 + n  stopped by signal n (143: SIGTERM, 130: SIGINT)

Environment:
  TAP_STREAMDUO_<SETTING>      with --config ENV: a setting, its name
                               in capitals
  TAP_STREAMDUO_LOGLEVEL       DEBUG, INFO, WARNING, ERROR or CRITICAL;
                               else LOGLEVEL, else RUST_LOG, else INFO
  NO_COLOR                     no colours in the log at a terminal
  HTTPS_PROXY, NO_PROXY        the proxy, as other programs read it
  SSL_CERT_FILE, SSL_CERT_DIR  on Linux: the CAs to trust, in place of
                               the system's

Examples:
  tap-streamduo -c config.json --test
      Check the settings and peek. Nothing is marked as read.
  tap-streamduo -c config.json --peek 3
      Show the 3 oldest unread records. Nothing is marked as read.
  tap-streamduo -c config.json -- target-jsonl
      Load, and mark as read what the target has committed.
  tap-streamduo -c config.json --follow -- target-jsonl
      Go on polling, until SIGTERM or Ctrl-C.
  tap-streamduo -c config.json | target-jsonl
      Write into a pipe, and mark as read what is written.";

/// Singer tap for StreamDuo
///
/// Writes the unread records of a stream to stdout, or into a target that it runs, and marks them
/// as read once they are delivered. If stdout is a terminal, it shows them and marks nothing.
#[derive(Debug, Parser)]
#[command(name = "tap-streamduo", version, after_help = AFTER_HELP)]
pub struct Args {
    /// The settings, a JSON file; - reads them from stdin, ENV from the environment. May be
    /// repeated: later ones win
    #[arg(short, long, value_name = "FILE")]
    pub config: Vec<PathBuf>,

    /// The STATE of an earlier run, a JSON file. With a target and acknowledge `never`, the tap
    /// keeps there what the target has committed
    #[arg(short, long, value_name = "FILE")]
    pub state: Option<PathBuf>,

    /// The catalog: the stream's name, its schema, and whether it is selected
    #[arg(long, value_name = "FILE", visible_alias = "properties", visible_short_alias = 'p')]
    pub catalog: Option<PathBuf>,

    /// Print the catalog and end
    #[arg(short, long)]
    pub discover: bool,

    /// Check the settings (a misspelt one is an error), fetch a token and peek at one record. Marks
    /// nothing, prints no record
    #[arg(long, conflicts_with = "discover")]
    pub test: bool,

    /// Print what the tap is, what it can do and which settings it has
    #[arg(long)]
    pub about: bool,

    /// How --about prints it
    #[arg(long, value_enum, default_value_t, requires = "about")]
    pub format: Format,

    /// Print the completions for a shell
    #[arg(long, value_name = "SHELL")]
    pub completions: Option<Shell>,

    /// Print the man page, in roff
    #[arg(long)]
    pub man: bool,

    /// Keep polling for new records once the stream is drained, until a signal ends it
    #[arg(long)]
    pub follow: bool,

    /// Show the N oldest unread records (1 to 100,000) as SCHEMA and RECORDs. Marks nothing, writes
    /// no STATE
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=MAX_RECORDS as u64))]
    #[arg(conflicts_with_all = ["discover", "test", "about", "follow"])]
    pub peek: Option<usize>,

    /// Run this target, and mark what it has committed: -- target-x --config target.json
    #[arg(last = true, value_names = ["TARGET", "ARGUMENT"], num_args = 1.., conflicts_with_all = ["discover", "test", "about", "peek"])]
    pub target: Vec<OsString>,
}

/// How `--about` prints what it says.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum Format {
    /// For reading
    #[default]
    Text,
    /// As the Singer SDK has it
    Json,
    /// For a README
    Markdown,
}

impl Args {
    /// Reads the command line, and ends the program if it is wrong.
    pub fn read() -> Args {
        let args = Args::parse();
        // clap takes `--` with nothing behind it for no target.
        if args.target.is_empty() && std::env::args_os().any(|word| word == "--") {
            Args::command().error(ErrorKind::TooFewValues, "there is no target after `--`").exit();
        }
        args
    }

    /// The completions for a shell.
    pub fn completions_for(shell: Shell) -> String {
        let mut completions = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), env!("CARGO_PKG_NAME"), &mut completions);
        String::from_utf8_lossy(&completions).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_stands_below_the_options_fits_into_a_man_page_in_80_columns() {
        assert!(AFTER_HELP.lines().all(|line| line.len() <= 71));
    }
}
