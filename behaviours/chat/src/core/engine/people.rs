//! Who is known: cards, contacts, names, policies, blocks, safety words.

use std::collections::BTreeSet;

use fog_base::{NetworkId, NodeId, Now, UnixMillis};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Chat, Contact, Event, MixAddress, Refusal,
    card::{Card, Claims},
    direct::{FRAME_CARD, LIFETIME},
    links::Asked,
    pack::{direct_id, direct_tag_key},
    talk::Record,
    text::{clean_name, is_name},
    types::ConversationKind,
};
use crate::{
    core::{
        delivery::{Policy, Reason, State, Via},
        id::{ConversationId, DeviceId},
        reject::Reject,
        secrets::{self, safety_words},
    },
    wire::request::Request,
};

/// The most devices whose cards are kept, and with whom there may be a conversation.
pub(super) const MAX_PEOPLE: usize = 4_096;

/// With so many frames under way a device that has a card is not sent another one.
const MAX_UNANSWERED: usize = 8;

/// Somebody whose card is known.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) card: Card,
    /// Unique here.
    pub(super) name: String,
    /// The card came over the node's own link, or in an invite that a person added.
    pub(super) is_proved: bool,
    pub(super) is_contact: bool,
    pub(super) is_verified: bool,
    pub(super) is_mixed: bool,
    pub(super) is_blocked: bool,
    /// A frame of it came: it knows this device.
    pub(super) is_met: bool,
    /// It was given a one-time key that it has not used.
    pub(super) has_key: bool,
    /// What it was called here before: nobody else is called so.
    pub(super) former: Vec<String>,
    /// What of the own card it was told.
    pub(super) told: Option<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    card: Vec<u8>,
    name: String,
    flags: [bool; 6],
    #[serde(default)]
    has_key: bool,
    #[serde(default)]
    former: Vec<String>,
}

impl Person {
    /// Whether this device's person has chosen something for it.
    pub(super) fn is_known(&self) -> bool {
        self.is_contact || self.is_verified || self.is_blocked || self.is_mixed
    }

    pub(super) fn policy(&self) -> Policy {
        if self.is_mixed { Policy::Mix } else { Policy::Auto }
    }

    pub(super) fn save(&self) -> Zeroizing<Vec<u8>> {
        let Self { is_proved, is_contact, is_verified, is_mixed, is_blocked, is_met, has_key, .. } = *self;
        let flags = [is_proved, is_contact, is_verified, is_mixed, is_blocked, is_met];
        let (name, former) = (self.name.clone(), self.former.clone());
        let saved = Saved { card: self.card.to_bytes(), name, flags, has_key, former };
        Zeroizing::new(serde_json::to_vec(&saved).unwrap_or_default())
    }

    /// Whether the row tells of a choice of this device's person: a contact, safety words that were compared, a block.
    pub(super) fn is_chosen(text: &[u8]) -> bool {
        let saved = serde_json::from_slice::<Saved>(text);
        saved.is_ok_and(|Saved { flags: [_, is_contact, is_verified, _, is_blocked, ..], .. }| {
            is_contact || is_verified || is_blocked
        })
    }

    pub(super) fn restore(network: &NetworkId, text: &[u8]) -> Option<Self> {
        let saved: Saved = serde_json::from_slice(text).ok()?;
        // Its fallback key may be over; its node is still known.
        let card = Card::from_bytes(network, &saved.card, UnixMillis(0)).ok()?;
        let [is_proved, is_contact, is_verified, is_mixed, is_blocked, is_met] = saved.flags;
        // What it was told may have been lost with the crash: it is told again.
        Some(Self {
            card,
            name: saved.name,
            is_proved,
            is_contact,
            is_verified,
            is_mixed,
            is_blocked,
            is_met,
            has_key: saved.has_key,
            former: saved.former,
            told: None,
        })
    }
}

/// What somebody is called here who calls itself so, if nobody else is: what tells the kind of a conversation begins no name, and what is left
/// is no id.
pub(super) fn base_name(wanted: &str) -> String {
    let bare = wanted.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '@' | '#' | '&'));
    clean_name(bare).chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect()
}

