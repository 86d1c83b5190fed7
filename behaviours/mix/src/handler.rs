//! The packet streams of one connection: one long-lived stream each way, packets of fixed size one after the other, no framing.
//!
//! Reading fills packet buffers straight from the stream and hands full batches to the workers' queue; when that is full, reading
//! stops and the peer's flow control holds it back. Writing copies what waits in the link's queue into one buffer, so that many
//! packets share a write.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use fog_base::DropReason;
use fog_sphinx::PACKET_LEN;
use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    Stream,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use crate::{
    core::{PacketBuf, relay::Arrival},
    link_protocol::LinkProtocol,
    runtime::{
        buffers::Buffers,
        ingress::{BATCH, Ingress},
        links::Link,
        now,
        stats::Stats,
    },
};

/// Packets in one write: just under the 64 KiB of a Noise message.
const WRITE_BATCH: usize = 27;
/// Batches that one poll writes before it reads.
const WRITE_BUDGET: usize = 16;
/// Batches that one poll reads before other connections get their turn.
const READ_BUDGET: usize = 8;
/// A peer may have this many streams to us at once: a new one while the old one closes.
const MAX_INBOUND: usize = 2;
/// A connection without packets for this long needs not be kept for them.
const IDLE: Duration = Duration::from_secs(300);
/// A peer that is no relay and exceeds its rate by this many packets in a row is disconnected.
const FLOOD: u64 = 20_000;
/// Attempts to open a stream before the peer counts as unreachable.
const MAX_OPEN_FAILURES: u32 = 3;

/// What all handlers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The protocol, in all versions that this node speaks.
    pub protocol: LinkProtocol,
    /// Where packets go.
    pub ingress: Arc<Ingress>,
    /// Packet buffers.
    pub buffers: Arc<Buffers>,
    /// Counters.
    pub stats: Arc<Stats>,
}

/// What a handler tells the behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The peer floods us.
    Flooding,
    /// The peer does not take packets.
    Unsupported,
}

#[derive(Debug)]
enum Outbound {
    Closed { failures: u32 },
    Opening { failures: u32 },
    Open { stream: Stream, buffer: Vec<u8>, written: usize },
}

#[derive(Debug)]
struct Inbound {
    stream: Stream,
    packet: Option<PacketBuf>,
    filled: usize,
}

/// The packet streams of one connection.
#[derive(Debug)]
pub struct Handler {
    shared: Shared,
    link: Arc<Link>,
    connection: ConnectionId,
    outbound: Outbound,
    inbound: VecDeque<Inbound>,
    spare: Vec<PacketBuf>,
    outgoing: Vec<PacketBuf>,
    batch: Vec<Arrival>,
    blocked: bool,
    active: Instant,
    reports: VecDeque<Report>,
}

impl Handler {
    /// A handler for a new connection.
    pub fn new(shared: Shared, link: Arc<Link>, connection: ConnectionId) -> Self {
        Self {
            shared,
            link,
            connection,
            outbound: Outbound::Closed { failures: 0 },
            inbound: VecDeque::new(),
            spare: Vec::new(),
            outgoing: Vec::new(),
            batch: Vec::new(),
            blocked: false,
            active: now().mono,
            reports: VecDeque::new(),
        }
    }

