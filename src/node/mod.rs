//! The running node: composition and IO. Protocol rules live in `behaviours/`; what one protocol tells another passes through
//! `wiring.rs`.
//!
//! | file | what it is |
//! |---|---|
//! | `transport.rs`, `muxer.rs`, `behaviour.rs` | the swarm, and the protocols that it speaks |
//! | `event_loop.rs`, `event.rs`, `wiring.rs`, `actions.rs` | what happens, what follows from it, and the doing |
//! | `kad.rs` | what passes between Kademlia and the directory |
//! | `reachability.rs`, `peers.rs`, `contacts.rs`, `clock.rs` | what the wiring knows, each a pure part with its tests |
//! | `reputation.rs` | what happens, as evidence about peers, and what follows from their reputation |
//! | `handle.rs`, `command.rs`, `commands.rs`, `connect.rs` | questions to a running node, and their answers |
//! | `gossip.rs`, `chain.rs` | the topics; the certified sets in the store |
//! | `circuits/`, `services/` | circuits, the exit, `.fog` services and the way of the proxy to them |
//! | `tasks/` | fog compute: its thread, task processes, the host, what people do with it |
//! | `chat/` | chat: its events, what people do with it, its rows and its key |
//! | `mixnet.rs`, `traffic.rs`, `inbox.rs` | the mixnet's events and commands, who waits for what, messages that arrived |
//! | `report.rs`, `status.rs`, `relays.rs`, `metrics.rs` | what it tells of itself |

mod actions;
mod behaviour;
mod chain;
pub mod chat;
pub mod circuits;
pub(crate) mod clock;
pub mod command;
mod commands;
mod connect;
mod contacts;
mod event;
mod event_loop;
mod gossip;
pub mod handle;
mod inbox;
mod kad;
mod metrics;
mod mixnet;
mod muxer;
mod peers;
mod reachability;
mod relays;
pub mod report;
mod reputation;
pub mod services;
mod status;
pub mod tasks;
mod traffic;
mod transport;
mod wiring;

