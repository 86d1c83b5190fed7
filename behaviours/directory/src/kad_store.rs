//! What this node answers to a Kademlia `GET`: a view on the descriptors that its [`RelaySet`](crate::RelaySet) holds.
//!
//! The set is whole, validated, bounded and kept on disk by the node's own writer, so there is nothing to store a second time: the
//! store shares the descriptors, in memory, and never blocks the swarm. Nothing comes in through Kademlia: what a peer puts is an
//! event, and what becomes of it is decided by the set. Providers are not kept at all.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Instant,
};

use fog_base::{NodeId, Now};
use libp2p::{
    PeerId,
    kad::{
        ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore, Result},
    },
};

use crate::core::{
    descriptor::Descriptor,
    kad_record::{self, Key, Rules},
};

/// Keys of one relay: its descriptors of this epoch and of the last.
const MAX_KEYS: usize = 2;

#[derive(Debug)]
struct Row {
    descriptor: Arc<Descriptor>,
    expires: Instant,
}

/// The view; at most two descriptors of each relay.
pub struct Store {
    rules: Rules,
    max_relays: usize,
    rows: HashMap<Key, Row>,
    /// The keys of a relay, its newest descriptor's last.
    relays: BTreeMap<NodeId, Vec<Key>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("relays", &self.relays.len()).field("rows", &self.rows.len()).finish()
    }
}

impl Store {
    /// An empty view of a set of at most `max_relays`.
    pub(crate) fn new(rules: Rules, max_relays: usize) -> Self {
        Self { rules, max_relays, rows: HashMap::new(), relays: BTreeMap::new() }
    }

    /// The key under which `descriptor` stands.
    pub(crate) fn key(&self, descriptor: &Descriptor) -> Key {
        kad_record::key(&self.rules.network, descriptor.relay(), descriptor.epoch())
    }

    /// The set holds `descriptor` as the newest of its relay. One of the epoch before stays beside it while it is valid.
    pub(crate) fn keep(&mut self, descriptor: Arc<Descriptor>, now: Now) {
        let (key, relay) = (self.key(&descriptor), descriptor.relay());
        if self.relays.len() >= self.max_relays && !self.relays.contains_key(&relay) {
            return;
        }
        let keys = self.relays.entry(relay).or_default();
        keys.retain(|other| *other != key);
        keys.push(key);
        while keys.len() > MAX_KEYS {
            self.rows.remove(&keys.remove(0));
        }
        let expires = now.mono + descriptor.expires().since(now.unix);
        self.rows.insert(key, Row { descriptor, expires });
    }

    /// The set holds nothing of `relay` any more.
    pub(crate) fn forget(&mut self, relay: NodeId) {
        for key in self.relays.remove(&relay).unwrap_or_default() {
            self.rows.remove(&key);
        }
    }

    /// The newest descriptor of `relay`.
    pub(crate) fn newest(&self, relay: NodeId) -> Option<&Arc<Descriptor>> {
        let key = self.relays.get(&relay)?.last()?;
        self.rows.get(key).map(|row| &row.descriptor)
    }

    /// Whether exactly this record is known.
    pub(crate) fn has(&self, key: &[u8], value: &[u8]) -> bool {
        self.rows.get(key).is_some_and(|row| row.descriptor.as_bytes() == value)
    }

    /// How many records it answers with.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

fn record<'a>(key: &Key, row: &Row) -> Cow<'a, Record> {
    Cow::Owned(Record {
        key: RecordKey::new(key),
        value: row.descriptor.as_bytes().to_vec(),
        publisher: None,
        expires: Some(row.expires),
    })
}

impl RecordStore for Store {
    type RecordsIter<'a> = Box<dyn Iterator<Item = Cow<'a, Record>> + 'a>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        let (key, row) = self.rows.get_key_value(key.as_ref())?;
        Some(record(key, row))
    }