impl Chat {
    /// Adds somebody by the card of an invite, or renames a contact.
    pub fn add_contact(&mut self, card: Card, name: Option<&str>, now: Now) -> Result<Contact, Refusal> {
        self.check_store()?;
        let device = card.device;
        if device == self.device {
            return Err(Refusal::Oneself);
        }
        // Whoever is new here gets the name of its card if nobody has it whom the user knows, whatever a stranger calls itself.
        let holder = |name: &str| self.people.values().find(|it| it.name == name && it.card.device != device);
        let is_taken = |name: &str| holder(name).is_some_and(Person::is_known);
        // By this name the device of before at the same node is called otherwise from now on: a person has said so.
        let is_its_own = |it: &Person| it.is_proved && it.card.node == card.node;
        let is_refused = |name: &str| is_taken(name) && !holder(name).is_some_and(is_its_own);
        let name = match name {
            Some(name) if !is_name(name) => return Err(Refusal::BadName),
            Some(name) if is_refused(name) => return Err(Refusal::NameTaken(name.to_owned())),
            Some(name) => Some(name.to_owned()),
            None if self.people.get(&device).is_some_and(|person| person.is_contact) => None,
            None => Some(base_name(&card.name)).filter(|name| !is_taken(name)),
        };
        let stranger = name.as_deref().and_then(holder).map(|it| it.card.device);
        // Who adds it knows that it is another one.
        let told = self.successors.insert(card.node, now.mono);
        let taken = self.take_card(&card, true, now);
        match told {
            Some(at) => drop(self.successors.insert(card.node, at)),
            None => drop(self.successors.remove(&card.node)),
        }
        taken.map_err(Refusal::BadCard)?;
        let person = self.people.get_mut(&device).ok_or(Refusal::Full("contacts"))?;
        person.is_contact = true;
        if let Some(name) = name {
            person.name = name;
        }
        if let Some(stranger) = stranger {
            self.rename(stranger);
        }
        self.save_person(device);
        self.begin_direct_with(device, now)?;
        self.ask_card(card.node);
        self.settle(now);
        self.contact(device).ok_or(Refusal::Full("contacts"))
    }

    /// All contacts, by name.
    pub fn contacts(&self) -> Vec<Contact> {
        let contacts = self.people.values().filter(|person| person.is_contact || person.is_blocked);
        let mut contacts: Vec<_> = contacts.filter_map(|person| self.contact(person.card.device)).collect();
        contacts.sort_by(|a, b| a.name.cmp(&b.name));
        contacts
    }

    /// Where the mixnet leads to a contact's node.
    pub fn contact_address(&self, name: &str) -> Option<MixAddress> {
        let name = name.strip_prefix('@').unwrap_or(name);
        // A name of before that is an id is nobody's.
        let called = |person: &&Person| person.is_contact && person.name == name && is_name(name);
        self.people.values().find(called).map(|person| MixAddress::from(&person.card))
    }

    /// The words to compare, of the lower device id first.
    pub fn safety_words(&self, name: &str) -> Result<[Vec<String>; 2], Refusal> {
        let device = self.find_person(name)?;
        let own = self.secrets.fingerprinted(None);
        let peer = self.secrets.fingerprinted(Some(&device));
        let (own, peer) = own.zip(peer).ok_or_else(|| Refusal::NoCard(name.to_owned()))?;
        let words = safety_words(&self.config.network, own, peer);
        let (first, second) = words.split_at(words.len() / 2);
        Ok([first.to_vec(), second.to_vec()])
    }

    /// Whether the words were compared and are the same.
    pub fn set_verified(&mut self, name: &str, is_verified: bool, now: Now) -> Result<(), Refusal> {
        self.change(name, now, |person| person.is_verified = is_verified).map(drop)
    }

    /// By what transports a contact is written to from now on.
    pub fn set_policy(&mut self, name: &str, policy: Policy, now: Now) -> Result<(), Refusal> {
        let device = self.change(name, now, |person| person.is_mixed = policy == Policy::Mix)?;
        self.replan(device, now);
        self.settle(now);
        Ok(())
    }

    /// Whether somebody is not heard. What waits for it is given up.
    pub fn set_blocked(&mut self, name: &str, is_blocked: bool, now: Now) -> Result<(), Refusal> {
        let device = self.change(name, now, |person| person.is_blocked = is_blocked)?;
        let list = self.secrets.block_list();
        if !is_blocked {
            list.unblock(&device);
        } else if list.block(device) {
            self.give_up(device, Reason::Blocked, now);
        } else {
            return Err(Refusal::Full("blocks"));
        }
        self.settle(now);
        Ok(())
    }

