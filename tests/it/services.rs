//! `.fog` services between whole nodes: reached by name through SOCKS5 and HTTP CONNECT, over restarts and kills; and what wrong input gets.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use fog_testnet::{Node, NodePlan, Plan, Testnet, services, until};

use super::support::{Alone, PATIENCE, fog, ok, one_network_at_a_time, run_in};

const RELAYS: usize = 8;

fn testnet(dir: &Path, clients: usize) -> Testnet {
    let mut plan = Plan::new(fog(), dir, RELAYS);
    plan.nodes.extend(vec![NodePlan::client(); clients]);
    plan.mean_delay_ms = 20;
    ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")))
}

fn peer(node: &Node) -> String {
    ok(node.client()).peer_id().to_owned()
}

fn socks(node: &Node) -> String {
    ok(node.client()).socks().expect("a proxy").to_owned()
}

/// Waits until the service has reached itself.
#[track_caller]
fn reachable(node: &Node, address: &str) -> Duration {
    let began = Instant::now();
    ok(until("the service has reached itself", PATIENCE * 3, || {
        let all = ok(node.client()).services().map_err(|error| error.to_string())?;
        let found = all.iter().find(|service| service.address == address).ok_or("it is not listed")?;
        if matches!(found.state.as_str(), "reachable" | "degraded") { Ok(()) } else { Err(format!("{found:?}")) }
    }));
    began.elapsed()
}

#[track_caller]
fn fetch(socks: &str, address: &str, path: &str) -> Vec<u8> {
    services::fetch(socks, address, path, None).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Waits until the page can be fetched again, without anybody acting.
#[track_caller]
fn again(socks: &str, address: &str) -> Duration {
    let began = Instant::now();
    ok(until("the page is there again", PATIENCE * 3, || match services::fetch(socks, address, "/", None) {
        Ok(page) if page == b"a page" => Ok(()),
        other => Err(format!("{other:?}")),
    }));
    began.elapsed()
}

#[test]
fn a_service_is_reached_by_name_over_restarts_and_kills() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut net = testnet(&scratch.path().join("net"), 2);
    let web = services::serve_web().expect("a web server");
    let (host, guest) = (RELAYS, RELAYS + 1);
    let added = run_in(
        &net.nodes[host].data_dir,
        &["--json", "service", "add", "--target", &web.to_string(), "--name", "blog"],
    )
    .json();
    let address = added["address"].as_str().expect("an address").to_owned();
    assert!(address.ends_with(".fog") && address.len() == 60, "{added}");
    eprintln!("reachable after {:?}", reachable(&net.nodes[host], &address));

    // SOCKS5, HTTP CONNECT, sizes both ways, many at once.
    let proxy = socks(&net.nodes[guest]);
    assert_eq!(fetch(&proxy, &address, "/"), b"a page");
    assert_eq!(fetch(&proxy, &address.to_uppercase().replace(".FOG", ".fog"), "/"), b"a page");
    let mut tunnel = TcpStream::connect(&proxy).expect("the proxy");
    write!(tunnel, "CONNECT {address}:80 HTTP/1.1\r\n\r\n").expect("a request");
    let mut head = [0; 39];
    tunnel.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 Connection established\r\n\r\n");
    write!(tunnel, "GET / HTTP/1.1\r\n\r\n").expect("a request");
    let mut page = String::new();
    tunnel.read_to_string(&mut page).expect("a page");
    assert!(page.ends_with("a page"), "{page}");
    let big = services::page(20 << 20);
    assert!(fetch(&proxy, &address, &format!("/{}", 20 << 20)) == big, "20 MiB down");
    let hash = services::fetch(&proxy, &address, "/", Some(&big)).expect("20 MiB up");
    assert_eq!(String::from_utf8(hash).expect("hex"), blake3::hash(&big).to_hex().as_str());
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| assert_eq!(fetch(&proxy, &address, "/1000"), services::page(1000)));
        }
    });
    let looked = run_in(&net.nodes[guest].data_dir, &["--json", "service", "lookup", &address]).json();
    assert!(looked["introduction_points"].as_u64().is_some_and(|points| (1..=3).contains(&points)), "{looked}");
    let circuits = run_in(&net.nodes[guest].data_dir, &["--json", "circuits"]).json();
    let open = circuits.as_array().expect("a list").iter().filter(|one| one["state"] == "open");
    assert!(open.clone().any(|one| one["purpose"] == "rendezvous"), "{circuits}");
    // Spare ones lack the relay where they are to end.
    let mut used = open.filter(|one| one["purpose"] != "spare");
    assert!(used.all(|one| one["hops"].as_array().is_some_and(|hops| hops.len() >= 3)), "{circuits}");

    // The service's node is killed and comes back: under the same name, without anybody acting.
    net.nodes[host].kill();
    ok(net.nodes[host].start());
    eprintln!("the service was killed: {:?}", again(&proxy, &address));
    // A relay on the way is killed.
    let circuits = run_in(&net.nodes[guest].data_dir, &["--json", "circuits"]).json();
    let used = circuits.as_array().expect("a list").iter().find(|one| one["purpose"] == "rendezvous");
    let hops = used.expect("a circuit to the service")["hops"].clone();
    let is_on_it = |node: &Node| hops.as_array().is_some_and(|hops| hops.contains(&peer(node).into()));
    let relay = (0..RELAYS).find(|relay| is_on_it(&net.nodes[*relay])).expect("a relay of ours");
    net.nodes[relay].kill();
    eprintln!("a relay of the circuit was killed: {:?}", again(&proxy, &address));
    ok(net.nodes[relay].start());

    // Removed, it is gone for good, and who asks is told that there is no such service.
    let other = socks(&net.nodes[0]);
    assert_eq!(fetch(&other, &address, "/"), b"a page");
    assert_eq!(run_in(&net.nodes[host].data_dir, &["--json", "service", "remove", "blog"]).json()["name"], "blog");
    ok(until("it is gone", PATIENCE * 3, || match services::fetch(&other, &address, "/", None) {
        Err(error) if error.to_string().contains("SOCKS reply 0xf") => Ok(()),
        outcome => Err(format!("{:?}", outcome.map(|page| page.len()))),
    }));
}

