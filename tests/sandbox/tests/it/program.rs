use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn sandbox(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamduo-sandbox"));
    command.args(args);
    command
}

fn run(args: &[&str], script: &str) -> Output {
    sandbox(args).args(["--", "sh", "-c", script, "sh", "{config}"]).output().expect("the sandbox runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn run_gives_the_command_its_settings_and_prints_a_summary() {
    let output = run(&["run", "--records", "3"], r#"cat "$1"; echo "at $STREAMDUO_SDK_URL""#);
    let (config, url) = text(&output.stdout).split_once("at ").expect("both");
    let config: Value = serde_json::from_str(config).expect("JSON");
    assert_eq!(config["apiUrl"], url.trim());
    assert_eq!(config["authUrl"], format!("{}/oauth2/token", url.trim()));
    assert!(["streamId", "clientId", "clientSecret"].iter().all(|key| config[key].is_string()));
    assert_eq!(text(&output.stderr), "sandbox: 3 records, 0 marked as read, 3 unread; 0 requests\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn run_ends_with_the_exit_code_of_its_command() {
    assert_eq!(run(&["run"], "exit 7").status.code(), Some(7));
    assert_eq!(run(&["run"], "kill -KILL $$").status.code(), Some(137));
    let missing = sandbox(&["run", "--", "no-such-program-here"]).output().expect("the sandbox runs");
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).contains(r#"cannot run "no-such-program-here""#));
}

#[test]
fn run_removes_cargos_variables_and_its_own_file() {
    let output = run(&["run"], r#"echo "$1"; env | grep -E '^CARGO_(PKG|MANIFEST|CRATE|BIN)'"#);
    let (path, variables) = text(&output.stdout).split_once('\n').expect("a path");
    assert_eq!(variables, "");
    assert!(!std::path::Path::new(path).exists(), "{path}");
}

#[test]
fn run_forwards_sigterm() {
    let script = r#"kill -TERM "$PPID"; trap 'exit 9' TERM; while :; do sleep 0.01; done"#;
    assert_eq!(run(&["run"], &format!("trap 'exit 9' TERM; {script}")).status.code(), Some(9));
}

#[test]
fn serve_prints_the_settings_and_serves_until_a_signal() {
    let mut child = sandbox(&["serve", "--records", "5"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the sandbox runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
    let mut config = String::new();
    while stdout.read_line(&mut config).expect("a line") > 0 && !config.ends_with("}\n") {}
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let url = config["apiUrl"].as_str().and_then(|url| url.strip_prefix("http://")).expect("a url");
    let mut connection = TcpStream::connect(url).expect("it listens");
    connection.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("OK"));

    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("STREAMDUO_SDK_URL=http://") && stderr.contains("Client.auth_endpoint ="), "{stderr}");
    assert!(stderr.ends_with("sandbox: 5 records, 0 marked as read, 5 unread; 1 request\n"), "{stderr}");
}
