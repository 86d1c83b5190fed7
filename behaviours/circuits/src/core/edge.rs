//! One end of a circuit: the streams, messages and acknowledgements that it exchanges with the other end.
//!
//! The client has an edge with the last hop of a circuit, a relay has one with the client, and a service has one with the client at
//! the other end of a virtual hop. Frames are packed into payloads when the link has room for a cell, not before: what waits, waits
//! in the streams, where flow control sees it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::{
    cell::PAYLOAD_LEN,
    congestion::{Congestion, SENDME_EVERY},
    crypto::layer::CellTag,
    stream::{INITIAL_WINDOW, Stream},
    types::FIRST_STREAM,
};
use crate::wire::{EndReason, Extend, FRAME_HEAD_LEN, Frame, Frames, StreamId, Target};

/// Streams of one circuit at a time.
pub const MAX_STREAMS: usize = 1024;
/// The longest message.
pub const MAX_MESSAGE: usize = 32 * 1024;
/// Messages that wait to be sent.
pub const MAX_MESSAGES: usize = 64;
/// The most early data of a stream: it is sent before there is any answer.
pub const MAX_EARLY: usize = 32 * 1024;
/// Ends of streams, answers and the like that wait to be sent.
const MAX_CONTROL: usize = 4 * MAX_STREAMS;
/// What all streams of a circuit may hold for their readers, beyond the first window of each.
const MAX_GROWTH: u64 = 32 * 1024 * 1024;
/// Whoever writes to a stream is told when less than this waits.
pub const LOW_WATER: usize = 32 * 1024;
/// It is not worth a frame to send less of a stream in the rest of a payload.
const WORTH: usize = FRAME_HEAD_LEN + 32;

/// The other end broke the rules: the circuit must close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other end broke the rules")]
pub struct Violation;

/// What came from the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeEvent {
    /// It begins a stream.
    Begin(StreamId, Target),
    /// The stream that was begun is open.
    Connected(StreamId),
    /// Bytes of a stream can be taken.
    Data(StreamId),
    /// The other end has no more bytes for it.
    Fin(StreamId),
    /// The stream is over.
    Ended(StreamId, EndReason),
    /// A message.
    Message(u8, Vec<u8>),
    /// The circuit is to go on to another relay.
    Extend(Extend),
}

/// One end of a circuit.
#[derive(Debug)]
pub struct Edge {
    begins: bool,
    congestion: Congestion,
    /// Counted cells since the last acknowledgement.
    received: u32,
    sendmes: VecDeque<CellTag>,
    /// Whole frames.
    control: VecDeque<Vec<u8>>,
    messages: VecDeque<(u8, Vec<u8>)>,
    /// What was sent of the first message.
    message_at: usize,
    incoming: Option<(u8, Vec<u8>)>,
    streams: BTreeMap<StreamId, Stream>,
    /// The highest number of a stream so far.
    last_stream: u32,
    /// Streams with something else than bytes to say.
    flagged: VecDeque<StreamId>,
    /// Streams whose turn to send bytes comes, each once.
    turns: VecDeque<StreamId>,
    growth: u64,
    /// Streams of which bytes were sent and little is left.
    drained: Vec<StreamId>,
}

impl Edge {
    /// An end; `begins` at the one that begins streams.
    pub fn new(begins: bool) -> Self {
        Self {
            begins,
            congestion: Congestion::default(),
            received: 0,
            sendmes: VecDeque::new(),
            control: VecDeque::new(),
            messages: VecDeque::new(),
            message_at: 0,
            incoming: None,
            streams: BTreeMap::new(),
            last_stream: 0,
            flagged: VecDeque::new(),
            turns: VecDeque::new(),
            growth: 0,
            drained: Vec::new(),
        }
    }

    /// Begins a stream with `early` bytes at once; `None` if there are too many.
    pub fn begin(&mut self, target: Target, early: Vec<u8>) -> Option<StreamId> {
        if !self.begins || self.streams.len() >= MAX_STREAMS || early.len() > MAX_EARLY {
            return None;
        }
        self.last_stream = self.last_stream.checked_add(1)?;
        let id = StreamId(self.last_stream);
        let mut stream = Stream::new();
        stream.unsaid.begin = Some(target);
        stream.write(early);
        self.streams.insert(id, stream);
        self.flag(id);
        self.list(id);
        Some(id)
    }

