//! From the secret shared with one hop to that hop's keys: HKDF-SHA256 (RFC 5869) over the secret and nothing else.
//!
//! No wire byte takes part, so bytes of α that do not change the secret cannot change a replay tag. The keys come in
//! two steps, because a forged or replayed packet must cost no more than the first.

use std::sync::LazyLock;

use crate::hmac::Keyed;
use crate::layout::field;
use crate::secret::Secret;

const SALT: &[u8; 13] = b"fog-sphinx-v1";
const INFO_CHECK: &[u8] = b"check";
const INFO_HOP: &[u8] = b"hop";

impl Keyed {
    /// HKDF-Expand to `N` bytes, under the pseudorandom key that this was made from.
    pub(crate) fn expand<const N: usize>(&self, info: &[u8]) -> Secret<N> {
        const { assert!(N <= 255 * 32) };
        let mut okm = Secret::new([0; N]);
        let mut before: &[u8] = &[];
        for (counter, chunk) in (1..=u8::MAX).zip(okm.chunks_mut(32)) {
            let block = Secret::new(self.hmac([before, info, &[counter]]));
            for (to, from) in chunk.iter_mut().zip(block.iter()) {
                *to = *from;
            }
            before = chunk;
        }
        okm
    }
}

/// HKDF-Extract, and the pseudorandom key taken in. `salt` is what was made from the salt.
pub(crate) fn extract(salt: &Keyed, secret: &[u8]) -> Keyed {
    Keyed::new(&Secret::new(salt.hmac([secret])))
}

/// What a relay needs in order to refuse a packet. The pseudorandom key waits for [`HopKeys::derive`].
pub(crate) struct CheckKeys {
    prk: Keyed,
    okm: Secret<48>,
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
pub(crate) struct HopKeys(Secret<128>);

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
