//! Between services and the mixnet: what services ask of it, and what it tells them. fog-services does not know the mixnet, nor the other way round.

use std::{collections::BTreeSet, time::Duration};

use fog_base::{MessageId, NodeId};
use fog_mix::{
    core::{
        endpoint::{Delivery, Kind, ReplyBlock, Send, SentNews, SentState},
        outgoing::Address,
    },
    wire::Application,
};
use fog_services::{
    core::mixed::Sent,
    runtime::{MixEvent, MixOrder},
};
use tokio::sync::mpsc;

use crate::node::{clock, event_loop::EventLoop};

/// Orders of services that wait for the event loop: the pieces of several answers.
pub(in crate::node) const ORDERS: usize = 1024;
/// A message that is not with its relay by then counts as lost; an exchange ends before.
const TIMEOUT: Duration = Duration::from_secs(75);

/// What the event loop holds of exchanges through the mixnet.
#[derive(Debug)]
pub(in crate::node) struct Exchanges {
    pub(in crate::node) orders: mpsc::Receiver<MixOrder>,
    /// Messages on their way.
    sent: BTreeSet<MessageId>,
}

impl Exchanges {
    pub(in crate::node) fn new(orders: mpsc::Receiver<MixOrder>) -> Self {
        Self { orders, sent: BTreeSet::new() }
    }
}

impl EventLoop {
    /// Services want something of the mixnet.
    pub(in crate::node) fn on_mix_order(&mut self, order: MixOrder) {
        match order {
            MixOrder::Send { message, to, body, blocks } => match self.relay_address(to) {
                Some(to) => {
                    self.circuits.exchanges.sent.insert(message);
                    let kind = Kind::Asking(Application::Services, blocks);
                    let send = Send { id: message, to, body, hops: None, kind, timeout: TIMEOUT };
                    self.swarm.behaviour_mut().mix.send(send);
                }
                None => self.tell_services(MixEvent::Sent(message, Sent::Refused)),
            },
            MixOrder::Answer { block, piece } => {
                // What is no block was refused by the mixnet when it came.
                if let Ok(block) = block.into_boxed_slice().try_into() {
                    self.swarm.behaviour_mut().mix.answer(block, piece);
                }
            }
        }
    }

    /// A message for services, with the blocks by which it is answered.
    pub(in crate::node) fn on_services_delivery(&mut self, delivery: Delivery, blocks: Vec<ReplyBlock>) {
        // Nothing of it is kept: a relay that ends forgets what it was asked, and the service knows what it answered.
        self.swarm.behaviour_mut().mix.accepted(delivery.message, true);
        self.circuits.record_mixed(&delivery.body);
        let blocks = blocks.into_iter().map(|block| block.to_vec()).collect();
        self.tell_services(MixEvent::Asked { body: delivery.body, blocks });
    }

    /// An answer to a message of services.
    pub(in crate::node) fn on_services_answer(&mut self, message: MessageId, bytes: Vec<u8>) {
        self.tell_services(MixEvent::Answer(message, bytes));
    }

    /// News of a message in the mixnet; false if it is not one of services.
    pub(in crate::node) fn on_services_sent(&mut self, news: &SentNews) -> bool {
        if !self.circuits.exchanges.sent.contains(&news.message) {
            return false;
        }
        let sent = match news.state {
            SentState::Progress | SentState::Stored => return true,
            SentState::Delivered => Sent::Delivered,
            SentState::Failed => Sent::Failed,
        };
        self.circuits.exchanges.sent.remove(&news.message);
        self.tell_services(MixEvent::Sent(news.message, sent));
        true
    }

    /// The mixnet does not send a message; false if it is not one of services.
    pub(in crate::node) fn on_services_unsent(&mut self, message: MessageId) -> bool {
        let is_ours = self.circuits.exchanges.sent.remove(&message);
        if is_ours {
            self.tell_services(MixEvent::Sent(message, Sent::Refused));
        }
        is_ours
    }

    fn tell_services(&self, event: MixEvent) {
        self.circuits.desk.services.handle_mix(event);
    }

    /// A relay's seal key is the same in every epoch: where the next set is late, that of the running one serves.
    fn relay_address(&self, node: NodeId) -> Option<Address> {
        let running = self.snapshots.get(&self.network.schedule().at(clock::now().unix));
        let relay = self.sending_snapshot().into_iter().chain(running).find_map(|snapshot| snapshot.find(node))?;
        Some(Address { node, seal_key: relay.hop.seal_key, mailboxes: Vec::new() })
    }
}
