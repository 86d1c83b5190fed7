use fog_base::{EpochSchedule, NodeId, UnixMillis};
use proptest::prelude::*;
use std::time::Duration;

use super::*;
use crate::core::{
    blinding::{BlindedSecret, Fog, Identity},
    handshake::PointKeys,
    period::Calendar,
    random::Random,
};

const NETWORK: NetworkId = NetworkId([7; 32]);
const PERIOD: Period = Period(20_000);

fn calendar() -> Calendar {
    Calendar { network: NETWORK, schedule: EpochSchedule::new(Duration::from_secs(1800)) }
}

fn epoch() -> Epoch {
    Epoch(PERIOD.first_epoch().0 + 10)
}

fn service() -> (BlindedSecret, Subcredential) {
    let identity = Identity::from_seed([9; 32]).unwrap();
    let secret = identity.blind::<Fog>(&calendar().context(PERIOD));
    let subcredential = Subcredential::derive::<Fog>(identity.key(), secret.key());
    (secret, subcredential)
}

fn contents(points: u8) -> Contents {
    let points = (0..points).map(|n| PointKeys::from_seed(&[n; 32], NodeId([n; 32])).public().clone());
    let puzzle = Some(PuzzleOffer { seed: [3; 32], effort: 40, last_epoch: Epoch(99) });
    Contents { single_hop: false, points: points.collect(), puzzle, mixed: None }
}

fn seal(contents: &Contents, clients: Option<&[ClientKey]>, seed: u8) -> Result<Vec<u8>, DescriptorError> {
    let (secret, subcredential) = service();
    let last_epoch = Epoch(epoch().0 + LIFETIME);
    let draft = Draft { network: &NETWORK, period: PERIOD, last_epoch, revision: 77, contents, clients };
    draft.seal(&secret, &subcredential, &mut Random::new([seed; 32]))
}

fn client(n: u8) -> ClientSecret {
    ClientSecret::from_bytes([n; 32])
}

#[test]
fn what_is_sealed_is_read_by_who_knows_the_name() {
    let contents = contents(3);
    let bytes = seal(&contents, None, 1).unwrap();
    let descriptor = Descriptor::parse(&bytes, &NETWORK).unwrap();
    assert_eq!(descriptor.open(&service().1, None), Ok(contents.clone()));
    assert_eq!(descriptor.open(&service().1, Some(&client(1))), Ok(contents), "a key that is not needed");
    assert_eq!(descriptor.open(&Subcredential([1; 32]), None), Err(DescriptorError::OtherService));
    assert_eq!((descriptor.header().revision, descriptor.header().period), (77, PERIOD));
}

#[test]
fn sizes_are_fixed() {
    for (points, size) in [(1, 4096), (2, 4096), (3, 8192), (5, 8192), (6, 16384), (12, 16384)] {
        assert_eq!(seal(&contents(points), None, 1).unwrap().len(), size, "{points}");
    }
    assert!(matches!(seal(&contents(13), None, 1), Err(DescriptorError::Size(_))));
    assert!(matches!(seal(&contents(0), None, 1), Err(DescriptorError::Malformed(_))));
    // Clients do not show in the size until there are more than 16, 32, …
    let clients: Vec<_> = (0..160).map(|n| client(n).public()).collect();
    for (n, size) in [(0, 8192), (1, 8192), (16, 8192), (17, 8192), (64, 8192), (160, 16384)] {
        assert_eq!(seal(&contents(3), Some(&clients[..n]), 1).unwrap().len(), size, "{n}");
    }
}

#[test]
fn only_the_clients_that_are_named_read_it() {
    let clients: Vec<_> = (1..=17).map(|n| client(n).public()).collect();
    let bytes = seal(&contents(2), Some(&clients), 2).unwrap();
    let descriptor = Descriptor::parse(&bytes, &NETWORK).unwrap();
    for n in 1..=17 {
        assert_eq!(descriptor.open(&service().1, Some(&client(n))), Ok(contents(2)), "{n}");
    }
    assert_eq!(descriptor.open(&service().1, Some(&client(18))), Err(DescriptorError::ClientKeyWrong));
    assert_eq!(descriptor.open(&service().1, None), Err(DescriptorError::ClientKeyMissing));
    // A client key of small order has no slot, and nobody opens the descriptor with it.
    let nobody = seal(&contents(2), Some(&[ClientKey([0; 32])]), 2).unwrap();
    let nobody = Descriptor::parse(&nobody, &NETWORK).unwrap();
    assert_eq!(nobody.open(&service().1, Some(&client(1))), Err(DescriptorError::ClientKeyWrong));
}

