//! A circuit at the node that builds it: its layers, and where it stands.

use std::time::Instant;

use fog_base::NodeId;

use super::{
    cell::{BODY_LEN, Body, Cell, Command, PAYLOAD_LEN, TAG_LEN},
    crypto::{
        handshake::{BINDING_LEN, Waiting},
        layer::{CellTag, ClientLayer, RelayLayer},
    },
    edge::{Edge, EdgeEvent},
    links::Attachment,
    path::Hop,
    types::{End, FirstStream, Isolation, Purpose},
};

/// Cells that are held for a hop that is about to be added, or for a circuit that is about to be joined: more than the first window of
/// the other end, and what does not count.
pub(super) const MAX_HELD: usize = 256;

/// Where a circuit stands.
#[derive(Debug)]
pub(super) enum Stage {
    /// Waits for a link to its first relay.
    Connecting,
    /// Waits for the answer of the next relay.
    Building(Box<Waiting>),
    /// Is there.
    Open,
}

impl Stage {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Building(_) => "building",
            Self::Open => "open",
        }
    }
}

#[derive(Debug)]
pub(super) struct ClientCircuit {
    pub(super) purpose: Purpose,
    /// Its second relay is a guard of the second layer.
    pub(super) is_of_service: bool,
    pub(super) isolation: Isolation,
    /// Where it is to end; a spare one ends anywhere.
    pub(super) end: Option<End>,
    pub(super) hops: usize,
    pub(super) path: Vec<Hop>,
    /// Paths that may still be tried.
    pub(super) attempts: u32,
    pub(super) stage: Stage,
    pub(super) link: Option<Attachment>,
    pub(super) layers: Vec<ClientLayer>,
    /// At a service: its part of the virtual hop.
    pub(super) service: Option<RelayLayer>,
    pub(super) is_virtual: bool,
    /// That part, until what was said to the last relay before has left; and the stream that begins with it.
    pub(super) awaited: Option<(RelayLayer, Option<FirstStream>)>,
    /// What that stream brought.
    pub(super) begun: Vec<EdgeEvent>,
    /// Cells for a hop that is about to be added, without the layers before it; `None` if none is.
    pub(super) held: Option<Vec<Body>>,
    pub(super) edge: Edge,
    /// The payload that asks the last relay so far to go on.
    pub(super) extend: Option<Vec<u8>>,
    pub(super) binding: [u8; BINDING_LEN],
    pub(super) created: Instant,
    /// When it was first used.
    pub(super) used: Option<Instant>,
    pub(super) last_used: Instant,
    /// When it first said something that nothing came after.
    pub(super) asked: Option<Instant>,
    /// When it must be built, or the next path is tried.
    pub(super) deadline: Option<Instant>,
    /// When this build began, and with how many hops.
    pub(super) started: (Instant, usize),
    pub(super) bytes: (u64, u64),
    pub(super) is_listed: bool,
}

/// For whom a cell is that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recognised {
    /// From the last hop, for the edge.
    Last(CellTag),
    /// From a hop before it.
    Before,
    /// From the hop that is about to be added; it is kept.
    Held,
    Nobody,
}

impl ClientCircuit {
    pub(super) fn new(purpose: Purpose, end: Option<End>, isolation: Isolation, hops: usize, now: Instant) -> Self {
        Self {
            purpose,
            is_of_service: purpose.is_of_service(),
            isolation,
            end,
            hops,
            path: Vec::new(),
            attempts: 0,
            stage: Stage::Connecting,
            link: None,
            layers: Vec::new(),
            service: None,
            is_virtual: false,
            awaited: None,
            begun: Vec::new(),
            held: None,
            edge: Edge::new(true),
            extend: None,
            binding: [0; BINDING_LEN],
            created: now,
            used: None,
            last_used: now,
            asked: None,
            deadline: None,
            started: (now, 0),
            bytes: (0, 0),
            is_listed: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Its relays, as far as the one that is asked now.
    pub(super) fn reached(&self) -> Vec<NodeId> {
        self.path.iter().take(self.layers.len() + 1).map(|hop| hop.relay.id).collect()
    }

    pub(super) fn guard(&self) -> Option<NodeId> {
        self.path.first().map(|hop| hop.relay.id)
    }

    /// Whether it has a cell to send.
    pub(super) fn is_ready(&self) -> bool {
        self.link.is_some() && (self.extend.is_some() || (self.is_open() && self.edge.is_ready()))
    }

    /// The next cell; `payload` is scratch.
    pub(super) fn next_cell(&mut self, payload: &mut Vec<u8>, now: Instant) -> Option<Cell> {
        let (_, hop) = self.link?;
        payload.clear();
        let is_counted = match self.extend.take() {
            Some(extend) => {
                *payload = extend;
                false
            }
            None if self.is_open() => self.edge.next_payload(payload)?,
            None => return None,
        };
        let mut cell = Cell::new(hop, Command::Relay);
        let body = cell.body_mut();
        body.iter_mut().skip(TAG_LEN).zip(payload.iter()).for_each(|(to, from)| *to = *from);
        let tag = self.seal(body);
        if is_counted {
            self.asked.get_or_insert(now);
            self.edge.handle_sent(tag, now);
        }
        self.bytes.0 += PAYLOAD_LEN as u64;
        self.begin_service();
        Some(cell)
    }

    /// From now on what is said goes to the other end: once the last relay has been told all that was meant for it.
    pub(super) fn begin_service(&mut self) {
        if self.edge.is_idle()
            && let Some((layer, first)) = self.awaited.take()
        {
            self.service = Some(layer);
            self.edge = Edge::new(false);
            if let Some(FirstStream { target, early, .. }) = first {
                // A new edge takes a first stream, and no more bytes came than may be early.
                self.begun = self.edge.adopt(target, &early).unwrap_or_default();
            }
        }
    }

    fn seal(&mut self, body: &mut Body) -> CellTag {
        let mut layers = self.layers.iter_mut().rev();
        let tag = match &mut self.service {
            Some(service) => service.seal(body),
            None => layers.next().map(|layer| layer.seal(body)).unwrap_or_default(),
        };
        layers.for_each(|layer| layer.pass(body));
        tag
    }

    /// Takes the layers off a cell that came.
    pub(super) fn open(&mut self, body: &mut Body) -> Recognised {
        self.bytes.1 += PAYLOAD_LEN as u64;
        let count = self.layers.len();
        for (at, layer) in self.layers.iter_mut().enumerate() {
            if let Some(tag) = layer.open(body) {
                let is_last = at + 1 == count && self.service.is_none();
                return if is_last { Recognised::Last(tag) } else { Recognised::Before };
            }
        }
        if let Some(held) = self.held.as_mut().filter(|held| held.len() < MAX_HELD) {
            held.push(*body);
            return Recognised::Held;
        }
        let tag = self.service.as_mut().and_then(|service| service.open(body));
        tag.map_or(Recognised::Nobody, Recognised::Last)
    }

    /// Takes the layer of the added hop off a cell that was held for it.
    pub(super) fn open_held(&mut self, body: &mut Body) -> Option<CellTag> {
        self.layers.last_mut()?.open(body)
    }

    /// What waits in it, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.edge.held_bytes() + self.held.as_ref().map_or(0, Vec::len) * BODY_LEN
    }
}
