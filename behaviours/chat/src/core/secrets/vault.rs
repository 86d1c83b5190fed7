//! The vault: how rows lie in the store. Each conversation has a key of its own, sealed under the master key of the key file; every row
//! is sealed under the key of its conversation. `panic` destroys the master key and the rows of the keys first: whatever the store still
//! holds after that (tombstones, logs, old tables) is noise.
//!
//! A row's key in the store is `kind ‖ tag of the conversation (16) ‖ tag of the item (16)`. Tags are keyed hashes (BLAKE3; the item's covers
//! `tag of the conversation ‖ item`), so that the store names nobody. A row's value is sealed with that key and the version as associated data, so that no row passes as another.

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::key::{NONCE, SecretKey};

const VERSION: u8 = 1;
const NAMES: &str = "fog chat vault names v1";
const WRAP: &str = "fog chat vault wrap v1";
/// Bytes of a row's key.
pub const ROW_KEY: usize = 1 + 16 + 16;

/// What a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKind {
    /// A conversation's key and name, sealed under the master key. Destroyed first.
    ConversationKey = 0,
    /// The device's Olm account.
    Account = 1,
    /// What is known of a peer.
    Peer = 2,
    /// One Olm session with it.
    Session = 3,
    /// A message that is not acknowledged: its plaintext and ciphertext.
    Outbox = 4,
    /// That messages came: their ids and the digests of their ciphertexts.
    Seen = 6,
    /// The Megolm session that we write with.
    GroupSender = 7,
    /// A Megolm session that we read with.
    GroupReceiver = 8,
    /// What the history and the outbox of the conversation hold; their owners say what that is.
    History = 9,
    /// The device's signing key.
    Identity = 10,
    /// What a conversation is.
    Conversation = 11,
    /// What is known of somebody.
    Person = 12,
    /// How far an own message is.
    Delivery = 13,
    /// A fork proof.
    Proof = 14,
    /// How this device's person chose to be called.
    Name = 15,
}

impl RowKind {
    const ALL: [Self; 15] = {
        use RowKind::*;
        [
            ConversationKey,
            Account,
            Peer,
            Session,
            Outbox,
            Seen,
            GroupSender,
            GroupReceiver,
            History,
            Identity,
            Conversation,
            Person,
            Delivery,
            Proof,
            Name,
        ]
    };

    fn of(row_key: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| row_key.first() == Some(&(*kind as u8)))
    }
}

/// One write: a value, or a deletion.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// The key in the store.
    pub key: [u8; ROW_KEY],
    /// The sealed value; `None` deletes the row.
    pub value: Option<Vec<u8>>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let written = self.value.as_ref().map(Vec::len);
        f.debug_struct("Row").field("kind", &RowKind::of(&self.key)).field("bytes", &written).finish_non_exhaustive()
    }
}

/// A row as it was read back.
pub struct Opened {
    /// What it holds.
    pub kind: RowKind,
    /// The conversation's name, as given when it was written.
    pub conversation: Vec<u8>,
    /// The value.
    pub value: Zeroizing<Vec<u8>>,
}

/// Why rows cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// A row that the master key does not open, or of a conversation without a key: another key file, or damage.
    #[error("a row does not open: another key, or a damaged store")]
    Unreadable,
}

/// The keys of all conversations.
pub struct Vault {
    wrap: SecretKey,
    names: SecretKey,
    keys: BTreeMap<Vec<u8>, SecretKey>,
    /// The conversations of the keys, by their tags.
    conversations: BTreeMap<[u8; 16], Vec<u8>>,
    rng: ChaCha20Rng,
}

impl Vault {
    /// An empty vault under the master key of the key file. `rng` gives keys and nonces.
    pub fn new(master: SecretKey, rng: ChaCha20Rng) -> Self {
        let (wrap, names) = (master.derive(WRAP, &[]), master.derive(NAMES, &[]));
        Self { wrap, names, keys: BTreeMap::new(), conversations: BTreeMap::new(), rng }
    }

    /// A sealed row, preceded in `batch` by the key of its conversation if that is new.
    pub fn put(&mut self, batch: &mut Vec<Row>, kind: RowKind, conversation: &[u8], item: &[u8], text: &[u8]) {
        self.put_parts(batch, kind, conversation, item, &[text]);
    }

