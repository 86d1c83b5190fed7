//! Requests that come through the mixnet: put together, bounded, and each run once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    core::{
        circuit::Circuit,
        mixed::{Answerer, Assembly, Request},
        reject::Reject,
    },
    wire::mixed::{Part, SealedRequest},
};

/// Requests that wait or are being answered.
const MAX_EXCHANGES: usize = 32;
/// Nonces that are remembered: a point that says that it passed nothing on, and did, makes a client go to another one.
const MAX_NONCES: usize = 16_384;

/// Where a request came from; as long as it is there it counts as one that is being answered.
#[derive(Debug)]
pub(super) struct Origin {
    circuit: Circuit,
    number: u64,
    room: Arc<()>,
}

/// A request to be answered.
#[derive(Debug)]
pub struct Exchange {
    /// The introduction point's circuit: the answer goes there, as parts.
    pub circuit: Circuit,
    /// The point's number for it.
    pub number: u64,
    /// The port that is asked for.
    pub port: u16,
    /// Whether the client's program ended its half.
    pub half_closed: bool,
    /// What it said.
    pub bytes: Vec<u8>,
    /// Seals the answer.
    pub answerer: Answerer,
    /// Drop it when the answer has left.
    pub room: Arc<()>,
}

impl Exchange {
    pub(super) fn new(from: Origin, request: Request, answerer: Answerer) -> Self {
        let Origin { circuit, number, room } = from;
        let Request { port, half_closed, bytes, .. } = request;
        Self { circuit, number, port, half_closed, bytes, answerer, room }
    }
}

/// What has come, and what is being answered.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    parts: BTreeMap<Circuit, Assembly>,
    room: Arc<()>,
    nonces: BTreeSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl Exchanges {
    /// A part from a point; the request, with its number, if it was the last.
    pub(super) fn part(&mut self, circuit: Circuit, part: &Part) -> Result<Option<(u64, SealedRequest)>, Reject> {
        let whole = self.parts.entry(circuit).or_default().push(part)?;
        let Some((number, bytes)) = whole else { return Ok(None) };
        self.parts.remove(&circuit);
        SealedRequest::decode(&bytes).map(|request| Some((number, request))).ok_or(Reject::Malformed)
    }

    /// The circuit is gone.
    pub(super) fn closed(&mut self, circuit: Circuit) {
        self.parts.remove(&circuit);
    }

    /// Takes a request, if it was not taken before and there is room.
    pub(super) fn admit(&mut self, circuit: Circuit, number: u64, nonce: &[u8; 16]) -> Result<Origin, Reject> {
        if self.nonces.contains(nonce) {
            return Err(Reject::Replayed);
        }
        // One of them is ours.
        if Arc::strong_count(&self.room) > MAX_EXCHANGES {
            return Err(Reject::Full);
        }
        self.nonces.insert(*nonce);
        self.order.push_back(*nonce);
        if self.order.len() > MAX_NONCES
            && let Some(oldest) = self.order.pop_front()
        {
            self.nonces.remove(&oldest);
        }
        Ok(Origin { circuit, number, room: Arc::clone(&self.room) })
    }
}
