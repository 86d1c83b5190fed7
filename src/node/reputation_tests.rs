use std::{sync::Arc, time::Duration};

use ed25519_dalek::SigningKey;
use fog_base::{
    EpochSchedule, NetworkId, UnixMillis,
    relay::{Role, Roles},
};
use fog_directory::{Address, Descriptor, Facts, Transport, core::descriptor::KIND};
use fog_reputation::{Config, Output, Reputation, wire::Contradiction};
use libp2p::{Multiaddr, swarm::ConnectionId};
use serde_bytes::ByteBuf;

use super::*;
use crate::{
    keys::Keys,
    node::{event::Event, wiring::Identity},
};

const NETWORK: &str = "/fog/0000000000000000/id/1";

fn start() -> Now {
    Now { unix: UnixMillis(1_800_000_000_000), ..clock::now() }
}

fn node(n: u8) -> NodeId {
    NodeId(SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes())
}

fn peer(n: u8) -> PeerId {
    peer_id(node(n)).unwrap()
}

fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(60))
}

fn wiring() -> Wiring {
    let identity = Identity {
        me: peer(0),
        network_id: fog_base::NetworkId([4; 32]),
        network: NETWORK.into(),
        kad: "kad".into(),
        schedule: schedule(),
        roles: Roles::NONE,
        seal_key: [1; 32],
        circuit_key: [2; 32],
        exit_policy: None,
        capacity: 100,
        max_connections: 16,
    };
    Wiring::new(identity, &[], start())
}

fn reputation() -> Reputation {
    let config = Config::new(NetworkId([1; 32]), schedule());
    Reputation::new(config, Arc::new(SigningKey::from_bytes(&[0; 32])), [7; 32], start())
}

fn seat(wiring: &mut Wiring, relays: &[u8]) {
    let address = |n| Address { ip: [10, 0, 0, n].into(), transport: Transport::Tcp, port: 1 };
    wiring.set_relays(relays.iter().map(|n| (node(*n), vec![address(*n)])), start());
}

fn connect(wiring: &mut Wiring, n: u8) {
    let remote: Multiaddr = format!("/ip4/10.0.0.{n}/tcp/1").parse().unwrap();
    let connection = ConnectionId::new_unchecked(usize::from(n));
    wiring.handle(Event::Connected { peer: peer(n), connection, remote, inbound_at: None }, start());
    let identified = Event::Identified {
        peer: peer(n),
        network: NETWORK.into(),
        agent: "fog/1".into(),
        addresses: Vec::new(),
        protocols: Vec::new(),
    };
    wiring.handle(identified, start());
}

fn disconnect(wiring: &mut Wiring, n: u8) -> Vec<Evidence> {
    let connection = ConnectionId::new_unchecked(usize::from(n));
    learnt(wiring.handle(Event::Disconnected { peer: peer(n), connection, remaining: 0 }, start()))
}

fn dial_failed(n: u8, unanswered: bool) -> Event {
    let connection = ConnectionId::new_unchecked(99);
    Event::DialFailed { peer: Some(peer(n)), connection, unanswered, reason: "refused".into() }
}

fn learnt(actions: Vec<Action>) -> Vec<Evidence> {
    actions.into_iter().filter_map(|a| if let Action::Learn(evidence) = a { Some(evidence) } else { None }).collect()
}

fn availability(n: u8, outcome: Outcome) -> Evidence {
    let (kind, at) = (Kind::Availability, start().unix);
    Evidence::Observation(Observation { peer: node(n), kind, outcome, weight: 1.0, at })
}

fn feed(reputation: &mut Reputation, evidence: Evidence) {
    match evidence {
        Evidence::Observation(observation) => reputation.handle_observation(observation, start()).unwrap(),
        Evidence::Path { hops, outcome, weight } => reputation.handle_path(&hops, outcome, weight, start()),
        Evidence::Equivocation(_) => panic!("the directory has the records"),
    }
}

/// What the behaviour tells of it.
fn told(output: Output) -> Option<fog_reputation::Event> {
    match output {
        Output::Disconnect(peer) => Some(fog_reputation::Event::Disconnect(peer)),
        Output::Ban { peer, until, met } => Some(fog_reputation::Event::Ban { peer, until, met }),
        _ => None,
    }
}

