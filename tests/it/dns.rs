//! No name ever goes to a resolver: neither `.fog` names nor those of the internet, which the exit alone looks up.
//!
//! The test runs itself again in a network namespace that has a loopback interface and nothing else. All resolvers there are listeners of the
//! test: that of the host, those that programs know by heart, and one that the exit alone is told of.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use fog_testnet::{NodePlan, Plan, Process, Testnet, services, until};

use super::support::{PATIENCE, fog, not_tried, ok, one_network_at_a_time};

const NAME: &str = "it::dns::requests_through_the_proxy_ask_no_resolver";
/// Set where the test runs in its namespace: a directory.
const INSIDE: &str = "DNS_TEST_INSIDE";
/// Whom everybody asks, and whom the exit asks.
const RESOLVER: &str = "127.0.0.53";
const OF_THE_EXIT: &str = "127.0.0.99";
const RELAYS: usize = 5;
const REQUESTS: usize = 1000;
/// Where else somebody may ask: this host, and the public resolvers that programs know without being told.
const OTHERS: [&str; 9] =
    ["127.0.0.1", "::1", "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "149.112.112.112", "208.67.222.222"];
/// At a time.
const TOGETHER: usize = 20;

#[test]
fn requests_through_the_proxy_ask_no_resolver() {
    let _alone = one_network_at_a_time();
    if let Some(dir) = std::env::var_os(INSIDE) {
        return inside(Path::new(&dir));
    }
    let scratch = tempfile::tempdir().expect("a directory");
    for (file, address) in [("resolv.conf", RESOLVER), ("exit.conf", OF_THE_EXIT)] {
        let text = format!("nameserver {address}\noptions timeout:1 attempts:1\n");
        fs::write(scratch.path().join(file), text).expect("a file");
    }
    // What `unshare` runs as root of a namespace of its own; the mount is this process's and its children's.
    let script = "ip link set lo up && for a in 8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 9.9.9.9 149.112.112.112 208.67.222.222; do \
        ip address add $a/32 dev lo; done && mount --bind \"$0/resolv.conf\" /etc/resolv.conf && exec \"$@\"";
    let unshare = |command: &[&std::ffi::OsStr]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "sh", "-c", script]).arg(scratch.path()).args(command);
        unshare.env(INSIDE, scratch.path());
        unshare
    };
    match unshare(&["true".as_ref()]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return not_tried(NAME, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => return not_tried(NAME, &format!("unshare: {error}")),
    }
    let this = std::env::current_exe().expect("this program");
    let status = unshare(&[this.as_os_str(), NAME.as_ref(), "--exact".as_ref(), "--nocapture".as_ref()]).status();
    assert!(status.expect("the test in its namespace").success());
}

/// Queries so far at all resolvers but the exit's, and there.
#[derive(Default)]
struct Heard {
    anywhere: AtomicUsize,
    exit: AtomicUsize,
}

impl Heard {
    fn counts(&self) -> (usize, usize) {
        (self.anywhere.load(Ordering::SeqCst), self.exit.load(Ordering::SeqCst))
    }
}

/// Hears port 53 of `address` over UDP and TCP, and says that no name exists.
fn listen(address: &str, heard: &Arc<Heard>, count: fn(&Heard) -> &AtomicUsize) {
    let udp = UdpSocket::bind((address, 53)).expect("port 53");
    let of_udp = Arc::clone(heard);
    thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((n, from)) = udp.recv_from(&mut query) {
            count(&of_udp).fetch_add(1, Ordering::SeqCst);
            if let Some(flags) = query.get_mut(2..4) {
                flags.copy_from_slice(&[0x81, 0x83]);
            }
            // Whoever asked may have gone.
            let _gone = udp.send_to(&query[..n], from);
        }
    });
    let (tcp, of_tcp) = (TcpListener::bind((address, 53)).expect("port 53"), Arc::clone(heard));
    thread::spawn(move || {
        for _connection in tcp.incoming() {
            count(&of_tcp).fetch_add(1, Ordering::SeqCst);
        }
    });
}

