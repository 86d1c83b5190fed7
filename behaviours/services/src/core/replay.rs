//! Which introductions were answered.
//!
//! The attack: whoever recorded an INTRODUCE1 (an introduction point, say) sends it again. The service would run the request in it a
//! second time, and would build a circuit to a rendezvous point of the recorder's choice as often as the recorder likes. A
//! log in memory would not help against one who can crash the service, so every row is on disk before the introduction is acted on. A log
//! lives exactly as long as the point's keys: what cannot be opened any more need not be remembered.
//!
//! An introduction is known by its key and its ciphertext. All its other bytes are bound to these by the AEAD's key: another byte does not open.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::handshake::KEM_CIPHERTEXT;

/// Rows of one log: what a point may receive at most before it is replaced, and what comes while it is.
pub const CAPACITY: usize = 40_000;

/// What is kept of an introduction: 16 bytes of SHA-256(X ‖ ciphertext).
pub type Tag = [u8; 16];

/// The tag of an introduction, or of a request through the mixnet.
pub fn tag(x: &[u8; 32], ciphertext: &[u8; KEM_CIPHERTEXT]) -> Tag {
    let hash = Sha256::new().chain_update(x).chain_update(ciphertext).finalize();
    let mut tag = [0; 16];
    tag.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    tag
}

/// The log of one introduction point.
#[derive(Debug, Clone, Default)]
pub struct ReplayLog(HashSet<Tag>);

/// Why an introduction is not fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFresh {
    /// It was answered.
    Seen,
    /// The log is full: nothing is answered any more.
    Full,
}

impl ReplayLog {
    /// From the rows on disk.
    pub fn restore(tags: impl IntoIterator<Item = Tag>) -> Self {
        Self(tags.into_iter().collect())
    }

    /// Whether this is one that was not answered.
    pub fn check(&self, tag: &Tag) -> Result<(), NotFresh> {
        if self.0.contains(tag) {
            Err(NotFresh::Seen)
        } else if self.0.len() >= CAPACITY {
            Err(NotFresh::Full)
        } else {
            Ok(())
        }
    }

    /// Notes one that will be answered.
    pub fn note(&mut self, tag: Tag) {
        self.0.insert(tag);
    }

    /// How many were.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: u32) -> Tag {
        let mut tag = [0; 16];
        tag[..4].copy_from_slice(&n.to_be_bytes());
        tag
    }

    #[test]
    fn what_was_noted_is_known_after_a_restart_too() {
        let mut log = ReplayLog::default();
        assert_eq!(log.check(&[1; 16]), Ok(()));
        log.note([1; 16]);
        assert_eq!(log.check(&[1; 16]), Err(NotFresh::Seen));
        assert_eq!(ReplayLog::restore([[1; 16]]).check(&[1; 16]), Err(NotFresh::Seen));
    }

    #[test]
    fn a_full_log_answers_nothing() {
        let mut log = ReplayLog::restore((1..CAPACITY as u32).map(numbered));
        assert_eq!(log.check(&numbered(0)), Ok(()));
        log.note(numbered(0));
        assert_eq!(log.check(&[9; 16]), Err(NotFresh::Full));
        assert_eq!(log.check(&numbered(5)), Err(NotFresh::Seen));
    }
}
