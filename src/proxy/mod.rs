//! The proxy: SOCKS5 and HTTP CONNECT on one port. It reads what a program wants and copies bytes; where they go is the [`Dialer`]'s
//! business. No name is ever looked up here.
//!
//! A connection may take 15 s for its handshake, one byte at a time if it likes. While its stream is being opened it may leave, which ends
//! the attempt.

mod http;
mod request;
mod requests;
mod socks;

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use self::{request::Request, socks::Code};
pub(crate) use self::{
    request::{Isolation, Privacy, Target},
    requests::{Progress, Requests, Stage, View},
};

/// Connections at a time. Further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 2048;
/// The time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// After a failed accept, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of the stream that are taken before it is open.
const EARLY: usize = 4096;
/// Buffers of a copied stream, each way.
const COPY: usize = 32 * 1024;

/// What is asked of the circuits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Where to.
    pub(crate) target: Target,
    /// With whom it may share a circuit.
    pub(crate) isolation: Isolation,
    /// How it is carried.
    pub(crate) privacy: Privacy,
    /// What the program has already said.
    pub(crate) early: Vec<u8>,
}

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no descriptor of this service is found: it is not running, or its name is wrong")]
    NoDescriptor,
    #[error("the descriptor of this service is not valid")]
    BadDescriptor,
    #[error("the service could not be introduced to: none of its introduction points answers")]
    IntroductionFailed,
    #[error("the service did not come to the rendezvous")]
    RendezvousFailed,
    #[error("this service is for named clients: ask its owner to authorize your client key")]
    ClientKeyMissing,
    #[error("this service does not know your client key")]
    ClientKeyWrong,
    #[error("this is not the name of a service")]
    BadAddress,
    #[error("the service's introduction points did not answer in time")]
    IntroductionTimedOut,
    #[error("the target is not allowed")]
    NotAllowed,
    #[error("the target cannot be reached")]
    Unreachable,
    #[error("the target refused")]
    Refused,
    #[error("it took too long")]
    TimedOut,
    #[error("no circuit can be built: too few relays are known, or none of them is an exit to there")]
    NoCircuit,
    #[error(
        "the privacy level `mixed` is for services (`….fog`) only: there is no way through the mixnet to other hosts"
    )]
    NotMixed,
    #[error("this service does not take the privacy level `mixed`")]
    NotTaken,
    #[error("too much is asked for at once")]
    Busy,
}

impl Refusal {
    fn code(self) -> Code {
        match self {
            Self::NoDescriptor => Code::NoDescriptor,
            Self::BadDescriptor => Code::BadDescriptor,
            Self::IntroductionFailed => Code::IntroductionFailed,
            Self::RendezvousFailed => Code::RendezvousFailed,
            Self::ClientKeyMissing => Code::ClientKeyMissing,
            Self::ClientKeyWrong => Code::ClientKeyWrong,
            Self::BadAddress => Code::BadAddress,
            Self::IntroductionTimedOut => Code::IntroductionTimedOut,
            Self::NotAllowed | Self::NotMixed | Self::NotTaken => Code::NotAllowed,
            Self::Unreachable => Code::HostUnreachable,
            Self::Refused => Code::Refused,
            Self::TimedOut => Code::TimedOut,
            Self::NoCircuit => Code::NetworkUnreachable,
            Self::Busy => Code::Failed,
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::NotAllowed | Self::NotMixed | Self::NotTaken | Self::ClientKeyMissing | Self::ClientKeyWrong => 403,
            Self::TimedOut | Self::IntroductionTimedOut => 504,
            Self::NoCircuit | Self::Busy => 503,
            Self::BadAddress => 400,
            _ => 502,
        }
    }
}

/// Opens streams.
pub(crate) trait Dialer: Send + Sync + 'static {
    /// Bytes both ways.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Opens a stream. Dropping the future gives up.
    fn open(&self, ask: Ask, progress: Progress) -> impl Future<Output = Result<Self::Stream, Refusal>> + Send;
}

