//! HCTR2 with AES-256 and an empty tweak (Crowley, Huckleberry, Biggers: "Length-preserving encryption with HCTR2",
//! ePrint 2021/1441): a permutation of the whole payload, so that a change anywhere in it garbles all of it.
//!
//! Our messages are whole 16-byte blocks and at least one of them, so the padding of the paper's hash never occurs. A
//! key serves one packet. It authenticates nothing: the zero tag inside the payload does that, at the last hop.

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes256Dec, Aes256Enc, Block};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash;
use zeroize::Zeroize;

use crate::layout::PAYLOAD_LEN;

/// The first block that POLYVAL sees: 2·|tweak| + 2, for an empty tweak and a message of whole blocks.
const LENGTH_BLOCK: [u8; 16] = 2u128.to_le_bytes();
/// Keystream blocks that are made at once.
const LANES: usize = 64;

pub(crate) fn encrypt(key: &[u8; 32], message: &mut [u8; PAYLOAD_LEN]) {
    hctr2(key, message, |cipher, block| cipher.encrypt_block(block));
}

pub(crate) fn decrypt(key: &[u8; 32], message: &mut [u8; PAYLOAD_LEN]) {
    hctr2(key, message, |cipher, block| Aes256Dec::from(cipher).decrypt_block(block));
}

/// Both directions are one algorithm but for what happens to the middle block.
fn hctr2<const N: usize>(key: &[u8; 32], message: &mut [u8; N], middle: impl FnOnce(&Aes256Enc, &mut Block)) {
    const { assert!(N >= 16 && N.is_multiple_of(16)) };
    let (blocks, _) = Block::slice_as_chunks_mut(message);
    let Some((first, rest)) = blocks.split_first_mut() else { return };

    let cipher = Aes256Enc::new(key.into());
    let mut subkeys = [Block::from(0u128.to_le_bytes()), Block::from(1u128.to_le_bytes())];
    cipher.encrypt_blocks(&mut subkeys);
    let [hash_key, mask] = &subkeys;
    let mut polyval = Polyval::new(hash_key);
    polyval.update(&[LENGTH_BLOCK.into()]);

    let before = xor(first, &hash(&polyval, rest));
    let mut after = before;
    middle(&cipher, &mut after);
    xctr(&cipher, &xor(&xor(&before, &after), mask), rest);
    *first = xor(&after, &hash(&polyval, rest));

    subkeys.iter_mut().for_each(|block| block.0.zeroize());
}

fn hash(keyed: &Polyval, blocks: &[Block]) -> Block {
    let mut polyval = keyed.clone();
    polyval.update(blocks);
    polyval.finalize()
}

/// XCTR: block i (from 1) is masked with the encryption of `seed` XOR i, i in little-endian order.
fn xctr(cipher: &Aes256Enc, seed: &Block, blocks: &mut [Block]) {
    let seed = u128::from_le_bytes(seed.0);
    let mut keystream = [Block::default(); LANES];
    let mut counter = 0;
    for group in blocks.chunks_mut(LANES) {
        let (keystream, _) = keystream.split_at_mut(group.len());
        for block in keystream.iter_mut() {
            counter += 1;
            *block = (seed ^ counter).to_le_bytes().into();
        }
        cipher.encrypt_blocks(keystream);
        for (block, mask) in group.iter_mut().zip(keystream.iter()) {
            *block = xor(block, mask);
        }
    }
}

fn xor(a: &Block, b: &Block) -> Block {
    (u128::from_le_bytes(a.0) ^ u128::from_le_bytes(b.0)).to_le_bytes().into()
}

#[cfg(test)]
pub(crate) fn check_vector<const N: usize>(key: &[u8; 32], plain: &[u8; N], cipher: &[u8; N]) {
    let mut message = *plain;
    hctr2(key, &mut message, |cipher, block| cipher.encrypt_block(block));
    assert_eq!(message, *cipher);
    hctr2(key, &mut message, |cipher, block| Aes256Dec::from(cipher).decrypt_block(block));
    assert_eq!(message, *plain);
}
