//! Groups: membership in the order of messages, keys by Olm, invitations.
//!
//! The body of a membership message:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 2, then that many | the operation |
//! | 1 | number of cards, 0 to 4 |
//! | 2, then that many, each | card of a device that the operation is about |
//! | the rest | in the create operation: the group's name |
//!
//! The body of an invite frame, after its first byte: group (32), its secret (32), name (1, then that many), then parts: kind (1: 0 an
//! operation, 1 a card), length (2), bytes. Invites that are longer than a frame go in several, each complete but for its parts.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use fog_base::{NodeId, Now};

use super::{
    Chat, ConversationKind, DeviceId, Event, MAX_NAME, Refusal,
    card::Card,
    direct::{FRAME_INVITE, FRAME_OF_GROUP, LIFETIME},
    rooms::unknown,
    talk::{Club, Record, Talk},
    text::{clean_name, is_name},
};
use crate::{
    core::{
        delivery::{Transport, Via},
        id::{ConversationId, MessageId},
        membership::{self, Action, Inserted, MAX_OP, Op},
        message::{Kind, Message, Verified},
        reject::Reject,
        secrets::{self, group::group_of_share},
    },
    wire::Reader,
};

const VERSION: u8 = 1;
const MAX_CARDS: u8 = 4;
/// Bytes of parts in one invite frame.
const MAX_PARTS: usize = 12 * 1024;

/// The body of a membership message.
pub(super) struct OpBody<'a> {
    pub(super) op: &'a [u8],
    cards: Vec<&'a [u8]>,
}

impl<'a> OpBody<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8().ok()? != VERSION {
            return None;
        }
        let length = usize::from(reader.u16().ok()?);
        let op = reader.bytes(length).ok().filter(|op| op.len() <= MAX_OP)?;
        let count = reader.u8().ok().filter(|count| *count <= MAX_CARDS)?;
        let mut cards = Vec::new();
        for _ in 0..count {
            let length = usize::from(reader.u16().ok()?);
            cards.push(reader.bytes(length).ok()?);
        }
        std::str::from_utf8(reader.rest()).ok()?;
        Some(Self { op, cards })
    }

    fn encode(op: &[u8], cards: &[Vec<u8>], name: &str) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put_short(&mut bytes, op);
        bytes.push(u8::try_from(cards.len()).unwrap_or(MAX_CARDS));
        cards.iter().for_each(|card| put_short(&mut bytes, card));
        bytes.extend_from_slice(name.as_bytes());
        bytes
    }
}

fn put_short(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    into.extend_from_slice(bytes);
}

impl From<membership::Refusal> for Refusal {
    fn from(refusal: membership::Refusal) -> Self {
        match refusal {
            membership::Refusal::Pointless => Self::Pointless,
            membership::Refusal::Full => Self::Full("operations"),
            _ => Self::NotEntitled,
        }
    }
}

impl Chat {
    /// Begins a group of which this device is the owner.
    pub fn create_group(&mut self, name: &str, now: Now) -> Result<ConversationId, Refusal> {
        self.check_store()?;
        let name = name.strip_prefix('&').unwrap_or(name);
        if !is_name(name) {
            return Err(Refusal::BadName);
        }
        let is_taken =
            |talk: &Talk| talk.kind == ConversationKind::Group && talk.is_listed() && talk.record.name == name;
        if self.talks.values().any(is_taken) {
            return Err(Refusal::NameTaken(format!("&{name}")));
        }
        let nonce = self.random();
        let op = Op::create(&self.config.network, &self.signing, nonce);
        let id = ConversationId(op.id.0);
        let secret = self.random();
        self.add_talk(Record::new(id, ConversationKind::Group, name, secret), now)?;
        self.announce(id, &op, Vec::new(), name, now)?;
        Ok(id)
    }