use std::{sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use fog_base::Network;
use fog_directory::core::council::Council;
use libp2p::Multiaddr;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use self::{
    chain::mark_restored,
    mixnet::{mailboxes, stored_mailboxes},
    report::Lifecycle,
};
use self::{
    circuits::CircuitState,
    connect::Connects,
    event_loop::EventLoop,
    gossip::Copies,
    handle::{COMMAND_QUEUE, NodeHandle},
    mixnet::Mixnet,
    report::State,
    wiring::{Identity, Wiring},
};
use crate::{
    config::Config,
    keys::Keys,
    store::{Batch, Durability, Store, Table, Writer},
};

/// Lifecycle events that may wait for their reader.
const LIFECYCLE_QUEUE: usize = 64;
/// How long the store may take to write what is queued when the node stops.
const FLUSH: Duration = Duration::from_secs(4);

/// A node that runs.
#[derive(Debug)]
pub struct RunningNode {
    /// Asks it.
    pub handle: NodeHandle,
    /// What it tells while it runs.
    pub events: mpsc::Receiver<Lifecycle>,
    /// Ends when it has stopped.
    pub join: JoinHandle<anyhow::Result<()>>,
}

/// Starts a node; it stops when `shutdown` is cancelled. Must be called within a tokio runtime.
pub fn start(
    config: Config,
    keys: Keys,
    store: Arc<dyn Store>,
    network: Network,
    shutdown: CancellationToken,
) -> anyhow::Result<RunningNode> {
    let network_id = network.id;
    let x25519 = fog_x25519::Backend::from_env()?;
    tracing::info!(backend = x25519.name(), "X25519");
    let keys = Arc::new(keys);
    let (writer, flushed) = Writer::start(Arc::clone(&store)).context("the store's writer cannot be started")?;
    let inbox = mixnet::open_inbox(&config, &store, &writer)?;
    let inbox_seen = inbox.watch();
    let mix = mixnet::start(&config, &keys, &network, &*store, &inbox)?;
    let (chat, blobs, mut chat_state) = chat::open(&config, &keys, &network, &store)?;
    let chat_news = chat_state.news.clone();
    let council = council(&config, &keys, &network, &store)?;
    let book = circuits::Book::new(&keys, &*store)?;
    let onion = circuits::start(&config, &keys, &network, &book)?;
    let (orders, order_queue) = mpsc::channel(services::mixed::ORDERS);
    let ways = (onion.circuits(), orders);
    let desk = services::Desk::start(&keys, &network, ways, (&store, &writer), circuits::asked(&config))?;
    let (compute, streams, arrived) = fog_tasks::Behaviour::new(&network_id);
    let (tasks, wants) = tasks::start(&config, &keys, &network, (&store, &writer), (streams, arrived), &shutdown)?;
    let gossip_copies = Copies::default();
    let mut swarm =
        transport::build(&config, &keys, &network, council, (mix, onion, chat, blobs, compute), &gossip_copies)?;
    let mut expired = load_descriptors(&mut swarm, &*store)?;
    expired.append(load_reputation(&mut swarm, &*store)?);
    chat_state.take_resumed(swarm.behaviour_mut().blobs.resume());
    transport::listen(&mut swarm, &config.listen)?;
    let now = clock::now();
    let (mixnet, stored) = Mixnet::new(inbox, mixnet::stored_mailboxes(&*store)?);
    if !expired.is_empty() && writer.submit(expired, Durability::Relaxed).is_err() {
        tracing::debug!("what is of no use any more stays in the store until the next start");
    }
    let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
    let (state, state_seen) = watch::channel(State::Joining);
    let (lifecycle, events) = mpsc::channel(LIFECYCLE_QUEUE);
    let mut wiring = Wiring::new(identity(&config, &keys, &network, &swarm), &bootstrap(&config, &network)?, now);
    restore_bans(&mut swarm, &mut wiring, now);
    let node = EventLoop {
        wiring,
        connects: Connects::default(),
        snapshots: Default::default(),
        loops: None,
        mixnet,
        circuits: CircuitState::new(&config, Arc::clone(&desk), book, order_queue)?,
        chat: chat_state,
        tasks,
        wants,
        gossip_copies,
        stored,
        store: writer,
        started: now,
        commands: command_queue,
        swarm,
        config,
        keys,
        network,
        state,
        lifecycle,
        shutdown,
    };
    let join = tokio::spawn(run(node, flushed));
    Ok(RunningNode { handle: NodeHandle::new(commands, state_seen, (inbox_seen, chat_news), network_id), events, join })
}

async fn run(node: EventLoop, flushed: thread::JoinHandle<()>) -> anyhow::Result<()> {
    let outcome = node.run().await;
    // The loop, and with it the last writer, is gone: the thread writes what is queued and ends.
    let flush = tokio::task::spawn_blocking(move || flushed.join());
    match timeout(FLUSH, flush).await {
        Ok(Ok(Ok(()))) => outcome,
        Ok(_) => outcome.and(Err(anyhow::anyhow!("the store's writer failed"))),
        Err(_) => outcome.and(Err(anyhow::anyhow!("the store did not write everything in time"))),
    }
}

/// This node's part in the certified sets of a network whose file names relays; the others are open and certify nothing.
fn council(config: &Config, keys: &Keys, network: &Network, store: &Arc<dyn Store>) -> anyhow::Result<Option<Council>> {
    if network.genesis.is_empty() {
        return Ok(None);
    }
    let kept = chain::load(&config.data_dir, network.id, store)?;
    let council = Council::new(network, Arc::new(keys.identity().clone()), kept, clock::now());
    council.map(Some).context("the relays of the network file cannot certify anything")
}

/// Gives the stored descriptors to the directory; those that are over are to be deleted.
fn load_descriptors(swarm: &mut libp2p::Swarm<behaviour::Behaviour>, store: &dyn Store) -> anyhow::Result<Batch> {
    let mut expired = Batch::new();
    for (relay, bytes) in store.scan(Table::Descriptors, &[])? {
        if let Err(error) = swarm.behaviour_mut().directory.load(&bytes) {
            tracing::debug!(%error, "a stored descriptor is of no use any more");
            expired.delete(Table::Descriptors, relay);
        }
    }
    let behaviour = swarm.behaviour_mut();
    for descriptor in behaviour.directory.relays().iter().cloned() {
        behaviour.kad.keep(descriptor);
    }
    Ok(expired)
}

/// Gives the stored evidence to reputation; what cannot be read is to be deleted.
fn load_reputation(swarm: &mut libp2p::Swarm<behaviour::Behaviour>, store: &dyn Store) -> anyhow::Result<Batch> {
    let mut useless = Batch::new();
    for (key, value) in store.scan(Table::Reputation, &[])? {
        if let Err(error) = swarm.behaviour_mut().reputation.load(&key, &value) {
            tracing::debug!(%error, "stored evidence is of no use any more");
            useless.delete(Table::Reputation, key);
        }
    }
    Ok(useless)
}

/// Who was banned before the restart still is.
fn restore_bans(swarm: &mut libp2p::Swarm<behaviour::Behaviour>, wiring: &mut Wiring, now: fog_base::Now) {
    let banned: Vec<_> = swarm.behaviour().reputation.reputation().banned(now.unix).collect();
    for (peer, until, met) in banned {
        if let Some(peer) = behaviour::peer_id(peer) {
            swarm.behaviour_mut().blocked.block_peer(peer);
            if let Some(displaced) = wiring.peers.ban(peer, until, met) {
                swarm.behaviour_mut().blocked.unblock_peer(displaced);
            }
        }
    }
}

fn identity(config: &Config, keys: &Keys, network: &Network, swarm: &libp2p::Swarm<behaviour::Behaviour>) -> Identity {
    Identity {
        me: *swarm.local_peer_id(),
        network_id: network.id,
        network: transport::network_name(network),
        kad: transport::kad_name(network),
        schedule: network.schedule(),
        roles: config.roles,
        seal_key: keys.seal_public(),
        circuit_key: keys.circuit_public(),
        exit_policy: circuits::published(config),
        capacity: config.limits.packets_per_second,
        max_connections: usize::try_from(config.limits.connections).unwrap_or(usize::MAX),
    }
}

/// The first contacts: those of the network file and those of the configuration.
fn bootstrap(config: &Config, network: &Network) -> anyhow::Result<Vec<Multiaddr>> {
    let named = network.bootstrap.iter().map(|text| {
        text.parse::<Multiaddr>().with_context(|| format!("the network file's bootstrap address `{text}` is not one"))
    });
    let mut all: Vec<_> = named.collect::<anyhow::Result<_>>()?;
    all.extend(config.bootstrap.iter().cloned());
    Ok(all)
}

#[cfg(test)]
mod tests;
