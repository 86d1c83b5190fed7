use proptest::prelude::*;

use super::*;
use fog_base::NodeId;

const NETWORK: NetworkId = NetworkId([1; 32]);
const SUBCREDENTIAL: Subcredential = Subcredential([2; 32]);

fn point() -> PointKeys {
    PointKeys::from_seed(&[3; 32], NodeId([4; 32]))
}

fn start(request: &[u8; PLAINTEXT], seed: u8) -> (Initiator, Box<Introduction>) {
    Initiator::start(&NETWORK, &SUBCREDENTIAL, point().public(), request, &mut Random::new([seed; 32])).unwrap()
}

fn open(introduction: &Introduction) -> Result<Opened, HandshakeError> {
    point().open(&NETWORK, &[Subcredential([9; 32]), SUBCREDENTIAL], introduction)
}

#[test]
fn both_ends_get_the_same_keys() {
    let (initiator, introduction) = start(&[5; PLAINTEXT], 1);
    let opened = open(&introduction).unwrap();
    assert_eq!((opened.plaintext.as_slice(), opened.which), ([5; PLAINTEXT].as_slice(), 1));
    let (reply, keys) = opened.responder.respond(&mut Random::new([6; 32])).unwrap();
    assert_eq!(initiator.finish(&reply), Ok(keys.clone()));
    // A second answer has keys of its own.
    let (again, other) = opened.responder.respond(&mut Random::new([7; 32])).unwrap();
    assert_ne!((reply, keys.seed.as_slice()), (again, other.seed.as_slice()));
    assert_eq!(initiator.finish(&again), Ok(other));
}

#[test]
fn the_handshake_is_frozen() {
    let (_, introduction) = start(&[5; PLAINTEXT], 1);
    let (reply, keys) = open(&introduction).unwrap().responder.respond(&mut Random::new([6; 32])).unwrap();
    let all = [introduction.x.as_slice(), &introduction.ciphertext, &introduction.sealed, &reply.y, &reply.proof];
    let all = [all.concat().as_slice(), keys.seed.as_slice(), &keys.transcript].concat();
    assert_eq!(
        blake3::hash(&all).to_hex().as_str(),
        "520f6c48f369ac69252330187018529729085f9c19f652bde5d396662e3c7800"
    );
}

#[test]
fn every_flipped_bit_of_an_introduction_is_noticed() {
    let (_, introduction) = start(&[5; PLAINTEXT], 1);
    let point = point();
    let open = |other: &Introduction| point.open(&NETWORK, &[SUBCREDENTIAL], other);
    assert!(open(&introduction).is_ok());
    // Bit 255 of X changes no secret, but it changes the transcript.
    for bit in 0..256 {
        let mut other = introduction.clone();
        other.x[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&other).is_err(), "X, bit {bit}");
    }
    for bit in (0..KEM_CIPHERTEXT * 8).step_by(61) {
        let mut other = introduction.clone();
        other.ciphertext[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&other).is_err(), "ciphertext, bit {bit}");
    }
    for bit in (0..SEALED * 8).step_by(37) {
        let mut other = introduction.clone();
        other.sealed[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&other).is_err(), "sealed, bit {bit}");
    }
    assert!(point.open(&NetworkId([2; 32]), &[SUBCREDENTIAL], &introduction).is_err());
    assert!(point.open(&NETWORK, &[], &introduction).is_err());
    let other_point = PointKeys::from_seed(&[8; 32], NodeId([4; 32]));
    assert!(other_point.open(&NETWORK, &[SUBCREDENTIAL], &introduction).is_err());
}

#[test]
fn every_flipped_bit_of_an_answer_is_noticed() {
    let (initiator, introduction) = start(&[5; PLAINTEXT], 1);
    let (reply, keys) = open(&introduction).unwrap().responder.respond(&mut Random::new([6; 32])).unwrap();
    for bit in 0..512 {
        let mut other = reply;
        let byte = if bit < 256 { &mut other.y[bit / 8] } else { &mut other.proof[bit / 8 - 32] };
        *byte ^= 1 << (bit % 8);
        assert!(initiator.finish(&other).is_err(), "bit {bit}");
    }
    assert_eq!(initiator.finish(&reply), Ok(keys));
}

/// u-coordinates of small order (RFC 7748 and the list of Bernstein's curve25519 page), some not canonical.
fn small_order() -> Vec<[u8; 32]> {
    let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap();
    let mut one = [0; 32];
    one[0] = 1;
    vec![
        [0; 32],
        one,
        hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        hex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ]
}

#[test]
fn points_of_small_order_are_refused_on_every_side() {
    let (initiator, introduction) = start(&[5; PLAINTEXT], 1);
    for key in small_order() {
        let bad = Introduction { x: key, ..(*introduction).clone() };
        assert_eq!(open(&bad).err(), Some(HandshakeError::BadKey));
        let reply = Reply { y: key, proof: [0; 32] };
        assert_eq!(initiator.finish(&reply), Err(HandshakeError::BadKey));
        let point = IntroductionPoint { x25519: key, ..point().public().clone() };
        let started = Initiator::start(&NETWORK, &SUBCREDENTIAL, &point, &[0; PLAINTEXT], &mut Random::new([1; 32]));
        assert_eq!(started.err(), Some(HandshakeError::BadKey));
    }
}

#[test]
fn an_encapsulation_key_that_is_not_reduced_is_refused() {
    let mut point = point().public().clone();
    point.kem[..3].copy_from_slice(&[0xff; 3]);
    let started = Initiator::start(&NETWORK, &SUBCREDENTIAL, &point, &[0; PLAINTEXT], &mut Random::new([1; 32]));
    assert_eq!(started.err(), Some(HandshakeError::BadKey));
}

#[test]
fn a_request_to_be_a_point_holds_for_one_relay_and_one_circuit() {
    let keys = point();
    let establish = keys.establish(&NETWORK, &[5; 32], (200, 400));
    let relay = keys.public().relay.0;
    assert!(establish.verifies(&NETWORK, &relay, &[5; 32]));
    assert!(!establish.verifies(&NETWORK, &relay, &[6; 32]));
    assert!(!establish.verifies(&NETWORK, &[9; 32], &[5; 32]));
    assert!(!establish.verifies(&NetworkId([2; 32]), &relay, &[5; 32]));
    assert!(!EstablishIntro { rate: 201, ..establish }.verifies(&NETWORK, &relay, &[5; 32]));
    assert!(!EstablishIntro { burst: 1, ..establish }.verifies(&NETWORK, &relay, &[5; 32]));
    // The identity as a key verifies any message for lax verifiers.
    let mut weak = EstablishIntro { auth_key: [0; 32], signature: [0; 64], ..establish };
    (weak.auth_key[0], weak.signature[0]) = (1, 1);
    assert!(!weak.verifies(&NETWORK, &relay, &[5; 32]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_two_seeds_agree(point: [u8; 32], client: [u8; 32], service: [u8; 32], subcredential: [u8; 32]) {
        let point = PointKeys::from_seed(&point, NodeId([1; 32]));
        let subcredential = Subcredential(subcredential);
        let mut random = Random::new(client);
        let request = random.bytes();
        let (initiator, introduction) =
            Initiator::start(&NETWORK, &subcredential, point.public(), &request, &mut random).unwrap();
        let opened = point.open(&NETWORK, &[subcredential], &introduction).unwrap();
        prop_assert_eq!(opened.plaintext.as_slice(), request.as_slice());
        let (reply, keys) = opened.responder.respond(&mut Random::new(service)).unwrap();
        prop_assert_eq!(initiator.finish(&reply), Ok(keys));
    }
}
