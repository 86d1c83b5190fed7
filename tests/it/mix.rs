//! Messages through a network of real processes, as a user sends and reads them. The network is brought up once for all of this, as that
//! is what takes time; each part says what it shows.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use fog_testnet::{Batch, Node, NodePlan, Plan, Recipient, Testnet, until};
use serde_json::Value;

use super::support::{Ended, PATIENCE, fog, ok, one_network_at_a_time, run_in};

const RELAYS: usize = 7;
const CLIENT: usize = RELAYS;

struct Network {
    testnet: Testnet,
    scratch: tempfile::TempDir,
}

#[test]
fn messages_cross_a_network_of_seven_relays_and_a_client() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), RELAYS);
    plan.nodes.push(NodePlan::client());
    plan.epoch_seconds = 30;
    plan.mean_delay_ms = 20;
    let testnet = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let mut network = Network { testnet, scratch };
    network.all_answer_alike();
    network.a_text_arrives_signed_or_without_a_name();
    network.a_file_arrives_byte_for_byte();
    network.pings_come_back();
    network.a_request_that_makes_no_sense_is_refused();
    network.a_client_that_is_away_gets_its_message_later();
    network.a_killed_relay_costs_no_message_and_doubles_none();
    network.a_recipient_that_is_killed_among_messages_gets_each_once();
    let (nodes, bad) = ok(network.testnet.down());
    assert_eq!((nodes, bad), (RELAYS + 1 - 1, 0), "all but the killed relay end with 0");
}

impl Network {
    fn node(&self, index: usize) -> &Node {
        &self.testnet.nodes[index]
    }

    fn run(&self, index: usize, args: &[&str]) -> Ended {
        run_in(&self.node(index).data_dir, args)
    }

    fn peer_id(&self, index: usize) -> String {
        ok(self.node(index).client()).peer_id().to_owned()
    }

    fn invite(&self, index: usize) -> String {
        self.run(index, &["--json", "id"]).json()["invite"].as_str().expect("an invite").to_owned()
    }

    /// What `fog mix recv` yields until `wanted` holds for one message.
    fn receive(&self, index: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = until("a message", PATIENCE, || {
            let messages = self.run(index, &["--json", "mix", "recv"]).json_lines();
            let count = messages.len();
            messages.into_iter().find(&wanted).ok_or_else(|| format!("{count} others"))
        });
        ok(found)
    }

    fn all_answer_alike(&self) {
        let snapshots: Vec<_> = (0..=CLIENT).map(|i| self.run(i, &["--json", "relays", "snapshot"]).json()).collect();
        assert!(snapshots.iter().all(|s| s["relays"] == RELAYS), "{snapshots:?}");
        let status = self.run(0, &["--json", "status"]).json();
        assert_eq!(status["state"], "ready", "{status}");
        assert_eq!(status["mix"]["ready"], true, "{status}");
        assert_eq!(status["relays"]["known"], RELAYS, "{status}");
        let peers = self.run(0, &["--json", "peers"]).json();
        assert!(peers.as_array().is_some_and(|peers| !peers.is_empty()), "{peers}");
        let relays = self.run(CLIENT, &["--json", "relays"]).json();
        let listed: Vec<_> = relays.as_array().expect("a list").iter().map(|relay| relay["peer_id"].clone()).collect();
        assert_eq!(listed.len(), RELAYS, "{relays}");
        assert!(!listed.contains(&self.peer_id(CLIENT).into()), "a client is no relay");
    }

    fn a_text_arrives_signed_or_without_a_name(&self) {
        for (anonymous, text) in [(false, "signed: grüße"), (true, "nobody said this")] {
            let (to, from) = (self.peer_id(5), self.peer_id(0));
            let mut args = vec!["--json", "mix", "send", &to, text];
            args.extend(anonymous.then_some("--anonymous"));
            let sent = self.run(0, &args).json();
            assert_eq!(sent["state"], "delivered", "{sent}");
            assert_eq!(sent["acked"], true, "{sent}");
            assert_eq!(sent["hops"], 4, "{sent}");
            let got = self.receive(5, |message| message["text"] == text);
            let expected = if anonymous { Value::Null } else { from.into() };
            assert_eq!(got["from"], expected, "{got}");
            assert_eq!(got["bytes"], text.len(), "{got}");
        }
        let again = self.run(5, &["--json", "mix", "recv"]);
        assert_eq!(again.json_lines(), Vec::<Value>::new(), "what was read is not shown again");
        let all = self.run(5, &["--json", "mix", "recv", "--all"]).json_lines();
        assert_eq!(all.len(), 2, "{all:?}");
    }

