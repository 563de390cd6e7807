//! A plain keep-alive client that does as little as can be: it shows how fast the sandbox alone can serve.

use std::io::{BufRead as _, BufReader, Read as _, Write as _, copy, sink};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamduo_sandbox::Endpoint;

use super::scene::{Asked, Stage};

/// A connection to a sandbox, with a token.
pub struct Client<'a> {
    stage: &'a Stage,
    host: &'a str,
    connection: BufReader<TcpStream>,
    token: String,
}

impl<'a> Client<'a> {
    pub fn connect(stage: &'a Stage) -> Result<Client<'a>> {
        let host = stage.sandbox.url().trim_start_matches("http://");
        let connection = TcpStream::connect(host).context("connect to the sandbox")?;
        connection.set_nodelay(true)?;
        let connection = BufReader::with_capacity(1 << 18, connection);
        let mut client = Client { stage, host, connection, token: String::new() };
        client.token = client.fetch_token()?;
        Ok(client)
    }

    /// Makes these requests; says how long it took.
    pub fn repeat(&mut self, asked: &[Asked]) -> Result<Duration> {
        let started = Instant::now();
        for Asked { endpoint, path, body } in asked {
            if *endpoint == Endpoint::Token {
                self.fetch_token()?;
            } else {
                self.call(path, body)?;
            }
        }
        Ok(started.elapsed())
    }

    /// Peeks so many times at so many records; says how long it took, and how many bytes came.
    pub fn peek(&mut self, times: usize, count: usize) -> Result<(Duration, u64)> {
        let path = format!("/stream/{}/record-request", self.stage.stream);
        let body = json!({
            "readRecordRequestType": "UNREAD",
            "recordCount": count,
            "recordId": null,
            "markAsRead": false,
            "recordTimeStampISO": null,
        });
        let body = body.to_string();
        let started = Instant::now();
        let mut bytes = 0;
        for _ in 0..times {
            bytes += self.call(&path, &body)?;
        }
        Ok((started.elapsed(), bytes))
    }

    fn fetch_token(&mut self) -> Result<String> {
        let form = token_form(self.stage);
        let length = self.send("/oauth2/token", "application/x-www-form-urlencoded", &form)?;
        let mut answer = Vec::new();
        self.connection.by_ref().take(length).read_to_end(&mut answer)?;
        let answer: Value = serde_json::from_slice(&answer).context("read the token")?;
        Ok(answer["access_token"].as_str().context("there is no token")?.to_owned())
    }

    /// Throws the answer away and returns its length.
    fn call(&mut self, path: &str, body: &str) -> Result<u64> {
        let length = self.send(path, "application/json", body)?;
        let read = copy(&mut self.connection.by_ref().take(length), &mut sink())?;
        ensure!(read == length, "an answer is cut off");
        Ok(length)
    }

    /// Sends a POST, reads the head of the answer, and returns the length of its body.
    fn send(&mut self, path: &str, kind: &str, body: &str) -> Result<u64> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            self.host,
            self.token,
            body.len()
        );
        self.connection.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.connection.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200 "), "the sandbox answers {line:?}");
        let mut length = None;
        while line != "\r\n" {
            line.clear();
            ensure!(self.connection.read_line(&mut line)? > 0, "the head of an answer is cut off");
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().ok();
            }
        }
        length.context("an answer does not say how long it is")
    }
}

/// A token for the sandbox's records.
pub fn token(stage: &Stage) -> Result<String> {
    Ok(Client::connect(stage)?.token)
}

/// The form that asks for a token. Nothing in it needs to be encoded but the scope, which stands here as it has to.
pub fn token_form(stage: &Stage) -> String {
    format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&scope=https%3A%2F%2Fapi.streamduo.com%2Fread%3Arecords",
        stage.sandbox.client_id(),
        stage.sandbox.client_secret()
    )
}
