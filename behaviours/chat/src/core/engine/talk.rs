//! One conversation.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fog_base::{MessageId as FrameId, NetworkId, NodeId, Now, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{direct::LIFETIME, lack::Gap, pack::envelope_key, types::ConversationKind};
use crate::core::{
    dag::Dag,
    delivery::{Reason, State, Transport, Via},
    id::{ConversationId, DeviceId, MessageId},
    membership::{Group, GroupId, OpId},
    secrets::{GroupKeys, SecretKey},
    tag::TagKey,
};

/// What of a conversation is stored besides its messages.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: ConversationId,
    kind: u8,
    pub(super) name: String,
    pub(super) tag_key: [u8; 32],
    /// Of password rooms.
    pub(super) room_key: Option<[u8; 32]>,
    pub(super) peer: Option<DeviceId>,
    pub(super) is_left: bool,
    /// An invitation that was not accepted.
    pub(super) is_offer: bool,
    pub(super) read_to: (u64, MessageId),
    /// The highest number of the peer's that was told as read, and of the own ones that the peer read.
    pub(super) told_read: u32,
    pub(super) peer_read: u32,
    /// The last number that this device used here: a lost row must not make it use one twice.
    pub(super) own_seq: u32,
    /// Operations of a group that an invite brought and no message has brought yet, in Base64, by id in hexadecimal digits: without them
    /// nobody would be a member after a restart.
    #[serde(default)]
    pub(super) told_ops: BTreeMap<String, String>,
    /// Of a group: up to which own number frames that bring the messages to a member were sealed, by device.
    #[serde(default)]
    pub(super) brought: BTreeMap<String, u32>,
}

/// How far an own message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delivery {
    state: u8,
    via: Option<u8>,
    reason: Option<u8>,
    asked: u8,
    pub(super) expires: UnixMillis,
    /// The frame in which Olm has it: it is pending there until it is acknowledged.
    pub(super) frame: Option<FrameId>,
    /// One that brings it once more, as the peer lacks it.
    pub(super) again: Option<FrameId>,
    /// In seconds from when it was written to when it expires, if that was chosen.
    #[serde(default)]
    lifetime: Option<u32>,
}

impl Delivery {
    pub(super) fn new(asked: Via, lifetime: Duration, now: UnixMillis) -> Self {
        let short = (lifetime < LIFETIME).then_some(lifetime.as_secs() as u32);
        Self { lifetime: short, ..Self::until(now.plus(lifetime.min(LIFETIME)), asked) }
    }

    fn until(expires: UnixMillis, asked: Via) -> Self {
        let asked = Via::ALL.iter().position(|via| *via == asked).unwrap_or_default() as u8;
        let reason = Some(Reason::NotStored as u8);
        Self { state: State::Queued as u8, via: None, reason, asked, expires, frame: None, again: None, lifetime: None }
    }

    /// Of a message to members, which does not expire: that gossip has not taken it, or that mailboxes have it.
    pub(super) fn of_members() -> Self {
        Self::until(UnixMillis(u64::MAX), Via::Auto)
    }

    /// When the message was written; that is a moment before this process began, if need be.
    pub(super) fn since(&self, now: Now) -> Instant {
        let lifetime = self.lifetime.map_or(LIFETIME, |seconds| Duration::from_secs(seconds.into()));
        let written = self.expires.minus(lifetime);
        now.mono.checked_sub(now.unix.since(written)).unwrap_or(now.mono)
    }

    /// Whether it goes alone: so it is given up when its own time is over, and not that of others.
    pub(super) fn is_short(&self) -> bool {
        self.lifetime.is_some()
    }

    pub(super) fn state(&self) -> State {
        State::ALL.get(usize::from(self.state)).copied().unwrap_or(State::Failed)
    }

    pub(super) fn via(&self) -> Option<Transport> {
        self.via.and_then(|via| Transport::ALL.get(usize::from(via)).copied())
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        self.reason.and_then(|reason| Reason::ALL.get(usize::from(reason)).copied())
    }

    pub(super) fn asked(&self) -> Via {
        Via::ALL.get(usize::from(self.asked)).copied().unwrap_or(Via::Mix)
    }

    /// Goes to `state` if that is further; whether it did.
    pub(super) fn advance(&mut self, to: State, via: Option<Transport>, reason: Option<Reason>) -> bool {
        let mut state = self.state();
        let is_further = state.advance(to);
        if is_further {
            self.state = state as u8;
            self.via = via.map(|via| via as u8).or(self.via);
            self.reason = reason.map(|reason| reason as u8);
        }
        is_further
    }

    /// Says what a queued message waits for; whether that is new.
    pub(super) fn wait_for(&mut self, reason: Reason) -> bool {
        let is_new = self.state() == State::Queued && self.reason() != Some(reason);
        if is_new {
            self.reason = Some(reason as u8);
        }
        is_new
    }
}

