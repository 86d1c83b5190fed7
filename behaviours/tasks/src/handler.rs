//! The streams of one connection: one that this node writes, one that the peer writes. Bytes are cut into frames here; what they say is
//! the cores'.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use fog_base::NodeId;
use futures::{AsyncRead, AsyncWrite, channel::mpsc};
use libp2p::{
    PeerId, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use crate::streams::{Arrived, MAX_FRAME, Streams};

/// Bytes that are read or written at once.
const CHUNK: usize = 64 * 1024;
/// Reads and writes of one poll, before other connections get their turn.
const BUDGET: usize = 16;
const LENGTH: usize = 4;

/// What this node writes.
#[derive(Debug)]
struct Writing {
    stream: Stream,
    bytes: Vec<u8>,
    written: usize,
    is_flushed: bool,
}

impl Writing {
    fn poll(&mut self, streams: &Streams, peer: &PeerId, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.poll_write(streams, peer, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            _ => Poll::Pending,
        }
    }

    fn poll_write(&mut self, streams: &Streams, peer: &PeerId, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..BUDGET {
            if self.written == self.bytes.len() {
                self.bytes.clear();
                self.written = 0;
                if !streams.poll_frames(peer, &mut self.bytes, CHUNK, cx) {
                    if !self.is_flushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
                        self.is_flushed = true;
                    }
                    return Poll::Pending;
                }
            }
            let rest = self.bytes.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(cx, rest)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => self.written += written,
                Poll::Pending => return Poll::Pending,
            }
            self.is_flushed = false;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What the peer writes.
#[derive(Debug)]
struct Reading {
    stream: Stream,
    bytes: Vec<u8>,
}

impl Reading {
    /// Ready when the stream is over, or broke the rules.
    fn poll(&mut self, node: NodeId, arrived: &mut mpsc::Sender<Arrived>, cx: &mut Context<'_>) -> Poll<()> {
        let mut chunk = [0; CHUNK];
        for _ in 0..BUDGET {
            loop {
                match arrived.poll_ready(cx) {
                    Poll::Pending => return Poll::Pending,
                    // The node stops.
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {}
                }
                match self.cut() {
                    Ok(None) => break,
                    Ok(Some(frame)) => drop(arrived.start_send(Arrived::Frame(node, frame))),
                    Err(()) => {
                        tracing::debug!("a peer sent a frame that is too long or empty");
                        return Poll::Ready(());
                    }
                }
            }
            match Pin::new(&mut self.stream).poll_read(cx, &mut chunk) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => self.bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The next whole frame.
    fn cut(&mut self) -> Result<Option<Vec<u8>>, ()> {
        let Some(length) = self.bytes.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > MAX_FRAME {
            return Err(());
        }
        let Some(frame) = self.bytes.get(LENGTH..LENGTH + length) else { return Ok(None) };
        let frame = frame.to_vec();
        self.bytes.drain(..LENGTH + length);
        Ok(Some(frame))
    }
}

/// The streams of one connection.
#[derive(Debug)]
pub struct Handler {
    protocol: StreamProtocol,
    peer: PeerId,
    node: NodeId,
    streams: Streams,
    arrived: mpsc::Sender<Arrived>,
    writing: Option<Writing>,
    reading: Option<Reading>,
    is_wanted: bool,
    is_opening: bool,
    failed: Option<Failed>,
}

/// No stream could be opened: the peer does not speak this protocol, or the connection is broken.
#[derive(Debug)]
pub struct Failed;

impl Handler {
    pub(crate) fn new(
        protocol: StreamProtocol,
        (peer, node): (PeerId, NodeId),
        streams: Streams,
        arrived: mpsc::Sender<Arrived>,
    ) -> Self {
        let (writing, reading, failed) = (None, None, None);
        Self { protocol, peer, node, streams, arrived, writing, reading, is_wanted: false, is_opening: false, failed }
    }
}

impl ConnectionHandler for Handler {
    /// Something waits for the peer, and this connection is to carry it.
    type FromBehaviour = ();
    type ToBehaviour = Failed;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.is_wanted || self.is_opening || self.writing.is_some() || self.reading.is_some()
    }

    fn on_behaviour_event(&mut self, (): Self::FromBehaviour) {
        self.is_wanted = self.writing.is_none() && !self.is_opening;
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            // Another one takes the place of the first: the peer lost that.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.reading = Some(Reading { stream, bytes: Vec::new() });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                self.is_opening = false;
                self.writing = Some(Writing { stream, bytes: Vec::new(), written: 0, is_flushed: true });
            }
            ConnectionEvent::DialUpgradeError(_) => {
                self.is_opening = false;
                self.failed = Some(Failed);
            }
            _ => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if let Some(failed) = self.failed.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(failed));
        }
        if std::mem::take(&mut self.is_wanted) {
            self.is_opening = true;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        if let Some(writing) = &mut self.writing
            && let Poll::Ready(error) = writing.poll(&self.streams, &self.peer, cx)
        {
            tracing::debug!(%error, "a stream of tasks has broken");
            self.writing = None;
            self.streams.detach(&self.peer);
        }
        if let Some(reading) = &mut self.reading
            && reading.poll(self.node, &mut self.arrived, cx).is_ready()
        {
            self.reading = None;
        }
        Poll::Pending
    }
}
