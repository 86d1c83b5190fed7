//! What a person does with conversations: join, leave, find, write.

use std::time::Duration;

use fog_base::{NodeId, Now};

use super::{
    Chat, Conversation, ConversationKind, MAX_CONVERSATIONS, Member, Output, Refusal, Role, RoomKey,
    direct::LIFETIME,
    pack::direct_id,
    people::MAX_PEOPLE,
    talk::{Delivery, Record, Talk, Unpublished},
    text::{MAX_TEXT, is_clean, is_name},
};
use crate::core::{
    delivery::{Reason, State, Via, allowed},
    id::{ConversationId, DeviceId, MessageId},
    message::{Kind, Message, Verified},
    reject::Reject,
    secrets::{Room, frame::MAX_BODY},
};

/// The longest body of a file's manifest.
const MAX_MANIFEST: usize = 12 * 1024;
/// The longest topic.
pub(super) const MAX_TOPIC: usize = 256;
/// Own messages of one conversation that may wait.
const MAX_QUEUED: usize = 1_024;
/// For how long a conversation has just begun.
const NEW: Duration = Duration::from_secs(5);

impl Chat {
    /// Joins a room, or an earlier one again: its history is kept, because a device that began anew would fork its own.
    pub fn join_room(&mut self, name: &str, key: Option<RoomKey>, now: Now) -> Result<ConversationId, Refusal> {
        self.check_store()?;
        let name = name.strip_prefix('#').unwrap_or(name);
        if !is_name(name) {
            return Err(Refusal::BadName);
        }
        let room = match key {
            Some(RoomKey(room)) => room,
            None => Room::open(&self.config.network, name).map_err(|_| Refusal::BadName)?,
        };
        let id = ConversationId(*room.tag());
        let other = self.talks.values().find(|talk| {
            let is_room = matches!(talk.kind, ConversationKind::Open | ConversationKind::Password);
            is_room && talk.is_listed() && talk.record.name == name && talk.record.id != id
        });
        if other.is_some() {
            return Err(Refusal::OtherPassword(format!("#{name}")));
        }
        if let Some(talk) = self.talks.get_mut(&id) {
            talk.record.is_left = false;
            self.begin_talk(id, now);
            return Ok(id);
        }
        let kind = if room.key().is_some() { ConversationKind::Password } else { ConversationKind::Open };
        let mut record = Record::new(id, kind, name, *room.tag());
        record.room_key = room.key().map(|key| *key.expose());
        self.add_talk(record, now)?;
        Ok(id)
    }

    /// Leaves: the conversation is no longer heard or shown. In a group the others are told.
    pub fn leave(&mut self, id: ConversationId, now: Now) -> Result<(), Refusal> {
        self.check_store()?;
        let talk = self.talks.get(&id).filter(|talk| talk.is_listed()).ok_or_else(|| unknown(id))?;
        if talk.kind == ConversationKind::Group && !talk.record.is_offer {
            self.leave_group(id, now)?;
        }
        if let Some(talk) = self.talks.get_mut(&id) {
            (talk.record.is_left, talk.record.is_offer) = (true, false);
        }
        self.save_record(id, true);
        self.subscribe();
        self.settle(now);
        Ok(())
    }

    /// The conversation of `@name`, `@PEER`, `#room` or `&group`, or of an id in hexadecimal digits.
    pub fn resolve(&self, to: &str) -> Result<ConversationId, Refusal> {
        let missing = || Refusal::Unknown(to.to_owned());
        let named = |name: &str, kinds: &[ConversationKind]| {
            let mut talks = self.talks.values().filter(|talk| talk.is_listed() && kinds.contains(&talk.kind));
            talks.find(|talk| talk.record.name == name).map(|talk| talk.record.id).ok_or_else(missing)
        };
        if let Some(room) = to.strip_prefix('#') {
            return named(room, &[ConversationKind::Open, ConversationKind::Password]);
        }
        if let Some(group) = to.strip_prefix('&') {
            return named(group, &[ConversationKind::Group]);
        }
        if let Some(name) = to.strip_prefix('@') {
            let peer = self.find_person(name)?;
            return Ok(direct_id(&self.config.network, self.device, peer));
        }
        to.parse().ok().filter(|id| self.talks.contains_key(id)).ok_or_else(missing)
    }

    /// Writes. The message is in the history at once; it leaves when it is on disk.
    pub fn send(
        &mut self,
        to: ConversationId,
        kind: Kind,
        body: &[u8],
        via: Via,
        now: Now,
    ) -> Result<MessageId, Refusal> {
        self.send_within(to, kind, body, (via, None), now)
    }

