//! The command line.

use std::path::PathBuf;

use clap::Parser;

const AFTER_HELP: &str = "\
Exit codes:
  0        the stream is drained, or what was asked for is printed
  1        the run failed; what was not delivered is not marked as read (but with acknowledge `read`)
  2        the command line, the configuration or a file named there is wrong
  128 + n  stopped by signal n (143: SIGTERM, 130: SIGINT)

Environment:
  TAP_STREAMDUO_<SETTING>  with --config ENV: a setting, its name in capitals
  TAP_STREAMDUO_LOGLEVEL   DEBUG, INFO, WARNING, ERROR or CRITICAL; else LOGLEVEL, else RUST_LOG, else INFO
  HTTPS_PROXY, NO_PROXY    the proxy, as other programs read it";

/// Singer tap for StreamDuo: writes the unread records of a stream to stdout, and marks them as read once they are
/// delivered.
#[derive(Debug, Parser)]
#[command(name = "tap-streamduo", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Args {
    /// The settings, a JSON file; ENV reads them from the environment. May be repeated: later ones win
    #[arg(short, long, value_name = "FILE")]
    pub config: Vec<PathBuf>,

    /// The STATE of an earlier run, a JSON file
    #[arg(short, long, value_name = "FILE")]
    pub state: Option<PathBuf>,

    /// The catalog: the stream's name, its schema, and whether it is selected
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,

    /// The old name of --catalog
    #[arg(short, long, value_name = "FILE", conflicts_with = "catalog")]
    pub properties: Option<PathBuf>,

    /// Print the catalog and end
    #[arg(short, long)]
    pub discover: bool,

    /// Keep polling for new records once the stream is drained, until a signal ends it
    #[arg(long)]
    pub follow: bool,
}

impl Args {
    /// The catalog's file, under either of its names.
    pub fn catalog(&self) -> Option<&PathBuf> {
        self.catalog.as_ref().or(self.properties.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