    fn change(&mut self, name: &str, _now: Now, change: impl FnOnce(&mut Person)) -> Result<DeviceId, Refusal> {
        self.check_store()?;
        let device = self.find_person(name)?;
        if let Some(person) = self.people.get_mut(&device) {
            change(person);
        }
        self.save_person(device);
        Ok(device)
    }

    /// Somebody whose card is known, as a contact; with the policy and the block that hold, also if they were chosen for another device of its node.
    pub fn contact(&self, device: DeviceId) -> Option<Contact> {
        let person = self.people.get(&device)?;
        let (policy, blocked) = self.terms(device);
        Some(Contact {
            name: person.name.clone(),
            device,
            node: person.card.node,
            verified: person.is_verified,
            policy,
            blocked,
        })
    }

    /// The name of a device as a person sees it.
    pub(super) fn name_of(&self, device: DeviceId) -> String {
        if device == self.device {
            return self.nick();
        }
        self.people
            .get(&device)
            .map_or_else(|| device.to_string().chars().take(8).collect(), |person| person.name.clone())
    }

    /// By node (only where the node itself brought the card), by device, or by name, also one of before, which nobody else gets. What is an id is never looked for among names.
    pub fn find_person(&self, who: &str) -> Result<DeviceId, Refusal> {
        let who = who.strip_prefix('@').unwrap_or(who);
        if let Ok(node) = who.parse::<NodeId>() {
            // The last of its devices.
            let of_node = self.people.values().filter(|person| person.is_proved && person.card.node == node);
            let at_node = of_node.max_by_key(|person| (person.card.bundle.expires, person.card.bundle.seq));
            return at_node.map(|person| person.card.device).ok_or_else(|| Refusal::NoCard(who.to_owned()));
        }
        let found = match who.parse() {
            Ok(device) => self.people.get(&device),
            Err(_) => {
                let is_former = |person: &&Person| person.former.iter().any(|name| name == who);
                let by_name = self.people.values().find(|person| person.name == who);
                by_name.or_else(|| self.people.values().find(is_former))
            }
        };
        found.map(|person| person.card.device).ok_or_else(|| Refusal::Unknown(who.to_owned()))
    }

    /// Takes a card whose signatures hold. `is_proved`: the node itself stands for it.
    pub(super) fn take_card(&mut self, card: &Card, is_proved: bool, now: Now) -> Result<(), Reject> {
        let device = card.device;
        if device == self.device {
            return Ok(());
        }
        if !self.people.contains_key(&device) && !self.make_room(card, is_proved) {
            return Err(Reject::Full);
        }
        self.secrets.handle_bundle(card.bundle_bytes(), now).map_err(Reject::from)?;
        if let Some(person) = self.people.get_mut(&device) {
            // Of two cards with one bundle that without mailboxes was signed before any were found.
            let is_emptier = card.mailboxes.is_empty() && !person.card.mailboxes.is_empty();
            let (ours, theirs) = (person.card.bundle.seq, card.bundle.seq);
            let is_newer = theirs > ours || (theirs == ours && !is_emptier);
            // A proved place is given up only for another proved one.
            if is_newer && (is_proved || !person.is_proved || person.card.node == card.node) {
                let is_proved_now = is_proved && !person.is_proved;
                let is_news = person.card != *card || is_proved_now;
                let is_renamed = person.card.name != card.name;
                person.card = card.clone();
                person.is_proved |= is_proved;
                if is_renamed {
                    self.take_nick(device);
                } else if is_news {
                    self.save_person(device);
                }
                if is_proved_now {
                    self.note_successor(device, now);
                }
            }
            return Ok(());
        }
        let name = self.free_name(&card.name, device);
        let person = Person {
            card: card.clone(),
            name,
            is_proved,
            is_contact: false,
            is_verified: false,
            is_mixed: false,
            is_blocked: false,
            is_met: false,
            has_key: false,
            former: Vec::new(),
            told: None,
        };
        self.people.insert(device, person);
        self.save_person(device);
        if is_proved {
            self.note_successor(device, now);
        }
        // What it sends under the key of the two is heard from now on.
        let _room = self.begin_direct_with(device, now);
        Ok(())
    }

