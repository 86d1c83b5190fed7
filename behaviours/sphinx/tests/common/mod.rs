//! Shared by the tests of this folder and by the fuzz targets: packets that the library would not make, and what is
//! done with bytes that anybody may send. Written from the README alone, with other crates than the library where
//! there are any.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use fog_sphinx::{
    BODY_LEN, HEADER_LEN, MixSecretKey, PACKET_LEN, PAYLOAD_LEN, PacketBytes, Reject, SURB_KEYS_LEN, SURB_LEN, Surb,
    SurbKeys, Unwrapped, VERSION, open, open_batch, peek, process_batch,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub type Hmac256 = Hmac<Sha256>;

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac256::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn hkdf(prk: &[u8], info: &[u8], len: usize) -> Vec<u8> {
    let mut okm: Vec<u8> = Vec::new();
    let mut previous = Vec::new();
    for counter in 1.. {
        if okm.len() >= len {
            break;
        }
        previous = hmac(prk, &[&previous, info, &[counter]]).to_vec();
        okm.extend(&previous);
    }
    okm.truncate(len);
    okm
}

/// Gives a packet a β that hides `block` and 196 bytes of `rest`, and the right MAC, for a relay whose secret key is
/// known.
pub fn forge(packet: &mut PacketBytes, secret: &[u8; 32], block: &[u8; 49], rest: &[u8; 196]) {
    let alpha: [u8; 32] = packet[5..37].try_into().unwrap();
    let prk = hmac(b"fog-sphinx-v1", &[&x25519_dalek::x25519(*secret, alpha)]);
    let stream_key: [u8; 32] = hkdf(&prk, b"hop", 128)[..32].try_into().unwrap();
    let beta = &mut packet[53..298];
    beta[..49].copy_from_slice(block);
    beta[49..].copy_from_slice(rest);
    ChaCha20::new(&stream_key.into(), &[0; 12].into()).apply_keystream(beta);
    let mac_key = hkdf(&prk, b"check", 48)[16..].to_vec();
    let gamma = hmac(&mac_key, &[&packet[..37], &packet[53..298]]);
    packet[37..53].copy_from_slice(&gamma[..16]);
}

pub const FUZZ_KEY: [u8; 32] = [0x42; 32];

/// Any bytes at a relay. An odd first byte gives them the right MAC first, so that what lies behind it is reached.
pub fn fuzz_unwrap(data: &[u8]) {
    let _ = peek(data);
    let Some((mode, rest)) = data.split_first() else { return };
    let mut packet = [0; PACKET_LEN];
    for (to, from) in packet.iter_mut().zip(rest) {
        *to = *from;
    }
    let key = MixSecretKey::from_bytes(FUZZ_KEY);
    if mode & 1 == 1 {
        packet[0] = VERSION;
        let block: [u8; 49] = packet[53..102].try_into().unwrap();
        let padding: [u8; 196] = packet[102..298].try_into().unwrap();
        forge(&mut packet, &FUZZ_KEY, &block, &padding);
    }
    let mut single = packet;
    let result = open(&packet, &key).and_then(|opened| {
        let tag = opened.replay_tag();
        opened.process(&mut single).map(|unwrapped| (tag, unwrapped))
    });
    match &result {
        Ok((_, Unwrapped::Forward { .. })) => assert_eq!(single[..5], packet[..5]),
        Ok(_) => {}
        Err(Reject::UnknownVersion) => assert_ne!(packet[0], VERSION),
        Err(Reject::BadMac) => assert_eq!(mode & 1, 0),
        Err(Reject::Malformed | Reject::BadPayload) => {}
    }

    let mut opened = Vec::new();
    open_batch([&packet, &packet], &key, &mut opened);
    let mut copies = [packet; 2];
    let mut processed = Vec::new();
    let opened: Vec<_> = opened.into_iter().flatten().collect();
    process_batch(opened.into_iter().zip(&mut copies), &mut processed);
    for (unwrapped, copy) in processed.iter().zip(&copies) {
        assert_eq!(unwrapped.as_ref().ok(), result.as_ref().ok().map(|(_, unwrapped)| unwrapped));
        assert!(unwrapped.is_err() || *copy == single);
    }
}

/// Any bytes as a reply block, then as its stored keys.
pub fn fuzz_surb(data: &[u8]) {
    let (block, keys) = data.split_at(data.len().min(SURB_LEN));
    if let Ok(surb) = Surb::parse(block) {
        assert_eq!(surb.to_bytes()[..], *block);
        assert_eq!(surb.epoch().to_be_bytes(), block[33..37]);
        let mut packet = [0; PACKET_LEN];
        assert_eq!(surb.reply(&[7; BODY_LEN], &mut packet)[..], block[..32]);
        assert_eq!(packet[..HEADER_LEN], block[32..330]);
        assert!(peek(&packet).is_ok());
        let key = MixSecretKey::from_bytes(FUZZ_KEY);
        let _ = open(&packet, &key).and_then(|opened| opened.process(&mut packet));
    } else {
        assert!(block.len() != SURB_LEN || block[32] != VERSION);
    }
    if let Ok(parsed) = SurbKeys::from_bytes(keys) {
        assert_eq!(keys.len(), SURB_KEYS_LEN);
        assert_eq!(parsed.to_bytes()[..], *keys);
        assert_eq!(parsed.open(&mut [3; PAYLOAD_LEN]), Err(Reject::BadPayload));
    }
}