#[test]
fn a_client_key_reads_back_as_it_prints() {
    let key = client(1).public();
    assert_eq!(key.to_string().parse(), Ok(key));
    assert_eq!(key.to_string().len(), 52);
    for text in ["", "abc", &"1".repeat(52), &"a".repeat(53)] {
        assert_eq!(text.parse::<ClientKey>(), Err(KeyError), "{text}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = seal(&contents(1), None, 3).unwrap();
    let (_, subcredential) = service();
    // All of the header and of the signature, and a part of the layers.
    for bit in (0..HEADER * 8).chain((HEADER * 8..4032 * 8).step_by(997)).chain(4032 * 8..4096 * 8) {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(Descriptor::parse(&other, &NETWORK).is_err(), "bit {bit}");
    }
    assert!(Descriptor::parse(&bytes, &NetworkId([8; 32])).is_err(), "another network");
    assert!(Descriptor::parse(&bytes, &NETWORK).unwrap().open(&subcredential, None).is_ok());
}

#[test]
fn sizes_versions_and_flags_are_told_apart() {
    let bytes = seal(&contents(1), None, 3).unwrap();
    for length in [0, 1, 165, 4095, 4097, 16385] {
        let mut other = bytes.clone();
        other.resize(length, 0);
        assert_eq!(Descriptor::parse(&other, &NETWORK), Err(DescriptorError::Size(length)));
    }
    let with = |at: usize, byte| {
        let mut other = bytes.clone();
        other[at] = byte;
        Descriptor::parse(&other, &NETWORK)
    };
    assert_eq!(with(0, 2), Err(DescriptorError::Version(2)));
    assert_eq!(with(1, 1), Err(DescriptorError::Malformed("unknown flags")));
    assert_eq!(with(21, bytes[21] ^ 1), Err(DescriptorError::Signature), "the revision");
    assert_eq!(with(13, bytes[13] ^ 1), Err(DescriptorError::Certificate), "the period");
    assert_eq!(with(4095, bytes[4095] ^ 0x80), Err(DescriptorError::Signature));
}

#[test]
fn blinded_keys_of_small_order_and_with_torsion_are_refused() {
    use curve25519_dalek::{constants::EIGHT_TORSION, edwards::CompressedEdwardsY};
    let bytes = seal(&contents(1), None, 3).unwrap();
    let point = CompressedEdwardsY(bytes[22..54].try_into().unwrap()).decompress().unwrap();
    for torsion in &EIGHT_TORSION[1..] {
        for key in [*torsion, point + torsion] {
            let mut other = bytes.clone();
            other[22..54].copy_from_slice(&key.compress().0);
            assert_eq!(Descriptor::parse(&other, &NETWORK), Err(DescriptorError::BlindedKey));
        }
    }
}

#[test]
fn it_is_valid_in_its_time_only() {
    let descriptor = Descriptor::parse(&seal(&contents(1), None, 3).unwrap(), &NETWORK).unwrap();
    let last = epoch().0 + LIFETIME;
    assert_eq!(descriptor.check(epoch()), Ok(()));
    assert_eq!(descriptor.check(Epoch(last)), Ok(()));
    assert_eq!(descriptor.check(Epoch(last + 1)), Err(DescriptorError::Expired));
    assert_eq!(descriptor.check(Epoch(epoch().0 - 1)), Ok(()), "a clock that is ahead");
    assert_eq!(descriptor.check(Epoch(epoch().0 - 2)), Err(DescriptorError::Lifetime));
    assert_eq!(descriptor.check(Epoch(PERIOD.first_epoch().0 - 3)), Err(DescriptorError::Period));
    assert_eq!(descriptor.check(Epoch(0)), Err(DescriptorError::Period));
    assert_eq!(descriptor.check(Epoch(u32::MAX)), Err(DescriptorError::Period));
}

#[test]
fn what_a_service_says_of_the_level_mixed_survives_and_has_one_form() {
    let contents = Contents { mixed: Some(MixedOffer { request: 64, answer: 256 }), ..contents(2) };
    let mut bytes = contents.write();
    assert_eq!(Contents::read(&bytes), Ok(contents));
    // Its length stands before its four bytes.
    let at = bytes.len() - 5;
    for length in [0, 3, 5] {
        bytes[at] = length;
        assert!(Contents::read(&bytes).is_err(), "{length}");
    }
}

#[test]
fn a_descriptor_is_frozen() {
    // Everything is a function of the seed: a second implementation of README makes the same bytes.
    let hash = blake3::hash(&seal(&contents(3), Some(&[client(1).public()]), 5).unwrap());
    assert_eq!(hash.to_hex().as_str(), "bec2bb23f57c58e7a9dd8bfa3ff5be407be60192c0204f4592a3557c47bece90");
}

#[test]
fn revisions_grow_with_time_and_do_not_need_it() {
    let (secret, _) = service();
    let revisions = Revisions::new(&calendar(), PERIOD);
    let start = calendar().schedule.start(PERIOD.beacon_epoch());
    let step = |seconds, last| revisions.step(start.plus(Duration::from_secs(seconds)), last);
    assert_eq!(step(0, None), 0);
    assert!(step(60, None) > step(58, None));
    assert_eq!(step(60, Some(1 << 20)), (1 << 20) + 1, "the clock was set back");
    assert_eq!(revisions.step(UnixMillis(0), None), 0);
    assert_eq!(step(u32::MAX.into(), None), 1 << 17);
    let mut before = 0;
    for n in (0..5000).chain((1 << 17) - 10..1 << 17) {
        let revision = Revisions::encrypt(&secret, n);
        assert!(revision > before, "{n}");
        before = revision;
    }
    // Not the clock: the same step has other revisions under other keys, 65,536 · n / 2 in the mean.
    let other = Identity::from_seed([10; 32]).unwrap().blind::<Fog>(&calendar().context(PERIOD));
    assert_ne!(Revisions::encrypt(&other, 4000), Revisions::encrypt(&secret, 4000));
    assert_eq!(Revisions::encrypt(&secret, u64::MAX), Revisions::encrypt(&secret, (1 << 24) - 1));
}

/// The inner layer of these bytes, signed and sealed as it should be: what a hostile service can make.
fn hostile(inner: &[u8]) -> Result<Contents, DescriptorError> {
    let mut padded = inner.to_vec();
    padded.resize(3000, 0);
    Contents::read(&padded)
}

#[test]
fn what_a_hostile_service_signs_is_refused_too() {
    let point = [5; 1281].as_slice();
    let other = [6; 1281].as_slice();
    assert!(hostile(&[&[0, 1], point, &[0]].concat()).is_ok());
    assert!(hostile(&[&[0xff, 2], point, other, &[0]].concat()).is_ok(), "unknown flags are ignored");
    let cases: [(&str, Vec<u8>); 10] = [
        ("no point", vec![0, 0]),
        ("too many points", vec![0, 21]),
        ("points cut off", vec![0, 3]),
        ("a point twice", [&[0, 2], point, point, &[0]].concat()),
        ("too many extensions", [&[0, 1], point, &[17]].concat()),
        ("an extension cut off", [&[0, 1], point, &[1, 9, 0xff, 0xff]].concat()),
        ("a puzzle of another length", [&[0, 1], point, &[1, 1, 0, 39]].concat()),
        ("two puzzles", [&[0, 1], point, &[2, 1, 0, 40], &[0; 40], &[1, 0, 40]].concat()),
        ("bytes in the padding", [&[0, 1], point, &[0, 1]].concat()),
        ("more after the padding", [&[0, 1], point, &[0], &[0; 1000], &[1]].concat()),
    ];
    for (what, inner) in cases {
        assert!(matches!(hostile(&inner), Err(DescriptorError::Malformed(_))), "{what}");
    }
    let unknown = [&[0, 1], point, &[2, 200, 0, 3, 1, 2, 3, 1, 0, 40], [8; 40].as_slice()].concat();
    assert_eq!(hostile(&unknown).unwrap().puzzle.unwrap().seed, [8; 32], "unknown extensions are skipped");
}

#[test]
fn slots_out_of_range_are_refused() {
    for groups in [0, 11, 255] {
        let outer = [[1; 32].as_slice(), &[groups], &[0; 10_000]].concat();
        assert!(auth::Slots::read(&outer).is_err(), "{groups}");
    }
    assert!(auth::Slots::read(&[1; 33]).is_err() && auth::Slots::read(&[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 4096), inner: Vec<u8>) {
        bytes[..2].copy_from_slice(&[1, 0]);
        prop_assert!(Descriptor::parse(&bytes, &NETWORK).is_err());
        let _ = Contents::read(&inner);
        let _ = auth::Slots::read(&bytes);
    }

    #[test]
    fn steps_never_fall(times in proptest::collection::vec(0u64..200_000_000, 1..30)) {
        let revisions = Revisions::new(&calendar(), PERIOD);
        let start = calendar().schedule.start(PERIOD.beacon_epoch()).0;
        let mut last = None;
        for time in times {
            let step = revisions.step(UnixMillis(start + time), last);
            prop_assert!(last.is_none_or(|last| step > last));
            last = Some(step);
        }
    }
}