    /// Gives somebody another name than it has.
    pub(super) fn rename(&mut self, device: DeviceId) {
        let Some(name) = self.people.get(&device).map(|person| self.free_name(&person.name, device)) else { return };
        if let Some(person) = self.people.get_mut(&device) {
            person.name = name;
        }
        self.save_person(device);
    }

    pub(super) fn free_name(&self, wanted: &str, device: DeviceId) -> String {
        let base = base_name(wanted);
        let is_of_another = |other: &Person, name: &str| {
            other.name == name || other.card.device != device && other.former.iter().any(|former| former == name)
        };
        let is_free = |name: &str| name != self.nick() && !self.people.values().any(|other| is_of_another(other, name));
        if is_free(&base) {
            return base;
        }
        let hex = device.to_string();
        let short: String = base.chars().take(12).collect();
        (4..=64)
            .map(|n| format!("{short}-{}", hex.get(..n).unwrap_or_default()))
            .find(|name| is_free(name))
            .unwrap_or(hex)
    }

    /// The direct conversation with a device whose card is known; in the list once something is said in it.
    pub(super) fn begin_direct_with(&mut self, device: DeviceId, now: Now) -> Result<ConversationId, Refusal> {
        let id = direct_id(&self.config.network, self.device, device);
        if self.talks.contains_key(&id) {
            return Ok(id);
        }
        let key = direct_tag_key(&self.signing, device).ok_or_else(|| Refusal::NoCard(device.to_string()))?;
        let mut record = Record::new(id, ConversationKind::Direct, "", key.0);
        record.peer = Some(device);
        self.add_talk(record, now)?;
        Ok(id)
    }

    /// The direct conversation of this id, with whomever it is.
    pub(super) fn begin_direct(&mut self, id: ConversationId, now: Now) -> Result<(), Refusal> {
        let (network, own) = (self.config.network, self.device);
        let peer = self.people.keys().copied().find(|peer| direct_id(&network, own, *peer) == id);
        let peer = peer.ok_or_else(|| super::rooms::unknown(id))?;
        self.begin_direct_with(peer, now).map(drop)
    }

    /// Whoever is written to is a contact.
    pub(super) fn become_contact(&mut self, device: DeviceId) {
        if let Some(person) = self.people.get_mut(&device).filter(|person| !person.is_contact) {
            person.is_contact = true;
            self.save_person(device);
        }
    }

    /// Signs a card anew if what it says has changed.
    pub(super) fn renew_card(&mut self, now: Now) {
        let bundle = self.secrets.bundle();
        let is_same = self.card.bundle_bytes() == bundle && self.card.mailboxes == self.mailboxes;
        if is_same && self.card.name == clean_name(&self.config.name) {
            return;
        }
        let Self { config, mailboxes, .. } = self;
        let claims =
            Claims { bundle: &bundle, node: config.node, name: &config.name, seal_key: config.seal_key, mailboxes };
        if let Ok(card) = Card::sign(&config.network, &self.signing, &claims, now.unix) {
            self.card = card;
        }
    }

