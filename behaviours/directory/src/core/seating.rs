//! Who carries traffic in an epoch. The seam of the lottery: DESIGN §6 seats relays by a VRF ticket over a beacon, with a chance that
//! grows with stake and reputation, and puts each into a mix layer. That will be another implementation of [`Seating`]; the
//! snapshot and the paths only see seats.

use std::{fmt, sync::Arc};

use fog_base::Epoch;

use super::descriptor::Descriptor;

/// A relay that carries traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// The relay.
    pub descriptor: Arc<Descriptor>,
    /// Its share of the traffic, relative to the others.
    pub weight: u64,
    /// Its mix layer; `None` where every relay may stand anywhere.
    pub layer: Option<u8>,
}

/// Decides who is seated. The same set must give the same seats on every node.
pub trait Seating: fmt::Debug + Send + Sync {
    /// The seats of `epoch`, from the relays that have keys for it, sorted by id.
    fn seat(&self, epoch: Epoch, relays: &[Arc<Descriptor>]) -> Vec<Seat>;
}

/// An open network: every relay is seated, with weight 1, in no layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenSeating;

impl Seating for OpenSeating {
    fn seat(&self, _epoch: Epoch, relays: &[Arc<Descriptor>]) -> Vec<Seat> {
        relays.iter().map(|descriptor| Seat { descriptor: descriptor.clone(), weight: 1, layer: None }).collect()
    }
}
