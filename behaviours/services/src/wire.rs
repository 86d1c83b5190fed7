//! Every message between two parties, to bytes and back (README, "Messages"). Lengths are exact; nothing else is judged here.

pub mod mixed;

use fog_base::NetworkId;

use crate::core::{
    blinding::verify,
    bytes::Reader,
    descriptor::SIZES,
    handshake::KEM_CIPHERTEXT,
    introduction::{self, SEALED},
};

/// Bytes of a rendezvous cookie.
pub const COOKIE: usize = 20;
/// Bytes of an INTRODUCE1.
pub const INTRODUCE: usize = 32 + 32 + KEM_CIPHERTEXT + SEALED;

const ESTABLISH_LABEL: &[u8] = b"fog services establish introduction v1";

/// The commands under which circuits carry the messages.
pub mod command {
    #![expect(missing_docs, reason = "named as the messages in README")]
    pub const ESTABLISH_INTRO: u8 = 64;
    pub const INTRO_ESTABLISHED: u8 = 65;
    pub const INTRODUCE1: u8 = 66;
    pub const INTRODUCE2: u8 = 67;
    pub const INTRODUCE_ACK: u8 = 68;
    pub const ESTABLISH_RENDEZVOUS: u8 = 69;
    pub const RENDEZVOUS_ESTABLISHED: u8 = 70;
    pub const RENDEZVOUS1: u8 = 71;
    pub const RENDEZVOUS2: u8 = 72;
    pub const MIXED_REQUEST: u8 = 73;
    pub const MIXED_ANSWER: u8 = 74;
    pub const STORE: u8 = 80;
    pub const STORE_ANSWER: u8 = 81;
    pub const FETCH: u8 = 82;
    pub const FETCH_ANSWER: u8 = 83;
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Service to introduction point: be one for me.
    EstablishIntro(EstablishIntro),
    /// Whether the relay is one now.
    IntroEstablished(bool),
    /// Client to introduction point.
    Introduce1(Box<Introduction>),
    /// Introduction point to service.
    Introduce2(Box<Introduction>),
    /// Introduction point to client.
    IntroduceAck(AckStatus),
    /// Client to rendezvous point: wait for whoever names this cookie.
    EstablishRendezvous([u8; COOKIE]),
    /// Whether the relay waits.
    RendezvousEstablished(bool),
    /// Service to rendezvous point.
    Rendezvous1([u8; COOKIE], Reply),
    /// Rendezvous point to client.
    Rendezvous2(Reply),
    /// Introduction point to service: a part of a request that came through the mixnet.
    MixedRequest(mixed::Part),
    /// Service to introduction point: a part of the answer.
    MixedAnswer(mixed::Part),
    /// Service to directory: a descriptor.
    Store(Vec<u8>),
    /// What became of it.
    StoreAnswer(StoreAnswer),
    /// Client to directory: a blinded key.
    Fetch([u8; 32]),
    /// The descriptor, if there is one.
    FetchAnswer(Option<Vec<u8>>),
}

/// Asks a relay to be an introduction point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EstablishIntro {
    /// Names the service at this relay.
    pub auth_key: [u8; 32],
    /// Introductions a second that may be passed on; 0: as the relay likes.
    pub rate: u16,
    /// Introductions at once; 0: as the relay likes.
    pub burst: u16,
    /// By the authentication key, for this relay and this circuit only.
    pub signature: [u8; 64],
}

impl EstablishIntro {
    /// What is signed: `relay` is the relay's id, `binding` what only it and the circuit's builder know.
    pub fn signed_bytes(&self, network: &NetworkId, relay: &[u8; 32], binding: &[u8; 32]) -> Vec<u8> {
        let limits = [self.rate.to_be_bytes(), self.burst.to_be_bytes()].concat();
        [ESTABLISH_LABEL, &network.0, relay, binding, &self.auth_key, &limits].concat()
    }

    /// Whether the holder of the key made it for this circuit.
    pub fn verifies(&self, network: &NetworkId, relay: &[u8; 32], binding: &[u8; 32]) -> bool {
        verify(&self.auth_key, &self.signed_bytes(network, relay, binding), &self.signature)
    }
}

/// An introduction as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// Which service.
    pub auth_key: [u8; 32],
    /// The client's X25519 key.
    pub x: [u8; 32],
    /// To the service's ML-KEM key.
    pub ciphertext: [u8; KEM_CIPHERTEXT],
    /// The [`introduction::Request`], sealed.
    pub sealed: [u8; SEALED],
}

/// The service's half of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The service's X25519 key.
    pub y: [u8; 32],
    /// That it holds the introduction point's keys.
    pub proof: [u8; 32],
}

/// What became of an introduction, as far as the introduction point knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckStatus {
    /// Passed on.
    PassedOn,
    /// No service with that key is here.
    Unknown,
    /// Not an introduction, or too many from this circuit.
    Malformed,
    /// The service's limit is reached.
    Limited,
}

/// What became of a STORE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreAnswer {
    /// Kept, with this revision.
    Stored(u64),
    /// Not kept: this revision is there.
    Stale(u64),
    /// Not kept.
    Rejected(StoreReject),
}

/// Why a directory does not keep a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreReject {
    /// Not a descriptor.
    Malformed,
    /// A signature does not verify.
    Signature,
    /// Its period is not open.
    Period,
    /// Expired, or valid for too long.
    Expired,
    /// Other relays keep it.
    NotResponsible,
    /// No room.
    Full,
    /// Too many at this moment.
    TooMany,
}

const ACKS: [AckStatus; 4] = [AckStatus::PassedOn, AckStatus::Unknown, AckStatus::Malformed, AckStatus::Limited];
const REASONS: [StoreReject; 7] = [
    StoreReject::Malformed,
    StoreReject::Signature,
    StoreReject::Period,
    StoreReject::Expired,
    StoreReject::NotResponsible,
    StoreReject::Full,
    StoreReject::TooMany,
];

