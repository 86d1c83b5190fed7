//! Does what the wiring decided.

use std::{collections::BTreeSet, sync::Arc};

use fog_base::{Epoch, Now};
use fog_directory::{Acceptance, core::standing::MIN_LOOPS};
use fog_mix::core::loops::measuring_rate;
use libp2p::{
    Multiaddr, PeerId,
    gossipsub::{MessageAcceptance, MessageId, PublishError},
    multiaddr::Protocol,
    relay,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{
    behaviour::node_id,
    contacts::{Dial, split},
    event::dial_reason,
    event_loop::EventLoop,
    gossip::Topic,
    mixnet::{Paths, Stored},
    report::Lifecycle,
    reputation::Offence,
    wiring::Action,
};
use crate::store::{Batch, Change, Durability, Table, WriterFull};

/// The part of an epoch in which a seat is measured before its neighbours report on it.
const MEASURED: f64 = 28.0 / 48.0;
/// Of the packets that a node sends, so many are loops for its reports at most.
const MOST_LOOPS: f64 = 0.2;

impl EventLoop {
    /// Does each action, and what those lead to.
    pub(super) fn perform(&mut self, actions: Vec<Action>, now: Now) {
        for action in actions {
            self.perform_one(action, now);
        }
    }

    fn perform_one(&mut self, action: Action, now: Now) {
        match action {
            Action::Dial(dial) => self.dial(dial),
            Action::Disconnect(peer) => drop(self.swarm.disconnect_peer_id(peer)),
            Action::Close(connection) => drop(self.swarm.close_connection(connection)),
            Action::Block(peer) => self.block(peer),
            Action::Unblock(peer) => drop(self.swarm.behaviour_mut().blocked.unblock_peer(peer)),
            Action::Tell(address) => self.swarm.add_external_address(address),
            Action::Withhold(address) => self.swarm.remove_external_address(&address),
            Action::Serve(serve) => self.serve(serve),
            Action::Reserve(at) => self.reserve(&at),
            Action::Route { peer, addresses } => {
                self.swarm.behaviour_mut().kad.handle_identified(&peer, true, &addresses);
            }
            Action::Unroute(peer) => self.swarm.behaviour_mut().kad.handle_identified(&peer, false, &[]),
            Action::Keep(relay) => self.keep(relay),
            Action::JudgeRecord { from, bytes } => self.judge_record(from, &bytes, now),
            Action::LookUp(relay) => self.look_up(relay, now),
            Action::Judge { topic: Topic::Chat(bucket), from, id, bytes } => {
                self.judge_chat(bucket, from, id, bytes, now)
            }
            Action::Judge { topic, from, id, bytes } => self.judge(topic, from, (&id, &bytes), now),
            Action::Publish { topic, bytes } => self.publish(topic, bytes),
            Action::Learn(evidence) => self.learn(evidence),
            Action::CountLoop(end) => self.swarm.behaviour_mut().directory.handle_loop(&end.hops, end.returned),
            Action::Store(batch) => self.write(batch),
            Action::StoreSynced(batch) => self.write_synced(batch),
            Action::Record(batch) => self.record(batch),
            Action::Describe(facts) => self.swarm.behaviour_mut().directory.set_facts(facts),
            Action::Snapshots => self.refresh_snapshots(now),
            Action::Announce(address) => self.announce(address),
            Action::Mix(event) => self.on_mix(event),
            Action::Blobs(event) => self.on_blobs(event),
            Action::Chat(event) => self.on_chat(event),
            Action::Circuits(event) => self.on_circuits(event),
            Action::Meet { peer, is_lan } => self.meet(&peer, is_lan),
            Action::Part(peer) => self.part(&peer),
        }
    }

    pub(super) fn dial(&mut self, dial: Dial) {
        let opts = match dial.peer {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(dial.addresses)
                .extend_addresses_through_behaviour()
                .build(),
            None => match dial.addresses.into_iter().next() {
                Some(address) => address.into(),
                None => return,
            },
        };
        match self.swarm.dial(opts) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => tracing::debug!(reason = dial_reason(&error), "cannot dial"),
        }
    }

    /// Dials for `fog connect`, one attempt for each address, and says which attempts those are.
    pub(super) fn dial_for_command(
        &mut self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
    ) -> Result<BTreeSet<ConnectionId>, DialError> {
        let opts = match (peer, addresses.as_slice()) {
            (Some(peer), _) => DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(addresses)
                .extend_addresses_through_behaviour()
                .build(),
            (None, [address, ..]) => DialOpts::unknown_peer_id().address(split(address).1).build(),
            (None, []) => return Err(DialError::NoAddresses),
        };
        let attempt = opts.connection_id();
        self.swarm.dial(opts)?;
        Ok(BTreeSet::from([attempt]))
    }

    fn serve(&mut self, serve: bool) {
        let status = if serve { relay::Status::Enable } else { relay::Status::Disable };
        tracing::info!(serve, "this node is {}reachable for its roles", if serve { "" } else { "not " });
        let behaviour = self.swarm.behaviour_mut();
        behaviour.kad.serve(serve);
        behaviour.relay_server.set_status(Some(status));
        // Those who identified us before must learn of it.
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        self.swarm.behaviour_mut().identify.push(peers);
    }

    fn reserve(&mut self, at: &Multiaddr) {
        match self.swarm.listen_on(at.clone()) {
            Ok(_) => tracing::info!(%at, "not reachable: another node is asked to relay"),
            Err(error) => tracing::debug!(%at, %error, "cannot ask for a relay"),
        }
    }

    fn judge(&mut self, topic: Topic, from: PeerId, (id, bytes): (&MessageId, &[u8]), now: Now) {
        use fog_reputation::Acceptance as Heard;
        let behaviour = self.swarm.behaviour_mut();
        let acceptance = match topic {
            Topic::Descriptors => behaviour.directory.handle_gossip(&from, bytes),
            Topic::Certificates => behaviour.directory.handle_certificate(bytes),
            Topic::Reputation => match behaviour.reputation.handle_gossip(&from, bytes) {
                Heard::Accept => Acceptance::Accept,
                Heard::Ignore => Acceptance::Ignore,
                Heard::Reject => Acceptance::Reject,
            },
            Topic::Offers => self.judge_offer(bytes, now),
            // Judged with others, in chat.
            Topic::Chat(_) => return,
        };
        self.report(topic, from, id, acceptance, now);
    }

    /// Tells gossip what to do with a message.
    pub(super) fn report(&mut self, topic: Topic, from: PeerId, id: &MessageId, acceptance: Acceptance, now: Now) {
        // An invalid report counts against its sender in fog-reputation itself.
        let is_invalid = acceptance == Acceptance::Reject && topic != Topic::Reputation;
        let verdict = match acceptance {
            Acceptance::Accept => MessageAcceptance::Accept,
            Acceptance::Ignore => MessageAcceptance::Ignore,
            Acceptance::Reject => MessageAcceptance::Reject,
        };
        self.swarm.behaviour_mut().gossip.report_message_validation_result(id, &from, verdict);
        if is_invalid && let Some(from) = node_id(&from) {
            let actions = self.wiring.handle_offence(from, Offence::Invalid, now);
            self.perform(actions, now);
        }
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        let behaviour = self.swarm.behaviour_mut();
        match behaviour.gossip.publish(topic.ident(&self.network.id), bytes.clone()) {
            Ok(_) | Err(PublishError::Duplicate) => {}
            Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => {
                self.wiring.keep_unpublished(topic, bytes);
            }
            Err(error) => tracing::debug!(%error, ?topic, "gossip does not take a message"),
        }
    }

    /// Other peers' records come back by exchange, so a full queue only counts them. Nobody else has this node's experience: it is handed
    /// out again.
    pub(super) fn write(&mut self, batch: Batch) {
        if let Err(WriterFull(batch)) = self.store.submit(batch, Durability::Relaxed) {
            self.wiring.drops.count(fog_base::DropReason::QueueFull);
            let reputation = &mut self.swarm.behaviour_mut().reputation;
            experience(&batch).for_each(|key| reputation.handle_not_saved(key));
        }
    }

    /// What all nodes may lose at once, in one loss of power, comes back from nobody.
    fn write_synced(&mut self, batch: Batch) {
        if self.store.submit(batch, Durability::Synced).is_err() {
            self.wiring.drops.count(fog_base::DropReason::QueueFull);
        }
    }

    /// Nothing that was signed leaves before the record of it is on the disk.
    fn record(&mut self, batch: Batch) {
        match self.store.submit(batch, Durability::Synced) {
            Ok(committed) => self.answer(committed, Stored::Record),
            Err(_) => self.swarm.behaviour_mut().directory.recorded(false),
        }
    }

    fn announce(&self, address: Multiaddr) {
        let address = address.with(Protocol::P2p(*self.swarm.local_peer_id()));
        tracing::info!(%address, "listening");
        self.tell(Lifecycle::Listening { address: address.to_string() });
    }

    /// Makes the snapshots of this epoch and the next, and tells those who draw paths from them.
    pub(super) fn refresh_snapshots(&mut self, now: Now) {
        let epoch = self.network.schedule().at(now.unix);
        let directory = &self.swarm.behaviour().directory;
        // Those of the last epoch serve its grace: answers that were asked for then still travel.
        self.snapshots.retain(|old, _| *old < epoch && !self.network.schedule().is_over(*old, now.unix));
        self.snapshots.extend([epoch, epoch.next()].map(|epoch| (epoch, directory.snapshot(epoch))));
        self.owe_loops(epoch);
        let paths = Paths::new(&self.snapshots);
        self.swarm.behaviour_mut().mix.set_paths(Arc::new(paths));
        let Some(snapshot) = self.snapshots.get(&epoch) else { return };
        let relays = snapshot.relays().iter();
        let relays = relays.map(|relay| (relay.hop.id, relay.descriptor.facts().addresses.clone()));
        self.tasks.handle_relays(snapshot.relays().iter().map(|relay| relay.hop.id).collect());
        let known = self.snapshots.values().flat_map(|snapshot| snapshot.relays().iter().map(|relay| relay.hop.id));
        self.swarm.behaviour_mut().reputation.set_relays(known);
        let actions = self.wiring.set_relays(relays, now);
        self.tell_circuits(now);
        self.perform(actions, now);
    }

    /// A seat sends enough loops through each mix to have something to report; others send as many as they are configured to.
    fn owe_loops(&mut self, epoch: Epoch) {
        let me = self.keys.node_id();
        let snapshot = self.snapshots.get(&epoch).filter(|snapshot| snapshot.is_certified());
        let seated = snapshot.filter(|snapshot| snapshot.find(me).is_some_and(|relay| relay.weight > 0));
        let rate = seated.map(|snapshot| {
            // From a sixth of an epoch before it serves, a seat is measured until its neighbours sign their reports.
            let measured = self.network.epoch_length.mul_f64(MEASURED);
            let owed = measuring_rate(snapshot.widest_layer(), MIN_LOOPS, measured);
            owed.min(self.config.send_per_second * MOST_LOOPS).max(self.config.loops_per_second)
        });
        if rate != self.loops {
            self.loops = rate;
            self.swarm.behaviour_mut().mix.set_loops(rate);
        }
    }
}

/// The rows of this node's experience in a batch.
fn experience(batch: &Batch) -> impl Iterator<Item = &[u8]> {
    let keys = batch.changes().iter().map(|change| match change {
        Change::Put(table, key, _) | Change::Delete(table, key) => (*table, key.as_slice()),
    });
    keys.filter(|(table, _)| *table == Table::Reputation).map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_not_stored_experience_is_told_apart() {
        let mut batch = Batch::new();
        batch
            .put(Table::Descriptors, *b"a", *b"1")
            .put(Table::Reputation, *b"b", *b"2")
            .delete(Table::Reputation, *b"c");
        assert_eq!(experience(&batch).collect::<Vec<_>>(), [b"b", b"c"]);
    }
}
