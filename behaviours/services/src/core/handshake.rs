//! The end-to-end handshake: hs-ntor of rend-spec-v3 (section 3.3.2) with ML-KEM-768 beside X25519 (README, "Handshake").
//!
//! Both secrets go into every key, the KEM's first, as in X25519MLKEM768. Every byte that was said goes into them too, so that
//! a changed byte gives other keys and not a second valid message.

use ed25519_dalek::SigningKey;
use fog_base::NetworkId;
use ml_kem::{
    B32, Ciphertext, DecapsulationKey, EncapsulationKey, MlKem768, Seed,
    kem::{Decapsulate, Key, KeyExport},
};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use super::{
    blinding::Subcredential,
    bytes::Reader,
    descriptor::IntroductionPoint,
    introduction::{PLAINTEXT, SEALED},
    kdf::{self, Once},
    random::Random,
};
use crate::wire::{EstablishIntro, Introduction, Reply, mixed::SealedRequest};

/// Bytes of an ML-KEM-768 encapsulation key.
pub const KEM_KEY: usize = 1184;
/// Bytes of an ML-KEM-768 ciphertext.
pub const KEM_CIPHERTEXT: usize = 1088;

const POINT: &[u8] = b"fog services introduction point keys v1";
const T0: &str = "fog services introduction v1";
const T1: &str = "fog services rendezvous v1";
const INTRODUCTION: &[u8] = b"fog services introduction key v1";
const MIXED: &[u8] = b"fog services mixed key v1";
const RENDEZVOUS: &[u8] = b"fog services rendezvous keys v1";

/// Why a handshake fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A key of small order, or one that is not ML-KEM's.
    #[error("the other side's key is not valid")]
    BadKey,
    /// The introduction does not open.
    #[error("the introduction was not sealed for this key")]
    Undecryptable,
    /// The other side does not hold the keys of the descriptor.
    #[error("the service's proof does not match")]
    BadProof,
}

/// What both ends make the keys of their virtual hop from.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKeys {
    /// Secret, fresh for each rendezvous.
    pub seed: Zeroizing<[u8; 64]>,
    /// The hash of all that was said.
    pub transcript: [u8; 32],
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKeys").finish_non_exhaustive()
    }
}

/// The secret keys of one introduction point.
pub struct PointKeys {
    auth: SigningKey,
    x25519: StaticSecret,
    kem: DecapsulationKey<MlKem768>,
    /// The public halves, for transcripts.
    public: IntroductionPoint,
}

impl std::fmt::Debug for PointKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PointKeys").field("public", &self.public).finish_non_exhaustive()
    }
}

impl PointKeys {
    /// All keys of the point at `relay`, from 32 random bytes.
    pub fn from_seed(seed: &[u8; 32], relay: fog_base::NodeId) -> Self {
        let okm = kdf::hkdf::<128>(b"", &[seed], &[POINT]);
        let mut reader = Reader(okm.as_slice());
        let auth = SigningKey::from_bytes(&reader.array().unwrap_or_default());
        let x25519 = StaticSecret::from(reader.array::<32>().unwrap_or_default());
        let mut kem_seed: Seed = reader.array().unwrap_or([0; 64]).into();
        let kem = DecapsulationKey::<MlKem768>::from_seed(kem_seed);
        kem_seed.as_mut_slice().zeroize();
        let public = IntroductionPoint {
            relay,
            backend: 0,
            auth_key: auth.verifying_key().to_bytes(),
            x25519: PublicKey::from(&x25519).to_bytes(),
            kem: Box::new(kem.encapsulation_key().to_bytes().into()),
        };
        Self { auth, x25519, kem, public }
    }

    /// What the descriptor tells of it.
    pub fn public(&self) -> &IntroductionPoint {
        &self.public
    }

    /// The request to a relay, for the circuit with this binding.
    pub fn establish(&self, network: &NetworkId, binding: &[u8; 32], (rate, burst): (u16, u16)) -> EstablishIntro {
        use ed25519_dalek::Signer;
        let mut establish = EstablishIntro { auth_key: self.public.auth_key, rate, burst, signature: [0; 64] };
        let signed = establish.signed_bytes(network, &self.public.relay.0, binding);
        establish.signature = self.auth.sign(&signed).to_bytes();
        establish
    }

