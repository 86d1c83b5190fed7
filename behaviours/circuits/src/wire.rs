//! The frames in the payload of a RELAY cell, and what their bodies are.
//!
//! A payload is a row of frames: command (1 byte), stream (4, big-endian, 0 where there is none), length (2), body. A zero in the
//! place of a command ends the row; what follows it has no meaning. README "Frames" lists the commands.

use fog_base::NodeId;

use crate::core::{
    cell::{PAYLOAD_LEN, TAG_LEN},
    crypto::handshake::{ANSWER_LEN, MAX_EXTRA, REQUEST_LEN},
};

/// Command, stream and length of a frame.
pub const FRAME_HEAD_LEN: usize = 7;
/// The longest body of a frame.
pub const MAX_FRAME: usize = PAYLOAD_LEN - FRAME_HEAD_LEN;
/// Commands of messages.
pub const MESSAGES: std::ops::RangeInclusive<u8> = 64..=127;
/// Added to the command of a message of which more follows.
const MORE: u8 = 0x80;
/// The most addresses of the next relay, and their bytes altogether.
pub const MAX_HINTS: usize = 8;
/// Bytes of all addresses, each with one for its length.
pub const MAX_HINT_BYTES: usize = 400;
/// The longest name of a host.
pub const MAX_HOST: usize = 255;

const _: () = assert!(32 + 1 + MAX_HINT_BYTES + REQUEST_LEN + MAX_EXTRA <= MAX_FRAME);
const _: () = assert!(ANSWER_LEN + MAX_EXTRA <= MAX_FRAME);

/// Not what this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid frame")]
pub struct Malformed;

/// A stream of one circuit; the side that begins it chooses the number, ascending from 1 and never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// Why a stream ended before both sides were done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// No more is said.
    Other,
    /// Not allowed by the exit's policy, or no such port of a service.
    Refused,
    /// The host's name was not found.
    NotFound,
    /// The host did not answer, or refused the connection.
    Unreachable,
    /// It took too long.
    Timeout,
    /// Too many streams, or too much memory.
    Busy,
    /// The connection broke.
    Reset,
    /// The circuit closed; only told on the own host.
    CircuitClosed,
}

impl EndReason {
    const WIRE: [Self; 7] =
        [Self::Other, Self::Refused, Self::NotFound, Self::Unreachable, Self::Timeout, Self::Busy, Self::Reset];

    fn byte(self) -> u8 {
        let at = Self::WIRE.iter().position(|reason| *reason == self).unwrap_or(0);
        u8::try_from(at).unwrap_or(0)
    }

    /// A number that a later version knows is `Other`.
    fn from_byte(byte: u8) -> Self {
        Self::WIRE.get(usize::from(byte)).copied().unwrap_or(Self::Other)
    }
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A host of the internet, through an exit: a name or an address as text, and a port. The exit resolves it.
    Host(String, u16),
    /// A port of the service at the other end of the circuit.
    Service(u16),
}

impl Target {
    fn append(&self, to: &mut Vec<u8>) {
        let (kind, port, host) = match self {
            Self::Host(host, port) => (0, port, host.as_str()),
            Self::Service(port) => (1, port, ""),
        };
        to.push(kind);
        to.extend(port.to_be_bytes());
        to.extend(host.bytes().take(MAX_HOST));
    }

    fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let ([kind, a, b], host) = body.split_first_chunk().ok_or(Malformed)?;
        let port = u16::from_be_bytes([*a, *b]);
        match kind {
            0 if !host.is_empty() && host.len() <= MAX_HOST => {
                let host = std::str::from_utf8(host).map_err(|_| Malformed)?;
                let is_plain = host.chars().all(|c| c.is_ascii_graphic());
                if is_plain { Ok(Self::Host(host.to_owned(), port)) } else { Err(Malformed) }
            }
            1 if host.is_empty() => Ok(Self::Service(port)),
            _ => Err(Malformed),
        }
    }
}

/// What a circuit's next hop is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extend {
    /// The next relay.
    pub next: NodeId,
    /// Where it may be: multiaddresses in binary, at most [`MAX_HINTS`].
    pub hints: Vec<Vec<u8>>,
    /// The handshake for it.
    pub request: Vec<u8>,
}

