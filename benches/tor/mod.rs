//! A private tor network on 127.0.0.1, of the stock `tor` that is installed: three directory authorities that also relay, five exit
//! relays, a client, and a host of onion services. It has the parameters of the public network's consensus that matter for speed; the
//! thresholds against denial of service are left out, for here all share one address. Nothing leaves this machine. Linux only.

#![allow(unreachable_pub, missing_docs)]

pub mod traffic;

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fog_testnet::{Process, until};

const AUTHORITIES: usize = 3;
const EXITS: usize = 5;
/// Between two consensuses.
const VOTING: Duration = Duration::from_secs(20);
/// For whatever a young network has to get done.
const PATIENCE: Duration = Duration::from_secs(240);
/// Directories that must have an onion service's descriptor before it is measured.
const UPLOADS: usize = 8;
const PARAMETERS: &str = "KISTSchedRunInterval=3 UseOptimisticData=1 cc_alg=2 cc_cwnd_full_gap=4 cc_cwnd_full_minpct=25 cc_cwnd_inc=1 \
    cc_cwnd_inc_rate=31 cc_cwnd_min=124 cc_sscap_exit=600 cc_sscap_onion=475 cc_vegas_alpha_exit=186 cc_vegas_beta_onion=372 \
    cc_vegas_delta_exit=310 cc_vegas_delta_onion=434 cc_vegas_gamma_onion=248 cfx_low_exit_threshold=5000 \
    circ_max_cell_queue_size=1250 circ_max_cell_queue_size_out=1000 hs_service_max_rdv_failures=1 hsdir_spread_store=4 \
    sendme_accept_min_version=1";

/// The network; dropping it ends its processes.
pub struct Tor {
    pub socks: String,
    /// Onion services that all lead to the same server.
    pub onions: Vec<String>,
    pub relays: Vec<Process>,
    pub ends: Vec<Process>,
    _dir: tempfile::TempDir,
}

/// Whether tor is installed, and which.
pub fn version() -> Option<String> {
    let output = Command::new("tor").arg("--version").output().ok()?;
    Command::new("tor-gencert").arg("--help").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim_end_matches('.').to_lowercase())
}

impl Tor {
    /// Brings it up, with `onions` services in front of `web`, and waits until each of them can be found.
    pub fn up(web: SocketAddr, onions: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let mut network = Network { dir: dir.path().to_owned(), authorities: Vec::new() };
        fs::write(network.dir.join("empty"), "")?;
        fs::write(network.dir.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
        let ports = free_ports(2 * AUTHORITIES + EXITS + 1)?;
        let (dir_ports, ports) = ports.split_at(AUTHORITIES);
        let (authority_ports, ports) = ports.split_at(AUTHORITIES);
        let (socks, exit_ports) = ports.split_last().ok_or("no port")?;
        for (index, (port, dir_port)) in authority_ports.iter().zip(dir_ports).enumerate() {
            network.make_authority(&format!("authority{index}"), *port, *dir_port)?;
        }
        let mut relays = Vec::new();
        for (index, (port, dir_port)) in authority_ports.iter().zip(dir_ports).enumerate() {
            let name = format!("authority{index}");
            relays.push(network.start(&name, &[network.relay(&name, *port), authority(*dir_port)].concat())?);
        }
        for (index, port) in exit_ports.iter().enumerate() {
            let name = format!("relay{index}");
            let exit = ["ExitRelay 1", "IPv6Exit 0", "ExitPolicy accept 127.0.0.0/8:*", "ExitPolicy accept *:*"];
            relays.push(network.start(&name, &[network.relay(&name, *port), exit.map(str::to_owned).into()].concat())?);
        }
        let client = [format!("SocksPort 127.0.0.1:{socks}"), "LearnCircuitBuildTimeout 0".into()];
        let client = network.start("client", &client)?;
        network.wait_until_bootstrapped("client")?;
        let consensus = network.dir.join("client/cached-microdesc-consensus");
        until("a consensus with all relays", PATIENCE, || {
            let text = fs::read_to_string(&consensus).map_err(|error| error.to_string())?;
            let running = text.lines().filter(|line| line.starts_with("s ") && line.contains(" Running")).count();
            if running >= AUTHORITIES + EXITS { Ok(()) } else { Err(format!("{running} relays")) }
        })?;
        let names: Vec<_> =
            (0..onions).map(|onion| network.dir(&format!("host/onion{onion}"))).collect::<Result<_, _>>()?;
        let services = names
            .iter()
            .flat_map(|dir| [format!("HiddenServiceDir {}", dir.display()), format!("HiddenServicePort 80 {web}")]);
        let control = network.dir.join("host/control");
        let lines = [
            "SocksPort 0".to_owned(),
            "LearnCircuitBuildTimeout 0".into(),
            format!("ControlSocket {}", control.display()),
        ];
        let host = network.start("host", &lines.into_iter().chain(services).collect::<Vec<_>>())?;
        wait_for_uploads(&control, onions)?;
        network.wait_until_bootstrapped("host")?;
        let read = |dir: &PathBuf| fs::read_to_string(dir.join("hostname")).map(|name| name.trim().to_owned());
        let onions = names.iter().map(read).collect::<io::Result<_>>()?;
        // One more consensus: what a young network still has to do is done by then.
        std::thread::sleep(VOTING);
        Ok(Self { socks: format!("127.0.0.1:{socks}"), onions, relays, ends: vec![client, host], _dir: dir })
    }
}

struct Network {
    dir: PathBuf,
    /// The authorities, as each configuration names them.
    authorities: Vec<String>,
}

impl Network {
    fn dir(&self, name: &str) -> io::Result<PathBuf> {
        let dir = self.dir.join(name);
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&dir)?;
        Ok(dir)
    }

