//! Which of two sets lacks what: range-based set reconciliation (A. Meyer, arXiv 2212.13567), in the messages of
//! negentropy, protocol version 1 (<https://github.com/hoytech/negentropy/blob/master/docs/negentropy-protocol-v1.md>).
//!
//! One side, the initiator, asks until nothing is open; the other keeps nothing between two answers. What a message of a
//! hostile peer can cost: three passes over the items, and a hash for each range of a message of at most [`MAX_QUERY`]
//! bytes.

use std::{collections::BTreeSet, fmt};

use negentropy::{Id, Negentropy, NegentropyStorageBase, NegentropyStorageVector};

type Hash = [u8; 32];

/// The longest message of an initiator.
pub const MAX_QUERY: usize = 32 * 1024;
/// The longest answer to it.
pub const MAX_REPLY: usize = 60 * 1024;

const VERSION: u8 = 0x61;
/// A reply by which nothing is left open.
const NOTHING_OPEN: [u8; 1] = [VERSION];
/// A range from the beginning to infinity follows: timestamp and length of the id of its end.
const TO_INFINITY: [u8; 2] = [0, 0];
const FINGERPRINT: u8 = 1;
const ID_LIST: u8 = 2;

/// A message that no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid message of reconciliation")]
pub struct Malformed;

/// What an initiator has learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What only the initiator has.
    pub ours: BTreeSet<Hash>,
    /// What only the other one has, as it says.
    pub theirs: BTreeSet<Hash>,
}

/// A set that can be reconciled: built once, then shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Items {
    storage: NegentropyStorageVector,
    opening: Vec<u8>,
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Items {
    /// Of (sequence number, hash), in any order.
    pub fn new(items: impl Iterator<Item = (u64, Hash)>) -> Self {
        let mut storage = NegentropyStorageVector::with_capacity(items.size_hint().0);
        for (seq, hash) in items {
            // Only a sealed storage refuses, here and below.
            let _sealed = storage.insert(seq, Id::from_byte_array(hash));
        }
        let _sealed = storage.seal();
        let opening = match storage.size().and_then(|size| storage.fingerprint(0, size)) {
            Ok(fingerprint) => {
                [&[VERSION][..], &TO_INFINITY, &[FINGERPRINT], fingerprint.to_bytes().as_slice()].concat()
            }
            Err(_) => list_all(),
        };
        Self { storage, opening }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.storage.size().unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first message where the sets may well be equal: one fingerprint. Where there is nothing to compare, the
    /// question for everything.
    pub fn opening(&self) -> Vec<u8> {
        if self.is_empty() { list_all() } else { self.opening.clone() }
    }

    /// The first message where the sets are known to differ.
    pub fn split(&self) -> Result<Vec<u8>, Malformed> {
        Negentropy::borrowed(&self.storage, MAX_QUERY as u64)
            .and_then(|mut initiator| initiator.initiate())
            .map_err(|_| Malformed)
    }

    /// Whether `message` says that its sender has exactly these items; for that no item is looked at.
    pub fn is_same(&self, message: &[u8]) -> bool {
        message == self.opening
    }

    /// Answers an initiator; at most [`MAX_REPLY`] bytes.
    pub fn answer(&self, message: &[u8]) -> Result<Vec<u8>, Malformed> {
        check(message, MAX_QUERY)?;
        if self.is_same(message) {
            return Ok(NOTHING_OPEN.to_vec());
        }
        Negentropy::borrowed(&self.storage, MAX_REPLY as u64)
            .and_then(|mut responder| responder.reconcile(message))
            .map_err(|_| Malformed)
    }

    /// Takes an answer; the next message, at most [`MAX_QUERY`] bytes, unless nothing is open.
    pub fn step(&self, reply: &[u8], found: &mut Found) -> Result<Option<Vec<u8>>, Malformed> {
        check(reply, MAX_REPLY)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let next = Negentropy::borrowed(&self.storage, MAX_QUERY as u64)
            .and_then(|mut initiator| {
                initiator.set_initiator();
                initiator.reconcile_with_ids(reply, &mut ours, &mut theirs)
            })
            .map_err(|_| Malformed)?;
        // A range that was cut off comes again: what is found may be found twice.
        found.ours.extend(ours.into_iter().map(Id::to_bytes));
        found.theirs.extend(theirs.into_iter().map(Id::to_bytes));
        Ok(next)
    }
}

/// The first message of an initiator that wants the list of everything, compared with nothing.
pub fn list_all() -> Vec<u8> {
    [&[VERSION][..], &TO_INFINITY, &[ID_LIST, 0]].concat()
}

/// Whether an answer leaves nothing open: the sets are equal.
pub fn is_settled(reply: &[u8]) -> bool {
    reply == NOTHING_OPEN
}

/// An unknown version is no silent agreement.
fn check(message: &[u8], max: usize) -> Result<(), Malformed> {
    if message.len() <= max && message.first() == Some(&VERSION) { Ok(()) } else { Err(Malformed) }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
