//! What the node tells of itself: the values of `report.rs`, from what its parts know.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use fog_base::Epoch;
use fog_directory::Snapshot;
use libp2p::multiaddr::Protocol;

use super::{
    clock, command::Failure, connect, event_loop::EventLoop, handle::COMMAND_QUEUE, metrics::Metrics, peers::PathKind,
    reachability::multiaddr, report,
};
use crate::{
    invite::{self, Invite},
    platform, store,
};

impl EventLoop {
    /// The snapshot that a packet sent now is built from.
    pub(super) fn sending_snapshot(&self) -> Option<&Snapshot> {
        self.snapshots.get(&self.network.schedule().for_sending(clock::now().unix))
    }

    pub(super) fn status(&self) -> report::Status {
        let (now, schedule) = (clock::now(), self.network.schedule());
        let epoch = schedule.at(now.unix);
        let snapshot = self.sending_snapshot();
        let names = |show: bool| {
            let names = if show { self.config.roles.names() } else { Vec::new() };
            names.into_iter().map(str::to_owned).collect()
        };
        let is_published = self.swarm.behaviour().directory.is_published() && self.wiring.is_serving();
        report::Status {
            peer_id: self.swarm.local_peer_id().to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            network: self.network.name.clone(),
            network_id: self.network.id.to_string(),
            uptime_s: now.mono.saturating_duration_since(self.started.mono).as_secs(),
            state: *self.state.borrow(),
            epoch: report::EpochStatus { number: epoch.0, ends_in_s: schedule.end(epoch).since(now.unix).as_secs() },
            peers: self.peer_counts(),
            relays: report::RelayCounts {
                known: self.swarm.behaviour().directory.relays().len(),
                seated: snapshot.map_or(0, Snapshot::seated),
            },
            snapshot_root: snapshot.map_or_else(String::new, |snapshot| hex(&snapshot.root())),
            roles: names(is_published),
            roles_waiting: names(!is_published),
            certified: snapshot.is_some_and(Snapshot::is_certified),
            sybil_resistance: if self.network.genesis.is_empty() { "none" } else { "stake" }.into(),
            x25519: fog_x25519::Backend::current().name().into(),
            mix: self.mix_status(),
            memory_bytes: platform::resident_memory(),
            limits: self.limits(),
            warnings: self.warnings(),
        }
    }

    pub(super) fn peer_counts(&self) -> report::PeerCounts {
        let views = self.wiring.peers.views(clock::now().mono);
        let count = |path| views.iter().filter(|view| view.path == path).count();
        report::PeerCounts {
            connected: views.len(),
            lan: count(PathKind::Lan),
            direct: count(PathKind::Direct),
            relayed: count(PathKind::Relayed),
        }
    }

    fn mix_status(&self) -> report::MixStatus {
        let stats = self.swarm.behaviour().mix.stats();
        let (count, engine) = (|counter: &AtomicU64| counter.load(Ordering::Relaxed), stats.status());
        report::MixStatus {
            ready: engine.ready,
            received: count(&stats.received),
            forwarded: count(&stats.forwarded),
            delivered: count(&stats.delivered),
            sent: count(&stats.sent),
            cover_sent: count(&stats.cover_sent),
            loops_returned: engine.loops_returned,
            loops_lost: engine.loops_lost,
            mailboxes: engine.mailboxes.iter().map(ToString::to_string).collect(),
            dropped: stats.drops.snapshot().map(|(reason, n)| (reason.name().to_owned(), n)).collect(),
            queue: stats.pool.load(Ordering::Relaxed),
        }
    }