    fn make_authority(&mut self, name: &str, port: u16, dir_port: u16) -> Result<(), Box<dyn std::error::Error>> {
        let keys = self.dir(&format!("{name}/keys"))?;
        let certificate = keys.join("authority_certificate");
        let file = |name: &str| keys.join(name).display().to_string();
        let mut gencert = Command::new("tor-gencert")
            .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12", "-a", &format!("127.0.0.1:{dir_port}")])
            .args(["-i", &file("authority_identity_key"), "-s", &file("authority_signing_key")])
            .args(["-c", &file("authority_certificate")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        gencert.stdin.take().ok_or("no standard input")?.write_all(b"private-test-network\n")?;
        if !gencert.wait()?.success() {
            return Err("tor-gencert failed".into());
        }
        let text = fs::read_to_string(certificate)?;
        let identity = text.lines().find_map(|line| line.strip_prefix("fingerprint ")).ok_or("no identity")?;
        let empty = self.dir.join("empty").display().to_string();
        let listed = Command::new("tor")
            .args(["-f", &empty, "--defaults-torrc", &empty, "--hush", "--list-fingerprint", "--ORPort", "1"])
            .args(["--DataDirectory", &self.dir.join(name).display().to_string(), "--Nickname", name])
            .args(["--DirAuthority", &format!("x 127.0.0.1:1 {}", "f".repeat(40))])
            .output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let words = listed.lines().last().unwrap_or_default().split(' ').skip(1);
        let fingerprint: String = words.collect();
        self.authorities.push(format!(
            "DirAuthority {name} orport={port} no-v2 v3ident={identity} 127.0.0.1:{dir_port} {fingerprint}"
        ));
        Ok(())
    }

    fn relay(&self, name: &str, port: u16) -> Vec<String> {
        vec![
            format!("Nickname {name}"),
            "Address 127.0.0.1".into(),
            format!("ORPort 127.0.0.1:{port}"),
            "SocksPort 0".into(),
            "ServerDNSDetectHijacking 0".into(),
            "ServerDNSAllowBrokenConfig 1".into(),
            format!("ServerDNSResolvConfFile {}", self.dir.join("resolv.conf").display()),
        ]
    }

    fn start(&self, name: &str, lines: &[String]) -> Result<Process, Box<dyn std::error::Error>> {
        let dir = self.dir(name)?;
        let empty = self.dir.join("empty").display().to_string();
        let common = "TestingTorNetwork 1\nRunAsDaemon 0\nOutboundBindAddress 127.0.0.1\nAssumeReachable 1\n\
            PathsNeededToBuildCircuits 0.67\nEnforceDistinctSubnets 0\nClientRejectInternalAddresses 0\n\
            ClientDNSRejectInternalAddresses 0\nExitPolicyRejectPrivate 0\nExtendAllowPrivateAddresses 1\nShutdownWaitLength 0";
        let text = format!(
            "{common}\n{}\nDataDirectory {dir}\nLog notice file {dir}/notice.log\n{}\n",
            self.authorities.join("\n"),
            lines.join("\n"),
            dir = dir.display(),
        );
        let file = dir.join("torrc");
        fs::write(&file, text)?;
        let file = file.display().to_string();
        let args = ["-f", &file, "--defaults-torrc", &empty, "--quiet"];
        Ok(Process::start(Path::new("tor"), &args, &dir.join("log"))?)
    }

    fn wait_until_bootstrapped(&self, name: &str) -> Result<(), fog_testnet::Error> {
        let log = self.dir.join(name).join("notice.log");
        until("tor's bootstrap", PATIENCE, || {
            let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
            let last = text.lines().last().unwrap_or_default().to_owned();
            if text.contains("Bootstrapped 100%") { Ok(()) } else { Err(last) }
        })
    }
}

fn authority(dir_port: u16) -> Vec<String> {
    let voting = VOTING.as_secs();
    let text = format!(
        "DirPort 127.0.0.1:{dir_port}\nAuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\nContactInfo nobody@test.invalid\n\
         ExitPolicy reject *:*\nAuthDirMaxServersPerAddr 0\nTestingV3AuthInitialVotingInterval {voting}\n\
         TestingV3AuthInitialVoteDelay 4\nTestingV3AuthInitialDistDelay 4\nV3AuthVotingInterval {voting}\nV3AuthVoteDelay 4\n\
         V3AuthDistDelay 4\nV3AuthNIntervalsValid 3\nTestingDirAuthVoteExit *\nTestingDirAuthVoteGuard *\n\
         TestingDirAuthVoteHSDir *\nTestingMinExitFlagThreshold 0\nConsensusParams {PARAMETERS}"
    );
    text.lines().map(str::to_owned).collect()
}

/// Until each service's descriptor is at as many directories as there are.
fn wait_for_uploads(control: &Path, onions: usize) -> Result<(), Box<dyn std::error::Error>> {
    let connect = || UnixStream::connect(control).map_err(|error| error.to_string());
    let mut socket = until("tor's control socket", PATIENCE, connect)?;
    socket.write_all(b"AUTHENTICATE\r\nSETEVENTS HS_DESC\r\n")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let began = Instant::now();
    let mut uploads = std::collections::BTreeMap::<String, usize>::new();
    for line in BufReader::new(socket).lines() {
        let line = line?;
        if let Some(event) = line.strip_prefix("650 HS_DESC UPLOADED ") {
            *uploads.entry(event.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        if uploads.len() == onions && uploads.values().all(|count| *count >= UPLOADS) {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            break;
        }
    }
    Err(format!("descriptors were not uploaded: {uploads:?}").into())
}

fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let sockets = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    sockets.iter().map(|socket| Ok(socket.local_addr()?.port())).collect()
}
