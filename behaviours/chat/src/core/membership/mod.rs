//! Membership: who is in a group, as a pure function of the signed operations that one has.
//!
//! No order of arrival, no clock and no majority takes part. An operation is taken if its author was entitled to it by what it knew, which
//! every member judges alike; what then stands against concurrent operations is judged over the whole set ([`state`] says how).

mod bits;
mod op;
pub mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ed25519_dalek::SigningKey;
use fog_base::NetworkId;

use self::{
    bits::Bits,
    state::{Node, Verdict, judge},
};
use super::secrets::DeviceId;

pub use op::{Action, GroupId, MAX_OP, MAX_PARENTS, Op, OpId};
pub use state::Level;

/// Operations of one group.
pub const MAX_OPS: usize = 4096;
/// Operations that wait for their parents.
pub const MAX_WAITING: usize = 256;
/// Refused operations that are remembered, so that what builds on them does not wait.
const MAX_REFUSED: usize = 1024;
const DIGEST: &str = "fog chat members v1";

/// Why an operation is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// Not of the expected shape or length, or without meaning.
    #[error("not a valid operation")]
    Malformed,
    /// A signature that does not hold.
    #[error("a signature does not hold")]
    BadSignature,
    /// Of another group.
    #[error("of another group")]
    OtherGroup,
    /// Its author was not entitled to it, by what its author knew.
    #[error("its author was not entitled to it")]
    NotEntitled,
    /// It changes nothing: a member is invited, a stranger is removed.
    #[error("it changes nothing")]
    Pointless,
    /// It builds on an operation that was refused.
    #[error("it builds on a refused operation")]
    BadParent,
    /// The group has as many operations, or as many that wait, as it may.
    #[error("the group is full")]
    Full,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// It was there, or waits already.
    Known,
    /// It waits for these operations: fetch them.
    Waiting(Vec<OpId>),
    /// It counts, and so do those that waited for it. True if somebody came or went: then every member needs new sending keys.
    Taken {
        /// Whether the set of members changed.
        members_changed: bool,
    },
}

/// A group: its operations and what they mean.
pub struct Group {
    network: NetworkId,
    id: GroupId,
    nodes: Vec<Node>,
    places: BTreeMap<OpId, usize>,
    heads: BTreeSet<OpId>,
    waiting: BTreeMap<OpId, Op>,
    refused: VecDeque<OpId>,
    verdict: Verdict,
}

impl Group {
    /// A group whose operations are to come.
    pub fn new(network: NetworkId, id: GroupId) -> Self {
        Self {
            network,
            id,
            nodes: Vec::new(),
            places: BTreeMap::new(),
            heads: BTreeSet::new(),
            waiting: BTreeMap::new(),
            refused: VecDeque::new(),
            verdict: judge(&[], &Bits::default()),
        }
    }

    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Takes an operation, in any order.
    pub fn insert(&mut self, bytes: &[u8]) -> Result<Inserted, Refusal> {
        let op = Op::verify(bytes, &self.network)?;
        if op.group() != self.id {
            return Err(Refusal::OtherGroup);
        }
        if self.places.contains_key(&op.id) || self.waiting.contains_key(&op.id) {
            return Ok(Inserted::Known);
        }
        if self.refused.contains(&op.id) {
            return Err(Refusal::NotEntitled);
        }
        let missing: Vec<_> = op.parents.iter().filter(|id| !self.places.contains_key(id)).copied().collect();
        if missing.iter().any(|id| self.refused.contains(id)) {
            self.refuse(op.id);
            return Err(Refusal::BadParent);
        }
        if !missing.is_empty() {
            if self.waiting.len() >= MAX_WAITING {
                return Err(Refusal::Full);
            }
            self.waiting.insert(op.id, op);
            return Ok(Inserted::Waiting(missing));
        }
        let before: Vec<_> = self.verdict.members.keys().copied().collect();
        self.take(op)?;
        self.take_waiting();
        self.verdict = judge(&self.nodes, &Bits::first(self.nodes.len()));
        Ok(Inserted::Taken { members_changed: !self.verdict.members.keys().eq(before.iter()) })
    }

    /// Signs an operation on what is known here; [`Self::insert`] takes it.
    pub fn prepare(&self, key: &SigningKey, action: Action, subject: DeviceId) -> Result<Op, Refusal> {
        let parents: Vec<_> = self.heads.iter().copied().take(MAX_PARENTS).collect();
        let op = Op::sign(&self.network, key, action, self.id, subject, parents);
        Op::verify(op.bytes(), &self.network)?;
        let past = self.past_of(&op);
        entitled(&op, &judge(&self.nodes, &past)).map(|_| op)
    }

    /// The members, and what each may do.
    pub fn members(&self) -> &BTreeMap<DeviceId, Level> {
        &self.verdict.members
    }

    /// Who may join, in order.
    pub fn invited(&self) -> &[DeviceId] {
        &self.verdict.invited
    }

