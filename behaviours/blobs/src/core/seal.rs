//! The cipher under the hash: ChaCha20 (RFC 8439) at any offset.
//!
//! Whoever knows the manifest has authenticated the root, and the root authenticates every 16 KiB of ciphertext before it is
//! decrypted; a tag per chunk would say the same once more, lengthen the content, and move every offset. With a stream cipher the
//! plaintext can stay where it is: it is encrypted as it is read and decrypted as it is exported, at any place.

use std::fmt;

use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit, StreamCipher, StreamCipherSeek},
};
use fog_base::id::byte_array;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

const CONTEXT: &str = "fog blobs v1 cipher";

/// The key of one content. It is drawn anew each time that a content is sealed: two contents under one key would lose their
/// secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Key(#[serde(with = "byte_array")] [u8; 32]);

impl Key {
    /// From 32 bytes of a secure generator that are used for nothing else.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Encrypts or decrypts `data`, which lies at `offset` of the content; that is the same operation. Nothing is changed, and
    /// `false` returned, beyond 256 GiB.
    #[must_use]
    pub fn apply(&self, offset: u64, data: &mut [u8]) -> bool {
        let mut key = blake3::derive_key(CONTEXT, &self.0);
        let mut cipher = ChaCha20::new(&key.into(), &[0; 12].into());
        key.zeroize();
        cipher.try_seek(offset).is_ok() && cipher.try_apply_keystream(data).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_part_decrypts_by_itself(at in 0usize..2_000, len in 0usize..2_000, key in any::<[u8; 32]>()) {
            let key = Key::from_random(key);
            let plain: Vec<u8> = (0..4_000u32).map(|i| i as u8).collect();
            let mut whole = plain.clone();
            prop_assert!(key.apply(0, &mut whole));
            let mut part = whole[at..at + len].to_vec();
            prop_assert!(key.apply(at as u64, &mut part));
            prop_assert_eq!(&part, &plain[at..at + len]);
        }
    }

    /// The stream is ChaCha20 of RFC 8439 under the derived key with a zero nonce and the counter from 0.
    #[test]
    fn a_second_implementation_finds_the_same_stream() {
        let mut ours = [0; 100];
        assert!(Key::from_random([9; 32]).apply(64, &mut ours));
        let derived = blake3::Hasher::new_derive_key(CONTEXT).update(&[9; 32]).finalize();
        let mut cipher = ChaCha20::new(derived.as_bytes().into(), &[0; 12].into());
        let mut theirs = [0; 164];
        cipher.apply_keystream(&mut theirs);
        assert_eq!(ours, theirs[64..]);
    }

    #[test]
    fn the_largest_blob_is_within_reach_and_a_key_prints_nothing() {
        let key = Key::from_random([1; 32]);
        let mut last = [0; 16];
        assert!(key.apply(super::super::blob::MAX_BLOB_BYTES - 16, &mut last));
        assert!(last != [0; 16]);
        assert!(!key.apply(1 << 40, &mut last));
        assert_eq!(format!("{key:?}"), "Key");
    }
}
