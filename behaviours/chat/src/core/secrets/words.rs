//! Safety words: what two people compare to know that nobody stands between them.
//!
//! Each device has six words, and both people read all twelve. The words of the two devices stand beside each other and are not
//! hashed together: someone in the middle must find a key with the words of a given device (a second preimage of 96 bits), not just two
//! keys whose common hash agrees (a collision, of half the work). Words are proquints (D. S. Wilkerson, arXiv:0901.4016): 16 bits as five
//! letters that can be spoken in many languages, so that no list has to be agreed on.

use fog_base::NetworkId;

use super::bundle::{Bundle, DeviceId};

/// Words for each device.
pub const WORDS: usize = 6;

const CONSONANTS: [char; 16] = ['b', 'd', 'f', 'g', 'h', 'j', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'v', 'z'];
const VOWELS: [char; 4] = ['a', 'i', 'o', 'u'];
const CONTEXT: &str = "fog chat safety words v1";

/// What of a device the words stand for: its signature key and its Olm identity key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprinted {
    /// The device.
    pub device: DeviceId,
    /// Its Curve25519 identity key.
    pub identity: [u8; 32],
}

impl From<&Bundle> for Fingerprinted {
    fn from(bundle: &Bundle) -> Self {
        Self { device: bundle.device, identity: bundle.identity }
    }
}

/// The twelve words of two devices: those of the lower device id first, so that both sides show the same.
pub fn safety_words(network: &NetworkId, a: Fingerprinted, b: Fingerprinted) -> [String; 2 * WORDS] {
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    let mut words = words_of(network, first).chain(words_of(network, second));
    std::array::from_fn(|_| words.next().unwrap_or_default())
}

/// The words of one device: the first twelve bytes of
/// `BLAKE3-derive-key("fog chat safety words v1", network id ‖ device id ‖ identity key)`, two bytes a word, big-endian.
fn words_of(network: &NetworkId, of: Fingerprinted) -> impl Iterator<Item = String> {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&network.0).update(&of.device.0).update(&of.identity);
    let hash = *hasher.finalize().as_bytes();
    let (pairs, _) = hash.as_chunks::<2>();
    pairs.iter().take(WORDS).map(|pair| proquint(u16::from_be_bytes(*pair))).collect::<Vec<_>>().into_iter()
}

/// Four bits a consonant, two a vowel, from the highest bit on.
fn proquint(value: u16) -> String {
    [(12, 4), (10, 2), (6, 4), (4, 2), (0, 4)]
        .into_iter()
        .filter_map(|(shift, bits)| {
            let index = usize::from((value >> shift) & ((1 << bits) - 1));
            if bits == 4 { CONSONANTS.get(index) } else { VOWELS.get(index) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the paper: IPv4 addresses.
    #[test]
    fn proquints_are_those_of_the_paper() {
        for (address, expected) in [
            ([127, 0, 0, 1], "lusab-babad"),
            ([63, 84, 220, 193], "gutih-tugad"),
            ([63, 118, 7, 35], "gutuk-bisog"),
            ([140, 98, 193, 141], "mudof-sakat"),
            ([64, 255, 6, 200], "haguz-biram"),
            ([128, 30, 52, 45], "mabiv-gibot"),
            ([147, 67, 119, 2], "natag-lisaf"),
            ([212, 58, 253, 68], "tibup-zujah"),
            ([216, 35, 68, 215], "tobog-higil"),
            ([216, 68, 232, 21], "todah-vobij"),
            ([198, 81, 129, 136], "sinid-makam"),
            ([12, 110, 110, 204], "budov-kuras"),
        ] {
            let [a, b, c, d] = address;
            let words = format!("{}-{}", proquint(u16::from_be_bytes([a, b])), proquint(u16::from_be_bytes([c, d])));
            assert_eq!(words, expected);
        }
    }

    #[test]
    fn both_sides_see_the_same_words_and_each_key_changes_them() {
        let network = NetworkId([1; 32]);
        let a = Fingerprinted { device: DeviceId([2; 32]), identity: [3; 32] };
        let b = Fingerprinted { device: DeviceId([4; 32]), identity: [5; 32] };
        let words = safety_words(&network, a, b);
        assert_eq!(words, safety_words(&network, b, a));
        for (other_a, other_b, network) in [
            (Fingerprinted { identity: [9; 32], ..a }, b, network),
            (a, Fingerprinted { identity: [9; 32], ..b }, network),
            (Fingerprinted { device: DeviceId([1; 32]), ..a }, b, network),
            (a, b, NetworkId([2; 32])),
        ] {
            assert_ne!(safety_words(&network, other_a, other_b), words);
        }
    }

    /// Frozen: a change of the derivation would make people see other words for the same keys.
    #[test]
    fn the_words_of_a_known_pair() {
        let words = safety_words(
            &NetworkId([0; 32]),
            Fingerprinted { device: DeviceId([1; 32]), identity: [2; 32] },
            Fingerprinted { device: DeviceId([3; 32]), identity: [4; 32] },
        );
        assert_eq!(words.join(" "), "siral hibir javuv rizaj vumog zibuz gijov pupip bubuz doguv moguv bohiv");
    }
}
