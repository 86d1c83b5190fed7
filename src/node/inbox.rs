//! Messages that have arrived, and the ids of those that were delivered before.
//!
//! A message and its id are one synced batch, written before its sender hears of it: so none is lost and none comes twice,
//! whenever the node is killed. Read messages are kept for a week.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use data_encoding::BASE64;
use fog_base::{MessageId, NodeId, UnixMillis, codec};
use fog_mix::core::endpoint::{Delivery, MESSAGE_LIFETIME};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::{command::Failure, report::Received};
use crate::store::{Batch, Committed, Durability, Store, StoreError, Table, Writer};

/// The longest encoding of an entry: a message of 1 MiB.
const MAX_ENTRY: usize = (1 << 20) + 1024;
/// For so long a message that was read can be read again.
const KEEP_READ: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: MessageId,
    from: Option<NodeId>,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    received: UnixMillis,
    read: Option<UnixMillis>,
}

/// The messages of this node.
#[derive(Debug, Clone)]
pub(super) struct Inbox(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    writer: Writer,
    max_bytes: u64,
    bytes: AtomicU64,
    /// Two readers at once would both be told that a message is new.
    reading: Mutex<()>,
    arrived: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("bytes", &self.bytes).field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}

/// The key of an entry: the time first, so that a scan is in order.
fn key(received: UnixMillis, id: &MessageId) -> Vec<u8> {
    [received.0.to_be_bytes().as_slice(), &id.0].concat()
}

impl Inbox {
    /// The inbox in `store`, with at most `max_bytes` of messages.
    pub(super) fn open(store: Arc<dyn Store>, writer: Writer, max_bytes: u64) -> Result<Self, StoreError> {
        let bytes = store.scan(Table::Inbox, &[])?.iter().map(|(_, value)| value.len() as u64).sum();
        let (arrived, _) = watch::channel(0);
        let (bytes, reading) = (AtomicU64::new(bytes), Mutex::new(()));
        Ok(Self(Arc::new(Shared { store, writer, max_bytes, bytes, reading, arrived })))
    }

    /// The messages that were delivered and may still be sent again, with their times.
    pub(super) fn seen(&self, now: UnixMillis) -> Result<Vec<(MessageId, u64)>, StoreError> {
        let oldest = now.minus(MESSAGE_LIFETIME * 2).as_secs();
        let mut old = Batch::new();
        let mut seen = Vec::new();
        for (key, value) in self.0.store.scan(Table::Seen, &[])? {
            let id = <[u8; 16]>::try_from(key.as_slice()).ok().map(MessageId);
            let created = <[u8; 8]>::try_from(value.as_slice()).ok().map(u64::from_be_bytes);
            match (id, created) {
                (Some(id), Some(created)) if created >= oldest => seen.push((id, created)),
                _ => {
                    old.delete(Table::Seen, key);
                }
            }
        }
        if !old.is_empty() {
            self.0.store.commit(old, Durability::Relaxed)?;
        }
        Ok(seen)
    }

    /// Grows with each message that arrives.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.0.arrived.subscribe()
    }

    /// Bytes kept, and how many may be.
    pub(super) fn usage(&self) -> (u64, u64) {
        (self.0.bytes.load(Ordering::Relaxed), self.0.max_bytes)
    }

    /// Writes a message, and says how long it is; `None` if there is no room for it. [`Inbox::stored`] is told how that ended.
    pub(super) fn put(&self, delivery: Delivery, now: UnixMillis) -> Option<(Committed, u64)> {
        let Delivery { message: id, from, body, created, .. } = delivery;
        let entry = codec::encode(&Entry { id, from, body, received: now, read: None }, MAX_ENTRY).ok()?;
        let size = entry.len() as u64;
        if self.0.bytes.load(Ordering::Relaxed) + size > self.0.max_bytes {
            return None;
        }
        let mut batch = Batch::new();
        batch.put(Table::Inbox, key(now, &id), entry).put(Table::Seen, id.0, created.to_be_bytes());
        let committed = self.0.writer.submit(batch, Durability::Synced).ok()?;
        self.0.bytes.fetch_add(size, Ordering::Relaxed);
        Some((committed, size))
    }

    /// A message of `size` bytes is stored: readers are told. Or it could not be: its room is free again.
    pub(super) fn stored(&self, size: u64, ok: bool) {
        if ok {
            self.0.arrived.send_modify(|count| *count += 1);
        } else {
            self.0.bytes.fetch_sub(size, Ordering::Relaxed);
        }
    }

    /// The messages not yet read, with `all` also those read in the last week; oldest first. They are marked read.
    pub(super) async fn read(&self, all: bool, now: UnixMillis) -> Result<Vec<Received>, Failure> {
        let _one_reader = self.0.reading.lock().await;
        let store = Arc::clone(&self.0.store);
        let rows = tokio::task::spawn_blocking(move || store.scan(Table::Inbox, &[])).await;
        let rows = rows.map_err(|error| failure(&error))?.map_err(|error| failure(&error))?;
        let (mut batch, mut before, mut after, mut messages) = (Batch::new(), 0, 0, Vec::new());
        for (key, value) in rows {
            let Ok(mut entry) = codec::decode::<Entry>(&value, MAX_ENTRY) else { continue };
            match entry.read {
                None => {
                    entry.read = Some(now);
                    let marked = codec::encode(&entry, MAX_ENTRY).map_err(|error| failure(&error))?;
                    (before, after) = (before + value.len() as u64, after + marked.len() as u64);
                    batch.put(Table::Inbox, key, marked);
                    messages.push(received(entry));
                }
                Some(read) if now.since(read) >= KEEP_READ => {
                    before += value.len() as u64;
                    batch.delete(Table::Inbox, key);
                }
                Some(_) if all => messages.push(received(entry)),
                Some(_) => {}
            }
        }
        if !batch.is_empty() {
            let busy = || Failure::failed("the store is busy", "try again in a moment");
            let committed = self.0.writer.submit(batch, Durability::Synced).map_err(|_| busy())?;
            committed.await.map_err(|error| failure(&error))?.map_err(|error| failure(&error))?;
            self.0.bytes.fetch_add(after, Ordering::Relaxed);
            self.0.bytes.fetch_sub(before, Ordering::Relaxed);
        }
        Ok(messages)
    }
}

