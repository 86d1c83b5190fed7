//! Processes that share and fetch a file over TCP, Noise and yamux on loopback, and what they say on their standard output. Used by
//! `loopback.rs` and by the bench.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use fog_base::NetworkId;
use fog_blobs::{Behaviour, Config, Event};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    multiaddr::Protocol,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use zeroize::Zeroizing;

const NETWORK: NetworkId = NetworkId([6; 32]);
/// What a process is for: a word and what it needs.
const ROLE: &str = "FOG_BLOBS_ROLE";

/// The role that this process was started for.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

pub(crate) fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    let built = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap();
    built.with_behaviour(|_| Ok(behaviour)).unwrap().build()
}

/// The most memory that this process had, in bytes, and the processor time that it took, in seconds.
pub(crate) fn usage() -> (u64, f64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets: utime and stime are the 12th and 13th, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    (peak.unwrap_or(0u64) * 1024, ticks as f64 / 100.0)
}

pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nFOG {text}").unwrap();
    out.flush().unwrap();
}

pub(crate) fn say_usage(seconds: f64, had: u64) {
    let (peak, cpu) = usage();
    say(&format!("{seconds} {peak} {cpu} {had}"));
}

/// Until the parent closes the standard input.
pub(crate) async fn until_told() {
    let wait = || std::io::stdin().read_line(&mut String::new());
    tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
}

pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address.with(Protocol::P2p(*swarm.local_peer_id()));
        }
    }
}

fn files(dir: &Path, up: Option<u64>) -> Swarm<Behaviour> {
    let config = Config::new(NETWORK, &dir.join("blobs"), Zeroizing::new([1; 32]));
    swarm(Behaviour::new(Config { up, ..config }).unwrap())
}

async fn source(file: &Path, dir: &Path, up: Option<u64>) {
    let mut swarm = files(dir, up);
    let address = listen(&mut swarm).await;
    swarm.behaviour_mut().share(file);
    let manifest = loop {
        if let SwarmEvent::Behaviour(Event::Shared { manifest, .. }) = swarm.select_next_some().await {
            break manifest;
        }
    };
    let manifest: String = manifest.iter().map(|byte| format!("{byte:02x}")).collect();
    say(&format!("{address} {manifest}"));
    tokio::select! {
        () = async { loop { swarm.select_next_some().await; } } => {}
        () = until_told() => say_usage(0.0, 0),
    }
}

pub(crate) fn peer_of(address: &Multiaddr) -> PeerId {
    address.iter().find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None }).unwrap()
}

pub(crate) async fn connected<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &Multiaddr) {
    swarm.dial(address.clone()).unwrap();
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
}

async fn fetch(address: Multiaddr, manifest: &str, dir: &Path) {
    let bytes = |at| u8::from_str_radix(&manifest[at..at + 2], 16).unwrap();
    let manifest: Vec<u8> = (0..manifest.len()).step_by(2).map(bytes).collect();
    let mut swarm = files(dir, None);
    connected(&mut swarm, &address).await;
    let begun = Instant::now();
    swarm.behaviour_mut().fetch(&manifest, dir.to_owned(), vec![peer_of(&address)]);
    let mut had = None;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(Event::Progress { bytes, .. }) => drop(had.get_or_insert(bytes)),
            SwarmEvent::Behaviour(Event::Done { .. }) => break,
            SwarmEvent::Behaviour(Event::Failed { reason, .. }) => panic!("{reason}"),
            _ => {}
        }
    }
    say_usage(begun.elapsed().as_secs_f64(), had.unwrap_or(0));
}

/// Plays the role of a source (`source FILE FOLDER [BYTES A SECOND]`), or of who fetches (`fetch FOLDER ADDRESS MANIFEST`); false if it
/// is another one.
pub(crate) async fn play(role: &str) -> bool {
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["source", file, dir] => source(Path::new(file), Path::new(dir), None).await,
        ["source", file, dir, up] => source(Path::new(file), Path::new(dir), up.parse().ok()).await,
        ["fetch", dir, address, manifest] => fetch(address.parse().unwrap(), manifest, Path::new(dir)).await,
        _ => return false,
    }
    true
}

/// A child that plays a role, and what it says.
pub(crate) struct Process(pub(crate) Child, BufReader<std::process::ChildStdout>);

impl Process {
    pub(crate) fn start(role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process_of_a_test", "--ignored", "--nocapture"]).env(ROLE, role);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self(child, out)
    }

    pub(crate) fn line(&mut self) -> String {
        let mut lines = self.1.by_ref().lines().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix("FOG ").map(str::to_owned)).expect("it says something")
    }

    pub(crate) fn numbers(&mut self) -> [f64; 4] {
        let numbers: Vec<f64> = self.line().split(' ').map(|word| word.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    /// Its usage, when it has ended.
    pub(crate) fn end(mut self) -> [f64; 4] {
        drop(self.0.stdin.take());
        let numbers = self.numbers();
        self.0.wait().unwrap();
        numbers
    }
}

/// A file of so many MiB.
pub(crate) fn film(dir: &Path, mib: u64) -> PathBuf {
    let file = dir.join("film.mkv");
    let mut out = fs::File::create(&file).unwrap();
    for mib in 0..mib as u32 {
        let part: Vec<u8> =
            (mib << 18..(mib + 1) << 18).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        out.write_all(&part).unwrap();
    }
    file
}
