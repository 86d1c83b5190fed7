//! Connected peers: what is asked of them, and what they ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fog_base::{MessageId as FrameId, NodeId, Now};

use super::{Chat, Output, Transport, meet::AGAIN};
use crate::{
    core::{
        envelope::Envelope,
        id::{ConversationId, DeviceId, EnvelopeId, MessageId},
        reconcile::Session,
        reject::Reject,
        tag::Tag,
    },
    wire::request::{Request, Response},
};

/// Questions that wait for an answer.
pub(super) const MAX_REQUESTS: usize = 4_096;

/// A connected peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) is_lan: bool,
    /// The conversations that its hellos named.
    pub(super) shares: BTreeSet<ConversationId>,
    /// Whether something changed since it was asked.
    pub(super) is_dirty: bool,
    pub(super) asked_at: Option<Instant>,
    /// When its last hello was answered.
    pub(super) heard_at: Option<Instant>,
    pub(super) is_card_asked: bool,
    /// How long after a hello the next one may follow if something changed.
    pub(super) again: Duration,
    /// Whether what it was asked since its last hello brought anything.
    pub(super) has_brought: bool,
    /// What it is to be asked for, and when it may be.
    pub(super) wanted: BTreeSet<(ConversationId, MessageId)>,
    pub(super) fetch_at: Option<Instant>,
}

/// What was asked.
#[derive(Debug)]
pub(super) enum Asked {
    Hello { salt: [u8; 32], tokens: BTreeMap<Tag, ConversationId> },
    Lists { conversation: ConversationId, salt: [u8; 32], session: Session },
    Fetch { conversation: ConversationId, token: Tag },
    Push,
    Frame { to: DeviceId, id: Option<FrameId>, transport: Transport },
    Carry { to: DeviceId, id: FrameId },
    Carried(Vec<EnvelopeId>),
    Card,
}

impl Chat {
    /// The first connection to a node, or a better one: in the local network.
    pub fn handle_connected(&mut self, node: NodeId, is_lan: bool, now: Now) {
        let is_new = !self.links.contains_key(&node);
        let link = self.links.entry(node).or_insert_with(|| Link {
            is_lan,
            shares: BTreeSet::new(),
            is_dirty: true,
            asked_at: None,
            heard_at: None,
            is_card_asked: false,
            again: AGAIN,
            has_brought: false,
            wanted: BTreeSet::new(),
            fetch_at: None,
        });
        link.is_lan |= is_lan;
        if is_new {
            self.meet_new(node, now);
        }
        self.ask_card(node);
        self.publish_all(now);
        self.hand_over(node, now);
        self.handle_reachable(node, now);
        self.settle(now);
    }

    /// The last connection to a node is gone.
    pub fn handle_disconnected(&mut self, node: NodeId, now: Now) {
        self.links.remove(&node);
        let over: Vec<_> = self.requests.iter().filter(|(_, (to, _))| *to == node).map(|(id, _)| *id).collect();
        for request in over {
            self.handle_response(node, request, Err(()), now);
        }
        self.settle(now);
    }

    /// Answers a peer. An error is blamed on it, if nobody honest asks that.
    pub fn handle_request(&mut self, from: NodeId, bytes: &[u8], now: Now) -> Result<Vec<u8>, Reject> {
        let outcome = Request::decode(bytes).and_then(|request| self.answer(from, request, now));
        if let Err(reject) = outcome {
            self.count(reject);
        }
        self.settle(now);
        outcome.map(|response| response.encode())
    }

    fn answer(&mut self, from: NodeId, request: Request, now: Now) -> Result<Response, Reject> {
        match request {
            Request::Hello(hello) => self.answer_hello(from, &hello, now).map(Response::Ranges),
            Request::Lists(lists) => self.answer_lists(from, &lists, now).map(Response::Messages),
            Request::Fetch { salt, token, ids } => {
                self.answer_fetch(from, &salt, token, &ids, now).map(Response::Messages)
            }
            Request::Push { salt, messages } => self.take_push(from, &salt, &messages, now).map(Response::Taken),
            Request::Envelope(bytes) => {
                let envelope = Envelope::parse(&bytes, now.unix)?;
                let is_lan = self.links.get(&from).is_some_and(|link| link.is_lan);
                let via = if is_lan { Transport::Lan } else { Transport::Direct };
                match self.take_private(&envelope, from, via, now) {
                    Ok(()) | Err(Reject::Known) => Ok(Response::Taken(1)),
                    Err(reject) => {
                        self.refuse(Some(from), reject);
                        Ok(Response::Taken(0))
                    }
                }
            }
            Request::Carried(envelopes) => self.take_carried(from, &envelopes, now).map(Response::Taken),
            Request::Card(card) => self.answer_card(from, &card, now).map(Response::Card),
        }
    }

