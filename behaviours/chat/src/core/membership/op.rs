//! Membership operations: what an admin or a member signs to change a group.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind: 0 create, 1 invite, 2 join, 3 leave, 4 remove, 5 make admin, 6 make member |
//! | 2 | 1 | number of parents, n ≤ 16; 0 for create alone |
//! | 3 | 32 | group: for create 32 random bytes, which become the group's id with the rest: see [`Op::group`] |
//! | 35 | 32 | author |
//! | 67 | 32 | subject; the author in create, join and leave |
//! | 99 | 32 n | parents, ascending: the operations that the author knew and that no other known one names |
//! | 99 + 32 n | 64 | Ed25519 signature of `"fog chat membership v1" ‖ 00 ‖ network id ‖ all before` |
//!
//! An operation's id is the BLAKE3 hash of all its bytes.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use fog_base::NetworkId;

use super::Refusal;
use crate::core::secrets::DeviceId;

/// Parents of one operation.
pub const MAX_PARENTS: usize = 16;
/// Longest operation in bytes.
pub const MAX_OP: usize = HEADER + 32 * MAX_PARENTS + 64;
const HEADER: usize = 99;
const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"fog chat membership v1\0";

/// The id of an operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub [u8; 32]);

impl std::fmt::Debug for OpId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<crate::core::id::ConversationId> for OpId {
    fn from(id: crate::core::id::ConversationId) -> Self {
        Self(id.0)
    }
}

/// The id of a group: that of the operation that created it.
pub type GroupId = OpId;

/// What an operation does to its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Begins the group; its author is the owner.
    Create = 0,
    /// Lets the subject join.
    Invite = 1,
    /// The author takes up an invite.
    Join = 2,
    /// The author goes.
    Leave = 3,
    /// The subject must go.
    Remove = 4,
    /// The subject becomes an admin, one level below the author.
    MakeAdmin = 5,
    /// The subject is an admin no more.
    MakeMember = 6,
}

impl Action {
    const ALL: [Self; 7] =
        [Self::Create, Self::Invite, Self::Join, Self::Leave, Self::Remove, Self::MakeAdmin, Self::MakeMember];

    /// Whether it takes something from another.
    pub(super) fn is_revocation(self) -> bool {
        matches!(self, Self::Remove | Self::MakeMember)
    }

    fn is_of_oneself(self) -> bool {
        matches!(self, Self::Create | Self::Join | Self::Leave)
    }
}

/// An operation whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// BLAKE3 of the bytes.
    pub id: OpId,
    /// What it does.
    pub action: Action,
    group: [u8; 32],
    /// Who signed it.
    pub author: DeviceId,
    /// To whom it is done.
    pub subject: DeviceId,
    /// What the author knew.
    pub parents: Vec<OpId>,
    bytes: Vec<u8>,
}

impl Op {
    /// Begins a group; `nonce` makes its id unlike that of any other.
    pub fn create(network: &NetworkId, key: &SigningKey, nonce: [u8; 32]) -> Self {
        let me = DeviceId(key.verifying_key().to_bytes());
        Self::make(network, key, Action::Create, nonce, me, Vec::new())
    }

    /// Signs an operation on top of `parents`, the heads of the group as the author knows it: see [`super::Group::prepare`].
    pub(super) fn sign(
        network: &NetworkId,
        key: &SigningKey,
        action: Action,
        group: GroupId,
        subject: DeviceId,
        mut parents: Vec<OpId>,
    ) -> Self {
        parents.sort_unstable();
        Self::make(network, key, action, group.0, subject, parents)
    }

    fn make(
        network: &NetworkId,
        key: &SigningKey,
        action: Action,
        group: [u8; 32],
        subject: DeviceId,
        parents: Vec<OpId>,
    ) -> Self {
        let author = DeviceId(key.verifying_key().to_bytes());
        let mut bytes = vec![VERSION, action as u8, u8::try_from(parents.len()).unwrap_or(u8::MAX)];
        bytes.extend_from_slice(&group);
        bytes.extend_from_slice(&author.0);
        bytes.extend_from_slice(&subject.0);
        for parent in &parents {
            bytes.extend_from_slice(&parent.0);
        }
        let signature = key.sign(&signed(network, &bytes));
        bytes.extend_from_slice(&signature.to_bytes());
        let id = OpId(*blake3::hash(&bytes).as_bytes());
        Self { id, action, group, author, subject, parents, bytes }
    }

