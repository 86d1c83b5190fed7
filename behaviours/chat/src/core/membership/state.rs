//! What a set of operations means: a pure function of the set.
//!
//! Operation `u` knows operation `v` if `v` is among its ancestors. Two operations are concurrent if neither knows the other. A *grant*
//! gives something to its subject (create, join: membership; make-admin: a level), a *revocation* takes it (remove, make-member, and
//! leave for oneself). What stands:
//!
//! 1. A grant lasts at a given point if it knows every standing revocation of its subject that this point knows or is concurrent with. So a
//!    removal beats the invite, join or promotion that is concurrent with it; to come back, one must be invited by somebody who knew of it.
//! 2. An operation stands if a grant that stands and lasts, among its ancestors, gave its author the level that it needs.
//! 3. Revocations are judged in the order of their strength: the level of the author as its own ancestors say it, then the lower id. So of
//!    two concurrent removals that would each undo the other, the one by the higher-ranking author wins. An admin can revoke only
//!    those below, so with consistent levels there are no such cycles; they arise only if levels were changed concurrently.
//! 4. A leave ends membership, and undoes the author's concurrent grants, but not the author's concurrent revocations: a removed
//!    admin cannot unmake the removals of the past with a leave that pretends to be old.

use std::collections::BTreeMap;

use super::{
    bits::Bits,
    op::{Action, Op},
};
use crate::core::secrets::DeviceId;

/// How much a member may do: the owner 0, an admin one more than who made it one, any other member 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u8);

impl Level {
    /// The level of the group's creator.
    pub const OWNER: Self = Self(0);
    /// The level of who is not an admin.
    pub const MEMBER: Self = Self(u8::MAX);

    /// Whether this is an admin or the owner.
    pub fn is_admin(self) -> bool {
        self < Self::MEMBER
    }

    /// The level of an admin made by one of this level.
    pub(super) fn below(self) -> Self {
        Self(self.0.saturating_add(1).min(u8::MAX - 1))
    }
}

/// An operation and its place in the group.
pub(super) struct Node {
    pub(super) op: Op,
    /// The operations that it knows.
    pub(super) past: Bits,
    /// The level of its author, as its past says: its strength, and what its grants give.
    pub(super) level: Level,
}

/// What stands of a set of operations.
pub(super) struct Verdict {
    /// Who is a member, and at which level.
    pub(super) members: BTreeMap<DeviceId, Level>,
    /// Who may join.
    pub(super) invited: Vec<DeviceId>,
}

/// Judges the operations of `nodes` that are in `set`, which holds the past of each of them. Parents stand before their children.
///
/// Time: one pass over the operations for each revocation that stands.
pub(super) fn judge(nodes: &[Node], set: &Bits) -> Verdict {
    let mut judge = Judge::new(nodes, set);
    let mut revocations: Vec<_> = judge.order.iter().copied().filter(|at| judge.is_revocation(*at)).collect();
    revocations.sort_by_key(|at| nodes.get(*at).map(|node| (node.level, node.op.id)));
    judge.pass();
    for at in revocations {
        if nodes.get(at).is_some_and(|node| judge.stands(at, node)) {
            judge.decide(at);
            judge.pass();
        }
    }
    judge.verdict()
}

/// Operations by their subject.
type BySubject = BTreeMap<DeviceId, Vec<usize>>;

struct Judge<'a> {
    nodes: &'a [Node],
    order: Vec<usize>,
    /// Create, join and make-admin.
    grants: BySubject,
    invites: BySubject,
    /// The revocations that stand, as far as is decided, and all leaves.
    revocations: BySubject,
    decided: Bits,
    /// What stands by the revocations decided so far.
    standing: Bits,
}

impl<'a> Judge<'a> {
    fn new(nodes: &'a [Node], set: &Bits) -> Self {
        let (mut grants, mut invites, mut revocations) = (BySubject::new(), BySubject::new(), BySubject::new());
        let order: Vec<_> = (0..nodes.len()).filter(|at| set.get(*at)).collect();
        for (at, node) in order.iter().filter_map(|at| Some((*at, nodes.get(*at)?))) {
            let list = match node.op.action {
                Action::Create | Action::Join | Action::MakeAdmin => &mut grants,
                Action::Invite => &mut invites,
                Action::Leave => &mut revocations,
                Action::Remove | Action::MakeMember => continue,
            };
            list.entry(node.op.subject).or_default().push(at);
        }
        Self { nodes, order, grants, invites, revocations, decided: Bits::default(), standing: Bits::default() }
    }

    fn is_revocation(&self, at: usize) -> bool {
        self.nodes.get(at).is_some_and(|node| node.op.action.is_revocation())
    }

