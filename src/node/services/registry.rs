//! Which services this node runs, in the store: `s` and a number for each, `r`, the number and a key for each row that a service keeps. The
//! table is sealed at rest, as the keys are in it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use fog_base::codec;
use fog_services::{core::service::Row, runtime::Keep};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::store::{Batch, Durability, Store, StoreError, Table, Writer};

/// What the keys of services begin with.
pub(crate) const SERVICE: u8 = b's';
const ROW: u8 = b'r';
/// The largest record: 160 clients and what is around them.
const MAX_RECORD: usize = 32 * 1024;

/// A service as it is kept.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) seed: Zeroizing<[u8; 32]>,
    pub(super) target: SocketAddr,
    pub(super) port: u16,
    pub(super) clients: Vec<String>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    name: String,
    address: String,
    seed: [u8; 32],
    target: String,
    port: u16,
    clients: Vec<String>,
}

/// All services.
pub(super) struct Registry {
    store: Arc<dyn Store>,
    writer: Writer,
    records: BTreeMap<u64, Record>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("services", &self.records.len()).finish_non_exhaustive()
    }
}

fn key(kind: u8, number: u64, rest: &[u8]) -> Vec<u8> {
    [&[kind], number.to_be_bytes().as_slice(), rest].concat()
}

async fn commit(writer: &Writer, batch: Batch) -> Result<(), StoreError> {
    let busy = |_| StoreError::Io("too much waits to be written".into());
    writer.submit(batch, Durability::Synced).map_err(busy)?.await.map_err(|_| StoreError::Closed)?
}

impl Registry {
    pub(super) fn open(store: Arc<dyn Store>, writer: Writer) -> anyhow::Result<Self> {
        let mut records = BTreeMap::new();
        for (key, value) in store.scan(Table::Services, &[SERVICE])? {
            let number = key.get(1..).and_then(|number| Some(u64::from_be_bytes(number.try_into().ok()?)));
            let stored: Option<Stored> = codec::decode(&value, MAX_RECORD).ok();
            let record = stored.and_then(|stored| {
                let Stored { name, address, mut seed, target, port, clients } = stored;
                let kept = Zeroizing::new(seed);
                seed.zeroize();
                Some(Record { name, address, seed: kept, target: target.parse().ok()?, port, clients })
            });
            // A key that cannot be read any more is a loss that somebody should know of.
            let Some((number, record)) = number.zip(record) else { anyhow::bail!("a service in the store is damaged") };
            records.insert(number, record);
        }
        Ok(Self { store, writer, records })
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (u64, &Record)> {
        self.records.iter().map(|(number, record)| (*number, record))
    }

    /// By name or address.
    pub(super) fn find(&self, name: &str) -> Option<(u64, &Record)> {
        let lower = name.to_ascii_lowercase();
        self.all().find(|(_, record)| record.name == name || record.address == lower)
    }

    pub(super) async fn insert(&mut self, record: Record) -> Result<u64, StoreError> {
        // Never one that was used: nothing of a service that was removed may become another one's.
        let number = u64::from_be_bytes(crate::node::chat::random());
        self.replace(number, record).await?;
        Ok(number)
    }

    pub(super) async fn replace(&mut self, number: u64, record: Record) -> Result<(), StoreError> {
        let mut stored = Stored {
            name: record.name.clone(),
            address: record.address.clone(),
            seed: *record.seed,
            target: record.target.to_string(),
            port: record.port,
            clients: record.clients.clone(),
        };
        let bytes = Zeroizing::new(
            codec::encode(&stored, MAX_RECORD).map_err(|error| StoreError::Io(format!("a record: {error}")))?,
        );
        stored.seed.zeroize();
        let mut batch = Batch::new();
        batch.put(Table::Services, key(SERVICE, number, &[]), bytes.as_slice());
        commit(&self.writer, batch).await?;
        self.records.insert(number, record);
        Ok(())
    }

    /// What a service kept.
    pub(super) fn rows(&self, number: u64) -> Result<Vec<crate::store::Row>, StoreError> {
        let prefix = key(ROW, number, &[]);
        let rows = self.store.scan(Table::Services, &prefix)?;
        Ok(rows.into_iter().map(|(key, value)| (key.get(prefix.len()..).unwrap_or_default().to_vec(), value)).collect())
    }

    /// Erases a service with its key, from the disk too.
    pub(super) async fn remove(&mut self, number: u64) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.delete(Table::Services, key(SERVICE, number, &[]));
        for (key, _) in self.store.scan(Table::Services, &key(ROW, number, &[]))? {
            batch.delete(Table::Services, key);
        }
        commit(&self.writer, batch).await?;
        self.records.remove(&number);
        let store = Arc::clone(&self.store);
        let compacted = tokio::task::spawn_blocking(move || store.compact(Table::Services)).await;
        compacted.map_err(|_| StoreError::Closed)?
    }
}

