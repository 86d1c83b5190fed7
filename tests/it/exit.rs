//! Exits between whole nodes: what they open, what they refuse, and what never comes to them.

use std::net::TcpListener;

use fog_testnet::{NodePlan, Plan, Testnet, services, until};

use super::support::{PATIENCE, fog, ok, one_network_at_a_time, run_in};

const RELAYS: usize = 5;

/// The code with which a stream is refused.
#[track_caller]
fn refused(socks: &str, host: &str, port: u16) -> String {
    match services::connect(socks, host, port) {
        Ok(_) => panic!("{host}:{port} is open"),
        Err(error) => error.to_string().trim_start_matches("SOCKS reply ").to_owned(),
    }
}

/// An exit that does not connect to private addresses.
fn careful(port: u16) -> NodePlan {
    let mut careful = NodePlan::exit(&format!("accept {port}, reject *"));
    careful.exits.private = false;
    careful
}

#[test]
fn exits_open_what_their_policy_accepts_and_are_not_asked_for_what_is_private() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let web = services::serve_web().expect("a web server").port();
    // Served, and accepted by an exit that does not connect to private addresses.
    let other = services::serve_web().expect("a web server").port();
    // Accepted, and nobody listens.
    let silent = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    // Served, and accepted by nobody.
    let closed = services::serve_web().expect("a web server").port();
    let careful = careful(other);
    let mut plan = Plan::new(fog(), scratch.path().join("net"), RELAYS);
    plan.nodes.push(NodePlan::exit(&format!("reject {closed}, accept {web}, accept {silent}")));
    plan.nodes.extend([careful, NodePlan::client().with_private_exits(), NodePlan::client()]);
    plan.mean_delay_ms = 20;
    let net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let proxy = |node: usize| ok(net.nodes[node].client()).socks().expect("a proxy").to_owned();
    let (tester, client) = (proxy(RELAYS + 2), proxy(RELAYS + 3));

    // The exit resolves a name; an address needs no resolver.
    let get = |host: &str| {
        let mut socket = services::connect(&tester, host, web).map_err(|error| error.to_string())?;
        std::io::Write::write_all(&mut socket, b"GET /5000 HTTP/1.1\r\n\r\n").map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut socket, &mut answer).map_err(|error| error.to_string())?;
        if answer.ends_with(&services::page(5000)) { Ok(()) } else { Err(format!("{} bytes came", answer.len())) }
    };
    for host in ["127.0.0.1", "localhost"] {
        ok(until("a page through the exit", PATIENCE, || get(host)));
    }
    assert_eq!(refused(&tester, "127.0.0.1", silent), "0x05", "the target refuses");
    assert_eq!(refused(&tester, "127.0.0.1", closed), "0x03", "no exit accepts the port");
    assert_eq!(refused(&tester, "127.0.0.1", other), "0x02", "the exit does not connect to its own host");
    assert_eq!(refused(&tester, "localhost", other), "0x02", "nor by a name");
    let circuits = run_in(&net.nodes[RELAYS + 2].data_dir, &["--json", "circuits"]).json();
    let exit = ok(net.nodes[RELAYS].client()).peer_id().to_owned();
    let ends_there = |one: &serde_json::Value| {
        one["hops"].as_array().and_then(|hops| hops.last()).is_some_and(|last| *last == exit.as_str())
    };
    assert!(circuits.as_array().is_some_and(|all| all.iter().any(ends_there)), "{circuits}");

    // Whoever may not ask for it is refused by its own proxy: another code than that of a port which no exit accepts, and no circuit.
    let private = [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.1.1",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "[::1]",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "2130706433",
        "0x7f.1",
        "localhost",
        "printer",
        "nas.local",
        "router.lan",
        "a.internal",
    ];
    for host in private {
        for port in [web, closed] {
            assert_eq!(refused(&client, host, port), "0x02", "{host}");
        }
    }
    for (proxy, host) in [(&client, "example.onion"), (&tester, "example.onion"), (&tester, "ONION.")] {
        assert_eq!(refused(proxy, host, web), "0x02", "{host}");
    }
    assert_eq!(refused(&client, "8.8.8.8", closed), "0x03", "what is global is asked for");
    let circuits = run_in(&net.nodes[RELAYS + 3].data_dir, &["--json", "circuits"]).json();
    let streams = circuits.as_array().expect("a list").iter().filter(|one| one["streams"] != 0).count();
    assert_eq!(streams, 0, "{circuits}");
}
