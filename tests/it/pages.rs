//! README.md and the pages of `docs/`: each command runs, and what they quote is true.
//!
//! A block of commands runs here. One that needs other software has a comment above it that names
//! the check that runs it: `<!-- run by tests/ecosystem/test_meltano.py -->`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

use regex::Regex;
use serde_json::{Value, json};
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{EXTRACTED, Tap, bare_command, repository_file};
use crate::target::target_program;

/// A block of code on a page.
struct Block {
    page: String,
    language: String,
    text: String,
    /// The check that runs it, if that is another one.
    check: Option<String>,
}

/// The README and the pages of `docs/`, each with its text.
pub fn pages() -> Vec<(String, String)> {
    let mut names: Vec<_> = fs::read_dir(repository_file("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    names.sort();
    names.insert(0, "README.md".to_owned());
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(repository_file(name)).unwrap()
}

fn blocks_of(page: &str, text: &str) -> Vec<Block> {
    let block = Regex::new(r"(?m)(?:^<!-- run by (\S+) -->\n)?^```(\w*)\n((?:.*\n)*?)```$").unwrap();
    let found = block.captures_iter(text).map(|found| Block {
        page: page.to_owned(),
        language: found[2].to_owned(),
        text: found[3].to_owned(),
        check: found.get(1).map(|check| check.as_str().to_owned()),
    });
    found.collect()
}

fn blocks() -> Vec<Block> {
    pages().iter().flat_map(|(page, text)| blocks_of(page, text)).collect()
}

/// The text of a section, up to the next heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, after) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no {heading:?}"));
    after.split("\n#").next().unwrap()
}

#[test]
fn the_readme_and_each_page_are_short() {
    for (page, text) in pages() {
        let most = if page == "README.md" { 170 } else { 150 };
        assert!(text.lines().count() <= most, "{page} has more than {most} lines");
        let mut is_code = false;
        for line in text.lines() {
            is_code ^= line.starts_with("```");
            let may_be_long = is_code || line.starts_with(['|', '!']);
            assert!(may_be_long || line.chars().count() <= 100, "{page}: this line is too long: {line}");
        }
    }
    assert!(read("README.md").len() <= 11_000, "the README has more than 11 KB");
}

#[test]
fn every_block_of_code_is_in_a_language_that_a_test_reads() {
    for block in blocks() {
        assert!(["sh", "cron", "json", "yaml"].contains(&&*block.language), "{}: {}", block.page, block.text);
        for line in block.text.lines().filter(|_| block.language == "sh") {
            assert!(line.chars().count() <= 100, "{}: this line is too long: {line}", block.page);
        }
    }
}

#[test]
fn a_check_that_a_page_names_knows_the_page() {
    for Block { page, check, .. } in blocks() {
        if let Some(check) = check {
            assert!(read(&check).contains(&page), "{check} does not name {page}");
        }
    }
}

#[test]
fn every_other_command_of_the_pages_runs() {
    for block in blocks().into_iter().filter(|block| block.check.is_none()) {
        match &*block.language {
            "sh" => assert_runs(&block.page, &block.text),
            "cron" => {
                let lines = block.text.lines().filter_map(|line| line.splitn(6, ' ').nth(5));
                lines.for_each(|line| assert_runs(&block.page, line));
            }
            _ => {}
        }
    }
}

/// Runs commands in a folder that has what the pages name: settings of a stream in which each run
/// finds a new record, and some targets.
fn assert_runs(page: &str, commands: &str) {
    let tap = Tap::with_records(5);
    let stream = tap.stream.clone();
    tap.sandbox.script(Rule::on(Endpoint::Token).every().before(move |service| {
        service.write(&stream, "{}");
    }));
    let dir = tap.path("");
    let config = tap.sandbox.config(&tap.stream);
    for (name, more) in [
        ("config.json", json!({})),
        ("orders.json", json!({})),
        ("commit.json", json!({"acknowledge": "commit"})),
        ("replay.json", json!({"acknowledge": "never"})),
    ] {
        let mut settings = config.clone();
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings["pollIntervalSeconds"] = json!(0);
        tap.write_file(name, &settings.to_string());
    }
    tap.write_file("target.json", "{}");
    tap.write_file("private-ca.pem", "");
    tap.write_file("secret", tap.sandbox.client_secret());
    make_programs(&dir);

    // Only a command that hangs runs so long.
    let mut shell = Command::new("timeout");
    shell.args(["60", "/bin/bash", "-euo", "pipefail", "-c", commands]).current_dir(&dir);
    shell.env_clear().env("PATH", format!("{}:/usr/bin:/bin", dir.join("bin").display()));
    let Output { status, stdout, stderr } = shell.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{page}: {commands}\nhas ended with {status}:\n{said}");
    let loads = Regex::new(r"[-|] target-").unwrap().is_match(commands);
    assert!(!loads || dir.join("rows").exists(), "{page}: {commands}\nhas loaded nothing:\n{said}");
}

/// The tap and three targets, what `cargo build` makes, and `cargo quickstart` without its build,
/// which `tests/quickstart` runs. A tap that follows is stopped once its target has loaded
/// something.
fn make_programs(dir: &Path) {
    let tap = env!("CARGO_BIN_EXE_tap-streamduo");
    let sandbox = target_program();
    fs::create_dir(dir.join("target")).unwrap();
    symlink(sandbox.parent().unwrap(), dir.join("target/debug")).unwrap();
    let cargo = format!("[ \"$*\" = quickstart ] && exec {} quickstart {tap}\n", sandbox.display());
    let target = format!(
        "{} target --out {}\ncode=$?\n[ -z \"${{FOLLOWS-}}\" ] || kill -TERM $PPID\nexit $code\n",
        sandbox.display(),
        dir.join("rows").display()
    );
    let tap = format!(
        "case \" $* \" in *' --follow '*) ;; *) exec {tap} \"$@\" ;; esac\n\
         FOLLOWS=1 {tap} \"$@\"\n[ $? -eq 143 ]\n"
    );
    fs::create_dir(dir.join("bin")).unwrap();
    for (name, script) in [
        ("cargo", &cargo),
        ("tap-streamduo", &tap),
        ("target-jsonl", &target),
        ("target-postgres", &target),
        ("target-x", &target),
    ] {
        let path = dir.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn every_setting_that_a_page_shows_is_accepted() {
    let mut shown = 0;
    for block in blocks().into_iter().filter(|block| block.language == "json") {
        let text = block.text.replace("/var/lib/streamduo/", "");
        let Ok(Value::Object(settings)) = serde_json::from_str(&text) else { continue };
        // A columns file, a dead letter, a target's settings.
        if ["type", "reason", "host"].iter().any(|name| settings.contains_key(*name)) {
            continue;
        }
        let mut tap = Tap::with_records(1).args(&["--test"]);
        for (name, value) in settings {
            tap = tap.set(&name, value);
        }
        let mut command = tap.command();
        let run = tap.run_command(command.current_dir(tap.path("")));
        assert_eq!(run.code, 0, "{}: {text}\n{}", block.page, run.stderr);
        assert!(!run.stderr.contains("WARNING"), "{}: {text}\n{}", block.page, run.stderr);
        shown += 1;
    }
    assert!(shown >= 5, "only {shown} were found");
}

#[test]
fn the_record_of_the_readme_is_written_like_that() {
    let blocks = blocks_of("README.md", section(&read("README.md"), "## Reading records"));
    let mut shown: Value = serde_json::from_str(&blocks[0].text).unwrap();
    let record = &shown["record"];
    let text = |name: &str| record[name].as_str().unwrap().to_owned();
    let tap = Tap::with_records(0);
    let payload = record["dataPayload"].to_string();
    tap.sandbox.write_as(&tap.stream, &text("recordId"), &text("recordTimeStampISO"), &payload);

    let mut written: Value = serde_json::from_str(&tap.run().record_lines()).unwrap();
    for message in [&mut shown, &mut written] {
        message["record"]["streamId"] = json!("its id");
        message["time_extracted"] = json!("its time");
    }
    assert_eq!(shown, written);
}

#[test]
fn the_example_of_columns_is_what_the_tap_makes() {
    let page = read("docs/columns.md");
    let blocks = blocks_of("docs/columns.md", section(&page, "## An example"));
    let [payloads, records, file] = blocks.iter().map(|block| &*block.text).collect::<Vec<_>>()[..] else {
        panic!("the example has other blocks")
    };
    let tap = Tap::with_records(0).set("payloadSchema", "sampled");
    for payload in payloads.lines() {
        tap.sandbox.write(&tap.stream, payload);
    }
    let path = tap.path("columns.json");
    let run = tap.set("columnsFile", path.display().to_string());
    let run = run.run();

    let from_payload = |line: &str| line.split_once(r#""dataPayload":"#).unwrap().1.replace(EXTRACTED, "");
    let written: Vec<_> = run.record_lines().lines().map(from_payload).collect();
    let shown: Vec<_> = records.lines().map(|line| line.split_once(':').unwrap().1).collect();
    assert_eq!(written, shown, "{}", run.stderr);
    assert_eq!(fs::read_to_string(path).unwrap(), file);
}

#[test]
fn the_exit_codes_are_those_of_help() {
    let help = String::from_utf8(bare_command().arg("--help").output().unwrap().stdout).unwrap();
    let (_, listed) = help.split_once("Exit codes:\n").unwrap();
    let (listed, _) = listed.split_once("\n\n").unwrap();
    let listed = listed.replace("\n           ", " ");
    let codes: Vec<_> = listed.lines().map(|line| (line[2..9].trim(), line[9..].trim())).collect();

    let page = read("docs/troubleshooting.md");
    let row = Regex::new(r"(?m)^\| (.+?) \| (.+) \|$").unwrap();
    let section = section(&page, "## Exit codes");
    let rows: Vec<_> = row.captures_iter(section).skip(1).map(|row| row.extract().1).collect();
    assert_eq!(rows.len(), codes.len());
    for ([code, meaning], expected) in rows.into_iter().zip(codes) {
        assert_eq!(code, expected.0);
        assert!(meaning.starts_with(expected.1), "{code}: {meaning:?} is not {:?}", expected.1);
    }
}

#[test]
fn every_message_of_the_troubleshooting_page_is_in_the_code() {
    let code = sources(&repository_file("src"));
    let page = read("docs/troubleshooting.md");
    let cell = Regex::new(r"(?m)^\| (`.+?) \| ").unwrap();
    let message = Regex::new(r"`([^`]+)`").unwrap();
    let mut parts = 0;
    for cell in cell.captures_iter(section(&page, "## Messages")) {
        for message in message.captures_iter(&cell[1]) {
            for part in message[1].split('…').map(str::trim).filter(|part| part.len() > 2) {
                assert!(code.contains(part), "no message has {part:?}");
                parts += 1;
            }
        }
    }
    assert!(parts > 20);
}

/// The text of all sources in a folder. A text that goes on in the next line is in one.
fn sources(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        text += &if path.is_dir() { sources(&path) } else { fs::read_to_string(path).unwrap() };
    }
    Regex::new(r"\\\n\s*").unwrap().replace_all(&text, "").into_owned()
}