    /// Opens an introduction under one of the subcredentials.
    pub fn open(
        &self,
        network: &NetworkId,
        subcredentials: &[Subcredential],
        introduction: &Introduction,
    ) -> Result<Opened, HandshakeError> {
        let Introduction { x, ciphertext, sealed, .. } = introduction;
        self.open_under((network, INTRODUCTION), subcredentials, (x, ciphertext, sealed))
    }

    /// Opens a request that came through the mixnet.
    pub fn open_request(
        &self,
        network: &NetworkId,
        subcredentials: &[Subcredential],
        request: &SealedRequest,
    ) -> Result<Opened, HandshakeError> {
        let SealedRequest { x, ciphertext, sealed, .. } = request;
        self.open_under((network, MIXED), subcredentials, (x, ciphertext, sealed))
    }

    fn open_under(
        &self,
        (network, label): (&NetworkId, &[u8]),
        subcredentials: &[Subcredential],
        (x, ciphertext, sealed): (&[u8; 32], &[u8; KEM_CIPHERTEXT], &[u8]),
    ) -> Result<Opened, HandshakeError> {
        let client = PublicKey::from(*x);
        let k1 = self.x25519.diffie_hellman(&client);
        if !k1.was_contributory() {
            return Err(HandshakeError::BadKey);
        }
        let mut k2 = self.kem.decapsulate(&Ciphertext::<MlKem768>::from(*ciphertext));
        let secrets = secrets(k2.as_slice(), k1.as_bytes());
        k2.as_mut_slice().zeroize();
        for (which, subcredential) in subcredentials.iter().enumerate() {
            let t0 = t0(network, subcredential, &self.public, x, ciphertext);
            if let Some(plaintext) = request_key(&t0, &secrets, label).open(&[], sealed) {
                let responder = Responder { client, secrets, t0, sealed: sealed.into() };
                return Ok(Opened { plaintext, which, responder });
            }
        }
        Err(HandshakeError::Undecryptable)
    }
}

/// An introduction that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The request: 704 bytes of an introduction.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// Under which of the subcredentials it opened.
    pub which: usize,
    /// Answers it.
    pub responder: Responder,
}

/// The service's half, once the introduction was opened.
pub struct Responder {
    client: PublicKey,
    secrets: Zeroizing<[u8; 64]>,
    t0: [u8; 32],
    sealed: Box<[u8]>,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

impl Responder {
    /// The answer, and the keys. Each answer has a fresh key, so a second attempt at the rendezvous makes a new one.
    pub fn respond(&self, random: &mut Random) -> Result<(Reply, SessionKeys), HandshakeError> {
        let secret = StaticSecret::from(random.bytes::<32>());
        let y = PublicKey::from(&secret).to_bytes();
        let k3 = secret.diffie_hellman(&self.client);
        if !k3.was_contributory() {
            return Err(HandshakeError::BadKey);
        }
        let (proof, keys) = finish(&self.t0, &self.sealed, &y, &self.secrets, k3.as_bytes());
        Ok((Reply { y, proof }, keys))
    }
}

/// The client's half, between introduction and answer.
pub struct Initiator {
    secret: StaticSecret,
    secrets: Zeroizing<[u8; 64]>,
    t0: [u8; 32],
    sealed: Box<[u8]>,
}

impl std::fmt::Debug for Initiator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Initiator").finish_non_exhaustive()
    }
}

impl Initiator {
    /// The introduction that carries `request` to `point`.
    pub fn start(
        network: &NetworkId,
        subcredential: &Subcredential,
        point: &IntroductionPoint,
        request: &[u8; PLAINTEXT],
        random: &mut Random,
    ) -> Result<(Self, Box<Introduction>), HandshakeError> {
        let (initiator, request) = Self::begin((network, INTRODUCTION), subcredential, point, request, random)?;
        let SealedRequest { auth_key, x, ciphertext, sealed } = request;
        let sealed: [u8; SEALED] = sealed.try_into().map_err(|_| HandshakeError::BadKey)?;
        Ok((initiator, Box::new(Introduction { auth_key, x, ciphertext, sealed })))
    }

