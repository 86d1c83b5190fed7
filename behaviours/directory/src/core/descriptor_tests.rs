use fog_base::relay::Role;

use super::*;
use crate::core::{
    loops::LoopEntry,
    testing::{EPOCH, NETWORK, address, facts, identity, mix_key, relay, schedule, sign, sign_candidate, start, vrf},
};

fn read(bytes: &[u8], now: UnixMillis) -> Result<Descriptor, Reject> {
    Descriptor::verify(SignedRecord::parse(bytes)?, &NETWORK, &schedule(), now)
}

/// Signs a body that `sign` would refuse to make.
fn forged(change: impl FnOnce(&mut Body), expires: UnixMillis) -> Vec<u8> {
    let now = start().unix;
    let vrf = vrf(1);
    let outputs = delay_vrf::prove(&vrf, &NETWORK, EPOCH, &[1; 32]);
    let mut body = Body::new((&facts(1, EPOCH), &Candidacy::default()), EPOCH, vrf.public.to_bytes(), &outputs);
    change(&mut body);
    let validity = Validity { seq: now.0, not_before: now, lifetime: expires.since(now) };
    SignedRecord::sign(&KIND, &NETWORK, &identity(1), validity, &body).unwrap().as_bytes().to_vec()
}

fn end() -> UnixMillis {
    schedule().end(EPOCH.next())
}

#[test]
fn a_descriptor_survives_the_wire_with_all_its_facts() {
    let mut facts = facts(1, EPOCH);
    facts.family = Some([6; 16]);
    facts.exit_policy = Some("accept *:443".into());
    let signed = sign(1, &facts, EPOCH, 77, start().unix);
    let read = read(signed.as_bytes(), start().unix).unwrap();
    assert_eq!(read, signed);
    assert_eq!((read.facts(), read.epoch(), read.seq(), read.expires()), (&facts, EPOCH, 77, end()));
}

#[test]
fn a_usual_descriptor_has_at_most_700_bytes() {
    let mut facts = facts(1, EPOCH);
    facts.addresses = ["8.8.8.8", "8.8.8.9", "2001:db8::1", "2001:db8::2"].map(address).to_vec();
    facts.family = Some([6; 16]);
    let length = sign(1, &facts, EPOCH, u64::MAX, start().unix).as_bytes().len();
    assert!(length <= 700, "{length} bytes");
    facts.addresses = vec![address("2001:db8::1"); MAX_ADDRESSES];
    facts.exit_policy = Some("x".repeat(MAX_EXIT_POLICY));
    facts.mix_versions = vec![u16::MAX; MAX_VERSIONS];
    let entries = (0..360).map(|rank| LoopEntry { rank, delivered: 63, lost: 1 }).collect();
    let candidacy = Candidacy {
        ticket: Some(Ticket { output: [0xff; 32], proof: [0xff; 64] }),
        loops: SignedLoops::new(EPOCH, entries),
    };
    assert!(candidacy.loops.is_some());
    // Without the circuit key, which is one of the extensions.
    let without_key = Facts { circuit_key: None, ..facts.clone() };
    let largest = sign_candidate(1, (&without_key, &candidacy), EPOCH, u64::MAX, start().unix);
    assert!(largest.as_bytes().len() + MAX_EXTENSIONS + 2 <= MAX_LEN, "{} bytes", largest.as_bytes().len());
    let now = start().unix;
    let candidate = sign_candidate(1, (&facts, &candidacy), EPOCH, now.0, now);
    assert_eq!(read(candidate.as_bytes(), now).unwrap().candidacy(), &candidacy);
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = relay(1);
    for bit in (0..good.as_bytes().len() * 8).step_by(3) {
        let mut bytes = good.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bytes, start().unix).is_err(), "bit {bit}");
    }
}

#[test]
fn it_is_believed_until_the_next_epoch_ends_and_not_from_the_future() {
    let (good, now) = (relay(1), start().unix);
    assert_eq!(read(good.as_bytes(), end().minus(Duration::from_secs(1))).map(|d| d.relay()), Ok(good.relay()));
    assert_eq!(read(good.as_bytes(), end()), Err(Reject::Expired));
    assert_eq!(read(good.as_bytes(), now.minus(Duration::from_secs(62))), Err(Reject::TooEarly));
    let late = sign(1, &facts(1, EPOCH), EPOCH, now.0 + 61_000, now);
    assert_eq!(read(late.as_bytes(), now), Err(Reject::TooEarly), "a sequence number from the future");
    let epoch = Epoch(EPOCH.0 + 1);
    let early = sign(1, &facts(1, epoch), epoch, now.0, now);
    assert_eq!(read(early.as_bytes(), now), Err(Reject::TooEarly), "an epoch from the future");
    let near = schedule().start(epoch).minus(Duration::from_secs(30));
    assert!(read(early.as_bytes(), near).is_ok(), "a clock may be half a minute behind");
    assert_eq!(read(&forged(|_| {}, end().plus(Duration::from_secs(1))), now), Err(Reject::Malformed), "too long");
}