impl Extend {
    fn append(&self, to: &mut Vec<u8>) {
        to.extend(self.next.0);
        let mut left = MAX_HINT_BYTES;
        let fits = |hint: &&Vec<u8>| {
            let is_short = hint.len() < left && hint.len() < 256;
            left -= if is_short { hint.len() + 1 } else { 0 };
            is_short
        };
        let hints: Vec<_> = self.hints.iter().filter(fits).take(MAX_HINTS).collect();
        to.push(u8::try_from(hints.len()).unwrap_or(0));
        for hint in hints {
            to.push(u8::try_from(hint.len()).unwrap_or(0));
            to.extend(hint);
        }
        to.extend(&self.request);
    }

    fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let (next, body) = body.split_first_chunk().ok_or(Malformed)?;
        let (count, mut body) = body.split_first().ok_or(Malformed)?;
        if usize::from(*count) > MAX_HINTS {
            return Err(Malformed);
        }
        let mut hints = Vec::new();
        for _ in 0..*count {
            let (len, rest) = body.split_first().ok_or(Malformed)?;
            let (hint, rest) = rest.split_at_checked(usize::from(*len)).ok_or(Malformed)?;
            hints.push(hint.to_vec());
            body = rest;
        }
        let is_handshake = (REQUEST_LEN..=REQUEST_LEN + MAX_EXTRA).contains(&body.len());
        is_handshake.then(|| Self { next: NodeId(*next), hints, request: body.to_vec() }).ok_or(Malformed)
    }
}

/// A frame as it is read; data and messages stay where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Go on to another relay.
    Extend(Extend),
    /// The answer of that relay.
    Extended(&'a [u8]),
    /// A new stream.
    Begin(StreamId, Target),
    /// It is open.
    Connected(StreamId),
    /// Its bytes.
    Data(StreamId, &'a [u8]),
    /// Its sender has no more bytes.
    Fin(StreamId),
    /// It is over, both ways.
    End(StreamId, EndReason),
    /// Its sender may send up to this offset, counted from its first byte.
    Credit(StreamId, u64),
    /// The tag of the cell up to which everything came.
    Sendme([u8; TAG_LEN]),
    /// Nothing.
    Drop,
    /// A part of a message: its command, whether more follows, and bytes.
    Message(u8, bool, &'a [u8]),
}

impl Frame<'_> {
    fn head(&self) -> (u8, u32) {
        match self {
            Self::Extend(_) => (1, 0),
            Self::Extended(_) => (2, 0),
            Self::Begin(stream, _) => (3, stream.0),
            Self::Connected(stream) => (4, stream.0),
            Self::Data(stream, _) => (5, stream.0),
            Self::Fin(stream) => (6, stream.0),
            Self::End(stream, _) => (7, stream.0),
            Self::Credit(stream, _) => (8, stream.0),
            Self::Sendme(_) => (9, 0),
            Self::Drop => (10, 0),
            Self::Message(command, is_more, _) => (command | if *is_more { MORE } else { 0 }, 0),
        }
    }

    /// Adds the frame to a payload.
    pub fn append(&self, to: &mut Vec<u8>) {
        let (command, stream) = self.head();
        to.push(command);
        to.extend(stream.to_be_bytes());
        let at = to.len();
        to.extend([0; 2]);
        match self {
            Self::Extend(extend) => extend.append(to),
            Self::Extended(bytes) | Self::Data(_, bytes) | Self::Message(_, _, bytes) => to.extend(*bytes),
            Self::Begin(_, target) => target.append(to),
            Self::End(_, reason) => to.push(reason.byte()),
            Self::Credit(_, offset) => to.extend(offset.to_be_bytes()),
            Self::Sendme(tag) => to.extend(tag),
            Self::Connected(_) | Self::Fin(_) | Self::Drop => {}
        }
        let len = u16::try_from(to.len() - at - 2).unwrap_or(u16::MAX);
        to.iter_mut().skip(at).zip(len.to_be_bytes()).for_each(|(to, from)| *to = from);
    }
}

/// The frames of a payload.
#[derive(Debug, Clone)]
pub struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    /// Reads a payload.
    pub fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    fn frame(&mut self) -> Result<Option<Frame<'a>>, Malformed> {
        let Some(([command, a, b, c, d, e, f], rest)) = self.0.split_first_chunk::<FRAME_HEAD_LEN>() else {
            // Too short for a frame: only zeros may be left.
            let is_over = self.0.iter().all(|byte| *byte == 0);
            self.0 = &[];
            return is_over.then_some(None).ok_or(Malformed);
        };
        if *command == 0 {
            return Ok(None);
        }
        let stream = u32::from_be_bytes([*a, *b, *c, *d]);
        let (body, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*e, *f]))).ok_or(Malformed)?;
        self.0 = rest;
        decode(*command, stream, body).map(Some)
    }
}

