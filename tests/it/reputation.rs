//! What nodes of a real network think of each other, by the evidence of their own links and loops.

use fog_testnet::{Faults, Node, NodePlan, Plan, Testnet, until};
use serde_json::Value;

use super::support::{Alone, PATIENCE, fog, metric, ok, one_network_at_a_time, run_in};

const RELAYS: usize = 6;
/// What everybody begins with.
const PRIOR: f64 = 1.0 / 3.0;

fn reputation(node: &Node) -> Vec<Value> {
    let told = run_in(&node.data_dir, &["--json", "reputation"]).json();
    told.as_array().expect("a list").clone()
}

fn mean(lines: &[Value], peer: &str) -> Option<f64> {
    let line = lines.iter().find(|line| line["peer_id"] == peer && line["kind"] == "availability")?;
    let [mean, lower, upper, evidence] =
        ["mean", "lower", "upper", "evidence"].map(|name| line[name].as_f64().expect("a number"));
    assert!(0.0 < lower && lower < mean && mean < upper && upper < 1.0 && evidence > 0.0, "{line}");
    Some(mean)
}

#[test]
fn nodes_have_evidence_about_relays_and_keep_it_over_kill_9() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), RELAYS);
    plan.nodes.push(NodePlan::client());
    plan.epoch_seconds = 60;
    plan.mean_delay_ms = 20;
    let mut testnet = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let ids: Vec<_> = testnet.nodes.iter().map(|node| ok(node.client()).peer_id().to_owned()).collect();
    let to = &ids[3];
    let sent = run_in(&testnet.nodes[0].data_dir, &["--json", "mix", "send", to, "traffic"]).json();
    assert_eq!(sent["state"], "delivered", "{sent}");

    // Every node, the client too, has evidence for every other relay, and it speaks for them.
    for (index, node) in testnet.nodes.iter().enumerate() {
        let all = until("evidence about every relay", PATIENCE, || {
            let lines = reputation(node);
            let others = ids.iter().take(RELAYS).enumerate().filter(|(other, _)| *other != index);
            let means: Option<Vec<_>> = others.map(|(_, id)| mean(&lines, id)).collect();
            let means = means.filter(|means| means.iter().all(|mean| *mean > PRIOR));
            means.ok_or_else(|| format!("node {index}: {lines:?}"))
        });
        eprintln!("node {index}: means {:.3?}", ok(all));
        assert!(mean(&reputation(node), &ids[index]).is_none(), "nobody judges itself");
        let relays = run_in(&node.data_dir, &["--json", "relays"]).json();
        let known = relays.as_array().expect("a list").iter().filter(|relay| relay["reputation"].is_number()).count();
        assert!(known >= RELAYS - 1, "{relays}");
    }

    // One peer by its id and by its invite: all three kinds.
    let dir = &testnet.nodes[0].data_dir.clone();
    for whom in [ids[1].clone(), ok(ok(testnet.nodes[1].client()).invite())] {
        let told = run_in(dir, &["--json", "reputation", &whom]).json();
        let kinds: Vec<_> = told.as_array().expect("a list").iter().map(|line| line["kind"].clone()).collect();
        assert_eq!(kinds, ["correctness", "availability", "rating"], "{told}");
        assert!(told.as_array().is_some_and(|lines| lines.iter().all(|line| line["peer_id"] == ids[1].as_str())));
    }

    // What was saved is there after kill -9, before any link is made again.
    let node = &mut testnet.nodes[0];
    ok(until("evidence in the store", PATIENCE, || {
        let saved = metric(&node.data_dir, "fog_reputation_saved_total");
        (saved >= (RELAYS - 1) as f64).then_some(()).ok_or_else(|| format!("{saved} rows are saved"))
    }));
    node.kill();
    // The others are gone, so it cannot have learnt anew.
    for other in &mut testnet.nodes[1..] {
        other.kill();
    }
    let node = &mut testnet.nodes[0];
    ok(node.start());
    let lines = ok(until("the node's answer", PATIENCE, || {
        let told = run_in(&node.data_dir, &["--json", "reputation"]);
        if told.code == Some(0) { Ok(told.json().as_array().expect("a list").clone()) } else { Err(told.stderr) }
    }));
    for id in &ids[1..RELAYS] {
        assert!(mean(&lines, id).is_some_and(|mean| mean > PRIOR), "{id}: {lines:?}");
    }
}

#[test]
fn of_an_unknown_peer_the_prior_is_told_and_a_bad_name_is_refused() {
    let node = Alone::start();
    let stranger = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    let told = node.run(&["--json", "reputation", stranger]).json();
    let lines = told.as_array().expect("a list");
    assert_eq!(lines.len(), 3, "{told}");
    for line in lines {
        assert!((line["mean"].as_f64().expect("a number") - PRIOR).abs() < 1e-9, "{line}");
        assert_eq!((&line["evidence"], &line["reports"]), (&0.0.into(), &0.into()), "{line}");
    }
    let human = node.run(&["reputation", stranger]);
    assert!(human.stdout.contains(&format!("nothing is known of {stranger}")), "{human:?}");
    assert!(node.run(&["reputation"]).stdout.contains("nothing is known of anybody"), "alone");
    for bad in ["nobody-i-know", "fog1nonsense", "a b&peer=c", ""] {
        node.run(&["reputation", bad]).refused(2).says("hint: ");
    }
    let me = node.node_file()["peer_id"].as_str().expect("an id").to_owned();
    node.run(&["reputation", &me]).refused(2).says("itself");
}

