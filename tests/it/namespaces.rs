//! Hosts of their own on one machine: network namespaces on a bridge, which only root on Linux can make.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use fog_testnet::Process;
use serde_json::Value;

use super::support::{Ended, fog, ok, run};

/// Namespaces on a bridge that is in one more, so that this machine's own network is not touched. Removed when dropped.
pub(crate) struct Lan {
    name: String,
    hosts: usize,
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| format!("ip: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", args.join(" "))) }
}

impl Lan {
    /// `addresses` of a host, counted from 1, as `ip address add` takes them.
    pub(crate) fn new(hosts: usize, addresses: impl Fn(usize) -> Vec<String>) -> Result<Self, String> {
        let lan = Self { name: format!("fog{}", std::process::id()), hosts };
        let bridge = lan.bridge();
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["-n", &bridge, "link", "set", "br0", "up"])?;
        ip(&["-n", &bridge, "link", "add", "br1", "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["-n", &bridge, "link", "set", "br1", "up"])?;
        for host in 0..hosts {
            let (namespace, port) = (lan.host(host), format!("p{host}"));
            ip(&["netns", "add", &namespace])?;
            ip(&["-n", &bridge, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"])?;
            for address in addresses(host + 1) {
                let words = address.split(' ');
                ip(&["-n", &namespace, "address", "add"]
                    .into_iter()
                    .chain(words)
                    .chain(["dev", "eth0"])
                    .collect::<Vec<_>>())?;
            }
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
        }
        Ok(lan)
    }

    /// Puts `hosts` on a bridge of their own, where they hear each other and nobody else.
    pub(crate) fn part(&self, hosts: std::ops::Range<usize>) -> Result<(), String> {
        self.plug(hosts, "br1")
    }

    /// A way to the internet: an interface of a host on the other bridge, with an address, of 9.9.0.0/16, that is in nobody's local network.
    pub(crate) fn uplink(&self, host: usize, address: &str) -> Result<(), String> {
        let (namespace, port) = (self.host(host), format!("u{host}"));
        ip(&["-n", &self.bridge(), "link", "add", &port, "type", "veth", "peer", "name", "eth1", "netns", &namespace])?;
        ip(&["-n", &self.bridge(), "link", "set", &port, "master", "br1", "up"])?;
        ip(&["-n", &namespace, "address", "add", address, "dev", "eth1"])?;
        ip(&["-n", &namespace, "link", "set", "eth1", "up"])?;
        ip(&["-n", &namespace, "route", "add", "9.9.0.0/16", "dev", "eth1"])
    }

    /// All on one bridge again.
    pub(crate) fn heal(&self) -> Result<(), String> {
        self.plug(0..self.hosts, "br0")
    }

    fn plug(&self, mut hosts: std::ops::Range<usize>, bridge: &str) -> Result<(), String> {
        hosts.try_for_each(|host| ip(&["-n", &self.bridge(), "link", "set", &format!("p{host}"), "master", bridge]))
    }

    pub(crate) fn bridge(&self) -> String {
        format!("{}-br", self.name)
    }

    pub(crate) fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in (0..self.hosts).map(|host| self.host(host)).chain([self.bridge()]) {
            // What was not made cannot be removed.
            let _ = ip(&["netns", "delete", &namespace]);
        }
    }
}

pub(crate) struct Host {
    pub(crate) namespace: String,
    pub(crate) data_dir: PathBuf,
    _process: Process,
}

/// A program in a namespace, until it is dropped.
pub(crate) fn process_in(namespace: &str, program: &Path, args: &[&str], log: &Path) -> Process {
    let program = program.display().to_string();
    let args: Vec<_> = ["netns", "exec", namespace, &program].into_iter().chain(args.iter().copied()).collect();
    let ip = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].map(PathBuf::from).into_iter().find(|path| path.exists());
    ok(Process::start(&ip.expect("it made the namespaces"), &args, log))
}

impl Host {
    pub(crate) fn start(namespace: String, data_dir: PathBuf, settings: &[&str]) -> Self {
        let dir = data_dir.display().to_string();
        let args: Vec<_> = ["--data-dir", &dir, "run"].into_iter().chain(settings.iter().copied()).collect();
        let process = process_in(&namespace, &fog(), &args, &data_dir.with_extension("log"));
        Self { namespace, data_dir, _process: process }
    }

    /// A line of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let request = "GET /metrics HTTP/1.1\\r\\nHost: 127.0.0.1:9100\\r\\nConnection: close\\r\\n\\r\\n";
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/9100; printf '{request}' >&3; cat <&3");
        let mut command = Command::new("ip");
        let ended = run(command.args(["netns", "exec", &self.namespace, "bash", "-c", &script]));
        let value = ended.stdout.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("{name}: {ended:?}"))
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        let dir = self.data_dir.display().to_string();
        let mut command = Command::new("ip");
        run(command.args(["netns", "exec", &self.namespace]).arg(fog()).args(["--data-dir", &dir, "--json"]).args(args))
    }

    pub(crate) fn status(&self) -> Result<Value, String> {
        let ended = self.run(&["status"]);
        if ended.code != Some(0) {
            return Err(format!("{}: {}", self.namespace, ended.stderr.trim()));
        }
        serde_json::from_str(&ended.stdout).map_err(|e| e.to_string())
    }
}