#[test]
fn mix_keys_on_the_twist_with_torsion_or_not_canonical_are_refused() {
    let good = mix_key(1);
    let twist = (0u8..).map(|n| [n; 32]).find(|key| MontgomeryPoint(*key).to_edwards(0).is_none()).unwrap();
    let torsion = curve25519_dalek::constants::EIGHT_TORSION[1];
    let with_torsion = (MontgomeryPoint(good).to_edwards(0).unwrap() + torsion).to_montgomery().to_bytes();
    let mut high_bit = good;
    high_bit[31] |= 0x80;
    let one = [&[1u8][..], &[0; 31]].concat().try_into().unwrap();
    for (what, key) in
        [("twist", twist), ("torsion", with_torsion), ("bit 255", high_bit), ("u = 0", [0; 32]), ("u = 1", one)]
    {
        assert!(!is_prime_order_key(&key), "{what}");
        assert_eq!(read(&forged(|body| body.mix_key = key, end()), start().unix), Err(Reject::BadKey), "{what}");
        assert_eq!(read(&forged(|body| body.next_mix_key = key, end()), start().unix), Err(Reject::BadKey), "{what}");
    }
    assert!(is_prime_order_key(&good));
}

#[test]
fn what_the_readme_forbids_is_refused() {
    let now = start().unix;
    assert!(read(&forged(|_| {}, end()), now).is_ok());
    let bytes = |ip: &str| ByteBuf::from(address(ip).to_bytes());
    type Change = Box<dyn FnOnce(&mut Body)>;
    let cases: Vec<(&str, Change)> = vec![
        ("no address", Box::new(|body| body.addresses.clear())),
        ("nine addresses", Box::new(move |body| body.addresses = vec![bytes("8.8.8.8"); 9])),
        ("loopback and more", Box::new(move |body| body.addresses = vec![bytes("127.0.0.1"), bytes("8.8.8.8")])),
        ("garbage address", Box::new(|body| body.addresses = vec![ByteBuf::from(vec![1, 2, 3])])),
        ("only a role of a later release", Box::new(|body| body.roles = 1 << 9)),
        ("no role", Box::new(|body| body.roles = 0)),
        ("no version", Box::new(|body| body.mix_versions.clear())),
        ("a short family", Box::new(|body| body.family = Some(ByteBuf::from(vec![1])))),
        ("a short ticket", Box::new(|body| body.ticket = Some(ByteBuf::from(vec![1; 95])))),
        ("loops without an epoch", Box::new(|body| body.loops = Some(ByteBuf::from(vec![1; 3])))),
        (
            "loops out of order",
            Box::new(|body| body.loops = Some(ByteBuf::from([[0; 4], [0, 1, 9, 0], [0, 1, 9, 0]].concat()))),
        ),
        ("long extensions", Box::new(|body| body.extensions = Some(ByteBuf::from(vec![1; 513])))),
        ("a long policy", Box::new(|body| body.exit_policy = Some("x".repeat(257)))),
    ];
    for (what, change) in cases {
        assert_eq!(read(&forged(change, end()), now), Err(Reject::Malformed), "{what}");
    }
    assert_eq!(read(&forged(|body| body.vrf_output = body.next_vrf_output, end()), now), Err(Reject::BadVrf));
    assert_eq!(read(&forged(|body| body.epoch = Epoch(EPOCH.0 - 1), end()), now), Err(Reject::Malformed));
}

#[test]
fn what_a_later_release_adds_is_no_reason_to_refuse_it() {
    let later = forged(
        |body| {
            body.roles |= 1 << 9;
            body.extensions = Some(ByteBuf::from(vec![7; 512]));
            body.mix_versions = vec![1, 2, 3];
        },
        end(),
    );
    let read = read(&later, start().unix).unwrap();
    assert_eq!((read.facts().roles, &read.facts().mix_versions), (facts(1, EPOCH).roles, &vec![1, 2, 3]));
}

fn with_extensions(bytes: Option<Vec<u8>>) -> Option<[u8; 32]> {
    let bytes = forged(|body| body.extensions = bytes.map(ByteBuf::from), end());
    read(&bytes, start().unix).unwrap().facts().circuit_key
}

#[test]
fn the_circuit_key_is_the_first_extension_of_its_type() {
    let (key, other) = (mix_key(1), mix_key(2));
    let entry = |number: u8, content: &[u8]| [&[number, 0, content.len() as u8][..], content].concat();
    assert_eq!(with_extensions(Some(entry(1, &key))), Some(key));
    assert_eq!(with_extensions(Some([entry(9, &[]), entry(200, &[1; 99]), entry(1, &key)].concat())), Some(key));
    assert_eq!(with_extensions(Some([entry(1, &key), entry(1, &other), vec![1]].concat())), Some(key));
}

