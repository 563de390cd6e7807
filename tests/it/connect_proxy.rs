//! A proxy for https: it opens tunnels (CONNECT), or refuses to.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use streamduo_sandbox::Sandbox;

/// A running proxy. It ends with the process.
pub struct ConnectProxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// A proxy that answers each CONNECT with the status that the function gives for the request's
    /// head, and tunnels to the sandbox, whatever the target, if that is 200.
    pub fn start(sandbox: &Sandbox, mut status: impl FnMut(&str) -> u16 + Send + 'static) -> ConnectProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = sandbox.url().rsplit('/').next().unwrap().to_owned();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let head = read_head(&client);
                let status = status(&head);
                seen.lock().unwrap().push(head);
                write!(client, "HTTP/1.1 {status} So it is\r\n\r\n").unwrap();
                if status == 200 {
                    tunnel(client, TcpStream::connect(&target).unwrap());
                }
            }
        });
        ConnectProxy { address, heads }
    }

    /// The heads of the requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The targets of the requests so far.
    pub fn targets(&self) -> Vec<String> {
        let target = |head: &String| head.strip_prefix("CONNECT ")?.split(' ').next().map(str::to_owned);
        self.heads().iter().map(|head| target(head).unwrap()).collect()
    }
}

fn read_head(client: &TcpStream) -> String {
    let mut reader = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
    head
}

fn tunnel(client: TcpStream, server: TcpStream) {
    let pump = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            // Ignore the errors: one end has closed the connection.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })
    };
    pump(client.try_clone().unwrap(), server.try_clone().unwrap());
    pump(server, client);
}