    /// The operation in exactly these bytes, if its signature holds in `network`.
    pub fn verify(bytes: &[u8], network: &NetworkId) -> Result<Self, Refusal> {
        let (body, signature) = bytes.split_last_chunk::<64>().ok_or(Refusal::Malformed)?;
        let op = Self::parse(body, bytes).ok_or(Refusal::Malformed)?;
        VerifyingKey::from_bytes(&op.author.0)
            .and_then(|key| key.verify_strict(&signed(network, body), &Signature::from_bytes(signature)))
            .map_err(|_| Refusal::BadSignature)?;
        Ok(op)
    }

    fn parse(body: &[u8], bytes: &[u8]) -> Option<Self> {
        let (&[version, action, count], rest) = body.split_first_chunk::<3>()?;
        let (group, rest) = rest.split_first_chunk::<32>()?;
        let (author, rest) = rest.split_first_chunk::<32>()?;
        let (subject, rest) = rest.split_first_chunk::<32>()?;
        let action = *Action::ALL.get(usize::from(action))?;
        let count = usize::from(count);
        if version != VERSION || count > MAX_PARENTS || rest.len() != 32 * count {
            return None;
        }
        let (parents, _) = rest.as_chunks::<32>();
        let parents: Vec<_> = parents.iter().map(|id| OpId(*id)).collect();
        let ascending = parents.iter().zip(parents.iter().skip(1)).all(|(a, b)| a < b);
        let rooted = parents.is_empty() == (action == Action::Create);
        let own = author == subject || !action.is_of_oneself();
        let other = author != subject || action.is_of_oneself();
        (ascending && rooted && own && other).then(|| Self {
            id: OpId(*blake3::hash(bytes).as_bytes()),
            action,
            group: *group,
            author: DeviceId(*author),
            subject: DeviceId(*subject),
            parents,
            bytes: bytes.to_vec(),
        })
    }

    /// The group that this operation is of: for create its own id, for all others the id that they name.
    pub fn group(&self) -> GroupId {
        if self.action == Action::Create { self.id } else { OpId(self.group) }
    }

    /// What travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn signed(network: &NetworkId, body: &[u8]) -> Vec<u8> {
    [DOMAIN, &network.0, body].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NETWORK: NetworkId = NetworkId([7; 32]);

    #[test]
    fn no_byte_of_an_operation_can_be_changed_and_no_other_network_takes_it() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let parents = vec![OpId([2; 32]), OpId([1; 32])];
        let op = Op::sign(&NETWORK, &key, Action::Remove, OpId([9; 32]), DeviceId([3; 32]), parents);
        assert_eq!(Op::verify(op.bytes(), &NETWORK), Ok(op.clone()));
        assert_eq!(Op::verify(op.bytes(), &NetworkId([8; 32])), Err(Refusal::BadSignature));
        for at in 0..op.bytes().len() {
            let mut bad = op.bytes().to_vec();
            bad[at] ^= 1;
            assert!(Op::verify(&bad, &NETWORK).is_err(), "byte {at}");
            assert!(Op::verify(&op.bytes()[..at], &NETWORK).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn shapes_that_mean_nothing_are_refused() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let me = DeviceId(key.verifying_key().to_bytes());
        let other = DeviceId([3; 32]);
        let one = vec![OpId([1; 32])];
        let twice = vec![OpId([1; 32]), OpId([1; 32])];
        let many: Vec<_> = (0..=MAX_PARENTS as u8).map(|n| OpId([n; 32])).collect();
        for (action, subject, parents) in [
            (Action::Create, me, one.clone()),
            (Action::Invite, other, Vec::new()),
            (Action::Join, other, one.clone()),
            (Action::Leave, other, one.clone()),
            (Action::Remove, me, one.clone()),
            (Action::Invite, other, twice),
            (Action::Invite, other, many),
            (Action::MakeAdmin, me, one),
        ] {
            let op = Op::sign(&NETWORK, &key, action, OpId([9; 32]), subject, parents);
            assert_eq!(Op::verify(op.bytes(), &NETWORK), Err(Refusal::Malformed), "{action:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Op::verify(&bytes, &NETWORK).is_err());
        }
    }
}
