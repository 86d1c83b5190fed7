//! What is sealed in an exchange: a request, padded to KiB, and an answer, padded to whole pieces.

use zeroize::Zeroizing;

use crate::{
    core::{
        bytes::Reader,
        handshake::{HandshakeError, Initiator, SessionKeys},
        kdf::{Once, TAG},
        pow::Work,
    },
    wire::{Reply, mixed::PIECE_DATA},
};

/// Bytes of a request.
pub const MAX_REQUEST: usize = 64 * 1024;
/// Bytes of an answer.
pub const MAX_ANSWER: usize = 256 * 1024;

const VERSION: u8 = 1;
const HEAD: usize = 1 + 16 + 1 + Work::BYTES + 1 + 2 + 4;
const STEP: usize = 1024;
const HALF_CLOSED: u8 = 1;
const ANSWER: &[u8] = b"fog services mixed answer v1";
/// Y and the proof, before what is sealed.
const REPLY: usize = 64;

/// One request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Random; by it the service knows a request that comes through another point too.
    pub nonce: [u8; 16],
    /// The proof of work, if one was made.
    pub work: Option<Work>,
    /// Whether the program ended its half of the stream.
    pub half_closed: bool,
    /// The service's port.
    pub port: u16,
    /// All that the program said, at most [`MAX_REQUEST`].
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("port", &self.port).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Request {
    /// Whole KiB. Of the bytes the first [`MAX_REQUEST`].
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let bytes = self.bytes.get(..self.bytes.len().min(MAX_REQUEST)).unwrap_or_default();
        let mut out = Zeroizing::new(Vec::with_capacity((HEAD + bytes.len()).next_multiple_of(STEP)));
        out.push(VERSION);
        out.extend_from_slice(&self.nonce);
        out.push(u8::from(self.work.is_some()));
        out.extend_from_slice(&self.work.map_or([0; Work::BYTES], |work| work.encode()));
        out.push(u8::from(self.half_closed) * HALF_CLOSED);
        out.extend_from_slice(&self.port.to_be_bytes());
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(bytes);
        let padded = out.len().next_multiple_of(STEP);
        out.resize(padded, 0);
        out
    }

    /// `None` if it is none: another version, a length out of range, bytes that are not zero where zeros belong.
    pub fn decode(plaintext: &[u8]) -> Option<Self> {
        let mut reader = Reader(plaintext);
        if !plaintext.len().is_multiple_of(STEP) || reader.u8()? != VERSION {
            return None;
        }
        let nonce = reader.array()?;
        let has_work = flag(reader.u8()?)?;
        let work: [u8; Work::BYTES] = reader.array()?;
        let half_closed = flag(reader.u8()?)?;
        let port = reader.u16()?;
        let length = usize::try_from(reader.u32()?).ok().filter(|length| *length <= MAX_REQUEST)?;
        let bytes = reader.slice(length)?.to_vec();
        if !reader.only_zeros() || (!has_work && work != [0; Work::BYTES]) {
            return None;
        }
        let work = if has_work { Some(Work::decode(&work)?) } else { None };
        Some(Self { nonce, work, half_closed, port, bytes })
    }
}

fn flag(byte: u8) -> Option<bool> {
    (byte < 2).then_some(byte == 1)
}

/// Why a service has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// Not its port.
    #[error("the service does not serve this port")]
    Port,
    /// Its server does not take the connection.
    #[error("the service's server cannot be reached")]
    Unreachable,
    /// Its server says nothing, or does not come to an end.
    #[error("the service's server did not answer in time")]
    TimedOut,
    /// More than [`MAX_ANSWER`].
    #[error("the answer is larger than {} KiB, which the level `mixed` does not carry", MAX_ANSWER / 1024)]
    TooLarge,
    /// It does all that it can.
    #[error("the service is busy")]
    Busy,
}

const REASONS: [NotServed; 5] =
    [NotServed::Port, NotServed::Unreachable, NotServed::TimedOut, NotServed::TooLarge, NotServed::Busy];

/// The service's half: what an answer is sealed with.
#[derive(Debug)]
pub struct Answerer {
    reply: Reply,
    keys: SessionKeys,
}

fn answer_key(keys: &SessionKeys) -> Once {
    Once::derive(&keys.transcript, &[keys.seed.as_slice()], &[ANSWER])
}

impl Answerer {
    pub(crate) fn new(reply: Reply, keys: SessionKeys) -> Self {
        Self { reply, keys }
    }

    /// Whole pieces.
    pub fn seal(self, answer: &Result<Vec<u8>, NotServed>) -> Vec<u8> {
        let (status, bytes) = match answer {
            Ok(bytes) if bytes.len() <= MAX_ANSWER => (0, bytes.as_slice()),
            Ok(_) => (1 + NotServed::TooLarge as u8, [].as_slice()),
            Err(reason) => (1 + *reason as u8, [].as_slice()),
        };
        let mut plaintext = Zeroizing::new(vec![status]);
        plaintext.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
        plaintext.extend_from_slice(bytes);
        let padded = (REPLY + TAG + plaintext.len()).next_multiple_of(PIECE_DATA) - REPLY - TAG;
        plaintext.resize(padded, 0);
        let sealed = answer_key(&self.keys).seal(&[], &plaintext);
        [self.reply.y.as_slice(), &self.reply.proof, &sealed].concat()
    }
}

/// What the service answered, if it was the service.
pub fn open_answer(initiator: &Initiator, bytes: &[u8]) -> Result<Result<Vec<u8>, NotServed>, HandshakeError> {
    let bad = HandshakeError::Undecryptable;
    let mut reader = Reader(bytes);
    let (y, proof) = reader.array().zip(reader.array()).ok_or(bad)?;
    let keys = initiator.finish(&Reply { y, proof })?;
    let plaintext = answer_key(&keys).open(&[], reader.0).ok_or(bad)?;
    let mut reader = Reader(&plaintext);
    let status = reader.u8().ok_or(bad)?;
    let length = reader.u32().and_then(|length| usize::try_from(length).ok()).ok_or(bad)?;
    let answer = reader.slice(length).filter(|_| reader.only_zeros()).ok_or(bad)?;
    match status.checked_sub(1) {
        None => Ok(Ok(answer.to_vec())),
        Some(reason) => REASONS.get(usize::from(reason)).map(|reason| Err(*reason)).ok_or(bad),
    }
}