fn failure(error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("the inbox cannot be read: {error}"), "the messages stay where they are; see `fog doctor`")
}

fn received(entry: Entry) -> Received {
    let bytes = entry.body.len() as u64;
    let (text, base64) = match String::from_utf8(entry.body) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64.encode(error.as_bytes()))),
    };
    let received_at = rfc3339(entry.received);
    Received {
        id: entry.id.to_string(),
        from: entry.from.map(|from| from.to_string()),
        text,
        base64,
        bytes,
        received_at,
    }
}

/// A time as people and JSON have it.
pub(super) fn rfc3339(time: UnixMillis) -> String {
    let millis = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| "invalid".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use fog_mix::core::endpoint::Audience;

    use super::*;
    use crate::store::MemoryStore;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn inbox(store: &Arc<dyn Store>, max_bytes: u64) -> Inbox {
        let (writer, _thread) = Writer::start(Arc::clone(store)).unwrap();
        Inbox::open(Arc::clone(store), writer, max_bytes).unwrap()
    }

    fn delivery(n: u8, body: &[u8]) -> Delivery {
        Delivery {
            message: MessageId([n; 16]),
            from: None,
            audience: Audience::Person,
            body: body.to_vec(),
            created: NOW.as_secs(),
        }
    }

    async fn put(inbox: &Inbox, delivery: Delivery, at: UnixMillis) {
        inbox.put(delivery, at).unwrap().0.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn messages_are_new_once_in_order_and_can_be_read_again_for_a_week() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let inbox = inbox(&store, 1 << 20);
        put(&inbox, delivery(2, b"second"), UnixMillis(NOW.0 + 5)).await;
        put(&inbox, delivery(1, b"\xff\x00"), NOW).await;
        let texts =
            |messages: Vec<Received>| messages.into_iter().map(|m| m.text.or(m.base64).unwrap()).collect::<Vec<_>>();
        assert_eq!(texts(inbox.read(false, NOW).await.unwrap()), ["/wA=", "second"]);
        assert_eq!(inbox.read(false, NOW).await.unwrap().len(), 0);
        assert_eq!(inbox.read(true, NOW).await.unwrap().len(), 2);
        assert_eq!(inbox.read(true, NOW.plus(KEEP_READ)).await.unwrap().len(), 0);
        assert_eq!(inbox.usage().0, 0);
    }

    #[tokio::test]
    async fn what_was_delivered_is_remembered_after_a_restart_and_a_full_inbox_refuses() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        put(&inbox(&store, 1000), delivery(1, b"one"), NOW).await;
        let again = inbox(&store, 150);
        assert_eq!(again.seen(NOW).unwrap(), [(MessageId([1; 16]), NOW.as_secs())]);
        assert_eq!(again.seen(NOW.plus(MESSAGE_LIFETIME * 3)).unwrap(), []);
        assert!(again.put(delivery(2, &[0; 100]), NOW).is_none());
        assert_eq!(again.read(false, NOW).await.unwrap()[0].received_at, "2027-01-15T08:00:00Z");
    }
}
