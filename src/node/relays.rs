//! What the node tells of the relays: the values of `report.rs`, from the directory.

use std::sync::Arc;

use fog_base::NodeId;
use fog_directory::{Descriptor, Serving, Snapshot, core::standing::UNIT};

use super::{
    clock,
    command::Failure,
    event_loop::EventLoop,
    report,
    status::{hex, rfc3339},
};

impl EventLoop {
    pub(super) fn relays(&self) -> Vec<report::Relay> {
        let snapshot = self.sending_snapshot();
        self.swarm.behaviour().directory.relays().iter().map(|relay| self.relay(snapshot, relay)).collect()
    }

    fn relay(&self, snapshot: Option<&Snapshot>, descriptor: &Arc<Descriptor>) -> report::Relay {
        let relay = descriptor.relay();
        let seat = snapshot.and_then(|snapshot| snapshot.find(relay)).filter(|seat| seat.weight > 0);
        report::Relay {
            peer_id: relay.to_string(),
            roles: descriptor.facts().roles.names().into_iter().map(str::to_owned).collect(),
            layer: seat.and_then(|seat| seat.layer),
            seated: seat.is_some(),
            weight: seat.map_or(0, |seat| seat.weight),
            stake: self.stake(relay),
            reputation: self.rank(relay),
            standing: self.standing(snapshot, relay),
            addresses: descriptor.facts().addresses.iter().map(ToString::to_string).collect(),
            expires_at: rfc3339(descriptor.expires().0),
        }
    }

    /// What the network file says; 0 for who is not in it.
    fn stake(&self, relay: NodeId) -> u64 {
        self.network.genesis.iter().find(|(id, _)| *id == relay).map_or(0, |(_, stake)| *stake)
    }

    /// The part of its packets that a relay carries, by the certified reports of the seats.
    fn standing(&self, snapshot: Option<&Snapshot>, relay: NodeId) -> Option<f64> {
        let certified = self.swarm.behaviour().directory.council()?.certified(snapshot?.epoch())?;
        Some(f64::from(certified.state.standings.of(&relay)) / f64::from(UNIT))
    }

    pub(super) fn snapshot(&self) -> report::Snapshot {
        let epoch = self.network.schedule().for_sending(clock::now().unix);
        let snapshot = self.snapshots.get(&epoch);
        let certified = self.swarm.behaviour().directory.council().and_then(|council| council.certified(epoch));
        let weight = |snapshot: &Snapshot| snapshot.relays().iter().map(|relay| relay.weight).sum();
        report::Snapshot {
            epoch: snapshot.map_or(epoch, Snapshot::epoch).0,
            relays: snapshot.map_or(0, |snapshot| snapshot.relays().len()),
            root: snapshot.map_or_else(String::new, |snapshot| hex(&snapshot.root())),
            certified: snapshot.is_some_and(Snapshot::is_certified),
            signatures: certified.map_or(0, |certified| certified.signed.signatures),
            signed_weight: certified.map_or(0, |certified| certified.signed.weight),
            total_weight: certified.map_or(snapshot.map_or(0, weight), |certified| certified.signed.total),
        }
    }

    /// Checks a relay's ticket and seat from public data alone.
    pub(super) fn verify_seat(&mut self, relay: &str) -> Result<report::Seat, Failure> {
        let relay = self.named(relay)?;
        let epoch = self.network.schedule().for_sending(clock::now().unix);
        let Some(council) = self.swarm.behaviour_mut().directory.council_mut() else {
            let hint = "only a network whose file names relays and their stake has a lottery";
            return Err(Failure::failed("this network is open: its relays are not seated by lot", hint));
        };
        if council.certified(epoch).is_none() {
            let hint = "`fog relays snapshot` says what serves instead";
            return Err(Failure::failed(format!("no set is certified for epoch {}", epoch.0), hint));
        }
        let proof = council.verify_seat(&relay, epoch).ok_or_else(|| {
            Failure::missing(
                format!("{relay} is not in the certified set of epoch {}", epoch.0),
                "`fog relays` lists relays",
            )
        })?;
        Ok(report::Seat {
            peer_id: relay.to_string(),
            epoch: epoch.0,
            proof_ok: proof.is_valid,
            seated: proof.seat.is_some(),
            layer: proof.seat.and_then(|(_, layer)| layer),
            output: proof.lot.map(|lot| hex(&lot.0)),
        })
    }

    /// That a relay is not seated, if that is so.
    pub(super) fn unseated_warning(&self) -> Option<String> {
        let snapshot = self.sending_snapshot().filter(|snapshot| snapshot.is_certified())?;
        let is_relay = self.swarm.behaviour().directory.is_published() && self.wiring.is_serving();
        let has_seat = snapshot.find(self.keys.node_id()).is_some_and(|relay| relay.weight > 0);
        (is_relay && !has_seat).then(|| {
            "this relay has no seat in this epoch, and carries nothing: it is new, or was away and has to prove itself again (`fog relays verify` says how it was drawn)".into()
        })
    }

    /// Why no certified set serves, if that is so.
    pub(super) fn serving_warning(&self) -> Option<String> {
        let epoch = self.network.schedule().for_sending(clock::now().unix);
        let last = |late| epoch.0 - late;
        match self.swarm.behaviour().directory.council()?.serving(epoch) {
            Serving::Certified | Serving::Joining => None,
            Serving::Genesis => Some("no set of relays is certified yet: those of the network file serve".into()),
            Serving::Overtime(late) => {
                Some(format!("no set of relays is certified for this epoch: that of epoch {} serves on", last(late)))
            }
            Serving::Stopped { last } => Some(format!(
                "no set of relays was certified since epoch {}: nothing is sent until two thirds of the seats are back",
                last.0
            )),
        }
    }
}