    fn limits(&self) -> BTreeMap<String, report::Limit> {
        let limit = |used: usize, max: usize| report::Limit { used: used as u64, max: max as u64 };
        let relays = self.swarm.behaviour().directory.relays();
        let (unpublished, max_unpublished) = self.wiring.unpublished();
        let memory_max = self.config.limits.memory_mib.saturating_mul(1024 * 1024);
        let mix = &self.swarm.behaviour().mix;
        let (waiting, max_waiting) = mix.ingress_usage();
        let (inbox, max_inbox) = self.mixnet.inbox.usage();
        let mut limits = BTreeMap::from([
            ("inbox_bytes".into(), report::Limit { used: inbox, max: max_inbox }),
            ("mix_ingress".into(), limit(waiting, max_waiting)),
            ("connections".into(), limit(self.wiring.peers.connections(), self.wiring.identity.max_connections)),
            ("memory_bytes".into(), report::Limit { used: platform::resident_memory(), max: memory_max }),
            ("relays".into(), limit(relays.len(), relays.capacity())),
            ("unpublished".into(), limit(unpublished, max_unpublished)),
            ("store_queue".into(), limit(self.store.waiting(), store::WRITER_QUEUE)),
            ("commands".into(), limit(self.commands.len(), COMMAND_QUEUE)),
            ("connecting".into(), limit(self.connects.len(), connect::MAX_WAITING)),
        ]);
        let engine = mix.stats().status().usage;
        limits.extend(engine.into_iter().map(|(name, used, max)| (name.to_owned(), report::Limit { used, max })));
        limits
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.wiring.clocks.warnings();
        let engine = self.swarm.behaviour().mix.stats().status();
        if engine.loop_alarm {
            warnings
                .push("many loop packets do not come back: relays are failing, or somebody holds packets back".into());
        }
        warnings.extend(engine.trouble);
        warnings.extend(self.serving_warning());
        warnings.extend(self.unseated_warning());
        warnings.extend(self.chat_warning());
        warnings.extend(self.tasks.warnings());
        warnings.extend(self.short_paths_warning());
        if self.config.faults.any() {
            warnings.push("`[faults]` is set: this node harms its own links, or records what comes, for a test".into());
        }
        warnings
    }

    pub(super) fn peers(&self) -> Vec<report::Peer> {
        let views = self.wiring.peers.views(clock::now().mono);
        let peer = |view: super::peers::PeerView| report::Peer {
            peer_id: view.id.to_string(),
            address: view.address.to_string(),
            path: view.path.name().into(),
            rtt_ms: view.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            agent: view.agent,
            score: view.score,
            connected_s: view.connected.as_secs(),
        };
        views.into_iter().map(peer).collect()
    }

    pub(super) fn identity(&mut self) -> Result<report::Identity, Failure> {
        let mut addresses: Vec<_> = self.wiring.reachability.invited().into_iter().filter_map(multiaddr).collect();
        addresses.truncate(invite::MAX_ADDRESSES);
        let (time, card) = (clock::now(), self.swarm.behaviour_mut().chat.chat_mut());
        let (now, card) = (time.unix, card.card(time).to_bytes());
        let invite = Invite::create(
            &self.keys,
            &self.network,
            &addresses,
            &self.invite_mailboxes(),
            &card,
            now,
            invite::LIFETIME,
        )
        .map_err(|error| Failure::failed(error.to_string(), ""))?;
        let me = *self.swarm.local_peer_id();
        Ok(report::Identity {
            peer_id: me.to_string(),
            addresses: addresses.into_iter().map(|address| address.with(Protocol::P2p(me)).to_string()).collect(),
            invite: invite.to_string(),
        })
    }

