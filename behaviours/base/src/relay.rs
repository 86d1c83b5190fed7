//! What protocols need to know of a relay, and the trait by which they ask for paths.
//!
//! The directory knows relays and implements [`PathSelector`]; the mixnet and the circuits only see this file. So neither knows
//! the other.

use std::{fmt, str::FromStr, sync::Arc};

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::{Epoch, NodeId};

/// What a relay offers to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Mixes packets.
    Mix,
    /// Is the first hop of circuits.
    Guard,
    /// Opens connections to the internet for circuits.
    Exit,
    /// Keeps messages for nodes that cannot be reached.
    Mailbox,
    /// Stores directory records.
    Directory,
    /// Runs tasks.
    Worker,
}

impl Role {
    /// All roles, with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Mix, "mix"),
        (Self::Guard, "guard"),
        (Self::Exit, "exit"),
        (Self::Mailbox, "mailbox"),
        (Self::Directory, "directory"),
        (Self::Worker, "worker"),
    ];
}

/// A set of roles; one bit each, in the order of [`Role::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roles(u16);

impl Roles {
    /// No role: a client.
    pub const NONE: Self = Self(0);

    /// The set as bits.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// From bits; those of roles that a later release knows are left out.
    pub fn known(bits: u16) -> Self {
        Self(bits & ((1 << Role::ALL.len()) - 1))
    }

    /// With `role` added.
    #[must_use]
    pub fn with(self, role: Role) -> Self {
        Self(self.0 | 1 << role as u16)
    }

    /// Whether `role` is in the set.
    pub fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u16) != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of the roles, in order.
    pub fn names(self) -> Vec<&'static str> {
        Role::ALL.iter().filter(|(role, _)| self.has(*role)).map(|(_, name)| *name).collect()
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("none") } else { f.write_str(&self.names().join(",")) }
    }
}

/// A role's name that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown role `{0}`: the roles are mix, guard, exit, mailbox, directory, worker, or none alone")]
pub struct UnknownRole(String);

impl FromStr for Roles {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        if text == "none" {
            return Ok(Self::NONE);
        }
        text.split(',').try_fold(Self::NONE, |roles, part| {
            let part = part.trim();
            let found = Role::ALL.iter().find(|(_, name)| *name == part);
            found.map(|(role, _)| roles.with(*role)).ok_or_else(|| UnknownRole(part.to_owned()))
        })
    }
}

/// A relay as a path needs it, for one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayHop {
    /// Who it is.
    pub id: NodeId,
    /// Its X25519 mix key of the epoch; known to be torsion-free.
    pub mix_key: [u8; 32],
    /// The relay's VRF output for the epoch, from which its delays are drawn.
    pub delay_salt: [u8; 32],
    /// Its long-term key for sealed messages.
    pub seal_key: [u8; 32],
    /// The versions of the mix protocol that it speaks.
    pub versions: Arc<[u16]>,
}

impl RelayHop {
    /// Whether it takes packets of `version`.
    pub fn speaks(&self, version: u16) -> bool {
        self.versions.contains(&version)
    }
}

/// Why there is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPath {
    /// Fewer relays than the path needs.
    #[error("a path of {hops} hops needs {needed} relays besides its ends, and {known} are known")]
    TooFewRelays {
        /// The hops that were asked for.
        hops: usize,
        /// How many relays that takes.
        needed: usize,
        /// How many can be used.
        known: usize,
    },
    /// The last hop is not a relay of the snapshot.
    #[error("{0} is not a relay of this epoch")]
    UnknownRelay(NodeId),
    /// The last hop does not speak the version of the packet.
    #[error("{0} does not speak version {1} of the mix protocol")]
    UnknownVersion(NodeId, u16),
}

/// What a path must be.
#[derive(Debug, Clone)]
pub struct PathRequest<'a> {
    /// The epoch whose keys are used.
    pub epoch: Epoch,
    /// How many relays unwrap the packet, the last one included.
    pub hops: usize,
    /// The last one.
    pub last: NodeId,
    /// The version of the packet: every relay on the path speaks it.
    pub version: u16,
    /// Relays that must not be on it: the sender, and for replies whoever sends the reply.
    pub exclude: &'a [NodeId],
    /// Relays that are left out as long as enough others remain: those of a path that just failed.
    pub avoid: &'a [NodeId],
}

/// Draws paths from the snapshot of an epoch. It knows an epoch's relays from half a grace before the epoch begins until its
/// grace ends: replies of an epoch travel as long as its keys work.
pub trait PathSelector: fmt::Debug {
    /// A path that ends at `request.last`: no relay twice, no two of one global /16 (IPv6: /32) or one family, and none that
    /// does not speak `request.version`.
    fn path(&self, request: &PathRequest<'_>, rng: &mut dyn Rng) -> Result<Vec<RelayHop>, NoPath>;

    /// A path under the same rules for a loop that measures relays: at each hop before the last one, of the relays that may
    /// stand there the one that `measured` names the lowest number for; among equals, at random and not by weight.
    fn measuring_path(
        &self,
        request: &PathRequest<'_>,
        measured: &dyn Fn(&NodeId) -> u32,
        rng: &mut dyn Rng,
    ) -> Result<Vec<RelayHop>, NoPath>;

    /// One relay of the epoch.
    fn relay(&self, epoch: Epoch, id: NodeId) -> Option<RelayHop>;

    /// The relays of the epoch that offer `role`, in the order of their ids.
    fn with_role(&self, epoch: Epoch, role: Role) -> Vec<NodeId>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_read_back_as_they_print() {
        for text in ["none", "mix", "mix,guard,mailbox,directory,worker"] {
            assert_eq!(text.parse::<Roles>().unwrap().to_string(), text);
        }
        assert!("mix,none".parse::<Roles>().is_err());
        assert!("mixer".parse::<Roles>().unwrap_err().to_string().contains("mixer"));
        assert_eq!(Roles::known(1 << 6 | 1), Roles::NONE.with(Role::Mix));
    }
}