    /// The first stream, of which the other end has heard already, with the first `said` bytes of `early`: the rest is sent. `None` if there
    /// was one before, or more is said than there is.
    pub fn resume(&mut self, mut early: Vec<u8>, said: usize) -> Option<StreamId> {
        if !self.begins || self.last_stream != 0 || early.len() > MAX_EARLY || said > early.len() {
            return None;
        }
        let id = FIRST_STREAM;
        self.last_stream = id.0;
        let mut stream = Stream::resumed(said);
        stream.write(early.split_off(said));
        self.streams.insert(id, stream);
        self.list(id);
        Some(id)
    }

    /// The first stream, of which this end has heard already, with its first bytes; as if BEGIN and DATA had come.
    pub fn adopt(&mut self, target: Target, early: &[u8]) -> Result<Vec<EdgeEvent>, Violation> {
        let mut events = Vec::new();
        let id = FIRST_STREAM;
        self.handle_begin(id, target, &mut events)?;
        if !early.is_empty() {
            self.handle_stream(id, Frame::Data(id, early), &mut events)?;
        }
        Ok(events)
    }

    /// Tells the other end that the stream it began is open.
    pub fn accept(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.unsaid.is_connected = true;
            self.flag(id);
        }
    }

    /// Ends a stream, both ways, at once.
    pub fn reset(&mut self, id: StreamId, reason: EndReason) {
        if let Some(stream) = self.remove(id)
            && stream.unsaid.begin.is_none()
        {
            self.push_control(&Frame::End(id, reason));
        }
    }

    /// Adds bytes to a stream.
    pub fn write(&mut self, id: StreamId, bytes: Vec<u8>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.write(bytes);
            self.list(id);
        }
    }

    /// Bytes of a stream that wait to be sent; `None` if it is over.
    pub fn unsent(&self, id: StreamId) -> Option<usize> {
        self.streams.get(&id).map(Stream::unsent)
    }

    /// No more bytes are sent on a stream.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.finish();
            self.list(id);
        }
    }

    /// Takes the bytes that came on a stream.
    pub fn take_received(&mut self, id: StreamId) -> Vec<u8> {
        let bytes = self.streams.get_mut(&id).map(Stream::take_received).unwrap_or_default();
        self.remove_if_done(id);
        bytes
    }

    /// So many bytes of those that were taken were read: the other end may send as many more.
    pub fn handle_consumed(&mut self, id: StreamId, count: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.growth += stream.handle_consumed(count, MAX_GROWTH - self.growth);
        if stream.unsaid.credit {
            self.flag(id);
        }
    }

    /// Sends a message; false if it is too long or too many wait.
    pub fn send_message(&mut self, command: u8, body: Vec<u8>) -> bool {
        let is_room = self.messages.len() < MAX_MESSAGES && body.len() <= MAX_MESSAGE;
        if is_room {
            self.messages.push_back((command, body));
        }
        is_room
    }

    /// Whether another message may wait.
    pub fn has_room_for_message(&self) -> bool {
        self.messages.len() < MAX_MESSAGES
    }

    /// Tells the client what the next relay answered.
    pub fn send_extended(&mut self, answer: &[u8]) {
        self.push_control(&Frame::Extended(answer));
    }

    /// Sends a cell of nothing.
    pub fn send_padding(&mut self) {
        self.push_control(&Frame::Drop);
    }

    /// The hop at the other end is another one from now on: what is under way to the old one is not counted any more.
    pub fn handle_new_hop(&mut self) {
        self.congestion = Congestion::default();
        self.received = 0;
        self.sendmes.clear();
        self.incoming = None;
    }

    fn push_control(&mut self, frame: &Frame<'_>) {
        if self.control.len() < MAX_CONTROL {
            let mut bytes = Vec::new();
            frame.append(&mut bytes);
            self.control.push_back(bytes);
        }
    }

    fn flag(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.is_flagged, true)
        {
            self.flagged.push_back(id);
        }
    }

    /// Gives the stream a turn if it has something to send.
    fn list(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.is_ready()
            && !std::mem::replace(&mut stream.is_listed, true)
        {
            self.turns.push_back(id);
        }
    }

    fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.growth = self.growth.saturating_sub(stream.window() - INITIAL_WINDOW);
        Some(stream)
    }

    fn remove_if_done(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| stream.is_done() && stream.held() == 0) {
            self.remove(id);
        }
    }

    /// Whether there is something to send, and it may be sent.
    pub fn is_ready(&self) -> bool {
        let has_free = !self.sendmes.is_empty() || !self.control.is_empty() || !self.flagged.is_empty();
        has_free || (self.congestion.may_send() && (!self.messages.is_empty() || !self.turns.is_empty()))
    }

    /// Whether nothing waits to be sent, now or when the window opens.
    pub fn is_idle(&self) -> bool {
        let has_bytes = !self.messages.is_empty() || !self.turns.is_empty();
        !has_bytes && self.sendmes.is_empty() && self.control.is_empty() && self.flagged.is_empty()
    }

    /// Appends the next payload to `to`, which is empty, and says whether the cell counts; `None` if there is nothing to send.
    /// If it counts, the tag of the cell goes to [`Edge::handle_sent`].
    pub fn next_payload(&mut self, to: &mut Vec<u8>) -> Option<bool> {
        if let Some(tag) = self.sendmes.pop_front() {
            Frame::Sendme(tag).append(to);
        }
        while self.control.front().is_some_and(|frame| to.len() + frame.len() <= PAYLOAD_LEN) {
            to.extend(self.control.pop_front().unwrap_or_default());
        }
        let is_flushed = self.control.is_empty() && self.append_flags(to);
        let mut is_counted = false;
        if is_flushed && self.congestion.may_send() {
            is_counted = self.append_messages(to);
            is_counted |= self.append_bytes(to);
        }
        (!to.is_empty()).then_some(is_counted)
    }

    /// True if all flags are said.
    fn append_flags(&mut self, to: &mut Vec<u8>) -> bool {
        while let Some(id) = self.flagged.front().copied() {
            // The longest: BEGIN, CONNECTED and CREDIT.
            if to.len() + 3 * FRAME_HEAD_LEN + 3 + crate::wire::MAX_HOST + 8 > PAYLOAD_LEN {
                return false;
            }
            self.flagged.pop_front();
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.is_flagged = false;
            if let Some(target) = stream.unsaid.begin.take() {
                Frame::Begin(id, target).append(to);
            }
            if std::mem::take(&mut stream.unsaid.is_connected) {
                Frame::Connected(id).append(to);
            }
            if std::mem::take(&mut stream.unsaid.credit) {
                Frame::Credit(id, stream.granted()).append(to);
            }
        }
        true
    }

    fn append_messages(&mut self, to: &mut Vec<u8>) -> bool {
        let mut is_any = false;
        while let Some((command, body)) = self.messages.front() {
            let room = PAYLOAD_LEN.saturating_sub(to.len() + FRAME_HEAD_LEN);
            let rest = body.get(self.message_at..).unwrap_or_default();
            if room < rest.len().min(WORTH) || PAYLOAD_LEN - to.len() < FRAME_HEAD_LEN {
                break;
            }
            let (now, later) = rest.split_at(rest.len().min(room));
            Frame::Message(*command, !later.is_empty(), now).append(to);
            is_any = true;
            if later.is_empty() {
                self.messages.pop_front();
                self.message_at = 0;
            } else {
                self.message_at += now.len();
                break;
            }
        }
        is_any
    }

    fn append_bytes(&mut self, to: &mut Vec<u8>) -> bool {
        let mut is_any = false;
        while to.len() + WORTH <= PAYLOAD_LEN {
            let Some(id) = self.turns.pop_front() else { break };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.is_listed = false;
            let most = PAYLOAD_LEN - to.len() - FRAME_HEAD_LEN;
            stream.send(most, |bytes| {
                if !bytes.is_empty() {
                    Frame::Data(id, bytes).append(to);
                    is_any = true;
                }
            });
            if stream.unsent() < LOW_WATER {
                self.drained.push(id);
            }
            if stream.is_to_finish() && to.len() + FRAME_HEAD_LEN <= PAYLOAD_LEN {
                Frame::Fin(id).append(to);
                stream.fin_sent = true;
                is_any = true;
                self.remove_if_done(id);
            } else {
                self.list(id);
            }
        }
        is_any
    }

    /// A counted cell left with this tag.
    pub fn handle_sent(&mut self, tag: CellTag, now: Instant) {
        self.congestion.handle_sent(tag, now);
    }

    /// Takes the payload of a cell that came with this tag.
    pub fn handle_payload(
        &mut self,
        payload: &[u8],
        tag: CellTag,
        now: Instant,
        events: &mut Vec<EdgeEvent>,
    ) -> Result<(), Violation> {
        let mut is_counted = false;
        for frame in Frames::new(payload) {
            let frame = frame.map_err(|_| Violation)?;
            is_counted |= matches!(frame, Frame::Data(..) | Frame::Fin(..) | Frame::Message(..));
            self.handle_frame(frame, now, events)?;
        }
        if is_counted {
            self.received += 1;
            if self.received == SENDME_EVERY {
                self.received = 0;
                self.sendmes.push_back(tag);
            }
        }
        // Somebody who never reads our acknowledgements is not served for ever.
        let is_bounded = self.sendmes.len() <= MAX_CONTROL && self.control.len() < MAX_CONTROL;
        is_bounded.then_some(()).ok_or(Violation)
    }

    fn handle_frame(&mut self, frame: Frame<'_>, now: Instant, events: &mut Vec<EdgeEvent>) -> Result<(), Violation> {
        match frame {
            Frame::Sendme(tag) => self.congestion.handle_sendme(&tag, now).map_err(|_| Violation),
            Frame::Message(command, is_more, bytes) => self.handle_fragment(command, is_more, bytes, events),
            Frame::Extend(extend) if !self.begins => {
                events.push(EdgeEvent::Extend(extend));
                Ok(())
            }
            Frame::Begin(id, target) => self.handle_begin(id, target, events),
            Frame::Connected(id) | Frame::Data(id, _) | Frame::Fin(id) | Frame::End(id, _) | Frame::Credit(id, _)
                if id.0 <= self.last_stream =>
            {
                // A stream that is over on this side may still be told of.
                if self.streams.contains_key(&id) { self.handle_stream(id, frame, events) } else { Ok(()) }
            }
            Frame::Drop => Ok(()),
            _ => Err(Violation),
        }
    }

    fn handle_begin(&mut self, id: StreamId, target: Target, events: &mut Vec<EdgeEvent>) -> Result<(), Violation> {
        if self.begins || id.0 <= self.last_stream {
            return Err(Violation);
        }
        self.last_stream = id.0;
        if self.streams.len() >= MAX_STREAMS {
            self.push_control(&Frame::End(id, EndReason::Busy));
            return Ok(());
        }
        self.streams.insert(id, Stream::new());
        events.push(EdgeEvent::Begin(id, target));
        Ok(())
    }

    fn handle_stream(&mut self, id: StreamId, frame: Frame<'_>, events: &mut Vec<EdgeEvent>) -> Result<(), Violation> {
        let stream = self.streams.get_mut(&id).ok_or(Violation)?;
        match frame {
            Frame::Connected(_) if self.begins => events.push(EdgeEvent::Connected(id)),
            Frame::Data(_, bytes) => {
                stream.handle_data(bytes).map_err(|_| Violation)?;
                if events.last() != Some(&EdgeEvent::Data(id)) {
                    events.push(EdgeEvent::Data(id));
                }
            }
            Frame::Fin(_) => {
                if std::mem::replace(&mut stream.fin_received, true) {
                    return Err(Violation);
                }
                events.push(EdgeEvent::Fin(id));
                self.remove_if_done(id);
            }
            Frame::End(_, reason) => {
                self.remove(id);
                events.push(EdgeEvent::Ended(id, reason));
            }
            Frame::Credit(_, offset) => {
                stream.handle_credit(offset);
                self.list(id);
            }
            _ => return Err(Violation),
        }
        Ok(())
    }

    fn handle_fragment(
        &mut self,
        command: u8,
        is_more: bool,
        bytes: &[u8],
        events: &mut Vec<EdgeEvent>,
    ) -> Result<(), Violation> {
        let (begun, mut body) = self.incoming.take().unwrap_or((command, Vec::new()));
        if begun != command || body.len() + bytes.len() > MAX_MESSAGE {
            return Err(Violation);
        }
        body.extend_from_slice(bytes);
        if is_more {
            self.incoming = Some((command, body));
        } else {
            events.push(EdgeEvent::Message(command, body));
        }
        Ok(())
    }

    /// Streams that there is room to write to, since the last time.
    pub fn take_drained(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.drained)
    }

    /// The streams that are not over.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.streams.keys().copied()
    }

    /// Bytes that wait here, for the other end or for a reader.
    pub fn held_bytes(&self) -> usize {
        let messages: usize = self.messages.iter().map(|(_, body)| body.len()).sum();
        messages + self.streams.values().map(Stream::held).sum::<usize>()
    }

    /// Acknowledges what did not come.
    #[cfg(test)]
    pub(super) fn push_sendme(&mut self, tag: CellTag) {
        self.sendmes.push_back(tag);
    }

    /// The sender's state.
    pub fn congestion(&self) -> &Congestion {
        &self.congestion
    }
}

#[cfg(test)]
#[path = "edge_tests.rs"]
mod tests;