    pub(super) fn metrics(&mut self) -> Result<String, Failure> {
        let mut metrics = Metrics::default();
        let kad = &mut self.swarm.behaviour_mut().kad;
        metrics.gauge("kademlia_peers", "Peers in the routing table", kad.peers() as f64);
        metrics.gauge("kademlia_records", "Descriptors that are answered with", kad.records() as f64);
        metrics.counter("kademlia_delayed", "Answers held back because a peer asked too fast", kad.delayed());
        self.network_metrics(&mut metrics);
        self.directory_metrics(&mut metrics);
        self.mix_metrics(&mut metrics);
        self.chat_metrics(&mut metrics);
        self.circuit_metrics(&mut metrics);
        self.tasks.add_metrics(&mut metrics);
        self.reputation_metrics(&mut metrics);
        self.lan_metrics(&mut metrics);
        let now = clock::now();
        let uptime = now.mono.saturating_duration_since(self.started.mono);
        metrics.gauge("uptime_seconds", "Seconds since the node started", uptime.as_secs_f64());
        metrics.gauge("memory_bytes", "Resident memory", platform::resident_memory() as f64);
        let limits = self.limits();
        let used = limits.iter().map(|(name, limit)| (name.clone(), limit.used as f64)).collect();
        metrics.gauges("limit_used", "What of a bounded thing is in use", "limit", used);
        let max = limits.iter().map(|(name, limit)| (name.clone(), limit.max as f64)).collect();
        metrics.gauges("limit_max", "Its bound", "limit", max);
        metrics.drops(&[
            ("node", &self.wiring.drops),
            ("mix", &self.swarm.behaviour().mix.stats().drops),
            ("directory", self.swarm.behaviour().directory.relays().drops()),
            ("exchange", self.swarm.behaviour().directory.exchange_drops()),
            ("reputation", self.swarm.behaviour().reputation.reputation().drops()),
            ("reputation_exchange", self.swarm.behaviour().reputation.exchange().drops()),
            ("kademlia", self.swarm.behaviour().kad.drops()),
            ("chat", &self.chat_drops()),
            ("circuits", self.circuits.desk.circuits.drops()),
            ("blobs", self.swarm.behaviour().blobs.drops()),
        ]);
        metrics.encode().map_err(|_| Failure::failed("the metrics cannot be written", ""))
    }

    fn network_metrics(&self, metrics: &mut Metrics) {
        let (counts, peers) = (self.wiring.counts, self.peer_counts());
        let by_path = [("lan", peers.lan), ("direct", peers.direct), ("relayed", peers.relayed)];
        let by_path = by_path.map(|(path, n)| (path.to_owned(), n as f64)).to_vec();
        metrics.gauges("peers", "Connected peers of this network, by path", "path", by_path);
        let made = vec![("in".into(), counts.connected_in), ("out".into(), counts.connected_out)];
        metrics.counters("connections", "Connections that were made", "direction", made);
        metrics.counter("connections_closed", "Connections that ended", counts.disconnected);
        let failed = vec![("in".into(), counts.inbound_failed), ("out".into(), counts.dials_failed)];
        metrics.counters("connections_failed", "Attempts to connect that failed", "direction", failed);
        metrics.counter("other_network", "Peers of another network that were sent away", counts.other_network);
        metrics.counter("gossip_received", "Gossip messages that came", counts.gossip);
        let copies = self.gossip_copies.get();
        metrics.counter("gossip_copies", "The same, each copy counted, and this node's own messages", copies);
        metrics.counter("offences", "Times that a peer did what no honest one does", counts.offences);
        metrics.counter("bans", "Peers that were banned", counts.bans);
        let ready = *self.state.borrow() == report::State::Ready;
        metrics.gauge("ready", "1 while the node has a peer", f64::from(u8::from(ready)));
    }

    fn lan_metrics(&self, metrics: &mut Metrics) {
        let Some(lan) = self.swarm.behaviour().lan.as_ref().map(fog_lan::Behaviour::lan) else { return };
        let counts = lan.counts();
        metrics.gauge("lan_neighbours", "Nodes on the LAN whose beacons are heard", lan.neighbours() as f64);
        metrics.counter("lan_beacons_sent", "Beacons that were sent", counts.sent);
        metrics.counter("lan_beacons_believed", "Beacons of others that were believed", counts.believed);
        let refused = fog_lan::Reject::ALL.map(|reason| (reason.name().to_owned(), counts.refused(reason))).to_vec();
        metrics.counters("lan_packets_refused", "Packets that were no beacon to believe", "reason", refused);
    }

