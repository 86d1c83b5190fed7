//! Members of a group who are away: what this device writes there goes to their mailboxes as well, so that they find it though no other member is
//! there when they return. Rooms have no list of members: what is said in them comes by gossip and reconciliation alone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use fog_base::{MessageId as FrameId, NodeId, Now};

use super::{
    Chat, ConversationId, ConversationKind, Timer,
    direct::FRAME_OF_GROUP,
    groups::{was_member, was_told_of},
    talk::{Delivery, Talk},
    window::{Cargo, Hold, parts},
};
use crate::core::{
    delivery::{State, Transport, Via},
    id::{DeviceId, MessageId},
    message::{Kind, Message},
    secrets::Kind as FrameKind,
};

/// How often it is looked who is away. What was written since the last time is with gossip yet.
pub(super) const EACH: Duration = Duration::from_secs(30);
/// The longest between two frames for one member; the more are under way, the longer.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Messages for one member at a time, of so many that are looked at, and members of a group who are served at a time.
const MAX_MESSAGES: usize = 64;
const MAX_LOOKED_AT: usize = 512;
const MAX_MEMBERS: usize = 16;
/// With so many frames under way to a member it gets no more of this.
const MAX_FRAMES: usize = 16;
/// Messages of senders who are no members yet as far as is known here, and of one of them.
const MAX_EARLY: (usize, usize) = (256, 64);

/// What is kept about members who are away.
#[derive(Debug, Default)]
pub(super) struct Absent {
    /// When somebody gets the next frames.
    next: BTreeMap<DeviceId, Instant>,
    /// Messages that came before the sender's membership.
    early: VecDeque<(ConversationId, DeviceId, Vec<u8>)>,
}

fn pace(under_way: usize) -> Duration {
    (0..under_way).fold(EACH, |wait, _| (wait * 3 / 2).min(LONGEST))
}

impl Chat {
    /// Brings to members who are not connected what they have not shown to have.
    pub(super) fn serve_absent(&mut self, now: Now) {
        self.at(now.mono + EACH, Timer::Absent);
        self.absent.next.retain(|_, at| *at > now.mono);
        let is_group = |talk: &&Talk| talk.kind == ConversationKind::Group && talk.is_listed();
        let mut groups: Vec<_> = self.talks.values().filter(is_group).map(|talk| talk.record.id).collect();
        // Not the same one first each time.
        let first = (self.number() as usize).checked_rem(groups.len()).unwrap_or(0);
        groups.rotate_left(first);
        for id in groups {
            let mut lacking = self.lacking(id);
            // Who lacks most, first.
            lacking.sort_by_key(|(_, first)| *first);
            for (member, first) in lacking.into_iter().take(MAX_MEMBERS) {
                self.bring(id, member, first, now);
            }
            let latest = self.talks.get(&id).map_or(0, |talk| talk.dag.latest_seq(&self.device));
            if let Some(club) = self.talks.get_mut(&id).and_then(|talk| talk.club.as_mut()) {
                club.aged = latest;
                let members = club.group.members();
                club.brought.retain(|member, _| members.contains_key(member));
            }
        }
    }

    /// Members who are away, and the first number of this device's messages that each may lack.
    fn lacking(&self, id: ConversationId) -> Vec<(DeviceId, u32)> {
        let Some(talk) = self.talks.get(&id) else { return Vec::new() };
        let Some(club) = talk.club.as_ref().filter(|club| club.group.members().contains_key(&self.device)) else {
            return Vec::new();
        };
        let lacks = |member: &DeviceId| {
            let last = talk.dag.at(member, talk.dag.latest_seq(member));
            let seen = last.map_or(0, |last| talk.dag.seen_seq(&last, &self.device));
            let known = club.brought.get(member).copied().unwrap_or(0).max(seen);
            (known < club.aged).then_some((*member, known + 1, club.aged - known))
        };
        let others = club.group.members().keys().filter(|member| **member != self.device);
        let lacking = others.filter_map(lacks).filter(|(member, _, count)| self.may_bring(*member, *count as usize));
        lacking.map(|(member, first, _)| (member, first)).collect()
    }

    /// Whether a member is away, there is a way to its mailboxes, and most of its window is left to others' messages: it may never come back.
    fn may_bring(&self, member: DeviceId, count: usize) -> bool {
        let is_linked = self.node_of(member).is_some_and(|node| self.links.contains_key(&node));
        let is_due = count >= MAX_MESSAGES || !self.absent.next.contains_key(&member);
        let is_free = self.waiting.get(&member).is_none_or(VecDeque::is_empty);
        let is_known = self.secrets.knows(&member) && self.secrets.pending(&member).len() < MAX_FRAMES;
        !is_linked && is_due && is_free && is_known && !self.plan_for(member, Via::Auto).is_empty()
    }

