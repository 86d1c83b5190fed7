//! Circuits in this node: what they are started with, what they tell, and the exit, which connects to the internet for others.

mod exit;
mod paths;
mod record;
pub mod report;

use std::{sync::Arc, time::Instant};

use anyhow::Context as _;
use fog_base::{Network, relay::Role};
use fog_circuits::{CoreConfig, Event, ExitPolicy, Target};
use fog_services::runtime::MixOrder;
use libp2p::PeerId;
use tokio::sync::mpsc;

pub(super) use self::paths::Book;
use super::{
    behaviour::node_id,
    clock,
    event_loop::EventLoop,
    reputation::Offence,
    services::{Desk, HOPS, mixed::Exchanges},
    transport,
};
use crate::{config::Config, keys::Keys};

/// Circuits built ahead of need.
const SPARES: usize = 2;
/// Those for services: relays before the end, and how many there are. Of the first kind is a client's rendezvous, of the second all else.
const SERVICE_SPARES: [(usize, usize); 2] = [(HOPS - 1, 2), (HOPS, 4)];

/// What the event loop holds of circuits and services.
#[derive(Debug)]
pub(super) struct CircuitState {
    pub(super) desk: Arc<Desk>,
    pub(super) book: Book,
    pub(super) exchanges: Exchanges,
    /// What services know of the network.
    told: fog_services::runtime::Network,
    /// When it was last asked which relays fail.
    judged: Option<Instant>,
    exit: exit::Exit,
    recorder: Option<record::Recorder>,
}

impl CircuitState {
    pub(super) fn new(
        config: &Config,
        desk: Arc<Desk>,
        book: Book,
        orders: mpsc::Receiver<MixOrder>,
    ) -> anyhow::Result<Self> {
        let recorder = config.faults.record.then(|| record::Recorder::open(&config.data_dir)).transpose();
        let recorder = recorder.context("the record of circuits cannot be written")?;
        let (exchanges, exit) = (Exchanges::new(orders), exit::Exit::new(policy(config)));
        Ok(Self { desk, book, exchanges, told: Default::default(), judged: None, exit, recorder })
    }

    /// Something came through the mixnet for services: a test may want to see it.
    pub(super) fn record_mixed(&mut self, bytes: &[u8]) {
        self.recorder.iter_mut().for_each(|recorder| recorder.add_mixed(bytes));
    }
}

/// What this node connects to for others: nothing, unless it is an exit.
pub(super) fn policy(config: &Config) -> ExitPolicy {
    if !config.roles.has(Role::Exit) {
        return ExitPolicy::default();
    }
    // The configuration was checked when it was read.
    let policy = ExitPolicy::parse(&config.exit_policy).unwrap_or_default();
    if config.exit_private { policy.with_private() } else { policy }
}

/// What this node asks exits for: names and addresses of the internet, unless it may ask for private ones.
pub(super) fn asked(config: &Config) -> ExitPolicy {
    let all = ExitPolicy::parse("accept *").unwrap_or_default();
    if config.exit_private { all.with_private() } else { all }
}

/// What of it is published, so that nobody builds circuits in vain.
pub(super) fn published(config: &Config) -> Option<String> {
    config.roles.has(Role::Exit).then(|| config.exit_policy.clone())
}

/// Starts the threads of circuits.
pub(super) fn start(
    config: &Config,
    keys: &Keys,
    network: &Network,
    book: &Book,
) -> anyhow::Result<fog_circuits::Behaviour> {
    let core = CoreConfig {
        is_relay: !config.roles.is_empty(),
        exit: policy(config),
        hops: HOPS,
        spares: SPARES,
        service_spares: SERVICE_SPARES.to_vec(),
        drops_circuits: config.faults.circuits,
        is_recorded: config.faults.record,
        ..CoreConfig::default()
    };
    let settings = fog_circuits::Config {
        network: network.id,
        id: keys.node_id(),
        secret: keys.circuit_secret(),
        core,
        // In a network on one host or one LAN relays have no other addresses.
        allows_private: network.is_lan() || transport::listens_on_loopback_only(&config.listen),
    };
    fog_circuits::Behaviour::new(settings, book.source()).context("circuits cannot be started")
}

impl EventLoop {
    /// What circuits tell.
    pub(super) fn on_circuits(&mut self, event: Event) {
        match event {
            Event::Inbound { target: Target::Host(host, port), request, .. } => {
                exit::connect(&self.circuits.exit, (host, port), request);
            }
            Event::Blame { peer, reason } => self.blame(&peer, reason.name()),
            Event::Experience(all) => {
                all.into_iter().map(super::reputation::of_circuit).for_each(|evidence| self.learn(evidence));
            }
            Event::Recorded(record) => self.circuits.recorder.iter_mut().for_each(|recorder| recorder.add(&record)),
            Event::Stopped => {
                tracing::error!("the threads of circuits have ended: the node stops");
                self.shutdown.cancel();
            }
            event => {
                let circuit = match &event {
                    Event::Message { circuit, .. } | Event::Opened { circuit, .. } | Event::Inbound { circuit, .. } => {
                        Some(*circuit)
                    }
                    _ => None,
                };
                if !self.circuits.desk.services.handle(event)
                    && let Some(circuit) = circuit
                {
                    self.circuits.desk.circuits.close(circuit);
                }
            }
        }
    }

    fn blame(&mut self, peer: &PeerId, reason: &str) {
        let Some(node) = node_id(peer) else { return };
        tracing::debug!(%peer, reason, "a peer broke the rules of circuits");
        let now = clock::now();
        let actions = self.wiring.handle_offence(node, Offence::Invalid, now);
        self.perform(actions, now);
    }
}
