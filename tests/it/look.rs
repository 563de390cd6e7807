//! Looking does not consume: a terminal and `--peek` show unread records, and mark nothing.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};

use pty_process::blocking::Pty;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use streamduo_sandbox::{Endpoint, Identity, Rule};

use crate::tap::{Run, SCHEMA, Tap, bare_command, in_terminal, record_lines, schema_and, without_times};

const DELIVER: &str = "to deliver what is unread, let the tap run a target (`tap-streamduo -c config.json -- target-x`) or \
                       pipe into one (`… | target-x`)";

/// A tap whose stdout is a terminal. Its log goes to a file.
struct AtTerminal<'a> {
    tap: &'a Tap,
    child: std::process::Child,
    screen: BufReader<Pty>,
}

impl AtTerminal<'_> {
    fn start(tap: &Tap) -> AtTerminal<'_> {
        let (terminal, pts) = pty_process::blocking::open().unwrap();
        let log = File::create(tap.path("log")).unwrap();
        let child = in_terminal(&tap.command()).stderr(log).spawn(pts).unwrap();
        AtTerminal { tap, child, screen: BufReader::new(terminal) }
    }

    /// The next line that the terminal shows; empty once the tap has ended.
    fn read_line(&mut self) -> String {
        let mut line = String::new();
        // Linux reports the end of a terminal's other side as an error.
        let _ = self.screen.read_line(&mut line);
        without_times(&line.replace("\r\n", "\n")).0
    }

    fn read_lines(&mut self, count: usize) -> String {
        (0..count).map(|_| self.read_line()).collect()
    }

    /// Waits for the end.
    fn wait(mut self) -> Run {
        let mut stdout = String::new();
        loop {
            let line = self.read_line();
            if line.is_empty() {
                break;
            }
            stdout.push_str(&line);
        }
        let code = self.child.wait().unwrap().code().unwrap();
        let stderr = self.tap.normalize(&fs::read(self.tap.path("log")).unwrap());
        Run { code, stdout, times: Vec::new(), stderr }
    }
}

/// No request has marked a record.
#[track_caller]
fn assert_nothing_marked(tap: &Tap) {
    assert_eq!((tap.read(), tap.sandbox.count(Endpoint::Mark)), (vec![], 0));
}

/// How many records each peek asked for.
fn asked(tap: &Tap) -> Vec<u64> {
    tap.sandbox.journal().iter().filter_map(|call| call.record_count).collect()
}

#[test]
fn a_terminal_shows_every_unread_record_and_nothing_is_marked_whatever_acknowledge_is() {
    for acknowledge in ["write", "commit"] {
        let tap = Tap::with_records(250).set("acknowledge", acknowledge);
        let run = AtTerminal::start(&tap).wait();
        assert_eq!((run.code, &run.stdout), (0, &schema_and(&tap.records())), "{acknowledge}: {}", run.stderr);
        assert_nothing_marked(&tap);
        run.assert_logged(&format!(
            "WARNING stdout is a terminal, so nothing is marked as read: 250 records are shown and stay unread; {DELIVER}"
        ));
    }
}

#[test]
fn a_terminal_shows_no_more_than_max_pending_records_and_says_so() {
    let tap = Tap::with_records(250).set("maxPending", 150);
    let run = AtTerminal::start(&tap).wait();
    run.assert_succeeds(&schema_and(&tap.records()[..150]));
    assert_nothing_marked(&tap);
    run.assert_logged(&format!(
        "WARNING stdout is a terminal, so nothing is marked as read: 150 records are shown and stay unread (`maxPending`: \
         there may be more); {DELIVER}"
    ));
}

#[test]
fn a_state_marks_nothing_at_a_terminal() {
    let tap = Tap::with_records(3).set("acknowledge", "commit");
    let state = tap.run().stdout.lines().last().unwrap().to_owned();
    let path = tap.write_file("state.json", &state);
    let tap = tap.args(&["--state", path.to_str().unwrap()]);
    let run = AtTerminal::start(&tap).wait();
    run.assert_succeeds(&schema_and(&tap.records()));
    assert_nothing_marked(&tap);
}

#[test]
fn follow_at_a_terminal_shows_what_is_new_once_and_marks_nothing() {
    let tap = Tap::with_records(120).set("pollIntervalSeconds", 0).args(&["--follow"]);
    let mut terminal = AtTerminal::start(&tap);
    assert_eq!(terminal.read_lines(121), schema_and(&tap.records()));
    for _ in 0..3 {
        let late = tap.sandbox.write(&tap.stream, "\"late\"");
        assert_eq!(terminal.read_line(), record_lines(&[late]));
    }
    // Another consumer reads what was shown: that changes nothing here.
    tap.sandbox.mark_oldest(&tap.stream, 100);
    let late = tap.sandbox.write(&tap.stream, "\"later\"");
    assert_eq!(terminal.read_line(), record_lines(&[late]));
    kill_process(Pid::from_child(&terminal.child), Signal::INT).unwrap();
    let run = terminal.wait();
    assert_eq!((run.code, run.stdout.as_str(), tap.sandbox.count(Endpoint::Mark)), (130, "", 0));
    assert_eq!(run.stderr.matches("stdout is a terminal").count(), 1, "{}", run.stderr);
    run.assert_logged("INFO the stream is drained: looking again at once (`pollIntervalSeconds`)");
    assert_eq!(run.last_log_line(), "WARNING stopped by SIGINT: nothing is marked as read");
}