/// A relay that loses a third of what crosses its links is noticed by the seats' loops, and has no seat any more: all nodes say so, of it
/// alone.
#[test]
fn a_relay_that_loses_packets_loses_its_seat() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), 9);
    plan.epoch_seconds = 20;
    plan.mean_delay_ms = 20;
    plan.nodes[4].faults = Some(Faults { loss: 0.3, ..Faults::default() });
    let testnet = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let faulty = ok(testnet.nodes[4].client()).peer_id().to_owned();

    let mut lowest_honest = f64::INFINITY;
    let fell = until("the faulty relay to lose its seat at all nodes", 6 * PATIENCE, || {
        for (index, node) in testnet.nodes.iter().enumerate() {
            let relays = run_in(&node.data_dir, &["--json", "relays"]).json();
            for relay in relays.as_array().expect("a list") {
                let Some(standing) = relay["standing"].as_f64() else { return Err("nothing is certified".to_owned()) };
                if relay["peer_id"] != faulty.as_str() {
                    lowest_honest = lowest_honest.min(standing);
                } else if relay["weight"] != 0 || relay["seated"] != false || standing > 0.7 {
                    return Err(format!("node {index}: {relay}"));
                }
            }
        }
        Ok(())
    });
    ok(fell);
    assert!(lowest_honest > 0.7, "an honest relay fell to {lowest_honest}");
}

/// What a client knows of a relay that answers no circuit it has from its own circuits alone; and it builds its circuits over others.
#[test]
fn a_relay_that_drops_circuits_loses_standing_and_is_chosen_no_more() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), 9);
    plan.nodes.push(NodePlan::client().with_cover("none"));
    plan.epoch_seconds = 60;
    plan.mean_delay_ms = 20;
    // It is no directory: nobody has to ask it of all relays.
    plan.nodes[4].roles = Some("mix,guard".into());
    plan.nodes[4].faults = Some(Faults { circuits: 1.0, ..Faults::default() });
    let testnet = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let id = |index: usize| ok(testnet.nodes[index].client()).peer_id().to_owned();
    let (faulty, honest): (_, Vec<_>) = (id(4), [0, 1, 2, 3, 5, 6, 7, 8].map(id).into());
    let web = fog_testnet::services::serve_web().expect("a web server");
    let address = ok(ok(testnet.nodes[0].client()).service_add(web, "web"));
    let client = &testnet.nodes[9];
    let look_up = || drop(run_in(&client.data_dir, &["--json", "service", "lookup", &address]));

    let passed_over = || metric(&client.data_dir, r#"fog_circuits_passed_over{why="experience"}"#);
    ok(until("the faulty relay to be known", 6 * PATIENCE, || {
        look_up();
        let lines = reputation(client);
        let of_faulty = mean(&lines, &faulty).ok_or_else(|| format!("{lines:?}"))?;
        let means: Option<Vec<_>> = honest.iter().map(|id| mean(&lines, id)).collect();
        let is_lowest = means.as_ref().is_some_and(|means| means.iter().all(|mean| *mean > of_faulty));
        let told = format!("{of_faulty:.3}, others {means:.3?}, {} passed over", passed_over());
        if is_lowest && passed_over() >= 1.0 {
            {
                eprintln!("known: {told}");
                Ok(())
            }
        } else {
            Err(told)
        }
    }));

    // From now on its evidence does not grow, as nothing is asked of it, and that of the others does.
    let evidence = |of: &str| {
        let lines = reputation(client);
        let line = lines.iter().find(|line| line["peer_id"] == of && line["kind"] == "availability");
        line.and_then(|line| line["evidence"].as_f64()).unwrap_or(0.0)
    };
    let of_honest = || honest.iter().map(|id| evidence(id)).sum::<f64>();
    let before = (evidence(&faulty), of_honest());
    ok(until("circuits over other relays", 6 * PATIENCE, || {
        look_up();
        let now = of_honest();
        (now > before.1 + 40.0).then_some(()).ok_or_else(|| format!("{now} after {}", before.1))
    }));
    let after = evidence(&faulty);
    eprintln!(
        "evidence about it {:.1}, then {after:.1}; about the others {:.1}, then {:.1}",
        before.0,
        before.1,
        of_honest()
    );
    // What was under way when it was found out may have been told since; and a guard is tried again after ten minutes.
    assert!(after < before.0 + 3.0, "{after} after {}", before.0);
}