    /// Only for libp2p's own publication: what is not in the set already is refused.
    fn put(&mut self, record: Record) -> Result<()> {
        if self.has(record.key.as_ref(), &record.value) { Ok(()) } else { Err(Error::MaxRecords) }
    }

    /// An expired row; the set forgets the relay by itself.
    fn remove(&mut self, key: &RecordKey) {
        if let Some(row) = self.rows.remove(key.as_ref()) {
            let relay = row.descriptor.relay();
            if let Some(keys) = self.relays.get_mut(&relay) {
                keys.retain(|other| other.as_slice() != key.as_ref());
                if keys.is_empty() {
                    self.relays.remove(&relay);
                }
            }
        }
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        Box::new(self.rows.iter().map(|(key, row)| record(key, row)))
    }

    fn add_provider(&mut self, _: ProviderRecord) -> Result<()> {
        Err(Error::MaxProvidedKeys)
    }

    fn providers(&self, _: &RecordKey) -> Vec<ProviderRecord> {
        Vec::new()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, _: &RecordKey, _: &PeerId) {}
}

#[cfg(test)]
mod tests {
    use fog_base::Epoch;

    use super::*;
    use crate::core::testing::{EPOCH, NETWORK, facts, node, relay, relay_at, schedule, sign, start};

    fn store(max_relays: usize) -> Store {
        Store::new(Rules { network: NETWORK, schedule: schedule() }, max_relays)
    }

    fn get(store: &Store, n: u16, epoch: Epoch) -> Option<Vec<u8>> {
        let key = kad_record::key(&NETWORK, node(n), epoch);
        store.get(&RecordKey::new(&key)).map(|record| record.value.clone())
    }

    #[test]
    fn it_answers_with_what_the_set_holds_and_with_nothing_else() {
        let (mut store, now) = (store(10), start());
        store.keep(Arc::new(relay(1)), now);
        assert_eq!(get(&store, 1, EPOCH), Some(relay(1).as_bytes().to_vec()));
        assert_eq!((get(&store, 2, EPOCH), get(&store, 1, EPOCH.next())), (None, None));
        assert!(store.put(Record::new(store.key(&relay(1)).to_vec(), relay(1).as_bytes().to_vec())).is_ok());
        assert!(store.put(Record::new(store.key(&relay(2)).to_vec(), relay(2).as_bytes().to_vec())).is_err());
        assert!(store.put(Record::new(store.key(&relay(1)).to_vec(), relay(2).as_bytes().to_vec())).is_err());
        assert_eq!(store.len(), 1);
        store.forget(node(1));
        assert!(store.is_empty() && store.relays.is_empty());
    }

    #[test]
    fn a_relay_has_two_keys_and_the_set_bounds_the_relays() {
        let (mut store, now) = (store(2), start());
        for epoch in [EPOCH.0 - 2, EPOCH.0 - 1, EPOCH.0] {
            store.keep(Arc::new(relay_at(1, Epoch(epoch))), now);
        }
        assert_eq!((store.len(), get(&store, 1, Epoch(EPOCH.0 - 2))), (2, None));
        assert_eq!(store.newest(node(1)).map(|d| d.epoch()), Some(EPOCH));
        for n in 2..5 {
            store.keep(Arc::new(relay(n)), now);
        }
        assert_eq!((store.relays.len(), store.len()), (2, 3));
    }

    #[test]
    fn a_newer_descriptor_of_the_epoch_replaces_the_older_one() {
        let (mut store, now) = (store(2), start());
        store.keep(Arc::new(relay(1)), now);
        let newer = sign(1, &facts(1, EPOCH), EPOCH, now.unix.0 + 1, now.unix);
        store.keep(Arc::new(newer.clone()), now);
        assert_eq!((store.len(), get(&store, 1, EPOCH)), (1, Some(newer.as_bytes().to_vec())));
        store.remove(&RecordKey::new(&store.key(&newer)));
        assert!(store.is_empty() && store.relays.is_empty());
    }
}
