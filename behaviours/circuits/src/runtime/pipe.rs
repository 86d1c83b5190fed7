//! One link between a connection's task and the engine: cells that came, and bytes of cells to write.

use std::{
    sync::{Arc, Mutex},
    task::Waker,
};

use fog_base::NodeId;

use super::{hub::Hub, lock};
use crate::core::{
    cell::{CELL_LEN, Cell},
    types::LinkId,
};

/// Cells that wait for the engine; the link is not read while there are more.
const MAX_RECEIVED: usize = 256;
/// Bytes that wait for the link; the same again may be on their way into it. The rest waits in circuits, where each gets its turn.
pub(crate) const MAX_UNWRITTEN: usize = 64 * CELL_LEN;

/// Why a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// It, or the connection, is gone.
    Gone,
    /// The peer sent what is no cell.
    Malformed,
}

#[derive(Debug, Default)]
struct State {
    received: Vec<Cell>,
    unwritten: Vec<u8>,
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
    pub(crate) received: Vec<Cell>,
    pub(crate) is_open: bool,
    pub(crate) over: Option<Over>,
}

/// One link.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) node: NodeId,
    pub(crate) link: LinkId,
    /// Whether this node opened it.
    pub(crate) is_opener: bool,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

impl Pipe {
    /// A link that is not open yet; the first is for whoever opens it.
    pub(crate) fn new_end(hub: &Arc<Hub>, node: NodeId, is_opener: bool) -> (End, Arc<Self>) {
        let link = hub.next_link();
        let pipe = Arc::new(Self { node, link, is_opener, hub: Arc::clone(hub), state: Mutex::default() });
        (End(Arc::clone(&pipe)), pipe)
    }

    /// Whether the engine wants no more of it.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).is_closed
    }

    /// What came since the last time. There is room for more then.
    pub(crate) fn take(&self) -> News {
        let mut state = lock(&self.state);
        state.is_listed = false;
        let received = std::mem::take(&mut state.received);
        let news = News { received, is_open: state.is_open, over: state.over };
        if news.received.len() >= MAX_RECEIVED {
            state.waker.take().into_iter().for_each(Waker::wake);
        }
        news
    }

    /// Bytes that it takes.
    pub(crate) fn room(&self) -> usize {
        MAX_UNWRITTEN.saturating_sub(lock(&self.state).unwritten.len())
    }

    /// Adds bytes to what is written.
    pub(crate) fn send(&self, bytes: &mut Vec<u8>) {
        let mut state = lock(&self.state);
        if state.over.is_none() {
            if state.unwritten.is_empty() {
                std::mem::swap(&mut state.unwritten, bytes);
            } else {
                state.unwritten.extend_from_slice(bytes);
            }
            state.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Ends the link when everything is written.
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
            self.hub.pipe_is_ready(Arc::clone(self));
        }
    }
}

/// The connection's end of a link; when it is dropped, the link is over.
#[derive(Debug)]
pub struct End(Arc<Pipe>);

impl End {
    /// The link is open.
    pub(crate) fn opened(&self) {
        self.0.change(|state| state.is_open = true);
    }

    /// The link is over for this reason; the first one counts.
    pub(crate) fn over(&self, why: Over) {
        self.0.change(|state| {
            state.over.get_or_insert(why);
        });
    }

    /// Hands over what was received; false, and later woken, if the engine has to take some first.
    pub(crate) fn receive(&self, cells: &mut Vec<Cell>, waker: &Waker) -> bool {
        if !cells.is_empty() {
            self.0.change(|state| state.received.append(cells));
        }
        let mut state = lock(&self.0.state);
        let is_room = state.received.len() < MAX_RECEIVED;
        if !is_room {
            state.waker = Some(waker.clone());
        }
        is_room
    }

    /// Takes all that is to be written, in exchange for an empty buffer; false, and later woken, if there is nothing. `None` when
    /// the engine wants no more of the link.
    pub(crate) fn unwritten(&self, bytes: &mut Vec<u8>, waker: &Waker) -> Option<bool> {
        let mut state = lock(&self.0.state);
        if state.unwritten.is_empty() {
            state.waker = Some(waker.clone());
            return (!state.is_closed).then_some(false);
        }
        std::mem::swap(&mut state.unwritten, bytes);
        let was_full = bytes.len() >= MAX_UNWRITTEN;
        drop(state);
        if was_full {
            // There is room again.
            self.0.change(|_| {});
        }
        Some(true)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.over(Over::Gone);
    }
}
