//! `cargo quickstart`: builds the tap and the sandbox, and has the sandbox show the tap at work.
//!
//! One build for both programs uses all processors to its end. `cargo run` of one that starts
//! `cargo run` of the other does not.

#[path = "../../tests/sandbox/src/cargo_variables.rs"]
mod cargo_variables;

use std::env;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

fn main() -> ExitCode {
    match build_and_show() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            // Ignore the error: there is no other place to report it.
            let _ = writeln!(io::stderr(), "quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build_and_show() -> io::Result<ExitStatus> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--bin", "tap-streamduo", "--bin", "streamduo-sandbox"]).current_dir(root);
    for name in cargo_variables::set_by_cargo_run() {
        build.env_remove(name);
    }
    let built = build.status()?;
    if !built.success() {
        return Ok(built);
    }
    // Cargo puts all programs of a workspace into one folder.
    let this = env::current_exe()?;
    let program = |name: &str| this.with_file_name(name);
    Command::new(program("streamduo-sandbox")).arg("quickstart").arg(program("tap-streamduo")).status()
}