    /// Invites somebody: by contact name, node or device.
    pub fn invite(&mut self, group: ConversationId, who: &str, now: Now) -> Result<(), Refusal> {
        self.check_store()?;
        let device = self.find_person(who)?;
        let card = self.people.get(&device).map(|person| person.card.to_bytes());
        let card = card.ok_or_else(|| Refusal::NoCard(who.to_owned()))?;
        match self.operate(group, Action::Invite, device, vec![card], now) {
            // Invited already: the invitation may have been lost with a device.
            Err(Refusal::Pointless) if !self.club_of(group)?.group.members().contains_key(&device) => {}
            outcome => outcome?,
        }
        self.introduce(device, now);
        self.send_invite(group, device, now);
        self.settle(now);
        Ok(())
    }

    /// Removes somebody: what others write from when they know of it, it cannot read.
    pub fn remove(&mut self, group: ConversationId, who: &str, now: Now) -> Result<(), Refusal> {
        let device = self.find_member(group, who)?;
        self.operate(group, Action::Remove, device, Vec::new(), now)
    }

    /// Makes somebody an admin, or no longer.
    pub fn set_role(&mut self, group: ConversationId, who: &str, admin: bool, now: Now) -> Result<(), Refusal> {
        let device = self.find_member(group, who)?;
        let action = if admin { Action::MakeAdmin } else { Action::MakeMember };
        self.operate(group, action, device, Vec::new(), now)
    }

    /// Takes up the invitation of somebody who is no contact.
    pub fn accept(&mut self, group: ConversationId, now: Now) -> Result<(), Refusal> {
        self.check_store()?;
        self.club_of(group)?;
        self.join_group(group, now)
    }

    pub(super) fn leave_group(&mut self, group: ConversationId, now: Now) -> Result<(), Refusal> {
        if self.is_member(group) { self.operate(group, Action::Leave, self.device, Vec::new(), now) } else { Ok(()) }
    }

    /// Takes up an invitation.
    pub(super) fn join_group(&mut self, group: ConversationId, now: Now) -> Result<(), Refusal> {
        if let Some(talk) = self.talks.get_mut(&group) {
            talk.record.is_offer = false;
            talk.record.is_left = false;
        }
        self.save_record(group, true);
        self.renew_card(now);
        let card = self.card.to_bytes();
        self.operate(group, Action::Join, self.device, vec![card], now)?;
        self.subscribe();
        self.meet_all(now);
        Ok(())
    }

    /// Signs an operation on a group and tells it to the members.
    fn operate(
        &mut self,
        group: ConversationId,
        action: Action,
        subject: DeviceId,
        cards: Vec<Vec<u8>>,
        now: Now,
    ) -> Result<(), Refusal> {
        self.check_store()?;
        let op = self.club_of(group)?.group.prepare(&self.signing, action, subject)?;
        self.announce(group, &op, cards, "", now)
    }

    fn announce(
        &mut self,
        group: ConversationId,
        op: &Op,
        mut cards: Vec<Vec<u8>>,
        name: &str,
        now: Now,
    ) -> Result<(), Refusal> {
        if op.action == Action::Create {
            cards.push(self.card.to_bytes());
        }
        let body = OpBody::encode(op.bytes(), &cards, name);
        let message = self.write(group, Kind::MEMBERSHIP, &body, now)?;
        if matches!(op.action, Action::Join | Action::Leave) {
            self.tell_member(group, &message, now);
        }
        self.take_membership(group, &message, now);
        self.queue_publication(group, message.id(), now);
        self.mark_all_dirty(group);
        self.settle(now);
        Ok(())
    }

