use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::client::{self, Reply};

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
fn each_line_of_a_file_becomes_a_record() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("payloads.jsonl");
    std::fs::write(&file, "{\"a\": 1.0}\n7\n").expect("a file");
    let file = file.to_str().expect("text");
    let output = run(&["run", "--records", "0", "--payloads", file], "true");
    assert_eq!(text(&output.stderr), "sandbox: 2 records, 0 marked as read, 2 unread; 0 requests\n");

    std::fs::write(file, "1\nno\n").expect("a file");
    let output = run(&["run", "--payloads", file], "true");
    assert!(text(&output.stderr).starts_with(&format!("sandbox: {file}: line 2 is not JSON: ")));
    assert_eq!(output.status.code(), Some(1));
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

/// A running `serve`.
struct Serving {
    child: Child,
    config: Value,
}

impl Serving {
    fn start(args: &[&str]) -> Serving {
        let mut child = sandbox(&["serve"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the sandbox runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut config = String::new();
        while stdout.read_line(&mut config).expect("a line") > 0 && !config.ends_with("}\n") {}
        Serving { child, config: serde_json::from_str(&config).expect("JSON") }
    }

    fn setting(&self, name: &str) -> &str {
        self.config[name].as_str().expect("a string")
    }

    fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let address = self.setting("apiUrl").strip_prefix("http://").expect("a url");
        let mut connection = TcpStream::connect(address).expect("it listens");
        client::write(&mut connection, method, path, headers, body);
        client::read(&connection).expect("an answer")
    }

    fn token(&self) -> String {
        let (id, secret) = (self.setting("clientId"), self.setting("clientSecret"));
        let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        let form_encoded = [("content-type", "application/x-www-form-urlencoded")];
        let token = self.call("POST", "/oauth2/token", &form_encoded, &form).json();
        token["access_token"].as_str().expect("a token").to_owned()
    }

    /// Stops it with SIGTERM, and returns its stderr.
    fn stop(self) -> String {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(killed.success());
        let output = self.child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0));
        text(&output.stderr).to_owned()
    }
}

#[test]
fn serve_prints_the_settings_and_serves_until_a_signal() {
    let serving = Serving::start(&["--records", "5"]);
    assert_eq!(serving.call("GET", "/health", &[], "").text(), "OK");
    let stderr = serving.stop();
    assert!(stderr.contains("STREAMDUO_SDK_URL=http://") && stderr.contains("Client.auth_endpoint ="), "{stderr}");
    assert!(stderr.ends_with("sandbox: 5 records, 0 marked as read, 5 unread; 1 request\n"), "{stderr}");
}

#[test]
fn options_set_the_network_the_limits_and_the_records() {
    let options = "--records 3 --record-bytes 500 --latency-ms 1 --jitter-ms 1 --seed 7 --connect-ms 1 \
                   --bandwidth 1000000 --max-records 4 --max-bytes 1600 --refuse-with 400 --slip-in 2";
    let serving = Serving::start(&options.split_whitespace().collect::<Vec<_>>());
    let bearer = format!("Bearer {}", serving.token());
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let path = format!("/stream/{}/record-request", serving.setting("streamId"));
    let mark = |count| serving.call("POST", &path, &headers, &client::unread(count, true).to_string());

    assert_eq!(serving.call("POST", &path, &headers, &client::unread(3, false).to_string()).status, 400, "too long");
    assert_eq!(mark(5).text(), r#"{"message":"5 records are too many: the limit is 4"}"#);
    let second = mark(2);
    assert_eq!((second.status, &*second.ids()[1]), (200, "slip-in-1"));
    let third = mark(4);
    assert_eq!((third.status, third.json()[0]["dataPayload"].to_string().len()), (200, 500));
    let stderr = serving.stop();
    assert!(stderr.ends_with("sandbox: 4 records, 4 marked as read, 0 unread; 5 requests\n"), "{stderr}");

    for bad in ["--bandwidth 0", "--slip-in 0", "--refuse-with 200"] {
        let refused = sandbox(&["run"]).args(bad.split(' ')).args(["--", "true"]).output().expect("the sandbox runs");
        assert_eq!(refused.status.code(), Some(2), "{bad}");
    }
}

#[test]
fn serve_adds_records_each_time_that_some_time_has_passed() {
    let serving = Serving::start(&["--records", "0", "--every", "1ms"]);
    assert_eq!(serving.config["pollIntervalSeconds"], 1);
    let token = serving.token();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    let path = format!("/stream/{}/record-request", serving.setting("streamId"));
    let peek = client::unread(100, false).to_string();
    let reply =
        std::iter::repeat_with(|| serving.call("POST", &path, &headers, &peek)).find(|reply| reply.ids().len() >= 3);
    let records = reply.expect("it does not end").json();
    let (first, second) = (&records[0], &records[1]);
    assert_eq!(first["dataPayload"]["carData"]["Make"], "Toyota");
    assert_ne!(first["recordId"], second["recordId"]);
    assert!(first["recordTimeStampISO"].as_str() < second["recordTimeStampISO"].as_str(), "{records}");
    serving.stop();

    for bad in ["0s", "1", "s", "1.5s", "1h", "99999999999999999999s"] {
        let refused = sandbox(&["serve", "--every", bad]).output().expect("the sandbox runs");
        assert_eq!(refused.status.code(), Some(2), "{bad}");
    }
}

#[test]
fn quickstart_fails_with_its_tap() {
    let failed = sandbox(&["quickstart", "/bin/false"]).output().expect("the sandbox runs");
    assert_eq!((failed.status.code(), text(&failed.stdout)), (Some(1), ""));
    let expected = "\n0 records were written to stdout as Singer messages.\n\
                    The stand-in for StreamDuo counts 0 records as read and 5 as unread.\n\n\
                    The tap has failed: exit status: 1.\n";
    assert_eq!(text(&failed.stderr), expected);
    let idle = sandbox(&["quickstart", "/bin/true"]).output().expect("the sandbox runs");
    assert_eq!(idle.status.code(), Some(1));
    assert!(text(&idle.stderr).ends_with("The tap has failed: exit status: 0.\n"), "{}", text(&idle.stderr));
}

/// The command of docs/network.md.
#[test]
#[cfg(feature = "tls")]
fn serve_with_tls_writes_the_certificate_of_its_ca() {
    let dir = tempfile::tempdir().expect("a folder");
    let serving = Serving::start(&["--tls", dir.path().to_str().expect("a path")]);
    let ca = dir.path().join("sandbox-ca.pem");
    let pem = std::fs::read_to_string(&ca).expect("a certificate");
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n") && pem.ends_with("-----END CERTIFICATE-----\n"), "{pem}");
    assert!(serving.setting("apiUrl").starts_with("https://127.0.0.1:"), "{}", serving.config);
    let hint =
        format!("for the tap: export SSL_CERT_FILE={0}; for Python: export REQUESTS_CA_BUNDLE={0}\n", ca.display());
    let stderr = serving.stop();
    assert!(stderr.contains(&hint), "{stderr}");
}
