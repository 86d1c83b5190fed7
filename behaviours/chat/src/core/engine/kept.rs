//! What a backup keeps of a device: how its person is called, whom it knows, and the rooms that it is in. No ratchets and no histories, and no groups: a restored
//! device is a new one, which nobody has invited.

use fog_base::Now;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::{Chat, ConversationKind, OpenError, Rows, open::take_keys, people::Person, talk::Record, text::is_name};
use crate::core::{
    delivery::Policy,
    secrets::{
        SecretKey,
        vault::{RowKind, Vault},
    },
};

/// What a backup keeps of the device of these rows, which may be running: values for [`Chat::adopt`], each the kind of a row (1) and what was sealed
/// in it. They are secret: keys of rooms with a password are among them. Rows that do not open are left out.
pub fn kept(master: Zeroizing<[u8; 32]>, rows: &dyn Rows) -> Result<Vec<Zeroizing<Vec<u8>>>, OpenError> {
    // It seals nothing, so it draws no nonce.
    let mut vault = Vault::new(SecretKey::new(*master), ChaCha20Rng::from_seed([0; 32]));
    take_keys(&mut vault, |visit| rows.scan(&[RowKind::ConversationKey as u8], visit))?;
    let mut kept = Vec::new();
    for kind in [RowKind::Conversation, RowKind::Person, RowKind::Name] {
        rows.scan(&[kind as u8], &mut |key, value| {
            if let Ok(Some(row)) = vault.open_row(key, value)
                && is_kept(kind, &row.value)
            {
                let mut text = Zeroizing::new(Vec::with_capacity(1 + row.value.len()));
                text.push(kind as u8);
                text.extend_from_slice(&row.value);
                kept.push(text);
            }
            true
        });
    }
    Ok(kept)
}

fn is_kept(kind: RowKind, text: &[u8]) -> bool {
    match kind {
        RowKind::Person => Person::is_chosen(text),
        RowKind::Name => true,
        _ => room(text).is_some(),
    }
}

/// The record of a room that was not left, as at its beginning.
fn room(text: &[u8]) -> Option<Record> {
    let record: Record = serde_json::from_slice(text).ok()?;
    let is_room = matches!(record.kind(), ConversationKind::Open | ConversationKind::Password);
    let mut new = Record::new(record.id, record.kind(), &record.name, record.tag_key);
    new.room_key = record.room_key;
    (is_room && !record.is_left && is_name(&record.name)).then_some(new)
}

impl Chat {
    /// Takes what [`kept`] gave of an earlier device of this person, unless it is known here; whether it could be read and there was room.
    pub fn adopt(&mut self, kept: &[u8], now: Now) -> bool {
        let [person, conversation, name] =
            [RowKind::Person, RowKind::Conversation, RowKind::Name].map(|kind| kind as u8);
        match kept.split_first() {
            Some((kind, text)) if *kind == person => self.adopt_person(text, now),
            Some((kind, text)) if *kind == conversation => self.adopt_room(text, now),
            Some((kind, text)) if *kind == name => {
                std::str::from_utf8(text).is_ok_and(|name| self.set_nick(name, now).is_ok())
            }
            _ => false,
        }
    }

    fn adopt_person(&mut self, text: &[u8], now: Now) -> bool {
        let Some(mut person) = Person::restore(&self.config.network, text) else { return false };
        let device = person.card.device;
        if device == self.device || self.people.contains_key(&device) {
            return true;
        }
        if !self.make_room(&person.card, false) {
            return false;
        }
        // It has not heard of this device.
        (person.is_met, person.has_key) = (false, false);
        // Its name was its own before strangers came.
        let holder = self.people.values().find(|other| other.name == person.name).map(|other| other.card.device);
        // Keys that are over are replaced when its node is met; until then nothing can be sealed for it.
        let is_over = self.secrets.handle_bundle(person.card.bundle_bytes(), now).is_err();
        if person.is_blocked {
            self.secrets.block_list().block(device);
        }
        let is_sought = is_over && !person.is_blocked && person.policy() == Policy::Auto;
        self.people.insert(device, person);
        if let Some(holder) = holder {
            self.rename(holder);
        }
        self.save_person(device);
        if is_sought {
            self.dial(device);
        }
        let is_taken = self.begin_direct_with(device, now).is_ok();
        self.settle(now);
        is_taken
    }

    fn adopt_room(&mut self, text: &[u8], now: Now) -> bool {
        let Some(record) = room(text) else { return false };
        self.talks.contains_key(&record.id) || self.add_talk(record, now).is_ok()
    }
}