    /// Tells one member, who invited this device if possible, of its own join or leave. Gossip gives no receipt, and members reconcile a
    /// group with the nodes of members alone: what gossip lost of these two nobody would ever have.
    fn tell_member(&mut self, group: ConversationId, message: &Verified, now: Now) {
        let Ok(club) = self.club_of(group) else { return };
        let is_other = |device: &DeviceId| *device != self.device && club.group.members().contains_key(device);
        let invites = club.group.ops().filter(|op| op.action == Action::Invite && op.subject == self.device);
        let inviter = invites.map(|op| op.author).filter(is_other).last();
        let Some(to) = inviter.or_else(|| club.group.members().keys().copied().find(is_other)) else { return };
        let body = [&[FRAME_OF_GROUP], &message.encode()[..]].concat();
        self.queue_frame(to, secrets::Kind::Data, &body, Via::Auto, now.unix.plus(LIFETIME), now);
    }

    /// Takes what a device wrote in a group: of its own membership, or what it brings to a member who was away.
    pub(super) fn take_of_group(&mut self, from: DeviceId, bytes: &[u8], now: Now) -> Result<(), Reject> {
        let message = Message::parse(bytes, &self.config.network)?;
        let id = message.header().conversation;
        let talk = self.talks.get(&id).filter(|talk| talk.club.is_some()).ok_or(Reject::Unknown)?;
        // A copy costs no signature.
        if talk.dag.contains(&message.id()) && !self.lacks_body(talk, &message.id()) {
            return Err(Reject::Known);
        }
        if message.header().kind != Kind::MEMBERSHIP.0 && !self.is_heard(id, from) {
            self.keep_early(id, from, bytes);
            return Err(Reject::Unknown);
        }
        let message = message.verify(&id, &mut self.keys)?;
        if message.header().author != from {
            return Err(Reject::BadSignature);
        }
        let via = self.sources.get(&from).map_or(Transport::Mix, |(_, via)| *via);
        match self.take_message(id, &message, None, via, now) {
            Err(Reject::Known) => self.fill_bare(id, &message, via, now),
            outcome => outcome,
        }
    }

    /// Takes the operation of a membership message.
    pub(super) fn take_membership(&mut self, id: ConversationId, message: &Verified, now: Now) {
        let Some(body) = OpBody::parse(message.body()) else {
            self.count(Reject::Malformed);
            return;
        };
        for card in &body.cards {
            if let Ok(card) = Card::from_bytes(&self.config.network, card, now.unix) {
                let _known = self.take_card(&card, false, now);
            }
        }
        self.take_op(id, body.op, Some(message.id()), now);
    }

    /// Takes an operation, and what follows for the own device.
    fn take_op(&mut self, id: ConversationId, op: &[u8], message: Option<MessageId>, now: Now) {
        let own = self.device;
        let Some(Talk { club: Some(club), record, .. }) = self.talks.get_mut(&id) else { return };
        let name = blake3::hash(op);
        if let Some(message) = message {
            // Whoever repeats an operation moves it nowhere.
            club.ops.entry(membership::OpId(*name.as_bytes())).or_insert(message);
            record.told_ops.remove(name.to_hex().as_str());
        }
        let before: BTreeSet<_> = club.group.members().keys().copied().collect();
        let inserted = club.group.insert(op);
        if message.is_none() && matches!(inserted, Ok(Inserted::Taken { .. } | Inserted::Waiting(_))) {
            record.told_ops.insert(name.to_hex().to_string(), BASE64.encode(op));
        }
        match inserted {
            Ok(Inserted::Taken { .. }) => {}
            Ok(_) => return,
            Err(_) => {
                self.count(Reject::Sealed);
                return;
            }
        }
        let is_member = club.group.members().contains_key(&own);
        self.note_joined(id, &before);
        self.tell(Event::Members(id));
        if is_member {
            self.unpark(id, now);
            self.take_early(id, now);
        }
    }

