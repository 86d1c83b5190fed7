//! How this device's person is called, and what people are called here who call themselves otherwise than before.

use fog_base::{NodeId, Now};

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
/// How often somebody is called otherwise here; then it keeps the name that it has.
const MAX_FORMER: usize = 4;

/// What a node is called whose person has not said anything: nothing of its person.
pub fn default_name(node: NodeId) -> String {
    let id = node.to_string();
    format!("fog-{}", id.get(id.len().saturating_sub(6)..).unwrap_or_default())
}

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
        if name == self.config.name {
            return Ok(());
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

    /// A new card of somebody says another name. A stranger is called so, as far as the name is free, a few times, and a contact whose name said
    /// nothing of its person; nobody else is called what they were called before. Who else is known, or has written to this device alone, keeps
    /// the name that it has here: its person trusts in it, and may be about to answer.
    pub(super) fn take_nick(&mut self, device: DeviceId) {
        let direct = direct_id(&self.config.network, self.device, device);
        let has_written = self.talks.get(&direct).is_some_and(|talk| !talk.dag.is_empty());
        let Some(person) = self.people.get_mut(&device) else { return };
        let was = person.name.clone();
        let is_kept = (person.is_known() || has_written) && was != default_name(person.card.node);
        if !is_kept && person.former.len() < MAX_FORMER {
            // Its own name is no reason against it.
            person.name.clear();
            let wanted = person.card.name.clone();
            let name = self.free_name(&wanted, device);
            if let Some(person) = self.people.get_mut(&device) {
                if was != name {
                    person.former.push(was.clone());
                }
                person.name = name;
            }
        }
        if self.people.get(&device).is_some_and(|person| person.is_contact && !person.is_blocked) {
            self.tell(Event::Renamed { device, was });
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
