//! A device as its rows say it was.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use fog_base::NetworkId;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use vodozemac::olm::Account;

use super::{
    bundle::DeviceId,
    device::{Device, SavedAccount, conversation},
    key::SecretKey,
    peer::{Known, Peer, Pending},
    seen::Entry,
    sessions::Slot,
    vault::{Opened, ROW_KEY, RowKind, Vault, VaultError},
};

/// Rows of one conversation, until its peer is known.
#[derive(Default)]
struct Parts {
    peer: Option<Peer>,
    slots: Vec<Slot>,
    pending: Vec<Pending>,
    seen: Vec<Entry>,
}

impl Device {
    /// The device of these rows, and the rows of groups and histories. What is
    /// [`Self::pending`] is for the caller to send again.
    /// The rows must be those of the last batch that was persisted: a backup is not restored, but begins as a new device.
    pub fn restore(
        network: NetworkId,
        signing: [u8; 32],
        master: SecretKey,
        seed: [u8; 32],
        rows: &[([u8; ROW_KEY], Vec<u8>)],
    ) -> Result<(Self, Vec<Opened>), VaultError> {
        let mut vault = Vault::new(master, ChaCha20Rng::from_seed(seed));
        let opened = vault.open(rows)?;
        let (device, others, damaged) = Self::assemble(network, signing, vault, opened)?;
        if damaged == 0 { Ok((device, others)) } else { Err(VaultError::Unreadable) }
    }

    /// The same of rows that the vault opened; what of peers does not read back is left out and counted.
    pub fn assemble(
        network: NetworkId,
        signing: [u8; 32],
        vault: Vault,
        opened: Vec<Opened>,
    ) -> Result<(Self, Vec<Opened>, u64), VaultError> {
        let mut account = None;
        let mut parts: BTreeMap<Vec<u8>, Parts> = BTreeMap::new();
        let (mut others, mut damaged) = (Vec::new(), 0);
        let own = DeviceId(SigningKey::from_bytes(&signing).verifying_key().to_bytes());
        for row in opened {
            let bytes = row.value.as_slice();
            match row.kind {
                RowKind::ConversationKey => {}
                RowKind::Account => account = serde_json::from_slice::<SavedAccount>(bytes).ok(),
                RowKind::Peer | RowKind::Session | RowKind::Outbox | RowKind::Seen => {
                    let taken = parts.entry(row.conversation).or_default().take(row.kind, bytes, own);
                    damaged += u64::from(taken.is_none());
                }
                _ => others.push(row),
            }
        }
        let saved = account.ok_or(VaultError::Unreadable)?;
        let account = Account::from_pickle(saved.account);
        let kept = Some((saved.fallback, saved.rotate_at, saved.next_seq));
        let mut device = Self::with(network, signing, vault, account, kept);
        if device.id != saved.fallback.device {
            return Err(VaultError::Unreadable);
        }
        for (name, parts) in parts {
            // A conversation without its peer was cut off before its first batch: nothing of it left.
            let Some((id, peer)) = parts.assemble() else { continue };
            if conversation(id) == name {
                device.peers.insert(id, peer);
            }
        }
        Ok((device, others, damaged))
    }
}

impl Parts {
    fn take(&mut self, kind: RowKind, bytes: &[u8], own: DeviceId) -> Option<()> {
        match kind {
            RowKind::Peer => self.peer = Some(Peer::restore(serde_json::from_slice::<Known>(bytes).ok()?, own)),
            RowKind::Session => self.slots.push(Slot::restore(bytes)?),
            RowKind::Outbox => self.pending.push(Pending::restore(bytes)?),
            RowKind::Seen => self.seen.extend(Entry::parse_all(bytes)?),
            _ => {}
        }
        Some(())
    }

    fn assemble(mut self) -> Option<(DeviceId, Peer)> {
        let mut peer = self.peer?;
        let id = peer.device();
        for slot in self.slots {
            peer.sessions.add(slot);
        }
        peer.seen.restore(self.seen);
        self.pending.sort_by_key(|pending| pending.number);
        peer.next_number = self.pending.last().map_or(0, |last| last.number + 1);
        peer.pending = self.pending;
        Some((id, peer))
    }
}
