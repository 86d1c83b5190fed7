use curve25519_dalek::constants::EIGHT_TORSION;
use proptest::prelude::*;

use super::*;
use crate::core::blinding::{Identity, tests::Tor};

fn key(seed: u8) -> ServiceKey {
    *Identity::from_seed([seed; 32]).unwrap().key()
}

/// The name of any 35 bytes.
fn text(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase() + ".fog"
}

fn named(key: &[u8; 32], version: u8) -> String {
    text(&[key.as_slice(), &Address::checksum(key, version), &[version]].concat())
}

#[test]
fn tors_vectors_hold_with_tors_constants() {
    // C tor, test_hs_common.c.
    let bytes = data_encoding::HEXLOWER.decode(b"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    let key = ServiceKey::from_bytes(bytes.unwrap().try_into().unwrap()).unwrap();
    let name = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";
    assert_eq!(Name::<Tor>::new(key).to_string(), name);
    assert_eq!(name.parse::<Name<Tor>>().unwrap().key(), &key);
    // rend-spec-v3, section 6.
    for host in [
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd",
        "sp3k262uwy4r2k3ycr5awluarykdpag6a7y33jxop4cs2lu5uz5sseqd",
        "xa4r2iadxm55fbnqgwwi5mymqdcofiu3w6rpbtqn7b2dyn7mgwj64jyd",
    ] {
        let name: Name<Tor> = format!("{host}.onion").parse().unwrap();
        assert_eq!(name.to_string(), format!("{host}.onion"));
    }
}

#[test]
fn a_frozen_name_is_read_and_printed() {
    let address = Address::new(key(7));
    let text = address.to_string();
    assert_eq!(text, "5jfgyy7ctrjavpxvkb5rglwf7gkuo5vox27hxescd3vgsfcg2iwkicib.fog");
    assert_eq!(text.to_ascii_uppercase().parse(), Ok(address));
    assert_eq!(format!("{address:?}"), "5jfg….fog");
}

#[test]
fn what_is_not_a_name_is_told_why() {
    let good = Address::new(key(7)).to_string();
    let name = &good[..NAME_LENGTH];
    let mut mistyped = good.clone();
    mistyped.replace_range(3..4, if &good[3..4] == "a" { "b" } else { "a" });
    let cases = [
        (name.to_owned(), AddressError::Suffix(".fog")),
        (format!("{name}.onion"), AddressError::Suffix(".fog")),
        (String::new(), AddressError::Suffix(".fog")),
        ("é.fo".into(), AddressError::Suffix(".fog")),
        (".fog".into(), AddressError::Length(0)),
        (format!("www.{good}"), AddressError::Subdomain),
        (good[1..].to_owned(), AddressError::Length(55)),
        (format!("{}.fog", "ß".repeat(28)), AddressError::Alphabet),
        (format!("{}1.fog", &name[1..]), AddressError::Alphabet),
        (mistyped, AddressError::Checksum),
        (named(key(7).as_bytes(), 3), AddressError::Version(3)),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<Address>(), Err(error), "{text}");
    }
}

#[test]
fn keys_with_torsion_of_small_order_or_written_otherwise_are_refused() {
    let point = CompressedEdwardsY(*key(7).as_bytes()).decompress().unwrap();
    for torsion in &EIGHT_TORSION[1..] {
        let mixed = (point + torsion).compress().0;
        assert_eq!(named(&mixed, 1).parse::<Address>(), Err(AddressError::Key));
        assert_eq!(named(&torsion.compress().0, 1).parse::<Address>(), Err(AddressError::Key));
    }
    let identity = [1; 1].iter().chain(&[0; 31]).copied().collect::<Vec<_>>().try_into().unwrap();
    // y = 2²⁵⁵ - 18 is y = 1 written otherwise; y = 2 is on no point.
    let mut other = [0xff; 32];
    (other[0], other[31]) = (0xee, 0x7f);
    let mut none = [0; 32];
    none[0] = 2;
    for bytes in [identity, other, none] {
        assert_eq!(named(&bytes, 1).parse::<Address>(), Err(AddressError::Key), "{bytes:?}");
    }
}

#[test]
fn names_of_services_are_known_before_they_are_read() {
    for host in ["x.fog", "X.FOG", "a.b.fog.", ".fog"] {
        assert!(is_service_name(host), "{host}");
    }
    for host in ["fog", "x.fog.example", "x.frog", "", "é"] {
        assert!(!is_service_name(host), "{host}");
    }
}

proptest! {
    #[test]
    fn every_key_has_one_name(seed: [u8; 32]) {
        let address = Address::new(*Identity::from_seed(seed).unwrap().key());
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn any_text_is_read_without_panic(text in ".{0,80}") {
        let _ = text.parse::<Address>();
        let _ = format!("{text}.fog").parse::<Address>();
    }

    #[test]
    fn one_wrong_letter_is_noticed(seed: [u8; 32], at in 0usize..56, by in 1u8..32) {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut text = Address::new(*Identity::from_seed(seed).unwrap().key()).to_string().into_bytes();
        let place = LETTERS.iter().position(|letter| *letter == text[at]).unwrap();
        text[at] = LETTERS[(place + usize::from(by)) % 32];
        // A checksum of 16 bits lets one in 65,536 pass, and those are other keys.
        let read = String::from_utf8(text).unwrap().parse::<Address>();
        prop_assert!(read.is_err() || read.unwrap().key() != Identity::from_seed(seed).unwrap().key());
    }
}