    /// Writes what waits. A broken stream loses what was handed to it, counted; the sender's retransmission makes up for it.
    fn poll_write(&mut self, cx: &mut Context<'_>) {
        let Outbound::Open { stream, buffer, written } = &mut self.outbound else { return };
        let mut budget = WRITE_BUDGET;
        let result = loop {
            if *written == buffer.len() {
                if budget == 0 {
                    cx.waker().wake_by_ref();
                    return;
                }
                budget -= 1;
                buffer.clear();
                *written = 0;
                self.link.take(self.connection, WRITE_BATCH, &mut self.outgoing, cx.waker());
                if self.outgoing.is_empty() {
                    break Pin::new(stream).poll_flush(cx).map_ok(|()| 0);
                }
                self.active = now().mono;
                for packet in &self.outgoing {
                    buffer.extend_from_slice(packet.as_slice());
                }
                self.shared.buffers.give(&mut self.outgoing);
            }
            match Pin::new(&mut *stream).poll_write(cx, buffer.get(*written..).unwrap_or_default()) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => *written += n,
                other => break other,
            }
        };
        if let Poll::Ready(Err(error)) = result {
            let lost = (buffer.len() - *written).div_ceil(PACKET_LEN);
            tracing::debug!(%error, lost, "a packet stream has broken");
            self.shared.stats.drops.add(DropReason::NoRoute, lost as u64);
            self.outbound = Outbound::Closed { failures: 1 };
            // Nobody else would look for what still waits.
            cx.waker().wake_by_ref();
        }
    }

    /// Reads packets into batches.
    fn poll_read(&mut self, cx: &mut Context<'_>) {
        if self.blocked && !self.submit(cx) {
            return;
        }
        let mut budget = READ_BUDGET;
        let mut index = 0;
        while let Some(inbound) = self.inbound.get_mut(index) {
            match Self::read_packet(inbound, &mut self.spare, &self.shared.buffers, cx) {
                Poll::Ready(Ok(packet)) => {
                    self.batch.push(Arrival { packet, at: self.active });
                    if self.batch.len() < BATCH {
                        continue;
                    }
                    if !self.submit(cx) {
                        return;
                    }
                    budget -= 1;
                    if budget == 0 {
                        cx.waker().wake_by_ref();
                        return;
                    }
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "a packet stream has ended");
                    if inbound.filled > 0 {
                        self.shared.stats.drops.count(DropReason::Malformed);
                    }
                    self.inbound.remove(index);
                }
                Poll::Pending => index += 1,
            }
        }
        self.submit(cx);
    }

    fn read_packet(
        inbound: &mut Inbound,
        spare: &mut Vec<PacketBuf>,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<PacketBuf>> {
        if spare.is_empty() {
            buffers.take(BATCH / 4, spare);
        }
        let Some(packet) = inbound.packet.take().or_else(|| spare.pop()) else { return Poll::Pending };
        let packet = inbound.packet.insert(packet);
        while inbound.filled < PACKET_LEN {
            let room = packet.get_mut(inbound.filled..).unwrap_or_default();
            match Pin::new(&mut inbound.stream).poll_read(cx, room) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(n)) => inbound.filled += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        inbound.filled = 0;
        Poll::Ready(inbound.packet.take().ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
    }

    /// Hands the batch to the workers; false if there is no room.
    fn submit(&mut self, cx: &mut Context<'_>) -> bool {
        if self.batch.is_empty() {
            return true;
        }
        let now = now().mono;
        if !self.blocked {
            self.active = now;
            self.batch.iter_mut().for_each(|arrival| arrival.at = now);
            let granted = self.link.admit(self.batch.len(), now);
            self.drop_beyond(granted);
            if self.link.is_flooded(FLOOD) {
                self.reports.push_back(Report::Flooding);
                cx.waker().wake_by_ref();
            }
        }
        self.blocked = !self.shared.ingress.offer(&mut self.batch, now, cx.waker());
        if !self.blocked {
            // What the queue has left exceeds the node's rate.
            self.drop_beyond(0);
        }
        !self.blocked
    }

    fn drop_beyond(&mut self, granted: usize) {
        if self.batch.len() > granted {
            let mut excess: Vec<_> = self.batch.drain(granted..).map(|arrival| arrival.packet).collect();
            self.shared.stats.drops.add(DropReason::RateLimited, excess.len() as u64);
            self.shared.buffers.give(&mut excess);
        }
    }

    fn stream_failed(&mut self, unsupported: bool) {
        let Outbound::Opening { failures } = self.outbound else { return };
        if unsupported || failures + 1 >= MAX_OPEN_FAILURES {
            let lost = self.link.unsupported();
            self.shared.stats.drops.add(DropReason::NoRoute, lost as u64);
            self.reports.push_back(Report::Unsupported);
        }
        self.outbound = Outbound::Closed { failures: failures + 1 };
    }
}

impl Drop for Handler {
    /// What was taken from the link or read from the peer and goes no further is counted.
    fn drop(&mut self) {
        let unwritten = match &self.outbound {
            Outbound::Open { buffer, written, .. } => (buffer.len() - *written).div_ceil(PACKET_LEN),
            Outbound::Closed { .. } | Outbound::Opening { .. } => 0,
        };
        self.shared.stats.drops.add(DropReason::NoRoute, unwritten as u64);
        self.shared.stats.drops.add(DropReason::QueueFull, self.batch.len() as u64);
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = std::convert::Infallible;
    type ToBehaviour = Report;
    type InboundProtocol = LinkProtocol;
    type OutboundProtocol = LinkProtocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(self.shared.protocol.clone(), ())
    }

    fn connection_keep_alive(&self) -> bool {
        now().mono.saturating_duration_since(self.active) < IDLE
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                if self.inbound.len() >= MAX_INBOUND {
                    self.inbound.pop_front();
                }
                self.inbound.push_back(Inbound { stream, packet: None, filled: 0 });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                self.outbound = Outbound::Open { stream, buffer: Vec::new(), written: 0 };
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.stream_failed(matches!(error, StreamUpgradeError::NegotiationFailed));
            }
            _ => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Report>> {
        if let Some(report) = self.reports.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        if let Outbound::Closed { failures } = self.outbound
            && self.link.wants(self.connection, cx.waker())
        {
            self.outbound = Outbound::Opening { failures };
            let protocol = SubstreamProtocol::new(self.shared.protocol.clone(), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.poll_write(cx);
        self.poll_read(cx);
        Poll::Pending
    }
}
