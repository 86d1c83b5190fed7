//! Which envelopes came before, for as long as they are valid.

use std::collections::BTreeSet;

use fog_base::UnixMillis;

use super::{envelope::Envelope, id::EnvelopeId};

/// The most ids that are remembered.
pub const MAX_SEEN: usize = 65_536;

/// Ids of envelopes that were taken, until they expire.
#[derive(Debug, Default)]
pub struct Seen {
    /// By expiry, which the id covers.
    ids: BTreeSet<(u32, EnvelopeId)>,
}

impl Seen {
    /// Remembers an envelope; whether it is new.
    pub fn insert(&mut self, envelope: &Envelope, now: UnixMillis) -> bool {
        self.insert_id(envelope.id(), envelope.expires(), now)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn insert_id(&mut self, id: EnvelopeId, expires: u32, now: UnixMillis) -> bool {
        let over = now.minus(fog_base::time::CLOCK_TOLERANCE).as_secs();
        let is_over = |(expires, _): &(u32, EnvelopeId)| u64::from(*expires) < over;
        while self.ids.len() >= MAX_SEEN || self.ids.first().is_some_and(is_over) {
            self.ids.pop_first();
        }
        self.ids.insert((expires, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> EnvelopeId {
        EnvelopeId(*blake3::hash(&n.to_be_bytes()).as_bytes())
    }

    #[test]
    fn an_id_is_new_once_until_it_expires() {
        let mut seen = Seen::default();
        let at = |secs: u64| UnixMillis(secs * 1_000);
        assert!(seen.insert_id(id(1), 600, at(0)));
        assert!(!seen.insert_id(id(1), 600, at(0)));
        assert!(!seen.insert_id(id(1), 600, at(660)));
        // Over: the envelope itself is refused from here on.
        assert!(seen.insert_id(id(1), 600, at(661)));
    }

    #[test]
    fn a_full_memory_gives_up_what_expires_first() {
        let mut seen = Seen::default();
        for n in 0..u32::try_from(MAX_SEEN).unwrap() + 10 {
            assert!(seen.insert_id(id(n), 600_000 + n, UnixMillis(0)));
            assert!(seen.len() <= MAX_SEEN);
        }
        assert!(!seen.insert_id(id(50), 600_050, UnixMillis(0)));
        assert!(seen.insert_id(id(3), 700_000, UnixMillis(0)));
    }
}
