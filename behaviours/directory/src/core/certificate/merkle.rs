//! The root of a set of descriptors, and proofs that one descriptor is in it.
//!
//! The tree of RFC 6962 §2.1 over the sorted descriptor hashes: of n leaves the largest power of two below n is on the
//! left, so a set has one tree. Leaves and nodes are hashed under labels of their own, hence no node passes for a leaf.

use super::Hash;

const LEAF_LABEL: &str = "fog snapshot leaf v1";
const NODE_LABEL: &str = "fog snapshot node v1";
const EMPTY_LABEL: &str = "fog snapshot empty v1";

/// The labelled hashers, set up once for a tree.
struct Hashers {
    leaf: blake3::Hasher,
    node: blake3::Hasher,
}

impl Hashers {
    fn new() -> Self {
        let hasher = blake3::Hasher::new_derive_key;
        Self { leaf: hasher(LEAF_LABEL), node: hasher(NODE_LABEL) }
    }

    fn leaf(&self, hash: &Hash) -> Hash {
        *self.leaf.clone().update(hash).finalize().as_bytes()
    }

    fn node(&self, left: &Hash, right: &Hash) -> Hash {
        *self.node.clone().update(left).update(right).finalize().as_bytes()
    }

    fn root(&self, leaves: &[Hash]) -> Hash {
        match leaves {
            [] => *blake3::Hasher::new_derive_key(EMPTY_LABEL).finalize().as_bytes(),
            [leaf] => self.leaf(leaf),
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                self.node(&self.root(left), &self.root(right))
            }
        }
    }
}

/// How many of `n` leaves, at least two, are on the left.
fn split(n: usize) -> usize {
    n.div_ceil(2).next_power_of_two()
}

/// The root over descriptor hashes, which must be sorted.
pub fn root(sorted: &[Hash]) -> Hash {
    Hashers::new().root(sorted)
}

/// Shows that a hash is in a set, without the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Where it stands among the sorted hashes.
    pub index: u32,
    /// The roots of the subtrees beside its way to the root, from the leaf upwards.
    pub path: Vec<Hash>,
}

impl Proof {
    /// That the hash at `index` of the sorted hashes is in their tree; `None` beyond their end.
    pub fn new(sorted: &[Hash], index: usize) -> Option<Self> {
        sorted.get(index)?;
        let hashers = Hashers::new();
        let (mut leaves, mut at, mut path) = (sorted, index, Vec::new());
        while leaves.len() > 1 {
            let (left, right) = leaves.split_at(split(leaves.len()));
            let (inside, beside) = if at < left.len() { (left, right) } else { (right, left) };
            at -= if at < left.len() { 0 } else { left.len() };
            path.push(hashers.root(beside));
            leaves = inside;
        }
        path.reverse();
        Some(Self { index: u32::try_from(index).ok()?, path })
    }

    /// Whether it shows that `hash` is one of the `count` hashes under `root`.
    pub fn verify(&self, root: &Hash, count: u32, hash: &Hash) -> bool {
        let (mut at, mut size) = (self.index as usize, count as usize);
        if at >= size {
            return false;
        }
        // On which side the leaf stands at each height, from the root down.
        let mut is_left = Vec::with_capacity(self.path.len());
        while size > 1 {
            let left = split(size);
            is_left.push(at < left);
            (at, size) = if at < left { (at, left) } else { (at - left, size - left) };
        }
        if is_left.len() != self.path.len() {
            return false;
        }
        let hashers = Hashers::new();
        let climb = |below: Hash, (is_left, beside): (&bool, &Hash)| {
            if *is_left { hashers.node(&below, beside) } else { hashers.node(beside, &below) }
        };
        is_left.iter().rev().zip(&self.path).fold(hashers.leaf(hash), climb) == *root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(n: usize) -> Vec<Hash> {
        let mut hashes: Vec<_> = (0..n).map(|i| *blake3::hash(&i.to_be_bytes()).as_bytes()).collect();
        hashes.sort();
        hashes
    }

    #[test]
    fn every_member_has_a_proof_and_it_proves_nothing_else() {
        for n in 1..40 {
            let set = hashes(n);
            let root = root(&set);
            for (at, hash) in set.iter().enumerate() {
                let proof = Proof::new(&set, at).unwrap();
                let verify = |proof: &Proof, count: usize, hash: &Hash| proof.verify(&root, count as u32, hash);
                assert!(verify(&proof, n, hash), "{at} of {n}");
                assert!(!verify(&proof, n, &[7; 32]), "another hash");
                for other in (0..n + 2).filter(|other| *other != at) {
                    assert!(
                        !verify(&Proof { index: other as u32, ..proof.clone() }, n, hash),
                        "{at} as {other} of {n}"
                    );
                }
                for height in 0..proof.path.len() {
                    let mut changed = proof.clone();
                    changed.path[height][0] ^= 1;
                    assert!(!verify(&changed, n, hash));
                }
                let mut longer = proof.clone();
                longer.path.push([0; 32]);
                assert!(!verify(&longer, n, hash));
            }
            assert_eq!(Proof::new(&set, n), None);
        }
    }

    #[test]
    fn different_sets_have_different_roots() {
        let set = hashes(9);
        let mut roots: Vec<_> = (0..=9).map(|n| root(&set[..n])).collect();
        roots.push(root(&set[1..]));
        // A node in the place of a leaf: the second preimage that labels prevent.
        roots.push(root(&[root(&set[..2]), set[2]]));
        roots.sort();
        roots.dedup();
        assert_eq!(roots.len(), 12);
    }
}
