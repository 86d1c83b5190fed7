//! The certified sets in the store: the chain of links, the last sets, and the record of what this node signed.
//!
//! Rows are named by the network, so that a data directory that is used for another network starts anew there.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use fog_base::{Epoch, NetworkId};
use fog_directory::core::{
    certificate::record::Record,
    council::{ReadLink, Restored},
};

use crate::{
    platform::files,
    store::{Batch, Durability, Store, Table},
};

/// Where marks of what may have been signed are, and the one for all networks.
const MARKS: &str = "seats";
const RESTORED: &str = "restored";

/// The kinds of rows: one byte after the network's id.
#[derive(Debug, Clone, Copy)]
enum Row {
    Link,
    Set,
    State,
    Record,
    Bound,
}

fn prefix(network: &NetworkId, row: Row) -> Vec<u8> {
    let tag = match row {
        Row::Link => b'l',
        Row::Set => b's',
        Row::State => b't',
        Row::Record => b'r',
        Row::Bound => b'b',
    };
    [&network.0[..], &[tag]].concat()
}

fn key(network: &NetworkId, row: Row, epoch: Epoch) -> Vec<u8> {
    [prefix(network, row), epoch.0.to_be_bytes().to_vec()].concat()
}

fn epoch_of(key: &[u8]) -> Option<Epoch> {
    Some(Epoch(u32::from_be_bytes(*key.last_chunk()?)))
}

/// Keeps a link for ever.
pub(super) fn keep_link(network: &NetworkId, epoch: Epoch, link: Vec<u8>) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Certificates, key(network, Row::Link, epoch), link);
    batch
}

/// Keeps a whole set, and forgets an older one.
pub(super) fn keep_set(
    network: &NetworkId,
    epoch: Epoch,
    (set, state): (Vec<u8>, Vec<u8>),
    forget: Option<Epoch>,
) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Certificates, key(network, Row::Set, epoch), set);
    batch.put(Table::Certificates, key(network, Row::State, epoch), state);
    if let Some(old) = forget {
        batch.delete(Table::Certificates, key(network, Row::Set, old));
        batch.delete(Table::Certificates, key(network, Row::State, old));
    }
    batch
}

/// What this node signed, and the set that it is bound to, if that is another one; to be written with `sync`.
pub(super) fn keep_record(network: &NetworkId, record: Vec<u8>, set: Option<Vec<u8>>) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Certificates, prefix(network, Row::Record), record);
    if let Some(set) = set {
        batch.put(Table::Certificates, prefix(network, Row::Bound), set);
    }
    batch
}

/// Says that the identity of this data directory may have signed in any network: it comes out of a backup.
pub fn mark_restored(data_dir: &Path) -> io::Result<()> {
    mark(data_dir, RESTORED)
}

fn mark(data_dir: &Path, name: &str) -> io::Result<()> {
    let marks = data_dir.join(MARKS);
    files::create_private_dir(&marks)?;
    files::replace(&marks.join(name), b"")
}

/// What an earlier run has kept, and how a link is read later.
///
/// An empty file beside the store says that this identity may have signed in this network: if the store is lost, or comes out of a
/// backup, the node stays silent until what it may have signed is of the past.
pub(super) fn load(
    data_dir: &Path,
    network: NetworkId,
    store: &Arc<dyn Store>,
) -> anyhow::Result<(Restored, ReadLink)> {
    let record = store.get(Table::Certificates, &prefix(&network, Row::Record))?;
    let marks = data_dir.join(MARKS);
    let may_have_signed = marks.join(network.to_string()).exists() || marks.join(RESTORED).exists();
    if !may_have_signed && record.is_none() {
        store.commit(keep_record(&network, Record::NEW.to_bytes(), None), Durability::Synced)?;
    }
    mark(data_dir, &network.to_string()).context("the data directory cannot be written")?;
    let rows = |row| store.scan(Table::Certificates, &prefix(&network, row));
    let links: BTreeSet<_> = rows(Row::Link)?.iter().filter_map(|(key, _)| epoch_of(key)).collect();
    let mut states: BTreeMap<_, _> =
        rows(Row::State)?.into_iter().filter_map(|(key, state)| Some((epoch_of(&key)?, state))).collect();
    let stated: Vec<_> = states.keys().copied().collect();
    let mut sets = BTreeMap::new();
    let mut outdated = Batch::new();
    for (row, set) in rows(Row::Set)? {
        let Some(epoch) = epoch_of(&row) else { continue };
        match states.remove(&epoch) {
            // Which are of use, also of the older ones, the council knows: it says what is to be forgotten.
            Some(state) => drop(sets.insert(epoch, (set, state))),
            None => drop(outdated.delete(Table::Certificates, row)),
        }
    }
    let whole = |epoch: &Epoch| sets.contains_key(epoch);
    for epoch in stated.iter().filter(|epoch| !whole(epoch)) {
        outdated.delete(Table::Certificates, key(&network, Row::State, *epoch));
    }
    store.commit(outdated, Durability::Relaxed)?;
    let reader = Arc::clone(store);
    let read: ReadLink =
        Box::new(move |epoch| reader.get(Table::Certificates, &key(&network, Row::Link, epoch)).ok().flatten());
    let bound = store.get(Table::Certificates, &prefix(&network, Row::Bound))?;
    Ok((Restored { record, bound, may_have_signed, links, sets }, read))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    const NETWORK: NetworkId = NetworkId([4; 32]);

    #[test]
    fn what_was_kept_is_loaded_and_of_one_network_only() {
        let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
        let (first, _) = load(dir.path(), NETWORK, &store).unwrap();
        assert!(first.record.is_none() && !first.may_have_signed && first.links.is_empty());
        for epoch in (1..=5).map(Epoch) {
            let batch = keep_link(&NETWORK, epoch, vec![epoch.0 as u8]);
            store.commit(batch, Durability::Relaxed).unwrap();
            let forget = epoch.0.checked_sub(3).map(Epoch);
            store.commit(keep_set(&NETWORK, epoch, (vec![1], vec![2]), forget), Durability::Relaxed).unwrap();
        }
        store.commit(keep_record(&NETWORK, vec![9], Some(vec![7])), Durability::Synced).unwrap();
        store.commit(keep_record(&NETWORK, vec![9], None), Durability::Synced).unwrap();
        let (kept, read) = load(dir.path(), NETWORK, &store).unwrap();
        assert_eq!((kept.record, kept.may_have_signed, kept.links.len()), (Some(vec![9]), true, 5));
        assert_eq!(kept.bound, Some(vec![7]));
        let states = store.scan(Table::Certificates, &prefix(&NETWORK, Row::State)).unwrap();
        assert_eq!(states.len(), 3, "nothing is left of what was forgotten");
        assert!(kept.sets.keys().copied().eq([3, 4, 5].map(Epoch)));
        assert_eq!((read(Epoch(3)), read(Epoch(6))), (Some(vec![3]), None));
        let (other, _) = load(dir.path(), NetworkId([5; 32]), &store).unwrap();
        assert!(other.record.is_none() && other.links.is_empty());
        // The store is gone, the mark is not.
        let (lost, _) = load(dir.path(), NETWORK, &(Arc::new(MemoryStore::new()) as Arc<dyn Store>)).unwrap();
        assert!(lost.record.is_none() && lost.may_have_signed);
        let (backup, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
        mark_restored(backup.path()).unwrap();
        assert!(load(backup.path(), NETWORK, &store).unwrap().0.may_have_signed);
    }
}
