//! Shared by `corpora.rs` and by the fuzz targets: what is done with bytes that anybody may send, and the seeds of the corpora. What a peer
//! must sign or seal is signed and sealed here, from the README, so that what lies behind is reached.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]

pub mod engine;

use std::time::Instant;

use ed25519_dalek::{Signer, SigningKey};
use fog_base::{NetworkId, NodeId, Now, UnixMillis};
use fog_chat::{
    Message,
    core::{
        dag::fork,
        engine::Card,
        envelope::{Envelope, LIFETIME, Priority, SIZES},
        id::ConversationId,
        membership::Op,
        message::{KeyCache, SignedHeader, body_hash},
        seal::{Opened, Seal, SealError, Sealed},
        secrets::{Bundle, DeviceId, PreKeyKind, SecretKey},
        tag::TagKey,
    },
    wire::request::{Request, Response},
};

pub const NETWORK: NetworkId = NetworkId([9; 32]);
pub const UNIX: UnixMillis = UnixMillis(1_800_000_000_000);
/// What stands before the changes and parents of a message's header.
const FIXED: usize = 188;

pub fn now() -> Now {
    Now { mono: Instant::now(), unix: UNIX }
}

pub fn author(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn derive(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    parts.iter().for_each(|part| _ = hasher.update(part));
    *hasher.finalize().as_bytes()
}

/// The open room of this name: its id, which is its tag key as well.
pub fn room(name: &str) -> ConversationId {
    ConversationId(derive("fog chat open room tag v1", &[&NETWORK.0, name.as_bytes()]))
}

/// The inside of an envelope whose conversation has this tag key.
pub struct Inside(SecretKey);

impl Inside {
    pub fn of(tag_key: &[u8; 32]) -> Self {
        Self(SecretKey::new(derive("fog chat v1 envelope key", &[tag_key])))
    }
}

impl Seal for Inside {
    fn overhead(&self) -> usize {
        24 + 16 + 2
    }

    fn seal(&mut self, header: &[u8], body: &[u8], length: usize) -> Result<Sealed, SealError> {
        let mut text = [&(body.len() as u16).to_be_bytes(), body].concat();
        text.resize(length - 40, 0);
        let nonce: [u8; 24] = derive("test nonce", &[body])[..24].try_into().unwrap();
        Ok(Sealed { ciphertext: self.0.seal(&nonce, header, &text).unwrap(), state: Vec::new() })
    }

    fn open(&mut self, header: &[u8], ciphertext: &[u8]) -> Result<Opened, SealError> {
        let text = self.0.open(header, ciphertext).ok_or(SealError)?;
        Ok(Opened { plaintext: text.to_vec(), state: Vec::new() })
    }
}

/// An envelope of the conversation with this tag key around any body; `None` if it fits none.
pub fn envelope(tag_key: &[u8; 32], body: &[u8]) -> Option<Vec<u8>> {
    let mut inside = Inside::of(tag_key);
    let packed = Envelope::pack(body, &mut inside, &TagKey(*tag_key), Priority::Message, LIFETIME, UNIX).ok()?;
    Some(packed.envelope.encode())
}

/// A message whose header is any bytes, but for what makes it `key`'s in this conversation: version, lengths, author, hash and signature
/// are right.
pub fn signed_message(data: &[u8], to: &ConversationId, key: &SigningKey) -> Vec<u8> {
    let mut header = data.to_vec();
    header.resize(header.len().max(FIXED), 0);
    let (listed, parents) = (usize::from(header[186] % 33), usize::from(header[187] % 9));
    (header[0], header[186], header[187]) = (1, listed as u8, parents as u8);
    let length = FIXED + 12 * listed + 32 * parents;
    header.resize(header.len().max(length), 0);
    let body = header.split_off(length);
    header[2..34].copy_from_slice(&to.0);
    header[34..66].copy_from_slice(key.verifying_key().as_bytes());
    header[150..182].copy_from_slice(&body_hash(&[0; 16], &body));
    let id = derive("fog chat v1 message id", &[&NETWORK.0, &header]);
    let signature = key.sign(&[&b"fog chat message v1\0"[..], &id].concat()).to_bytes();
    [&header[..], &signature, &[0; 16], &body].concat()
}

/// The header of the message `seq` of an author who read nobody else, after `previous`.
pub fn header(key: &SigningKey, seq: u8, previous: [u8; 32]) -> Vec<u8> {
    let author = key.verifying_key().to_bytes();
    let entry = [&author[..], &[0, 0, 0, seq]].concat();
    let mut header = vec![0; FIXED];
    (header[0], header[1], header[69], header[77], header[185], header[186]) = (1, 1, seq, seq, 1, 1);
    header[86..118].copy_from_slice(&previous);
    header[118..150].copy_from_slice(&derive("fog chat v1 clock entry", &[&entry]));
    header.extend([&author[..8], &[0, 0, 0, seq]].concat());
    header
}

/// A bundle of `key` whose Curve25519 keys are its own.
pub fn bundle(key: &SigningKey) -> Vec<u8> {
    let keys = |label: u8| derive("test key", &[&[label], key.as_bytes()]);
    let device = DeviceId(key.verifying_key().to_bytes());
    let expires = UNIX.as_secs() + 86_400;
    let bundle = Bundle { device, identity: keys(1), pre_key: keys(2), kind: PreKeyKind::Fallback, seq: 1, expires };
    bundle.sign(&NETWORK, key)
}

/// A card that says these bytes behind its bundle, rightly signed.
pub fn card(said: &[u8], key: &SigningKey) -> Vec<u8> {
    let body = [&[1], &bundle(key)[..], said].concat();
    let signature = key.sign(&[&b"fog chat card v1\0"[..], &NETWORK.0, &body].concat()).to_bytes();
    [&body[..], &signature].concat()
}

/// A membership operation that says these bytes, rightly signed; bytes 35 to 67 are its author.
pub fn operation(said: &[u8], key: &SigningKey) -> Vec<u8> {
    let mut body = said.to_vec();
    body.resize(body.len().max(99), 0);
    body[35..67].copy_from_slice(key.verifying_key().as_bytes());
    let signature = key.sign(&[&b"fog chat membership v1\0"[..], &NETWORK.0, &body].concat()).to_bytes();
    [&body[..], &signature].concat()
}

/// Any bytes as each thing that comes from outside; the first byte says as which. What is read is written back as it was.
pub fn fuzz_wire(data: &[u8]) {
    let Some((what, bytes)) = data.split_first() else { return };
    let key = author(1);
    match what % 12 {
        0 => parse_envelope(bytes),
        1 => parse_message(bytes, false),
        2 => parse_message(&signed_message(bytes, &room("lobby"), &key), true),
        3 => {
            if let Ok(signed) = SignedHeader::parse(bytes, &NETWORK) {
                assert_eq!(signed.as_bytes(), bytes);
                assert_eq!(signed.header().encode(), bytes[..bytes.len() - 64]);
            }
        }
        4 => _ = fork::verify(bytes, &NETWORK, &mut KeyCache::default()),
        5 => _ = Request::decode(bytes).map(|request| assert_eq!(request.encode(), bytes)),
        6 => _ = Response::decode(bytes).map(|response| assert_eq!(response.encode(), bytes)),
        7 => parse_card(bytes),
        8 => parse_card(&card(bytes, &key)),
        9 => _ = Bundle::verify(bytes, &NETWORK, UNIX).map(|bundle| assert_eq!(bundle.device, author_of(bytes))),
        10 => _ = Op::verify(bytes, &NETWORK).map(|op| assert_eq!(op.bytes(), bytes)),
        _ => {
            let bytes = operation(bytes, &key);
            _ = Op::verify(&bytes, &NETWORK).map(|op| assert_eq!(op.bytes(), bytes));
        }
    }
}

fn author_of(bundle: &[u8]) -> DeviceId {
    DeviceId(bundle[2..34].try_into().unwrap())
}

fn parse_envelope(bytes: &[u8]) {
    let Ok(envelope) = Envelope::parse(bytes, UNIX) else { return };
    assert!(SIZES.contains(&bytes.len()));
    assert_eq!(envelope.encode(), bytes);
    if let Ok(next) = envelope.forwarded() {
        assert_eq!((next.id(), next.hops() + 1), (envelope.id(), envelope.hops()));
        assert_eq!(Envelope::parse(&next.encode(), UNIX), Ok(next));
    }
    let _opened = envelope.open(&mut Inside::of(&room("lobby").0));
}

fn parse_message(bytes: &[u8], is_signed: bool) {
    let Ok(message) = Message::parse(bytes, &NETWORK) else { return };
    assert_eq!(message.header().encode()[..], bytes[..message.header().encode().len()]);
    let verified = message.verify(&room("lobby"), &mut KeyCache::default());
    assert!(!is_signed || verified.is_ok());
    if let Ok(verified) = verified {
        assert_eq!(verified.encode(), bytes);
        assert_eq!(verified.len_bytes(), bytes.len());
    }
}

fn parse_card(bytes: &[u8]) {
    if let Ok(card) = Card::from_bytes(&NETWORK, bytes, UNIX) {
        assert_eq!(card.to_bytes(), bytes);
        assert!(fog_chat::core::engine::is_clean(&card.name));
    }
}

/// What this version writes, as inputs of [`fuzz_wire`].
pub fn wire_seeds() -> Vec<(String, Vec<u8>)> {
    let (key, other) = (author(1), author(2));
    let lobby = room("lobby");
    let header = header(&key, 1, [0; 32]);
    let message = |text: &[u8]| signed_message(&[&header[..], text].concat(), &lobby, &key);
    let (one, two) = (message(b"hello"), message(b"bye"));
    let signed = |bytes: &[u8]| SignedHeader::parse(&bytes[..FIXED + 12 + 64], &NETWORK).unwrap();
    let proof = fork::prove(&signed(&one), &signed(&two));
    let said = [&[3; 32][..], &[4; 32], &[3], b"ana", &[1], &[5; 32], &[6; 32]].concat();
    let create = Op::create(&NETWORK, &key, [7; 32]);
    let group = create.group().0;
    let invite = [&[1, 1, 1], &group[..], &[0; 32], other.verifying_key().as_bytes(), &create.id.0].concat();
    let sealed = envelope(&lobby.0, &[&[0], &one[..]].concat()).unwrap();
    let request = |request: Request| [&[5], &request.encode()[..]].concat();
    let carried = Request::Carried(vec![sealed.clone(), sealed.clone()]);
    let mut seeds = vec![
        ("envelope", [&[0], &sealed[..]].concat()),
        ("message", [&[1], &one[..]].concat()),
        ("message_to_sign", [&[2], &header[..], b"hello"].concat()),
        ("signed_header", [&[3], &one[..FIXED + 12 + 64]].concat()),
        ("fork_proof", [&[4], &proof[..]].concat()),
        ("request_envelope", request(Request::Envelope(sealed))),
        ("request_carried", request(carried)),
        ("request_card", request(Request::Card(card(&said, &key)))),
        ("response_taken", [&[6], &Response::Taken(7).encode()[..]].concat()),
        ("card", [&[7], &card(&said, &key)[..]].concat()),
        ("card_to_sign", [&[8], &said[..]].concat()),
        ("bundle", [&[9], &bundle(&key)[..]].concat()),
        ("operation", [&[10], create.bytes()].concat()),
        ("operation_to_sign", [&[11], &invite[..]].concat()),
    ];
    for (is_request, bytes) in engine::meeting() {
        let name = ["response_meeting", "request_meeting"][usize::from(is_request)];
        seeds.push((name, [&[6 - u8::from(is_request)], &bytes[..]].concat()));
    }
    let numbered = |(n, (name, bytes)): (usize, (&str, Vec<u8>))| (format!("{name}_{n}"), bytes);
    seeds.into_iter().enumerate().map(numbered).collect()
}
