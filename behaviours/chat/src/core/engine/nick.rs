//! How this device's person is called, and what people are called here who call themselves otherwise than before.

use fog_base::Now;

use super::{
    Chat, Config, Event, Refusal,
    open::PEOPLE,
    pack::direct_id,
    people::base_name,
    text::{clean_name, is_name},
};
use crate::core::{
    id::DeviceId,
    secrets::vault::{Opened, RowKind},
};

const ITEM: &[u8] = b"nick";
/// Names that a stranger has given up here: with so many it keeps the one that it has.
const MAX_FORMER: usize = 4;

/// What was chosen while the device ran counts more than what its node's configuration says.
pub(super) fn named(config: Config, rows: &[Opened]) -> Config {
    let row = rows.iter().find(|row| row.kind == RowKind::Name);
    let chosen = row.and_then(|row| std::str::from_utf8(&row.value).ok()).filter(|name| is_name(name));
    Config { name: chosen.map_or(config.name, str::to_owned), ..config }
}

impl Chat {
    /// How this device's person is called.
    pub fn nick(&self) -> String {
        clean_name(&self.config.name)
    }

    /// Chooses how this device's person is called from now on, after a restart too. Contacts, members of groups and connected peers are told.
    pub fn set_nick(&mut self, name: &str, now: Now) -> Result<(), Refusal> {
        self.check_store()?;
        if !is_name(name) {
            return Err(Refusal::BadName);
        }
        name.clone_into(&mut self.config.name);
        self.put(RowKind::Name, PEOPLE, ITEM, name.as_bytes(), true);
        // It counts as newer than the cards before, in whichever order they come.
        self.secrets.renew_bundle();
        self.renew_card(now);
        self.tell_contacts(now);
        let nodes: Vec<_> = self.links.keys().copied().collect();
        for node in nodes {
            self.links.get_mut(&node).into_iter().for_each(|link| link.is_card_asked = false);
            self.ask_card(node);
        }
        self.settle(now);
        Ok(())
    }

    /// A new card of somebody says another name: a stranger is called so, as far as the name is free, a few times; and nobody else is called what it
    /// was called before. Who is known, or has written to this
    /// device alone, keeps the name that it has here, because its person trusts in it and may be about to answer.
    pub(super) fn take_nick(&mut self, device: DeviceId) {
        let direct = direct_id(&self.config.network, self.device, device);
        let has_written = self.talks.get(&direct).is_some_and(|talk| !talk.dag.is_empty());
        let Some(person) = self.people.get_mut(&device) else { return };
        if person.is_known() || has_written {
            if person.is_contact && !person.is_blocked {
                self.tell(Event::Renamed(device));
            }
        } else if person.former.len() < MAX_FORMER {
            // Its own name is no reason against it.
            let before = std::mem::take(&mut person.name);
            let wanted = person.card.name.clone();
            let name = self.free_name(&wanted, device);
            if let Some(person) = self.people.get_mut(&device) {
                if before != name && !person.former.contains(&before) {
                    person.former.push(before);
                }
                person.name = name;
            }
        }
        self.save_person(device);
    }

    /// What somebody calls itself; `None` if that is what it is called here.
    pub fn calls_itself(&self, device: DeviceId) -> Option<String> {
        let person = self.people.get(&device)?;
        let own = base_name(&person.card.name);
        (own != person.name).then_some(own)
    }
}
