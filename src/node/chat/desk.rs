//! What a person does with chat: names and texts on one side, the engine on the other.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use fog_base::{Network, NodeId, Now, codec};
use fog_blobs::Manifest;
use fog_chat::{
    Chat, ConversationId, DeviceId, MessageId,
    core::{
        dag::Standing,
        delivery::Reason,
        engine::{self, Card, Event, Kind, Policy, Refusal, Via, clean_text},
    },
};
use libp2p::Multiaddr;

use super::report::{ChatStatus, Contact, Conversation, Line, Member, News, Predecessor, Sent, Target, Trace, Why};
use crate::{
    invite::Invite,
    node::{command::Failure, inbox::rfc3339},
    store::{Batch, Durability, Store, Table, Writer},
};

/// For how long a message may be tried, in seconds.
const EXPIRY: RangeInclusive<u64> = 10..=7 * 86_400;
/// Texts of addresses of one contact.
const MAX_ADDRESSES: usize = 4096;

/// The engine and what is around it, for as long as one command takes.
pub(crate) struct Desk<'a> {
    pub(super) chat: &'a mut Chat,
    pub(super) writer: &'a Writer,
    pub(super) network: &'a Network,
    pub(super) now: Now,
    pub(super) lan: u64,
    pub(super) net: u64,
    /// Why nobody is connected, if that is so.
    pub(super) alone: Option<String>,
    pub(super) mix_ready: bool,
    /// The store takes what chat writes, as far as is known.
    pub(super) is_running: bool,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (message, hint) = (refusal.to_string(), refusal.hint());
        match refusal {
            Refusal::BadName | Refusal::BadText | Refusal::BadTopic(_) | Refusal::TooLong(_) => {
                Self::usage(message, hint)
            }
            Refusal::Unknown(_) => Self::missing(message, hint),
            Refusal::NameTaken(_) | Refusal::OtherPassword(_) => Self::taken(message, hint),
            _ => Self::failed(message, hint),
        }
    }
}

fn via(text: Option<&str>) -> Result<Via, Failure> {
    match text {
        None | Some("auto") => Ok(Via::Auto),
        Some("lan") => Ok(Via::Lan),
        Some("direct") => Ok(Via::Direct),
        Some("mix") => Ok(Via::Mix),
        Some(_) => Err(Failure::usage("`via` is `auto`, `lan`, `direct` or `mix`", "leave it out for `auto`")),
    }
}

pub(super) fn message_id(text: &str) -> Result<MessageId, Failure> {
    text.parse()
        .map_err(|_| Failure::usage("a message's id has 64 hexadecimal digits", "`fog chat history --json` shows ids"))
}

fn clock(clock: BTreeMap<DeviceId, u32>) -> BTreeMap<String, u32> {
    clock.into_iter().map(|(author, seq)| (author.to_string(), seq)).collect()
}

