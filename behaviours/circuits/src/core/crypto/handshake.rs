//! The handshake with one relay: of the shape of ntor-v3 (Tor's proposal 332), with ML-KEM-768 beside X25519.
//!
//! The relay is authenticated by its circuit key; the client stays anonymous. Keys are safe as long as one of X25519 and ML-KEM-768 is;
//! the authentication, which must only hold at the time, rests on X25519. Both sides' extra data is encrypted, the client's
//! without forward secrecy. Everything that was said goes into the keys.

use chacha20poly1305::{
    ChaCha20Poly1305,
    aead::{AeadInOut, KeyInit},
};
use fog_base::NodeId;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use ml_kem::{
    B32, Seed,
    kem::{Decapsulate, KeyExport},
    ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::layer::KEYS_LEN;

const POINT_LEN: usize = 32;
const KEM_KEY_LEN: usize = 1184;
const KEM_CIPHERTEXT_LEN: usize = 1088;
const AEAD_TAG_LEN: usize = 16;
const MAC_LEN: usize = 32;
/// The most extra data, in bytes, each way.
pub const MAX_EXTRA: usize = 64;
/// What a client sends, without its extra data.
pub const REQUEST_LEN: usize = POINT_LEN + KEM_KEY_LEN + AEAD_TAG_LEN;
/// What a relay answers, without its extra data.
pub const ANSWER_LEN: usize = POINT_LEN + KEM_CIPHERTEXT_LEN + MAC_LEN + AEAD_TAG_LEN;

const SALT_REQUEST: &[u8] = b"fog-circuits-1 request";
const SALT_KEYS: &[u8] = b"fog-circuits-1 keys";
const SALT_VIRTUAL: &[u8] = b"fog-circuits-1 virtual hop";
const TRANSCRIPT: &[u8] = b"fog-circuits-1 transcript";
const OKM_LEN: usize = MAC_LEN + 32 + KEYS_LEN + BINDING_LEN;
/// Of what both ends, and nobody else, know of a circuit.
pub const BINDING_LEN: usize = 32;

/// Not a handshake, or not with us. There is one error: nobody learns which check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid handshake")]
pub struct BadHandshake;

/// What a client must know of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayKey {
    /// Who it is.
    pub id: NodeId,
    /// Its circuit key, X25519.
    pub key: [u8; 32],
}

/// A relay's circuit key.
pub struct RelaySecret {
    id: NodeId,
    secret: StaticSecret,
    public: PublicKey,
}

impl RelaySecret {
    /// The key of relay `id`.
    pub fn new(id: NodeId, secret: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*secret);
        let public = PublicKey::from(&secret);
        Self { id, secret, public }
    }

    /// What clients must know.
    pub fn public(&self) -> RelayKey {
        RelayKey { id: self.id, key: self.public.to_bytes() }
    }
}

impl std::fmt::Debug for RelaySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelaySecret({:?})", self.id)
    }
}

/// What both sides have at the end. Erased when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct HopKeys {
    /// The keys of the layer.
    pub keys: [u8; KEYS_LEN],
    /// What both ends know of this circuit.
    pub binding: [u8; BINDING_LEN],
}

impl std::fmt::Debug for HopKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HopKeys(..)")
    }
}

impl HopKeys {
    /// The keys of a virtual hop, from what its two ends agreed on.
    pub fn virtual_hop(seed: &[u8; 64], transcript: &[u8; 32]) -> Self {
        let mut okm = Zeroizing::new([0; KEYS_LEN + BINDING_LEN]);
        expand(SALT_VIRTUAL, seed, transcript, okm.as_mut_slice());
        Self::cut(okm.as_slice())
    }

    fn cut(okm: &[u8]) -> Self {
        let keys = okm.first_chunk().copied().unwrap_or([0; KEYS_LEN]);
        Self { keys, binding: okm.last_chunk().copied().unwrap_or_default() }
    }
}

