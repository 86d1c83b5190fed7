//! One stream at one end of a circuit: bytes that wait to be sent, and what may be received.
//!
//! Flow control is by credit in bytes, as in QUIC (RFC 9000 §4): a side may send up to an offset that the other has granted, and the
//! other grants no more than it has room for. The room grows while the bytes are consumed as they come.

use std::collections::VecDeque;

use crate::wire::Target;

/// What may be sent on a stream before any credit: both sides know it.
pub(super) const INITIAL_WINDOW: u64 = 128 * 1024;
/// The most that waits to be read.
pub(super) const MAX_WINDOW: u64 = 4 * 1024 * 1024;

/// Bytes that wait to be sent.
#[derive(Debug, Default)]
struct Outgoing {
    chunks: VecDeque<Vec<u8>>,
    /// What is sent of the first chunk.
    at: usize,
    len: usize,
}

impl Outgoing {
    fn push(&mut self, bytes: Vec<u8>) {
        self.len += bytes.len();
        if !bytes.is_empty() {
            self.chunks.push_back(bytes);
        }
    }

    /// Takes at most `most` bytes, of one chunk.
    fn take<R>(&mut self, most: usize, with: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let chunk = self.chunks.front()?;
        let rest = chunk.get(self.at..)?;
        let (now, later) = rest.split_at(rest.len().min(most));
        let result = with(now);
        self.len -= now.len();
        if later.is_empty() {
            self.chunks.pop_front();
            self.at = 0;
        } else {
            self.at += now.len();
        }
        Some(result)
    }
}

/// What this side has yet to say of the stream, apart from its bytes.
#[derive(Debug, Default)]
pub(super) struct Unsaid {
    pub(super) begin: Option<Target>,
    pub(super) is_connected: bool,
    pub(super) credit: bool,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    outgoing: Outgoing,
    sent: u64,
    credit: u64,
    wants_fin: bool,
    pub(super) fin_sent: bool,
    pub(super) unsaid: Unsaid,
    incoming: Vec<u8>,
    received: u64,
    consumed: u64,
    granted: u64,
    window: u64,
    /// Consumed since the window grew.
    since_growth: u64,
    pub(super) fin_received: bool,
    pub(super) is_listed: bool,
    pub(super) is_flagged: bool,
}

/// The other side broke the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation;

impl Stream {
    pub(super) fn new() -> Self {
        Self {
            outgoing: Outgoing::default(),
            sent: 0,
            credit: INITIAL_WINDOW,
            wants_fin: false,
            fin_sent: false,
            unsaid: Unsaid::default(),
            incoming: Vec::new(),
            received: 0,
            consumed: 0,
            granted: INITIAL_WINDOW,
            window: INITIAL_WINDOW,
            since_growth: 0,
            fin_received: false,
            is_listed: false,
            is_flagged: false,
        }
    }

    /// One whose first `said` bytes went another way.
    pub(super) fn resumed(said: usize) -> Self {
        Self { sent: said as u64, ..Self::new() }
    }

    /// Adds bytes to what is sent.
    pub(super) fn write(&mut self, bytes: Vec<u8>) {
        if !self.wants_fin {
            self.outgoing.push(bytes);
        }
    }

    /// No more bytes come.
    pub(super) fn finish(&mut self) {
        self.wants_fin = true;
    }

    /// Whether bytes, or their end, may be sent now.
    pub(super) fn is_ready(&self) -> bool {
        let has_room = self.sent < self.credit;
        (self.outgoing.len > 0 && has_room) || (self.outgoing.len == 0 && self.wants_fin && !self.fin_sent)
    }

    /// Hands at most `most` bytes to `with`.
    pub(super) fn send(&mut self, most: usize, with: impl FnOnce(&[u8])) {
        let room = usize::try_from(self.credit.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        let mut count = 0;
        self.outgoing.take(most.min(room), |bytes| {
            count = bytes.len();
            with(bytes);
        });
        self.sent += count as u64;
    }

    /// Whether everything was sent and only the end is left to say.
    pub(super) fn is_to_finish(&self) -> bool {
        self.outgoing.len == 0 && self.wants_fin && !self.fin_sent
    }

    /// The other side grants bytes up to `offset`; an older grant changes nothing.
    pub(super) fn handle_credit(&mut self, offset: u64) {
        self.credit = self.credit.max(offset);
    }

    /// Bytes came.
    pub(super) fn handle_data(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.received += bytes.len() as u64;
        if self.fin_received || self.received > self.granted {
            return Err(Violation);
        }
        self.incoming.extend_from_slice(bytes);
        Ok(())
    }

    /// What came and was not taken yet.
    pub(super) fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.incoming)
    }

    /// Whoever reads the stream has read `count` bytes more. Room may grow by at most `growth`; says by how much it did.
    pub(super) fn handle_consumed(&mut self, count: u64, growth: u64) -> u64 {
        self.consumed = (self.consumed + count).min(self.received);
        self.since_growth += count;
        let mut grown = 0;
        if self.since_growth >= self.window && !self.fin_received {
            self.since_growth = 0;
            grown = self.window.min(growth).min(MAX_WINDOW - self.window);
            self.window += grown;
        }
        // Half a window is consumed: then it is worth a frame.
        let next = self.consumed + self.window;
        if next >= self.granted + self.window / 2 && !self.fin_received {
            self.granted = next;
            self.unsaid.credit = true;
        }
        grown
    }

    /// Up to where the other side may send.
    pub(super) fn granted(&self) -> u64 {
        self.granted
    }

    /// What it may hold for its reader.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Bytes that wait to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.outgoing.len
    }

    /// Bytes that it holds.
    pub(super) fn held(&self) -> usize {
        self.outgoing.len + self.incoming.len()
    }

    /// Whether both sides are done.
    pub(super) fn is_done(&self) -> bool {
        self.fin_sent && self.fin_received
    }
}
