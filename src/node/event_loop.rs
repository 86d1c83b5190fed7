//! The event loop: it alone owns the swarm. Each arm hands what happened to one function; the wiring decides, `actions.rs` does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fog_base::{Epoch, Network, Now};
use fog_directory::Snapshot;
use futures::{FutureExt, StreamExt};
use libp2p::{PeerId, Swarm, swarm::SwarmEvent};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    behaviour::{Behaviour, BehaviourEvent, node_id},
    chat::ChatState,
    circuits::CircuitState,
    clock,
    command::Command,
    connect::Connects,
    event::Event,
    gossip::Copies,
    mixnet::{Mixnet, Stored},
    report::{Lifecycle, State},
    reputation,
    tasks::{self, Wants},
    wiring::Wiring,
};
use crate::{config::Config, keys::Keys, store::Writer};

/// How often dials, bans and waiting orders are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Events of the swarm that are taken at once when one is an envelope.
const TOGETHER: usize = 64;

/// Everything that runs in the node.
pub(super) struct EventLoop {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) wiring: Wiring,
    pub(super) connects: Connects,
    /// Of the running epoch and the next, and of the last while its grace lasts.
    pub(super) snapshots: BTreeMap<Epoch, Snapshot>,
    /// The loops a second that a seat owes; none without one.
    pub(super) loops: Option<f64>,
    pub(super) config: Config,
    pub(super) keys: Arc<Keys>,
    pub(super) network: Network,
    pub(super) store: Writer,
    pub(super) started: Now,
    pub(super) state: watch::Sender<State>,
    pub(super) lifecycle: mpsc::Sender<Lifecycle>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) mixnet: Mixnet,
    pub(super) chat: ChatState,
    pub(super) circuits: CircuitState,
    pub(super) tasks: Arc<tasks::Desk>,
    pub(super) wants: Wants,
    pub(super) gossip_copies: Copies,
    pub(super) stored: mpsc::Receiver<Stored>,
    pub(super) shutdown: CancellationToken,
}

impl EventLoop {
    /// Runs until the node is told to stop.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.shutdown.clone();
        self.start_chat();
        self.on_epoch();
        let mut next_epoch = self.next_epoch();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_swarm(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                Some(stored) = self.stored.recv() => self.on_stored(stored),
                Some(want) = self.wants.queue.recv() => self.on_want(want),
                Some(order) = self.circuits.exchanges.orders.recv() => self.on_mix_order(order),
                _ = tick.tick() => self.on_tick(),
                () = sleep_until(next_epoch) => {
                    self.on_epoch();
                    next_epoch = self.next_epoch();
                }
            }
        }
        self.stop();
        Ok(())
    }

    /// What comes from the swarm; with an envelope, whatever has come by now, so that envelopes are judged together.
    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.on_event(event);
        let mut events = 1;
        while self.unjudged() > 0 && events < TOGETHER {
            let Some(event) = self.swarm.select_next_some().now_or_never() else { break };
            self.on_event(event);
            events += 1;
        }
        if self.unjudged() > 0 {
            self.judge_envelopes();
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let Some(event) = Event::of(event) else { return };
        let now = clock::now();
        self.connects.observe(&event, &self.wiring.identity.network);
        let actions = self.wiring.handle(event, now);
        self.perform(actions, now);
        self.connects.settle(&self.wiring.peers, now.mono);
        self.update_state();
    }

    fn on_tick(&mut self) {
        let now = clock::now();
        let reputation = self.swarm.behaviour().reputation.reputation();
        let penalty = |peer: &PeerId| node_id(peer).map_or(0.0, |node| reputation.penalty(node, now.unix));
        self.wiring.peers.set_penalties(penalty);
        let actions = self.wiring.tick(now);
        self.perform(actions, now);
        self.chat_tick();
        self.circuits_tick();
        self.connects.settle(&self.wiring.peers, now.mono);
    }

    /// A new epoch begins: its snapshot, and (through the mix keys) its descriptor.
    fn on_epoch(&mut self) {
        let now = clock::now();
        self.refresh_snapshots(now);
        let actions = self.wiring.tick(now);
        self.perform(actions, now);
    }

    fn next_epoch(&self) -> Instant {
        let (now, schedule) = (clock::now(), self.network.schedule());
        let left = schedule.end(schedule.at(now.unix)).since(now.unix);
        // A millisecond more, so that rounding does not wake us before the boundary.
        Instant::from_std(now.mono) + left + Duration::from_millis(1)
    }

    fn update_state(&mut self) {
        let state = if self.wiring.peers.count() > 0 { State::Ready } else { State::Joining };
        let became_ready = self.state.send_if_modified(|old| std::mem::replace(old, state) != state);
        if became_ready && state == State::Ready {
            self.tell(Lifecycle::Ready);
        }
    }

    /// Tells `fog run`; a reader that does not keep up misses lines, and the node does not wait for it.
    pub(super) fn tell(&self, event: Lifecycle) {
        if self.lifecycle.try_send(event).is_err() {
            tracing::debug!("nobody reads the lifecycle events");
        }
    }

    /// Takes nothing new; what is queued for the store is written when the last `Writer` is dropped, which the caller waits for.
    fn stop(mut self) {
        self.state.send_replace(State::Stopping);
        self.tell(Lifecycle::Stopping);
        self.commands.close();
        let unsaved = reputation::batch(self.swarm.behaviour_mut().reputation.unsaved());
        self.write(unsaved);
        while let Ok(command) = self.commands.try_recv() {
            drop(command);
        }
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // A peer that left at the same moment is disconnected as well.
            let _left = self.swarm.disconnect_peer_id(peer);
        }
    }
}
