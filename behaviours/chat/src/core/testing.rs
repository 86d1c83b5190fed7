//! What several tests need.

use ed25519_dalek::SigningKey;
use fog_base::{NetworkId, NodeId, Now, UnixMillis};

use super::{
    dag::{Dag, Output},
    id::{ConversationId, DeviceId},
    message::{Draft, Kind, Message, Verified},
    seal::{Opened, Seal, SealError, Sealed},
};

pub(crate) const NETWORK: NetworkId = NetworkId([9; 32]);
pub(crate) const ROOM: ConversationId = ConversationId([7; 32]);

pub(crate) fn now() -> Now {
    Now { mono: std::time::Instant::now(), unix: UnixMillis(1_800_000_000_000) }
}

pub(crate) fn key(n: u16) -> SigningKey {
    let mut bytes = [1; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    SigningKey::from_bytes(&bytes)
}

pub(crate) fn device(n: u16) -> DeviceId {
    DeviceId(key(n).verifying_key().to_bytes())
}

pub(crate) fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

pub(crate) fn dag() -> Dag {
    Dag::new(ROOM, NETWORK)
}

pub(crate) fn sign(draft: Draft, author: u16, text: &str) -> Verified {
    Message::sign(draft, &NETWORK, &key(author), Kind::TEXT, 1_800_000_000_000, [3; 16], text.as_bytes()).unwrap()
}

/// `author` writes in `dag`.
pub(crate) fn write(dag: &mut Dag, author: u16, text: &str) -> Verified {
    let message = sign(dag.draft(device(author)).unwrap(), author, text);
    dag.handle_message(&message, None, now()).unwrap();
    message
}

pub(crate) fn outputs(dag: &mut Dag) -> Vec<Output> {
    std::iter::from_fn(|| dag.poll_output()).collect()
}

/// XChaCha20-Poly1305 under one key, with a length and zeros in front of the message: what a room's password makes.
#[derive(Debug)]
pub(crate) struct RoomSeal(pub(crate) u64);

impl RoomSeal {
    const NONCE: usize = 24;

    fn cipher() -> chacha20poly1305::XChaCha20Poly1305 {
        chacha20poly1305::KeyInit::new(&[5; 32].into())
    }
}

impl Seal for RoomSeal {
    fn overhead(&self) -> usize {
        Self::NONCE + 16 + 2
    }

    fn seal(&mut self, header: &[u8], plaintext: &[u8], length: usize) -> Result<Sealed, SealError> {
        use chacha20poly1305::aead::{Aead, Payload};
        self.0 += 1;
        let mut nonce = [0; Self::NONCE];
        nonce[..8].copy_from_slice(&self.0.to_be_bytes());
        let mut padded = u16::try_from(plaintext.len()).unwrap().to_be_bytes().to_vec();
        padded.extend_from_slice(plaintext);
        padded.resize(length - Self::NONCE - 16, 0);
        let payload = Payload { msg: &padded, aad: header };
        let sealed = Self::cipher().encrypt(&nonce.into(), payload).map_err(|_| SealError)?;
        Ok(Sealed { ciphertext: [&nonce[..], &sealed].concat(), state: vec![(b"nonce".to_vec(), nonce.to_vec())] })
    }

    fn open(&mut self, header: &[u8], ciphertext: &[u8]) -> Result<Opened, SealError> {
        use chacha20poly1305::aead::{Aead, Payload};
        let (nonce, sealed) = ciphertext.split_first_chunk::<{ Self::NONCE }>().ok_or(SealError)?;
        let payload = Payload { msg: sealed, aad: header };
        let padded = Self::cipher().decrypt(&(*nonce).into(), payload).map_err(|_| SealError)?;
        let (length, rest) = padded.split_first_chunk::<2>().ok_or(SealError)?;
        let plaintext = rest.get(..usize::from(u16::from_be_bytes(*length))).ok_or(SealError)?.to_vec();
        Ok(Opened { plaintext, state: Vec::new() })
    }
}
