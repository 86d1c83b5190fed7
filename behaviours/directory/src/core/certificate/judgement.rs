//! What a seat checks of a proposed set before it votes for it. Whoever votes holds the whole set, every descriptor of
//! it verified (`descriptor.rs`: a [`Descriptor`] exists only verified); here is what can be said of the set as a
//! whole.

use std::collections::BTreeSet;

use fog_base::{Epoch, NodeId};

use super::{Hash, Statement, named_set::NamedSet, succession::Successor, timetable::Timetable};
use crate::core::descriptor::Descriptor;

/// A set may lack one of so many relays that the voter held in time.
const LACKING: usize = 16;

/// Why a seat does not vote for a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// These are not the descriptors under the root, or not so many.
    #[error("the descriptors are not those of the root")]
    WrongRoot,
    /// A relay has no keys for the epoch.
    #[error("a relay of the set has no keys for the epoch")]
    NoKeys,
    /// A descriptor from after the cut-off.
    #[error("a descriptor was signed after the cut-off")]
    TooLate,
    /// Nobody of the set can be seated.
    #[error("nobody of the set can be seated")]
    NoSeats,
    /// The first set of a network, and most of those who are to certify it are not in it.
    #[error("the first set lacks too many relays of the network file")]
    FewFounders,
    /// Other seats, or another state, follow from this set than are named.
    #[error("other seats or another state follow from the set than are named")]
    WrongSuccession,
    /// Too many relays are left out that were known in time.
    #[error("the set lacks {lacking} of {witnessed} relays that were known in time")]
    Censors {
        /// How many it lacks.
        lacking: usize,
        /// How many were known here at the witness time.
        witnessed: usize,
    },
}

/// The statement about `set`, which a seat proposes or compares with a proposal. `previous` is the hash of the tip,
/// `successor` is what follows from the set after it.
pub fn state(epoch: Epoch, previous: Hash, set: &NamedSet, successor: &Successor) -> Statement {
    let (electorate, state) = (successor.electorate.commitment(), successor.state.hash());
    Statement { epoch, previous, root: set.root(), relays: set.count(), electorate, state }
}

/// Which descriptors may stand in a set of the statement's epoch: with keys for it, and signed before the cut-off. The
/// sequence number is the time of signing; a relay can only date itself back, and what it gains by that is to be in the
/// set.
pub fn is_eligible(epoch: Epoch, descriptor: &Descriptor, timetable: &Timetable) -> bool {
    descriptor.covers(epoch) && descriptor.seq() < timetable.cut_off(epoch).0
}

