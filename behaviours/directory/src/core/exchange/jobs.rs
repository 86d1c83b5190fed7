//! What is wanted besides the live set: a named set, a state, links of the chain. One of each at most.

use std::{sync::Arc, time::Instant};

use fog_base::{DropReason, Epoch, EpochSchedule, NetworkId, NodeId, Now, UnixMillis};

use super::{Output, Step, archive::NamedSet, set_job::SetJob, state_job::StateJob, tries::Tries};
use crate::{
    core::{certificate::chain::Link, relay_set::RelaySet},
    wire::{Request, Response},
};

/// The largest set that is fetched.
pub const MAX_SET: u32 = 10_000;
/// How many peers are asked for links.
const LINK_PEERS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Set,
    State,
    Links,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Set, Self::State, Self::Links];
}

#[derive(Debug, Default)]
pub(super) struct Jobs {
    orders: u64,
    set: Option<(Tries, SetJob)>,
    state: Option<(Tries, StateJob)>,
    links: Option<(Tries, Epoch)>,
}

impl Jobs {
    fn tries_for(&mut self, hint: Option<NodeId>, at_once: usize) -> Tries {
        self.orders += 1;
        Tries::new(self.orders, hint, at_once)
    }

    /// Orders a set; hands it back if the candidates are it.
    pub(super) fn want_set(
        &mut self,
        (root, relays, at): ([u8; 32], u32, UnixMillis),
        hint: Option<NodeId>,
        candidates: Arc<NamedSet>,
    ) -> Option<Arc<NamedSet>> {
        if let Some((tries, _)) = self.set.as_mut().filter(|(_, job)| job.root == root) {
            tries.set_hint(hint);
            return None;
        }
        let job = SetJob::new((root, relays, at), candidates);
        let found = job.is_there();
        self.set = if found.is_some() { None } else { Some((self.tries_for(hint, 1), job)) };
        found
    }

    pub(super) fn want_state(&mut self, hash: [u8; 32]) {
        if self.state.as_ref().is_none_or(|(_, job)| job.hash != hash) {
            self.state = Some((self.tries_for(None, 1), StateJob::new(hash)));
        }
    }

    pub(super) fn want_links(&mut self, after: Epoch) {
        self.links = Some((self.tries_for(None, LINK_PEERS), after));
    }

    pub(super) fn cancel(&mut self, kind: Kind) {
        match kind {
            Kind::Set => self.set = None,
            Kind::State => self.state = None,
            Kind::Links => self.links = None,
        }
    }

    pub(super) fn tries(&mut self, kind: Kind) -> Option<&mut Tries> {
        match kind {
            Kind::Set => self.set.as_mut().map(|(tries, _)| tries),
            Kind::State => self.state.as_mut().map(|(tries, _)| tries),
            Kind::Links => self.links.as_mut().map(|(tries, _)| tries),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Tries> {
        let set = self.set.as_ref().map(|(tries, _)| tries);
        let state = self.state.as_ref().map(|(tries, _)| tries);
        let links = self.links.as_ref().map(|(tries, _)| tries);
        [set, state, links].into_iter().flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Whether a job would ask `peer`.
    pub(super) fn wants(&self, peer: NodeId) -> bool {
        self.all().any(|tries| tries.wants(peer))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.all().filter_map(Tries::poll_timeout).min()
    }

    pub(super) fn handle_disconnected(&mut self, peer: NodeId) {
        for kind in Kind::ALL {
            if let Some(tries) = self.tries(kind) {
                tries.handle_disconnected(peer);
            }
        }
    }

    /// The first request of a job to a peer, with the number of its order.
    pub(super) fn start(&mut self, kind: Kind) -> Option<(u64, Step<Output>)> {
        Some(match kind {
            Kind::Set => {
                let (tries, job) = self.set.as_mut()?;
                (tries.order, job.start().map(|set| Output::Set { root: job.root, set }))
            }
            Kind::State => {
                let (tries, job) = self.state.as_mut()?;
                (tries.order, job.start().map(|bytes| Output::State { hash: job.hash, bytes }))
            }
            Kind::Links => {
                let (tries, after) = self.links.as_mut()?;
                (tries.order, Step::Ask(Request::Links { after: *after }))
            }
        })
    }

    /// What follows from an answer to an order; nothing if that one is over.
    pub(super) fn handle_response(
        &mut self,
        (kind, order): (Kind, u64),
        (peer, response): (NodeId, Response),
        network: (&NetworkId, &EpochSchedule),
        set: &mut RelaySet,
        now: Now,
    ) -> Option<Step<Output>> {
        if self.tries(kind)?.order != order {
            return None;
        }
        Some(match kind {
            Kind::Set => {
                let (_, job) = self.set.as_mut()?;
                let root = job.root;
                job.handle_response(peer, response, network, set, now).map(|set| Output::Set { root, set })
            }
            Kind::State => {
                let (_, job) = self.state.as_mut()?;
                let hash = job.hash;
                job.handle_response(response).map(|bytes| Output::State { hash, bytes })
            }
            Kind::Links => links(peer, response),
        })
    }
}

fn links(peer: NodeId, response: Response) -> Step<Output> {
    let (links, more) = match response {
        Response::Links { links, more } => (links, more),
        Response::Busy | Response::Unknown => return Step::Ended(None),
        _ => return Step::Lied(DropReason::Malformed),
    };
    // The longest link fits an answer, so there is one if there are more.
    let links: Option<Vec<_>> = links.iter().map(|bytes| Link::from_bytes(bytes).ok()).collect();
    match links {
        Some(links) if !(more && links.is_empty()) => Step::Done(Output::Links { peer, links, more }),
        _ => Step::Lied(DropReason::Malformed),
    }
}