    fn bring(&mut self, id: ConversationId, member: DeviceId, first: u32, now: Now) {
        let Some(talk) = self.talks.get(&id) else { return };
        let Some(club) = talk.club.as_ref() else { return };
        let mut hold = Hold::new(MAX_FRAMES.saturating_sub(self.secrets.pending(&member).len()));
        let (mut frames, mut last) = (Vec::new(), first.saturating_sub(1));
        for seq in (first..=club.aged).take(MAX_LOOKED_AT) {
            let message = talk.dag.at(&self.device, seq).filter(|message| self.may_have(talk, message, member));
            match message.map(|message| (self.load_stored(talk, &message), message)) {
                Some((Some(bytes), _)) if frames.len() < MAX_MESSAGES && hold.takes(1 + bytes.len()) => {
                    frames.push(([&[FRAME_OF_GROUP], &bytes[..]].concat(), Cargo::OfGroup(id, seq), Via::Auto));
                }
                Some((Some(_), _)) => break,
                // Not on the disk yet.
                Some((None, message)) if self.load(talk, &message).is_some() => break,
                Some((None, _)) | None => {}
            }
            last = seq;
        }
        if let Some(club) = self.talks.get_mut(&id).and_then(|talk| talk.club.as_mut()) {
            club.brought.insert(member, last);
        }
        if frames.is_empty() {
            return;
        }
        self.absent.next.insert(member, now.mono + pace(self.secrets.pending(&member).len()));
        self.introduce(member, now);
        self.queue_cargo(member, frames, now);
    }

    /// Whether an own message is for a device: its membership, and nobody else's at its node, was known when it was written.
    fn may_have(&self, talk: &Talk, message: &MessageId, member: DeviceId) -> bool {
        let Some(club) = talk.club.as_ref().filter(|_| talk.dag.is_complete(message)) else { return false };
        let was_known = club.joined.get(&member).is_some_and(|at| talk.dag.seq_of(message) > *at);
        let follows = |op: &MessageId| talk.dag.precedes(op, message) == Some(true);
        was_known
            || talk.dag.is_of_kind(message, Kind::MEMBERSHIP)
            || was_member(talk, club, member, follows)
            || was_told_of(club, member, self.device, follows)
    }

    /// Whether somebody became a member after an own message was written, since this process began.
    pub(super) fn is_before_a_join(&self, id: ConversationId, message: &MessageId) -> bool {
        let Some(talk) = self.talks.get(&id) else { return false };
        let Some(club) = talk.club.as_ref().filter(|_| !talk.dag.is_of_kind(message, Kind::MEMBERSHIP)) else {
            return false;
        };
        let seq = talk.dag.seq_of(message);
        club.joined.iter().any(|(member, at)| seq <= *at && *member != self.device)
    }

    /// Who is a member is known from an operation on: notes what was written before.
    pub(super) fn note_joined(&mut self, id: ConversationId, before: &BTreeSet<DeviceId>) {
        let Some(talk) = self.talks.get_mut(&id) else { return };
        let seq = talk.dag.latest_seq(&self.device);
        let Some(club) = talk.club.as_mut() else { return };
        let members = club.group.members();
        club.joined.retain(|member, _| members.contains_key(member));
        for member in members.keys().filter(|member| !before.contains(member)) {
            club.joined.insert(*member, seq);
        }
    }

    /// The node of members has all that is here.
    pub(super) fn note_in_sync(&mut self, id: ConversationId, node: NodeId) {
        let Some(talk) = self.talks.get(&id) else { return };
        let Some(club) = talk.club.as_ref() else { return };
        let seq = talk.dag.latest_seq(&self.device);
        let there: Vec<_> =
            club.group.members().keys().filter(|it| self.node_of(**it) == Some(node)).copied().collect();
        for member in there {
            self.note_brought(id, member, seq);
        }
    }

    /// A member has this device's messages up to a number, or a frame that will bring them is on disk.
    pub(super) fn note_brought(&mut self, id: ConversationId, member: DeviceId, seq: u32) {
        let Some(talk) = self.talks.get_mut(&id) else { return };
        let Some(club) = talk.club.as_mut() else { return };
        club.brought.entry(member).and_modify(|known| *known = seq.max(*known)).or_insert(seq);
        let members = club.group.members();
        let stored = talk.record.brought.get(&member.to_string()).copied().unwrap_or(0);
        if seq > stored {
            talk.record.brought.retain(|device, _| device.parse().is_ok_and(|device| members.contains_key(&device)));
            talk.record.brought.insert(member.to_string(), seq);
            self.save_record(id, false);
        }
    }