#[test]
fn a_link_to_a_relay_counts_once_and_its_loss_against_it() {
    let mut wiring = wiring();
    connect(&mut wiring, 1);
    assert_eq!(learnt(wiring.tick(start())), [], "it is no relay yet");
    seat(&mut wiring, &[1, 2]);
    connect(&mut wiring, 2);
    let good = [1, 2].map(|n| availability(n, Outcome::Good));
    let mut seen = learnt(wiring.tick(start()));
    seen.sort_by_key(|evidence| *evidence != good[0]);
    assert_eq!(seen, good);
    assert_eq!(learnt(wiring.tick(start())), [], "once");
    assert_eq!(disconnect(&mut wiring, 1), [availability(1, Outcome::Bad)]);
    assert_eq!(disconnect(&mut wiring, 2), [], "nobody is left: this node is cut off");
    assert_eq!((wiring.counts.links, wiring.counts.links_lost), (2, 1));
}

#[test]
fn a_connection_that_this_node_ends_is_no_evidence() {
    let mut wiring = wiring();
    seat(&mut wiring, &[1, 2]);
    [1, 2].into_iter().for_each(|n| connect(&mut wiring, n));
    assert_eq!(learnt(wiring.tick(start())).len(), 2);
    assert!(matches!(wiring.let_go(peer(1)), Action::Disconnect(_)));
    assert_eq!(disconnect(&mut wiring, 1), []);
}

#[test]
fn a_dial_that_a_relay_does_not_answer_counts_against_it_and_others_do_not() {
    let mut wiring = wiring();
    seat(&mut wiring, &[1, 2]);
    assert_eq!(learnt(wiring.handle(dial_failed(1, true), start())), [], "nobody answers: this node is cut off");
    connect(&mut wiring, 2);
    assert_eq!(learnt(wiring.handle(dial_failed(1, true), start())), [availability(1, Outcome::Bad)]);
    assert_eq!(learnt(wiring.handle(dial_failed(1, false), start())), [], "it was not tried");
    assert_eq!(learnt(wiring.handle(dial_failed(2, true), start())), [], "it is connected");
    assert_eq!(learnt(wiring.handle(dial_failed(3, true), start())), [], "it is no relay");
    assert_eq!((wiring.counts.dials_failed, wiring.counts.links_failed), (5, 1));
}