/// An own message that gossip has not taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unpublished {
    pub(super) attempts: u32,
    pub(super) next: Instant,
}

/// What a group has besides.
#[derive(Debug)]
pub(super) struct Club {
    pub(super) group: Group,
    pub(super) keys: GroupKeys,
    /// In which message an operation came.
    pub(super) ops: BTreeMap<OpId, MessageId>,
    /// Up to which own number messages were given to frames for a member, and how far they had come when this was last looked at.
    pub(super) brought: BTreeMap<DeviceId, u32>,
    pub(super) aged: u32,
    /// Who became a member since this process began, and the last own number at that time.
    pub(super) joined: BTreeMap<DeviceId, u32>,
}

/// A conversation.
pub(super) struct Talk {
    pub(super) record: Record,
    pub(super) kind: ConversationKind,
    pub(super) tag_key: TagKey,
    pub(super) seal: SecretKey,
    pub(super) dag: Dag,
    pub(super) club: Option<Club>,
    pub(super) unread: BTreeSet<MessageId>,
    /// Messages that say what it is about, and their authors, by their place in the history.
    pub(super) topics: BTreeMap<(u64, MessageId), DeviceId>,
    pub(super) deliveries: BTreeMap<MessageId, Delivery>,
    pub(super) unpublished: BTreeMap<MessageId, Unpublished>,
    /// Up to which number another member has shown to have the own messages.
    pub(super) delivered_to: u32,
    pub(super) last_at: Option<UnixMillis>,
    /// Until when it has just begun: others may not have heard yet that this node is in it.
    pub(super) is_new_until: Option<Instant>,
    /// With whom messages are exchanged, and since when; and who waits for that.
    pub(super) exchange: Option<(NodeId, Instant)>,
    pub(super) deferred: BTreeSet<NodeId>,
    /// Of a direct one: what stands in the place of messages that their author gave up, and what is asked about them.
    pub(super) bare: BTreeSet<MessageId>,
    pub(super) gap: Gap,
}

impl Record {
    pub(super) fn new(id: ConversationId, kind: ConversationKind, name: &str, tag_key: [u8; 32]) -> Self {
        Self {
            id,
            kind: kind as u8,
            name: name.to_owned(),
            tag_key,
            room_key: None,
            peer: None,
            is_left: false,
            is_offer: false,
            read_to: (0, MessageId([0; 32])),
            told_read: 0,
            peer_read: 0,
            own_seq: 0,
            told_ops: BTreeMap::new(),
            brought: BTreeMap::new(),
        }
    }

    pub(super) fn kind(&self) -> ConversationKind {
        match self.kind {
            0 => ConversationKind::Open,
            1 => ConversationKind::Password,
            2 => ConversationKind::Group,
            _ => ConversationKind::Direct,
        }
    }

    /// The conversation's name in the vault.
    pub(super) fn vault_name(&self) -> Vec<u8> {
        match (self.kind(), self.peer) {
            (ConversationKind::Group, _) => [b"group ".as_slice(), &self.id.0].concat(),
            (ConversationKind::Direct, Some(peer)) => [b"direct ".as_slice(), &peer.0].concat(),
            _ => [b"room ".as_slice(), &self.id.0].concat(),
        }
    }
}

impl Talk {
    pub(super) fn new(record: Record, network: NetworkId) -> Self {
        let kind = record.kind();
        let tag_key = TagKey(record.tag_key);
        let seal = record.room_key.map_or_else(|| envelope_key(&tag_key), SecretKey::new);
        let id = record.id;
        let club = (kind == ConversationKind::Group).then(|| Club {
            group: Group::new(network, GroupId::from(id)),
            keys: GroupKeys::new(id.0),
            ops: BTreeMap::new(),
            brought: BTreeMap::new(),
            aged: 0,
            joined: BTreeMap::new(),
        });
        Self {
            dag: match kind {
                ConversationKind::Direct => Dag::of_two(id, network),
                ConversationKind::Group => Dag::of_members(id, network),
                _ => Dag::new(id, network),
            },
            record,
            kind,
            tag_key,
            seal,
            club,
            unread: BTreeSet::new(),
            topics: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            unpublished: BTreeMap::new(),
            delivered_to: 0,
            last_at: None,
            is_new_until: None,
            exchange: None,
            deferred: BTreeSet::new(),
            bare: BTreeSet::new(),
            gap: Gap::default(),
        }
    }

    /// Whether messages travel by gossip and reconciliation.
    pub(super) fn is_shared(&self) -> bool {
        self.kind != ConversationKind::Direct
    }

    /// Whether a person sees it in the list.
    pub(super) fn is_listed(&self) -> bool {
        !self.record.is_left
    }
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talk").field("id", &self.record.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}