/// HKDF-SHA256 (RFC 5869); all of our lengths are below its limit of 8,160 bytes.
fn expand(salt: &[u8], secret: &[u8], info: &[u8], okm: &mut [u8]) {
    let is_expanded = Hkdf::<Sha256>::new(Some(salt), secret).expand(info, okm).is_ok();
    debug_assert!(is_expanded);
}

fn agree(secret: &StaticSecret, public: &[u8; POINT_LEN]) -> Result<SharedSecret, BadHandshake> {
    let shared = secret.diffie_hellman(&PublicKey::from(*public));
    shared.was_contributory().then_some(shared).ok_or(BadHandshake)
}

/// The cipher of the client's extra data; it encrypts once.
fn request_cipher(shared: &SharedSecret, relay: &RelayKey, x: &[u8], kem_key: &[u8]) -> ChaCha20Poly1305 {
    let info = [relay.id.0.as_slice(), &relay.key, x, kem_key].concat();
    let mut key = Zeroizing::new([0; 32]);
    expand(SALT_REQUEST, shared.as_bytes(), &info, key.as_mut_slice());
    ChaCha20Poly1305::new((&*key).into())
}

fn seal(cipher: &ChaCha20Poly1305, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, BadHandshake> {
    let mut sealed = plain.to_vec();
    cipher.encrypt_in_place(&[0; 12].into(), aad, &mut sealed).map_err(|_| BadHandshake)?;
    Ok(sealed)
}

fn open(cipher: &ChaCha20Poly1305, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, BadHandshake> {
    let mut plain = sealed.to_vec();
    cipher.decrypt_in_place(&[0; 12].into(), aad, &mut plain).map_err(|_| BadHandshake)?;
    Ok(plain)
}

/// Everything that was said before the relay's extra data; all parts but the last have one length.
fn transcript(relay: &RelayKey, y: &[u8], ciphertext: &[u8], request: &[u8]) -> [u8; 32] {
    let parts = [TRANSCRIPT, &relay.id.0, &relay.key, y, ciphertext, request];
    parts.into_iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

/// What follows from the three secrets.
struct Derived {
    mac: Zeroizing<[u8; MAC_LEN]>,
    extra: ChaCha20Poly1305,
    keys: HopKeys,
}

impl Derived {
    fn new(ephemeral: &SharedSecret, fixed: &SharedSecret, kem: &[u8], transcript: &[u8; 32]) -> Self {
        let secrets = Zeroizing::new([ephemeral.as_bytes().as_slice(), fixed.as_bytes(), kem].concat());
        let mut okm = Zeroizing::new([0; OKM_LEN]);
        expand(SALT_KEYS, &secrets, transcript, okm.as_mut_slice());
        let (mac, rest) = okm.split_at(MAC_LEN);
        let (extra, keys) = rest.split_at(32);
        let zeros = [0; 32];
        Self {
            mac: Zeroizing::new(mac.first_chunk().copied().unwrap_or_default()),
            extra: ChaCha20Poly1305::new(extra.first_chunk().unwrap_or(&zeros).into()),
            keys: HopKeys::cut(keys),
        }
    }

    fn mac(&self, transcript: &[u8; 32], extra: &[u8]) -> Result<[u8; MAC_LEN], BadHandshake> {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.mac.as_slice()).map_err(|_| BadHandshake)?;
        Ok(mac.chain_update(transcript).chain_update(extra).finalize().into_bytes().into())
    }
}

/// A client that waits for the relay's answer.
pub struct Waiting {
    relay: RelayKey,
    x: StaticSecret,
    fixed: SharedSecret,
    kem: DecapsulationKey,
    request: Vec<u8>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiting({:?})", self.relay.id)
    }
}

impl Waiting {
    /// Starts a handshake with `relay`; `seed` is fresh randomness. [`Waiting::request`] is what to send.
    pub fn new(relay: RelayKey, extra: &[u8], seed: &[u8; 96]) -> Result<Self, BadHandshake> {
        if extra.len() > MAX_EXTRA {
            return Err(BadHandshake);
        }
        let (scalar, kem_seed) = seed.split_at(32);
        let mut scalar: [u8; 32] = scalar.try_into().map_err(|_| BadHandshake)?;
        let x = StaticSecret::from(scalar);
        scalar.zeroize();
        let mut kem_seed = Seed::try_from(kem_seed).map_err(|_| BadHandshake)?;
        let kem = DecapsulationKey::from_seed(kem_seed);
        kem_seed.zeroize();
        let kem_key = kem.encapsulation_key().to_bytes();
        let public = PublicKey::from(&x).to_bytes();
        let fixed = agree(&x, &relay.key)?;
        let sealed = seal(&request_cipher(&fixed, &relay, &public, &kem_key), &[], extra)?;
        let request = [public.as_slice(), kem_key.as_slice(), &sealed].concat();
        Ok(Self { relay, x, fixed, kem, request })
    }

    /// What to send: [`REQUEST_LEN`] bytes and the length of the extra data.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// With the relay's answer: the keys, and the relay's extra data.
    pub fn finish(self, answer: &[u8]) -> Result<(HopKeys, Vec<u8>), BadHandshake> {
        let (y, rest) = answer.split_first_chunk::<POINT_LEN>().ok_or(BadHandshake)?;
        let (ciphertext, rest) = rest.split_first_chunk::<KEM_CIPHERTEXT_LEN>().ok_or(BadHandshake)?;
        let (mac, sealed) = rest.split_first_chunk::<MAC_LEN>().ok_or(BadHandshake)?;
        let mut shared = self.kem.decapsulate(&Ciphertext::from(*ciphertext));
        let transcript = transcript(&self.relay, y, ciphertext, &self.request);
        let derived = Derived::new(&agree(&self.x, y)?, &self.fixed, &shared, &transcript);
        shared.zeroize();
        if !bool::from(derived.mac(&transcript, sealed)?.ct_eq(mac)) {
            return Err(BadHandshake);
        }
        let extra = open(&derived.extra, &transcript, sealed)?;
        Ok((derived.keys, extra))
    }
}

/// A relay's part: the keys, the answer ([`ANSWER_LEN`] bytes and the length of the extra data), and the client's extra data, from
/// what `reply` makes the relay's. `seed` is fresh randomness.
pub fn answer(
    relay: &RelaySecret,
    request: &[u8],
    seed: &[u8; 64],
    reply: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<(HopKeys, Vec<u8>), BadHandshake> {
    if request.len() > REQUEST_LEN + MAX_EXTRA {
        return Err(BadHandshake);
    }
    let (x, rest) = request.split_first_chunk::<POINT_LEN>().ok_or(BadHandshake)?;
    let (kem_key, sealed) = rest.split_first_chunk::<KEM_KEY_LEN>().ok_or(BadHandshake)?;
    let public = relay.public();
    let fixed = agree(&relay.secret, x)?;
    let asked = open(&request_cipher(&fixed, &public, x, kem_key), &[], sealed)?;
    let kem_key = EncapsulationKey::new(&(*kem_key).into()).map_err(|_| BadHandshake)?;
    let (scalar, kem_seed) = seed.split_at(32);
    let y = StaticSecret::from(<[u8; 32]>::try_from(scalar).map_err(|_| BadHandshake)?);
    let (ciphertext, mut shared) =
        kem_key.encapsulate_deterministic(&B32::try_from(kem_seed).map_err(|_| BadHandshake)?);
    let y_public = PublicKey::from(&y).to_bytes();
    let transcript = transcript(&public, &y_public, &ciphertext, request);
    let derived = Derived::new(&agree(&y, x)?, &fixed, &shared, &transcript);
    shared.zeroize();
    let sealed = seal(&derived.extra, &transcript, &reply(&asked))?;
    let mac = derived.mac(&transcript, &sealed)?;
    let answer = [y_public.as_slice(), &ciphertext, &mac, &sealed].concat();
    Ok((derived.keys, answer))
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