    fn mix_metrics(&self, metrics: &mut Metrics) {
        let mix = self.mix_status();
        metrics.counter("mix_received", "Packets that came from peers", mix.received);
        metrics.counter("mix_forwarded", "Packets sent on to a next hop", mix.forwarded);
        metrics.counter("mix_delivered", "Packets whose last hop was this node", mix.delivered);
        metrics.counter("mix_sent", "Packets of this node's own that left", mix.sent);
        metrics.counter("mix_cover_sent", "Of those, loops and drop packets", mix.cover_sent);
        metrics.counter("mix_loops_returned", "Loops that came back", mix.loops_returned);
        metrics.counter("mix_loops_lost", "Loops that did not", mix.loops_lost);
        metrics.gauge("mix_pool", "Packets in the mixing pool", mix.queue as f64);
        metrics.gauge("mix_ready", "1 while a path of the default length can be built", f64::from(u8::from(mix.ready)));
    }

    fn chat_metrics(&self, metrics: &mut Metrics) {
        let counts = self.swarm.behaviour().chat.chat().counts();
        metrics.gauge("chat_queued", "Own messages that wait for something", counts.queued as f64);
        metrics.gauge("chat_carried", "Envelopes carried for others", counts.carried_for_others as f64);
        metrics.gauge("chat_conversations", "Conversations", counts.conversations as f64);
        metrics.counter("chat_desynced", "Direct conversations that lost step", counts.desynced);
        metrics.counter("chat_healed", "Direct conversations that found it again", counts.healed);
    }

    fn circuit_metrics(&self, metrics: &mut Metrics) {
        let desk = &self.circuits.desk;
        let counts = desk.circuits.counts();
        metrics.gauge("circuits_own", "Circuits that this node built", counts.own as f64);
        let [failing, silent] = self.circuits.book.passed_over();
        let passed = vec![("experience".into(), failing as f64), ("no answer".into(), silent as f64)];
        metrics.gauges("circuits_passed_over", "Relays that circuits pass over where there are others", "why", passed);
        metrics.gauge("circuits_relayed", "Circuits of others through this node", counts.relayed as f64);
        let services = desk.services.counts();
        let (descriptors, points, waiting) = services.held;
        metrics.gauge("service_sessions", "Open connections of this node to services", services.sessions as f64);
        metrics.gauge("service_descriptors", "Descriptors kept for others", descriptors as f64);
        metrics.gauge("service_points", "Services of others that are introduced here", points as f64);
        metrics.gauge("service_waiting", "Clients of others that wait here for a service", waiting as f64);
        let exchanges = services.exchanges as f64;
        metrics.gauge(
            "service_exchanges",
            "Requests of others to services through the mixnet, and their answers",
            exchanges,
        );
        metrics.counter(
            "service_mixed_asked",
            "Requests of this node to services through the mixnet",
            services.mixed_asked,
        );
        metrics.counter("service_mixed_served", "Requests to its own services through it", services.mixed_served);
        let refused: Vec<_> = services.rejects.into_iter().map(|(reason, n)| (reason.to_owned(), n)).collect();
        metrics.counters("service_refused", "Messages about services that were refused", "reason", refused);
        let (begun, refused, broken) = desk.requests.counts();
        metrics.counter("proxy_requests", "Streams that programs asked for", begun);
        metrics.counter("proxy_refused", "Of those, refused", refused);
        metrics.counter("proxy_broken", "Connections to the proxy that asked for nothing", broken);
    }

    fn directory_metrics(&self, metrics: &mut Metrics) {
        let relays = self.swarm.behaviour().directory.relays();
        let seated = self.sending_snapshot().map_or(0, Snapshot::seated);
        metrics.gauge("relays_known", "Relays with a valid descriptor", relays.len() as f64);
        metrics.gauge("relays_seated", "Relays that carry traffic in this epoch", seated as f64);
        metrics.counter("equivocations", "Pairs of descriptors under one sequence number", relays.equivocations());
        let Epoch(epoch) = self.network.schedule().at(clock::now().unix);
        metrics.gauge("epoch", "The running epoch", epoch);
        metrics.gauge(
            "serving",
            "1 while the node's roles are advertised",
            f64::from(u8::from(self.wiring.is_serving())),
        );
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// RFC 3339 in UTC; empty for a time that the calendar does not have.
pub(super) fn rfc3339(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map(|time| time.to_string()).unwrap_or_default()
}
