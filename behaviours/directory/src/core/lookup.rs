//! A lookup of one relay's descriptor: what several peers answer, compared before any of it is believed.
//!
//! A signature proves who made a descriptor, not that it is the newest: a peer can answer with an old one, and a peer that is asked
//! alone is always believed. Of [`ENOUGH`] answers from different peers, over disjoint paths, the newest is taken.

use fog_base::NodeId;

use super::descriptor::Descriptor;

/// Answers that are compared before one is believed.
pub const ENOUGH: usize = 3;
/// Answers beyond these are not looked at.
const MAX_ANSWERS: usize = 20;

/// The answers to a lookup so far. All were verified.
#[derive(Debug)]
pub struct Lookup {
    relay: NodeId,
    answers: Vec<(NodeId, Descriptor)>,
}

impl Lookup {
    /// Nobody has answered yet.
    pub fn new(relay: NodeId) -> Self {
        Self { relay, answers: Vec::new() }
    }

    /// Whose descriptor is sought.
    pub fn relay(&self) -> NodeId {
        self.relay
    }

    /// `from` answered `descriptor`. A second answer of one peer does not count.
    pub fn handle_answer(&mut self, from: NodeId, descriptor: Descriptor) {
        let counts = descriptor.relay() == self.relay && self.answers.iter().all(|(peer, _)| *peer != from);
        if counts && self.answers.len() < MAX_ANSWERS {
            self.answers.push((from, descriptor));
        }
    }

    /// Whether enough peers have answered.
    pub fn is_enough(&self) -> bool {
        self.answers.len() >= ENOUGH
    }

    /// The newest descriptor with the peer that brought it; two if the relay signed two with one number, which is evidence against
    /// it. Nothing if too few have answered.
    pub fn believed(self) -> Vec<(NodeId, Descriptor)> {
        if !self.is_enough() {
            return Vec::new();
        }
        let newest = self.answers.iter().map(|(_, descriptor)| descriptor.seq()).max();
        let mut believed: Vec<(NodeId, Descriptor)> = Vec::new();
        for (from, descriptor) in self.answers {
            let is_newest = Some(descriptor.seq()) == newest;
            let is_another = believed.iter().all(|(_, other)| other.hash() != descriptor.hash());
            if is_newest && is_another && believed.len() < 2 {
                believed.push((from, descriptor));
            }
        }
        believed
    }
}

#[cfg(test)]
mod tests {
    use fog_base::UnixMillis;

    use super::*;
    use crate::core::testing::{EPOCH, facts, node, sign, start};

    fn signed(capacity: u32, seq: u64) -> Descriptor {
        let now = start().unix;
        sign(1, &crate::Facts { capacity, ..facts(1, EPOCH) }, EPOCH, now.0 - 1000 + seq, UnixMillis(now.0))
    }

    fn believed(answers: &[(u16, &Descriptor)]) -> Vec<u64> {
        let mut lookup = Lookup::new(node(1));
        for (from, descriptor) in answers {
            lookup.handle_answer(node(*from), (*descriptor).clone());
        }
        lookup.believed().iter().map(|(_, descriptor)| descriptor.seq()).collect()
    }

    #[test]
    fn fewer_than_three_answers_are_not_believed_and_one_peer_counts_once() {
        let descriptor = signed(1, 1);
        assert_eq!(believed(&[]), [0; 0]);
        assert_eq!(believed(&[(5, &descriptor), (6, &descriptor)]), [0; 0]);
        assert_eq!(believed(&[(5, &descriptor), (6, &descriptor), (6, &descriptor)]), [0; 0]);
        assert_eq!(believed(&[(5, &descriptor), (6, &descriptor), (7, &descriptor)]), [descriptor.seq()]);
    }

    #[test]
    fn one_honest_answer_beats_any_number_of_stale_ones() {
        let (old, new) = (signed(1, 1), signed(2, 2));
        assert_eq!(believed(&[(5, &old), (6, &old), (7, &old), (8, &new), (9, &old)]), [new.seq()]);
    }

    #[test]
    fn two_descriptors_with_one_number_both_come_out_as_evidence() {
        let (old, one, two) = (signed(1, 1), signed(1, 2), signed(2, 2));
        assert_ne!(one.hash(), two.hash());
        assert_eq!(believed(&[(5, &old), (6, &one), (7, &two), (8, &one)]), [one.seq(), two.seq()]);
    }

    #[test]
    fn an_answer_about_somebody_else_does_not_count() {
        let now = start().unix;
        let other = sign(2, &facts(2, EPOCH), EPOCH, now.0, now);
        assert_eq!(believed(&[(5, &other), (6, &other), (7, &other)]), [0; 0]);
    }
}