    /// [`Self::put`] of these parts one after the other.
    pub fn put_parts(
        &mut self,
        batch: &mut Vec<Row>,
        kind: RowKind,
        conversation: &[u8],
        item: &[u8],
        parts: &[&[u8]],
    ) {
        let key = self.row_key(kind, conversation, item);
        let nonce = self.nonce();
        let value = self.conversation_key(batch, conversation).seal_parts(&nonce, &aad(&key), parts);
        batch.push(Row { key, value });
    }

    /// The deletion of a row.
    pub fn delete(&self, batch: &mut Vec<Row>, kind: RowKind, conversation: &[u8], item: &[u8]) {
        batch.push(Row { key: self.row_key(kind, conversation, item), value: None });
    }

    /// Forgets a conversation's key and deletes it: its other rows are noise from then on.
    pub fn destroy(&mut self, batch: &mut Vec<Row>, conversation: &[u8]) {
        if self.keys.remove(conversation).is_some() {
            self.conversations.remove(&self.tag(conversation));
            self.delete(batch, RowKind::ConversationKey, conversation, b"");
        }
    }

    /// Takes the keys out of `rows` and opens all others. Rows of destroyed conversations are left out.
    pub fn open(&mut self, rows: &[([u8; ROW_KEY], Vec<u8>)]) -> Result<Vec<Opened>, VaultError> {
        for (key, value) in rows.iter().filter(|(key, _)| RowKind::of(key) == Some(RowKind::ConversationKey)) {
            self.take_key(key, value)?;
        }
        let mut opened = Vec::new();
        for (key, value) in rows {
            let kind = RowKind::of(key).ok_or(VaultError::Unreadable)?;
            if kind != RowKind::ConversationKey
                && let Some(row) = self.open_row(key, value)?
            {
                opened.push(row);
            }
        }
        opened.sort_by_key(|row| row.kind);
        Ok(opened)
    }

    /// Takes a row of kind [`RowKind::ConversationKey`].
    pub fn take_key(&mut self, key: &[u8], value: &[u8]) -> Result<(), VaultError> {
        let key = key.first_chunk::<ROW_KEY>().ok_or(VaultError::Unreadable)?;
        let text = self.wrap.open(&aad(key), value).ok_or(VaultError::Unreadable)?;
        let (secret, name) = text.split_first_chunk::<32>().ok_or(VaultError::Unreadable)?;
        self.keys.insert(name.to_vec(), SecretKey::new(*secret));
        self.conversations.insert(self.tag(name), name.to_vec());
        Ok(())
    }

    /// Opens any other row; `None` if its conversation was destroyed.
    pub fn open_row(&self, key: &[u8], value: &[u8]) -> Result<Option<Opened>, VaultError> {
        let key = key.first_chunk::<ROW_KEY>().ok_or(VaultError::Unreadable)?;
        let kind = RowKind::of(key).ok_or(VaultError::Unreadable)?;
        let name = key.get(1..17).and_then(|tag| self.conversations.get(tag));
        let Some(name) = name else { return Ok(None) };
        let secret = self.keys.get(name).ok_or(VaultError::Unreadable)?;
        let value = secret.open(&aad(key), value).ok_or(VaultError::Unreadable)?;
        Ok(Some(Opened { kind, conversation: name.clone(), value }))
    }

    /// Random bytes, for ids.
    pub fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn conversation_key(&mut self, batch: &mut Vec<Row>, conversation: &[u8]) -> &SecretKey {
        if !self.keys.contains_key(conversation) {
            let secret = SecretKey::new(self.random());
            let key = self.row_key(RowKind::ConversationKey, conversation, b"");
            let text = Zeroizing::new([secret.expose().as_slice(), conversation].concat());
            let nonce = self.nonce();
            batch.push(Row { key, value: self.wrap.seal(&nonce, &aad(&key), &text) });
            self.keys.insert(conversation.to_vec(), secret);
            self.conversations.insert(self.tag(conversation), conversation.to_vec());
        }
        self.keys.get(conversation).unwrap_or(&self.wrap)
    }

    fn nonce(&mut self) -> [u8; NONCE] {
        self.random()
    }

