//! A service's side of an exchange through the mixnet: its server is asked, and the answer goes back to the introduction point.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use fog_circuits::{CircuitId, Circuits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout, timeout_at},
};

use super::clock;
use crate::{
    core::{
        mixed::{
            MAX_ANSWER, NotServed,
            http::{self, Framing},
        },
        service::Exchange,
    },
    wire::{Message, mixed::Part},
};

/// For the server to take a connection, and to come to an end of its answer.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(40);
/// An answer that is not HTTP is whole when nothing came for so long, or its server has ended.
const IDLE: Duration = Duration::from_secs(1);
/// A part that the circuit does not take is offered again after this, so many times.
const AGAIN: Duration = Duration::from_millis(250);
const OFFERS: u32 = 40;

/// Asks the server, if there is one for the port, and sends its answer to the introduction point. Without a permit there are too
/// many connections to the server.
pub(super) async fn serve(
    exchange: Exchange,
    server: Option<SocketAddr>,
    permit: Option<OwnedSemaphorePermit>,
    (circuits, circuit): (Circuits, CircuitId),
) {
    let answer = match (server, &permit) {
        (None, _) => Err(NotServed::Port),
        (Some(_), None) => Err(NotServed::Busy),
        (Some(server), Some(_)) => ask(server, &exchange.bytes, exchange.half_closed).await,
    };
    drop(permit);
    let Exchange { number, answerer, room, .. } = exchange;
    for part in Part::split(number, &answerer.seal(&answer)) {
        let (command, body) = Message::MixedAnswer(part).encode();
        let mut left = OFFERS;
        while !circuits.offer_message(circuit, command, body.clone()).await {
            left -= 1;
            if left == 0 {
                tracing::debug!("an answer for the mixnet is not taken by its circuit");
                return;
            }
            sleep(AGAIN).await;
        }
    }
    drop(room);
}

/// All that the server answers.
async fn ask(server: SocketAddr, request: &[u8], half_closed: bool) -> Result<Vec<u8>, NotServed> {
    let until = clock().mono + ANSWER;
    let connected = timeout(CONNECT, TcpStream::connect(server)).await.map_err(|_| NotServed::TimedOut)?;
    let mut socket = connected.map_err(|_| NotServed::Unreachable)?;
    let (mut reader, mut writer) = socket.split();
    // A server may answer before it has read everything.
    let asking = async {
        let said = writer.write_all(request).await;
        if half_closed && said.is_ok() {
            return writer.shutdown().await;
        }
        said
    };
    let answering = answer(&mut reader, request, until);
    tokio::pin!(asking, answering);
    let mut is_said = false;
    loop {
        tokio::select! {
            answer = &mut answering => return answer,
            said = &mut asking, if !is_said => {
                is_said = true;
                if said.is_err() {
                    tracing::debug!("the server of a service does not read all of a request");
                }
            }
        }
    }
}

async fn answer(
    reader: &mut (impl AsyncReadExt + Unpin),
    request: &[u8],
    until: Instant,
) -> Result<Vec<u8>, NotServed> {
    let is_http = http::request(request) == Framing::Whole;
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        let framing = if is_http { http::answer(request, &answer) } else { Framing::Other };
        let wait = match framing {
            Framing::Whole => return Ok(answer),
            Framing::Other if !answer.is_empty() => until.min(clock().mono + IDLE),
            Framing::Other | Framing::More | Framing::UntilEnd => until,
        };
        match timeout_at(wait.into(), reader.read(&mut buffer)).await {
            Ok(Ok(0)) => return Ok(answer),
            Ok(Ok(n)) => answer.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Ok(Err(_)) if answer.is_empty() => return Err(NotServed::Unreachable),
            Ok(Err(_)) => return Ok(answer),
            Err(_) if framing == Framing::Other && !answer.is_empty() => return Ok(answer),
            Err(_) => return Err(NotServed::TimedOut),
        }
        if answer.len() > MAX_ANSWER {
            return Err(NotServed::TooLarge);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that says this and then keeps its connection open, or ends it.
    async fn server(says: Vec<u8>, ends: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _asked = socket.read(&mut [0; 4096]).await.unwrap();
            let _gone = socket.write_all(&says).await;
            if !ends {
                std::future::pending::<()>().await;
            }
        });
        address
    }

    #[tokio::test]
    async fn an_answer_is_whole_when_http_says_so_or_its_server_ends_or_is_quiet() {
        let page: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage";
        let get: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
        let open: &[u8] = b"HTTP/1.0 200 OK\r\n\r\npage";
        for (asked, says, ends) in
            [(get, page, false), (get, open, true), (b"\0", b"\x01\x02", false), (b"\0", b"", true)]
        {
            assert_eq!(ask(server(says.to_vec(), ends).await, asked, false).await, Ok(says.to_vec()));
        }
    }

    #[tokio::test]
    async fn too_large_an_answer_and_a_server_that_is_not_there_are_told() {
        let large = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; MAX_ANSWER]].concat();
        let asked = ask(server(large, true).await, b"GET / HTTP/1.1\r\n\r\n", true).await;
        assert_eq!(asked, Err(NotServed::TooLarge));
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(ask(gone, b"x", false).await, Err(NotServed::Unreachable));
    }
}
