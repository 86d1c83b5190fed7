//! The pure part: no IO, no clock, no ambient randomness, no libp2p.
//!
//! A relay is [`relay`] (a batch of packets in, outcomes out), [`pool`], [`delay`], [`replay`] and [`keyring`]; an endpoint is
//! [`endpoint`] on top of [`cover`], [`loops`], [`outgoing`], [`reassembly`], [`seal`] and [`surbs`]; [`mailbox`] keeps packets for others.

pub mod cover;
pub mod delay;
pub mod endpoint;
pub mod keyring;
pub mod loops;
pub mod mailbox;
pub mod outgoing;
pub mod pool;
pub mod reassembly;
pub mod relay;
pub mod replay;
pub mod seal;
pub mod surbs;

/// The versions of the protocol that this node speaks, highest first: what it puts into its descriptor, offers on links, and asks
/// of paths. A packet has one version, and every relay on its path speaks it.
pub const VERSIONS: [u16; 1] = [fog_sphinx::VERSION as u16];

/// A change of one entry in the store: a value, or `None` to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The entry.
    pub key: Vec<u8>,
    /// Its new value.
    pub value: Option<Vec<u8>>,
}

/// A packet in memory of its own, passed from hand to hand without copying.
pub type PacketBuf = Box<fog_sphinx::PacketBytes>;
