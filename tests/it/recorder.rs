//! What each party can see. Every node records what circuits bring to it: cells as they came, and what those that were for it said. Then no
//! node but the two ends holds, of one circuit, where the service is and what it is called, nor both ends of a stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    str::FromStr as _,
};

use fog_base::{Network, NodeId};
use fog_services::{
    Address,
    core::{
        blinding::{BlindedKey, Fog},
        period::{Calendar, Period},
    },
};
use fog_testnet::{Faults, NodePlan, Plan, Testnet, services, until};
use serde_json::Value;

use super::support::{PATIENCE, fog, ok, one_network_at_a_time, run_in};

const RELAYS: usize = 7;
const EXIT: usize = RELAYS;
const CLIENT: usize = RELAYS + 1;
const HOST: usize = RELAYS + 2;
/// What the client asks the exit for: a name of this host.
const TARGET: &str = "localhost";

/// What gives a party away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    /// The id or an address of the client.
    Client,
    /// The id or an address of the service's node.
    Service,
    /// The service's name, its key, or one of its blinded keys.
    Name,
    /// The host that a stream leads to.
    Target,
}

/// What to look for in bytes, and as whose id.
struct Marks {
    ids: BTreeMap<[u8; 32], Mark>,
    bytes: Vec<(Vec<u8>, Mark)>,
}

impl Marks {
    fn of(net: &Testnet, address: &str) -> Self {
        let mut marks = Self { ids: BTreeMap::new(), bytes: Vec::new() };
        for (node, mark) in [(CLIENT, Mark::Client), (HOST, Mark::Service)] {
            let said = run_in(&net.nodes[node].data_dir, &["--json", "id"]).json();
            let id = NodeId::from_str(said["peer_id"].as_str().expect("an id")).expect("a node").0;
            marks.ids.insert(id, mark);
            marks.bytes.push((id.to_vec(), mark));
            let addresses = said["addresses"].as_array().expect("addresses").iter().filter_map(Value::as_str);
            for address in addresses.filter(|address| address.contains("127.0.0.1")) {
                let address: libp2p::Multiaddr = address.parse().expect("an address");
                // Up to the port: what comes then is not always written.
                let place: libp2p::Multiaddr = address.iter().take(2).collect();
                marks.bytes.push((place.to_vec(), mark));
            }
        }
        let places = marks.bytes.iter().filter(|(bytes, _)| bytes.len() < 32).count();
        assert!(places >= 2, "both have told an address");
        marks.bytes.push((TARGET.into(), Mark::Target));
        let key = *Address::from_str(address).expect("a name").key();
        let name = address.trim_end_matches(".fog").as_bytes().to_vec();
        let network = Network::from_file(&fs::read_to_string(&net.network).expect("a file")).expect("a network");
        let calendar = Calendar { network: network.id, schedule: network.schedule() };
        let epoch = ok(net.first()).status().map(|status| status.epoch.number).expect("a status");
        let period = Period::at(fog_base::Epoch(epoch));
        let blinded = [period.previous(), period, period.next()]
            .map(|period| BlindedKey::derive::<Fog>(&key, &calendar.context(period)).as_bytes().to_vec());
        marks.bytes.extend([name, key.as_bytes().to_vec()].into_iter().chain(blinded).map(|bytes| (bytes, Mark::Name)));
        marks
    }

    fn in_bytes(&self, bytes: &[u8]) -> impl Iterator<Item = Mark> {
        let holds = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        self.bytes.iter().filter(move |(what, _)| holds(what)).map(|(_, mark)| *mark)
    }
}

/// What a node holds of each circuit; two that it joined are one.
fn held(dir: &Path, marks: &Marks) -> Vec<BTreeSet<Mark>> {
    let text = fs::read_to_string(dir.join("circuits.record")).expect("a record");
    let mut circuits: BTreeMap<String, BTreeSet<Mark>> = BTreeMap::new();
    let mut joined = BTreeSet::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of the record");
        let bytes =
            |name: &str| data_encoding::HEXLOWER.decode(line[name].as_str().expect("hex").as_bytes()).expect("hex");
        let from: [u8; 32] = bytes("from").try_into().expect("an id");
        let came = bytes("bytes");
        // A cell that begins a circuit has no number yet.
        let circuit =
            line["circuit"].as_u64().map_or_else(|| format!("of {}", line["from"]), |number| number.to_string());
        let marks = marks.ids.get(&from).copied().into_iter().chain(marks.in_bytes(&came));
        circuits.entry(circuit.clone()).or_default().extend(marks);
        joined.extend(line["joined"].as_u64().map(|other| (circuit, other.to_string())));
    }
    for (one, other) in joined {
        let of_other = circuits.get(&other).cloned().unwrap_or_default();
        circuits.entry(one).or_default().extend(of_other);
    }
    circuits.into_values().collect()
}