    /// Sends the own card to a device that does not have it as it is. The bundle goes with frames anyway.
    pub(super) fn introduce(&mut self, to: DeviceId, now: Now) {
        self.renew_card(now);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.card.node.0).update(&self.card.seal_key).update(self.card.name.as_bytes());
        for (relay, slot) in &self.card.mailboxes {
            hasher.update(&relay.0).update(slot);
        }
        let hash = *hasher.finalize().as_bytes();
        let under_way = self.secrets.pending(&to).len();
        let Some(person) = self.people.get_mut(&to).filter(|person| person.told != Some(hash)) else { return };
        // Whoever does not answer is not sent each of many cards: the last one goes later.
        if person.told.is_some() && under_way >= MAX_UNANSWERED {
            return;
        }
        person.told = Some(hash);
        let body = [&[FRAME_CARD], &self.card.to_bytes()[..]].concat();
        self.queue_frame(to, secrets::Kind::Data, &body, Via::Auto, now.unix.plus(LIFETIME), now);
    }

    /// Whether cards are exchanged with a node: in the local network, with contacts, and where a conversation is shared; never with somebody
    /// who is blocked. Nobody else learns which device is at this node.
    fn may_introduce(&self, node: NodeId) -> bool {
        let of_node = || self.people.values().filter(|person| person.card.node == node);
        // Who only says that it is at a node is not blocked with it, where another one is known to be.
        let is_proved = of_node().any(|person| person.is_proved);
        if of_node().any(|person| (person.is_proved || !is_proved) && self.is_shut_out(person)) {
            return false;
        }
        let is_near = self.links.get(&node).is_some_and(|link| link.is_lan || !link.shares.is_empty());
        is_near || self.people.values().any(|person| person.is_contact && person.card.node == node && !person.is_mixed)
    }

    /// Nodes of people who are written to through the mixnet alone: no card and no file of this device goes over a link with them.
    pub fn hidden_nodes(&self) -> BTreeSet<NodeId> {
        self.people.values().filter(|person| person.is_mixed).map(|person| person.card.node).collect()
    }

    /// Whether files can be exchanged in a conversation: they go over links alone.
    pub fn check_files(&self, of: ConversationId) -> Result<(), Refusal> {
        let peer = self.talks.get(&of).and_then(|talk| talk.record.peer);
        let is_mixed = peer.is_some_and(|peer| self.terms(peer).0 == Policy::Mix);
        if is_mixed { Err(Refusal::NoFiles) } else { Ok(()) }
    }

    /// Whether a person at the node is written to through the mixnet alone: then nothing of this device goes over the link.
    pub(super) fn is_hidden_from(&self, node: NodeId) -> bool {
        self.people.values().any(|person| person.is_mixed && person.card.node == node)
    }

    pub(super) fn ask_card(&mut self, node: NodeId) {
        if !self.may_introduce(node) || self.is_hidden_from(node) {
            return;
        }
        let Some(link) = self.links.get_mut(&node).filter(|link| !link.is_card_asked) else { return };
        link.is_card_asked = true;
        let card = self.card.to_bytes();
        self.ask_held(node, &Request::Card(card), Asked::Card);
    }

    pub(super) fn answer_card(&mut self, from: NodeId, card: &[u8], now: Now) -> Result<Vec<u8>, Reject> {
        self.limits.hellos.take(from, now.mono)?;
        self.take_card_of(from, card, now)?;
        let may = self.may_introduce(from) && !self.is_hidden_from(from);
        if may { Ok(self.card.to_bytes()) } else { Err(Reject::Unknown) }
    }

    /// A card that came over a node's own link.
    pub(super) fn take_card_of(&mut self, from: NodeId, card: &[u8], now: Now) -> Result<(), Reject> {
        let card = Card::from_bytes(&self.config.network, card, now.unix)?;
        if card.node != from {
            return Err(Reject::Malformed);
        }
        self.take_card(&card, true, now)?;
        self.handle_reachable(from, now);
        // Groups can be reconciled with it now.
        let device = card.device;
        let is_mate = |talk: &super::talk::Talk| {
            talk.club.as_ref().is_some_and(|club| club.group.members().contains_key(&device))
        };
        if self.links.contains_key(&from) && self.talks.values().any(is_mate) {
            self.meet(from, now);
        }
        Ok(())
    }

    /// An own message is given up.
    pub(super) fn fail(&mut self, peer: DeviceId, message: super::MessageId, reason: Reason) {
        let id = direct_id(&self.config.network, self.device, peer);
        self.advance(id, message, State::Failed, None, Some(reason));
        if reason != Reason::Blocked {
            self.given_up.insert((peer, message));
        }
    }

    /// The peer has read up to this number.
    pub(super) fn take_read(&mut self, from: DeviceId, seq: u32) {
        let id = direct_id(&self.config.network, self.device, from);
        let own = self.device;
        let Some(talk) = self.talks.get_mut(&id) else { return };
        let before = talk.record.peer_read;
        let seq = seq.min(talk.dag.latest_seq(&own));
        if seq <= before {
            return;
        }
        talk.record.peer_read = seq;
        let read: Vec<_> = (before + 1..=seq).filter_map(|seq| talk.dag.at(&own, seq)).collect();
        self.save_record(id, false);
        for message in read {
            self.tell(Event::State(message));
        }
    }
}
