//! One stream between an application's task and the engine, and [`Stream`], which the application holds.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{hub::Hub, lock};
use crate::wire::EndReason;

/// Bytes that wait for the engine.
const MAX_OUTGOING: usize = 64 * 1024;
/// The engine is told of what was read when it is so much, or nothing is left.
const WORTH_TELLING: u64 = 32 * 1024;

#[derive(Debug, Default)]
struct State {
    /// Bytes that came, and how many of them were read.
    incoming: Vec<u8>,
    at: usize,
    /// Read, and not yet told.
    consumed: u64,
    has_ended: bool,
    error: Option<EndReason>,
    is_connected: bool,
    outgoing: Vec<u8>,
    is_finished: bool,
    is_dropped: bool,
    is_listed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Waits for the far end to take the stream.
    opener: Option<Waker>,
}

/// What the engine finds when it looks.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) consumed: u64,
    /// Everything was written, and no more comes.
    pub(crate) is_finished: bool,
    /// Nobody reads or writes it any more.
    pub(crate) is_dropped: bool,
    /// Whether bytes wait.
    pub(crate) has_bytes: bool,
}

/// The engine's side of a stream.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) number: u64,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

impl Flow {
    pub(crate) fn new(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { number: hub.next_flow(), hub: Arc::clone(hub), state: Mutex::default() })
    }

    pub(crate) fn take(&self) -> News {
        let mut state = lock(&self.state);
        state.is_listed = false;
        News {
            consumed: std::mem::take(&mut state.consumed),
            is_finished: state.is_finished && state.outgoing.is_empty(),
            is_dropped: state.is_dropped,
            has_bytes: !state.outgoing.is_empty(),
        }
    }

    /// The bytes that the application wrote, and whether no more come.
    pub(crate) fn take_outgoing(&self) -> (Vec<u8>, bool) {
        let mut state = lock(&self.state);
        let bytes = std::mem::take(&mut state.outgoing);
        state.writer.take().into_iter().for_each(Waker::wake);
        (bytes, state.is_finished)
    }

    /// The far end has taken the stream.
    pub(crate) fn connected(&self) {
        let mut state = lock(&self.state);
        state.is_connected = true;
        state.opener.take().into_iter().for_each(Waker::wake);
    }

    /// Bytes for the application.
    pub(crate) fn received(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        if state.at == state.incoming.len() {
            state.incoming.clear();
            state.at = 0;
        } else if state.at > state.incoming.len() / 2 {
            let at = std::mem::take(&mut state.at);
            state.incoming.drain(..at);
        }
        state.incoming.extend_from_slice(bytes);
        state.reader.take().into_iter().for_each(Waker::wake);
    }

    /// No more bytes come; with a reason, none are taken either.
    pub(crate) fn ended(&self, error: Option<EndReason>) {
        let mut state = lock(&self.state);
        state.has_ended = true;
        state.error = state.error.or(error);
        state.opener.take().into_iter().for_each(Waker::wake);
        state.reader.take().into_iter().for_each(Waker::wake);
        state.writer.take().into_iter().for_each(Waker::wake);
    }

    /// Nobody answers for it any more.
    pub(crate) fn give_up(self: &Arc<Self>) {
        self.change(|state| {
            state.is_dropped = true;
            ((), true)
        });
    }

    #[cfg(test)]
    pub(crate) fn error(&self) -> Option<EndReason> {
        lock(&self.state).error
    }

    fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> (R, bool)) -> R {
        let mut state = lock(&self.state);
        let (result, is_news) = change(&mut state);
        if is_news && !std::mem::replace(&mut state.is_listed, true) {
            drop(state);
            self.hub.flow_is_ready(Arc::clone(self));
        }
        result
    }
}

/// A stream of a circuit: bytes both ways. Shutting down the writing half leaves the other open; dropping it ends both.
#[derive(Debug)]
pub struct Stream(pub(crate) Arc<Flow>);

impl Stream {
    /// Waits until the far end has taken a stream that this node began. Nobody need wait: what is written meanwhile is on its way.
    pub async fn connected(&self) -> Result<(), StreamEnded> {
        std::future::poll_fn(|cx| {
            let mut state = lock(&self.0.state);
            match state.error {
                Some(reason) => Poll::Ready(Err(StreamEnded(reason))),
                None if state.is_connected || state.has_ended => Poll::Ready(Ok(())),
                None => {
                    state.opener = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// The error of a stream that the other end, or the circuit, has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream has ended: {0:?}")]
pub struct StreamEnded(pub EndReason);

fn error(reason: EndReason) -> io::Error {
    let kind = match reason {
        EndReason::Refused | EndReason::Busy => io::ErrorKind::ConnectionRefused,
        EndReason::NotFound | EndReason::Unreachable => io::ErrorKind::HostUnreachable,
        EndReason::Timeout => io::ErrorKind::TimedOut,
        EndReason::Other | EndReason::Reset => io::ErrorKind::ConnectionReset,
        EndReason::CircuitClosed => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, StreamEnded(reason))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.change(|state| {
            let rest = state.incoming.get(state.at..).unwrap_or_default();
            let now = rest.get(..rest.len().min(buffer.remaining())).unwrap_or_default();
            let count = now.len();
            if count > 0 {
                buffer.put_slice(now);
                state.at += count;
                state.consumed += count as u64;
                let is_news = state.consumed >= WORTH_TELLING || state.at == state.incoming.len();
                return (Poll::Ready(Ok(())), is_news);
            }
            let result = match state.error {
                _ if buffer.remaining() == 0 => Poll::Ready(Ok(())),
                Some(reason) => Poll::Ready(Err(error(reason))),
                None if state.has_ended => Poll::Ready(Ok(())),
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
            (result, false)
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.change(|state| {
            if let Some(reason) = state.error {
                return (Poll::Ready(Err(error(reason))), false);
            }
            if state.is_finished {
                return (Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())), false);
            }
            let room = MAX_OUTGOING.saturating_sub(state.outgoing.len());
            if room == 0 {
                state.writer = Some(cx.waker().clone());
                return (Poll::Pending, false);
            }
            let now = bytes.get(..bytes.len().min(room)).unwrap_or_default();
            state.outgoing.extend_from_slice(now);
            (Poll::Ready(Ok(now.len())), !now.is_empty())
        })
    }

    /// What was written is on its way; nothing tells when it has arrived.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.change(|state| {
            let was_finished = std::mem::replace(&mut state.is_finished, true);
            (Poll::Ready(Ok(())), !was_finished)
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.is_dropped = true;
            state.incoming = Vec::new();
            state.at = 0;
            ((), true)
        });
    }
}
