//! `fog doctor`: checks this host without asking anybody outside it, and says how to mend what is wrong.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use clap::Args;
use fog_base::UnixMillis;
use libp2p::{Multiaddr, multiaddr::Protocol};
use serde::Serialize;

use super::{
    CliError, Context, TIMEOUT,
    client::Client,
    output::{size, table},
};
use crate::{
    clock,
    config::Config,
    keys::{self, KeysError},
    node::report::Status,
    platform,
};

const LITTLE_DISK: u64 = 256 * 1024 * 1024;
/// Files that a node opens besides its connections: store, logs, listeners.
const OTHER_FILES: u64 = 192;
/// No clock can be right that shows an earlier time: this program is younger (2026-01-01).
const YOUNGEST: UnixMillis = UnixMillis(1_767_225_600_000);
const MDNS_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

/// What `fog doctor` takes.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The network file to check [default: as configured]
    #[arg(long, value_name = "FILE")]
    pub(super) network: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    ok: bool,
    detail: String,
    fix: Option<String>,
}

fn good(check: &'static str, detail: impl Into<String>) -> Check {
    Check { check, ok: true, detail: detail.into(), fix: None }
}

fn bad(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { check, ok: false, detail: detail.into(), fix: Some(fix.into()) }
}

/// Runs every check; fails if one does.
pub(super) fn run(context: &Context) -> Result<(), CliError> {
    let checks = checks(&context.config, running(context)?.as_ref());
    context.out.value(&checks, |checks| {
        let rows = checks.each_ref().map(|c| {
            let mark = if c.ok { "ok" } else { "FAILED" };
            [mark.to_owned(), c.check.to_owned(), c.detail.clone(), c.fix.clone().unwrap_or_default()]
        });
        table(["", "CHECK", "FOUND", "FIX"], &rows)
    })?;
    match checks.iter().filter(|check| !check.ok).count() {
        0 => Ok(()),
        n => Err(CliError::failed(format!("{n} of {} checks failed", checks.len()), "each has its fix above")),
    }
}

/// The same in lines, for a narrow place.
pub(super) fn report(config: &Config, status: &Status) -> String {
    let line = |check: Check| {
        let mark = if check.ok { "ok" } else { "FAILED" };
        let fix = check.fix.map_or_else(String::new, |fix| format!(": {fix}"));
        format!("{mark} {}: {}{fix}", check.check, check.detail)
    };
    checks(config, Some(status)).map(line).join("\n")
}

fn checks(config: &Config, status: Option<&Status>) -> [Check; 10] {
    [
        node(status),
        data_dir(&config.data_dir),
        key_files(&config.data_dir),
        network(config, status),
        disk(&config.data_dir),
        open_files(config),
        ports(config, status.is_some()),
        multicast(),
        clocks(&config.data_dir, status),
        processor(status),
    ]
}

