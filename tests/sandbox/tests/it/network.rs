use std::io::Read as _;
use std::thread;
use std::time::{Duration, Instant};

use streamduo_sandbox::{Endpoint, Rule, Sandbox};

use crate::client::{Api, connect, read, unread, write};

/// Sends a peek on a new connection, and returns the connection and how much of the answer is
/// already read: the head, and at least one byte of the body.
fn start_peek(api: &Api<'_>, stream: &str, count: usize) -> (std::net::TcpStream, Vec<u8>) {
    let mut connection = connect(api.sandbox);
    let path = format!("/stream/{stream}/record-request");
    write(&mut connection, "POST", &path, &api.headers(), &unread(count, false).to_string());
    let mut received = Vec::new();
    while body(&received).is_none_or(<[u8]>::is_empty) {
        let mut buffer = [0; 65_536];
        let length = connection.read(&mut buffer).expect("the connection can be read");
        assert!(length > 0, "closed");
        received.extend_from_slice(&buffer[..length]);
    }
    (connection, received)
}

/// What follows the head of an answer; `None` if the head is not complete.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    answer.get(end + 4..)
}

fn finish(mut connection: std::net::TcpStream, mut received: Vec<u8>, length: usize) -> Vec<u8> {
    let missing = length - body(&received).expect("a head").len();
    let mut rest = vec![0; missing];
    connection.read_exact(&mut rest).expect("the rest arrives");
    received.append(&mut rest);
    body(&received).expect("a head").to_vec()
}

#[test]
fn a_body_trickles_and_two_bodies_share_the_line() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    sandbox.fill_sized(&stream, 10, 2_000);
    let api = Api::new(&sandbox);
    let whole = api.peek(&stream, 10).body;
    assert!(whole.len() > 20_000);
    // One byte each 10 ms: more than 200 s for one answer.
    sandbox.set_bandwidth(Some(100));
    let first = start_peek(&api, &stream, 10);
    let second = start_peek(&api, &stream, 10);
    for (_, received) in [&first, &second] {
        let arrived = body(received).expect("a head").len();
        assert!(arrived < whole.len(), "the head and {arrived} bytes come before the rest");
    }
    sandbox.set_bandwidth(None);
    for (connection, received) in [first, second] {
        assert_eq!(finish(connection, received, whole.len()), whole);
    }
}

#[test]
fn a_cut_answer_is_cut_in_the_middle_on_a_slow_link_too() {
    let sandbox = Sandbox::builder().bandwidth(1_000_000).start().expect("a sandbox");
    let stream = sandbox.create_stream("cars");
    sandbox.fill_sized(&stream, 10, 2_000);
    sandbox.script(Rule::on(Endpoint::Peek).call(1).cut());
    let api = Api::new(&sandbox);
    let cut = api.peek(&stream, 10);
    let announced: usize = cut.header("content-length").and_then(|text| text.parse().ok()).expect("a length");
    assert_eq!((cut.complete, cut.body.len()), (false, announced / 2));
    assert_eq!(api.peek(&stream, 10).body.len(), announced);
    assert_eq!(api.call("DELETE", &format!("/stream/{stream}"), "").status, 204, "an answer without a body");
}

#[test]
fn the_first_request_on_a_connection_takes_longer() {
    let price = Duration::from_millis(60);
    let sandbox = Sandbox::builder().connect(price).start().expect("a sandbox");
    for _ in 0..2 {
        let start = Instant::now();
        let mut connection = connect(&sandbox);
        write(&mut connection, "GET", "/health", &[], "");
        assert_eq!(read(&connection).expect("an answer").text(), "OK");
        assert!(start.elapsed() >= price);
    }
}

#[test]
fn a_request_is_carried_out_after_the_latency_and_not_before() {
    let sandbox = Sandbox::start();
    let stream = sandbox.create_stream("cars");
    let api = Api::new(&sandbox);
    let (latency, path) = (Duration::from_millis(100), format!("/stream/{stream}"));
    let far = Sandbox::builder().latency(latency).jitter(latency).start().expect("a sandbox");
    // The n-th stream of any sandbox has the same id.
    assert_eq!(far.create_stream("cars"), stream);
    assert_eq!(api.get(&path).status, 200);
    let far_api = Api::new(&far);
    thread::scope(|scope| {
        let answer = scope.spawn(|| far_api.get(&path).status);
        far.wait_for(Endpoint::Stream, 1);
        far.delete_stream(&stream);
        assert_eq!(answer.join().expect("an answer"), 404, "the stream was deleted while the request was on its way");
    });
}
