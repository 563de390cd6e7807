//! What the sample config, `--help` and CONTRIBUTING say is true, and the image can be built from
//! what `.dockerignore` lets in.

use std::fs;

use serde_json::Value;

use crate::tap::{Tap, bare_command, repository_file};

#[test]
fn the_sample_config_works_once_its_placeholders_are_filled() {
    let text = fs::read_to_string(repository_file("config.sample.json")).unwrap();
    let sample: Value = serde_json::from_str(&text).unwrap();
    let mut tap = Tap::with_records(2);
    for (name, value) in sample.as_object().unwrap() {
        if !["streamId", "clientId", "clientSecret"].contains(&name.as_str()) {
            tap = tap.set(name, value.clone());
        }
    }
    let run = tap.run();
    run.assert_succeeds(&tap.messages(&tap.records()));
    assert!(!run.stderr.contains("WARNING"), "{}", run.stderr);
    for name in ["streamId", "clientId", "clientSecret"] {
        assert!(sample[name].is_string(), "{name}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let version = bare_command().arg("--version").output().unwrap();
    assert_eq!(
        (version.status.code(), String::from_utf8(version.stdout).unwrap()),
        (Some(0), format!("tap-streamduo {}\n", env!("CARGO_PKG_VERSION")))
    );
    let help = String::from_utf8(bare_command().arg("--help").output().unwrap().stdout).unwrap();
    for option in [
        "--config",
        "--state",
        "--catalog",
        "--properties",
        "--discover",
        "--completions",
        "--man",
        "--follow",
        "--version",
        "--help",
    ] {
        assert!(help.contains(option), "{option}");
    }
    for code in ["0 ", "1 ", "2 ", "3 ", "128 + n"] {
        assert!(help.contains(&format!("\n  {code}")), "exit code {code}");
    }
}

#[test]
fn the_build_of_the_image_gets_every_member_of_the_workspace() {
    let read = |name: &str| fs::read_to_string(repository_file(name)).unwrap();
    let (manifest, ignored) = (read("Cargo.toml"), read(".dockerignore"));
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let members: Vec<String> = serde_json::from_str(members).unwrap();
    for member in members {
        assert!(ignored.lines().any(|line| line.strip_prefix('!') == Some(&member)), "{member} is left out");
    }
}

#[test]
fn the_test_that_contributing_shows_is_one_of_the_tests() {
    let read = |name: &str| fs::read_to_string(repository_file(name)).unwrap();
    let page = read("CONTRIBUTING.md");
    let (before, rest) = page.split_once("```rust\n").unwrap();
    let (shown, _) = rest.split_once("```\n").unwrap();
    let file = before.rsplit('`').nth(1).unwrap();
    let (uses, test) = shown.split_once("\n#[test]\n").unwrap();
    assert!(read(file).contains(&format!("\n#[test]\n{test}")), "{file} does not have this test:\n{test}");
    assert_eq!(uses, "use streamduo_sandbox::{Endpoint, Rule};\n\nuse crate::tap::Tap;\n");
}
