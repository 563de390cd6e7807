//! Targets for a tap to run, and what they have committed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use streamduo_sandbox::Identity;

use crate::dead_letters::put_aside_identities;
use crate::tap::{Running, Tap};

/// The target of the sandbox's program. Cargo builds it next to the tap, where both packages are
/// tested.
pub fn target_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_tap-streamduo")).with_file_name("streamduo-sandbox");
    assert!(program.exists(), "build the target first: cargo build --bin streamduo-sandbox");
    program
}

/// A tap that runs the sandbox's target. The target commits to the file `rows`.
pub fn with_target(tap: Tap, options: &[&str]) -> Tap {
    let (program, rows) = (target_program(), tap.path("rows"));
    let words = [program.to_str().unwrap(), "target", "--out", rows.to_str().unwrap()];
    tap.target(&[&words, options].concat())
}

/// A tap that runs this shell script as its target.
pub fn with_script(tap: Tap, script: &str) -> Tap {
    tap.target(&["/bin/sh", "-c", script])
}

/// A tap that runs a shell script, in which TARGET is the sandbox's target, and DIR the tap's
/// folder.
pub fn with_target_script(tap: Tap, script: &str) -> Tap {
    let target = format!("{} target --out {}", target_program().display(), tap.path("rows").display());
    let dir = tap.path("").display().to_string();
    let script = script.replace("TARGET", &target).replace("DIR", dir.trim_end_matches('/'));
    with_script(tap.env("PATH", "/usr/bin:/bin"), &script)
}

/// Every record that the target has committed, in order, with repetitions.
pub fn committed(tap: &Tap) -> Vec<Identity> {
    let rows = fs::read_to_string(tap.path("rows")).unwrap_or_default();
    let identity = |row: &str| {
        let row: Value = serde_json::from_str(row).unwrap();
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        Identity { record_id: text("recordId"), timestamp: text("recordTimeStampISO") }
    };
    rows.lines().map(identity).collect()
}

/// Nothing is marked that is neither committed nor put aside.
#[track_caller]
pub fn assert_marked_is_committed(tap: &Tap) {
    let committed: BTreeSet<_> = committed(tap).into_iter().chain(put_aside_identities(tap)).collect();
    for identity in tap.read() {
        assert!(committed.contains(&identity), "{identity:?} is marked and was not committed");
    }
}

/// A tap whose target waits before its `nth` message.
pub fn with_waiting_target(tap: Tap, nth: &str, options: &[&str]) -> Tap {
    let fifo = make_fifo(&tap);
    with_target(tap, &[&["--wait-at", nth, "--until", fifo.to_str().unwrap()], options].concat())
}

/// Makes the named pipe that a target waits for.
pub fn make_fifo(tap: &Tap) -> PathBuf {
    let fifo = tap.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fifo
}

/// Waits until the target waits. It goes on once this file is dropped.
pub fn hold_target(tap: &Tap) -> fs::File {
    fs::File::options().write(true).open(tap.path("fifo")).unwrap()
}

/// Waits for the end of a tap, and of its target: the two share stderr. Returns the tap's exit
/// code; `None` after a kill.
pub fn wait_for_both(mut running: Running) -> Option<i32> {
    running.child.stderr.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    running.child.wait().unwrap().code()
}
