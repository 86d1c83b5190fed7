//! Reports and proofs that others may still want: those that this node took, while they are open.

use std::collections::BTreeMap;

use fog_base::UnixMillis;

/// The most reports that are kept for others.
pub const MAX_REPORTS: usize = 2_048;
/// The most proofs that are kept for others.
pub const MAX_PROOFS: usize = 256;
/// The most items that are remembered as of no use, so that nobody is asked for them again.
pub const MAX_USELESS: usize = 2_048;
/// The most names that a request carries.
pub const MAX_KNOWN: usize = MAX_REPORTS + MAX_PROOFS + MAX_USELESS;

/// BLAKE3 of an item.
pub type Hash = [u8; 32];
/// An item's name in one request: the beginning of its hash under the request's salt, so that nobody can make two
/// items of one name.
pub type Name = [u8; 8];

/// An item's name under `salt`.
pub fn name(salt: &[u8; 32], hash: &Hash) -> Name {
    let keyed = blake3::keyed_hash(salt, hash);
    keyed.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// What an item is, in the order in which others are given it: proofs, then the reports of trusted raters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Two records that contradict each other.
    Proof,
    /// A report by this node or by a rater that it trusts.
    Trusted,
    /// A report by anybody else.
    Stranger,
}

#[derive(Debug)]
struct Kept {
    rank: Rank,
    bytes: Vec<u8>,
    until: UnixMillis,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Shelf {
    kept: BTreeMap<Hash, Kept>,
    useless: BTreeMap<Hash, UnixMillis>,
}

impl Shelf {
    /// Whether an item is kept or known to be of no use.
    pub fn knows(&self, hash: &Hash) -> bool {
        self.kept.contains_key(hash) || self.useless.contains_key(hash)
    }

    /// Keeps an item until then. In a full shelf one of lower rank goes first, of equal rank the one that is over
    /// sooner; says whether there was room.
    pub fn keep(&mut self, hash: Hash, rank: Rank, bytes: Vec<u8>, until: UnixMillis) -> bool {
        let is_proof = |rank| rank == Rank::Proof;
        let alike = || self.kept.iter().filter(|(_, kept)| is_proof(kept.rank) == is_proof(rank));
        let max = if is_proof(rank) { MAX_PROOFS } else { MAX_REPORTS };
        if alike().count() >= max {
            let worth = |rank: Rank, until: UnixMillis| (std::cmp::Reverse(rank), until);
            let least = alike().map(|(hash, kept)| (worth(kept.rank, kept.until), *hash)).min();
            match least {
                Some((least, gone)) if least < worth(rank, until) => drop(self.kept.remove(&gone)),
                _ => {
                    self.dismiss(hash, until);
                    return false;
                }
            }
        }
        self.kept.insert(hash, Kept { rank, bytes, until });
        true
    }

    /// Remembers that an item is of no use, if there is room.
    pub fn dismiss(&mut self, hash: Hash, until: UnixMillis) {
        if self.useless.len() < MAX_USELESS {
            self.useless.insert(hash, until);
        }
    }

    /// Forgets what is over.
    pub fn sweep(&mut self, now: UnixMillis) {
        self.kept.retain(|_, kept| now < kept.until);
        self.useless.retain(|_, until| now < *until);
    }

    /// The names of everything known, sorted.
    pub fn names(&self, salt: &[u8; 32]) -> Vec<Name> {
        let mut names: Vec<_> = self.kept.keys().chain(self.useless.keys()).map(|hash| name(salt, hash)).collect();
        names.sort_unstable();
        names
    }

    /// At most `max` items that are open and not among `known` (sorted), and whether there are more.
    pub fn missing(&self, salt: &[u8; 32], known: &[Name], max: usize, now: UnixMillis) -> (Vec<Vec<u8>>, bool) {
        let is_new = |hash: &Hash| known.binary_search(&name(salt, hash)).is_err();
        let open = self.kept.iter().filter(|(hash, kept)| now < kept.until && is_new(hash));
        let mut items: Vec<_> = open.map(|(_, kept)| kept).collect();
        items.sort_by_key(|kept| kept.rank);
        let more = items.len() > max;
        (items.into_iter().take(max).map(|kept| kept.bytes.clone()).collect(), more)
    }

    /// How many items are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000);
    const LATER: UnixMillis = UnixMillis(2_000);

    fn hash(n: usize) -> Hash {
        *blake3::hash(&n.to_be_bytes()).as_bytes()
    }

    fn keep(shelf: &mut Shelf, n: usize, rank: Rank, until: UnixMillis) -> bool {
        shelf.keep(hash(n), rank, n.to_be_bytes().to_vec(), until)
    }

    #[test]
    fn proofs_come_first_and_what_the_other_has_does_not_come() {
        let mut shelf = Shelf::default();
        for (n, rank) in [Rank::Stranger, Rank::Trusted, Rank::Proof].into_iter().enumerate() {
            assert!(keep(&mut shelf, n, rank, LATER));
        }
        let salt = [3; 32];
        let all = shelf.missing(&salt, &[], 9, NOW);
        assert_eq!(all, ([2usize, 1, 0].map(|n| n.to_be_bytes().to_vec()).to_vec(), false));
        assert_eq!(shelf.missing(&salt, &[], 1, NOW), (vec![2usize.to_be_bytes().to_vec()], true));
        assert_eq!(shelf.missing(&salt, &[name(&salt, &hash(2))], 1, NOW).0, [1usize.to_be_bytes().to_vec()]);
        assert_eq!(shelf.missing(&salt, &shelf.names(&salt), 9, NOW), (Vec::new(), false));
        assert_eq!(shelf.missing(&[4; 32], &shelf.names(&salt), 9, NOW).0.len(), 3, "names of another salt");
        assert_eq!(shelf.missing(&salt, &[], 9, LATER).0.len(), 0, "over");
        shelf.sweep(LATER);
        assert!(shelf.is_empty() && shelf.names(&salt).is_empty());
    }

    #[test]
    fn strangers_cannot_crowd_out_trusted_raters_nor_reports_proofs() {
        let mut shelf = Shelf::default();
        assert!(keep(&mut shelf, usize::MAX, Rank::Proof, LATER));
        for n in 0..MAX_REPORTS {
            assert!(keep(&mut shelf, n, if n == 7 { Rank::Trusted } else { Rank::Stranger }, LATER));
        }
        assert!(!keep(&mut shelf, MAX_REPORTS, Rank::Stranger, LATER), "no newer than the others");
        assert!(shelf.knows(&hash(MAX_REPORTS)), "it is not asked for again");
        for n in 0..MAX_REPORTS {
            assert!(keep(&mut shelf, MAX_REPORTS + 1 + n, Rank::Trusted, NOW) || n == MAX_REPORTS - 1);
        }
        assert!(shelf.knows(&hash(7)) && shelf.knows(&hash(usize::MAX)) && !shelf.knows(&hash(8)));
        assert_eq!(shelf.len(), MAX_REPORTS + 1);
    }

    #[test]
    fn what_is_of_no_use_is_bounded() {
        let mut shelf = Shelf::default();
        (0..MAX_USELESS + 9).for_each(|n| shelf.dismiss(hash(n), LATER));
        assert_eq!(shelf.names(&[0; 32]).len(), MAX_USELESS);
    }
}
