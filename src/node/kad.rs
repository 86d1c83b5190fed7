//! What passes between Kademlia and the directory: the set's descriptors are what Kademlia answers with, and what comes through
//! Kademlia goes to the set.

use fog_base::{NodeId, Now};
use fog_directory::KadEvent;
use libp2p::PeerId;

use super::{
    behaviour::node_id,
    event_loop::EventLoop,
    reputation::Offence,
    wiring::{Action, Wiring},
};

impl Wiring {
    pub(super) fn handle_kad(&mut self, event: KadEvent, now: Now) -> Vec<Action> {
        match event {
            KadEvent::Record { from, bytes } => vec![Action::JudgeRecord { from, bytes }],
            KadEvent::LookedUp { relay, found } => {
                tracing::debug!(%relay, found, "a descriptor was looked up");
                Vec::new()
            }
            KadEvent::Misbehaved { peer } => self.handle_offence(peer, Offence::Invalid, now),
            KadEvent::Flooding { peer } => self.handle_offence(peer, Offence::Excess, now),
        }
    }

    /// A relay that does not answer may have moved, and its newest descriptor not have come here. Only a dial of the contacts' own
    /// asks: those of Kademlia's queries, mix links and feelers would have others decide how much is looked up.
    pub(super) fn look_up(&mut self, peer: Option<PeerId>) -> Vec<Action> {
        let Some(peer) = peer.filter(|peer| self.contacts.handle_failed(peer)) else { return Vec::new() };
        let is_missed = self.contacts.is_wanted(&peer) && !self.peers.is_connected(&peer);
        node_id(&peer).filter(|_| is_missed).map(Action::LookUp).into_iter().collect()
    }
}

impl EventLoop {
    pub(super) fn keep(&mut self, relay: NodeId) {
        let behaviour = self.swarm.behaviour_mut();
        match behaviour.directory.relays().get(relay).cloned() {
            Some(descriptor) => behaviour.kad.keep(descriptor),
            None => behaviour.kad.forget(relay),
        }
    }

    pub(super) fn judge_record(&mut self, from: NodeId, bytes: &[u8], now: Now) {
        let outcome = self.swarm.behaviour_mut().directory.handle_record(from, bytes);
        let is_misbehaviour = outcome.is_err_and(|reject| reject.is_misbehaviour());
        if is_misbehaviour {
            let actions = self.wiring.handle_offence(from, Offence::Invalid, now);
            self.perform(actions, now);
        }
    }

    pub(super) fn look_up(&mut self, relay: NodeId, now: Now) {
        let epoch = self.network.schedule().at(now.unix);
        let is_asked = self.swarm.behaviour_mut().kad.look_up(relay, epoch);
        tracing::trace!(%relay, is_asked, "a relay does not answer");
    }

    pub(super) fn block(&mut self, peer: PeerId) {
        let behaviour = self.swarm.behaviour_mut();
        behaviour.kad.ban(&peer);
        behaviour.blocked.block_peer(peer);
    }
}

#[cfg(test)]
mod tests {
    use fog_base::relay::{Role, Roles};

    use super::*;
    use crate::node::{behaviour::peer_id, clock, event::Event, wiring::Identity};

    fn wiring() -> Wiring {
        let identity = Identity {
            me: PeerId::random(),
            network_id: fog_base::NetworkId([1; 32]),
            network: String::new(),
            kad: String::new(),
            schedule: fog_base::EpochSchedule::new(std::time::Duration::from_secs(60)),
            roles: Roles::NONE.with(Role::Mix),
            seal_key: [1; 32],
            circuit_key: [2; 32],
            exit_policy: None,
            capacity: 1,
            max_connections: 9,
        };
        Wiring::new(identity, &[], clock::now())
    }

    fn tell(wiring: &mut Wiring, event: KadEvent) -> Vec<Action> {
        wiring.handle(Event::Kad(event), clock::now())
    }

    #[test]
    fn what_comes_through_kademlia_goes_to_the_directory() {
        let from = NodeId([9; 32]);
        let actions = tell(&mut wiring(), KadEvent::Record { from, bytes: vec![1] });
        assert!(
            matches!(actions.as_slice(), [Action::JudgeRecord { from: by, bytes }] if *by == from && *bytes == [1])
        );
    }

    #[test]
    fn bad_records_and_floods_are_offences() {
        let (mut wiring, peer) = (wiring(), NodeId([9; 32]));
        for event in [KadEvent::Misbehaved { peer }, KadEvent::Flooding { peer }] {
            let actions = tell(&mut wiring, event);
            assert!(matches!(actions.as_slice(), [Action::Learn(_)]), "{actions:?}");
        }
        assert_eq!(wiring.counts.offences, 2);
    }

    #[test]
    fn a_relay_that_does_not_answer_is_looked_up_and_nobody_else() {
        let mut wiring = wiring();
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes();
        let (relay, peer) = (NodeId(key), peer_id(NodeId(key)));
        let failed = || Event::DialFailed {
            peer,
            connection: libp2p::swarm::ConnectionId::new_unchecked(1),
            unanswered: true,
            reason: String::new(),
        };
        assert!(wiring.handle(failed(), clock::now()).is_empty(), "it is no relay");
        let address =
            fog_directory::Address { ip: [127, 0, 0, 1].into(), transport: fog_directory::Transport::Tcp, port: 1 };
        wiring.set_relays([(relay, vec![address])].into_iter(), clock::now());
        // The larger id waits a moment before it dials.
        let later = clock::now().plus(std::time::Duration::from_secs(9));
        let dialled = |action: &Action| matches!(action, Action::Dial(dial) if dial.peer == peer);
        let _perhaps_dialled_at_once = wiring.handle(failed(), clock::now());
        assert!(wiring.handle(failed(), clock::now()).is_empty(), "the contacts did not dial it");
        assert!(wiring.tick(later).iter().any(dialled));
        let actions = wiring.handle(failed(), later);
        assert!(matches!(actions.as_slice(), [Action::LookUp(sought)] if *sought == relay), "{actions:?}");
        assert!(wiring.handle(failed(), later).is_empty(), "once for each dial");
    }
}
