//! What somebody sees who watches a run at a terminal: colours, and a live line in place of METRIC
//! lines.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::Child;

use pty_process::Size;
use pty_process::blocking::{Command, Pty};
use regex::Regex;
use streamduo_sandbox::{Endpoint, Rule};

use crate::tap::{Tap, identities, in_terminal};
use crate::target::{committed, target_program};

/// Rows, and columns: wide enough for every line, so that none is broken.
const SIZE: (u16, u16) = (40, 250);

/// So narrow that the live line takes several rows.
const NARROW: (u16, u16) = (40, 25);

/// What erases a line, which only a live line does.
const ERASE: &str = "\x1b[2K";

/// A tap whose stderr is a terminal. Its messages go to the file `messages`.
struct AtTerminal<'a> {
    tap: &'a Tap,
    child: Child,
    terminal: Pty,
    /// Everything that was written to it.
    written: Vec<u8>,
    screen: vt100::Parser,
}

impl<'a> AtTerminal<'a> {
    fn start(tap: &'a Tap) -> AtTerminal<'a> {
        AtTerminal::start_sized(tap, SIZE)
    }

    fn start_sized(tap: &'a Tap, size: (u16, u16)) -> AtTerminal<'a> {
        AtTerminal::spawn(tap, size, |command| command.stdout(File::create(tap.path("messages")).unwrap()))
    }

    /// Starts a tap whose stdout is the terminal, too.
    fn start_bare(tap: &'a Tap) -> AtTerminal<'a> {
        AtTerminal::spawn(tap, SIZE, |command| command)
    }

    fn spawn(tap: &'a Tap, size: (u16, u16), redirect: impl FnOnce(Command) -> Command) -> AtTerminal<'a> {
        let (terminal, pts) = pty_process::blocking::open().unwrap();
        terminal.resize(Size::new(size.0, size.1)).unwrap();
        let child = redirect(in_terminal(&tap.command())).spawn(pts).unwrap();
        let [rows, columns] = [size.0, size.1].map(|length| NonZero::new(length).unwrap());
        AtTerminal { tap, child, terminal, written: Vec::new(), screen: vt100::Parser::new(rows, columns, 0) }
    }

    /// Takes what was written to the terminal. Returns whether there can be more.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // Linux reports the end of a terminal's other side as an error.
        let length = self.terminal.read(&mut buffer).unwrap_or_default();
        self.written.extend(&buffer[..length]);
        self.screen.process(&buffer[..length]);
        length > 0
    }

    /// What the terminal shows now, see [`Tap::normalize`].
    fn shown(&self) -> String {
        let screen = self.screen.screen();
        let text = match screen.size().1.get() {
            // This puts the rows of a broken line together again.
            columns if columns < SIZE.1 => screen.contents(),
            columns => screen.rows(0, columns).map(|row| row + "\n").collect(),
        };
        let lines: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let shown = self.tap.normalize(format!("{}\n", lines.trim_end()).as_bytes());
        let rate = Regex::new(r"\d+ a second, \d\d:\d\d:\d\d").unwrap();
        rate.replace_all(&shown, "# a second, TIME").into_owned()
    }

    /// Waits until the terminal shows this line.
    #[track_caller]
    fn wait_for(&mut self, line: &str) {
        while !self.shown().lines().any(|shown| shown == line) {
            assert!(self.read(), "{line} is not shown:\n{}", self.shown());
        }
    }

    /// Waits for the end. Returns the exit code and what the terminal then shows.
    fn wait(&mut self) -> (i32, String) {
        while self.read() {}
        let screen = self.screen.screen();
        assert!(!screen.hide_cursor() && screen.cursor_position().1 == 0, "{}", self.shown());
        (self.child.wait().unwrap().code().unwrap(), self.shown())
    }

    /// Waits for the end. Returns everything that was written, normalized, with the line breaks of
    /// a file.
    fn wait_written(mut self) -> String {
        self.wait();
        self.tap.normalize(&self.written).replace("\r\n", "\n")
    }
}

/// A tap at a terminal that shows colours and moves its cursor.
fn with_records(records: usize) -> Tap {
    Tap::with_records(records).env("TERM", "xterm-256color")
}

/// A log without the lines that are for programs.
fn without_metrics(log: &str) -> String {
    log.lines().filter(|line| !line.contains("METRIC")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn each_level_has_its_colour_at_a_terminal() {
    let tap = with_records(2).env("LOGLEVEL", "DEBUG").set("flavour", "sweet");
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().status(404).body("no"));
    let timer = |endpoint: &str, status: &str| {
        format!(
            r#"METRIC: {{"type":"timer","metric":"http_request_duration","value":#,"tags":{{"endpoint":"{endpoint}","status":"{status}"}}}}"#
        )
    };
    let (token, peek) = (timer("token", "succeeded"), timer("peek", "failed"));
    assert_eq!(
        AtTerminal::start(&tap).wait_written(),
        format!(
            "\x1b[33mWARNING\x1b[0m unknown setting `flavour`: it is not used; remove it\n\
             \x1b[32mINFO\x1b[0m reading the unread records of stream STREAM from http://HOST/\n\
             \x1b[34mDEBUG\x1b[0m {token}\n\
             \x1b[34mDEBUG\x1b[0m new access token\n\
             \x1b[34mDEBUG\x1b[0m {peek}\n\
             \x1b[1m\x1b[31mCRITICAL\x1b[0m there is no stream STREAM: check `streamId` and `apiUrl`: HOST answers 404: no\n"
        )
    );
}

#[test]
fn a_terminal_has_colours_unless_a_variable_says_that_it_has_none() {
    // An empty TERM does not say so.
    for (name, value, has_colours) in
        [("NO_COLOR", "1", false), ("CLICOLOR", "0", false), ("TERM", "dumb", false), ("TERM", "", true)]
    {
        let tap = with_records(2).env("LOGLEVEL", "DEBUG").env(name, value);
        let written = AtTerminal::start(&tap).wait_written();
        assert_eq!(written.contains('\x1b'), has_colours, "{name}={value}: {written}");
        assert!(written.contains(" new access token\n"), "{written}");
    }
}

#[test]
fn a_terminal_whose_cursor_cannot_be_moved_gets_plain_lines() {
    for tap in [Tap::with_records(2), Tap::with_records(2).env("TERM", "dumb")] {
        assert_eq!(
            AtTerminal::start(&tap).wait_written(),
            "INFO reading the unread records of stream STREAM from http://HOST/\n\
             INFO records: 2 records written, 2 marked as read in # s\n"
        );
    }
}

#[test]
fn what_is_no_terminal_gets_no_escape_code_whatever_the_environment_says() {
    let tap = with_records(2).env("CLICOLOR_FORCE", "1").env("CLICOLOR", "1").env("FORCE_COLOR", "1");
    let run = tap.run();
    assert_eq!((run.code, run.stderr.contains('\x1b')), (0, false), "{}", run.stderr);
    assert_eq!(run.stderr.matches("INFO METRIC").count(), 2, "{}", run.stderr);
}

#[test]
fn a_live_line_shows_what_is_written_and_marked_and_the_summary_takes_its_place() {
    let tap = with_records(250);
    tap.sandbox.script(Rule::on(Endpoint::Mark).calls(1..=2).hold());
    let mut terminal = AtTerminal::start(&tap);
    terminal.wait_for("100 records written, 0 marked as read, # a second, TIME");
    tap.sandbox.wait_held(Endpoint::Mark, 1);
    tap.sandbox.release();
    terminal.wait_for("250 records written, 99 marked as read, # a second, TIME");
    assert_eq!(
        terminal.shown(),
        "INFO reading the unread records of stream STREAM from http://HOST/\n\
         250 records written, 99 marked as read, # a second, TIME\n"
    );
    tap.sandbox.wait_held(Endpoint::Mark, 2);
    tap.sandbox.release();
    let end = "INFO reading the unread records of stream STREAM from http://HOST/\n\
               INFO records: 250 records written, 250 marked as read in # s\n";
    assert_eq!(terminal.wait(), (0, end.to_owned()));
    assert_eq!(fs::read_to_string(tap.path("messages")).unwrap().lines().count(), 252);
}

#[test]
fn log_lines_go_above_the_live_line_and_are_those_of_a_run_without_one() {
    // Each of the records that slip in is told of in a line.
    let script = |tap: &Tap| {
        for mark in 1..=20 {
            let stamp = format!("2001-01-01T00:00:{mark:02}Z");
            let late = tap.write_late(stamp.leak(), "1");
            tap.sandbox.script(Rule::on(Endpoint::Mark).call(mark).before(late));
        }
    };
    let (plain, watched) = (Tap::with_records(40).set("pageSize", 2), with_records(40).set("pageSize", 2));
    script(&plain);
    script(&watched);
    let (code, shown) = AtTerminal::start(&watched).wait();
    let plain = plain.run();
    assert_eq!((code, shown), (plain.code, without_metrics(&plain.stderr)));
    assert_eq!(plain.stderr.matches("slipped in").count(), 20);
}

#[test]
fn a_narrow_terminal_is_left_as_clean_as_a_wide_one() {
    let tap = with_records(250);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).hold());
    let mut terminal = AtTerminal::start_sized(&tap, NARROW);
    terminal.wait_for("100 records written, 0 marked as read, # a second, TIME");
    tap.sandbox.wait_held(Endpoint::Mark, 1);
    tap.sandbox.release();
    let end = "INFO reading the unread records of stream STREAM from http://HOST/\n\
               INFO records: 250 records written, 250 marked as read in # s\n";
    assert_eq!(terminal.wait(), (0, end.to_owned()));
}

#[test]
fn a_run_that_fails_leaves_no_live_line() {
    let tap = with_records(250);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(404).body("no"));
    assert_eq!(
        AtTerminal::start(&tap).wait(),
        (
            1,
            "INFO reading the unread records of stream STREAM from http://HOST/\n\
             INFO records: 100 records written, 99 marked as read in # s\n\
             CRITICAL there is no stream STREAM: check `streamId` and `apiUrl`: HOST answers 404: no\n"
                .to_owned()
        )
    );
}

#[test]
fn the_live_line_of_a_run_that_follows_stands_still_while_it_waits_and_ctrl_c_clears_it() {
    let tap = with_records(2).set("pollIntervalSeconds", 1).args(&["--follow"]);
    let mut terminal = AtTerminal::start(&tap);
    terminal.wait_for("2 records written, 2 marked as read; waiting for more");
    tap.sandbox.write(&tap.stream, "\"late\"");
    terminal.wait_for("3 records written, 3 marked as read; waiting for more");
    assert_eq!(
        terminal.shown(),
        "INFO reading the unread records of stream STREAM from http://HOST/\n\
         INFO the stream is drained: looking again every 1 s (`pollIntervalSeconds`)\n\
         3 records written, 3 marked as read; waiting for more\n"
    );
    // A thread that draws it would have done so five times a second.
    let written = String::from_utf8_lossy(&terminal.written);
    assert_eq!(written.matches("2 records written, 2 marked as read; waiting").count(), 1, "{written}");
    terminal.terminal.write_all(b"\x03").unwrap();
    let (code, shown) = terminal.wait();
    assert_eq!(code, 130);
    // The terminal itself shows `^C`, on the line after the live line, where the log goes on.
    let end: Vec<_> = shown.lines().skip_while(|line| !line.starts_with("INFO records")).collect();
    let summary = "INFO records: 3 records written, 3 marked as read in # s";
    assert_eq!(end, [summary, "WARNING stopped by SIGINT: all that was written is marked as read"], "{shown}");
}

#[test]
fn ctrl_c_in_the_middle_of_a_run_leaves_the_cursor_at_the_beginning_of_a_line() {
    let tap = with_records(3);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(1).hold());
    let mut terminal = AtTerminal::start(&tap);
    terminal.wait_for("0 records written, 0 marked as read, # a second, TIME");
    tap.sandbox.wait_held(Endpoint::Peek, 1);
    terminal.terminal.write_all(b"\x03").unwrap();
    let (code, shown) = terminal.wait();
    assert_eq!(
        (code, shown.lines().last()),
        (130, Some("WARNING stopped by SIGINT: no record was written")),
        "{shown}"
    );
}

