use curve25519_dalek::constants::EIGHT_TORSION;
use proptest::prelude::*;

use super::*;

/// Tor's constants (rend-spec-v3).
pub(crate) struct Tor;

impl Constants for Tor {
    const SUFFIX: &'static str = ".onion";
    const VERSION: u8 = 3;
    const CHECKSUM: &'static [u8] = b".onion checksum";
    const BLIND: &'static [u8] = b"Derive temporary signing key\0";
    const BLIND_PREFIX: &'static [u8] = b"Derive temporary signing key hash input";
    const NONCE: &'static [u8] = b"key-blind";
    const CREDENTIAL: &'static [u8] = b"credential";
    const SUBCREDENTIAL: &'static [u8] = b"subcredential";
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
}

const NETWORK: [u8; 32] = [3; 32];

fn context(period: u64) -> Context<'static> {
    Context { secret: &NETWORK, period, length: 86_400 }
}

#[test]
fn tors_vectors_hold_with_tors_constants() {
    // Made with C tor; the same as in Arti's tor-hscrypto.
    let key = ServiceKey::from_bytes(hex("833990b085c1a688c1d4c8b1f6b56afaf5a2eca674449e1d704f83765ccb7bc6")).unwrap();
    let secret = ExpandedSecretKey::from_bytes(&hex(
        "d8c7ff0e31295b66540d789af3e3df992038a9592eea01d8b7cba06d6e66d1594d6167696320576f7264733a20737065697373636f62616c742062697669756d",
    ));
    let context = Context { secret: b"", period: 1234, length: 1440 };
    assert_eq!(context.factor::<Tor>(&key), hex("379e50db31fee6775abd0af6fb7c371e060308f4f847db09fe4cfe13af602287"));
    let blinded = BlindedKey::derive::<Tor>(&key, &context);
    assert_eq!(blinded.0, hex("3a50bf210e8f9ee955ae0014f7a6917fb65ebf098a86305abb508d1a7291b6d5"));
    assert_eq!(
        Subcredential::derive::<Tor>(&key, &blinded).0,
        hex("635d55907816e8d76398a675a50b1c2f3e36b42a5ca77ba3a0441285161ae07d")
    );
    let blinded_secret = BlindedSecret::derive::<Tor>(&secret, &key, &context);
    assert_eq!(blinded_secret.key, blinded);
    let both = [blinded_secret.expanded.scalar.to_bytes(), blinded_secret.expanded.hash_prefix].concat();
    assert_eq!(
        both,
        hex::<64>(
            "a958dc83ac885f6814c67035de817a2c604d5d2f715282079448f789b656350b4540fe1f80aa3f7e91306b7bf7a8e367293352b14a29fdcc8c19f3558075524b"
        )
    );
}

#[test]
fn fogs_blinded_keys_are_frozen() {
    let identity = Identity::from_seed([7; 32]).unwrap();
    let blinded = BlindedKey::derive::<Fog>(identity.key(), &context(412));
    let both = [blinded.0, Subcredential::derive::<Fog>(identity.key(), &blinded).0].concat();
    assert_eq!(
        data_encoding::HEXLOWER.encode(&both),
        "2b5f77857552d0d656c72aad8e05013c05d452accb8fefe5f754b15c43f7179496354df78424c88109f3228379155ab421c6357e1f77c10ffdb8d78d6cf96619"
    );
}

#[test]
fn blinded_keys_with_torsion_are_refused() {
    let blinded = BlindedKey::derive::<Fog>(Identity::from_seed([7; 32]).unwrap().key(), &context(1));
    let point = CompressedEdwardsY(blinded.0).decompress().unwrap();
    assert_eq!(BlindedKey::from_bytes(blinded.0), Ok(blinded));
    for torsion in &EIGHT_TORSION[1..] {
        assert_eq!(BlindedKey::from_bytes((point + torsion).compress().0), Err(AddressError::Key));
    }
}

proptest! {
    #[test]
    fn both_halves_blind_alike_and_sign(seed: [u8; 32], period: u64, message: Vec<u8>) {
        let identity = Identity::from_seed(seed).unwrap();
        let secret = identity.blind::<Fog>(&context(period));
        let key = BlindedKey::derive::<Fog>(identity.key(), &context(period));
        prop_assert_eq!(secret.key(), &key);
        let signature = secret.sign(&message).unwrap();
        prop_assert!(key.verify(&message, &signature));
        let mut other = signature;
        other[40] ^= 1;
        prop_assert!(!key.verify(&message, &other));
        prop_assert_ne!(key, BlindedKey::derive::<Fog>(identity.key(), &context(period ^ 1)));
        let elsewhere = Context { secret: &[4; 32], ..context(period) };
        prop_assert_ne!(key, BlindedKey::derive::<Fog>(identity.key(), &elsewhere));
    }
}
