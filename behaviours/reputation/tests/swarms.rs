//! Reputation in real swarms.
#![cfg(feature = "libp2p")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use fog_base::{EpochSchedule, NetworkId, NodeId, UnixMillis};
use fog_reputation::{
    Acceptance, Behaviour, Config, Deal, Event, Kind, Observation, Outcome, Receipt, Reputation, Service, Terms,
    Verdict, core::report, wire::Item,
};
use futures::StreamExt;
use libp2p::{PeerId, Swarm, identity, swarm::SwarmEvent};
use libp2p_swarm_test::SwarmExt;

const NETWORK: NetworkId = NetworkId([8; 32]);
const PATIENCE: Duration = Duration::from_secs(20);

/// The rows of a store.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(3600))
}

#[expect(clippy::disallowed_methods, reason = "real swarms run on the real clock")]
fn now() -> UnixMillis {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(unix.as_millis() as u64)
}

/// Somebody without a swarm who signs.
fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn id(n: u8) -> NodeId {
    NodeId(key(n).verifying_key().to_bytes())
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes(&id(n).to_peer_id_bytes()).unwrap()
}

fn node(peer: &PeerId) -> NodeId {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).unwrap()
}

/// A swarm; `n` seeds its secrets.
async fn swarm(network: NetworkId, n: u8) -> Swarm<Behaviour> {
    let mut swarm = Swarm::new_ephemeral_tokio(|keypair: identity::Keypair| {
        let secret = keypair.try_into_ed25519().unwrap().secret();
        let identity = SigningKey::from_bytes(secret.as_ref().try_into().unwrap());
        Behaviour::new(Config::new(network, schedule()), Arc::new(identity), [n; 32])
    });
    swarm.listen().with_memory_addr_external().await;
    swarm
}

fn dial(swarms: &mut [Swarm<Behaviour>], a: usize, b: usize) {
    let address = swarms[b].external_addresses().next().unwrap().clone();
    swarms[a].dial(address).unwrap();
}

