use proptest::prelude::*;

use super::*;
use crate::core::testing::{NETWORK, ROOM, dag, key, sign, write};

#[test]
fn a_message_survives_the_wire_and_verifies() {
    let message = write(&mut dag(), 1, "hello");
    let bytes = message.encode();
    assert_eq!(bytes.len(), message.len_bytes());
    let parsed = Message::parse(&bytes, &NETWORK).unwrap();
    assert_eq!(parsed.id(), message.id());
    let verified = parsed.verify(&ROOM, &mut KeyCache::default()).unwrap();
    assert_eq!((verified.body(), &verified), (&b"hello"[..], &message));
    let header = SignedHeader::parse(message.signed_header().as_bytes(), &NETWORK).unwrap();
    assert_eq!(&header, message.signed_header());
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = write(&mut dag(), 1, "hello").encode();
    let mut keys = KeyCache::default();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let outcome = Message::parse(&bytes, &NETWORK).and_then(|message| message.verify(&ROOM, &mut keys));
        assert!(outcome.is_err(), "bit {bit}");
    }
}

#[test]
fn a_message_of_one_network_is_worthless_in_another() {
    let good = write(&mut dag(), 1, "hello").encode();
    let message = Message::parse(&good, &NetworkId([1; 32])).unwrap();
    assert_eq!(message.verify(&ROOM, &mut KeyCache::default()), Err(Reject::BadSignature));
}

#[test]
fn the_id_does_not_tell_a_short_body() {
    let draft = dag().draft(crate::core::testing::device(1)).unwrap();
    let with = |salt| Message::sign(draft.clone(), &NETWORK, &key(1), Kind::TEXT, 0, [salt; 16], b"yes").unwrap();
    assert_ne!(with(1).header().body_hash, with(2).header().body_hash);
}

#[test]
fn what_is_too_long_or_anothers_is_not_signed() {
    let draft = dag().draft(crate::core::testing::device(1)).unwrap();
    let body = vec![0; MAX_MESSAGE];
    let long = Message::sign(draft.clone(), &NETWORK, &key(1), Kind::TEXT, 0, [0; 16], &body);
    assert_eq!(long, Err(Reject::Malformed));
    assert_eq!(Message::sign(draft, &NETWORK, &key(2), Kind::TEXT, 0, [0; 16], b""), Err(Reject::Malformed));
    let mut bytes = sign(dag().draft(crate::core::testing::device(1)).unwrap(), 1, "x").encode();
    bytes.resize(MAX_MESSAGE + 1, 0);
    assert_eq!(Message::parse(&bytes, &NETWORK), Err(Reject::Malformed));
}

#[test]
fn a_weak_key_signs_nothing() {
    let mut draft = dag().draft(DeviceId([0; 32])).unwrap();
    draft.header.body_hash = body_hash(&[0; 16], b"");
    // The point of order 4 with y = 0: some signatures under it verify for any message, unless checked strictly.
    let bytes = [draft.header.encode(), vec![0; SIGNATURE + SALT]].concat();
    let message = Message::parse(&bytes, &NETWORK).unwrap();
    assert_eq!(message.verify(&ROOM, &mut KeyCache::default()), Err(Reject::BadSignature));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let with_version = [&[1][..], &bytes].concat();
        for bytes in [bytes, with_version] {
            let outcome = Message::parse(&bytes, &NETWORK).and_then(|m| m.verify(&ROOM, &mut KeyCache::default()));
            prop_assert!(outcome.is_err());
        }
    }
}