#[test]
fn nobody_between_sees_both_ends() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), RELAYS);
    plan.nodes.extend([NodePlan::exit("accept *"), NodePlan::client().with_private_exits(), NodePlan::client()]);
    for node in &mut plan.nodes {
        node.faults = Some(Faults { record: true, ..Faults::default() });
    }
    plan.mean_delay_ms = 20;
    let net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let web = services::serve_web().expect("a web server");
    let address = ok(ok(net.nodes[HOST].client()).service_add(web, "web"));
    let proxy = ok(net.nodes[CLIENT].client()).socks().expect("a proxy").to_owned();
    ok(until("a page of the service", PATIENCE * 2, || {
        services::fetch(&proxy, &address, "/1000", None).map_err(|error| error.to_string())
    }));
    ok(until("a page through the mixnet", PATIENCE * 2, || {
        services::fetch_mixed(&proxy, &address, "/1000", None).map_err(|error| error.to_string())
    }));
    ok(until("a stream through the exit", PATIENCE * 2, || {
        services::connect(&proxy, TARGET, web.port()).map_err(|error| error.to_string())
    }));
    ok(until("the service has reached itself", PATIENCE * 2, || {
        let all = ok(net.nodes[HOST].client()).services().map_err(|error| error.to_string())?;
        if all.iter().all(|one| one.state == "reachable") { Ok(()) } else { Err(format!("{all:?}")) }
    }));
    let looked = run_in(&net.nodes[CLIENT].data_dir, &["--json", "service", "lookup", &address]).json();
    assert_eq!(looked["address"], address.as_str());

    let marks = Marks::of(&net, &address);
    let records: Vec<_> = net.nodes.iter().map(|node| held(&node.data_dir, &marks)).collect();
    let together = [
        [Mark::Service, Mark::Name],
        [Mark::Client, Mark::Name],
        [Mark::Client, Mark::Service],
        [Mark::Client, Mark::Target],
    ];
    for (node, circuits) in records[..CLIENT].iter().enumerate() {
        for held in circuits {
            let both = together.iter().find(|both| both.iter().all(|mark| held.contains(mark)));
            assert_eq!(both, None, "node {node} holds {held:?} of one circuit");
        }
    }
    // Neither end learns where the other is.
    for (end, other) in [(CLIENT, Mark::Service), (HOST, Mark::Client)] {
        assert!(records[end].iter().all(|held| !held.contains(&other)), "node {end} holds {other:?}");
    }
    // That all of it was there to be seen: guards met both, a directory the blinded key, the exit its target; and circuits were joined.
    let holders =
        |mark: Mark| (0..CLIENT).filter(|node| records[*node].iter().any(|held| held.contains(&mark))).collect();
    let [clients, hosts, names, targets]: [Vec<_>; 4] =
        [Mark::Client, Mark::Service, Mark::Name, Mark::Target].map(holders);
    eprintln!("guards of the client {clients:?}, of the service {hosts:?}; directories {names:?}; exits {targets:?}");
    assert!(!clients.is_empty() && !hosts.is_empty() && !names.is_empty(), "nothing was recorded");
    assert_eq!(targets, [EXIT]);
    let is_joined = |node: usize| {
        fs::read_to_string(net.nodes[node].data_dir.join("circuits.record")).is_ok_and(|text| {
            text.lines().any(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["joined"].is_u64()))
        })
    };
    assert!((0..CLIENT).any(is_joined), "no rendezvous was recorded");
    // From nobody, as far as the relay knows.
    let nobody = "0".repeat(64);
    let from_mixnet = |node: &usize| {
        let text = fs::read_to_string(net.nodes[*node].data_dir.join("circuits.record")).expect("a record");
        text.lines().any(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["from"] == nobody.as_str()))
    };
    assert!(
        (0..CLIENT).filter(from_mixnet).count() >= 2,
        "a directory and an introduction point were asked through the mixnet"
    );
}
