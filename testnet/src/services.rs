//! Services through a node's local API, and what stands at their two ends: a small web server, and a program that speaks SOCKS5.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Client, Error};

const SOON: Duration = Duration::from_secs(30);
/// A stream that says nothing for so long is given up.
const QUIET: Duration = Duration::from_secs(100);

/// A service of a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Service {
    /// `….fog`
    pub address: String,
    /// What it is called at its node.
    pub name: String,
    /// `starting`, `publishing`, `reachable`, `degraded` or `unreachable`.
    pub state: String,
    /// Introduction points that are established.
    pub introductions: u64,
    /// Directories that showed its newest descriptor.
    pub published: u64,
}

impl Client {
    /// Makes a local server reachable; its address.
    pub fn service_add(&self, target: SocketAddr, name: &str) -> Result<String, Error> {
        let body = json!({ "target": target.to_string(), "name": name });
        let added: Vec<Value> = self.post("/v1/services", &body, SOON)?;
        let address = added.first().and_then(|added| added.get("address")).and_then(Value::as_str);
        address.map(str::to_owned).ok_or_else(|| self.refused("POST /v1/services", "no address".into()))
    }

    /// The services of the node.
    pub fn services(&self) -> Result<Vec<Service>, Error> {
        self.list("/v1/services")
    }
}

/// A web server on loopback: `GET /N` answers with N bytes, `POST` with the hash of what was sent. It runs until the process ends.
pub fn serve_web() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // A client that leaves ends its own connection alone.
            thread::spawn(move || answer(socket).unwrap_or_default());
        }
    });
    Ok(address)
}

/// The bytes of a page of this size.
pub fn page(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

fn answer(mut socket: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
    let mut sent = vec![0; length];
    socket.read_exact(&mut sent)?;
    let size = head.split(' ').nth(1).and_then(|path| path.trim_start_matches('/').parse().ok());
    let body = if head.starts_with("POST") {
        blake3::hash(&sent).to_hex().as_bytes().to_vec()
    } else {
        size.map_or_else(|| b"a page".to_vec(), page)
    };
    write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    socket.write_all(&body)
}

/// A stream to `host` through the proxy at `socks`; an error names the reply code.
pub fn connect(socks: &str, host: &str, port: u16) -> io::Result<TcpStream> {
    open(socks, (&[5, 1, 0], 2), host, port)
}

/// A stream that is to be carried by the mixnet.
pub fn connect_mixed(socks: &str, host: &str, port: u16) -> io::Result<TcpStream> {
    open(socks, (b"\x05\x01\x02\x01\x05mixed\x01x", 4), host, port)
}

/// A greeting, so many bytes of answer to it, and a request.
fn open(socks: &str, (greeting, greeted): (&[u8], usize), host: &str, port: u16) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(socks)?;
    socket.set_read_timeout(Some(QUIET))?;
    socket.set_nodelay(true)?;
    let length = u8::try_from(host.len()).map_err(io::Error::other)?;
    let request = [greeting, &[5, 1, 0, 3, length], host.as_bytes(), &port.to_be_bytes()].concat();
    socket.write_all(&request)?;
    let mut answer = vec![0; greeted + 10];
    socket.read_exact(&mut answer)?;
    match answer.get(greeted + 1) {
        Some(0) => Ok(socket),
        code => Err(io::Error::other(format!("SOCKS reply {:#04x}", code.copied().unwrap_or(1)))),
    }
}

/// Fetches a page, or sends `body`, through the proxy; the body of the answer.
pub fn fetch(socks: &str, host: &str, path: &str, body: Option<&[u8]>) -> io::Result<Vec<u8>> {
    ask(connect(socks, host, 80)?, host, path, body)
}

/// The same through the mixnet.
pub fn fetch_mixed(socks: &str, host: &str, path: &str, body: Option<&[u8]>) -> io::Result<Vec<u8>> {
    ask(connect_mixed(socks, host, 80)?, host, path, body)
}

fn ask(mut socket: TcpStream, host: &str, path: &str, body: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let sent = body.unwrap_or_default();
    let length = sent.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let mut writer = socket.try_clone()?;
    let mut answer = Vec::new();
    thread::scope(|scope| {
        let writing = scope.spawn(move || writer.write_all(&[head.as_bytes(), sent].concat()));
        let read = socket.read_to_end(&mut answer);
        writing.join().map_err(|_| io::Error::other("the writer failed"))??;
        read
    })?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(answer.split_off(end + 4))
}