    /// The members as somebody saw them who knew exactly `known` and what these build on; `None` if one of them has not come.
    pub fn members_at(&self, known: &[OpId]) -> Option<BTreeMap<DeviceId, Level>> {
        Some(judge(&self.nodes, &self.with_past(known)?).members)
    }

    /// Whether a device was a member for somebody who knew exactly `known` and what these build on.
    pub fn was_member(&self, known: &[OpId], device: DeviceId) -> bool {
        let Some(set) = self.with_past(known) else { return false };
        let joins = |op: &Op| op.subject == device && matches!(op.action, Action::Create | Action::Join);
        // Most did not know that it joined, and that is cheap to say.
        let is_known = self.nodes.iter().enumerate().any(|(at, node)| set.get(at) && joins(&node.op));
        is_known && judge(&self.nodes, &set).members.contains_key(&device)
    }

    fn with_past(&self, known: &[OpId]) -> Option<Bits> {
        let mut set = Bits::default();
        for id in known {
            let at = *self.places.get(id)?;
            set.join(&self.nodes.get(at)?.past);
            set.set(at);
        }
        Some(set)
    }

    /// The operations that no other one names: what a message says its author knew.
    pub fn heads(&self) -> impl Iterator<Item = OpId> {
        self.heads.iter().copied()
    }

    /// All operations, parents before children.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.nodes.iter().map(|node| &node.op)
    }

    /// What names the set of members: BLAKE3-derive-key("fog chat members v1", group id ‖ each member's device id, ascending).
    /// A sending key belongs to one set of members.
    pub fn members_digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(DIGEST);
        hasher.update(&self.id.0);
        for member in self.verdict.members.keys() {
            hasher.update(&member.0);
        }
        *hasher.finalize().as_bytes()
    }

    fn past_of(&self, op: &Op) -> Bits {
        let mut past = Bits::default();
        for at in op.parents.iter().filter_map(|id| self.places.get(id)) {
            past.set(*at);
            if let Some(parent) = self.nodes.get(*at) {
                past.join(&parent.past);
            }
        }
        past
    }

    /// Takes an operation whose parents are here, if its author was entitled to it.
    fn take(&mut self, op: Op) -> Result<(), Refusal> {
        if self.nodes.len() >= MAX_OPS {
            return Err(Refusal::Full);
        }
        let past = self.past_of(&op);
        let level = match entitled(&op, &judge(&self.nodes, &past)) {
            Ok(level) => level,
            Err(refusal) => {
                self.refuse(op.id);
                return Err(refusal);
            }
        };
        for parent in &op.parents {
            self.heads.remove(parent);
        }
        self.heads.insert(op.id);
        self.places.insert(op.id, self.nodes.len());
        self.nodes.push(Node { op, past, level });
        Ok(())
    }

    fn take_waiting(&mut self) {
        loop {
            let here = |id: &OpId| self.places.contains_key(id) || self.refused.contains(id);
            let ready = self.waiting.values().find(|op| op.parents.iter().all(here)).map(|op| op.id);
            let Some(op) = ready.and_then(|id| self.waiting.remove(&id)) else { return };
            if op.parents.iter().any(|id| self.refused.contains(id)) {
                self.refuse(op.id);
            } else {
                // A refusal is remembered; a full group takes nothing more.
                let _refused = self.take(op);
            }
        }
    }

    fn refuse(&mut self, id: OpId) {
        if self.refused.len() >= MAX_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back(id);
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("id", &self.id).field("ops", &self.nodes.len()).finish_non_exhaustive()
    }
}

/// Whether the author of `op` was entitled to it by what it knew, and its level then.
fn entitled(op: &Op, past: &Verdict) -> Result<Level, Refusal> {
    let author = past.members.get(&op.author).copied();
    let subject = past.members.get(&op.subject).copied();
    let invited = past.invited.binary_search(&op.subject).is_ok();
    match op.action {
        Action::Create => return Ok(Level::OWNER),
        Action::Join if subject.is_some() => return Err(Refusal::Pointless),
        Action::Join => return if invited { Ok(Level::MEMBER) } else { Err(Refusal::NotEntitled) },
        _ => {}
    }
    let level = author.ok_or(Refusal::NotEntitled)?;
    if op.action != Action::Leave && !level.is_admin() {
        return Err(Refusal::NotEntitled);
    }
    let below = subject.is_none_or(|subject| subject > level);
    let allowed = match op.action {
        Action::Remove | Action::MakeMember => below,
        Action::MakeAdmin => level.below() > level,
        _ => true,
    };
    let changes = match op.action {
        Action::Invite => subject.is_none() && !invited,
        Action::Remove => subject.is_some() || invited,
        Action::MakeAdmin => subject.is_some_and(|subject| subject > level.below()),
        Action::MakeMember => subject.is_some_and(Level::is_admin),
        _ => true,
    };
    match (allowed, changes) {
        (false, _) => Err(Refusal::NotEntitled),
        (_, false) => Err(Refusal::Pointless),
        _ => Ok(level),
    }
}

#[cfg(test)]
mod tests;