#[test]
fn a_relay_whose_circuit_key_is_absent_or_bad_is_on_no_circuit_and_its_descriptor_stays_valid() {
    let key = mix_key(1);
    let torsion = EdwardsPoint::mul_base_clamped([5; 32]) + curve25519_dalek::constants::EIGHT_TORSION[1];
    let mut not_canonical = [0xff; 32];
    not_canonical[31] = 0x7f;
    let twist = (0u8..).map(|n| [n; 32]).find(|key| MontgomeryPoint(*key).to_edwards(0).is_none()).unwrap();
    for bad in [[0; 32], torsion.to_montgomery().to_bytes(), not_canonical, twist] {
        assert_eq!(with_extensions(Some([&[1, 0, 32][..], &bad].concat())), None, "{bad:?}");
    }
    assert_eq!(with_extensions(None), None);
    for cut in 0..35 {
        assert_eq!(with_extensions(Some([&[1, 0, 32][..], &key].concat()[..cut].to_vec())), None, "{cut} bytes");
    }
    assert_eq!(with_extensions(Some([&[1, 0, 31][..], &key].concat())), None);
    assert_eq!(with_extensions(Some([&[9, 1, 0][..], &[1, 0, 32], &key].concat())), None, "inside what does not end");
}

proptest::proptest! {
    #[test]
    fn no_extensions_make_a_descriptor_false(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..=512)) {
        with_extensions(Some(bytes));
    }
}

#[test]
fn our_own_facts_are_checked_before_they_are_signed() {
    let (identity, vrf, schedule) = (identity(1), vrf(1), schedule());
    let sign = |facts: &Facts| {
        let contents = (facts, &Candidacy::default());
        Descriptor::sign((&identity, &vrf), (&NETWORK, &schedule), contents, (EPOCH, 1), start().unix, &[1; 32])
            .map(|descriptor| descriptor.relay())
    };
    let mut facts = facts(1, EPOCH);
    facts.roles = Roles::NONE;
    assert_eq!(sign(&facts), Err(SignError::Facts(Reject::Malformed)));
    facts.roles = Roles::NONE.with(Role::Mix);
    let good = facts.clone();
    facts.mix_keys[1] = [0; 32];
    assert_eq!(sign(&facts), Err(SignError::Facts(Reject::BadKey)));
    assert_eq!(sign(&Facts { circuit_key: Some([0; 32]), ..good }), Err(SignError::Facts(Reject::BadKey)));
}

proptest::proptest! {
    #[test]
    fn garbage_in_a_signed_body_never_panics(body in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        let validity = Validity { seq: 1, not_before: start().unix, lifetime: Duration::from_secs(60) };
        let body = ByteBuf::from(body);
        let record = SignedRecord::sign(&KIND, &NETWORK, &identity(1), validity, &body).unwrap();
        proptest::prop_assert!(read(record.as_bytes(), start().unix).is_err());
    }
}

/// A descriptor of release 0.1 with everything in it: each later release must read it.
const FROZEN: &str = include_str!("../../tests/fixtures/descriptor_v1.hex");

fn frozen() -> Descriptor {
    let now = UnixMillis(schedule().start(EPOCH).0 + 60_000);
    let family = Some([6; 16]);
    let facts = Facts { family, exit_policy: Some("reject *".into()), circuit_key: None, ..facts(1, EPOCH) };
    let entries = vec![LoopEntry { rank: 0, delivered: 40, lost: 2 }, LoopEntry { rank: 7, delivered: 16, lost: 0 }];
    let candidacy =
        Candidacy { ticket: Some(Ticket { output: [3; 32], proof: [4; 64] }), loops: SignedLoops::new(EPOCH, entries) };
    sign_candidate(1, (&facts, &candidacy), EPOCH, now.0, now)
}

#[test]
fn a_descriptor_of_release_0_1_is_read_as_it_was_meant() {
    let bytes = data_encoding::HEXLOWER.decode(FROZEN.trim().as_bytes()).unwrap();
    let read = read(&bytes, UnixMillis(schedule().start(EPOCH).0 + 60_000)).unwrap();
    let meant = frozen();
    assert_eq!((read.facts(), read.candidacy(), read.epoch()), (meant.facts(), meant.candidacy(), EPOCH));
    assert_eq!((read.relay(), read.seq(), read.expires()), (meant.relay(), meant.seq(), meant.expires()));
    assert_eq!(
        (read.vrf_key(), read.hop(EPOCH), read.hop(EPOCH.next())),
        (meant.vrf_key(), meant.hop(EPOCH), meant.hop(EPOCH.next()))
    );
}

#[test]
#[ignore = "writes the fixture, once for a release"]
fn write_the_frozen_descriptor() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/descriptor_v1.hex");
    assert!(std::fs::metadata(path).is_ok_and(|file| file.len() == 0), "a released fixture never changes");
    std::fs::write(path, data_encoding::HEXLOWER.encode(frozen().as_bytes()) + "\n").unwrap();
}