    /// The request that goes to `point` through the mixnet.
    pub fn start_request(
        network: &NetworkId,
        subcredential: &Subcredential,
        point: &IntroductionPoint,
        request: &[u8],
        random: &mut Random,
    ) -> Result<(Self, SealedRequest), HandshakeError> {
        Self::begin((network, MIXED), subcredential, point, request, random)
    }

    fn begin(
        (network, label): (&NetworkId, &[u8]),
        subcredential: &Subcredential,
        point: &IntroductionPoint,
        request: &[u8],
        random: &mut Random,
    ) -> Result<(Self, SealedRequest), HandshakeError> {
        let key: Key<EncapsulationKey<MlKem768>> = (*point.kem).into();
        let kem = EncapsulationKey::<MlKem768>::new(&key).map_err(|_| HandshakeError::BadKey)?;
        let secret = StaticSecret::from(random.bytes::<32>());
        let x = PublicKey::from(&secret).to_bytes();
        let k1 = secret.diffie_hellman(&PublicKey::from(point.x25519));
        if !k1.was_contributory() {
            return Err(HandshakeError::BadKey);
        }
        let mut message: B32 = random.bytes::<32>().into();
        let (ciphertext, mut k2) = kem.encapsulate_deterministic(&message);
        message.as_mut_slice().zeroize();
        let secrets = secrets(k2.as_slice(), k1.as_bytes());
        k2.as_mut_slice().zeroize();
        let ciphertext: [u8; KEM_CIPHERTEXT] = ciphertext.into();
        let t0 = t0(network, subcredential, point, &x, &ciphertext);
        let sealed = request_key(&t0, &secrets, label).seal(&[], request);
        let initiator = Self { secret, secrets, t0, sealed: sealed.clone().into() };
        Ok((initiator, SealedRequest { auth_key: point.auth_key, x, ciphertext, sealed }))
    }

    /// The keys, if the answer came from the service.
    pub fn finish(&self, reply: &Reply) -> Result<SessionKeys, HandshakeError> {
        let k3 = self.secret.diffie_hellman(&PublicKey::from(reply.y));
        if !k3.was_contributory() {
            return Err(HandshakeError::BadKey);
        }
        let (proof, keys) = finish(&self.t0, &self.sealed, &reply.y, &self.secrets, k3.as_bytes());
        if bool::from(proof.ct_eq(&reply.proof)) { Ok(keys) } else { Err(HandshakeError::BadProof) }
    }
}

/// `K2 ‖ K1`.
fn secrets(kem: &[u8], x25519: &[u8; 32]) -> Zeroizing<[u8; 64]> {
    let mut both = Zeroizing::new([0; 64]);
    both.iter_mut().zip(kem.iter().chain(x25519)).for_each(|(to, from)| *to = *from);
    both
}

fn t0(
    network: &NetworkId,
    subcredential: &Subcredential,
    point: &IntroductionPoint,
    x: &[u8; 32],
    ciphertext: &[u8; KEM_CIPHERTEXT],
) -> [u8; 32] {
    let IntroductionPoint { auth_key, x25519, kem, .. } = point;
    kdf::hash(T0, &[&network.0, auth_key, &subcredential.0, x25519, kem.as_slice(), x, ciphertext])
}

fn request_key(t0: &[u8; 32], secrets: &[u8; 64], label: &[u8]) -> Once {
    Once::derive(t0, &[secrets], &[label])
}

fn finish(t0: &[u8; 32], sealed: &[u8], y: &[u8; 32], secrets: &[u8; 64], k3: &[u8; 32]) -> ([u8; 32], SessionKeys) {
    let transcript = kdf::hash(T1, &[t0, sealed, y]);
    let okm = kdf::hkdf::<96>(&transcript, &[secrets, k3], &[RENDEZVOUS]);
    let (mut proof, mut seed) = ([0; 32], Zeroizing::new([0; 64]));
    proof.iter_mut().chain(seed.iter_mut()).zip(okm.iter()).for_each(|(to, from)| *to = *from);
    (proof, SessionKeys { seed, transcript })
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