/// Writes what services keep.
pub(super) struct Rows {
    store: Arc<dyn Store>,
    writer: Writer,
}

impl Rows {
    pub(super) fn new(store: Arc<dyn Store>, writer: Writer) -> Self {
        Self { store, writer }
    }
}

impl Keep for Rows {
    async fn write(&self, service: u64, rows: Vec<Row>) -> bool {
        // In their order: a row that is put and then deleted must not stay.
        let (mut batch, mut puts) = (Batch::new(), BTreeMap::new());
        for row in rows {
            match row {
                Row::Put(name, value) => drop(puts.insert(key(ROW, service, &name), value)),
                Row::DeletePrefix(prefix) => {
                    let prefix = key(ROW, service, &prefix);
                    puts.retain(|name, _| !name.starts_with(&prefix));
                    let Ok(found) = self.store.scan(Table::Services, &prefix) else { return false };
                    for (key, _) in found {
                        batch.delete(Table::Services, key);
                    }
                }
            }
        }
        for (name, value) in &puts {
            batch.put(Table::Services, name.as_slice(), value.as_slice());
        }
        let written = commit(&self.writer, batch).await;
        written.inspect_err(|error| tracing::warn!(%error, "the rows of a service are not written")).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn record(name: &str) -> Record {
        Record {
            name: name.into(),
            address: format!("{name}.fog"),
            seed: Zeroizing::new([7; 32]),
            target: "127.0.0.1:80".parse().unwrap(),
            port: 80,
            clients: vec!["key".into()],
        }
    }

    #[tokio::test]
    async fn services_and_their_rows_survive_and_are_erased_together() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (writer, _flushed) = Writer::start(Arc::clone(&store)).unwrap();
        let open = || Registry::open(Arc::clone(&store), writer.clone()).unwrap();
        let rows = Rows::new(Arc::clone(&store), writer.clone());
        let mut registry = open();
        let blog = registry.insert(record("blog")).await.unwrap();
        let wiki = registry.insert(record("wiki")).await.unwrap();
        let put = |key: &[u8]| Row::Put(key.to_vec(), Zeroizing::new(b"value".to_vec()));
        assert!(rows.write(blog, vec![put(b"pa"), put(b"pb"), put(b"q")]).await);
        assert!(rows.write(wiki, vec![put(b"pa")]).await);
        assert!(rows.write(blog, vec![put(b"px"), Row::DeletePrefix(b"p".to_vec()), put(b"pc")]).await);
        let mut registry = open();
        let keys =
            |registry: &Registry, of| registry.rows(of).unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(&registry, blog), [b"pc".to_vec(), b"q".to_vec()]);
        assert_eq!(
            (registry.find("BLOG.fog").map(|(n, _)| n), registry.find("none").map(|(n, _)| n)),
            (Some(blog), None)
        );
        registry.remove(blog).await.unwrap();
        let registry = open();
        assert_eq!((registry.len(), keys(&registry, blog).len(), keys(&registry, wiki).len()), (1, 0, 1));
        assert_eq!(registry.find("wiki").unwrap().1.clients, ["key"]);
    }
}
