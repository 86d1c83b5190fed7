//! The privacy level `mixed` between whole nodes: a page through the mixnet, no circuit of the client's to it, and what is refused instead of going
//! another way.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

use data_encoding::BASE64;
use fog_services::{Address, core::blinding::Identity};
use fog_testnet::{Node, NodePlan, Plan, Testnet, services, until};

use super::support::{PATIENCE, fog, metric, ok, one_network_at_a_time, run_in};

const RELAYS: usize = 7;
const HOST: usize = RELAYS;
const GUEST: usize = RELAYS + 1;

/// The circuits that a node has, by purpose.
fn purposes(node: &Node) -> Vec<String> {
    let circuits = run_in(&node.data_dir, &["--json", "circuits"]).json();
    let circuits = circuits.as_array().expect("a list").iter();
    circuits.map(|one| one["purpose"].as_str().expect("a purpose").to_owned()).collect()
}

/// The text of an answer that is not the service's.
#[track_caller]
fn refused(proxy: &str, address: &str, path: &str, body: Option<&[u8]>) -> String {
    String::from_utf8(services::fetch_mixed(proxy, address, path, body).expect("an answer")).expect("text")
}

#[test]
fn a_page_comes_through_the_mixnet_and_by_no_circuit() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), RELAYS);
    plan.nodes.extend([NodePlan::client(), NodePlan::client()]);
    plan.mean_delay_ms = 20;
    let net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let (host, guest) = (&net.nodes[HOST], &net.nodes[GUEST]);
    let web = services::serve_web().expect("a web server");
    let address = ok(ok(host.client()).service_add(web, "web"));
    ok(until("the service has reached itself", PATIENCE * 3, || {
        let all = ok(host.client()).services().map_err(|error| error.to_string())?;
        if all.iter().all(|one| one.state == "reachable") { Ok(()) } else { Err(format!("{all:?}")) }
    }));
    let proxy = ok(guest.client()).socks().expect("a proxy").to_owned();
    // A client finds its mailbox before anything can be answered to it.
    ok(until("a page through the mixnet", PATIENCE * 3, || match services::fetch_mixed(&proxy, &address, "/", None) {
        Ok(page) if page == b"a page" => Ok(()),
        other => Err(format!("{other:?}")),
    }));
    let sent =
        || (metric(&guest.data_dir, "fog_mix_sent_total"), metric(&host.data_dir, "fog_service_mixed_served_total"));
    let (packets, served) = sent();
    let began = Instant::now();
    let fetch = |path: &str, body: Option<&[u8]>| {
        services::fetch_mixed(&proxy, &address, path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    assert!(fetch("/100000", None) == services::page(100_000), "100,000 bytes down");
    eprintln!("100,000 bytes down after {:?}", began.elapsed());
    let body = services::page(60_000);
    assert_eq!(fetch("/", Some(&body)), blake3::hash(&body).to_hex().as_bytes(), "60,000 bytes up");
    eprintln!("60,000 bytes up after {:?}", began.elapsed());
    // HTTP CONNECT asks for it too; the stream ends with the answer, though neither end has said that it does.
    let mut tunnel = TcpStream::connect(&proxy).expect("the proxy");
    let credentials = BASE64.encode(b"mixed:x");
    write!(tunnel, "CONNECT {address}:80 HTTP/1.1\r\nProxy-Authorization: Basic {credentials}\r\n\r\n").expect("asked");
    tunnel.read_exact(&mut [0; 39]).expect("an answer");
    write!(tunnel, "GET /10 HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("asked");
    let mut answer = Vec::new();
    tunnel.read_to_end(&mut answer).expect("a page");
    assert!(answer.ends_with(&services::page(10)), "{}", String::from_utf8_lossy(&answer));

    // It was packets of the mixnet: at least those that the request of 60,000 bytes has.
    let packets = sent().0 - packets;
    assert!(packets >= 60_000.0 / 1605.0, "{packets} packets");
    // The service was asked three times more, by way of relays; the counters follow.
    let held = || net.nodes[..RELAYS].iter().map(|relay| metric(&relay.data_dir, "fog_service_exchanges")).sum::<f64>();
    ok(until("three requests are counted", PATIENCE, || {
        let (served, held) = (sent().1 - served, held());
        if served > 2.5 && held > 2.5 { Ok(()) } else { Err(format!("{served} served, {held} held by relays")) }
    }));
    // Each request runs once; one whose answer was too late for its client may have run as well.
    let asked = metric(&guest.data_dir, "fog_service_mixed_asked_total");
    assert!(asked > 3.5 && sent().1 < asked + 0.5, "asked {asked} times, served {} times", sent().1);
    // And no circuit: neither to the service, nor to a directory, nor to an introduction point.
    let built = purposes(guest);
    assert!(built.iter().all(|purpose| !is_of_services(purpose)), "{built:?}");
    assert!(metric(&guest.data_dir, "fog_service_sessions") < 0.5);

    // What the level does not carry is refused, with a reason, and goes no other way.
    assert!(refused(&proxy, &address, "/", Some(&services::page(66_000))).contains("request is larger"));
    assert!(refused(&proxy, &address, "/300000", None).contains("answer is larger"));
    let code = |host: &str| services::connect_mixed(&proxy, host, 80).map(drop).expect_err("refused").to_string();
    assert!(code("example.com").ends_with("0x02") && code("1.2.3.4").ends_with("0x02"));
    assert!(code("aaaa.fog").ends_with("0xf6"));
    let nobody = Address::new(*Identity::from_seed([1; 32]).expect("a key").key()).to_string();
    assert!(code(&nobody).ends_with("0xf0"));
    assert_eq!(purposes(guest).iter().filter(|purpose| is_of_services(purpose)).count(), 0);
}

/// Not of a client's own streams, nor built ahead of any need.
fn is_of_services(purpose: &str) -> bool {
    !["general", "spare"].contains(&purpose)
}