/// Whether a voter approves of `set` under `statement`. `witnessed` are the relays of which it held an eligible
/// descriptor at the witness time, `successor` is what it computed from the set.
pub fn judge(
    statement: &Statement,
    set: &NamedSet,
    successor: &Successor,
    witnessed: &BTreeSet<NodeId>,
    timetable: &Timetable,
) -> Result<(), Objection> {
    if set.relays().iter().any(|descriptor| !descriptor.covers(statement.epoch)) {
        return Err(Objection::NoKeys);
    }
    if set.relays().iter().any(|descriptor| !is_eligible(statement.epoch, descriptor, timetable)) {
        return Err(Objection::TooLate);
    }
    let stated = state(statement.epoch, statement.previous, set, successor);
    if (stated.root, stated.relays) != (statement.root, statement.relays) {
        return Err(Objection::WrongRoot);
    }
    if stated != *statement {
        return Err(Objection::WrongSuccession);
    }
    let lacking = witnessed.iter().filter(|relay| set.find(relay).is_none()).count();
    // One may always be lacking: in a small network a single late relay would else stop the epoch.
    if lacking > (witnessed.len() / LACKING).max(1) {
        return Err(Objection::Censors { lacking, witnessed: witnessed.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fog_base::UnixMillis;

    use super::*;
    use crate::core::{
        certificate::{
            electorate::{Elector, Electorate},
            state::State,
        },
        testing::{EPOCH, facts, node, relay, schedule, sign},
    };

    fn successor(weight: u64) -> Successor {
        let electorate = Electorate::new(vec![Elector { node: node(1), weight }]).unwrap();
        let state = State { beacon: [1; 32], newcomers: BTreeSet::new(), standings: Default::default() };
        Successor { electorate, state }
    }

    fn judge_set(set: &[Arc<Descriptor>], change: impl Fn(&mut Statement), witnessed: &[u16]) -> Result<(), Objection> {
        let set = NamedSet::new(set.to_vec());
        let mut statement = state(EPOCH.next(), [4; 32], &set, &successor(1));
        change(&mut statement);
        let witnessed = witnessed.iter().map(|n| node(*n)).collect();
        judge(&statement, &set, &successor(1), &witnessed, &Timetable::new(schedule()))
    }

    fn set(relays: &[u16]) -> Vec<Arc<Descriptor>> {
        relays.iter().map(|n| Arc::new(relay(*n))).collect()
    }

    #[test]
    fn a_set_that_is_what_it_says_is_approved_of_in_any_order() {
        assert_eq!(judge_set(&set(&[1, 2, 3]), |_| {}, &[1, 2, 3]), Ok(()));
        assert_eq!(judge_set(&set(&[3, 1, 2]), |_| {}, &[1, 2, 3]), Ok(()));
        let [a, b] = [set(&[1, 2, 3]), set(&[3, 1, 2])].map(NamedSet::new);
        assert_eq!(state(EPOCH, [4; 32], &a, &successor(1)), state(EPOCH, [4; 32], &b, &successor(1)));
    }

    #[test]
    fn each_false_statement_is_objected_to() {
        let good = set(&[1, 2, 3]);
        let objection = |change: fn(&mut Statement)| judge_set(&good, change, &[]);
        assert_eq!(objection(|s| s.root[0] ^= 1), Err(Objection::WrongRoot));
        assert_eq!(objection(|s| s.relays += 1), Err(Objection::WrongRoot));
        let other = |s: &mut Statement| s.electorate = successor(2).electorate.commitment();
        assert_eq!(objection(other), Err(Objection::WrongSuccession));
        assert_eq!(objection(|s| s.state[0] ^= 1), Err(Objection::WrongSuccession));
        assert_eq!(objection(|s| s.epoch = s.epoch.next()), Err(Objection::NoKeys));
    }

    #[test]
    fn a_descriptor_from_after_the_cut_off_is_not_in_the_set() {
        let cut_off = Timetable::new(schedule()).cut_off(EPOCH.next());
        let at = |time: UnixMillis| vec![Arc::new(sign(1, &facts(1, EPOCH), EPOCH, time.0, time))];
        assert_eq!(judge_set(&at(UnixMillis(cut_off.0 - 1)), |_| {}, &[]), Ok(()));
        assert_eq!(judge_set(&at(cut_off), |_| {}, &[]), Err(Objection::TooLate));
    }

    #[test]
    fn a_sixteenth_may_be_lacking_and_no_more() {
        let relays: Vec<u16> = (0..48).collect();
        let without = |n: usize| judge_set(&set(&relays[n..]), |_| {}, &relays);
        assert_eq!(without(3), Ok(()));
        assert_eq!(without(4), Err(Objection::Censors { lacking: 4, witnessed: 48 }));
        assert_eq!(judge_set(&set(&[1, 2, 3]), |_| {}, &[1, 2, 3, 4]), Ok(()), "one of a few");
        assert_eq!(
            judge_set(&set(&[1, 2]), |_| {}, &[1, 2, 3, 4]),
            Err(Objection::Censors { lacking: 2, witnessed: 4 })
        );
        assert_eq!(judge_set(&set(&[1, 2, 3, 4]), |_| {}, &[1]), Ok(()), "more than we knew is welcome");
    }
}
