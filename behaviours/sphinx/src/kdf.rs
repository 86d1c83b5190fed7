//! From the secret shared with one hop to that hop's keys: HKDF-SHA256 (RFC 5869) over the secret and nothing else.
//!
//! No wire byte takes part, so bytes of α that do not change the secret cannot change a replay tag. The keys come in
//! two steps, because a forged or replayed packet must cost no more than the first.

use std::sync::LazyLock;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::layout::field;

const SALT: &[u8] = b"fog-sphinx-v1";
const INFO_CHECK: &[u8] = b"check";
const INFO_HOP: &[u8] = b"hop";

/// HMAC-SHA256 that has taken in its key.
#[derive(Clone)]
pub(crate) struct Keyed(Hmac<Sha256>);

impl Keyed {
    /// The key has at most 64 bytes (all of ours do), so this cannot fail.
    pub(crate) fn new(key: &[u8]) -> Self {
        debug_assert!(key.len() <= 64);
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(key) {
            *to = *from;
        }
        let keyed = Self(Hmac::new((&block).into()));
        block.zeroize();
        keyed
    }

    pub(crate) fn hmac<const PARTS: usize>(&self, parts: [&[u8]; PARTS]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// HKDF-Expand to `N` bytes, under the pseudorandom key that this was made from.
    pub(crate) fn expand<const N: usize>(&self, info: &[u8]) -> Zeroizing<[u8; N]> {
        const { assert!(N <= 255 * 32) };
        let mut okm = Zeroizing::new([0; N]);
        let mut block = [0; 32];
        let mut before: &[u8] = &[];
        for (counter, chunk) in (1..=u8::MAX).zip(okm.chunks_mut(32)) {
            block = self.hmac([before, info, &[counter]]);
            for (to, from) in chunk.iter_mut().zip(&block) {
                *to = *from;
            }
            before = chunk;
        }
        block.zeroize();
        okm
    }
}

/// HKDF-Extract, and the pseudorandom key taken in. `salt` is what was made from the salt.
pub(crate) fn extract(salt: &Keyed, secret: &[u8]) -> Keyed {
    let mut prk = salt.hmac([secret]);
    let keyed = Keyed::new(&prk);
    prk.zeroize();
    keyed
}

/// What a relay needs in order to refuse a packet. The pseudorandom key waits for [`HopKeys::derive`].
pub(crate) struct CheckKeys {
    prk: Keyed,
    okm: Zeroizing<[u8; 48]>,
}

impl CheckKeys {
    pub(crate) fn derive(shared_secret: &[u8; 32]) -> Self {
        static SALTED: LazyLock<Keyed> = LazyLock::new(|| Keyed::new(SALT));
        let prk = extract(&SALTED, shared_secret);
        let okm = prk.expand(INFO_CHECK);
        Self { prk, okm }
    }

    pub(crate) fn replay_tag(&self) -> &[u8; 16] {
        field::<0, 16, 48>(&self.okm)
    }

    pub(crate) fn mac(&self) -> &[u8; 32] {
        field::<16, 32, 48>(&self.okm)
    }
}

/// What a relay needs in order to pass a packet on. Erased when dropped.
pub(crate) struct HopKeys(Zeroizing<[u8; 128]>);

impl HopKeys {
    pub(crate) fn derive(check: &CheckKeys) -> Self {
        Self(check.prk.expand(INFO_HOP))
    }

    pub(crate) fn stream(&self) -> &[u8; 32] {
        field::<0, 32, 128>(&self.0)
    }

    pub(crate) fn payload(&self) -> &[u8; 32] {
        field::<32, 32, 128>(&self.0)
    }

    pub(crate) fn delay_seed(&self) -> &[u8; 32] {
        field::<64, 32, 128>(&self.0)
    }

    pub(crate) fn blinding(&self) -> &[u8; 32] {
        field::<96, 32, 128>(&self.0)
    }
}
