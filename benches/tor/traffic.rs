//! What is measured through both networks: a web server on loopback, and requests to it through a SOCKS port as `curl` makes them: greeting,
//! user, command and request each wait for the answer before.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

const CHUNK: usize = 256 * 1024;
/// A stream that says nothing for so long has failed.
const QUIET: Duration = Duration::from_secs(60);

/// `GET /N` is answered with N bytes. It serves until this process ends.
pub fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let chunk: &'static [u8] =
        (0..CHUNK as u32 / 4).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect::<Vec<_>>().leak();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // A client that leaves ends its own connection alone.
            thread::spawn(move || answer(socket, chunk).unwrap_or_default());
        }
    });
    Ok(address)
}

fn answer(mut socket: TcpStream, chunk: &[u8]) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let n = socket.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..n]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut left: usize = head.split(' ').nth(1).and_then(|path| path[1..].parse().ok()).unwrap_or(0);
    let mut first = format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\nConnection: close\r\n\r\n").into_bytes();
    let n = left.min(CHUNK);
    first.extend_from_slice(&chunk[..n]);
    socket.write_all(&first)?;
    left -= n;
    while left > 0 {
        let n = left.min(CHUNK);
        socket.write_all(&chunk[..n])?;
        left -= n;
    }
    Ok(())
}

/// How long a request took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// To the first byte of the answer.
    pub first: Duration,
    /// To its end.
    pub all: Duration,
}

/// Fetches `bytes` bytes through the proxy, on circuits that are for `user` alone.
pub fn get(proxy: &str, user: &str, host: &str, port: u16, bytes: usize) -> io::Result<Took> {
    let began = Instant::now();
    let mut socket = TcpStream::connect(proxy)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(QUIET))?;
    let counted = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let mut say = |bytes: &[u8], answer: &mut [u8]| {
        socket.write_all(bytes)?;
        socket.read_exact(answer)
    };
    say(&[5, 1, 2], &mut [0; 2])?;
    say(&[&[1][..], &counted(user), &counted("x")].concat(), &mut [0; 2])?;
    let mut reply = [0; 10];
    say(&[&[5, 1, 0, 3][..], &counted(host), &port.to_be_bytes()].concat(), &mut reply)?;
    if reply[1] != 0 {
        return Err(io::Error::other(format!("SOCKS reply {:#04x}", reply[1])));
    }
    write!(socket, "GET /{bytes} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let (mut buffer, mut head, mut body, mut first) = (vec![0; 64 * 1024], Vec::new(), None, None);
    loop {
        let n = socket.read(&mut buffer)?;
        first.get_or_insert_with(|| began.elapsed());
        if n == 0 {
            break;
        }
        match &mut body {
            Some(body) => *body += n,
            None => {
                head.extend_from_slice(&buffer[..n]);
                body = head.windows(4).position(|four| four == b"\r\n\r\n").map(|at| head.len() - at - 4);
            }
        }
    }
    match (body, first) {
        (Some(body), Some(first)) if body == bytes => Ok(Took { first, all: began.elapsed() }),
        _ => Err(io::Error::other(format!("{body:?} of {bytes} bytes came"))),
    }
}