impl Desk<'_> {
    pub(crate) fn status(&self) -> ChatStatus {
        let counts = self.chat.counts();
        ChatStatus {
            device: self.chat.device().to_string(),
            name: self.chat.nick(),
            lan: self.lan,
            net: self.net,
            mix: self.mix_ready,
            alone: self.alone.clone(),
            queued: counts.queued as u64,
            carried: counts.carried_for_others as u64,
        }
    }

    pub(crate) fn conversations(&self) -> Vec<Conversation> {
        let of = |one: engine::Conversation| Conversation {
            to: one.to,
            kind: one.kind.name().to_owned(),
            unread: one.unread,
            members: one.members,
            last_at: one.last_at.map(rfc3339),
            topic: one.topic,
        };
        self.chat.conversations().into_iter().map(of).collect()
    }

    pub(crate) fn send(
        &mut self,
        to: &str,
        text: &str,
        way: Option<&str>,
        expire_s: Option<u64>,
    ) -> Result<Sent, Failure> {
        let to = self.chat.resolve(to)?;
        let id = match expire_s {
            None => self.chat.send(to, Kind::TEXT, text.as_bytes(), via(way)?, self.now)?,
            Some(seconds) if EXPIRY.contains(&seconds) => {
                let how = (via(way)?, Some(Duration::from_secs(seconds)));
                self.chat.send_within(to, Kind::TEXT, text.as_bytes(), how, self.now)?
            }
            Some(_) => {
                let message = format!("`expire_s` is {} to {} seconds", EXPIRY.start(), EXPIRY.end());
                return Err(Failure::usage(message, "leave it out for the longest"));
            }
        };
        Ok(self.sent(&id))
    }

    pub(crate) fn set_topic(&mut self, to: &str, topic: &str) -> Result<Sent, Failure> {
        let to = self.chat.resolve(to)?;
        let id = self.chat.send(to, Kind::TOPIC, topic.as_bytes(), Via::Auto, self.now)?;
        Ok(self.sent(&id))
    }

    pub(crate) fn set_nick(&mut self, name: &str) -> Result<ChatStatus, Failure> {
        self.chat.set_nick(bare(name), self.now)?;
        Ok(self.status())
    }

    pub(crate) fn trace(&self, name: &str) -> Result<Trace, Failure> {
        let trace = self.chat.trace(bare(name))?;
        let called = self.chat.calls_itself(trace.contact.device);
        let contact = contact(trace.contact);
        Ok(Trace {
            calls_itself: called.unwrap_or_else(|| contact.name.clone()),
            name: contact.name,
            peer_id: contact.peer_id,
            device: contact.device,
            policy: contact.policy,
            blocked: contact.blocked,
            connected: trace.connected.map(|via| via.name().to_owned()),
            ways: trace.ways.into_iter().map(|via| via.name().to_owned()).collect(),
            mailboxes: trace.mailboxes as u64,
            has_written: trace.has_written,
            last_via: trace.last_via.map(|via| via.name().to_owned()),
            waiting: trace.waiting as u64,
            under_way: trace.under_way as u64,
            in_mailboxes: trace.in_mailboxes as u64,
        })
    }

    /// An error if what was sent last may not have been stored.
    pub(crate) fn check_running(&self) -> Result<(), Failure> {
        if self.is_running { Ok(()) } else { Err(Refusal::StoreFailed.into()) }
    }

    /// How far a message is.
    pub(crate) fn state(&self, id: &str) -> Result<Sent, Failure> {
        Ok(self.sent(&message_id(id)?))
    }

    fn sent(&self, id: &MessageId) -> Sent {
        let shown = self.chat.shown(id);
        Sent {
            id: id.to_string(),
            state: shown.as_ref().map_or("queued", |shown| shown.state.name()).to_owned(),
            via: shown.as_ref().and_then(|shown| shown.via).map(|via| via.name().to_owned()),
            reason: shown.and_then(|shown| shown.reason).map(|reason| reason.name().to_owned()),
        }
    }

    pub(crate) fn history(&self, to: &str, limit: Option<usize>) -> Result<Vec<Line>, Failure> {
        let conversation = self.chat.resolve(to)?;
        let shown = self.chat.history(conversation, limit)?;
        let to = self.name_of(&conversation);
        Ok(shown.into_iter().map(|shown| line(shown, &to)).collect())
    }

    fn name_of(&self, conversation: &ConversationId) -> String {
        self.chat.title_of(conversation).unwrap_or_else(|| conversation.to_string())
    }

    fn target(&self, conversation: &ConversationId) -> Target {
        Target { to: self.name_of(conversation) }
    }

    pub(crate) fn join(&mut self, name: &str, key: Option<engine::RoomKey>) -> Result<Target, Failure> {
        let room = self.chat.join_room(name, key, self.now)?;
        Ok(self.target(&room))
    }

    pub(crate) fn leave(&mut self, to: &str) -> Result<Target, Failure> {
        let conversation = self.chat.resolve(to)?;
        let target = self.target(&conversation);
        self.chat.leave(conversation, self.now)?;
        Ok(target)
    }

    pub(crate) fn read(&mut self, to: &str) -> Result<Target, Failure> {
        let conversation = self.chat.resolve(to)?;
        self.chat.mark_read(conversation, self.now);
        Ok(self.target(&conversation))
    }

    /// A group, with or without its mark.
    fn group(&self, name: &str) -> Result<ConversationId, Failure> {
        let name = if name.starts_with('&') { name.to_owned() } else { format!("&{name}") };
        Ok(self.chat.resolve(&name)?)
    }

    pub(crate) fn create_group(&mut self, name: &str) -> Result<Target, Failure> {
        let group = self.chat.create_group(name.strip_prefix('&').unwrap_or(name), self.now)?;
        Ok(self.target(&group))
    }

    pub(crate) fn invite(&mut self, group: &str, who: &str) -> Result<Target, Failure> {
        let group = self.group(group)?;
        self.chat.invite(group, bare(who), self.now)?;
        Ok(self.target(&group))
    }

    pub(crate) fn accept(&mut self, group: &str) -> Result<Target, Failure> {
        let group = self.group(group)?;
        self.chat.accept(group, self.now)?;
        Ok(self.target(&group))
    }

    pub(crate) fn remove(&mut self, group: &str, who: &str) -> Result<Target, Failure> {
        let group = self.group(group)?;
        self.chat.remove(group, bare(who), self.now)?;
        Ok(self.target(&group))
    }

    pub(crate) fn set_role(&mut self, group: &str, who: &str, is_admin: bool) -> Result<Target, Failure> {
        let group = self.group(group)?;
        self.chat.set_role(group, bare(who), is_admin, self.now)?;
        Ok(self.target(&group))
    }

    pub(crate) fn members(&self, to: &str) -> Result<Vec<Member>, Failure> {
        let of = |member: engine::Member| Member {
            peer_id: member.node.map_or_else(|| member.device.to_string(), |node| node.to_string()),
            device: member.device.to_string(),
            name: member.name,
            role: member.role.name().to_owned(),
        };
        Ok(self.chat.members(self.chat.resolve(to)?)?.into_iter().map(of).collect())
    }

    /// Whether this is a group whose members do not count this device among them.
    fn is_removed(&self, conversation: &ConversationId) -> bool {
        let me = self.chat.device();
        let lacks_me = |members: Vec<engine::Member>| members.iter().all(|member| member.device != me);
        self.name_of(conversation).starts_with('&') && self.chat.members(*conversation).is_ok_and(lacks_me)
    }

    pub(crate) fn contacts(&self) -> Vec<Contact> {
        self.chat.contacts().into_iter().map(contact).collect()
    }

    /// A contact, or somebody else whose card is known.
    fn contact(&self, name: &str) -> Result<Contact, Failure> {
        let name = bare(name);
        let node = name.parse::<NodeId>().ok();
        let is_meant = |one: &engine::Contact| node.map_or(one.name == name, |node| one.node == node);
        let found = self.chat.find_person(name).ok().and_then(|device| self.chat.contact(device));
        let found = found.or_else(|| self.chat.contacts().into_iter().find(is_meant));
        found.map(contact).ok_or_else(|| Refusal::Unknown(format!("somebody called `{name}`")).into())
    }

    pub(crate) fn add_contact(&mut self, invite: &str, name: Option<&str>) -> Result<Contact, Failure> {
        let hint = "ask for a new invite: the `fog id` of a running node prints one";
        let invite = Invite::parse(invite, self.network, self.now.unix)
            .map_err(|error| Failure::usage(error.to_string(), hint))?;
        if invite.card.is_empty() {
            return Err(Failure::usage(
                "the invite was made while its node did not run: it names no chat device",
                hint,
            ));
        }
        let card = Card::from_bytes(&self.network.id, &invite.card, self.now.unix)
            .map_err(|error| Failure::usage(format!("the invite's card is refused: {error}"), hint))?;
        if card.node != invite.node {
            return Err(Failure::usage("the invite holds the card of another node", hint));
        }
        let node = invite.node;
        self.keep_addresses(node, &invite.addresses);
        let added = self.chat.add_contact(card, name.map(bare), self.now)?;
        Ok(contact(added))
    }

    /// For dialling later. They are asked for again with the next invite if this is lost.
    fn keep_addresses(&self, node: NodeId, addresses: &[Multiaddr]) {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        if let Ok(bytes) = codec::encode(&texts, MAX_ADDRESSES) {
            let mut batch = Batch::new();
            batch.put(Table::Contacts, node.0, bytes);
            let _queued = self.writer.submit(batch, Durability::Synced);
        }
    }

    pub(crate) fn verify(&mut self, name: &str, verified: Option<bool>) -> Result<Contact, Failure> {
        let name = self.contact(name)?.name;
        let words = self.chat.safety_words(&name)?.concat();
        if let Some(verified) = verified {
            self.chat.set_verified(&name, verified, self.now)?;
        }
        Ok(Contact { words, ..self.contact(&name)? })
    }

    pub(crate) fn set_policy(&mut self, name: &str, policy: &str) -> Result<Contact, Failure> {
        let policy = match policy {
            "auto" => Policy::Auto,
            "mix" => Policy::Mix,
            _ => return Err(Failure::usage("a policy is `auto` or `mix`", "name one of them")),
        };
        let name = self.contact(name)?.name;
        self.chat.set_policy(&name, policy, self.now)?;
        self.contact(&name)
    }

    pub(crate) fn set_blocked(&mut self, name: &str, blocked: bool) -> Result<Contact, Failure> {
        let name = self.contact(name)?.name;
        self.chat.set_blocked(&name, blocked, self.now)?;
        self.contact(&name)
    }

    pub(crate) fn why(&self, id: &str) -> Result<Why, Failure> {
        let id = message_id(id)?;
        let why = self.chat.why(&id).ok_or_else(|| {
            Failure::missing(format!("no message {id} is here"), "`fog chat history --json` shows ids")
        })?;
        let standing = match why.order.standing {
            Standing::Complete => "complete",
            Standing::Disputed | Standing::Aside => "disputed",
            Standing::Unproved | Standing::Waiting | Standing::Missing => "gap",
        };
        let predecessor = |(id, standing): (MessageId, Standing)| Predecessor {
            id: id.to_string(),
            known: standing != Standing::Missing,
        };
        Ok(Why {
            id: id.to_string(),
            to: self.name_of(&why.conversation),
            author: why.order.author.to_string(),
            seq: why.order.seq,
            lamport: why.order.lamport,
            standing: standing.to_owned(),
            clock: clock(why.order.clock),
            predecessors: why.order.predecessors.into_iter().map(predecessor).collect(),
        })
    }

    /// What a reader of events is told.
    pub(super) fn news(&self, event: &Event) -> Option<News> {
        let notice =
            |to: Option<&ConversationId>, text: String| News::Notice { to: to.map(|to| self.name_of(to)), text };
        Some(match event {
            Event::Message(id) => {
                let shown = self.chat.shown(id)?;
                let to = self.name_of(&shown.conversation);
                let mut line = line(shown, &to);
                // What is told is on the disk; the state that follows says what it waits for.
                if line.reason.as_deref() == Some(Reason::NotStored.name()) {
                    line.reason = None;
                }
                News::Message(Box::new(line))
            }
            Event::Retracted { conversation, message } => {
                News::Retracted { to: self.name_of(conversation), id: message.to_string() }
            }
            Event::State(id) => News::State(self.sent(id)),
            Event::Members(conversation) if self.is_removed(conversation) => {
                notice(Some(conversation), "you are no member any more: what is said from now on is not for you".into())
            }
            Event::Members(conversation) => News::Members { to: self.name_of(conversation) },
            Event::Invited { group, by } => notice(
                Some(group),
                format!(
                    "{by}, who is no contact, invites you: `fog chat group accept '{}'` takes it up",
                    self.name_of(group)
                ),
            ),
            Event::Forked { conversation, author } => notice(
                Some(conversation),
                format!("{author} told different members different things; what it writes counts no more"),
            ),
            Event::Desynced(device) => {
                notice(None, format!("messages of {device} cannot be read: a new session is on its way"))
            }
            Event::Healed(device) => notice(None, format!("messages of {device} can be read again")),
            Event::NeedsInvite(device) => {
                notice(None, format!("a new invite of {device} is needed: nothing can be sealed for it"))
            }
            Event::Renamed { device, was } => {
                let name = self.chat.contact(*device)?.name;
                let text = match self.chat.calls_itself(*device) {
                    Some(own) if name == *was => format!("`{was}` calls itself `{own}` now; it stays `{was}` here"),
                    _ => format!("`{was}` is called `{name}` from now on"),
                };
                notice(None, text)
            }
            Event::NewDevice { device, of } => {
                let [new, known] = [device, of].map(|it| self.chat.contact(*it).map(|it| it.name).unwrap_or_default());
                let text = format!(
                    concat!(
                        "`{}` has another device than before, as after a restore: it is `{}` here. Compare the words ",
                        "(`fog chat contact verify {}`); a new invite from it, added as `{}`, gives it the name"
                    ),
                    known, new, new, known
                );
                notice(None, text)
            }
        })
    }
}