#[test]
fn peek_shows_the_oldest_records_in_a_single_request_and_marks_nothing() {
    for acknowledge in ["write", "commit"] {
        let tap = Tap::with_records(7).set("acknowledge", acknowledge);
        let run = tap.run_with("--peek", "3");
        assert_eq!((run.code, &run.stdout), (0, &schema_and(&tap.records()[..3])), "{acknowledge}");
        assert_eq!(asked(&tap), [3]);
        assert_nothing_marked(&tap);
        run.assert_logged("INFO 3 records are shown and stay unread");
        assert!(!run.stderr.contains("terminal"), "{}", run.stderr);
    }
}

#[test]
fn a_large_peek_grows_to_what_was_asked_for_and_no_further() {
    let tap = Tap::with_records(900);
    let run = tap.run_with("--peek", "500");
    run.assert_succeeds(&schema_and(&tap.records()[..500]));
    assert_eq!(asked(&tap), [100, 200, 400, 500]);
    assert_nothing_marked(&tap);
}

#[test]
fn a_peek_at_fewer_records_than_it_asks_for_shows_all() {
    for (records, line) in [
        (0, "there is no unread record"),
        (1, "1 record is shown and stays unread"),
        (2, "2 records are shown and stay unread"),
    ] {
        let tap = Tap::with_records(records);
        let run = tap.run_with("--peek", "50");
        let expected = if records == 0 { String::new() } else { schema_and(&tap.records()) };
        assert_eq!((run.code, run.stdout.as_str()), (0, expected.as_str()));
        run.assert_logged(&format!("INFO {line}"));
    }
}

#[test]
fn peek_takes_the_catalog_and_shows_nothing_of_a_stream_that_is_not_selected() {
    for (selected, expected) in [(true, schema_and(&[])), (false, String::new())] {
        let tap = Tap::with_records(2);
        let metadata = json!([{"breadcrumb": [], "metadata": {"selected": selected}}]);
        let stream = json!({"tap_stream_id": "records", "stream": "records", "metadata": metadata});
        let catalog = tap.write_file("catalog.json", &json!({"streams": [stream]}).to_string());
        let tap = tap.args(&["--peek", "1", "--catalog", catalog.to_str().unwrap()]);
        let run = tap.run();
        let records = if selected { record_lines(&tap.records()[..1]) } else { String::new() };
        assert_eq!((run.code, run.stdout), (0, expected + &records), "{}", run.stderr);
        assert_nothing_marked(&tap);
    }
}

#[test]
fn a_reader_of_a_peek_may_have_seen_enough() {
    let tap = Tap::with_large_records(150).args(&["--peek", "150"]);
    let mut running = tap.start();
    assert_eq!(running.read_lines(3), schema_and(&tap.records()[..2]));
    let run = running.close_stdout().wait(&tap);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.assert_logged("INFO the reader closed stdout: nothing is marked as read");
    assert_nothing_marked(&tap);
}

#[test]
fn what_a_target_keeps_of_a_peek_marks_nothing_later() {
    // The target of the sandbox prints the last STATE that it has read. A peek has none.
    let tap = Tap::with_records(3).set("acknowledge", "commit");
    let peek = tap.run_with("--peek", "3");
    assert!(!peek.stdout.contains("STATE"), "{}", peek.stdout);
    let state = tap.write_file("state.json", "");
    let run = tap.run_with("--state", state);
    assert_eq!((run.code, tap.read()), (0, Vec::<Identity>::new()));
}

#[test]
fn a_peek_that_the_service_does_not_show_at_once_says_that_there_may_be_more() {
    let tap = Tap::with_records(500);
    tap.sandbox.script(Rule::on(Endpoint::Peek).call(2).status(413).body("too many"));
    let run = tap.run_with("--peek", "400");
    run.assert_succeeds(&schema_and(&tap.records()[..100]));
    assert_nothing_marked(&tap);
    let more = "(there may be more: no more fit into one answer)";
    run.assert_logged(&format!("INFO 100 records are shown and stay unread {more}"));
}

#[test]
fn a_window_that_the_service_caps_ends_a_peek() {
    let tap = Tap::with_records(500);
    tap.sandbox.script(Rule::on(Endpoint::Peek).every().cap(150));
    let run = tap.run_with("--peek", "400");
    run.assert_succeeds(&schema_and(&tap.records()[..150]));
    assert_nothing_marked(&tap);
}

#[test]
fn options_and_numbers_that_do_not_go_with_peek_are_refused() {
    for options in [&["--follow"][..], &["--test"], &["--discover"], &["--", "cat"]] {
        let output = bare_command().args(["-c", "config.json", "--peek", "3"]).args(options).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("cannot be used with"), "{stderr}");
        assert_eq!(output.status.code(), Some(2));
    }
    for number in ["0", "100001", "many"] {
        let output = bare_command().args(["-c", "config.json", "--peek", number]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{number}");
    }
}

#[test]
fn a_stdout_that_is_no_terminal_is_delivered_to_as_before() {
    let tap = Tap::with_records(1);
    assert_eq!(tap.run().stdout, format!("{SCHEMA}{}{}", record_lines(&tap.records()), tap.state_line("write")));
    assert_eq!(tap.unread(), []);
}