    fn decide(&mut self, at: usize) {
        let Some(node) = self.nodes.get(at) else { return };
        self.decided.set(at);
        self.revocations.entry(node.op.subject).or_default().push(at);
    }

    /// Judges everything but revocations, parents first.
    fn pass(&mut self) {
        self.standing = self.decided.clone();
        for at in std::mem::take(&mut self.order).into_iter().map(|at| (at, self.nodes.get(at))) {
            self.order.push(at.0);
            if let (at, Some(node)) = at
                && !node.op.action.is_revocation()
                && self.stands(at, node)
            {
                self.standing.set(at);
            }
        }
    }

    fn among(&self, list: &BySubject, who: DeviceId) -> impl Iterator<Item = (usize, &'a Node)> {
        let nodes = self.nodes;
        let list = list.get(&who).cloned().unwrap_or_default();
        list.into_iter().filter_map(move |at| Some((at, nodes.get(at)?)))
    }

    /// Whether an operation stands, judged by the revocations decided so far. All that it rests on is in its past, and was judged before.
    fn stands(&self, at: usize, node: &Node) -> bool {
        let level = self.level_at(at, node);
        match node.op.action {
            Action::Create => true,
            Action::Leave => level.is_some(),
            Action::Join => self.invite_for(at, node),
            Action::Invite => level.is_some_and(Level::is_admin),
            // What it may do to its subject was judged by its own past, which never changes: see `Group::insert`.
            Action::MakeAdmin | Action::Remove | Action::MakeMember => level.is_some_and(|level| level <= node.level),
        }
    }

    /// The best level that the author of `node` has there, if it is a member: by the grants in its past that stand and last.
    fn level_at(&self, at: usize, node: &Node) -> Option<Level> {
        let mut member = false;
        let mut level = Level::MEMBER;
        for (grant_at, grant) in self.among(&self.grants, node.op.author) {
            let role = grant.op.action == Action::MakeAdmin;
            let there = node.past.get(grant_at) && self.standing.get(grant_at);
            if !there || self.undone(grant_at, grant, role, Some((at, node))) {
                continue;
            }
            match grant.op.action {
                Action::Create => return Some(Level::OWNER),
                Action::Join => member = true,
                _ => level = level.min(grant.level.below()),
            }
        }
        member.then_some(level)
    }

    /// Whether a standing invite in the past of a join lets its author in.
    fn invite_for(&self, at: usize, node: &Node) -> bool {
        self.among(&self.invites, node.op.author).any(|(invite_at, invite)| {
            let there = node.past.get(invite_at) && self.standing.get(invite_at);
            there && !self.undone(invite_at, invite, false, Some((at, node)))
        })
    }

    /// Whether a revocation of the grant's subject that the grant does not know undoes it: everywhere, or for the operation `of` the
    /// subject, which a revocation that knows the operation leaves alone.
    fn undone(&self, grant_at: usize, grant: &Node, role: bool, of: Option<(usize, &Node)>) -> bool {
        self.among(&self.revocations, grant.op.subject).any(|(at, revocation)| {
            let action = revocation.op.action;
            let later = of.is_some_and(|(of, _)| revocation.past.get(of));
            let itself = of.is_some_and(|(of, _)| of == at);
            let spared = action == Action::Leave
                && of.is_some_and(|(_, node)| {
                    !node.past.get(at) && (node.op.action.is_revocation() || node.op.action == Action::Leave)
                });
            at != grant_at
                && (action != Action::MakeMember || role)
                && !grant.past.get(at)
                && !(later || itself || spared)
        })
    }

    fn verdict(self) -> Verdict {
        let mut members = BTreeMap::new();
        let mut levels: BTreeMap<DeviceId, Level> = BTreeMap::new();
        let mut invited = Vec::new();
        let standing = self.order.iter().filter(|at| self.standing.get(**at));
        for (at, node) in standing.filter_map(|at| Some((*at, self.nodes.get(*at)?))) {
            let (action, subject) = (node.op.action, node.op.subject);
            if self.undone(at, node, action == Action::MakeAdmin, None) {
                continue;
            }
            match action {
                Action::Create => {
                    members.insert(subject, Level::OWNER);
                }
                Action::Join => {
                    members.entry(subject).or_insert(Level::MEMBER);
                }
                Action::MakeAdmin => {
                    let level = levels.entry(subject).or_insert(Level::MEMBER);
                    *level = (*level).min(node.level.below());
                }
                Action::Invite => invited.push(subject),
                _ => {}
            }
        }
        for (who, level) in &mut members {
            *level = levels.get(who).map_or(*level, |made| (*level).min(*made));
        }
        invited.retain(|who| !members.contains_key(who));
        invited.sort_unstable();
        invited.dedup();
        Verdict { members, invited }
    }
}