    fn send_invite(&mut self, group: ConversationId, to: DeviceId, now: Now) {
        let Some(talk) = self.talks.get(&group) else { return };
        let Some(club) = &talk.club else { return };
        let mut head = [&[FRAME_INVITE], &group.0[..], &talk.record.tag_key].concat();
        head.push(u8::try_from(talk.record.name.len()).unwrap_or_default());
        head.extend_from_slice(talk.record.name.as_bytes());
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for op in club.group.ops() {
            let mut part = vec![0];
            put_short(&mut part, op.bytes());
            parts.push(part);
        }
        for device in club.group.members().keys().filter(|device| **device != to) {
            let card = match self.people.get(device) {
                Some(person) => person.card.to_bytes(),
                None if *device == self.device => self.card.to_bytes(),
                None => continue,
            };
            let mut part = vec![1];
            put_short(&mut part, &card);
            parts.push(part);
        }
        let mut bodies = vec![head.clone()];
        for part in parts {
            if bodies.last().is_some_and(|body| body.len() + part.len() > MAX_PARTS) {
                bodies.push(head.clone());
            }
            if let Some(body) = bodies.last_mut() {
                body.extend_from_slice(&part);
            }
        }
        for body in bodies {
            self.queue_frame(to, secrets::Kind::Data, &body, Via::Auto, now.unix.plus(LIFETIME), now);
        }
    }

    /// Takes a part of an invite.
    pub(super) fn take_invite(&mut self, from: DeviceId, body: &[u8], now: Now) -> Result<(), Reject> {
        let mut reader = Reader::new(body);
        let (id, secret) = (ConversationId(reader.array()?), reader.array()?);
        let length = usize::from(reader.u8()?);
        let name = std::str::from_utf8(reader.bytes(length)?).map_err(|_| Reject::Malformed)?;
        let name = self.free_group_name(&clean_name(name), id);
        let is_contact = self.people.get(&from).is_some_and(|person| person.is_contact);
        if !self.talks.contains_key(&id) {
            if !is_contact && !self.make_room_for_offer() {
                return Err(Reject::Full);
            }
            let mut record = Record::new(id, ConversationKind::Group, &name, secret);
            record.is_offer = true;
            self.add_talk(record, now).map_err(|_| Reject::Full)?;
        }
        let mut parts = Reader::new(reader.rest());
        while let Ok(kind) = parts.u8() {
            let length = usize::from(parts.u16()?);
            let bytes = parts.bytes(length)?;
            match kind {
                0 => self.take_op(id, bytes, None, now),
                1 => {
                    if let Ok(card) = Card::from_bytes(&self.config.network, bytes, now.unix) {
                        let _known = self.take_card(&card, false, now);
                    }
                }
                _ => return Err(Reject::Malformed),
            }
        }
        self.save_record(id, true);
        let club = self.club_of(id).map_err(|_| Reject::Unknown)?;
        let is_invited = club.group.invited().contains(&self.device);
        let is_by_member = club.group.members().contains_key(&from);
        if !is_invited || !is_by_member {
            return Ok(());
        }
        if is_contact {
            self.join_group(id, now).map_err(|_| Reject::Full)
        } else {
            self.tell(Event::Invited { group: id, by: from });
            Ok(())
        }
    }

    /// Another group may have the name already.
    fn free_group_name(&self, name: &str, id: ConversationId) -> String {
        let name: String = name.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
        let is_taken = self
            .talks
            .values()
            .any(|talk| talk.kind == ConversationKind::Group && talk.record.id != id && talk.record.name == name);
        if !is_taken {
            return name;
        }
        let short: String = name.chars().take(MAX_NAME / 8).collect();
        format!("{short}-{}", id.to_string().get(..8).unwrap_or_default())
    }

