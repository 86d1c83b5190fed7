//! Members of a group who are away: what this device writes there goes to their mailboxes as well, so that they find it though no other member is
//! there when they return. Rooms have no list of members: what is said in them comes by gossip and reconciliation alone.

use std::{collections::VecDeque, time::Duration};

use fog_base::Now;

use super::{
    Chat, ConversationId, ConversationKind, Message, Timer, direct::FRAME_OF_GROUP, talk::Talk, window::Cargo,
};
use crate::core::{delivery::Via, id::DeviceId};

/// How often it is looked who is away. What was written since the last time is with gossip yet.
pub(super) const EACH: Duration = Duration::from_secs(30);
/// Messages for one member at a time, of so many that are looked at, and members of a group who are served at a time.
const MAX_MESSAGES: usize = 64;
const MAX_LOOKED_AT: usize = 512;
const MAX_MEMBERS: usize = 16;
/// With so many frames under way to a member it gets no more of this.
const MAX_FRAMES: usize = 16;

impl Chat {
    /// Brings to members who are not connected what they have not shown to have.
    pub(super) fn serve_absent(&mut self, now: Now) {
        self.at(now.mono + EACH, Timer::Absent);
        let is_group = |talk: &&Talk| talk.kind == ConversationKind::Group && talk.is_listed();
        let groups: Vec<_> = self.talks.values().filter(is_group).map(|talk| talk.record.id).collect();
        for id in groups {
            let absent: Vec<_> = self.lacking(id).into_iter().take(MAX_MEMBERS).collect();
            for (member, first) in absent {
                self.bring(id, member, first, now);
            }
            let latest = self.talks.get(&id).map_or(0, |talk| talk.dag.latest_seq(&self.device));
            if let Some(club) = self.talks.get_mut(&id).and_then(|talk| talk.club.as_mut()) {
                club.aged = latest;
            }
        }
    }

    /// Members who are away, and the first number of this device's messages that each may lack.
    fn lacking(&mut self, id: ConversationId) -> Vec<(DeviceId, u32)> {
        let Some(talk) = self.talks.get(&id) else { return Vec::new() };
        let Some(club) = talk.club.as_ref().filter(|club| club.group.members().contains_key(&self.device)) else {
            return Vec::new();
        };
        let (mut lacking, mut has) = (Vec::new(), Vec::new());
        for member in club.group.members().keys().copied().filter(|member| *member != self.device) {
            let last = talk.dag.at(&member, talk.dag.latest_seq(&member));
            let seen = last.map_or(0, |last| talk.dag.seen_seq(&last, &self.device));
            let brought = club.brought.get(&member).copied();
            let is_linked = self.node_of(member).is_some_and(|node| self.links.contains_key(&node));
            let known = brought.unwrap_or(0).max(seen);
            if is_linked {
                // It is there by reconciliation.
                has.push((member, club.aged));
            } else if known < club.aged && self.may_bring(member) {
                lacking.push((member, known + 1));
            }
        }
        for (member, seq) in has {
            self.note_brought(id, member, seq);
        }
        lacking
    }

    /// A member has this device's messages up to a number, or a frame that will bring them is on disk.
    pub(super) fn note_brought(&mut self, id: ConversationId, member: DeviceId, seq: u32) {
        let Some(talk) = self.talks.get_mut(&id) else { return };
        let Some(club) = talk.club.as_mut() else { return };
        club.brought.entry(member).and_modify(|known| *known = seq.max(*known)).or_insert(seq);
        let stored = talk.record.brought.entry(member.to_string()).or_default();
        if seq > *stored {
            *stored = seq;
            self.save_record(id, false);
        }
    }

    /// Whether there is a way to a member, and most of its window is left to others' messages: it may never come back.
    fn may_bring(&self, member: DeviceId) -> bool {
        let is_free = self.waiting.get(&member).is_none_or(VecDeque::is_empty);
        let under_way = self.secrets.pending(&member).len();
        is_free && under_way < MAX_FRAMES && self.secrets.knows(&member) && !self.plan_for(member, Via::Auto).is_empty()
    }

    fn bring(&mut self, id: ConversationId, member: DeviceId, first: u32, now: Now) {
        let Some(talk) = self.talks.get(&id) else { return };
        let Some((node, club)) = self.node_of(member).zip(talk.club.as_ref()) else { return };
        let (mut frames, mut last) = (Vec::new(), 0);
        for seq in (first..=club.aged).take(MAX_LOOKED_AT) {
            last = seq;
            let bytes = talk.dag.at(&self.device, seq).and_then(|message| self.load_for(talk, &message, node));
            // What was written before the member joined comes by reconciliation, without its body.
            let is_whole = |bytes: &&[u8]| Message::parse(bytes, &self.config.network).is_ok_and(|it| !it.is_bare());
            if let Some(bytes) = bytes.as_deref().filter(is_whole) {
                frames.push(([&[FRAME_OF_GROUP], bytes].concat(), Cargo::OfGroup(id, seq), Via::Auto));
            }
            if frames.len() == MAX_MESSAGES {
                break;
            }
        }
        if let Some(club) = self.talks.get_mut(&id).and_then(|talk| talk.club.as_mut()) {
            club.brought.insert(member, last);
        }
        self.introduce(member, now);
        self.queue_cargo(member, frames, now);
    }
}
