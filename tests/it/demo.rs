//! `img/demo.svg`, the README's picture of a session: what a terminal shows while the tap runs.
//! The test runs that session. With `TAP_STREAMDUO_DEMO=1` it makes the picture anew.

use std::fmt::Write as _;
use std::io::Read;
use std::num::NonZero;
use std::process::Child;
use std::{env, fs};

use pty_process::Size;
use pty_process::blocking::Pty;
use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use streamduo_sandbox::Sandbox;
use tempfile::TempDir;
use vt100::{Color, Parser, Screen};

use crate::tap::{bare_command, in_terminal, repository_file};
use crate::target::target_program;

const ROWS: u16 = 30;
const COLUMNS: u16 = 86;

/// The height of the picture's lines, and the space around them.
const HEIGHT: u16 = 20;
const LEFT: u16 = 18;
const TOP: u16 = 54;

/// What each of the terminal's colours looks like, from black to white.
const COLOURS: [&str; 8] = ["#6e7681", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#e6edf3"];

/// What a shell's terminal shows, and its folder, which has the settings.
struct Session {
    dir: TempDir,
    screen: Parser,
}

impl Session {
    fn start(sandbox: &Sandbox, stream: &str) -> Session {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("sandbox.json"), sandbox.config(stream).to_string()).unwrap();
        let [rows, columns] = [ROWS, COLUMNS].map(|length| NonZero::new(length).unwrap());
        Session { dir, screen: Parser::new(rows, columns, 0) }
    }

    /// Types a command of the tap at the prompt.
    fn type_command(&mut self, line: &str) -> (Child, Pty) {
        self.screen.process(format!("\x1b[32m$\x1b[0m \x1b[1m{line}\x1b[0m\r\n").as_bytes());
        let (terminal, pts) = pty_process::blocking::open().unwrap();
        terminal.resize(Size::new(ROWS, COLUMNS)).unwrap();
        let mut command = bare_command();
        command.args(line.strip_prefix("tap-streamduo ").unwrap().split(' '));
        command.env("PATH", target_program().parent().unwrap()).env("TERM", "xterm-256color");
        (in_terminal(&command).current_dir(self.dir.path()).spawn(pts).unwrap(), terminal)
    }

    /// Takes what was written to the terminal. Returns whether there can be more.
    fn read(&mut self, terminal: &mut Pty) -> bool {
        let mut buffer = [0; 4096];
        // Linux reports the end of a terminal's other side as an error.
        let length = terminal.read(&mut buffer).unwrap_or_default();
        self.screen.process(&buffer[..length]);
        length > 0
    }

    /// Runs a command to its end.
    fn run(&mut self, line: &str) {
        let (mut child, mut terminal) = self.type_command(line);
        while self.read(&mut terminal) {}
        assert!(child.wait().unwrap().success(), "{}", self.screen.screen().contents());
    }

    /// Runs a command until the terminal shows this text.
    fn run_until(&mut self, line: &str, text: &str) {
        let (mut child, mut terminal) = self.type_command(line);
        while !self.screen.screen().contents().contains(text) {
            assert!(self.read(&mut terminal), "{}", self.screen.screen().contents());
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let _ = terminal.read_to_end(&mut Vec::new());
        child.wait().unwrap();
    }
}

/// Looks at a stream, loads it, and follows it.
fn session() -> Parser {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.fill(&stream, 5000);
    let mut session = Session::start(&sandbox, &stream);
    session.run("tap-streamduo -c sandbox.json --peek 1");
    session.run("tap-streamduo -c sandbox.json -- streamduo-sandbox target --out cars.jsonl");
    for _ in 0..12 {
        sandbox.write(&stream, "\"late\"");
    }
    session.run_until(
        "tap-streamduo -c sandbox.json --follow -- streamduo-sandbox target --out cars.jsonl",
        "12 records written, 12 marked as read; waiting for more",
    );
    session.screen
}

/// The screen as a picture.
fn svg(screen: &Screen) -> String {
    let rows: Vec<_> = screen.rows(0, COLUMNS).collect();
    let used = rows.iter().rposition(|row| !row.is_empty()).unwrap() + 1;
    let used = u16::try_from(used).unwrap();
    assert!(used < ROWS, "the session scrolls");
    let mut lines = String::new();
    for row in 0..used {
        let y = TOP + row * HEIGHT;
        writeln!(lines, r#"<text x="{LEFT}" y="{y}">{}</text>"#, spans(screen, row)).unwrap();
    }
    let width = 2 * LEFT + COLUMNS * 42 / 5;
    let height = TOP + used * HEIGHT;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="title desc">
<title id="title">tap-streamduo at a terminal</title>
<desc id="desc">Three commands: one shows a record and marks nothing; one loads 5000 records into a target, and marks them as read; one follows the stream.</desc>
<rect x="1" y="1" width="{}" height="{}" rx="8" fill="#0d1117" stroke="#444c56"/>
<circle cx="22" cy="20" r="6" fill="#ff5f57"/><circle cx="42" cy="20" r="6" fill="#febc2e"/><circle cx="62" cy="20" r="6" fill="#28c840"/>
<g fill="#e6edf3" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" xml:space="preserve">
{lines}</g>
</svg>
"##,
        width - 2,
        height - 2
    )
}

/// A row of the screen, with its colours.
fn spans(screen: &Screen, row: u16) -> String {
    let mut spans: Vec<(String, String)> = Vec::new();
    for column in 0..COLUMNS {
        let cell = screen.cell(row, column).unwrap();
        let mut style = String::new();
        if let Color::Idx(index @ 0..8) = cell.fgcolor() {
            write!(style, r#" fill="{}""#, COLOURS[usize::from(index)]).unwrap();
        }
        if cell.bold() {
            style += r#" font-weight="bold""#;
        }
        let text = match cell.contents() {
            "" => " ",
            "&" => "&amp;",
            "<" => "&lt;",
            text => text,
        };
        match spans.last_mut() {
            Some((last, before)) if *last == style => before.push_str(text),
            _ => spans.push((style, text.to_owned())),
        }
    }
    let line: String = spans
        .iter()
        .map(|(style, text)| match style.as_str() {
            "" => text.clone(),
            style => format!("<tspan{style}>{text}</tspan>"),
        })
        .collect();
    line.trim_end().to_owned()
}

/// What a picture says, without what differs from run to run and with no space: a longer number
/// breaks lines elsewhere.
fn words(svg: &str) -> String {
    let rows: String = svg.lines().filter(|line| line.starts_with("<text")).collect();
    let words = Regex::new(r"<[^>]+>|\s").unwrap().replace_all(&rows, "").into_owned();
    let differing = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|127\.0\.0\.1:\d+|\d+\.\d+s\b";
    Regex::new(differing).unwrap().replace_all(&words, "#").into_owned()
}

#[test]
fn the_picture_of_a_session_shows_what_a_terminal_shows() {
    let made = svg(session().screen());
    let path = repository_file("img/demo.svg");
    if env::var_os("TAP_STREAMDUO_DEMO").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert_eq!(words(&fs::read_to_string(path).unwrap()), words(&made), "TAP_STREAMDUO_DEMO=1 makes it anew");
}
