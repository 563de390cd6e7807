//! The program `tap-streamduo`: parses the command line, runs the command, ends with its exit code.

use std::process::ExitCode;

use log::warn;
use tap_streamduo::cli::Args;
use tap_streamduo::exit::Exit;
use tap_streamduo::poll::LeftByStop;
use tap_streamduo::shutdown::Stopped;
use tap_streamduo::{commands, logging};

fn main() -> ExitCode {
    let args = Args::read();
    logging::init();
    let exit = match commands::run(&args) {
        Ok(()) => Exit::Success,
        Err(error) => {
            match error.downcast_ref::<Stopped>() {
                Some(stopped) => match error.downcast_ref::<LeftByStop>() {
                    Some(left) => warn!("{stopped}: {left}"),
                    None => warn!("{stopped}"),
                },
                None => logging::fatal(&error),
            }
            Exit::of(&error)
        }
    };
    ExitCode::from(exit.code())
}