fn decode(command: u8, stream: u32, body: &[u8]) -> Result<Frame<'_>, Malformed> {
    let id = StreamId(stream);
    if (stream == 0) == (3..=8).contains(&command) {
        return Err(Malformed);
    }
    Ok(match (command, body) {
        (1, _) => Frame::Extend(Extend::decode(body)?),
        (2, _) => Frame::Extended(body),
        (3, _) => Frame::Begin(id, Target::decode(body)?),
        (4, []) => Frame::Connected(id),
        (5, [_, ..]) => Frame::Data(id, body),
        (6, []) => Frame::Fin(id),
        (7, [reason]) => Frame::End(id, EndReason::from_byte(*reason)),
        (8, _) => Frame::Credit(id, u64::from_be_bytes(body.try_into().map_err(|_| Malformed)?)),
        (9, _) => Frame::Sendme(body.try_into().map_err(|_| Malformed)?),
        (10, _) => Frame::Drop,
        _ if MESSAGES.contains(&(command & !MORE)) => Frame::Message(command & !MORE, command & MORE != 0, body),
        _ => return Err(Malformed),
    })
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.frame().transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> Vec<Frame<'static>> {
        let extend =
            Extend { next: NodeId([1; 32]), hints: vec![vec![4, 127, 0, 0, 1], vec![]], request: vec![7; REQUEST_LEN] };
        vec![
            Frame::Begin(StreamId(1), Target::Host("example.com".into(), 443)),
            Frame::Begin(StreamId(2), Target::Service(80)),
            Frame::Connected(StreamId(3)),
            Frame::Data(StreamId(4), b"data"),
            Frame::Fin(StreamId(5)),
            Frame::End(StreamId(6), EndReason::Timeout),
            Frame::Credit(StreamId(7), 1 << 40),
            Frame::Sendme([8; 16]),
            Frame::Drop,
            Frame::Message(64, true, b"a"),
            Frame::Message(127, false, b""),
            Frame::Extend(extend),
        ]
    }

    #[test]
    fn frames_read_back() {
        let mut payload = Vec::new();
        frames().iter().for_each(|frame| frame.append(&mut payload));
        assert!(payload.len() <= PAYLOAD_LEN);
        payload.resize(PAYLOAD_LEN, 0);
        let read: Result<Vec<_>, _> = Frames::new(&payload).collect();
        assert_eq!(read, Ok(frames()));
    }

    #[test]
    fn what_is_out_of_range_is_malformed() {
        let frame = |command, stream: u32, body: &[u8]| {
            let mut bytes = vec![command];
            bytes.extend(stream.to_be_bytes());
            bytes.extend((body.len() as u16).to_be_bytes());
            bytes.extend(body);
            Frames::new(&bytes).next().unwrap().is_err()
        };
        let bad: [(u8, u32, &[u8]); 12] = [
            (3, 0, &[1, 0, 80]),
            (3, 1, &[0, 0, 80]),
            (3, 1, &[2, 0, 80]),
            (3, 1, b"\0\0\x50a b"),
            (4, 1, &[0]),
            (5, 1, &[]),
            (8, 1, &[0; 7]),
            (9, 0, &[0; 15]),
            (9, 1, &[0; 16]),
            (11, 0, &[]),
            (63 | MORE, 0, &[]),
            (64, 1, &[]),
        ];
        for (command, stream, body) in bad {
            assert!(frame(command, stream, body), "{command} {stream} {body:?}");
        }
        assert!(Frames::new(&[4, 0, 0]).next().unwrap().is_err());
        assert!(Frames::new(&[5, 0, 0, 0, 1, 0, 9, 1]).next().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn any_payload_is_read_to_an_end(payload in prop::collection::vec(any::<u8>(), 0..PAYLOAD_LEN)) {
            let mut read = Vec::new();
            for frame in Frames::new(&payload) {
                let Ok(frame) = frame else { break };
                frame.append(&mut read);
            }
            prop_assert!(payload.starts_with(&read) || read.len() <= payload.len());
        }

        #[test]
        fn hints_stay_within_their_bounds(hints in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let extend = Extend { next: NodeId([1; 32]), hints, request: vec![7; REQUEST_LEN + MAX_EXTRA] };
            let mut payload = Vec::new();
            Frame::Extend(extend).append(&mut payload);
            prop_assert!(payload.len() <= PAYLOAD_LEN);
            prop_assert!(matches!(Frames::new(&payload).next(), Some(Ok(Frame::Extend(_)))));
        }
    }
}
