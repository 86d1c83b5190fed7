use proptest::prelude::*;

use super::*;
use crate::core::testing::RoomSeal;

const KEY: TagKey = TagKey([4; 32]);
const NOW: UnixMillis = UnixMillis(1_800_000_123_456);

fn pack(length: usize) -> Result<Envelope, PackError> {
    let message = vec![7; length];
    Envelope::pack(&message, &mut RoomSeal(0), &KEY, Priority::Message, LIFETIME, NOW).map(|packed| packed.envelope)
}

#[test]
fn an_envelope_has_the_layout_of_the_readme() {
    let envelope = pack(100).unwrap();
    let bytes = envelope.encode();
    assert_eq!(bytes.len(), 512);
    assert_eq!(bytes[..4], [1, 7, 2, 0]);
    let expires = (NOW.as_secs() + 7 * 86_400).div_ceil(600) * 600;
    assert_eq!(bytes[4..8], u32::try_from(expires).unwrap().to_be_bytes());
    assert_eq!(bytes[8..24], KEY.tag(u32::try_from(expires).unwrap()));
    let mut outside = bytes;
    outside[1] = 0;
    let mut hasher = blake3::Hasher::new_derive_key("fog chat v1 envelope id");
    assert_eq!(envelope.id().0, *hasher.update(&outside).finalize().as_bytes());
}

#[test]
fn lengths_tell_one_of_six() {
    // The room's seal adds 42 bytes, the header 24.
    for (length, size) in [(0, 512), (446, 512), (447, 1_024), (1_000, 2_048), (8_000, 8_192), (15_360, 16_000)] {
        assert_eq!(pack(length).unwrap().len_bytes(), size, "{length}");
    }
    assert_eq!(pack(15_935), Err(PackError::TooLong));
}

#[test]
fn an_envelope_opens_after_hops_and_keeps_its_id() {
    let packed = pack(10).unwrap();
    let mut envelope = packed.clone();
    for hops in (0..MAX_HOPS).rev() {
        envelope = Envelope::parse(&envelope.forwarded().unwrap().encode(), NOW).unwrap();
        assert_eq!((envelope.hops(), envelope.id()), (hops, packed.id()));
        assert_eq!(envelope.open(&mut RoomSeal(0)).unwrap().plaintext, vec![7; 10]);
    }
    assert_eq!(envelope.forwarded(), Err(Reject::NoHops));
}

#[test]
fn every_flipped_bit_outside_the_hops_is_noticed() {
    let good = pack(10).unwrap();
    for bit in (0..good.len_bytes() * 8).filter(|bit| bit / 8 != 1) {
        let mut bytes = good.encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let opened = Envelope::parse(&bytes, NOW).and_then(|envelope| envelope.open(&mut RoomSeal(0)));
        assert!(opened.is_err(), "bit {bit}");
    }
}

#[test]
fn time_is_checked_with_a_minutes_tolerance() {
    let envelope = pack(10).unwrap();
    let bytes = envelope.encode();
    let end = envelope.expires_at();
    let parse = |now| Envelope::parse(&bytes, now).map(|_| ());
    assert_eq!(parse(end.plus(Duration::from_secs(60))), Ok(()));
    assert_eq!(parse(end.plus(Duration::from_secs(61))), Err(Reject::Expired));
    assert_eq!(parse(end.minus(MAX_LIFETIME).minus(Duration::from_secs(60))), Ok(()));
    assert_eq!(parse(end.minus(MAX_LIFETIME).minus(Duration::from_secs(61))), Err(Reject::Expired));
}

#[test]
fn the_longest_life_is_not_too_long() {
    for seconds in [0, 1, 599, 600, 123_456] {
        let now = UnixMillis(1_800_000_000_000 + seconds * 1_000);
        let year = Duration::from_secs(365 * 86_400);
        let packed = Envelope::pack(b"x", &mut RoomSeal(0), &KEY, Priority::Bulk, year, now).unwrap();
        assert!(Envelope::parse(&packed.envelope.encode(), now).is_ok());
    }
}

#[test]
fn other_lengths_versions_and_fields_are_refused() {
    let good = pack(10).unwrap().encode();
    for length in [0, 1, 24, 511, 513, 16_001, 100_000] {
        let mut bytes = good.clone();
        bytes.resize(length, 0);
        assert_eq!(Envelope::parse(&bytes, NOW), Err(Reject::Malformed), "{length}");
    }
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Envelope::parse(&bytes, NOW)
    };
    assert_eq!(with(0, 2), Err(Reject::UnknownVersion));
    for (at, value) in [(1, 8), (2, 4), (3, 1), (7, good[7] ^ 1)] {
        assert_eq!(with(at, value), Err(Reject::Malformed), "byte {at}");
    }
}

#[test]
fn a_sealer_that_breaks_its_word_sends_nothing() {
    #[derive(Debug)]
    struct Short;
    impl Seal for Short {
        fn overhead(&self) -> usize {
            0
        }
        fn seal(&mut self, _: &[u8], _: &[u8], length: usize) -> Result<crate::core::seal::Sealed, SealError> {
            Ok(crate::core::seal::Sealed { ciphertext: vec![0; length - 1], state: Vec::new() })
        }
        fn open(&mut self, _: &[u8], _: &[u8]) -> Result<Opened, SealError> {
            Err(SealError)
        }
    }
    let packed = Envelope::pack(b"x", &mut Short, &KEY, Priority::Bulk, LIFETIME, NOW);
    assert_eq!(packed, Err(PackError::Seal(SealError)));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 512)) {
        let plausible = [&[1, 3, 2, 0][..], &bytes[4..]].concat();
        for bytes in [bytes, plausible] {
            let opened = Envelope::parse(&bytes, NOW).and_then(|envelope| envelope.open(&mut RoomSeal(0)));
            prop_assert!(opened.is_err());
        }
    }
}
