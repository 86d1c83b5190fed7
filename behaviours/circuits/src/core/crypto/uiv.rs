//! UIV+, the cipher of Counter Galois Onion (Degabriele, Melloni, Münch, Stam: "Counter Galois Onion: Fast, Non-Malleable Onion
//! Encryption for Tor", ePrint 2025/583; Tor's proposal 359), with AES-256 and bodies of whole 16-byte blocks.
//!
//! Encryption is not malleable: a change of any bit of the input or of the tweak changes all of the output. Decryption is malleable
//! in its right part, so relays always encrypt and clients always decrypt, in both directions.

use aes::{
    Aes256Dec, Aes256Enc, Block,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use polyval::{Polyval, universal_hash::UniversalHash};
use zeroize::Zeroizing;

use crate::core::cell::{Body, TAG_LEN};

/// The key of the left part (AES-256, POLYVAL), the key of the right part (AES-256, POLYVAL), and a nonce.
pub(super) const SEED_LEN: usize = 32 + 16 + 32 + 16 + TAG_LEN;
const SEED_BLOCKS: usize = SEED_LEN / 16;
/// Where the keystream of the next keys begins; what is before belongs to a body.
const UPDATE_FROM: u8 = 128;
/// Keystream blocks that are made at once.
const LANES: usize = 32;

/// A seed of keys.
pub(super) type Seed = Zeroizing<[u8; SEED_LEN]>;
/// A tag or a nonce.
pub(super) type Tag = [u8; TAG_LEN];

/// The block cipher of the left part, in one direction.
pub(super) trait Left {
    fn new(key: &[u8; 32]) -> Self;
    fn apply(&self, block: &mut Block);
}

impl Left for Aes256Enc {
    fn new(key: &[u8; 32]) -> Self {
        KeyInit::new(key.into())
    }
    fn apply(&self, block: &mut Block) {
        self.encrypt_block(block);
    }
}

impl Left for Aes256Dec {
    fn new(key: &[u8; 32]) -> Self {
        KeyInit::new(key.into())
    }
    fn apply(&self, block: &mut Block) {
        self.decrypt_block(block);
    }
}

/// The keys of one direction at one time; erased when dropped.
pub(super) struct Uiv<L> {
    left: L,
    left_hash: Polyval,
    right: Aes256Enc,
    right_hash: Polyval,
}

/// Cuts a seed into keys and the nonce.
fn part<const AT: usize, const N: usize>(seed: &[u8; SEED_LEN]) -> &[u8; N] {
    const { assert!(AT + N <= SEED_LEN) };
    let (_, rest) = seed.split_at(AT);
    rest.first_chunk().unwrap_or(&[0; N])
}

impl<L: Left> Uiv<L> {
    pub(super) fn new(seed: &[u8; SEED_LEN]) -> (Self, Zeroizing<Tag>) {
        let uiv = Self {
            left: L::new(part::<0, 32>(seed)),
            left_hash: Polyval::new(part::<32, 16>(seed).into()),
            right: KeyInit::new(part::<48, 32>(seed).into()),
            right_hash: Polyval::new(part::<80, 16>(seed).into()),
        };
        (uiv, Zeroizing::new(*part::<96, TAG_LEN>(seed)))
    }

    /// The mask of the left part: the hash of the tweak and the right part.
    fn mask(&self, tweak: (&Tag, u8), right: &[Block]) -> Block {
        let mut hash = self.left_hash.clone();
        hash.update(&[(*tweak.0).into(), u128::from(tweak.1).to_le_bytes().into()]);
        hash.update(right);
        hash.finalize()
    }

    fn apply_left(&self, tweak: (&Tag, u8), left: &mut Block, right: &[Block]) {
        let mask = self.mask(tweak, right);
        xor(left, &mask);
        self.left.apply(left);
        xor(left, &mask);
    }

    /// The first block of the keystream that a left part selects, with the low byte, which counts, zero.
    fn start(&self, left: &Tag) -> u128 {
        let mut hash = self.right_hash.clone();
        hash.update(&[(*left).into()]);
        u128::from_be_bytes(hash.finalize().0) & !0xff
    }

    fn apply_right(&self, left: &Block, right: &mut [Block]) {
        let start = self.start(&left.0);
        let mut keystream = [Block::default(); LANES];
        let mut counter = 0;
        for group in right.chunks_mut(LANES) {
            let (keystream, _) = keystream.split_at_mut(group.len());
            for block in keystream.iter_mut() {
                *block = (start | counter).to_be_bytes().into();
                counter += 1;
            }
            self.right.encrypt_blocks(keystream);
            group.iter_mut().zip(keystream.iter()).for_each(|(block, mask)| xor(block, mask));
        }
    }

    /// The keys and the nonce after these, which do not tell them.
    pub(super) fn next_seed(&self, nonce: &Tag) -> Seed {
        let start = self.start(nonce);
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        let (blocks, _) = Block::slice_as_chunks_mut(seed.as_mut_slice());
        let counters = (UPDATE_FROM..).take(SEED_BLOCKS);
        blocks.iter_mut().zip(counters).for_each(|(block, at)| *block = (start | u128::from(at)).to_be_bytes().into());
        self.right.encrypt_blocks(blocks);
        seed
    }
}

impl Uiv<Aes256Enc> {
    pub(super) fn encrypt(&self, tweak: (&Tag, u8), body: &mut Body) {
        let (blocks, _) = Block::slice_as_chunks_mut(body);
        let Some((left, right)) = blocks.split_first_mut() else { return };
        self.apply_left(tweak, left, right);
        self.apply_right(left, right);
    }
}

impl Uiv<Aes256Dec> {
    pub(super) fn decrypt(&self, tweak: (&Tag, u8), body: &mut Body) {
        let (blocks, _) = Block::slice_as_chunks_mut(body);
        let Some((left, right)) = blocks.split_first_mut() else { return };
        self.apply_right(left, right);
        self.apply_left(tweak, left, right);
    }
}

fn xor(to: &mut Block, with: &Block) {
    *to = (u128::from_le_bytes(to.0) ^ u128::from_le_bytes(with.0)).to_le_bytes().into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::cell::{BODY_LEN, PAYLOAD_LEN};

    /// A body's keystream ends where that of the next keys begins.
    const _: () = assert!(PAYLOAD_LEN / 16 <= UPDATE_FROM as usize && SEED_BLOCKS <= 128);

    #[test]
    fn decryption_undoes_encryption() {
        let seed = std::array::from_fn(|i| i as u8);
        let (relay, nonce) = Uiv::<Aes256Enc>::new(&seed);
        let (client, same) = Uiv::<Aes256Dec>::new(&seed);
        assert_eq!(nonce, same);
        let plain: Body = std::array::from_fn(|i| (i * 7) as u8);
        let mut body = plain;
        relay.encrypt((&[3; 16], 3), &mut body);
        assert!(body.chunks(16).zip(plain.chunks(16)).all(|(a, b)| a != b));
        client.decrypt((&[3; 16], 3), &mut body);
        assert_eq!(body, plain);
        assert_eq!(*relay.next_seed(&nonce), *client.next_seed(&nonce));
        assert_ne!(*relay.next_seed(&nonce), seed);
    }

    #[test]
    fn encryption_spreads_every_bit_of_body_and_tweak_over_all_blocks() {
        let (relay, _) = Uiv::<Aes256Enc>::new(&[9; SEED_LEN]);
        let encrypted = |body: &Body, tweak: &Tag, command| {
            let mut body = *body;
            relay.encrypt((tweak, command), &mut body);
            body
        };
        let (body, tweak) = ([5; BODY_LEN], [6; 16]);
        let usual = encrypted(&body, &tweak, 3);
        let differs = |other: Body| other.chunks(16).zip(usual.chunks(16)).all(|(a, b)| a != b);
        for bit in 0..BODY_LEN * 8 {
            let mut changed = body;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(differs(encrypted(&changed, &tweak, 3)), "bit {bit}");
        }
        for bit in 0..128 {
            let mut changed = tweak;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(differs(encrypted(&body, &changed, 3)), "bit {bit} of the tweak");
        }
        assert!(differs(encrypted(&body, &tweak, 4)));
    }
}
