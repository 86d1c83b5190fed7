//! A network whose file names its relays: the set of each epoch is certified, whoever joins, leaves or is killed. The network is
//! brought up once for all of this; each part says what it shows.

use std::time::Duration;

use fog_testnet::{NodePlan, Plan, Snapshot, Testnet, until};

use super::support::{Ended, fog, ok, one_network_at_a_time, run_in};

const RELAYS: usize = 6;
/// Long enough for the rounds on a loaded machine: one lasts half a second.
const EPOCH: u64 = 12;

struct Network {
    testnet: Testnet,
    _scratch: tempfile::TempDir,
}

#[test]
fn sets_are_certified_while_relays_join_leave_and_are_killed() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), RELAYS);
    plan.spares = 1;
    plan.epoch_seconds = EPOCH;
    plan.mean_delay_ms = 20;
    let testnet = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let mut network = Network { testnet, _scratch: scratch };
    network.before_the_first_set_the_relays_of_the_file_serve();
    let first = network.all_hold_one_certified_set();
    network.a_seat_is_verified_and_nonsense_is_refused();
    network.a_joiner_holds_the_chain_and_the_set();
    network.a_killed_seat_comes_back_and_nobody_signs_twice();
    network.all_killed_at_once_go_on_where_they_were();
    let last = network.all_hold_one_certified_set();
    assert!(last.epoch > first.epoch);
    ok(network.testnet.down());
}

impl Network {
    fn run(&self, index: usize, args: &[&str]) -> Ended {
        run_in(&self.testnet.nodes[index].data_dir, args)
    }

    fn peer_id(&self, index: usize) -> String {
        ok(self.testnet.nodes[index].client()).peer_id().to_owned()
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, String> {
        let running = self.testnet.nodes.iter().filter(|node| node.process().is_some());
        running.map(|node| node.client().and_then(|client| client.snapshot()).map_err(|e| e.to_string())).collect()
    }

    #[track_caller]
    fn all_hold_one_certified_set(&self) -> Snapshot {
        let agreed = until("one certified set everywhere", Duration::from_secs(6 * EPOCH), || {
            let snapshots = self.snapshots()?;
            let is_common = snapshots.windows(2).all(|pair| pair[0] == pair[1]);
            match snapshots.first() {
                Some(first) if is_common && first.certified => Ok(first.clone()),
                _ => Err(format!("{snapshots:?}")),
            }
        });
        ok(agreed)
    }

    fn before_the_first_set_the_relays_of_the_file_serve(&self) {
        let status = self.run(0, &["--json", "status"]).json();
        assert_eq!(status["sybil_resistance"], "stake");
        assert_eq!(status["relays"]["seated"], RELAYS);
        if status["certified"] == false {
            assert!(status["warnings"].to_string().contains("network file"), "{status}");
        }
    }

    fn a_seat_is_verified_and_nonsense_is_refused(&self) {
        let peer = self.peer_id(2);
        let seat = self.run(1, &["--json", "relays", "verify", &peer]).json();
        assert_eq!((seat["proof_ok"].as_bool(), seat["seated"].as_bool()), (Some(true), Some(true)), "{seat}");
        assert_eq!((seat["peer_id"].as_str(), seat["output"].as_str().map(str::len)), (Some(&*peer), Some(64)));
        let snapshot = self.run(1, &["--json", "relays", "snapshot"]).json();
        let weight = |field: &str| snapshot[field].as_u64().expect("a number");
        assert!(weight("signed_weight") * 3 > weight("total_weight") * 2 && weight("signatures") >= 5, "{snapshot}");
        assert_eq!(snapshot["relays"], RELAYS);
        self.run(1, &["relays", "verify", "nobody"]).refused(2).says("nobody");
        let stranger = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        self.run(1, &["relays", "verify", stranger]).refused(1).says("not in the certified set");
        for relay in self.run(1, &["--json", "relays"]).json().as_array().expect("relays") {
            assert_eq!((relay["stake"].as_u64(), relay["seated"].as_bool()), (Some(100), Some(true)), "{relay}");
        }
    }

    fn a_joiner_holds_the_chain_and_the_set(&mut self) {
        let index = ok(self.testnet.join(NodePlan::relay()));
        self.all_hold_one_certified_set();
        // In the next set, and seated after it stood in two.
        let peer = self.peer_id(index);
        let seated = until("the joiner's seat", Duration::from_secs(8 * EPOCH), || {
            let client = self.testnet.first().map_err(|e| e.to_string())?;
            match client.is_seated(&peer) {
                Ok(true) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        ok(seated);
    }

    fn a_killed_seat_comes_back_and_nobody_signs_twice(&mut self) {
        self.testnet.nodes[3].kill();
        let before = self.all_hold_one_certified_set();
        ok(self.testnet.nodes[3].start());
        let later = until("two more epochs", Duration::from_secs(6 * EPOCH), || {
            let now = self.all_hold_one_certified_set();
            if now.epoch >= before.epoch + 2 { Ok(()) } else { Err(format!("epoch {}", now.epoch)) }
        });
        ok(later);
        for peer in self.run(0, &["--json", "peers"]).json().as_array().expect("peers") {
            assert!(peer["score"].as_f64().is_some_and(|score| score > -1.0), "nobody was accused: {peer}");
        }
    }

    fn all_killed_at_once_go_on_where_they_were(&mut self) {
        self.all_hold_one_certified_set();
        self.testnet.nodes.iter_mut().for_each(fog_testnet::Node::kill);
        for node in &mut self.testnet.nodes {
            ok(node.start());
        }
        let first = ok(self.testnet.nodes[0].client());
        let served = until("a set out of the store", Duration::from_secs(EPOCH), || {
            let snapshot = first.snapshot().map_err(|e| e.to_string())?;
            if snapshot.root.is_empty() { Err(format!("{snapshot:?}")) } else { Ok(snapshot) }
        });
        ok(served);
        self.all_hold_one_certified_set();
    }
}
