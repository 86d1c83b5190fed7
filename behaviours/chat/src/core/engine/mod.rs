//! The engine: all conversations, secrets, order and delivery of one device, as one state machine.
//!
//! Everything that a person does, that the network brings and that the store says comes in by a method; everything that follows comes
//! out of [`Chat::poll_output`]. No IO, no clock, no libp2p.

mod card;
mod text;
mod types;

pub use self::{
    card::{Card, MAX_CARD, MAX_MAILBOXES, MAX_NAME},
    text::{MAX_TEXT, clean_name, clean_text, is_clean},
    types::{
        Config, Contact, Conversation, ConversationKind, Counts, Event, Member, MixAddress, MixProgress, OpenError,
        Output, Refusal, Role, RoomKey, Row, Rows, Shown, Validation, Why,
    },
};
pub use crate::core::{
    delivery::{Policy, Reason, State, Transport, Via},
    id::{ConversationId, DeviceId, MessageId},
    message::Kind,
    reject::Reject,
};

use std::time::Instant;

use fog_base::{NodeId, Now};
use zeroize::Zeroizing;

/// One device.
#[derive(Debug)]
pub struct Chat {
    device: DeviceId,
    card: Card,
}

/// A stub's answer until the engine is built.
fn unbuilt<T>() -> Result<T, Refusal> {
    Err(Refusal::Unknown("not built yet".to_owned()))
}

#[allow(missing_docs, unused_variables, clippy::needless_pass_by_value, clippy::unused_self)]
impl Chat {
    pub fn open(
        config: Config,
        master: Zeroizing<[u8; 32]>,
        rows: Box<dyn Rows + Send>,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, OpenError> {
        Err(OpenError::Unreadable)
    }
    pub fn device(&self) -> DeviceId {
        self.device
    }
    pub fn card(&mut self, now: Now) -> Card {
        self.card.clone()
    }
    pub fn set_mailboxes(&mut self, mailboxes: Vec<(NodeId, [u8; 32])>) {}
    pub fn resolve(&self, to: &str) -> Result<ConversationId, Refusal> {
        unbuilt()
    }
    pub fn send(
        &mut self,
        to: ConversationId,
        kind: Kind,
        body: &[u8],
        via: Via,
        now: Now,
    ) -> Result<MessageId, Refusal> {
        unbuilt()
    }
    pub fn join_room(&mut self, name: &str, key: Option<RoomKey>, now: Now) -> Result<ConversationId, Refusal> {
        unbuilt()
    }
    pub fn leave(&mut self, conversation: ConversationId, now: Now) -> Result<(), Refusal> {
        unbuilt()
    }
    pub fn create_group(&mut self, name: &str, now: Now) -> Result<ConversationId, Refusal> {
        unbuilt()
    }
    pub fn invite(&mut self, group: ConversationId, who: &str, now: Now) -> Result<(), Refusal> {
        unbuilt()
    }
    pub fn remove(&mut self, group: ConversationId, who: &str, now: Now) -> Result<(), Refusal> {
        unbuilt()
    }
    pub fn set_role(&mut self, group: ConversationId, who: &str, admin: bool, now: Now) -> Result<(), Refusal> {
        unbuilt()
    }
    pub fn members(&self, conversation: ConversationId) -> Result<Vec<Member>, Refusal> {
        unbuilt()
    }
    pub fn add_contact(&mut self, card: Card, name: Option<&str>, now: Now) -> Result<Contact, Refusal> {
        unbuilt()
    }
    pub fn contacts(&self) -> Vec<Contact> {
        Vec::new()
    }
    pub fn safety_words(&self, name: &str) -> Result<[Vec<String>; 2], Refusal> {
        unbuilt()
    }
    pub fn set_verified(&mut self, name: &str, verified: bool, now: Now) -> Result<(), Refusal> {
        unbuilt()
    }
    pub fn set_policy(&mut self, name: &str, policy: Policy, now: Now) -> Result<(), Refusal> {
        unbuilt()
    }
    pub fn set_blocked(&mut self, name: &str, blocked: bool, now: Now) -> Result<(), Refusal> {
        unbuilt()
    }
    pub fn conversations(&self) -> Vec<Conversation> {
        Vec::new()
    }
    pub fn history(&self, conversation: ConversationId, limit: Option<usize>) -> Result<Vec<Shown>, Refusal> {
        unbuilt()
    }
    pub fn shown(&self, id: &MessageId) -> Option<Shown> {
        None
    }
    pub fn why(&self, id: &MessageId) -> Option<Why> {
        None
    }
    pub fn mark_read(&mut self, conversation: ConversationId, now: Now) {}
    pub fn counts(&self) -> Counts {
        Counts::default()
    }
    pub fn handle_connected(&mut self, node: NodeId, is_lan: bool, now: Now) {}
    pub fn handle_disconnected(&mut self, node: NodeId, now: Now) {}
    pub fn handle_mix_ready(&mut self, is_ready: bool, now: Now) {}
    pub fn handle_gossip(&mut self, from: NodeId, bytes: &[u8], now: Now) -> Validation {
        Validation::Ignore
    }
    pub fn handle_request(&mut self, from: NodeId, bytes: &[u8], now: Now) -> Result<Vec<u8>, Reject> {
        Err(Reject::Unknown)
    }
    pub fn handle_response(&mut self, from: NodeId, request: u64, response: Result<&[u8], ()>, now: Now) {}
    pub fn handle_published(&mut self, handle: u64, ok: bool, now: Now) {}
    pub fn handle_mix(&mut self, bytes: &[u8], now: Now) {}
    pub fn handle_mix_progress(&mut self, handle: u64, progress: MixProgress, now: Now) {}
    pub fn handle_persisted(&mut self, number: u64, ok: bool, now: Now) {}
    pub fn handle_timeout(&mut self, now: Now) {}
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
}