#[test]
fn the_sixteenth_offence_blocks_and_disconnects_and_the_ban_ends() {
    let (mut wiring, mut reputation) = (wiring(), reputation());
    connect(&mut wiring, 1);
    let mut actions = Vec::new();
    for n in 0..16 {
        let misbehaved = fog_directory::Event::Misbehaved { peer: node(1) };
        let evidence = learnt(wiring.handle(Event::Directory(misbehaved), start()));
        evidence.into_iter().for_each(|evidence| feed(&mut reputation, evidence));
        while let Some(event) = reputation.poll_output().and_then(told) {
            actions.extend(wiring.handle(Event::Reputation(event), start()).into_iter().map(|action| (n, action)));
        }
    }
    let kinds: Vec<_> = actions
        .iter()
        .map(|(n, action)| match action {
            Action::Disconnect(who) if *who == peer(1) => (*n, "disconnect"),
            Action::Block(who) if *who == peer(1) => (*n, "block"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [(7, "disconnect"), (15, "block"), (15, "disconnect")]);
    assert_eq!((wiring.counts.offences, wiring.counts.bans), (16, 1));
    assert!(wiring.peers.is_banned(&peer(1)));
    let pardoned = wiring.tick(start().plus(Duration::from_secs(3600)));
    assert!(pardoned.iter().any(|action| matches!(action, Action::Unblock(who) if *who == peer(1))));
}

#[test]
fn two_descriptors_with_one_sequence_number_are_a_proof_that_bans_their_relay() {
    let keys = Keys::generate().unwrap();
    let key = |n: u8| x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from([n; 32])).to_bytes();
    let descriptor = |port, seq| {
        let facts = Facts {
            addresses: vec![Address { ip: [10, 0, 0, 1].into(), transport: Transport::Tcp, port }],
            roles: Roles::NONE.with(Role::Mix),
            mix_keys: [key(1), key(2)],
            seal_key: key(3),
            circuit_key: None,
            capacity: 100,
            mix_versions: vec![1],
            family: None,
            exit_policy: None,
        };
        let (now, network) = (start().unix, NetworkId([1; 32]));
        let at = (schedule().at(now), seq);
        let contents = (&facts, &Default::default());
        Descriptor::sign((keys.identity(), keys.vrf()), (&network, &schedule()), contents, at, now, &[7; 32]).unwrap()
    };
    let pair = |first: &Descriptor, second: &Descriptor| {
        let [first, second] = [first, second].map(|descriptor| ByteBuf::from(descriptor.as_bytes()));
        Contradiction { first, second }.encode().unwrap()
    };
    let seq = start().unix.0;
    let (one, other, newer) = (descriptor(1, seq), descriptor(2, seq), descriptor(2, seq + 1));
    let config = Config { provable: vec![KIND], ..Config::new(NetworkId([1; 32]), schedule()) };
    let mut reputation = Reputation::new(config, Arc::new(SigningKey::from_bytes(&[0; 32])), [7; 32], start());
    for honest in [pair(&one, &one), pair(&one, &newer)] {
        assert_eq!(reputation.handle_proof(None, &honest, start()), Err(fog_reputation::Reject::NoProof));
    }
    reputation.handle_proof(None, &pair(&one, &other), start()).unwrap();
    let Some(Output::Ban { peer, .. }) = reputation.poll_output() else { panic!("no ban") };
    assert_eq!(peer, keys.node_id());
}

#[test]
fn floods_and_excess_weigh_what_the_readme_says() {
    let mut wiring = wiring();
    let weight = |actions| match learnt(actions).as_slice() {
        [Evidence::Observation(observation)] => (observation.kind, observation.outcome, observation.weight),
        other => panic!("{other:?}"),
    };
    let flood = wiring.handle(Event::Mix(fog_mix::Event::Flooding(node(1))), start());
    assert_eq!(weight(flood), (Kind::Correctness, Outcome::Bad, 1.0));
    let excess = wiring.handle(Event::Directory(fog_directory::Event::Flooding { peer: node(1) }), start());
    assert_eq!(weight(excess), (Kind::Correctness, Outcome::Bad, 1.0 / 16.0));
    let twice = wiring.handle(Event::Directory(fog_directory::Event::Equivocation { relay: node(1) }), start());
    assert_eq!(learnt(twice), [Evidence::Equivocation(node(1))]);
}

#[test]
fn loops_are_evidence_of_availability_for_every_hop() {
    let mut reputation = reputation();
    let hops = [1, 2, 3].map(node);
    for (evidence, mean) in [(handle_loop(&hops, true), 0.5), (handle_loop(&hops, false), 0.0)] {
        learnt(vec![evidence]).into_iter().for_each(|evidence| feed(&mut reputation, evidence));
        for hop in hops {
            let summary = reputation.summary(hop, Kind::Availability, start().unix);
            assert!(if mean > 0.0 { summary.posterior.mean() == mean } else { summary.posterior.mean() < 0.5 });
        }
    }
}

#[test]
fn what_changed_is_stored_and_what_is_to_be_told_is_published() {
    let mut wiring = wiring();
    let change = |key: &[u8], value| fog_reputation::Change { key: key.to_vec(), value };
    let save = fog_reputation::Event::Save(vec![change(b"a", Some(vec![1])), change(b"b", None)]);
    let actions = wiring.handle(Event::Reputation(save), start());
    let [Action::Store(batch)] = actions.as_slice() else { panic!("{actions:?}") };
    use crate::store::Change;
    let expected =
        [Change::Put(Table::Reputation, b"a".to_vec(), vec![1]), Change::Delete(Table::Reputation, b"b".to_vec())];
    assert_eq!((batch.changes(), wiring.counts.saved), (expected.as_slice(), 2));
    assert!(wiring.handle(Event::Reputation(fog_reputation::Event::Save(Vec::new())), start()).is_empty());
    let published = wiring.handle(Event::Reputation(fog_reputation::Event::Publish(vec![7])), start());
    assert!(matches!(published.as_slice(), [Action::Publish { topic: Topic::Reputation, .. }]), "{published:?}");
}

#[test]
fn of_too_many_lines_those_with_the_most_evidence_are_listed_in_order() {
    let mut reputation = reputation();
    for (n, weight) in [(1, 1.0), (2, 3.0), (3, 2.0), (4, 0.5)] {
        let (kind, outcome) = (Kind::Availability, Outcome::Good);
        let observation = Observation { peer: node(n), kind, outcome, weight, at: start().unix };
        reputation.handle_observation(observation, start()).unwrap();
    }
    let line = |n| (node(n), Kind::Availability, reputation.summary(node(n), Kind::Availability, start().unix));
    let listed = |max| with_most_evidence([4, 3, 2, 1].map(line).into_iter(), max);
    assert_eq!(listed(2), [3, 2].map(line));
    assert_eq!(listed(9), [4, 3, 2, 1].map(line));
}
