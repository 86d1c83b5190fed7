//! `fog connect`: dials somebody and waits until they are known to be of our network and a round trip was measured.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use libp2p::{PeerId, swarm::ConnectionId};

use super::{
    command::{Failure, Reply},
    event::Event,
    peers::Peers,
    report::Connected,
};

/// Orders to connect that may wait.
pub(super) const MAX_WAITING: usize = 16;

struct Waiting {
    target: String,
    peer: Option<PeerId>,
    /// Attempts that are under way.
    attempts: BTreeSet<ConnectionId>,
    reason: Option<String>,
    deadline: Instant,
    reply: Option<Reply<Connected>>,
}

/// The orders that wait for their peers.
#[derive(Default)]
pub(super) struct Connects {
    waiting: Vec<Waiting>,
}

fn unreachable(target: &str, reason: &str) -> Failure {
    Failure::failed(
        format!("cannot connect to {target}: {reason}"),
        "see that the other node runs, and that its address and this host's network are right",
    )
}

fn other_network(target: &str) -> Failure {
    Failure::failed(format!("{target} belongs to another network"), "both nodes need the same network file, or none")
}

impl Connects {
    /// Waits for `peer`, or for whoever answers one of `attempts`.
    pub(super) fn add(
        &mut self,
        target: String,
        peer: Option<PeerId>,
        attempts: BTreeSet<ConnectionId>,
        (now, timeout): (Instant, Duration),
        reply: Reply<Connected>,
    ) {
        if self.waiting.len() >= MAX_WAITING {
            let busy = Failure::failed("too many orders to connect are waiting", "wait for some of them to end");
            let _caller_left = reply.send(Err(busy));
            return;
        }
        let deadline = now + timeout;
        self.waiting.push(Waiting { target, peer, attempts, reason: None, deadline, reply: Some(reply) });
    }

    /// Looks at an event before the wiring takes it.
    pub(super) fn observe(&mut self, event: &Event, network: &str) {
        for waiting in &mut self.waiting {
            match event {
                Event::Connected { peer, connection, .. } if waiting.attempts.contains(connection) => {
                    waiting.peer = Some(*peer);
                }
                Event::DialFailed { connection, reason, .. } if waiting.attempts.remove(connection) => {
                    waiting.reason = Some(reason.clone());
                }
                Event::Identified { peer, network: theirs, .. } if waiting.peer == Some(*peer) && theirs != network => {
                    let failure = other_network(&waiting.target);
                    waiting.answer(Err(failure));
                }
                Event::Disconnected { peer, remaining: 0, .. } if waiting.peer == Some(*peer) => {
                    let failure =
                        unreachable(&waiting.target, "it closed the connection; it may be full, or of another network");
                    waiting.answer(Err(failure));
                }
                _ => {}
            }
        }
        self.drop_answered();
    }

    /// Answers those that are done, failed or out of time.
    pub(super) fn settle(&mut self, peers: &Peers, now: Instant) {
        for waiting in &mut self.waiting {
            let connected = waiting.peer.filter(|peer| peers.is_identified(peer));
            if let Some((peer, rtt)) = connected.and_then(|peer| Some((peer, peers.rtt(&peer)?))) {
                waiting.answer(Ok(Connected { peer_id: peer.to_string(), rtt_ms: rtt.as_secs_f64() * 1000.0 }));
            } else if let Some(reason) = waiting
                .reason
                .take()
                .filter(|_| waiting.attempts.is_empty() && !waiting.peer.is_some_and(|peer| peers.is_connected(&peer)))
            {
                let failure = unreachable(&waiting.target, &reason);
                waiting.answer(Err(failure));
            } else if now >= waiting.deadline {
                let hint = "see that the other node runs and that no firewall is between, or give it more --timeout";
                let message = format!("no answer from {} in time", waiting.target);
                waiting.answer(Err(Failure::timed_out(message, hint)));
            }
        }
        self.drop_answered();
    }

    fn drop_answered(&mut self) {
        self.waiting.retain(|waiting| waiting.reply.is_some());
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Waiting {
    fn answer(&mut self, outcome: Result<Connected, Failure>) {
        if let Some(reply) = self.reply.take() {
            let _caller_left = reply.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::Multiaddr;
    use tokio::sync::oneshot;

    use super::*;
    use crate::node::{clock, command::FailureKind};

    type Answer = oneshot::Receiver<Result<Connected, Failure>>;

    fn setup() -> (Connects, Peers, Answer, Instant, ConnectionId) {
        let (mut connects, now, attempt) = (Connects::default(), clock::now().mono, ConnectionId::new_unchecked(7));
        let (reply, answer) = oneshot::channel();
        connects.add("there".into(), None, [attempt].into(), (now, Duration::from_secs(5)), reply);
        (connects, Peers::default(), answer, now, attempt)
    }

    fn connected(connects: &mut Connects, peers: &mut Peers, connection: ConnectionId, now: Instant) -> PeerId {
        let (peer, remote): (_, Multiaddr) = (PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse().unwrap());
        peers.handle_connected(peer, connection, (remote.clone(), true), now);
        connects.observe(&Event::Connected { peer, connection, remote, inbound_at: None }, "net");
        peer
    }

    #[test]
    fn it_answers_when_the_peer_is_known_and_measured() {
        let (mut connects, mut peers, mut answer, now, attempt) = setup();
        let peer = connected(&mut connects, &mut peers, attempt, now);
        connects.settle(&peers, now);
        assert!(answer.try_recv().is_err(), "not before the round trip is known");
        peers.handle_identified(peer, "fog/1");
        peers.handle_ping(peer, Duration::from_millis(3));
        connects.settle(&peers, now);
        assert_eq!(answer.try_recv().unwrap().unwrap().rtt_ms, 3.0);
        assert_eq!(connects.len(), 0);
    }

    #[test]
    fn a_dead_address_says_why_and_what_to_do() {
        let (mut connects, peers, mut answer, now, connection) = setup();
        let reason = "Connection refused".to_owned();
        connects.observe(&Event::DialFailed { peer: None, connection, unanswered: true, reason }, "net");
        connects.settle(&peers, now);
        let failure = answer.try_recv().unwrap().unwrap_err();
        assert_eq!(failure.message, "cannot connect to there: Connection refused");
        assert!(!failure.hint.is_empty());
    }

    #[test]
    fn a_node_of_another_network_is_named_as_such() {
        let (mut connects, mut peers, mut answer, now, attempt) = setup();
        let peer = connected(&mut connects, &mut peers, attempt, now);
        let identified = Event::Identified {
            peer,
            network: "other".into(),
            agent: String::new(),
            addresses: vec![],
            protocols: vec![],
        };
        connects.observe(&identified, "net");
        assert!(answer.try_recv().unwrap().unwrap_err().message.contains("another network"));
    }

    #[test]
    fn silence_ends_in_a_timeout() {
        let (mut connects, peers, mut answer, now, _) = setup();
        connects.settle(&peers, now + Duration::from_secs(4));
        assert!(answer.try_recv().is_err());
        connects.settle(&peers, now + Duration::from_secs(5));
        assert_eq!(answer.try_recv().unwrap().unwrap_err().kind, FailureKind::TimedOut);
    }
}