impl Message {
    /// Its command and its body.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::EstablishIntro(EstablishIntro { auth_key, rate, burst, signature }) => {
                let limits = [rate.to_be_bytes(), burst.to_be_bytes()].concat();
                (command::ESTABLISH_INTRO, [auth_key.as_slice(), &limits, signature].concat())
            }
            Self::IntroEstablished(done) => (command::INTRO_ESTABLISHED, status(*done)),
            Self::Introduce1(introduction) => (command::INTRODUCE1, introduction.encode()),
            Self::Introduce2(introduction) => (command::INTRODUCE2, introduction.encode()),
            Self::IntroduceAck(ack) => (command::INTRODUCE_ACK, vec![*ack as u8]),
            Self::EstablishRendezvous(cookie) => (command::ESTABLISH_RENDEZVOUS, cookie.to_vec()),
            Self::RendezvousEstablished(done) => (command::RENDEZVOUS_ESTABLISHED, status(*done)),
            Self::Rendezvous1(cookie, Reply { y, proof }) => {
                (command::RENDEZVOUS1, [cookie.as_slice(), y, proof].concat())
            }
            Self::Rendezvous2(Reply { y, proof }) => (command::RENDEZVOUS2, [y.as_slice(), proof].concat()),
            Self::MixedRequest(part) => (command::MIXED_REQUEST, part.encode()),
            Self::MixedAnswer(part) => (command::MIXED_ANSWER, part.encode()),
            Self::Store(descriptor) => (command::STORE, descriptor.clone()),
            Self::StoreAnswer(answer) => (command::STORE_ANSWER, answer.encode()),
            Self::Fetch(key) => (command::FETCH, key.to_vec()),
            Self::FetchAnswer(None) => (command::FETCH_ANSWER, vec![0]),
            Self::FetchAnswer(Some(descriptor)) => (command::FETCH_ANSWER, [&[1], descriptor.as_slice()].concat()),
        }
    }

    /// `None` if it is no message: an unknown command, another length, a number out of range.
    pub fn decode(command: u8, body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let message = match command {
            command::ESTABLISH_INTRO => Self::EstablishIntro(EstablishIntro {
                auth_key: reader.array()?,
                rate: reader.u16()?,
                burst: reader.u16()?,
                signature: reader.array()?,
            }),
            command::INTRO_ESTABLISHED => Self::IntroEstablished(done(reader.u8()?)?),
            command::INTRODUCE1 => Self::Introduce1(Introduction::read(&mut reader)?),
            command::INTRODUCE2 => Self::Introduce2(Introduction::read(&mut reader)?),
            command::INTRODUCE_ACK => Self::IntroduceAck(*ACKS.get(usize::from(reader.u8()?))?),
            command::ESTABLISH_RENDEZVOUS => Self::EstablishRendezvous(reader.array()?),
            command::RENDEZVOUS_ESTABLISHED => Self::RendezvousEstablished(done(reader.u8()?)?),
            command::RENDEZVOUS1 => Self::Rendezvous1(reader.array()?, Reply::read(&mut reader)?),
            command::RENDEZVOUS2 => Self::Rendezvous2(Reply::read(&mut reader)?),
            command::MIXED_REQUEST => Self::MixedRequest(mixed::Part::read(&mut reader)?),
            command::MIXED_ANSWER => Self::MixedAnswer(mixed::Part::read(&mut reader)?),
            command::STORE => Self::Store(descriptor(&mut reader)?),
            command::STORE_ANSWER => Self::StoreAnswer(StoreAnswer::read(&mut reader)?),
            command::FETCH => Self::Fetch(reader.array()?),
            command::FETCH_ANSWER => Self::FetchAnswer(match reader.u8()? {
                0 => None,
                1 => Some(descriptor(&mut reader)?),
                _ => return None,
            }),
            _ => return None,
        };
        reader.end(message)
    }
}

fn status(done: bool) -> Vec<u8> {
    vec![u8::from(!done)]
}

fn done(byte: u8) -> Option<bool> {
    (byte < 2).then_some(byte == 0)
}

fn descriptor(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    let length = SIZES.into_iter().find(|size| *size == reader.0.len())?;
    reader.slice(length).map(<[u8]>::to_vec)
}

impl Introduction {
    fn encode(&self) -> Vec<u8> {
        [self.auth_key.as_slice(), &self.x, &self.ciphertext, &self.sealed].concat()
    }

    fn read(reader: &mut Reader<'_>) -> Option<Box<Self>> {
        Some(Box::new(Self {
            auth_key: reader.array()?,
            x: reader.array()?,
            ciphertext: reader.array()?,
            sealed: reader.array()?,
        }))
    }
}

impl Reply {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { y: reader.array()?, proof: reader.array()? })
    }
}

impl StoreAnswer {
    fn encode(self) -> Vec<u8> {
        let (status, number): (u8, u64) = match self {
            Self::Stored(revision) => (0, revision),
            Self::Stale(revision) => (1, revision),
            Self::Rejected(reason) => (2, 1 + reason as u64),
        };
        [&[status], number.to_be_bytes().as_slice()].concat()
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (status, number) = (reader.u8()?, reader.u64()?);
        match status {
            0 => Some(Self::Stored(number)),
            1 => Some(Self::Stale(number)),
            2 => REASONS.get(usize::try_from(number.checked_sub(1)?).ok()?).copied().map(Self::Rejected),
            _ => None,
        }
    }
}

const _: () = assert!(INTRODUCE == 1872 && introduction::PLAINTEXT == 704);

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
