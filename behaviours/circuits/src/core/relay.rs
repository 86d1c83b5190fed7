//! A circuit at a relay: one layer, and the cells that wait for a link.

use std::{collections::VecDeque, time::Instant};

use fog_base::NodeId;

use super::{
    cell::{Cell, Command, HopId, TAG_LEN},
    crypto::{handshake::BINDING_LEN, layer::RelayLayer},
    edge::Edge,
    links::{Attachment, Way},
    types::CircuitId,
};

/// What comes after this relay.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing: it is the last one.
    None,
    /// A link to the next relay is waited for, with this handshake.
    Connecting { node: NodeId, request: Vec<u8> },
    /// Its answer is waited for.
    Creating(Attachment),
    /// The next relay.
    Open(Attachment),
    /// Another circuit whose last relay this is.
    Joined(CircuitId),
}

#[derive(Debug)]
pub(super) struct RelayCircuit {
    pub(super) prev: Attachment,
    pub(super) next: Next,
    /// None until the handshake is answered.
    pub(super) layer: Option<RelayLayer>,
    pub(super) binding: [u8; BINDING_LEN],
    pub(super) edge: Edge,
    back: VecDeque<(Cell, Instant)>,
    away: VecDeque<(Cell, Instant)>,
    /// Cells for the circuit that this one is about to be joined with, without this relay's layer; `None` if it is not.
    pub(super) held: Option<Vec<(Cell, Instant)>>,
    pub(super) is_listed: (bool, bool),
    /// When the next relay must have answered.
    pub(super) deadline: Option<Instant>,
    pub(super) last_used: Instant,
    /// Whether others were told of it.
    pub(super) is_known: bool,
}

impl RelayCircuit {
    pub(super) fn new(prev: Attachment, now: Instant) -> Self {
        Self {
            prev,
            next: Next::None,
            layer: None,
            binding: [0; BINDING_LEN],
            edge: Edge::new(false),
            back: VecDeque::new(),
            away: VecDeque::new(),
            held: None,
            is_listed: (false, false),
            deadline: None,
            last_used: now,
            is_known: false,
        }
    }

    /// Whether somebody waits for something: a handshake, or the next relay.
    pub(super) fn is_half_open(&self) -> bool {
        self.layer.is_none() || matches!(self.next, Next::Connecting { .. } | Next::Creating(_))
    }

    /// The link of one way, if there is one.
    pub(super) fn attachment(&self, way: Way) -> Option<Attachment> {
        match (way, &self.next) {
            (Way::Back, _) => Some(self.prev),
            (Way::Away, Next::Creating(next) | Next::Open(next)) => Some(*next),
            (Way::Away, _) => None,
        }
    }

    /// Adds a cell that passes; says how many wait that way then.
    pub(super) fn push(&mut self, way: Way, cell: Cell, now: Instant) -> usize {
        let queue = match way {
            Way::Back => &mut self.back,
            Way::Away => &mut self.away,
        };
        queue.push_back((cell, now));
        queue.len()
    }

    /// Cells that wait.
    pub(super) fn queued(&self) -> usize {
        self.back.len() + self.away.len() + self.held.as_ref().map_or(0, Vec::len)
    }

    /// When the oldest cell that waits came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let held = self.held.as_ref().and_then(|held| held.first());
        [self.back.front(), self.away.front(), held].into_iter().flatten().map(|(_, at)| *at).min()
    }

    pub(super) fn is_ready(&self, way: Way) -> bool {
        match way {
            Way::Back => !self.back.is_empty() || (self.layer.is_some() && self.edge.is_ready()),
            Way::Away => !self.away.is_empty() && matches!(self.next, Next::Open(_)),
        }
    }

    /// The next cell that way, and whether it waited in a queue; `payload` is scratch. A layer is put on when a cell leaves, so
    /// that cells are chained in the order in which they travel.
    pub(super) fn next_cell(&mut self, way: Way, payload: &mut Vec<u8>, now: Instant) -> Option<(Cell, bool)> {
        match way {
            Way::Away => {
                let (_, hop) = self.attachment(way)?;
                let (mut cell, _) = self.away.pop_front()?;
                cell.set_head(hop, Command::Relay);
                Some((cell, true))
            }
            Way::Back => {
                let (_, hop) = self.prev;
                // What this relay said before it joined the circuit goes before what comes from the other one.
                if matches!(self.next, Next::Joined(_))
                    && let Some(cell) = self.own_cell(hop, payload, now)
                {
                    return Some((cell, false));
                }
                let layer = self.layer.as_mut()?;
                if let Some((mut cell, _)) = self.back.pop_front() {
                    layer.pass(cell.body_mut());
                    cell.set_head(hop, Command::Relay);
                    return Some((cell, true));
                }
                self.own_cell(hop, payload, now).map(|cell| (cell, false))
            }
        }
    }

    fn own_cell(&mut self, hop: HopId, payload: &mut Vec<u8>, now: Instant) -> Option<Cell> {
        payload.clear();
        let is_counted = self.edge.next_payload(payload)?;
        let mut cell = Cell::new(hop, Command::Relay);
        let body = cell.body_mut();
        body.iter_mut().skip(TAG_LEN).zip(payload.iter()).for_each(|(to, from)| *to = *from);
        let tag = self.layer.as_mut()?.seal(body);
        if is_counted {
            self.edge.handle_sent(tag, now);
        }
        Some(cell)
    }
}
