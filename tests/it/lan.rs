//! LAN mode: six hosts on one network without internet, without a bootstrap address, with default settings. The hosts are network
//! namespaces on one bridge, which only root on Linux can make; elsewhere the test says so and shows nothing.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use fog_testnet::{Process, until};
use serde_json::Value;

use super::support::{Ended, PATIENCE, fog, not_tried, ok, one_network_at_a_time, run};

const HOSTS: usize = 6;
/// The issue's figure.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// Six namespaces on a bridge that is in a seventh, so that this machine's own network is not touched. Removed when dropped.
struct Lan {
    name: String,
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("ip: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", args.join(" "))) }
}

impl Lan {
    fn new() -> Result<Self, String> {
        let lan = Self { name: format!("fog{}", std::process::id()) };
        let bridge = lan.bridge();
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["-n", &bridge, "link", "set", "br0", "up"])?;
        for host in 0..HOSTS {
            let (namespace, port) = (lan.host(host), format!("p{host}"));
            ip(&["netns", "add", &namespace])?;
            ip(&["-n", &bridge, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &namespace, "address", "add", &format!("10.99.0.{}/24", host + 1), "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
        }
        Ok(lan)
    }

    fn bridge(&self) -> String {
        format!("{}-br", self.name)
    }

    fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in (0..HOSTS).map(|host| self.host(host)).chain([self.bridge()]) {
            // What was not made cannot be removed.
            let _ = ip(&["netns", "delete", &namespace]);
        }
    }
}

struct Host {
    namespace: String,
    data_dir: PathBuf,
    _process: Process,
}

impl Host {
    fn start(namespace: String, data_dir: PathBuf) -> Self {
        let (fog, dir) = (fog().display().to_string(), data_dir.display().to_string());
        let args = ["netns", "exec", &namespace, &fog, "--data-dir", &dir, "run"];
        let ip = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].map(PathBuf::from).into_iter().find(|path| path.exists());
        let process = ok(Process::start(&ip.expect("it made the namespaces"), &args, &data_dir.with_extension("log")));
        Self { namespace, data_dir, _process: process }
    }

    fn run(&self, args: &[&str]) -> Ended {
        let dir = self.data_dir.display().to_string();
        let mut command = Command::new("ip");
        run(command.args(["netns", "exec", &self.namespace]).arg(fog()).args(["--data-dir", &dir, "--json"]).args(args))
    }

    fn status(&self) -> Result<Value, String> {
        let ended = self.run(&["status"]);
        if ended.code != Some(0) {
            return Err(format!("{}: {}", self.namespace, ended.stderr.trim()));
        }
        serde_json::from_str(&ended.stdout).map_err(|e| e.to_string())
    }
}

#[test]
fn six_hosts_on_a_lan_without_internet_find_each_other_and_a_message_crosses() {
    let _alone = one_network_at_a_time();
    let lan = match Lan::new() {
        Ok(lan) => lan,
        Err(why) => return not_tried("LAN mode in six network namespaces", &why),
    };
    let scratch = tempfile::tempdir().expect("a directory");
    let hosts: Vec<_> =
        (0..HOSTS).map(|host| Host::start(lan.host(host), scratch.path().join(format!("host-{host}")))).collect();
    let up = until("an answer of each node", PATIENCE, || {
        hosts
            .iter()
            .try_for_each(|host| host.data_dir.join("node.json").exists().then_some(()).ok_or("no node.json".into()))
    });
    ok(up);
    let began = Instant::now();
    let found = until("six nodes that know each other", PATIENCE, || {
        for host in &hosts {
            let status = host.status()?;
            let (peers, relays) = (&status["peers"]["connected"], &status["relays"]["known"]);
            if peers != HOSTS - 1 || relays != HOSTS || status["mix"]["ready"] != true {
                return Err(format!("{}: {peers} peers, {relays} relays", host.namespace));
            }
        }
        Ok(())
    });
    ok(found);
    let took = began.elapsed();
    eprintln!("LAN: six nodes found each other in {:.1} s", took.as_secs_f64());
    assert!(took <= FOUND_WITHIN, "it took {took:?}");

    let statuses: BTreeMap<_, _> = hosts.iter().map(|host| (host.namespace.clone(), ok_status(host))).collect();
    for (namespace, status) in &statuses {
        assert_eq!(status["certified"], false, "{namespace}: LAN mode is open");
        assert_eq!(status["peers"]["lan"], HOSTS - 1, "{namespace}: {status}");
    }
    let to = hosts[5].run(&["id"]).json()["peer_id"].as_str().expect("an id").to_owned();
    let sent = hosts[0].run(&["mix", "send", &to, "across the room", "--anonymous"]).json();
    assert_eq!(sent["state"], "delivered", "{sent}");
    let got = hosts[5].run(&["mix", "recv"]).json_lines();
    assert!(got.iter().any(|message| message["text"] == "across the room" && message["from"].is_null()), "{got:?}");
}

fn ok_status(host: &Host) -> Value {
    host.status().unwrap_or_else(|e| panic!("{e}"))
}