#[test]
fn there_is_no_live_line_where_nobody_wants_to_see_one() {
    for level in ["DEBUG", "TRACE", "WARNING", "CRITICAL"] {
        assert_no_live_line(&with_records(2).env("LOGLEVEL", level), level);
    }
    assert_no_live_line(&with_records(2).with_structured_logs(), "structured");
    for option in [&["--peek", "1"][..], &["--test"], &["--discover"], &["--about"]] {
        assert_no_live_line(&with_records(2).args(option), option[0]);
    }
}

#[track_caller]
fn assert_no_live_line(tap: &Tap, case: &str) {
    let written = AtTerminal::start(tap).wait_written();
    assert!(!written.contains(ERASE) && !written.contains("a second"), "{case}: {written}");
}

#[test]
fn a_log_that_is_structured_has_its_metrics_at_a_terminal_too() {
    let tap = with_records(2).with_structured_logs();
    let written = AtTerminal::start(&tap).wait_written();
    assert_eq!((written.matches("metric_info").count(), written.contains('\x1b')), (2, false), "{written}");
}

#[test]
fn records_that_are_shown_at_the_same_terminal_are_not_torn_by_a_live_line() {
    for acknowledge in ["write", "never"] {
        let tap = with_records(2).set("acknowledge", acknowledge);
        let mut terminal = AtTerminal::start_bare(&tap);
        while terminal.read() {}
        let written = String::from_utf8_lossy(&terminal.written);
        assert!(!written.contains(ERASE), "{acknowledge}: {written}");
        assert_eq!(written.matches(r#"{"type":"RECORD""#).count(), 2, "{acknowledge}: {written}");
        assert!(terminal.child.wait().unwrap().success());
    }
}

#[test]
fn where_the_tap_runs_a_target_the_live_line_is_shown_and_what_the_target_prints_is_kept() {
    let tap = with_records(100).env("PATH", "/usr/bin:/bin");
    let (target, rows) = (target_program(), tap.path("rows"));
    // It prints nothing before the log says that it is started.
    let script = format!(
        "read -r schema; echo one >&2; echo two >&2; {} target --out {} --every 1; echo three >&2",
        target.display(),
        rows.display()
    );
    let tap = tap.target(&["/bin/sh", "-c", &script]);
    tap.sandbox.script(Rule::on(Endpoint::Mark).call(1).hold());
    let mut terminal = AtTerminal::start_bare(&tap);
    tap.sandbox.wait_held(Endpoint::Mark, 1);
    terminal.wait_for("100 records written, 0 marked as read, # a second, TIME");
    tap.sandbox.release();
    let (code, shown) = terminal.wait();
    assert_eq!((code, committed(&tap)), (0, identities(&tap.records())), "{shown}");
    // What the target prints starts on a line of its own, and leaves a copy of the live line above.
    let lines: Vec<_> = shown.lines().filter(|line| !line.ends_with("# a second, TIME")).collect();
    assert_eq!(
        lines,
        [
            "INFO reading the unread records of stream STREAM from http://HOST/",
            "INFO sh is started",
            "one",
            "two",
            "three",
            "INFO records: 100 records written, 100 marked as read in # s"
        ]
    );
}