    /// Seals a message of a group, in a new session if there must be one: its key goes to each member first.
    pub(super) fn seal_for_group(&mut self, id: ConversationId, message: &[u8], now: Now) -> Option<Vec<u8>> {
        let club = self.talks.get_mut(&id)?.club.as_mut()?;
        let digest = club.group.members_digest();
        let mut rows = Vec::new();
        if club.keys.needs_begin(&digest, now.unix) {
            let share = club.keys.begin(self.secrets.vault(), &mut rows, digest, now.unix);
            let members: Vec<_> =
                club.group.members().keys().copied().filter(|member| *member != self.device).collect();
            self.disk.write(std::mem::take(&mut rows), true);
            for member in members {
                self.queue_frame(member, secrets::Kind::GroupKey, &share, Via::Auto, now.unix.plus(LIFETIME), now);
            }
        }
        let club = self.talks.get_mut(&id)?.club.as_mut()?;
        let vault = self.secrets.vault();
        let written = club.keys.seal(vault, &mut rows, &digest, now.unix, &id.0, message).ok()?;
        self.disk.write(rows, true);
        Some(written.body)
    }

    /// Takes the key of a member's session.
    pub(super) fn take_share(&mut self, from: DeviceId, body: &[u8], now: Now) -> Result<(), Reject> {
        let id = ConversationId(group_of_share(body).ok_or(Reject::Malformed)?);
        let club = self.talks.get_mut(&id).and_then(|talk| talk.club.as_mut()).ok_or(Reject::Unknown)?;
        let is_entitled = club.group.members().contains_key(&from) || club.group.invited().contains(&from);
        if !is_entitled {
            return Err(Reject::Unknown);
        }
        let mut rows = Vec::new();
        let outcome = club.keys.handle_share(self.secrets.vault(), &mut rows, from, body, now.unix);
        self.disk.write(rows, true);
        match outcome {
            Ok(()) => {
                self.unpark(id, now);
                Ok(())
            }
            Err(secrets::Reject::Duplicate) => Ok(()),
            Err(reject) => Err(reject.into()),
        }
    }

    pub(super) fn is_member(&self, id: ConversationId) -> bool {
        self.club_of(id).is_ok_and(|club| club.group.members().contains_key(&self.device))
    }

    fn club_of(&self, id: ConversationId) -> Result<&Club, Refusal> {
        self.talks.get(&id).ok_or_else(|| unknown(id))?.club.as_ref().ok_or(Refusal::WrongKind)
    }

    fn find_member(&self, group: ConversationId, who: &str) -> Result<DeviceId, Refusal> {
        let club = self.club_of(group)?;
        let is_known =
            |device: &DeviceId| club.group.members().contains_key(device) || club.group.invited().contains(device);
        let named = self.find_person(who).ok().or_else(|| who.parse().ok()).filter(is_known);
        named
            .or_else(|| {
                let node: Option<NodeId> = who.parse().ok();
                club.group.members().keys().copied().find(|device| node.is_some() && self.node_of(*device) == node)
            })
            .ok_or_else(|| Refusal::Unknown(who.to_owned()))
    }

    /// A message as a node may have it: of a group, without its body if no device there had joined before it. `None` if this device has
    /// no body to give.
    pub(super) fn load_for(&self, talk: &Talk, id: &MessageId, node: NodeId) -> Option<Vec<u8>> {
        let bytes = self.load_stored(talk, id)?;
        let Some(club) = &talk.club else { return Some(bytes) };
        let message = Message::parse(&bytes, &self.config.network).ok()?;
        // While something before it is missing nobody can say who was a member.
        if message.header().kind != Kind::MEMBERSHIP.0 && !talk.dag.is_complete(id) {
            return None;
        }
        let mut there = club.group.members().keys().filter(|device| self.node_of(**device) == Some(node));
        let (author, follows) = (message.header().author, |op: &MessageId| talk.dag.precedes(op, id) == Some(true));
        let is_open = message.header().kind == Kind::MEMBERSHIP.0
            || there
                .any(|device| was_member(talk, club, *device, follows) || was_told_of(club, *device, author, follows));
        match (is_open, message.is_bare()) {
            (true, false) | (false, true) => Some(bytes),
            (true, true) => None,
            (false, false) => Some(message.trusted().signed_header().as_bytes().to_vec()),
        }
    }