    /// Writes a direct message that is given up if it has not come to its recipient within so long, at most 7 days.
    pub fn send_within(
        &mut self,
        to: ConversationId,
        kind: Kind,
        body: &[u8],
        (via, lifetime): (Via, Option<Duration>),
        now: Now,
    ) -> Result<MessageId, Refusal> {
        self.check_store()?;
        check_body(kind, body)?;
        if !self.talks.contains_key(&to) {
            self.begin_direct(to, now)?;
        }
        let talk = self.talks.get(&to).filter(|talk| talk.is_listed()).ok_or_else(|| unknown(to))?;
        if talk.deliveries.len() >= MAX_QUEUED && self.queued_in(to) >= MAX_QUEUED {
            return Err(Refusal::Full("messages"));
        }
        match talk.record.peer {
            Some(peer) if talk.kind == ConversationKind::Direct => {
                let (policy, is_blocked) = self.terms(peer);
                if is_blocked {
                    return Err(Refusal::Blocked);
                }
                allowed(policy, via).map_err(|_| Refusal::Forbidden)?;
                if kind == Kind::TOPIC {
                    return Err(Refusal::WrongKind);
                }
                if kind == Kind::FILE {
                    self.check_files(to)?;
                }
                if !self.secrets.knows(&peer) {
                    return Err(Refusal::NoCard(self.name_of(peer)));
                }
            }
            _ if via != Via::Auto => return Err(Refusal::Forbidden),
            _ if lifetime.is_some() => return Err(Refusal::NeverExpires),
            _ if talk.kind == ConversationKind::Group && !self.is_member(to) => return Err(Refusal::NotEntitled),
            _ => {}
        }
        let message = self.write(to, kind, body, now)?;
        let id = message.id();
        if let Some(peer) = self.talks.get(&to).and_then(|talk| talk.record.peer) {
            self.become_contact(peer);
            let delivery = Delivery::new(via, lifetime.unwrap_or(LIFETIME), now.unix);
            if let Some(talk) = self.talks.get_mut(&to) {
                talk.deliveries.insert(id, delivery);
            }
            self.introduce(peer, now);
            if !delivery.is_short() {
                self.give_places_before(peer, &message, now);
            }
            self.queue_message(peer, id, &delivery, now);
            self.save_delivery(to, &id, true);
        } else {
            self.queue_publication(to, id, now);
        }
        self.settle(now);
        Ok(id)
    }

    /// All conversations that were not left.
    pub fn conversations(&self) -> Vec<Conversation> {
        let is_contact = |peer| self.people.get(&peer).is_some_and(|person| person.is_contact);
        let is_begun = |talk: &&Talk| talk.record.peer.is_none_or(|peer| !talk.dag.is_empty() || is_contact(peer));
        let talks = self.talks.values().filter(|talk| talk.is_listed()).filter(is_begun);
        talks
            .map(|talk| Conversation {
                id: talk.record.id,
                to: self.title(talk),
                kind: talk.kind,
                unread: u32::try_from(talk.unread.len()).unwrap_or(u32::MAX),
                members: u32::try_from(self.count_members(talk)).unwrap_or(u32::MAX),
                last_at: talk.last_at,
                topic: self.topic(talk),
            })
            .collect()
    }

    /// What [`Chat::resolve`] takes for a conversation that was not left.
    pub fn title_of(&self, id: &ConversationId) -> Option<String> {
        self.talks.get(id).filter(|talk| talk.is_listed()).map(|talk| self.title(talk))
    }

    /// Who is in a conversation: in rooms, the authors that were seen.
    pub fn members(&self, id: ConversationId) -> Result<Vec<Member>, Refusal> {
        let talk = self.talks.get(&id).ok_or_else(|| unknown(id))?;
        let member = |device: DeviceId, role: Role| Member {
            device,
            node: self.node_of(device),
            name: self.name_of(device),
            role,
        };
        if let Some(club) = &talk.club {
            let members = club.group.members().iter().map(|(device, level)| {
                let role = match level.0 {
                    0 => Role::Owner,
                    _ if level.is_admin() => Role::Admin,
                    _ => Role::Member,
                };
                member(*device, role)
            });
            let invited = club.group.invited().iter().map(|device| member(*device, Role::Invited));
            return Ok(members.chain(invited).collect());
        }
        let devices: Vec<_> = match talk.record.peer {
            Some(peer) => vec![self.device, peer],
            None => talk.dag.authors().collect(),
        };
        Ok(devices.into_iter().map(|device| member(device, Role::Member)).collect())
    }

    /// Signs, orders and stores an own message.
    pub(super) fn write(&mut self, to: ConversationId, kind: Kind, body: &[u8], now: Now) -> Result<Verified, Refusal> {
        let salt = self.random();
        let talk = self.talks.get_mut(&to).ok_or_else(|| unknown(to))?;
        let draft = talk.dag.draft(self.device).map_err(|reject| match reject {
            Reject::Frozen => Refusal::Disputed,
            _ => Refusal::Full("authors"),
        })?;
        let seq = draft.seq();
        if seq <= talk.record.own_seq {
            return Err(Refusal::Incomplete);
        }
        let message = Message::sign(draft, &self.config.network, &self.signing, kind, now.unix.0, salt, body)
            .map_err(|_| Refusal::TooLong(MAX_TEXT))?;
        if message.len_bytes() + 1 > MAX_BODY {
            return Err(Refusal::TooLong(MAX_TEXT));
        }
        talk.dag.handle_message(&message, None, now).map_err(|_| Refusal::Full("messages"))?;
        let name = talk.record.vault_name();
        talk.last_at = talk.last_at.max(Some(now.unix));
        talk.record.own_seq = seq;
        self.save_record(to, true);
        self.store(&name, &message.id(), None, &message.encode(), now);
        self.drain_dag(to, None, now);
        Ok(message)
    }

