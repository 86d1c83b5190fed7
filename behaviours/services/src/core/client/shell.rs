//! What the connections of a client share: the way out.

use std::collections::VecDeque;

use fog_base::{NetworkId, NodeId};

use super::Output;
use crate::{
    core::{
        circuit::{Circuit, Purpose},
        random::Random,
        reject::Rejects,
    },
    wire::Message,
};

#[derive(Debug)]
pub(super) struct Shell {
    pub(super) network: NetworkId,
    pub(super) random: Random,
    pub(super) rejects: Rejects,
    pub(super) outputs: VecDeque<Output>,
    next: u64,
    /// Whose circuits are being opened.
    pub(super) connection: super::ConnectionId,
}

impl Shell {
    pub(super) fn new(network: NetworkId, seed: [u8; 32]) -> Self {
        Self {
            network,
            random: Random::new(seed),
            rejects: Rejects::default(),
            outputs: VecDeque::new(),
            next: 0,
            connection: super::ConnectionId(0),
        }
    }

    pub(super) fn open(&mut self, relay: NodeId, purpose: Purpose) -> Circuit {
        self.next += 1;
        let circuit = Circuit(self.next);
        self.outputs.push_back(Output::Open { circuit, relay, purpose, connection: self.connection });
        circuit
    }

    pub(super) fn send(&mut self, circuit: Circuit, message: Message) {
        self.outputs.push_back(Output::Send(circuit, message));
    }

    pub(super) fn close(&mut self, circuit: Circuit) {
        self.outputs.push_back(Output::Close(circuit));
    }
}