#[test]
fn wrong_input_gets_a_reason_and_changes_nothing() {
    let node = Alone::start();
    let service = |args: &[&str]| node.run(&[&["--json", "service"], args].concat());
    for args in [
        &["add", "--target", "example.com:80"][..],
        &["add", "--target", "127.0.0.1"],
        &["add", "--target", "127.0.0.1:0"],
        &["add", "--target", "127.0.0.1:80", "--port", "0"],
        &["add", "--target", "127.0.0.1:80", "--name", "a b"],
        &["lookup", "nonsense"],
        &["lookup", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.fog"],
        &["authorize", "nothing", "nonsense"],
    ] {
        service(args).refused(2);
    }
    service(&["add", "--target", "127.0.0.1:80", "--clients", "/nonexistent"]).refused(1);
    service(&["remove", "nothing"]).refused(1);
    assert_eq!(service(&["list"]).json(), serde_json::json!([]));
    let added = service(&["add", "--target", "127.0.0.1:80", "--name", "blog"]).json();
    service(&["add", "--target", "127.0.0.1:81", "--name", "blog"]).refused(1);
    let listed = service(&["list"]).json();
    assert_eq!((&listed[0]["address"], &listed[0]["state"]), (&added["address"], &"starting".into()), "{listed}");
    let key = service(&["client-key"]).json()["client_key"].as_str().expect("a key").to_owned();
    service(&["authorize", "blog", "nonsense"]).refused(2);
    assert_eq!(service(&["authorize", "blog", &key]).json()["clients"], 1);
    assert_eq!(service(&["authorize", "blog", &key]).json()["clients"], 1, "once is enough");
    assert_eq!(service(&["remove", "blog"]).json()["name"], "blog");
    assert_eq!(service(&["list"]).json(), serde_json::json!([]));
}

#[test]
fn a_service_for_named_clients_tests_itself_and_admits_nobody_else() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let net = testnet(&scratch.path().join("net"), 1);
    let web = services::serve_web().expect("a web server").to_string();
    let key = run_in(&net.nodes[0].data_dir, &["--json", "service", "client-key"]).json();
    let file = scratch.path().join("clients");
    std::fs::write(&file, format!("# whom I know\n{}\n", key["client_key"].as_str().expect("a key"))).expect("a file");
    let host = &net.nodes[RELAYS];
    let args = ["--json", "service", "add", "--target", &web, "--clients", file.to_str().expect("a path")];
    let address = run_in(&host.data_dir, &args).json()["address"].as_str().expect("an address").to_owned();
    reachable(host, &address);
    assert_eq!(fetch(&socks(&net.nodes[0]), &address, "/"), b"a page");
    let refused = services::fetch(&socks(&net.nodes[1]), &address, "/", None).expect_err("no stranger is admitted");
    // That a key is kept, and is not the right one.
    assert!(refused.to_string().contains("SOCKS reply 0xf5"), "{refused}");
}
