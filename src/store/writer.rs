//! Commits off the event loop: one thread, a bounded queue, and many batches in one write when they come fast (group commit).
//!
//! The order of submission is the order of effect. A group is as durable as its most demanding batch; if its commit fails, each of
//! its submitters is told, and keeps what it wanted to store.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot};

use super::{Batch, Durability, Store, StoreError};

/// Batches that may wait.
pub const QUEUE: usize = 1024;
/// Batches in one commit at most.
const GROUP: usize = 256;
/// Bytes in one commit at which no further batch is added.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// The queue of the writer is full: the disk does not keep up. Carries the batch back.
#[derive(Debug, thiserror::Error)]
#[error("the store's queue is full")]
pub struct WriterFull(pub Batch);

/// The answer to a submitted batch, when it is on its way to the disk or has failed.
pub type Committed = oneshot::Receiver<Result<(), StoreError>>;

struct Job {
    batch: Batch,
    durability: Durability,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// Submits batches to the writer thread; cloneable. The thread ends when the last clone is dropped and the queue is empty.
#[derive(Debug, Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread. Joining it after the last `Writer` is gone waits until everything is written.
    pub fn start(store: Arc<dyn Store>) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name("fog-store".into()).spawn(move || run(&*store, queue))?;
        Ok((Self { jobs }, thread))
    }

    /// Queues a batch. The answer comes when it is committed; a full queue refuses it at once.
    pub fn submit(&self, batch: Batch, durability: Durability) -> Result<Committed, WriterFull> {
        let (reply, committed) = oneshot::channel();
        match self.jobs.try_send(Job { batch, durability, reply }) {
            Ok(()) => Ok(committed),
            Err(mpsc::error::TrySendError::Full(job)) => Err(WriterFull(job.batch)),
            Err(mpsc::error::TrySendError::Closed(job)) => {
                // Nobody may listen any more; then nobody needs the answer.
                let _unheard = job.reply.send(Err(StoreError::Closed));
                Ok(committed)
            }
        }
    }

    /// How many batches wait.
    pub fn waiting(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }
}

fn run(store: &dyn Store, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = first.batch;
        let mut durability = first.durability;
        let mut replies = vec![first.reply];
        while replies.len() < GROUP && group.bytes() < GROUP_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            group.append(next.batch);
            durability = durability.max(next.durability);
            replies.push(next.reply);
        }
        let outcome = store.commit(group, durability);
        if let Err(error) = &outcome {
            tracing::error!(%error, hint = error.hint(), batches = replies.len(), "the store refused a write");
        }
        for reply in replies {
            // A submitter that stopped listening does not care.
            let _unheard = reply.send(outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use super::{
        super::{MemoryStore, Row, Table},
        *,
    };

    /// Counts commits, waits at a gate, fails on demand.
    #[derive(Default)]
    struct Probe {
        rows: MemoryStore,
        commits: Mutex<Vec<(usize, Durability)>>,
        gate: Mutex<()>,
        full: AtomicBool,
    }

    impl Store for Probe {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.rows.get(table, key)
        }
        fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
            self.rows.scan(table, prefix)
        }
        fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
            let _open = self.gate.lock().unwrap();
            self.commits.lock().unwrap().push((batch.changes().len(), durability));
            if self.full.load(Ordering::SeqCst) {
                return Err(StoreError::Full("test".into()));
            }
            self.rows.commit(batch, durability)
        }
        fn compact(&self, table: Table) -> Result<(), StoreError> {
            self.rows.compact(table)
        }
    }

    fn batch(key: u8) -> Batch {
        let mut batch = Batch::new();
        batch.put(Table::Seen, [key], [key]);
        batch
    }

    #[test]
    fn batches_that_wait_are_committed_together_as_durably_as_the_most_demanding() {
        let store = Arc::new(Probe::default());
        let closed = store.gate.lock().unwrap();
        let (writer, thread) = Writer::start(store.clone()).unwrap();
        let mut answers: Vec<_> = (0..10).map(|key| writer.submit(batch(key), Durability::Relaxed).unwrap()).collect();
        answers.push(writer.submit(batch(10), Durability::Synced).unwrap());
        drop((closed, writer));
        thread.join().unwrap();
        for answer in answers {
            assert_eq!(answer.blocking_recv().unwrap(), Ok(()));
        }
        let commits = store.commits.lock().unwrap().clone();
        assert!(commits.len() <= 2, "the first alone, then the rest: {commits:?}");
        assert_eq!(commits.last().unwrap().1, Durability::Synced);
        assert_eq!(store.scan(Table::Seen, b"").unwrap().len(), 11, "dropping the writer loses nothing");
    }

    #[test]
    fn a_full_queue_refuses_and_gives_the_batch_back() {
        let store = Arc::new(Probe::default());
        let closed = store.gate.lock().unwrap();
        let (writer, thread) = Writer::start(store.clone()).unwrap();
        let mut accepted = 0;
        let refused = loop {
            match writer.submit(batch(1), Durability::Relaxed) {
                Ok(_) => accepted += 1,
                Err(WriterFull(batch)) => break batch,
            }
            assert!(accepted <= QUEUE + GROUP + 1);
        };
        assert_eq!(refused, batch(1));
        assert!(accepted >= QUEUE && writer.waiting() > 0);
        drop((closed, writer));
        thread.join().unwrap();
    }

    #[test]
    fn a_failed_commit_is_told_and_later_ones_succeed() {
        let store = Arc::new(Probe::default());
        let (writer, thread) = Writer::start(store.clone()).unwrap();
        store.full.store(true, Ordering::SeqCst);
        let answer = writer.submit(batch(1), Durability::Synced).unwrap().blocking_recv().unwrap();
        assert_eq!(answer, Err(StoreError::Full("test".into())));
        store.full.store(false, Ordering::SeqCst);
        assert_eq!(writer.submit(batch(2), Durability::Synced).unwrap().blocking_recv().unwrap(), Ok(()));
        drop(writer);
        thread.join().unwrap();
    }
}