    /// What a frame that was sealed before this process began brings of groups.
    pub(super) fn group_cargo(&self, to: DeviceId, id: FrameId) -> Vec<Cargo> {
        let Some((kind, body)) = self.secrets.body(&to, id) else { return Vec::new() };
        let of_group = |(kind, part): (FrameKind, &[u8])| {
            let bytes = part.strip_prefix(&[FRAME_OF_GROUP]).filter(|_| kind == FrameKind::Data)?;
            let message = Message::parse(bytes, &self.config.network).ok()?;
            let header = message.header();
            (header.author == self.device).then_some(Cargo::OfGroup(header.conversation, header.seq))
        };
        parts(kind, body).unwrap_or_default().into_iter().filter_map(of_group).collect()
    }

    /// A mailbox, a carrier or the device of a member has these.
    pub(super) fn note_of_group(&mut self, cargo: &[Cargo], state: State, via: Option<Transport>) {
        for cargo in cargo {
            let Cargo::OfGroup(id, seq) = *cargo else { continue };
            let Some(talk) = self.talks.get_mut(&id).filter(|talk| seq > talk.delivered_to) else { continue };
            let Some(message) = talk.dag.at(&self.device, seq) else { continue };
            talk.deliveries.entry(message).or_insert_with(Delivery::of_members);
            self.advance(id, message, state, via, None);
        }
    }

    /// Frames that would have brought these were given up.
    pub(super) fn note_not_brought(&mut self, member: DeviceId, cargo: &[Cargo]) {
        for cargo in cargo {
            let Cargo::OfGroup(id, seq) = *cargo else { continue };
            let Some(talk) = self.talks.get_mut(&id) else { continue };
            let before = seq.saturating_sub(1);
            let known = talk.club.as_mut().and_then(|club| club.brought.get_mut(&member));
            known.into_iter().for_each(|known| *known = before.min(*known));
            if let Some(stored) = talk.record.brought.get_mut(&member.to_string()).filter(|stored| **stored > before) {
                *stored = before;
                self.save_record(id, false);
            }
        }
    }

    /// Keeps a message of somebody who is no member yet, as far as is known here: what tells of the membership may come next.
    pub(super) fn keep_early(&mut self, id: ConversationId, from: DeviceId, bytes: &[u8]) {
        let is_in = self.talks.get(&id).is_some_and(|talk| talk.is_listed() && !talk.record.is_offer);
        let early = &mut self.absent.early;
        let of_sender = early.iter().filter(|(_, sender, _)| *sender == from).count();
        let is_known = early.iter().any(|(of, sender, kept)| (of, sender) == (&id, &from) && kept == bytes);
        if !is_in || is_known {
            return;
        }
        // The oldest gives way: of the same sender, if it has much.
        if of_sender >= MAX_EARLY.1 {
            let first = early.iter().position(|(_, sender, _)| *sender == from);
            first.and_then(|first| early.remove(first));
        } else if early.len() >= MAX_EARLY.0 {
            early.pop_front();
        }
        early.push_back((id, from, bytes.to_vec()));
    }

    /// Members of a group are others than before: what came too early is looked at again.
    pub(super) fn take_early(&mut self, id: ConversationId, now: Now) {
        let early = std::mem::take(&mut self.absent.early);
        for (of, from, bytes) in early {
            let is_member = of == id && self.is_heard(of, from);
            if !is_member {
                self.absent.early.push_back((of, from, bytes));
            } else if let Err(reject) = self.take_of_group(from, &bytes, now) {
                self.count(reject);
            }
        }
    }

    /// Whether a device is a member of a group that is heard.
    pub(super) fn is_heard(&self, id: ConversationId, device: DeviceId) -> bool {
        let club = self.talks.get(&id).filter(|talk| talk.is_listed()).and_then(|talk| talk.club.as_ref());
        club.is_some_and(|club| club.group.members().contains_key(&device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_frames_last_for_hours() {
        let all: Duration = (0..MAX_FRAMES).map(pace).sum();
        assert_eq!((pace(0), pace(MAX_FRAMES)), (EACH, LONGEST));
        assert!(all > Duration::from_secs(5 * 3_600), "{all:?}");
    }
}
