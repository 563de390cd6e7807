//! The program `tap-streamduo`: parses the command line, runs the command, ends with its exit code.

use std::process::ExitCode;

use log::warn;
use tap_streamduo::cli::Args;
use tap_streamduo::poll::LeftByStop;
use tap_streamduo::shutdown::Stopped;
use tap_streamduo::{commands, exit, logging};

fn main() -> ExitCode {
    let args = Args::read();
    logging::init();
    let Err(error) = commands::run(&args) else { return ExitCode::SUCCESS };
    match (error.downcast_ref::<Stopped>(), error.downcast_ref::<LeftByStop>()) {
        (Some(stopped), Some(left)) => warn!("{stopped}: {left}"),
        (Some(stopped), None) => warn!("{stopped}"),
        (None, _) => logging::fatal(&error),
    }
    ExitCode::from(exit::code(&error))
}