    fn a_file_arrives_byte_for_byte(&self) {
        let bytes: Vec<u8> = (0..40_000u32).map(|i| ((i * i) >> 3) as u8).collect();
        let file = self.scratch.path().join("file");
        fs::write(&file, &bytes).expect("written");
        self.run(2, &["--json", "chat", "contact", "add", &self.invite(CLIENT), "--name", "carol"]).json();
        let path = file.display().to_string();
        let sent = self.run(2, &["--json", "mix", "send", "carol", "--file", &path, "--wait"]).json();
        assert_eq!(sent["state"], "delivered", "{sent}");
        let got = self.receive(CLIENT, |message| message["bytes"] == bytes.len());
        let body = data_encoding::BASE64.decode(got["base64"].as_str().expect("not text").as_bytes()).expect("base64");
        assert!(body == bytes, "other bytes arrived");
    }

    fn pings_come_back(&self) {
        let lines = self.run(1, &["--json", "mix", "ping", &self.peer_id(4), "-c", "5"]).json_lines();
        let (summary, pings) = lines.split_last().expect("lines");
        assert_eq!(pings.len(), 5, "{lines:?}");
        assert_eq!((&summary["sent"], &summary["received"]), (&5.into(), &5.into()), "{lines:?}");
        assert_eq!(summary["loss"].as_f64(), Some(0.0), "{lines:?}");
    }

    fn a_request_that_makes_no_sense_is_refused(&self) {
        let to = self.peer_id(5);
        self.run(0, &["mix", "send", &to, "--hops", "9", "too far"]).refused(2);
        let stranger = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        self.run(0, &["mix", "send", stranger, "who are you"]).refused(1).says(stranger);
        self.run(0, &["mix", "send", "carol", "not a contact here"]).refused(2).says("no contact");
        let file = self.scratch.path().join("large");
        fs::write(&file, vec![b'x'; 1024 * 1024 + 1]).expect("written");
        let large = self.run(0, &["mix", "send", &to, "--file", &file.display().to_string()]);
        assert!(matches!(large.code, Some(1 | 2)), "{large:?}");
        assert!(large.stderr.contains("1048576"), "{large:?}");
    }

    fn a_client_that_is_away_gets_its_message_later(&mut self) {
        let invite = self.invite(CLIENT);
        let (took, code) = self.testnet.nodes[CLIENT].stop();
        assert_eq!(code, Some(0), "asked to end, it ended after {took:?}");
        let sent = self.run(3, &["--json", "mix", "send", &invite, "for later"]).json();
        assert_eq!(sent["state"], "stored", "{sent}");
        assert_eq!(sent["acked"], false, "{sent}");
        ok(self.testnet.nodes[CLIENT].start());
        self.receive(CLIENT, |message| message["text"] == "for later");
    }

    fn a_killed_relay_costs_no_message_and_doubles_none(&mut self) {
        let recipients = [0, 1, 2, 3, 4, CLIENT];
        self.exactly_once("killed-relay", 60, &recipients, |nodes| nodes[6].kill());
    }

    fn a_recipient_that_is_killed_among_messages_gets_each_once(&mut self) {
        self.exactly_once("killed-recipient", 40, &[5], |nodes| {
            nodes[5].kill();
            ok(nodes[5].start());
        });
    }

    /// Sends messages from nodes 0 and 1, does `harm` when a third of them was acknowledged, and counts.
    fn exactly_once(&mut self, tag: &str, messages: usize, to: &[usize], harm: impl FnOnce(&mut [Node])) {
        let batch = Batch {
            tag: tag.into(),
            senders: vec![ok(self.node(0).client()), ok(self.node(1).client())],
            recipients: to.iter().map(|index| ok(Recipient::new(self.node(*index)))).collect(),
            messages,
            bytes: 3000, // two packets each
            in_flight: 5,
            anonymous: true,
            timeout: Duration::from_secs(110),
        };
        let done = AtomicUsize::new(0);
        let outcome = thread::scope(|scope| {
            let sending = scope.spawn(|| batch.send(&done));
            while done.load(Ordering::Relaxed) < messages / 3 && !sending.is_finished() {
                thread::sleep(Duration::from_millis(5));
            }
            harm(&mut self.testnet.nodes);
            sending.join().expect("a sending thread")
        });
        let counted = ok(batch.count(Duration::from_secs(15)));
        assert_eq!(outcome.wrong(&counted, messages), Vec::<String>::new(), "{tag}: {counted:?}");
    }
}
