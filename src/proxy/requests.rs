//! What the proxy is asked for at present, and in which stage each request is.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::request::Target;
use crate::node::clock;

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It waits for a circuit.
    Circuit,
    /// The service's descriptor is fetched.
    Descriptor,
    /// The service is told of the rendezvous.
    Introduction,
    /// The service is on its way.
    Rendezvous,
    /// The far end connects.
    Connecting,
    /// Bytes flow.
    Open,
}

impl Stage {
    /// Its name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Circuit => "circuit",
            Self::Descriptor => "descriptor",
            Self::Introduction => "introduction",
            Self::Rendezvous => "rendezvous",
            Self::Connecting => "connecting",
            Self::Open => "open",
        }
    }
}

struct Entry {
    target: String,
    stage: Stage,
    began: Instant,
}

/// A request as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) target: String,
    pub(crate) stage: Stage,
    pub(crate) age: Duration,
}

#[derive(Default)]
struct State {
    last: u64,
    running: BTreeMap<u64, Entry>,
    begun: u64,
    /// Handshakes that led to no request.
    broken: u64,
    refused: u64,
}

/// All requests of this process.
#[derive(Default)]
pub(crate) struct Requests(Mutex<State>);

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests(…)")
    }
}

/// One request; it is forgotten when the last of these is dropped.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Ticket>);

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress(…)")
    }
}

struct Ticket {
    requests: Arc<Requests>,
    number: u64,
}

impl Requests {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program asked for `target`.
    pub(super) fn begin(self: &Arc<Self>, target: &Target) -> Progress {
        let target = match target {
            Target::Service { name, port } | Target::Name(name, port) => format!("{name}:{port}"),
            Target::Address(address, port) => std::net::SocketAddr::new(*address, *port).to_string(),
        };
        let mut state = self.state();
        state.last += 1;
        state.begun += 1;
        let number = state.last;
        state.running.insert(number, Entry { target, stage: Stage::Circuit, began: clock::now().mono });
        drop(state);
        Progress(Arc::new(Ticket { requests: Arc::clone(self), number }))
    }

    /// A handshake led to nothing.
    pub(super) fn break_off(&self) {
        self.state().broken += 1;
    }

    /// A request was refused.
    pub(super) fn refuse(&self) {
        self.state().refused += 1;
    }

    /// All that run, oldest first.
    pub(crate) fn views(&self) -> Vec<View> {
        let now = clock::now().mono;
        let view = |entry: &Entry| View {
            target: entry.target.clone(),
            stage: entry.stage,
            age: now.saturating_duration_since(entry.began),
        };
        self.state().running.values().map(view).collect()
    }

    /// Requests so far, those that were refused, and handshakes that led to none.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let state = self.state();
        (state.begun, state.refused, state.broken)
    }
}

impl Progress {
    /// It is in this stage now.
    pub(crate) fn set(&self, stage: Stage) {
        if let Some(entry) = self.0.requests.state().running.get_mut(&self.0.number) {
            entry.stage = stage;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.requests.state().running.remove(&self.number);
    }
}
