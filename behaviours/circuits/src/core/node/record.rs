//! What a node receives, for tests of what each party can see. Off unless a test turns it on.

use fog_base::NodeId;

use super::{Circuit, Core};
use crate::core::{
    cell::{Body, Cell, TAG_LEN},
    links::Attachment,
    relay::Next,
    types::{CircuitId, LinkId, Output},
};

/// Bytes that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// For which circuit; none if they begin one, or are for none.
    pub circuit: Option<CircuitId>,
    /// The circuit that it is joined with here.
    pub joined: Option<CircuitId>,
    /// Who sent the cell.
    pub from: NodeId,
    /// The payload of a cell that was for this node; else the body of a cell as it came.
    pub is_opened: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Core {
    /// A cell as it came.
    pub(super) fn record_cell(&mut self, link: LinkId, cell: &Cell) {
        if self.config.is_recorded {
            let circuit = self.links.circuit((link, cell.id())).map(|(circuit, _)| circuit);
            self.record(circuit, link, false, cell.body());
        }
    }

    /// What a cell that is for this node says.
    pub(super) fn record_payload(&mut self, circuit: CircuitId, body: &Body) {
        if !self.config.is_recorded {
            return;
        }
        let from: Option<Attachment> = match self.circuits.get(&circuit) {
            Some(Circuit::Relay(relay)) => Some(relay.prev),
            Some(Circuit::Client(client)) => client.link,
            None => None,
        };
        if let Some((link, _)) = from {
            self.record(Some(circuit), link, true, body.get(TAG_LEN..).unwrap_or_default());
        }
    }

    fn record(&mut self, circuit: Option<CircuitId>, link: LinkId, is_opened: bool, bytes: &[u8]) {
        let Some(from) = self.links.peer(link) else { return };
        let joined = circuit.and_then(|circuit| match self.circuits.get(&circuit) {
            Some(Circuit::Relay(relay)) => match relay.next {
                Next::Joined(other) => Some(other),
                _ => None,
            },
            _ => None,
        });
        self.outputs.push_back(Output::Recorded(Record { circuit, joined, from, is_opened, bytes: bytes.to_vec() }));
    }
}
