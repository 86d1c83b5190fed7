//! The streams of one connection: at most one by which the peer fetches here, and one by which this node fetches there. Bytes are
//! cut into messages here; what they mean is the engine's.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use fog_base::NodeId;
use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use crate::{
    runtime::{
        hub::Hub,
        pipe::{End, Over, Pipe, Received, Side},
    },
    wire::{MAX_MESSAGE_BYTES, PREFIX_BYTES},
};

/// Bytes that are read at once: some steps.
const READ_BYTES: usize = 128 * 1024;
/// Reads and writes of one poll, before other streams and connections get their turn.
const BUDGET: usize = 16;

/// An open stream.
#[derive(Debug)]
struct Duplex {
    stream: Stream,
    end: End,
    read: Vec<u8>,
    filled: usize,
    messages: Vec<Received>,
    writes: Vec<u8>,
    ends: VecDeque<usize>,
    written: usize,
    is_flushed: bool,
}

impl Duplex {
    fn new(stream: Stream, end: End) -> Self {
        end.opened();
        Self {
            stream,
            end,
            read: Vec::new(),
            filled: 0,
            messages: Vec::new(),
            writes: Vec::new(),
            ends: VecDeque::new(),
            written: 0,
            is_flushed: true,
        }
    }

    /// Reads and writes what can be; ready when the stream is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_over = match self.poll_write(cx) {
            Ok(is_over) => is_over,
            Err(error) => self.broken(&error),
        };
        if is_over || self.poll_read(cx) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn broken(&self, error: &io::Error) -> bool {
        tracing::debug!(%error, "a stream of blobs has broken");
        true
    }

    /// True when the engine wants no more of the stream and everything is written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        for _ in 0..BUDGET {
            if self.written == self.writes.len() {
                self.writes.clear();
                self.ends.clear();
                self.written = 0;
                match self.end.unwritten(&mut self.writes, &mut self.ends, cx.waker()) {
                    Some(true) => {}
                    more => {
                        if !self.is_flushed {
                            match Pin::new(&mut self.stream).poll_flush(cx) {
                                Poll::Ready(flushed) => flushed?,
                                Poll::Pending => return Ok(false),
                            }
                            self.is_flushed = true;
                        }
                        return Ok(more.is_none());
                    }
                }
            }
            let rest = self.writes.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.written += written?,
                Poll::Pending => return Ok(false),
            }
            self.is_flushed = false;
            let gone = self.ends.iter().take_while(|end| **end <= self.written).count();
            self.ends.drain(..gone);
            self.end.wrote(gone);
        }
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// True when the stream is over.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        self.read.resize(READ_BYTES, 0);
        for _ in 0..BUDGET {
            if !self.end.receive(&mut self.messages, cx.waker()) {
                return false;
            }
            let room = self.read.get_mut(self.filled..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_read(cx, room) {
                Poll::Ready(Ok(0)) => return true,
                Poll::Ready(Ok(count)) => self.filled += count,
                Poll::Ready(Err(error)) => return self.broken(&error),
                Poll::Pending => return false,
            }
            if self.cut() {
                return true;
            }
        }
        cx.waker().wake_by_ref();
        let _has_room = self.end.receive(&mut self.messages, cx.waker());
        false
    }

    /// Cuts what was read into messages; true if it is none.
    fn cut(&mut self) -> bool {
        let mut at = 0;
        loop {
            match self.end.side().decode(self.read.get(at..self.filled).unwrap_or_default()) {
                Ok(Some((message, len))) => {
                    self.messages.push(message);
                    at += len;
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "a stream of blobs is none");
                    self.end.over(Over::Malformed);
                    return true;
                }
            }
        }
        self.read.copy_within(at..self.filled, 0);
        self.filled -= at;
        false
    }
}

/// A frame always fits.
const _: () = assert!(READ_BYTES > PREFIX_BYTES + MAX_MESSAGE_BYTES);

/// The streams of one connection.
#[derive(Debug)]
pub struct Handler {
    protocol: StreamProtocol,
    hub: Arc<Hub>,
    node: NodeId,
    inbound: Option<Duplex>,
    outbound: Option<Duplex>,
    /// To be opened.
    wanted: Option<End>,
    /// Being opened, in the order in which they were asked for.
    opening: VecDeque<End>,
}

impl Handler {
    pub(crate) fn new(protocol: StreamProtocol, hub: Arc<Hub>, node: NodeId) -> Self {
        Self { protocol, hub, node, inbound: None, outbound: None, wanted: None, opening: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = End;
    type ToBehaviour = std::convert::Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.inbound.is_some() || self.outbound.is_some() || self.wanted.is_some() || !self.opening.is_empty()
    }

    fn on_behaviour_event(&mut self, end: Self::FromBehaviour) {
        self.wanted = Some(end);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                let (_pipe, end) = Pipe::new(&self.hub, self.node, Side::Serves);
                self.inbound = Some(Duplex::new(stream, end));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                if let Some(end) = self.opening.pop_front() {
                    self.outbound = Some(Duplex::new(stream, end));
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                let end = self.opening.pop_front();
                if let Some(end) = end.filter(|_| matches!(error, StreamUpgradeError::NegotiationFailed)) {
                    end.over(Over::Unsupported);
                }
            }
            _ => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if self.opening.is_empty()
            && let Some(end) = self.wanted.take()
        {
            self.opening.push_back(end);
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        for stream in [&mut self.inbound, &mut self.outbound] {
            if stream.as_mut().is_some_and(|stream| stream.poll(cx).is_ready()) {
                *stream = None;
            }
        }
        Poll::Pending
    }
}
