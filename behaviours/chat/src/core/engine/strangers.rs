//! Room for people: whoever calls itself a device is known here until others come and nothing was ever said. So no flood of cards keeps a person
//! from conversations of their own.

use std::collections::{BTreeSet, VecDeque};

use super::{Chat, ConversationKind, Talk, card::Card, open::PEOPLE, pack::direct_id, people::MAX_PEOPLE};
use crate::core::{
    id::{ConversationId, DeviceId},
    secrets::vault::RowKind,
};

/// Strangers whose cards one node stands for.
pub(super) const MAX_OF_NODE: usize = 16;
/// Groups that people who are no contacts invite to.
pub(super) const MAX_OFFERS: usize = 64;

impl Chat {
    /// Whether there is room for the device of this card, which is new here; strangers may have to go for it.
    pub(super) fn make_room(&mut self, card: &Card, is_proved: bool) -> bool {
        let members = self.group_members();
        if is_proved {
            let of_node: Vec<_> = self.people.values().filter(|it| it.is_proved && it.card.node == card.node).collect();
            let strangers = of_node.iter().filter(|person| !person.is_known()).count();
            if strangers >= MAX_OF_NODE {
                let first = of_node.iter().map(|person| person.card.device).find(|it| self.is_idle(*it, &members));
                let Some(first) = first else { return false };
                self.forget(first);
            }
        }
        if self.people.len() < MAX_PEOPLE && self.secrets.has_room() {
            return true;
        }
        let is_gone = |device: &DeviceId| {
            let node = self.people.get(device).map(|person| person.card.node);
            node.is_some_and(|node| !self.links.contains_key(&node)) && self.is_idle(*device, &members)
        };
        let first = self.people.keys().copied().find(is_gone);
        first.inspect(|first| self.forget(*first)).is_some()
    }

    /// Whether strangers may offer one more group; what was no invitation after all goes for it.
    pub(super) fn make_room_for_offer(&mut self) -> bool {
        let offers = || self.talks.iter().filter(|(_, talk)| talk.record.is_offer && !talk.record.is_left);
        if offers().count() < MAX_OFFERS {
            return true;
        }
        let invites_me =
            |talk: &Talk| talk.club.as_ref().is_some_and(|club| club.group.invited().contains(&self.device));
        let empty = offers().find(|(_, talk)| talk.dag.is_empty() && !invites_me(talk)).map(|(id, _)| *id);
        empty.inspect(|id| self.drop_talk(id)).is_some()
    }

    fn drop_talk(&mut self, id: &ConversationId) {
        if let Some(talk) = self.talks.remove(id) {
            self.book.remove(id);
            self.delete(RowKind::Conversation, &talk.record.vault_name(), b"");
        }
    }

    fn group_members(&self) -> BTreeSet<DeviceId> {
        let groups = self.talks.values().filter(|talk| talk.kind == ConversationKind::Group);
        let clubs = groups.filter_map(|talk| talk.club.as_ref()).map(|club| &club.group);
        clubs.flat_map(|group| group.members().keys().chain(group.invited()).copied()).collect()
    }

    /// Members of the groups of which this device is one.
    pub(super) fn fellow_members(&self) -> BTreeSet<DeviceId> {
        let groups = self.talks.values().filter(|talk| talk.is_listed() && !talk.record.is_offer);
        let members = groups.filter_map(|talk| talk.club.as_ref()).map(|club| club.group.members());
        members
            .filter(|members| members.contains_key(&self.device))
            .flat_map(|members| members.keys().copied())
            .collect()
    }

    /// Whether nothing was chosen for this device and nothing came of it or goes to it.
    fn is_idle(&self, device: DeviceId, members: &BTreeSet<DeviceId>) -> bool {
        let talk = self.talks.get(&direct_id(&self.config.network, self.device, device));
        let is_silent = talk.is_none_or(|talk| talk.dag.is_empty() && talk.deliveries.is_empty());
        let is_chosen = self.people.get(&device).is_none_or(|person| person.is_known() || person.is_met);
        is_silent
            && !is_chosen
            && !members.contains(&device)
            && self.secrets.is_idle(&device)
            && self.waiting.get(&device).is_none_or(VecDeque::is_empty)
            && !self.short.contains_key(&device)
    }

    fn forget(&mut self, device: DeviceId) {
        self.drop_talk(&direct_id(&self.config.network, self.device, device));
        self.people.remove(&device);
        self.delete(RowKind::Person, PEOPLE, &device.0);
        self.secrets.forget(&device);
    }
}
