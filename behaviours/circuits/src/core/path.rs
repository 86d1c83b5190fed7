//! How circuits ask for paths. The directory knows the relays, their weights and the entry guards; whoever joins the two implements
//! [`PathSource`].

use std::fmt;

use fog_base::{NodeId, Now};

use super::{crypto::handshake::RelayKey, types::End};

/// A relay of a circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Who it is, and its circuit key.
    pub relay: RelayKey,
    /// Where it can be reached: multiaddresses in binary.
    pub addresses: Vec<Vec<u8>>,
}

/// Why there is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPath {
    /// Too few relays are known.
    #[error("there are too few relays for a circuit")]
    TooFewRelays,
    /// No exit takes the port.
    #[error("no relay opens connections to port {0}")]
    NoExit(u16),
}

/// Chooses relays, by weight; no two of one family or one global /16 (IPv6: /32) on a circuit.
pub trait PathSource: fmt::Debug + Send {
    /// The first `hops` relays of a circuit, a guard first; none of them related to `end`.
    fn stem(&mut self, hops: usize, end: Option<&Hop>, now: Now) -> Result<Vec<Hop>, NoPath>;

    /// As [`PathSource::stem`], for a circuit of a service or to one: the second relay is a guard of the second layer. A source that has none gives
    /// other stems.
    fn service_stem(&mut self, hops: usize, end: Option<&Hop>, now: Now) -> Result<Vec<Hop>, NoPath> {
        self.stem(hops, end, now)
    }

    /// These relays did not answer a moment ago: they are passed over where there are others, but for guards.
    fn set_suspects(&mut self, _: Vec<NodeId>) {}

    /// The relay after `stem` at which a circuit to `end` ends, if there is one that is not related to any of `stem`.
    fn end(&mut self, stem: &[NodeId], end: &End, now: Now) -> Result<Hop, NoPath>;

    /// Whether this exit opens connections to the port.
    fn is_open(&self, exit: &NodeId, port: u16) -> bool;

    /// A circuit was built through this guard; false if another guard is to be taken instead.
    fn handle_built(&mut self, guard: NodeId, now: Now) -> bool;

    /// No circuit could be built through this guard.
    fn handle_failed(&mut self, guard: NodeId, now: Now);
}
