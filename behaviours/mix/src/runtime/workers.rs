//! The worker threads: each takes a batch that waits, processes it, and hands the outcomes to the engine.

use std::{
    sync::{Arc, Mutex, mpsc::SyncSender},
    thread::JoinHandle,
};

use super::{
    buffers::Buffers,
    engine::Input,
    ingress::{BATCH, Ingress},
    keystore::KeyStore,
    lock,
    stats::Stats,
};
use crate::core::{
    keyring::Keyring,
    relay::{Done, Processor},
};

/// The keyring, replaced as a whole when it rotates.
pub type SharedKeyring = Mutex<Arc<Keyring>>;

/// What a worker needs.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Where packets come from.
    pub ingress: Arc<Ingress>,
    /// The rules.
    pub processor: Arc<Processor>,
    /// The keys.
    pub keyring: Arc<SharedKeyring>,
    /// Where fingerprints are logged.
    pub keystore: Arc<KeyStore>,
    /// Where spent buffers go.
    pub buffers: Arc<Buffers>,
    /// Counters.
    pub stats: Arc<Stats>,
}

impl Worker {
    /// Starts a thread that works until the ingress is closed or the engine is gone.
    pub fn spawn(self, number: usize, engine: SyncSender<Input>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(format!("fog-mix-{number}")).spawn(move || self.run(&engine))
    }

    fn run(&self, engine: &SyncSender<Input>) {
        let mut arrivals = Vec::with_capacity(BATCH);
        let mut done = Done::default();
        while self.ingress.take(&mut arrivals) {
            Stats::add(&self.stats.received, arrivals.len());
            let keyring = Arc::clone(&lock(&self.keyring));
            let now = super::now().unix;
            self.processor.process(&keyring, &*self.keystore, &mut arrivals, now, &self.stats.drops, &mut done);
            self.buffers.give(&mut done.spent);
            let outcomes = std::mem::replace(&mut done.outcomes, Vec::with_capacity(BATCH));
            if !outcomes.is_empty() && engine.send(Input::Processed(outcomes)).is_err() {
                return;
            }
        }
    }
}
