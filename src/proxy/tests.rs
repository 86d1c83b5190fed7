//! The proxy over sockets, with a dialer that the test scripts.

use std::{net::SocketAddr, sync::Mutex};

use tokio::io::DuplexStream;

use super::*;

/// Answers by the name that is asked for.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<Ask>>,
}

impl Dialer for Script {
    type Stream = DuplexStream;

    async fn open(&self, ask: Ask, progress: Progress) -> Result<DuplexStream, Refusal> {
        self.asked.lock().unwrap().push(ask.clone());
        match &ask.target {
            Target::Service { name, .. } if name == "missing.fog" => Err(Refusal::NoDescriptor),
            Target::Service { name, .. } if name == "never.fog" => {
                progress.set(Stage::Rendezvous);
                std::future::pending().await
            }
            // Everything else is an echo that begins with what was said early.
            _ => {
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                tokio::spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(theirs);
                    writer.write_all(&ask.early).await.unwrap();
                    let _gone = tokio::io::copy(&mut reader, &mut writer).await;
                    let _gone = writer.shutdown().await;
                });
                Ok(ours)
            }
        }
    }
}

struct Proxy {
    address: SocketAddr,
    dialer: Arc<Script>,
    requests: Arc<Requests>,
    shutdown: CancellationToken,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialer, requests, shutdown) =
            (Arc::<Script>::default(), Arc::<Requests>::default(), CancellationToken::new());
        tokio::spawn(run(listener, Arc::clone(&dialer), Arc::clone(&requests), shutdown.clone()));
        Self { address, dialer, requests, shutdown }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Says `bytes`, and all that comes back until the end.
    async fn talk(&self, bytes: &[u8]) -> Vec<u8> {
        let mut socket = self.connect().await;
        socket.write_all(bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        answer
    }
}

fn socks_request(name: &str) -> Vec<u8> {
    [&[5, 1, 0, 5, 1, 0, 3, name.len() as u8][..], name.as_bytes(), &[0, 80]].concat()
}

const OPEN: [u8; 12] = [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

#[tokio::test]
async fn socks_and_http_share_a_port_and_bytes_flow_until_both_have_ended() {
    let proxy = Proxy::start().await;
    let hello = [&socks_request("a.fog")[..], b"hello"].concat();
    assert_eq!(proxy.talk(&hello).await, [&OPEN[..], b"hello"].concat());
    let answer = proxy.talk(b"CONNECT a.fog:80 HTTP/1.1\r\n\r\nhello").await;
    assert_eq!(answer, b"HTTP/1.1 200 Connection established\r\n\r\nhello");
    let page = proxy.talk(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(page.starts_with(b"HTTP/1.1 200 OK") && page.ends_with(b"</html>"));
    let asked = proxy.dialer.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|ask| ask.target == Target::Service { name: "a.fog".into(), port: 80 }));
    assert_eq!(asked[0].isolation, asked[1].isolation);
    // Half closed is not closed: a large answer comes after the request has ended.
    let mut socket = proxy.connect().await;
    socket.write_all(&socks_request("a.fog")).await.unwrap();
    let mut opened = [0; 12];
    socket.read_exact(&mut opened).await.unwrap();
    assert_eq!(opened, OPEN);
    let (mut reader, mut writer) = socket.into_split();
    let sent = vec![7; 1 << 20];
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    writing.await.unwrap();
    assert_eq!(received, expected);
}

#[tokio::test]
async fn failures_have_their_codes_and_nothing_hangs() {
    let proxy = Proxy::start().await;
    assert_eq!(proxy.talk(&socks_request("missing.fog")).await, [5, 0, 5, 0xf0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let answer = proxy.talk(b"CONNECT missing.fog:80 HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 502 ") && answer.ends_with(b"name is wrong\n"), "{answer:?}");
    assert_eq!(proxy.talk(&socks_request("a b.fog")).await, [5, 0, 5, 0xf6, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(proxy.talk(&[4, 1, 0, 80]).await, Vec::<u8>::new());
    assert_eq!(proxy.talk(&[]).await, Vec::<u8>::new());
    assert_eq!(proxy.requests.counts(), (2, 2, 3));
}

#[tokio::test]
async fn who_leaves_ends_the_attempt_and_a_slow_one_holds_nobody_up() {
    let proxy = Proxy::start().await;
    let mut waiting = proxy.connect().await;
    waiting.write_all(&socks_request("never.fog")).await.unwrap();
    let mut slow = Vec::new();
    for _ in 0..64 {
        let mut socket = proxy.connect().await;
        socket.write_all(&[5]).await.unwrap();
        slow.push(socket);
    }
    assert_eq!(proxy.talk(&socks_request("a.fog")).await, OPEN);
    let running = || proxy.requests.views();
    while running().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(running().iter().any(|view| view.target == "never.fog:80" && view.stage == Stage::Rendezvous));
    drop(waiting);
    while !running().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    proxy.shutdown.cancel();
    for mut socket in slow {
        let mut rest = Vec::new();
        let _reset = socket.read_to_end(&mut rest).await;
        assert_eq!(rest, Vec::<u8>::new());
    }
}
