//! The exchange between mailboxes and their clients: what was asked of whom, and what the engine must hear of it.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use fog_base::{NodeId, TokenBucket, UnixMillis};
use futures::FutureExt;
use libp2p::{
    StreamProtocol,
    request_response::{self, Event, Message, OutboundRequestId, ProtocolSupport, ResponseChannel},
    swarm::{NetworkBehaviour, THandlerInEvent, ToSwarm},
};
use tokio::sync::oneshot;

use crate::{
    core::mailbox::{Slot, Stored},
    ids::{node_id, peer_id},
    mailbox_protocol::{Codec, Request as Asking, Response},
    runtime::{engine::Request, now},
};

/// An answer that takes longer is none.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of one connection that are served at once.
const MAX_STREAMS: usize = 16;

/// Requests of one peer a second, and at once: a mailbox pushes a message of 1 MiB in 53.
const RATE: f64 = 50.0;
const BURST: f64 = 200.0;
const MAX_RATES: usize = 1024;

/// libp2p's part of it.
pub(crate) type Inner = request_response::Behaviour<Codec>;

enum Asked {
    Claim(NodeId),
    Push(NodeId, Slot, u64),
    Done,
}

/// What the exchange leads to.
pub(crate) enum Told {
    /// Something for the engine.
    Request(Request),
    /// Something for the swarm.
    Swarm(ToSwarm<Infallible, THandlerInEvent<Inner>>),
}

/// Requests that are under way, each way.
pub(crate) struct MailboxExchange {
    pub(crate) inner: Inner,
    asked: HashMap<OutboundRequestId, Asked>,
    /// What each peer may ask.
    rates: HashMap<NodeId, TokenBucket>,
    /// The engine has enough to do: nothing more is taken from peers.
    pub(crate) busy: bool,
    /// Claims that the engine decides.
    claims: Vec<(oneshot::Receiver<Option<UnixMillis>>, ResponseChannel<Response>)>,
}

impl MailboxExchange {
    pub(crate) fn new(protocol: StreamProtocol) -> Self {
        let config =
            request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(MAX_STREAMS);
        let inner = request_response::Behaviour::with_codec(Codec, [(protocol, ProtocolSupport::Full)], config);
        Self { inner, asked: HashMap::new(), claims: Vec::new(), rates: HashMap::new(), busy: false }
    }

    /// Whether a peer may ask once more now.
    fn admit(&mut self, peer: NodeId) -> bool {
        // Whoever has asked lately is soon known again; a full bucket more is all that forgetting costs.
        if self.rates.len() >= MAX_RATES {
            self.rates.clear();
        }
        let now = now().mono;
        self.rates.entry(peer).or_insert_with(|| TokenBucket::new(RATE, BURST, now)).try_take(now)
    }

    pub(crate) fn claim(&mut self, relay: NodeId, record: Vec<u8>) {
        self.ask(relay, Asking::Claim(record), Asked::Claim(relay));
    }

    pub(crate) fn push(&mut self, to: NodeId, slot: Slot, packets: Vec<Stored>) {
        let first = packets.first().map_or(0, |packet| packet.id);
        self.ask(to, Asking::Push(slot, packets), Asked::Push(to, slot, first));
    }

    pub(crate) fn done(&mut self, relay: NodeId, slot: Slot, ids: Vec<u64>) {
        self.ask(relay, Asking::Done(slot, ids), Asked::Done);
    }

    fn ask(&mut self, to: NodeId, request: Asking, asked: Asked) {
        if let Some(peer) = peer_id(to) {
            self.asked.insert(self.inner.send_request(&peer, request), asked);
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Told> {
        loop {
            self.poll_claims(cx);
            return match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => match self.handle(event) {
                    Some(request) => Poll::Ready(Told::Request(request)),
                    None => continue,
                },
                Poll::Ready(action) => match without_event(action) {
                    Some(action) => Poll::Ready(Told::Swarm(action)),
                    None => continue,
                },
                Poll::Pending => Poll::Pending,
            };
        }
    }

    fn handle(&mut self, event: Event<Asking, Response>) -> Option<Request> {
        match event {
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.answered(request_id, response == Response::Ok)
            }
            Event::OutboundFailure { request_id, .. } => self.answered(request_id, false),
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let from = node_id(&peer)?;
                if self.busy || !self.admit(from) {
                    let _gone = self.inner.send_response(channel, Response::Refused);
                    return None;
                }
                let request = match request {
                    Asking::Claim(record) => {
                        let (reply, answer) = oneshot::channel();
                        self.claims.push((answer, channel));
                        return Some(Request::Claim(from, record, reply));
                    }
                    Asking::Done(slot, ids) => Request::Done(from, slot, ids),
                    Asking::Push(slot, packets) => Request::Pushed(from, slot, packets),
                };
                let _gone = self.inner.send_response(channel, Response::Ok);
                Some(request)
            }
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => None,
        }
    }

    fn answered(&mut self, id: OutboundRequestId, ok: bool) -> Option<Request> {
        match self.asked.remove(&id)? {
            Asked::Claim(relay) => Some(Request::ClaimAnswered(relay, ok)),
            Asked::Push(to, slot, first) => Some(Request::PushResult(to, slot, first, ok)),
            Asked::Done => None,
        }
    }

    /// Answers the claims that the engine has decided.
    fn poll_claims(&mut self, cx: &mut Context<'_>) {
        let mut index = 0;
        while let Some((answer, _)) = self.claims.get_mut(index) {
            let Poll::Ready(decision) = Pin::new(answer).poll_unpin(cx) else {
                index += 1;
                continue;
            };
            let (_, channel) = self.claims.swap_remove(index);
            let holds = decision.is_ok_and(|until| until.is_some());
            let _gone = self.inner.send_response(channel, if holds { Response::Ok } else { Response::Refused });
        }
    }
}

/// An action that is no event of the exchange's own.
fn without_event<I>(action: ToSwarm<Event<Asking, Response>, I>) -> Option<ToSwarm<Infallible, I>> {
    Some(match action {
        ToSwarm::GenerateEvent(_) => return None,
        ToSwarm::Dial { opts } => ToSwarm::Dial { opts },
        ToSwarm::NotifyHandler { peer_id, handler, event } => ToSwarm::NotifyHandler { peer_id, handler, event },
        ToSwarm::CloseConnection { peer_id, connection } => ToSwarm::CloseConnection { peer_id, connection },
        // request-response does nothing else.
        _ => return None,
    })
}
