//! A plain HTTP client without retries or decoding.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use streamduo_sandbox::Sandbox;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body arrived completely.
    pub(crate) complete: bool,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The ids of the records in the body.
    pub(crate) fn ids(&self) -> Vec<String> {
        let json = self.json();
        let records = json.as_array().unwrap_or_else(|| panic!("{json} is not an array"));
        records.iter().map(|record| record["recordId"].as_str().unwrap_or_default().to_owned()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Opens a connection with a read time-out of 20 s.
pub(crate) fn connect(sandbox: &Sandbox) -> TcpStream {
    let address = sandbox.url().strip_prefix("http://").expect("the url is http");
    let stream = TcpStream::connect(address).expect("the sandbox listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
    stream
}

/// Writes a request to a connection.
pub(crate) fn write(stream: &mut TcpStream, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: sandbox\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all((text + "\r\n" + body).as_bytes()).expect("the request can be written");
}

/// Reads an answer. `None` if the connection is closed before the first byte.
pub(crate) fn read(stream: &TcpStream) -> Option<Reply> {
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    if input.read_line(&mut line).expect("the connection can be read") == 0 {
        return None;
    }
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    let mut reply = Reply { status, headers: Vec::new(), body: Vec::new(), complete: true };
    loop {
        line.clear();
        input.read_line(&mut line).expect("the connection can be read");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        reply.headers.push((name.to_lowercase(), value.to_owned()));
    }
    if let Some(length) = reply.header("content-length").map(|length| length.parse().expect("a length")) {
        input.take(length).read_to_end(&mut reply.body).expect("the connection can be read");
        reply.complete = reply.body.len() as u64 == length;
    } else if reply.header("transfer-encoding").is_some() {
        input.read_to_end(&mut reply.body).expect("the connection can be read");
        reply.complete = reply.body.ends_with(b"\r\n0\r\n\r\n");
    }
    Some(reply)
}

/// Sends a request on a connection of its own.
pub(crate) fn send(sandbox: &Sandbox, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Reply> {
    let mut stream = connect(sandbox);
    write(&mut stream, method, path, headers, body);
    read(&stream)
}

/// Asks for a token with these form fields.
pub(crate) fn ask_token(sandbox: &Sandbox, form: &str) -> Reply {
    let form_encoded = [("content-type", "application/x-www-form-urlencoded")];
    send(sandbox, "POST", "/oauth2/token", &form_encoded, form).expect("an answer")
}

/// The form of a token request for this scope; `None` asks for all scopes.
pub(crate) fn form(sandbox: &Sandbox, scope: Option<&str>) -> String {
    let scope = scope.map(|scope| format!("&scope={scope}")).unwrap_or_default();
    let (id, secret) = (sandbox.client_id(), sandbox.client_secret());
    format!("grant_type=client_credentials&client_id={id}&client_secret={secret}{scope}")
}

pub(crate) const RECORDS: &str = "https://api.streamduo.com/read:records";
pub(crate) const STREAMS: &str = "https%3A%2F%2Fapi.streamduo.com%2Fmanage%3Astreams";

/// A client with a token.
pub(crate) struct Api<'a> {
    pub(crate) sandbox: &'a Sandbox,
    bearer: String,
}

impl<'a> Api<'a> {
    /// A client with a token for all scopes.
    pub(crate) fn new(sandbox: &'a Sandbox) -> Api<'a> {
        Api::with_scope(sandbox, None)
    }

    pub(crate) fn with_scope(sandbox: &'a Sandbox, scope: Option<&str>) -> Api<'a> {
        let token = ask_token(sandbox, &form(sandbox, scope)).json()["access_token"].clone();
        Api { sandbox, bearer: format!("Bearer {}", token.as_str().expect("a token")) }
    }

    pub(crate) fn headers(&self) -> [(&str, &str); 2] {
        [("authorization", &self.bearer), ("content-type", "application/json")]
    }

    pub(crate) fn try_call(&self, method: &str, path: &str, body: &str) -> Option<Reply> {
        send(self.sandbox, method, path, &self.headers(), body)
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> Reply {
        self.try_call(method, path, body).expect("an answer")
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.call("GET", path, "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, &body.to_string())
    }

    pub(crate) fn request(&self, stream: &str, body: &Value) -> Reply {
        self.post(&format!("/stream/{stream}/record-request"), body)
    }

    pub(crate) fn peek(&self, stream: &str, count: usize) -> Reply {
        self.request(stream, &unread(count, false))
    }

    pub(crate) fn mark(&self, stream: &str, count: usize) -> Reply {
        self.request(stream, &unread(count, true))
    }

    /// Like [`mark`](Api::mark), but the answer may be missing.
    pub(crate) fn try_mark(&self, stream: &str, count: usize) -> Option<Reply> {
        self.try_call("POST", &format!("/stream/{stream}/record-request"), &unread(count, true).to_string())
    }

    /// The statuses of a peek and of `GET /stream/{id}`.
    pub(crate) fn statuses(&self, stream: &str) -> (u16, u16) {
        (self.peek(stream, 1).status, self.get(&format!("/stream/{stream}")).status)
    }
}

/// The body of a record-request as the SDK sends it.
pub(crate) fn unread(count: usize, mark: bool) -> Value {
    json!({
        "readRecordRequestType": "UNREAD", "recordCount": count, "recordId": null, "markAsRead": mark,
        "recordTimeStampISO": null,
    })
}
