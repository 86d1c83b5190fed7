//! Why a message stands where it stands.

use std::collections::BTreeMap;

use super::{graph::Graph, waiting::Room};
use crate::core::id::{DeviceId, MessageId};

/// How far a message, or a predecessor of one, is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its clock was recomputed and is true.
    Complete,
    /// Complete, of an author that forked, and shown because others answered to it.
    Disputed,
    /// Complete, of an author that forked, and not shown.
    Aside,
    /// It waits for predecessors and is shown; its clock is its author's claim.
    Unproved,
    /// It waits for predecessors.
    Waiting,
    /// It is not here.
    Missing,
}

impl Standing {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Disputed => "disputed",
            Self::Aside => "aside",
            Self::Unproved => "unproved",
            Self::Waiting => "waiting",
            Self::Missing => "missing",
        }
    }
}

/// The causal proof of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Who wrote it; the signature was checked.
    pub author: DeviceId,
    /// Its number among its author's.
    pub seq: u32,
    /// With its id, its place in the history.
    pub lamport: u64,
    /// How far it is known.
    pub standing: Standing,
    /// Its predecessors, its author's previous message first, and how far they are known.
    pub predecessors: Vec<(MessageId, Standing)>,
    /// The clock that follows from them; empty unless it is complete.
    pub clock: BTreeMap<DeviceId, u32>,
    /// From which number on its author's messages are disputed.
    pub disputed_from: Option<u32>,
    /// Who has shown that they have seen it.
    pub seen_by: Vec<DeviceId>,
}

pub(super) fn explain(graph: &Graph, room: &Room, id: &MessageId) -> Option<Why> {
    let with = |ids: Vec<MessageId>| ids.into_iter().map(|id| (id, standing(graph, room, &id))).collect();
    if let Some(waiting) = room.get(id) {
        let header = waiting.signed.header();
        return Some(Why {
            author: header.author,
            seq: header.seq,
            lamport: header.lamport,
            standing: standing(graph, room, id),
            predecessors: with(header.predecessors().collect()),
            clock: BTreeMap::new(),
            disputed_from: graph.disputes().get(&header.author).copied(),
            seen_by: Vec::new(),
        });
    }
    let node = graph.get(id)?;
    let author = graph.author(node.slot)?;
    let predecessors = node.predecessors.iter().filter_map(|at| graph.node(*at)).map(|node| node.id);
    Some(Why {
        author,
        seq: node.seq,
        lamport: node.lamport,
        standing: standing(graph, room, id),
        predecessors: with(predecessors.collect()),
        clock: graph.index(id).map(|at| graph.named_clock(at)).unwrap_or_default(),
        disputed_from: graph.disputes().get(&author).copied(),
        seen_by: graph.seen_by(id),
    })
}

fn standing(graph: &Graph, room: &Room, id: &MessageId) -> Standing {
    if let Some(waiting) = room.get(id) {
        return if waiting.is_shown { Standing::Unproved } else { Standing::Waiting };
    }
    let Some(node) = graph.get(id) else { return Standing::Missing };
    let is_disputed = graph.author(node.slot).is_some_and(|author| graph.is_disputed(&author, node.seq));
    match (is_disputed, node.is_shown) {
        (false, _) => Standing::Complete,
        (true, true) => Standing::Disputed,
        (true, false) => Standing::Aside,
    }
}