/// Serves until `shutdown` is cancelled; then streams end too.
pub(crate) async fn run<D: Dialer>(
    listener: TcpListener,
    dialer: Arc<D>,
    requests: Arc<Requests>,
    shutdown: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((socket, permit)) => {
                let (dialer, requests, shutdown) = (Arc::clone(&dialer), Arc::clone(&requests), shutdown.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        ended = serve(socket, &*dialer, &requests) => {
                            if let Err(error) = ended {
                                tracing::debug!(%error, "a connection to the proxy ended");
                            }
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the proxy cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (socket, _) = listener.accept().await?;
    Ok((socket, permit))
}

/// Which way the program speaks.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Socks,
    Http,
}

impl Manner {
    fn refuse(self, refusal: Refusal) -> Vec<u8> {
        match self {
            Self::Socks => socks::reply(refusal.code()),
            Self::Http => http::answer(refusal.status(), &refusal.to_string()),
        }
    }

    fn accept(self) -> Vec<u8> {
        match self {
            Self::Socks => socks::reply(Code::Done),
            Self::Http => http::established(),
        }
    }
}

async fn serve<D: Dialer>(mut socket: TcpStream, dialer: &D, requests: &Arc<Requests>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let handshake = tokio::time::timeout(HANDSHAKE, handshake(&mut socket)).await;
    let Ok(Ok(Some((manner, request, early)))) = handshake else {
        requests.break_off();
        return Ok(());
    };
    let target = match request.target() {
        Ok(target) => target,
        Err(bad) => {
            tracing::debug!(%bad, "the proxy was asked for nothing that can be");
            requests.break_off();
            return end(&mut socket, &manner.refuse(Refusal::BadAddress)).await;
        }
    };
    let ask = Ask { isolation: request.isolation(), privacy: request.privacy(), target, early };
    let (progress, has_spoken) = (requests.begin(&ask.target), !ask.early.is_empty());
    let opened = tokio::select! {
        biased;
        opened = dialer.open(ask, progress.clone()) => opened,
        () = left(&socket, has_spoken) => return Ok(()),
    };
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(refusal) => {
            requests.refuse();
            return end(&mut socket, &manner.refuse(refusal)).await;
        }
    };
    progress.set(Stage::Open);
    socket.write_all(&manner.accept()).await?;
    copy_bidirectional_with_sizes(&mut socket, &mut stream, COPY, COPY).await?;
    Ok(())
}

/// Reads what the program wants, and its first bytes; none if it was told that it gets nothing.
async fn handshake(socket: &mut TcpStream) -> io::Result<Option<(Manner, Request, Vec<u8>)>> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    // SOCKS begins with its version; HTTP with a letter.
    if first.iter().all(u8::is_ascii_alphabetic) { over_http(socket).await } else { over_socks(socket).await }
}

async fn over_socks(socket: &mut TcpStream) -> io::Result<Option<(Manner, Request, Vec<u8>)>> {
    let (mut handshake, mut buffer) = (socks::Handshake::new(), [0; 1024]);
    loop {
        match handshake.step() {
            socks::Step::More => {
                let n = socket.read(&mut buffer).await?;
                if n == 0 || !handshake.push(buffer.get(..n).unwrap_or_default()) {
                    return Ok(None);
                }
            }
            socks::Step::Say(bytes) => socket.write_all(&bytes).await?,
            socks::Step::Ask(request) => return Ok(Some((Manner::Socks, request, handshake.rest()))),
            socks::Step::Refuse(bytes) => return end(socket, &bytes).await.map(|()| None),
        }
    }
}

async fn over_http(socket: &mut TcpStream) -> io::Result<Option<(Manner, Request, Vec<u8>)>> {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        match http::parse(&head) {
            http::Head::More => {
                let n = socket.read(&mut buffer).await?;
                if n == 0 {
                    return Ok(None);
                }
                head.extend_from_slice(buffer.get(..n).unwrap_or_default());
            }
            http::Head::Ask(request, used) => {
                return Ok(Some((Manner::Http, request, head.split_off(used.min(head.len())))));
            }
            http::Head::Refuse(bytes) => return end(socket, &bytes).await.map(|()| None),
        }
    }
}

/// An answer of HTTP that says in a line why there is no other.
pub(crate) fn http_answer(status: u16, why: &str) -> Vec<u8> {
    http::answer(status, why)
}

/// Says the last word.
async fn end(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    socket.write_all(bytes).await?;
    socket.shutdown().await?;
    // What the program still says is read, or the system would take the last word back.
    let mut rest = [0; 1024];
    let drained = async { while socket.read(&mut rest).await.is_ok_and(|n| n > 0) {} };
    let _time_is_up = tokio::time::timeout(Duration::from_secs(1), drained).await;
    Ok(())
}

/// Until the program is gone. One that has said something may have ended its half of the stream and wait for the answer.
async fn left(socket: &TcpStream, has_spoken: bool) {
    let peeked = socket.peek(&mut [0]).await;
    if peeked.is_ok_and(|n| n > 0 || has_spoken) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