    /// Takes what a peer answered; `Err` if it did not.
    pub fn handle_response(&mut self, from: NodeId, request: u64, response: Result<&[u8], ()>, now: Now) {
        let Some((to, asked)) = self.requests.remove(&request) else { return };
        if to != from {
            self.requests.insert(request, (to, asked));
            return;
        }
        let response = response.map_err(|()| None).and_then(|bytes| Response::decode(bytes).map_err(Some));
        if matches!((&asked, &response), (Asked::Hello { .. } | Asked::Lists { .. }, Err(None)))
            && let Some(link) = self.links.get_mut(&from)
        {
            // What one side has and the other lacks is still unknown.
            link.is_dirty = true;
        }
        let exchange = if let Asked::Lists { conversation, .. } = &asked { Some(*conversation) } else { None };
        let was_answered = response.is_ok();
        let outcome = match (asked, response) {
            (Asked::Frame { to, id, transport }, response) => {
                let is_taken = matches!(response, Ok(Response::Taken(1)));
                self.handle_frame_answer(to, id, transport, is_taken, now);
                Ok(())
            }
            (Asked::Carry { to, id }, Ok(Response::Taken(1))) => {
                self.handle_carried(to, id);
                Ok(())
            }
            (Asked::Carried(ids), Ok(Response::Taken(n))) => {
                for id in ids.iter().take(usize::from(n)) {
                    self.carrier.handle_handed(id, from);
                }
                Ok(())
            }
            (Asked::Hello { salt, tokens }, Ok(Response::Ranges(ranges))) => {
                self.take_ranges(from, salt, &tokens, &ranges, now)
            }
            (Asked::Lists { conversation, salt, session }, Ok(Response::Messages(messages))) => {
                self.take_lists(from, conversation, salt, session, &messages, now)
            }
            (Asked::Fetch { conversation, token }, Ok(Response::Messages(messages))) => {
                if messages.token == token {
                    self.take_brought(from, conversation, &messages.messages, false, now).map(drop)
                } else {
                    Err(Reject::Unasked)
                }
            }
            (Asked::Card, Ok(Response::Card(card))) => self.take_card_of(from, &card, now),
            (_, Err(Some(reject))) => Err(reject),
            // A peer that does not answer, or that has nothing for us.
            (Asked::Push | Asked::Carry { .. }, _) | (_, Err(None)) => Ok(()),
            _ => Err(Reject::Unasked),
        };
        if let Some(id) = exchange.filter(|_| !was_answered || outcome.is_err()) {
            self.hasten_if_worthwhile(from, now);
            self.end_exchange(id, from, now);
        }
        if let Err(reject) = outcome {
            self.refuse(Some(from), reject);
        }
        self.settle(now);
    }

    /// Asks a connected peer something that depends on nothing written.
    pub(super) fn ask(&mut self, to: NodeId, request: &Request, asked: Asked) {
        if let Some(output) = self.prepare(to, request, asked) {
            self.disk.push(output);
        }
    }

    /// Asks behind everything written so far.
    pub(super) fn ask_held(&mut self, to: NodeId, request: &Request, asked: Asked) {
        if let Some(output) = self.prepare(to, request, asked) {
            self.disk.hold(output);
        }
    }

    fn prepare(&mut self, to: NodeId, request: &Request, asked: Asked) -> Option<Output> {
        if self.requests.len() >= MAX_REQUESTS || !self.links.contains_key(&to) {
            self.count(Reject::Full);
            return None;
        }
        let number = self.number();
        self.requests.insert(number, (to, asked));
        Some(Output::Request { to, request: number, bytes: request.encode() })
    }
}
