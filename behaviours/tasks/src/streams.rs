//! Frames between the swarm and whoever drives the cores, which is a thread of its own: what is to be sent waits here for its stream, what
//! came goes into a bounded channel, and a stream is not read while that is full.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use fog_base::{DropCounters, DropReason, NodeId};
use libp2p::PeerId;

use crate::ids::peer_id;

/// The longest frame, in bytes: what is carried inline, and what is around it.
pub const MAX_FRAME: usize = 768 * 1024;
/// Frames and bytes that wait for one peer.
const MAX_FRAMES: usize = 8_192;
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Peers that are written to at a time.
const MAX_PEERS: usize = 1_024;

/// Something came from the swarm.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// A node is connected.
    Connected(NodeId),
    /// It is not any more, or cannot be reached, or does not speak this protocol.
    Gone(NodeId),
    /// It sent this.
    Frame(NodeId, Vec<u8>),
}

#[derive(Debug, Default)]
struct Outgoing {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Of the stream that writes to this peer.
    waker: Option<Waker>,
    /// Whether the swarm knows that something waits.
    is_listed: bool,
}

#[derive(Debug, Default)]
struct State {
    peers: BTreeMap<PeerId, Outgoing>,
    /// Peers for which something waits, and no stream.
    wanted: VecDeque<PeerId>,
    waker: Option<Waker>,
}

/// Sends frames. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    state: Arc<Mutex<State>>,
    drops: Arc<DropCounters>,
}

impl Streams {
    /// Sends a frame, connecting first if need be; false if too much waits for this node.
    pub fn send(&self, to: NodeId, frame: Vec<u8>) -> bool {
        let Some(peer) = peer_id(to) else { return false };
        let mut state = self.lock();
        let room = state.peers.len() < MAX_PEERS || state.peers.contains_key(&peer);
        let outgoing = if room { Some(state.peers.entry(peer).or_default()) } else { None };
        let Some(outgoing) = outgoing.filter(|outgoing| {
            frame.len() <= MAX_FRAME
                && outgoing.frames.len() < MAX_FRAMES
                && outgoing.bytes.saturating_add(frame.len()) <= MAX_BYTES
        }) else {
            self.drops.count(DropReason::QueueFull);
            return false;
        };
        outgoing.bytes += frame.len();
        outgoing.frames.push_back(frame);
        match outgoing.waker.take() {
            Some(waker) => waker.wake(),
            None if !std::mem::replace(&mut outgoing.is_listed, true) => {
                state.wanted.push_back(peer);
                state.waker.take().into_iter().for_each(Waker::wake);
            }
            None => {}
        }
        true
    }

    /// What was dropped, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// The next peer that needs a stream.
    pub(crate) fn poll_wanted(&self, cx: &Context<'_>) -> Poll<PeerId> {
        let mut state = self.lock();
        if let Some(peer) = state.wanted.pop_front() {
            return Poll::Ready(peer);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The stream's turn: takes what is to be written, up to `most` bytes and one frame at least; false, and later woken, if there is nothing.
    pub(crate) fn poll_frames(&self, peer: &PeerId, into: &mut Vec<u8>, most: usize, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        let outgoing = state.peers.entry(*peer).or_default();
        outgoing.is_listed = true;
        while into.len() < most
            && let Some(frame) = outgoing.frames.pop_front()
        {
            outgoing.bytes -= frame.len();
            // A frame is shorter than 2³².
            into.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            into.extend_from_slice(&frame);
        }
        if into.is_empty() {
            outgoing.waker = Some(cx.waker().clone());
        }
        !into.is_empty()
    }

    /// There is no stream to this peer any more; what waited is dropped. True if there was something.
    pub(crate) fn forget(&self, peer: &PeerId) -> bool {
        let gone = self.lock().peers.remove(peer);
        gone.is_some_and(|outgoing| {
            self.drops.add(DropReason::NoRoute, outgoing.frames.len() as u64);
            !outgoing.frames.is_empty()
        })
    }

    /// The stream has ended, and the connection has not: another one is opened when something is to be sent.
    pub(crate) fn detach(&self, peer: &PeerId) {
        let mut state = self.lock();
        let Some(outgoing) = state.peers.get_mut(peer) else { return };
        outgoing.waker = None;
        outgoing.is_listed = !outgoing.frames.is_empty();
        if outgoing.is_listed {
            state.wanted.push_back(*peer);
            state.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