/// Drives all swarms until `done`.
async fn drive(swarms: &mut [Swarm<Behaviour>], done: impl Fn(&[Swarm<Behaviour>]) -> bool) {
    let work = async {
        while !done(swarms) {
            let events = swarms.iter_mut().map(|swarm| Box::pin(swarm.next()));
            futures::future::select_all(events).await;
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("it happens in time");
}

/// `reporter`'s report on `subject` with receipts that both signed.
fn report(reporter: u8, subject: u8, verdicts: &[Verdict]) -> Vec<u8> {
    let (on, at) = ((&NETWORK, &schedule()), now());
    let receipt = |(i, verdict): (usize, &Verdict)| {
        let terms = Terms { service: Service::Task, client: id(reporter), value: 1_000, nonce: [i as u8; 16] };
        let deal = Deal::sign(&key(subject), on, terms, at).unwrap();
        Receipt::sign(&key(reporter), on, &deal, *verdict, at).unwrap().as_bytes().to_vec()
    };
    let receipts: Vec<_> = verdicts.iter().enumerate().map(receipt).collect();
    let about = (schedule().at(at), id(subject));
    Item::Report(report::sign(&key(reporter), on, about, receipts, (at.0, at)).unwrap()).encode()
}

fn gossip(swarm: &mut Swarm<Behaviour>, from: &PeerId, item: &[u8]) -> Acceptance {
    swarm.behaviour_mut().handle_gossip(from, item)
}

fn reports(swarm: &Swarm<Behaviour>, subject: u8) -> usize {
    swarm.behaviour().reputation().summary(id(subject), Kind::Correctness, now()).reports
}

fn observe(swarm: &mut Swarm<Behaviour>, peer: NodeId, kind: Kind, outcome: Outcome, weight: f64) {
    let observation = Observation { peer, kind, outcome, weight, at: now() };
    swarm.behaviour_mut().handle_observation(observation).unwrap();
}

#[tokio::test]
async fn a_report_reaches_the_far_end_of_a_line_by_exchange_alone_and_only_a_trusted_rater_is_believed() {
    let mut swarms = Vec::new();
    for n in 1..=4 {
        swarms.push(swarm(NETWORK, n).await);
    }
    let (trusted, stranger) = (report(40, 50, &[Verdict::Good; 8]), report(41, 50, &[Verdict::Wrong; 8]));
    for item in [&trusted, &stranger] {
        assert_eq!(gossip(&mut swarms[0], &peer(60), item), Acceptance::Accept);
        assert_eq!(gossip(&mut swarms[0], &peer(60), item), Acceptance::Ignore, "known");
    }
    // The last one knows reporter 40 as an honest rater, and nothing of reporter 41.
    observe(&mut swarms[3], id(40), Kind::Rating, Outcome::Good, 8.0);
    for i in 1..swarms.len() {
        dial(&mut swarms, i - 1, i);
        // Each one meets the next after it has heard.
        drive(&mut swarms, |swarms| reports(&swarms[i], 50) == 2).await;
    }
    let heard = |swarm: &Swarm<Behaviour>| swarm.behaviour().reputation().summary(id(50), Kind::Correctness, now());
    assert!(heard(&swarms[3]).posterior.mean() > 0.5, "the trusted rater's word counts");
    assert_eq!(heard(&swarms[2]).evidence, 0.0, "strangers' words count nothing");
    assert!(swarms.iter().all(|swarm| swarm.behaviour().exchange().kept() == 2));
}

#[tokio::test]
async fn a_forged_report_does_not_spread_and_who_tells_it_is_banned() {
    let mut swarms = vec![swarm(NETWORK, 1).await, swarm(NETWORK, 2).await];
    let liar = *swarms[1].local_peer_id();
    let mut forged = report(40, 50, &[Verdict::Wrong; 8]);
    let last = forged.len() - 1;
    let mut told = 0;
    while swarms[0].behaviour().reputation().banned_until(node(&liar), now()).is_none() {
        forged[last] = forged[last].wrapping_add(1);
        assert_eq!(gossip(&mut swarms[0], &liar, &forged), Acceptance::Reject);
        told += 1;
        assert!(told < 100);
    }
    // Sixteen; one more if some of the penalty has faded meanwhile.
    assert!((16..=17).contains(&told), "{told}");
    assert_eq!((reports(&swarms[0], 50), swarms[0].behaviour().exchange().kept()), (0, 0));
    let mut sanctions = Vec::new();
    while sanctions.len() < 2 {
        if let SwarmEvent::Behaviour(Event::Disconnect(peer) | Event::Ban { peer, .. }) =
            swarms[0].next_swarm_event().await
        {
            sanctions.push(peer);
        }
    }
    assert_eq!(sanctions, [node(&liar); 2], "it is disconnected, then banned");
    // What it says over a connection is not read either.
    let good = report(40, 50, &[Verdict::Good]);
    assert_eq!(gossip(&mut swarms[1], &peer(60), &good), Acceptance::Accept);
    dial(&mut swarms, 0, 1);
    drive(&mut swarms, |swarms| swarms[1].behaviour().exchange().counts().served > 0).await;
    let never = drive(&mut swarms, |swarms| reports(&swarms[0], 50) > 0);
    assert!(tokio::time::timeout(Duration::from_secs(1), never).await.is_err());
}

#[tokio::test]
async fn a_flood_is_limited_and_others_are_still_heard() {
    let mut hearer = swarm(NETWORK, 1).await;
    let flood: Vec<_> = (60..=u8::MAX).map(|n| report(n, 50 + n % 4, &[Verdict::Good])).collect();
    let taken = flood.iter().filter(|item| gossip(&mut hearer, &peer(1), item) == Acceptance::Accept).count();
    // 64 at once, and two more for each second that this takes.
    assert!((64..=100).contains(&taken), "{taken} of 196 at once");
    assert_eq!(gossip(&mut hearer, &peer(2), &report(59, 58, &[Verdict::Good])), Acceptance::Accept);
    assert_eq!(hearer.behaviour().exchange().kept(), taken + 1);
}

#[tokio::test]
async fn a_restart_keeps_evidence_bans_and_what_was_heard() {
    let mut first = swarm(NETWORK, 1).await;
    observe(&mut first, id(30), Kind::Availability, Outcome::Good, 5.0);
    assert_eq!(gossip(&mut first, &peer(60), &report(40, 50, &[Verdict::Good])), Acceptance::Accept);
    // Two reach the limit unless time passes between them, in which the penalty fades.
    (0..3).for_each(|_| observe(&mut first, id(31), Kind::Correctness, Outcome::Bad, 8.0));
    let mut rows = Rows::new();
    // A ban is saved at once, and everything else with it.
    while rows.len() < 3 {
        if let SwarmEvent::Behaviour(Event::Save(changes)) = first.next_swarm_event().await {
            rows.extend(changes.into_iter().filter_map(|change| Some((change.key, change.value?))));
        }
    }
    let mut restarted = swarm(NETWORK, 1).await;
    for (key, value) in &rows {
        restarted.behaviour_mut().load(key, value).unwrap();
    }
    let (before, after) = (first.behaviour().reputation(), restarted.behaviour().reputation());
    assert_eq!(after.banned(now()).map(|(peer, ..)| peer).collect::<Vec<_>>(), [id(31)]);
    let mean = |of: &Reputation| of.summary(id(30), Kind::Availability, now()).posterior.mean();
    assert!((mean(before) - mean(after)).abs() < 1e-3 && mean(after) > 0.7, "{} {}", mean(before), mean(after));
    assert_eq!(reports(&restarted, 50), 1);
    assert!(restarted.behaviour_mut().load(b"nonsense", b"").is_err());
    assert!(restarted.behaviour_mut().load(rows.keys().next().unwrap(), b"nonsense").is_err());
    assert_eq!(restarted.behaviour_mut().unsaved(), [], "nothing has changed");
    observe(&mut restarted, id(33), Kind::Availability, Outcome::Good, 1.0);
    assert_eq!(restarted.behaviour_mut().unsaved().len(), 1);
}

#[tokio::test]
async fn peers_of_another_network_hear_nothing() {
    let mut swarms = vec![swarm(NETWORK, 1).await, swarm(NetworkId([9; 32]), 2).await];
    assert_eq!(gossip(&mut swarms[0], &peer(60), &report(40, 50, &[Verdict::Good])), Acceptance::Accept);
    dial(&mut swarms, 0, 1);
    let never = drive(&mut swarms, |swarms| swarms[1].behaviour().exchange().kept() > 0);
    assert!(tokio::time::timeout(Duration::from_secs(2), never).await.is_err());
    assert!(swarms.iter().all(|swarm| swarm.connected_peers().count() == 1));
}
