//! One stream as the engine and the connection's task share it: what was received and what is to be written, both bounded. A
//! stream that gives more than the engine takes is not read, so that the peer's flow control holds it back.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    task::Waker,
};

use fog_base::NodeId;

use super::{hub::Hub, lock};
use crate::wire::{FromSource, Message, ToSource, WireError};

/// Messages that wait for the engine: 1 MiB if all are steps.
const MAX_RECEIVED: usize = 64;
/// Bytes that wait for the stream: more than the upload's bounds for one peer let through (64 steps and 256 short messages).
const MAX_UNWRITTEN: usize = 4 << 20;

/// Which end of a stream this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The peer fetches here.
    Serves,
    /// This node fetches there.
    Fetches,
}

/// A message of either direction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Asked(ToSource),
    Told(FromSource),
}

impl Side {
    /// The message at the start of `bytes`, and its length.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<Option<(Received, usize)>, WireError> {
        Ok(match self {
            Self::Serves => ToSource::decode(bytes)?.map(|(message, len)| (Received::Asked(message), len)),
            Self::Fetches => FromSource::decode(bytes)?.map(|(message, len)| (Received::Told(message), len)),
        })
    }
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// It, or the connection, is gone.
    Gone,
    /// The peer does not speak the protocol.
    Unsupported,
    /// The peer sent what is no message.
    Malformed,
}

#[derive(Debug, Default)]
struct State {
    received: Vec<Received>,
    unwritten: Vec<u8>,
    /// The end of each message in `unwritten`.
    ends: VecDeque<usize>,
    /// Messages that the stream took since the engine looked.
    written: usize,
    is_open: bool,
    over: Option<Over>,
    /// The engine wants no more of it.
    is_closed: bool,
    is_listed: bool,
    waker: Option<Waker>,
}

/// What the engine finds when it looks.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) received: Vec<Received>,
    pub(crate) written: usize,
    pub(crate) is_open: bool,
    /// The engine has closed it.
    pub(crate) is_closed: bool,
    pub(crate) over: Option<Over>,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) node: NodeId,
    pub(crate) side: Side,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

impl Pipe {
    /// A stream that is not open yet; the second is for whoever opens it.
    pub(crate) fn new(hub: &Arc<Hub>, node: NodeId, side: Side) -> (Arc<Self>, End) {
        let pipe = Arc::new(Self { node, side, hub: Arc::clone(hub), state: Mutex::default() });
        (Arc::clone(&pipe), End(pipe))
    }

    /// What came since the last time. There is room for more then.
    pub(crate) fn take(&self) -> News {
        let mut state = lock(&self.state);
        state.is_listed = false;
        let news = News {
            received: std::mem::take(&mut state.received),
            written: std::mem::take(&mut state.written),
            is_open: state.is_open,
            is_closed: state.is_closed,
            over: state.over,
        };
        if news.received.len() >= MAX_RECEIVED {
            state.waker.take().into_iter().for_each(Waker::wake);
        }
        news
    }

    /// Adds a message to what is written; false if the stream takes nothing.
    pub(crate) fn send(&self, message: &impl Message) -> bool {
        let mut state = lock(&self.state);
        if state.unwritten.len() >= MAX_UNWRITTEN || state.over.is_some() {
            return false;
        }
        message.append(&mut state.unwritten);
        let end = state.unwritten.len();
        state.ends.push_back(end);
        state.waker.take().into_iter().for_each(Waker::wake);
        true
    }

    /// Ends the stream when everything is written.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        state.waker.take().into_iter().for_each(Waker::wake);
    }

    fn change(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        if !std::mem::replace(&mut state.is_listed, true) {
            drop(state);
            self.hub.ready(Arc::clone(self));
        }
    }
}

/// The connection's end of a pipe; when it is dropped, the stream is over.
#[derive(Debug)]
pub struct End(Arc<Pipe>);

impl End {
    pub(crate) fn side(&self) -> Side {
        self.0.side
    }

    /// The stream is open.
    pub(crate) fn opened(&self) {
        self.0.change(|state| state.is_open = true);
    }

    /// The stream is over for this reason; the first one counts.
    pub(crate) fn over(&self, why: Over) {
        self.0.change(|state| {
            state.over.get_or_insert(why);
        });
    }

    /// Hands over what was received; false, and later woken, if the engine has to take some first.
    pub(crate) fn receive(&self, messages: &mut Vec<Received>, waker: &Waker) -> bool {
        if !messages.is_empty() {
            self.0.change(|state| state.received.append(messages));
        }
        let mut state = lock(&self.0.state);
        let is_room = state.received.len() < MAX_RECEIVED;
        if !is_room {
            state.waker = Some(waker.clone());
        }
        is_room
    }

    /// Takes all that is to be written, in exchange for empty buffers; false, and later woken, if there is nothing. `None` when
    /// the engine wants no more of the stream.
    pub(crate) fn unwritten(&self, bytes: &mut Vec<u8>, ends: &mut VecDeque<usize>, waker: &Waker) -> Option<bool> {
        let mut state = lock(&self.0.state);
        if !state.unwritten.is_empty() {
            std::mem::swap(&mut state.unwritten, bytes);
            std::mem::swap(&mut state.ends, ends);
            return Some(true);
        }
        state.waker = Some(waker.clone());
        (!state.is_closed).then_some(false)
    }

    /// So many messages were written.
    pub(crate) fn wrote(&self, count: usize) {
        if count > 0 {
            self.0.change(|state| state.written += count);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.over(Over::Gone);
    }
}
