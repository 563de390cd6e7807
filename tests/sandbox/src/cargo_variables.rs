//! What `cargo run` puts into the environment.

use std::ffi::OsString;

/// The environment variables that `cargo run` sets for the package that it runs. Another cargo
/// below it would see changed variables, and rebuild the crates that read them.
pub(crate) fn set_by_cargo_run() -> impl Iterator<Item = OsString> {
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_"];
    const NAMES: [&str; 5] =
        ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR", "OUT_DIR"];
    std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        NAMES.contains(&name.as_ref()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}
