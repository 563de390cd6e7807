//! A keep-alive client that does as little as possible: it shows how fast the sandbox alone serves.

use std::io::{self, BufRead as _, BufReader, Read as _, Take, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use streamduo_sandbox::{Call, Endpoint, Sandbox};

use super::measure::Sample;

/// A POST request.
#[derive(Clone)]
pub struct Request {
    pub path: String,
    pub content_type: &'static str,
    pub body: String,
}

impl Request {
    pub fn json(path: &str, body: impl ToString) -> Request {
        Request { path: path.to_owned(), content_type: "application/json", body: body.to_string() }
    }

    fn token(sandbox: &Sandbox) -> Request {
        let (id, secret) = (sandbox.client_id(), sandbox.client_secret());
        let scope = "https%3A%2F%2Fapi.streamduo.com%2Fread%3Arecords";
        Request {
            path: "/oauth2/token".to_owned(),
            content_type: "application/x-www-form-urlencoded",
            body: format!("grant_type=client_credentials&client_id={id}&client_secret={secret}&scope={scope}"),
        }
    }

    /// Requests made of one sandbox, for another with the same records but other credentials.
    pub fn replay(calls: &[Call], sandbox: &Sandbox) -> Vec<Request> {
        let replay = |call: &Call| match call.endpoint {
            Endpoint::Token => Request::token(sandbox),
            _ => Request::json(&call.path, &call.body),
        };
        calls.iter().map(replay).collect()
    }
}

/// A connection to a sandbox, with a token.
pub struct Client {
    connection: BufReader<TcpStream>,
    pub token: String,
}

impl Client {
    pub fn connect(sandbox: &Sandbox) -> Result<Client> {
        let connection = TcpStream::connect(sandbox.url().trim_start_matches("http://")).context("connect")?;
        connection.set_nodelay(true)?;
        let connection = BufReader::with_capacity(1 << 18, connection);
        let mut client = Client { connection, token: String::new() };
        let answer: Value =
            serde_json::from_reader(client.send(&Request::token(sandbox))?).context("read the token")?;
        client.token = answer["access_token"].as_str().context("there is no token")?.to_owned();
        Ok(client)
    }

    /// Throws the answers away; returns the time that the requests took, and the bytes in the
    /// bodies of the answers.
    pub fn send_all(&mut self, requests: &[Request]) -> Result<(Sample, u64)> {
        let started = Instant::now();
        let mut bytes = 0;
        for request in requests {
            let mut answer = self.send(request)?;
            let length = answer.limit();
            ensure!(io::copy(&mut answer, &mut io::sink())? == length, "an answer is cut off");
            bytes += length;
        }
        Ok((Sample::wall_only(started.elapsed()), bytes))
    }

    /// Returns the body of the answer, to be read before the next request.
    fn send(&mut self, request: &Request) -> Result<Take<&mut BufReader<TcpStream>>> {
        let Request { path, content_type, body } = request;
        let (token, length) = (&self.token, body.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.connection.get_mut().write_all(request.as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(self.connection.read_line(&mut head)? > 0, "the head of an answer is cut off");
        }
        ensure!(head.starts_with("HTTP/1.1 200 "), "the sandbox answers {head:?}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.context("an answer does not say how long it is")?.parse()?;
        Ok(self.connection.by_ref().take(length))
    }
}
