//! Starting and stopping the threads.

use std::{
    io,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
};

use fog_base::relay::{PathSelector, Role, Roles};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::mpsc as events;

use super::{
    buffers::Buffers,
    engine::{DelaySalt, EVENTS, Engine, Event, INPUTS, Input, Parts},
    faults::Faults,
    ingress::Ingress,
    keystore::{KeyStore, KeyStoreConfig},
    links::Links,
    stats::Stats,
    workers::Worker,
};
use crate::core::{
    endpoint::{self, Endpoint, Restored, Secrets, SendError},
    mailbox::{Mailbox, MailboxLimits},
    relay::Processor,
};

/// How much a node takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Packets a second from one peer, on average.
    pub link_rate: f64,
    /// Packets at once from one peer.
    pub link_burst: f64,
    /// Packets a second from all peers.
    pub total_rate: f64,
    /// Packets in the mixing pool.
    pub pool: usize,
    /// Of the mailbox.
    pub mailbox: MailboxLimits,
}

/// Everything that the mixnet needs to start.
pub struct Config {
    /// What the endpoint needs.
    pub endpoint: endpoint::Config,
    /// Its keys.
    pub secrets: Secrets,
    /// What an earlier run left.
    pub restored: Restored,
    /// The mailbox's entries that an earlier run left.
    pub stored: Vec<(Vec<u8>, Vec<u8>)>,
    /// What this node does for others.
    pub roles: Roles,
    /// Worker threads; 0 for as many as there are cores.
    pub workers: usize,
    /// Bounds.
    pub limits: Limits,
    /// Where mix keys are kept.
    pub keys: KeyStoreConfig,
    /// This relay's VRF output for each epoch.
    pub delay_salt: DelaySalt,
    /// Fault injection, for tests.
    pub faults: Option<Faults>,
    /// Where paths come from at first.
    pub paths: Arc<dyn PathSelector + Send + Sync>,
    /// 32 random bytes.
    pub seed: [u8; 32],
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("endpoint", &self.endpoint).field("roles", &self.roles).finish_non_exhaustive()
    }
}

/// Why the mixnet could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The mix keys.
    #[error("the mix keys in {0} could not be opened: {1}")]
    Keys(std::path::PathBuf, io::Error),
    /// A key of the node.
    #[error(transparent)]
    Endpoint(#[from] SendError),
    /// A thread.
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
}

/// The running threads. Dropping it stops them.
#[derive(Debug)]
pub struct Runtime {
    /// To the engine.
    pub engine: mpsc::SyncSender<Input>,
    /// From the engine.
    pub events: events::Receiver<Event>,
    /// To the workers.
    pub ingress: Arc<Ingress>,
    /// To the peers.
    pub links: Arc<Links>,
    /// Packet buffers.
    pub buffers: Arc<Buffers>,
    /// Counters.
    pub stats: Arc<Stats>,
    engine_thread: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
}

impl Runtime {
    /// Starts the engine and the workers.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let now = super::now();
        let mut rng = StdRng::from_seed(config.seed);
        let stats = Arc::new(Stats::default());
        let directory = config.keys.directory.clone();
        let (keystore, stored_keys) = KeyStore::open(config.keys).map_err(|e| StartError::Keys(directory, e))?;
        let keystore = Arc::new(keystore);
        let (me, network) = (config.endpoint.me, config.endpoint.network);
        let (schedule, delays) = (config.endpoint.schedule, config.endpoint.delays);
        let drops = Arc::clone(&stats.drops);
        let endpoint =
            Endpoint::new(config.endpoint, config.secrets, config.restored, config.paths, drops, rng.random(), now)?;
        let ingress = Arc::new(Ingress::new(config.limits.total_rate, now.mono));
        let links = Arc::new(Links::new(config.limits.link_rate, config.limits.link_burst));
        let (buffers, keyring) = (Arc::new(Buffers::default()), Arc::new(Mutex::default()));
        let (engine, inputs) = mpsc::sync_channel(INPUTS);
        let (event_sender, events) = events::channel(EVENTS);
        // As many packets as the total rate lets in while a key is accepted.
        let lifetime = schedule.length() + schedule.grace() * 2;
        let replay_capacity = (config.limits.total_rate * lifetime.as_secs_f64()) as usize;
        let processor = Arc::new(Processor { schedule, delays, forwards: config.roles.has(Role::Mix) });
        let worker = Worker {
            ingress: Arc::clone(&ingress),
            processor,
            keyring: Arc::clone(&keyring),
            keystore: Arc::clone(&keystore),
            buffers: Arc::clone(&buffers),
            stats: Arc::clone(&stats),
        };
        let parts = Parts {
            endpoint,
            mailbox: Mailbox::new(me, network, config.limits.mailbox, config.stored),
            roles: config.roles,
            schedule,
            delays,
            pool: config.limits.pool,
            replay_capacity,
            delay_salt: config.delay_salt,
            faults: config.faults,
            keyring,
            keystore,
            links: Arc::clone(&links),
            buffers: Arc::clone(&buffers),
            stats: Arc::clone(&stats),
            rng,
        };
        let state = Engine::new(parts, stored_keys, inputs, event_sender, now);
        let engine_thread = std::thread::Builder::new()
            .name("fog-mix-engine".into())
            .spawn(move || state.run())
            .map_err(StartError::Thread)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { cores } else { config.workers };
        let workers = (0..count).map(|n| worker.clone().spawn(n, engine.clone())).collect::<io::Result<_>>();
        let workers = workers.map_err(StartError::Thread)?;
        Ok(Self { engine, events, ingress, links, buffers, stats, engine_thread: Some(engine_thread), workers })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.ingress.close();
        // The engine may be waiting for room for an event, a worker for room for an outcome: nobody reads any more.
        self.events.close();
        while self.events.try_recv().is_ok() {}
        let mut stop = Input::Stop;
        while let Err(mpsc::TrySendError::Full(back)) = self.engine.try_send(stop) {
            stop = back;
            std::thread::yield_now();
        }
        for thread in self.engine_thread.take().into_iter().chain(self.workers.drain(..)) {
            if thread.join().is_err() {
                tracing::error!("a mixnet thread has panicked");
            }
        }
    }
}