    /// Has gossip take an own message, behind its batch.
    pub(super) fn queue_publication(&mut self, to: ConversationId, id: MessageId, now: Now) {
        let Some(talk) = self.talks.get_mut(&to) else { return };
        talk.deliveries.insert(id, Delivery::of_members());
        talk.unpublished.insert(id, Unpublished { attempts: 0, next: now.mono });
        self.save_delivery(to, &id, true);
        // What gossip loses everywhere comes with the next hello.
        self.mark_all_dirty(to);
        if self.talks.get(&to).and_then(|talk| talk.is_new_until).is_some_and(|until| now.mono < until) {
            self.meet_sooner(to, now);
        }
        self.publish(to, id, now);
    }

    pub(super) fn add_talk(&mut self, record: Record, now: Now) -> Result<(), Refusal> {
        let is_direct = record.peer.is_some();
        let held = self.talks.values().filter(|talk| talk.record.peer.is_some() == is_direct).count();
        if held >= if is_direct { MAX_PEOPLE } else { MAX_CONVERSATIONS } {
            return Err(Refusal::Full("conversations"));
        }
        let id = record.id;
        self.talks.insert(id, Talk::new(record, self.config.network));
        self.begin_talk(id, now);
        Ok(())
    }

    /// A conversation is heard from now on.
    pub(super) fn begin_talk(&mut self, id: ConversationId, now: Now) {
        let Some(talk) = self.talks.get_mut(&id) else { return };
        talk.is_new_until = Some(now.mono + NEW);
        self.book.remove(&id);
        let is_shared = talk.is_shared();
        self.book.add(id, talk.tag_key.clone(), now.unix);
        self.save_record(id, true);
        self.subscribe();
        if is_shared {
            self.meet_all(now);
        }
        self.settle(now);
    }

    /// Subscribes to the topics of what is heard, and no others.
    pub(super) fn subscribe(&mut self) {
        let heard = self.talks.values().filter(|talk| talk.is_listed() && talk.is_shared());
        let buckets: std::collections::BTreeSet<u8> = heard.map(|talk| talk.tag_key.bucket()).collect();
        for bucket in self.buckets.difference(&buckets) {
            self.disk.push(Output::Unsubscribe(*bucket));
        }
        for bucket in buckets.difference(&self.buckets) {
            self.disk.push(Output::Subscribe(*bucket));
        }
        self.buckets = buckets;
    }

    pub(super) fn title(&self, talk: &Talk) -> String {
        match (talk.kind, talk.record.peer) {
            (ConversationKind::Group, _) => format!("&{}", talk.record.name),
            (ConversationKind::Direct, Some(peer)) => format!("@{}", self.name_of(peer)),
            _ => format!("#{}", talk.record.name),
        }
    }

    fn count_members(&self, talk: &Talk) -> usize {
        match &talk.club {
            Some(club) => club.group.members().len(),
            None if talk.record.peer.is_some() => 2,
            None => talk.dag.authors().count(),
        }
    }

    fn queued_in(&self, id: ConversationId) -> usize {
        let Some(talk) = self.talks.get(&id) else { return 0 };
        // Of a group, what mailboxes have is not repeated.
        let last = if talk.is_shared() { State::Queued } else { State::Carried };
        let waits = |delivery: &&Delivery| delivery.reason() != Some(Reason::Expired) && delivery.state() <= last;
        talk.deliveries.values().filter(waits).count()
    }

    pub(super) fn node_of(&self, device: DeviceId) -> Option<NodeId> {
        if device == self.device {
            return Some(self.config.node);
        }
        self.people.get(&device).map(|person| person.card.node)
    }
}

fn check_body(kind: Kind, body: &[u8]) -> Result<(), Refusal> {
    if kind == Kind::TOPIC {
        // An empty one takes the topic away.
        let is_line = std::str::from_utf8(body).is_ok_and(|text| is_clean(text) && !text.contains(['\n', '\t']));
        return if is_line && body.len() <= MAX_TOPIC { Ok(()) } else { Err(Refusal::BadTopic(MAX_TOPIC)) };
    }
    let limit = if kind == Kind::TEXT { MAX_TEXT } else { MAX_MANIFEST };
    if body.is_empty() || body.len() > limit {
        return Err(Refusal::TooLong(limit));
    }
    if kind != Kind::TEXT && kind != Kind::FILE {
        return Err(Refusal::WrongKind);
    }
    let is_text = kind == Kind::FILE || std::str::from_utf8(body).is_ok_and(is_clean);
    if is_text { Ok(()) } else { Err(Refusal::BadText) }
}

pub(super) fn unknown(id: ConversationId) -> Refusal {
    Refusal::Unknown(id.to_string())
}