    /// `BLAKE3-keyed(names, text)`, the first half.
    fn tag(&self, text: &[u8]) -> [u8; 16] {
        let hash = blake3::keyed_hash(self.names.expose(), text);
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// The key of a row in the store: `kind ‖ tag of the conversation ‖ tag of the item`.
    pub fn row_key(&self, kind: RowKind, conversation: &[u8], item: &[u8]) -> [u8; ROW_KEY] {
        let tag = self.tag(conversation);
        let item = self.tag(&[tag.as_slice(), item].concat());
        let mut bytes = std::iter::once(kind as u8).chain(tag).chain(item);
        std::array::from_fn(|_| bytes.next().unwrap_or_default())
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("conversations", &self.keys.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn aad(row_key: &[u8; ROW_KEY]) -> [u8; ROW_KEY + 1] {
    let mut bytes = row_key.iter().copied().chain([VERSION]);
    std::array::from_fn(|_| bytes.next().unwrap_or_default())
}

/// What `panic` does, in this order; each step is on disk before the next one begins. After the second one nothing can be read, so a
/// step that fails or is cut off later costs only space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WipeStep {
    /// Overwrite the key file that holds the master key, sync it, delete it, sync its directory.
    MasterKey,
    /// Delete the rows of kind [`RowKind::ConversationKey`], with sync, and forget the vault and every core that holds keys.
    ConversationKeys,
    /// Delete all other rows.
    Rows,
    /// Compact the column family, so that its old tables go.
    Compact,
}

impl WipeStep {
    /// All steps, in order.
    pub const ALL: [Self; 4] = [Self::MasterKey, Self::ConversationKeys, Self::Rows, Self::Compact];
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn vault(master: u8) -> Vault {
        Vault::new(SecretKey::new([master; 32]), ChaCha20Rng::from_seed([9; 32]))
    }

    fn stored(batch: &[Row]) -> Vec<([u8; ROW_KEY], Vec<u8>)> {
        let mut rows = BTreeMap::new();
        for row in batch {
            match &row.value {
                Some(value) => rows.insert(row.key, value.clone()),
                None => rows.remove(&row.key),
            };
        }
        rows.into_iter().collect()
    }

    #[test]
    fn rows_come_back_under_the_master_key_and_no_other() {
        let mut batch = Vec::new();
        let mut first = vault(1);
        first.put(&mut batch, RowKind::Outbox, b"ana", b"1", b"hello");
        first.put(&mut batch, RowKind::Outbox, b"ana", b"2", b"again");
        first.put(&mut batch, RowKind::Outbox, b"bo", b"1", b"you");
        first.delete(&mut batch, RowKind::Outbox, b"ana", b"2");
        let rows = stored(&batch);
        assert_eq!(rows.len(), 4, "two keys and two rows");
        let opened = vault(1).open(&rows).unwrap();
        let texts: Vec<_> = opened.iter().map(|row| (row.conversation.as_slice(), row.value.as_slice())).collect();
        assert!(texts.contains(&(b"ana", b"hello")) && texts.contains(&(b"bo", b"you")), "{texts:?}");
        assert!(vault(2).open(&rows).is_err());
    }

    #[test]
    fn a_destroyed_conversation_is_noise_and_the_others_live_on() {
        let mut batch = Vec::new();
        let mut first = vault(1);
        first.put(&mut batch, RowKind::Outbox, b"ana", b"1", b"hello");
        first.put(&mut batch, RowKind::Outbox, b"bo", b"1", b"you");
        first.destroy(&mut batch, b"ana");
        let opened = vault(1).open(&stored(&batch)).unwrap();
        assert_eq!(opened.iter().map(|row| row.value.to_vec()).collect::<Vec<_>>(), [b"you"]);
    }

    #[test]
    fn a_row_passes_as_no_other_row_and_the_store_shows_no_plaintext() {
        let mut batch = Vec::new();
        let mut first = vault(1);
        first.put(&mut batch, RowKind::Outbox, b"canary-name", b"1", b"canary-text");
        first.put(&mut batch, RowKind::Outbox, b"canary-name", b"2", b"canary-text");
        let rows = stored(&batch);
        for (key, value) in &rows {
            let bytes = [key.as_slice(), value].concat();
            assert!(!bytes.windows(6).any(|at| at == b"canary"));
        }
        let (a, b) = (rows.len() - 2, rows.len() - 1);
        let mut swapped = rows.clone();
        swapped[a].1.clone_from(&rows[b].1);
        assert_eq!(vault(1).open(&swapped).map(|_| ()), Err(VaultError::Unreadable));
    }
}