/// A name without what tells its kind.
fn bare(name: &str) -> &str {
    name.strip_prefix('@').unwrap_or(name)
}

fn contact(contact: engine::Contact) -> Contact {
    Contact {
        name: contact.name,
        peer_id: contact.node.to_string(),
        device: contact.device.to_string(),
        verified: contact.verified,
        policy: match contact.policy {
            Policy::Auto => "auto",
            Policy::Mix => "mix",
        }
        .to_owned(),
        blocked: contact.blocked,
        words: Vec::new(),
    }
}

fn line(shown: engine::Shown, to: &str) -> Line {
    let kind = match shown.kind {
        Kind::TEXT => "text",
        Kind::TOPIC => "topic",
        Kind::MEMBERSHIP => "membership",
        Kind::FILE => "file",
        _ => "other",
    };
    let text = match shown.kind {
        Kind::TEXT => String::from_utf8_lossy(&shown.body).into_owned(),
        Kind::TOPIC if shown.body.is_empty() => "took the topic away".to_owned(),
        Kind::TOPIC => format!("set the topic: {}", String::from_utf8_lossy(&shown.body)),
        Kind::MEMBERSHIP => "changed who is in the group".to_owned(),
        Kind::FILE => match Manifest::decode(&shown.body) {
            Ok(file) => {
                format!("sent the file {} ({} bytes)", clean_text(file.name.as_str().as_bytes()), file.blob.size())
            }
            Err(_) => "sent something that is no file".to_owned(),
        },
        _ => String::new(),
    };
    Line {
        id: shown.id.to_string(),
        to: to.to_owned(),
        author: shown.author.to_string(),
        name: shown.name,
        seq: shown.seq,
        clock: clock(shown.clock),
        parents: shown.parents.iter().map(ToString::to_string).collect(),
        text,
        kind: kind.to_owned(),
        state: shown.state.name().to_owned(),
        via: shown.via.map(|via| via.name().to_owned()),
        reason: shown.reason.map(|reason| reason.name().to_owned()),
        sent_at: rfc3339(shown.sent_at),
        gap_before: shown.gap_before,
        warning: shown.warning,
    }
}

/// Where a contact's invite said that its node is.
pub(super) fn invite_addresses(store: &dyn Store, node: NodeId) -> Vec<Multiaddr> {
    let bytes = store.get(Table::Contacts, &node.0).ok().flatten();
    let texts: Vec<String> = bytes.and_then(|bytes| codec::decode(&bytes, MAX_ADDRESSES).ok()).unwrap_or_default();
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::command::FailureKind;

    #[test]
    fn what_is_not_here_and_what_is_here_already_are_no_wrong_usage() {
        for (refusal, kind) in [
            (Refusal::Unknown("#nope".into()), FailureKind::Missing),
            (Refusal::NameTaken("&team".into()), FailureKind::Taken),
            (Refusal::OtherPassword("#room".into()), FailureKind::Taken),
            (Refusal::WrongKind, FailureKind::Failed),
            (Refusal::NoCard("bob".into()), FailureKind::Failed),
            (Refusal::BadName, FailureKind::Usage),
            (Refusal::TooLong(1), FailureKind::Usage),
        ] {
            let shown = refusal.to_string();
            assert_eq!(Failure::from(refusal).kind, kind, "{shown}");
        }
    }
}