fn inside(dir: &Path) {
    let heard = Arc::<Heard>::default();
    for address in OTHERS.into_iter().chain([RESOLVER]) {
        listen(address, &heard, |heard| &heard.anywhere);
    }
    listen(OF_THE_EXIT, &heard, |heard| &heard.exit);
    let control = |name: &str| {
        let before = heard.counts().0;
        assert!((name, 80).to_socket_addrs().is_err());
        let asked = heard.counts().0;
        assert!(asked > before, "the listener must hear this process ask for {name}");
        assert!(TcpStream::connect(("8.8.8.8", 53)).is_ok());
        ok(until("a connection to a public resolver", PATIENCE, || {
            if heard.counts().0 > asked { Ok(()) } else { Err("it is not heard".into()) }
        }));
        heard.counts().0
    };
    let before = control("before.example.com");

    let mut plan = Plan::new(fog(), dir.join("net"), RELAYS);
    plan.nodes.extend([NodePlan::exit("accept *"), NodePlan::client(), NodePlan::client()]);
    plan.mean_delay_ms = 20;
    let mut net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let _exit = with_resolver_of_its_own(&mut net, RELAYS, dir);
    let web = services::serve_web().expect("a web server");
    let address = ok(ok(net.nodes[RELAYS + 1].client()).service_add(web, "web"));
    let proxy = ok(net.nodes[RELAYS + 2].client()).socks().expect("a proxy").to_owned();
    ok(until("a page of the service", PATIENCE * 2, || {
        services::fetch(&proxy, &address, "/", None).map_err(|error| error.to_string())
    }));
    ok(until("a name looked up by the exit", PATIENCE * 2, || {
        let answer = ask(&proxy, 1, "first.example.com", 80);
        if heard.counts().1 > 0 { Ok(()) } else { Err(format!("{answer:#04x}")) }
    }));

    let exit_before = heard.counts().1;
    let next = AtomicUsize::new(0);
    let answers = thread::scope(|scope| {
        let work = || {
            let mut answers = Vec::new();
            while let Some(n) = Some(next.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < REQUESTS) {
                answers.push(request(&proxy, &address, n));
            }
            answers
        };
        let workers: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect::<Vec<_>>()
    });
    assert_eq!(answers.len(), REQUESTS);
    for kind in 0..KINDS {
        let of_kind: Vec<_> = answers.iter().filter(|(of, ..)| *of == kind).collect();
        let wrong: Vec<_> = of_kind.iter().filter(|(_, is_right, _)| !is_right).take(3).collect();
        assert!(!of_kind.is_empty() && wrong.is_empty(), "{wrong:?}");
    }
    let (anywhere, exit) = heard.counts();
    eprintln!("{REQUESTS} requests: resolvers heard {}, that of the exit {}", anywhere - before, exit - exit_before);
    assert_eq!(anywhere, before, "a name went to a resolver");
    assert!(exit > exit_before, "the exit looks up what goes through it");
    control("after.example.com");
}

/// Starts a node again with another resolver.
fn with_resolver_of_its_own(net: &mut Testnet, node: usize, dir: &Path) -> Process {
    net.nodes[node].kill();
    let script = dir.join("exit.sh");
    let text = "#!/bin/sh\nmount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"\n";
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a script");
    let words = [script.display().to_string(), dir.join("exit.conf").display().to_string()];
    let args: Vec<_> = ["--mount".to_owned()].into_iter().chain(words).chain(net.nodes[node].command()).collect();
    let process = ok(Process::start(Path::new("unshare"), &args, &dir.join("exit.log")));
    ok(until("the exit again", PATIENCE, || {
        let client = net.nodes[node].client().map_err(|error| error.to_string())?;
        if client.pid() != process.pid() {
            return Err("it has not started".into());
        }
        client.status().map_err(|error| error.to_string())
    }));
    process
}

const KINDS: usize = 8;

/// The n-th request: its kind, whether it was answered as it should be, and how.
fn request(proxy: &str, address: &str, n: usize) -> (usize, bool, String) {
    let kind = n % KINDS;
    let code = |code: u8, expected: &[u8]| (expected.contains(&code), format!("{kind}: {code:#04x}"));
    let (is_right, answer) = match kind {
        0 => {
            let page = services::fetch(proxy, address, "/", None);
            (page.as_ref().is_ok_and(|page| page == b"a page"), format!("{page:?}"))
        }
        // Names of the internet: the exit's resolver says that there are none.
        1 => code(ask(proxy, 1, &format!("name{n}.example.com"), 443), &[4]),
        2 => {
            let answer = tunnel(proxy, &format!("tunnel{n}.example.org:80"));
            (answer.starts_with("HTTP/1.1 502 "), answer)
        }
        // RESOLVE and RESOLVE_PTR.
        3 => code(ask(proxy, 0xf0, &format!("resolve{n}.example.com"), 0), &[7]),
        4 => code(ask(proxy, 0xf1, &format!("pointer{n}.example.com"), 80), &[7]),
        5 => code(ask(proxy, 1, &format!("no-service{n}.fog"), 80), &[0xf6]),
        6 => code(ask(proxy, 1, &format!("name{n}.onion"), 80), &[2]),
        _ => code(ask(proxy, 1, &format!("host{n}.local"), 80), &[2]),
    };
    (kind, is_right, answer)
}

/// The code of the answer to a SOCKS command about a name; 0xff if there is none.
fn ask(proxy: &str, command: u8, name: &str, port: u16) -> u8 {
    let request = [&[5, 1, 0, 5, command, 0, 3, name.len() as u8], name.as_bytes(), &port.to_be_bytes()].concat();
    let answer = say(proxy, &request);
    answer.get(3).copied().unwrap_or(0xff)
}

fn tunnel(proxy: &str, authority: &str) -> String {
    let answer = say(proxy, format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes());
    String::from_utf8_lossy(&answer).into_owned()
}

fn say(proxy: &str, request: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut socket = TcpStream::connect(proxy).expect("the proxy");
    socket.set_read_timeout(Some(Duration::from_secs(100))).expect("a timeout");
    socket.write_all(request).expect("a request");
    socket.read_to_end(&mut answer).expect("an answer");
    answer
}