    /// Whether a message may come without its body: it was written before the own device joined, as far as its author knew. An error if
    /// it was not; false while that cannot be said.
    pub(super) fn may_be_bare(&self, id: ConversationId, message: &Message) -> Result<bool, Reject> {
        let talk = self.talks.get(&id).ok_or(Reject::Unknown)?;
        let club = talk.club.as_ref().ok_or(Reject::Malformed)?;
        let header = message.header();
        if header.kind == Kind::MEMBERSHIP.0 {
            return Err(Reject::Malformed);
        }
        if !header.predecessors().all(|parent| talk.dag.is_complete(&parent)) {
            return Ok(false);
        }
        let follows = |op: &MessageId| {
            header.predecessors().any(|parent| parent == *op || talk.dag.precedes(op, &parent) == Some(true))
        };
        if was_member(talk, club, self.device, follows) {
            return Err(Reject::BadBody);
        }
        // Who brought it may not have all operations yet.
        Ok(!was_told_of(club, self.device, header.author, follows))
    }

    /// Whether a message's author was let to write it, as far as the messages that are here say: in a group, nobody whose removal or leave
    /// the message does not precede, unless it joined again before it.
    pub(super) fn may_speak(&self, talk: &Talk, id: &MessageId, author: DeviceId) -> bool {
        let Some(club) = &talk.club else { return true };
        if !talk.dag.is_complete(id) {
            return club.group.members().contains_key(&author);
        }
        let precedes = |a: &MessageId, b: &MessageId| talk.dag.precedes(a, b) == Some(true);
        let mut grants = Vec::new();
        let mut ends = Vec::new();
        for op in club.group.ops().filter(|op| op.subject == author) {
            let Some(message) = club.ops.get(&op.id) else { continue };
            match op.action {
                Action::Create | Action::Join => grants.push(message),
                Action::Remove | Action::Leave => ends.push(message),
                _ => {}
            }
        }
        let is_granted = |grant: &&&MessageId| precedes(grant, id) || **grant == id;
        let is_over =
            |grant: &MessageId| ends.iter().any(|end| !precedes(end, grant) && !precedes(id, end) && *end != grant);
        grants.iter().filter(is_granted).any(|grant| !is_over(grant))
    }
}

/// Whether `device` was a member for what `follows`: a join before it, and no end of that membership in between.
pub(super) fn was_member(talk: &Talk, club: &Club, device: DeviceId, follows: impl Fn(&MessageId) -> bool) -> bool {
    let of = |actions: [Action; 2]| {
        let ops = club.group.ops().filter(move |op| op.subject == device && actions.contains(&op.action));
        ops.filter_map(|op| club.ops.get(&op.id)).filter(|message| follows(message))
    };
    let ends: Vec<_> = of([Action::Remove, Action::Leave]).collect();
    let is_over = |join: &MessageId| ends.iter().any(|end| talk.dag.precedes(end, join) != Some(true));
    of([Action::Create, Action::Join]).any(|join| !is_over(join))
}

/// Whether `device` was a member as far as the author of what `follows` was told when it joined: that came with an invite, and need not be among the
/// messages before. Not if a message before says that it is no member any more.
pub(super) fn was_told_of(
    club: &Club,
    device: DeviceId,
    author: DeviceId,
    follows: impl Fn(&MessageId) -> bool,
) -> bool {
    let of = |subject: DeviceId, actions: [Action; 2]| {
        let ops = club.group.ops().filter(move |op| op.subject == subject && actions.contains(&op.action));
        ops.filter(|op| club.ops.get(&op.id).is_some_and(&follows))
    };
    let is_over = of(device, [Action::Remove, Action::Leave]).next().is_some();
    let joins: Vec<_> = of(author, [Action::Create, Action::Join]).map(|op| op.id).collect();
    !is_over && club.group.was_member(&joins, device)
}