fn running(context: &Context) -> Result<Option<Status>, CliError> {
    match Client::open(&context.config).and_then(|client| client.get("/v1/status", context.timeout(TIMEOUT))) {
        Ok(status) => Ok(Some(status)),
        Err(error) if error.is_no_node() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What multiplies: a relay's speed depends on it more than on anything else. A running node is asked; its environment may differ.
fn processor(status: Option<&Status>) -> Check {
    const NAME: &str = "processor";
    let used = match status {
        Some(status) => status.x25519.clone(),
        None => match fog_x25519::Backend::from_env() {
            Ok(backend) => backend.name().into(),
            Err(error) => return bad(NAME, error.to_string(), "unset FOG_X25519: the fastest is chosen then"),
        },
    };
    match fog_x25519::Backend::available().next() {
        Some(fastest) if fastest.name() != used => {
            let found = format!("X25519 by `{used}`, though this processor has `{}`", fastest.name());
            bad(NAME, found, "start the node without FOG_X25519: the fastest is chosen then")
        }
        _ => good(NAME, format!("X25519 by `{used}`")),
    }
}

fn node(status: Option<&Status>) -> Check {
    match status {
        None => good("node", "not running"),
        Some(status) if status.peers.connected == 0 => bad(
            "node",
            "running without a peer",
            "name a first contact: `fog connect ADDR`, --bootstrap, or a network file; on a LAN see `multicast`",
        ),
        Some(status) => good("node", format!("running with {} peers", status.peers.connected)),
    }
}

fn data_dir(dir: &Path) -> Check {
    const NAME: &str = "data directory";
    let shown = dir.display();
    if !dir.exists() {
        return good(NAME, format!("`{shown}` is made by the first `fog run`"));
    }
    match platform::exposure(dir) {
        Err(error) => bad(NAME, format!("`{shown}`: {error}"), "name one of yours with --data-dir"),
        Ok(_) if !platform::files::has_room(dir, 1) => {
            bad(NAME, format!("`{shown}` cannot be written"), format!("chown -R \"$USER\" '{shown}', and see `disk`"))
        }
        Ok(Some(found)) => bad(
            NAME,
            format!("others can look into `{shown}` (mode {:04o})", found.mode),
            format!("chmod {:o} '{shown}'", found.wanted),
        ),
        Ok(None) => good(NAME, format!("`{shown}`")),
    }
}

fn key_files(dir: &Path) -> Check {
    match keys::inspect(dir) {
        Ok(true) => good("keys", "whole, sealed with a passphrase"),
        Ok(false) => good("keys", "whole, readable by you alone"),
        Err(KeysError::None(_)) => good("keys", "made by the first `fog run`"),
        Err(error) => bad("keys", error.to_string(), error.hint()),
    }
}

fn network(config: &Config, status: Option<&Status>) -> Check {
    if let Some(status) = status {
        return good("network", format!("the node runs on `{}`", status.network));
    }
    match config.read_network() {
        Ok(network) => good("network", format!("`{}`, epochs of {} s", network.name, network.epoch_length.as_secs())),
        Err(error) => bad("network", error.to_string(), "get the file again from whoever gave it to you"),
    }
}

fn disk(dir: &Path) -> Check {
    match platform::free_disk(dir) {
        None => good("disk", "this system does not tell how much is free"),
        Some(free) if free < LITTLE_DISK => bad(
            "disk",
            format!("only {} free", size(free)),
            format!("free {} at least, or use a --data-dir on another disk", size(LITTLE_DISK)),
        ),
        Some(free) => good("disk", format!("{} free", size(free))),
    }
}

fn open_files(config: &Config) -> Check {
    // A connection is a socket, and QUIC shares one; the local API has sockets of its own.
    let needed = u64::from(config.limits.connections) * 2 + OTHER_FILES;
    match platform::open_files_limit() {
        Some(limit) if limit < needed => {
            bad("open files", format!("{limit} allowed, {needed} needed"), format!("ulimit -n {needed}"))
        }
        Some(limit) => good("open files", format!("{limit} allowed, {needed} needed")),
        None => good("open files", "no limit that this program can see"),
    }
}

fn ports(config: &Config, running: bool) -> Check {
    const NAME: &str = "ports";
    if running {
        return good(NAME, "held by the running node");
    }
    let mut free = Vec::new();
    for address in &config.listen {
        let Some((udp, socket)) = socket_of(address) else {
            continue;
        };
        let bound = if udp { UdpSocket::bind(socket).map(drop) } else { TcpListener::bind(socket).map(drop) };
        match bound {
            Ok(()) => free.push(address.to_string()),
            // A host without IPv6 is fine, as long as nobody asked for an address of its own.
            Err(_) if socket.ip() == IpAddr::from([0u16; 8]) && socket.port() == 0 => {}
            Err(error) => return bad(NAME, format!("{address}: {error}"), port_fix(&error, "--listen")),
        }
    }
    if let Err(error) = TcpListener::bind(config.api) {
        return bad(NAME, format!("the API's {}: {error}", config.api), port_fix(&error, "--api"));
    }
    match free.is_empty() {
        true => bad(NAME, "no address to listen on", "name one with --listen /ip4/0.0.0.0/tcp/0"),
        false => good(NAME, free.join(" ")),
    }
}

fn port_fix(error: &io::Error, flag: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("stop what has the port, or name another with {flag}"),
        io::ErrorKind::PermissionDenied => format!("name a port above 1023 with {flag}"),
        _ => format!("name an address of this host with {flag}"),
    }
}

/// The socket of a multiaddress that starts with an IP; whether it is UDP.
fn socket_of(address: &Multiaddr) -> Option<(bool, SocketAddr)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::from(ip),
        Protocol::Ip6(ip) => IpAddr::from(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((false, SocketAddr::new(ip, port))),
        Protocol::Udp(port) => Some((true, SocketAddr::new(ip, port))),
        _ => None,
    }
}

/// Joins the group of mDNS and hears itself, on a port of its own.
fn multicast() -> Check {
    let heard = || -> io::Result<bool> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.join_multicast_v4(&MDNS_GROUP, &Ipv4Addr::UNSPECIFIED)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let word = format!("fog doctor {}", std::process::id());
        socket.send_to(word.as_bytes(), (MDNS_GROUP, socket.local_addr()?.port()))?;
        let mut buffer = [0; 64];
        let (length, _) = socket.recv_from(&mut buffer)?;
        Ok(buffer.get(..length) == Some(word.as_bytes()))
    };
    let fix = "allow UDP 5353 to 224.0.0.251 in the firewall; without a default route: ip route add 224.0.0.0/4 dev INTERFACE";
    match heard() {
        Ok(true) => good("multicast", "peers on the local network can be found"),
        Ok(false) => bad("multicast", "something else answered", fix),
        Err(error) => bad("multicast", format!("no local network: {error}"), fix),
    }
}

fn clocks(dir: &Path, status: Option<&Status>) -> Check {
    const NAME: &str = "clock";
    const FIX: &str = "set the clock: timedatectl set-ntp true, or the system's settings";
    if let Some(warning) = status.and_then(|status| status.warnings.iter().find(|warning| warning.contains("clock"))) {
        return bad(NAME, warning.clone(), FIX);
    }
    let now = clock::unix();
    let newest = newest(dir).unwrap_or(YOUNGEST).max(YOUNGEST);
    let behind = newest.since(now);
    if behind > fog_base::time::CLOCK_TOLERANCE {
        return bad(NAME, format!("{} s behind what was written here before", behind.as_secs()), FIX);
    }
    match status.map(|status| status.peers.connected) {
        Some(peers) if peers > 0 => good(NAME, format!("agrees with {peers} peers")),
        _ => good(NAME, "plausible; without peers there is nothing to compare it with"),
    }
}

/// When the newest file directly in `dir` was written.
fn newest(dir: &Path) -> Option<UnixMillis> {
    let times = fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok());
    times.filter_map(|time| Some(UnixMillis(0).plus(time.duration_since(UNIX_EPOCH).ok()?))).max()
}
