//! The links of one connection: bytes are cut into cells here, and cells written in batches. What they mean is the engine's.

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
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use crate::{
    core::cell::{CELL_LEN, Cell},
    runtime::{
        hub::Hub,
        pipe::{End, Over, Pipe},
    },
};

/// Bytes that are read at once.
const READ_BYTES: usize = 32 * CELL_LEN;
/// Reads and writes of one poll, before other links and connections get their turn.
const BUDGET: usize = 16;
/// Links of one connection.
const MAX_LINKS: usize = 4;

/// An open link.
#[derive(Debug)]
struct Duplex {
    stream: Stream,
    end: End,
    read: Vec<u8>,
    filled: usize,
    cells: Vec<Cell>,
    writes: Vec<u8>,
    written: usize,
    is_flushed: bool,
}

impl Duplex {
    fn new(stream: Stream, end: End) -> Self {
        end.opened();
        let read = vec![0; READ_BYTES];
        Self { stream, end, read, filled: 0, cells: Vec::new(), writes: Vec::new(), written: 0, is_flushed: true }
    }

    /// Reads and writes what can be; ready when the link is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_over = match self.poll_write(cx) {
            Ok(is_over) => is_over,
            Err(error) => broken(&error),
        };
        if is_over || self.poll_read(cx) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// True when the engine wants no more of the link and everything is written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        for _ in 0..BUDGET {
            if self.written == self.writes.len() {
                self.writes.clear();
                self.written = 0;
                match self.end.unwritten(&mut self.writes, cx.waker()) {
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
        }
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// True when the link is over.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..BUDGET {
            if !self.end.receive(&mut self.cells, cx.waker()) {
                return false;
            }
            let room = self.read.get_mut(self.filled..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_read(cx, room) {
                Poll::Ready(Ok(0)) => return true,
                Poll::Ready(Ok(count)) => self.filled += count,
                Poll::Ready(Err(error)) => return broken(&error),
                Poll::Pending => return false,
            }
            if self.cut() {
                return true;
            }
        }
        cx.waker().wake_by_ref();
        let _has_room = self.end.receive(&mut self.cells, cx.waker());
        false
    }

    /// Cuts what was read into cells; true if it is none.
    fn cut(&mut self) -> bool {
        let filled = self.read.get(..self.filled).unwrap_or_default();
        let (whole, rest) = filled.as_chunks::<CELL_LEN>();
        for bytes in whole {
            let Some(cell) = Cell::decode(bytes) else {
                tracing::debug!("a link carries what is no cell");
                self.end.over(Over::Malformed);
                return true;
            };
            self.cells.push(cell);
        }
        let (from, left) = (self.filled - rest.len(), rest.len());
        self.read.copy_within(from..self.filled, 0);
        self.filled = left;
        false
    }
}

fn broken(error: &io::Error) -> bool {
    tracing::debug!(%error, "a link of circuits has broken");
    true
}

/// The links of one connection.
#[derive(Debug)]
pub struct Handler {
    protocol: StreamProtocol,
    hub: Arc<Hub>,
    node: NodeId,
    links: Vec<Duplex>,
    /// To be opened.
    wanted: VecDeque<End>,
    /// Being opened, in the order in which they were asked for.
    opening: VecDeque<End>,
}

impl Handler {
    pub(crate) fn new(protocol: StreamProtocol, hub: Arc<Hub>, node: NodeId) -> Self {
        Self { protocol, hub, node, links: Vec::new(), wanted: VecDeque::new(), opening: VecDeque::new() }
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
        !self.links.is_empty() || !self.wanted.is_empty() || !self.opening.is_empty()
    }

    fn on_behaviour_event(&mut self, end: Self::FromBehaviour) {
        self.wanted.push_back(end);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            // More are refused: the stream is dropped.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. })
                if self.links.len() < MAX_LINKS =>
            {
                let (end, _) = Pipe::new_end(&self.hub, self.node, false);
                self.links.push(Duplex::new(stream, end));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                if let Some(end) = self.opening.pop_front() {
                    self.links.push(Duplex::new(stream, end));
                }
            }
            // The end is dropped, and the engine hears of it.
            ConnectionEvent::DialUpgradeError(_) => drop(self.opening.pop_front()),
            _ => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if let Some(end) = self.wanted.pop_front() {
            self.opening.push_back(end);
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.links.retain_mut(|link| link.poll(cx).is_pending());
        Poll::Pending
    }
}
