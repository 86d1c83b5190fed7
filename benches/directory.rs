//! What the lottery costs: weighted draws from ten thousand relays, whole paths, tickets, and the seats of an epoch.

#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod harness;

use std::{
    hint::black_box,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{
    Epoch, EpochSchedule, NetworkId, NodeId,
    relay::{PathRequest, PathSelector, Role, Roles},
};
use fog_directory::{
    Address, Descriptor, Facts, Snapshot, Transport,
    core::{
        alias::AliasTable,
        certificate::succession::Seats,
        descriptor::Candidacy,
        lottery::{Entrant, Lot, Lottery, SEATS, own_lot, prove, seat, verify},
    },
};
use harness::{Harness, Side, Target};
use rand::{
    RngExt, SeedableRng,
    distr::{Distribution, weighted::WeightedIndex},
    rngs::StdRng,
};
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};
use x25519_dalek::{PublicKey, StaticSecret};

const RELAYS: u64 = 10_000;
const NETWORK: NetworkId = NetworkId([9; 32]);
const EPOCH: Epoch = Epoch(1_000_000);
const BEACON: [u8; 32] = [7; 32];
/// Runs whose median is reported, and how long each lasts about.
const RUNS: usize = 9;
const RUN: Duration = Duration::from_millis(200);

fn main() {
    let mut harness = Harness::from_env();
    println!("{:30} {:>10} {:9} {:>10} {:>7}  {:12} rival", "name", "ours", "", "rival", "ratio", "target");
    draws(&mut harness);
    paths(&mut harness);
    tickets(&mut harness);
    seats(&mut harness);
    harness.finish();
}

/// Weights as of stakes in proof-of-stake networks: a few heavy relays and many light ones.
fn weights() -> Vec<u64> {
    let mut rng = StdRng::seed_from_u64(1);
    (0..RELAYS).map(|_| (1_000.0 / rng.random_range(1e-6..1.0f64).powf(0.8)) as u64).collect()
}

/// How many operations a second one core performs.
fn per_second(mut operation: impl FnMut()) -> Vec<f64> {
    let run = |_| {
        let (start, mut done) = (Instant::now(), 0u32);
        while start.elapsed() < RUN {
            (0..1_000).for_each(|_| operation());
            done += 1_000;
        }
        f64::from(done) / start.elapsed().as_secs_f64()
    };
    (0..RUNS).map(run).collect()
}

fn draws(harness: &mut Harness) {
    let weights = weights();
    let table = AliasTable::new(&weights).unwrap();
    let mut rng = StdRng::seed_from_u64(2);
    if harness.wants("lottery_draws_per_s") {
        let mut runs = per_second(|| {
            black_box(table.draw(&mut rng));
        });
        harness.medians("lottery_draws_per_s", &mut runs, None, "1/s", Some(Target::AtLeast(1e6)));
    }
    if harness.wants("lottery_draw") {
        let index = WeightedIndex::new(&weights).unwrap();
        let mut other = StdRng::seed_from_u64(2);
        let ours = Side::new(1, || {
            black_box(table.draw(&mut rng));
        });
        let rival = Side::new(1, || {
            black_box(index.sample(&mut other));
        });
        harness.compare_us("lottery_draw", ours, Some(("rand 0.10 WeightedIndex", rival)), Some(1.0));
    }
}

/// Paths of four hops, as messages take them, through the seats of ten thousand relays.
fn paths(harness: &mut Harness) {
    if !harness.wants("lottery_path_per_s") {
        return;
    }
    let descriptors: Vec<_> = (0..RELAYS).map(descriptor).collect();
    let mut rng = StdRng::seed_from_u64(3);
    let entrants: Vec<_> = descriptors
        .iter()
        .zip(weights())
        .map(|(one, weight)| Entrant { relay: one.relay(), lot: Lot(rng.random()), weight, is_mix: true })
        .collect();
    let dealt = seat(&entrants, SEATS).into_iter().map(|seat| (seat.relay, (seat.weight, seat.layer)));
    let snapshot = Snapshot::new(EPOCH, descriptors, &Seats::new(dealt));
    let ids: Vec<_> = snapshot.relays().iter().map(|relay| relay.hop.id).collect();
    let mut runs = per_second(|| {
        let last = ids[rng.random_range(0..ids.len())];
        let request = PathRequest { epoch: EPOCH, hops: 4, last, version: 1, exclude: &[], avoid: &[] };
        black_box(snapshot.path(&request, &mut rng).unwrap());
    });
    harness.medians("lottery_path_per_s", &mut runs, None, "1/s", None);
}

fn descriptor(number: u64) -> Arc<Descriptor> {
    let seed = |label: u8| {
        let mut bytes = [label; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    let key = |label| PublicKey::from(&StaticSecret::from(seed(label))).to_bytes();
    let [.., a, b, c] = number.to_be_bytes();
    let facts = Facts {
        addresses: vec![Address { ip: Ipv4Addr::new(20 + c % 50, b, a, c).into(), transport: Transport::Tcp, port: 1 }],
        roles: Roles::NONE.with(Role::Mix),
        mix_keys: [key(1), key(2)],
        seal_key: key(3),
        circuit_key: None,
        capacity: 1_000,
        mix_versions: vec![1],
        family: None,
        exit_policy: None,
    };
    let schedule = EpochSchedule::new(Duration::from_secs(1800));
    let now = schedule.start(EPOCH);
    let keys = (&SigningKey::from_bytes(&seed(4)), &vrf(&seed(5)));
    let contents = (&facts, &Candidacy::default());
    Arc::new(Descriptor::sign(keys, (&NETWORK, &schedule), contents, (EPOCH, now.0), now, &seed(6)).unwrap())
}

fn vrf(seed: &[u8; 32]) -> Keypair {
    MiniSecretKey::from_bytes(seed).unwrap().expand_to_keypair(ExpansionMode::Uniform)
}

fn tickets(harness: &mut Harness) {
    let (key, relay) = (vrf(&[1; 32]), NodeId([2; 32]));
    let lottery = Lottery { network: &NETWORK, epoch: EPOCH, beacon: &BEACON };
    let (public, ticket) = (key.public.to_bytes(), prove(&key, &relay, &lottery, &[3; 32]));
    if harness.wants("lottery_ticket_prove") {
        let ours = Side::new(1, || _ = black_box(prove(&key, black_box(&relay), &lottery, &[3; 32])));
        harness.compare_us("lottery_ticket_prove", ours, None, None);
    }
    if harness.wants("lottery_ticket_verify") {
        let ours = Side::new(1, || {
            black_box(verify(&public, black_box(&relay), &lottery, &ticket).unwrap());
        });
        harness.compare_us("lottery_ticket_verify", ours, None, None);
    }
    if harness.wants("lottery_own_lot") {
        let ours = Side::new(1, || {
            black_box(own_lot(&key, black_box(&relay), &lottery));
        });
        harness.compare_us("lottery_own_lot", ours, None, None);
    }
}

/// The seats of an epoch, out of ten thousand lots.
fn seats(harness: &mut Harness) {
    if !harness.wants("lottery_seats") {
        return;
    }
    let mut rng = StdRng::seed_from_u64(4);
    let entrant = |weight| Entrant { relay: NodeId(rng.random()), lot: Lot(rng.random()), weight, is_mix: true };
    let entrants: Vec<_> = weights().into_iter().map(entrant).collect();
    let ours = Side::new(1, || drop(black_box(seat(black_box(&entrants), SEATS))));
    harness.compare_us("lottery_seats", ours, None, None);
}
