//! Some swarms over TCP on loopback, whose circuits are what is tested.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fog_base::{NetworkId, NodeId, Now};
use fog_circuits::{
    Behaviour, Circuits, Config, CoreConfig, End, Event, ExitPolicy, Hop, NoPath, PathSource, RelaySecret, Stream,
    Target,
};
use futures::StreamExt;
use libp2p::{
    PeerId, Swarm, SwarmBuilder,
    identity::Keypair,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
};
use zeroize::Zeroizing;

pub(crate) const NETWORK: NetworkId = NetworkId([4; 32]);
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// All relays, in order; guards that failed come last.
#[derive(Debug)]
struct Ordered {
    relays: Arc<Mutex<Vec<Hop>>>,
    own: NodeId,
    failed: Vec<NodeId>,
}

impl PathSource for Ordered {
    fn stem(&mut self, hops: usize, end: Option<&Hop>, _: Now) -> Result<Vec<Hop>, NoPath> {
        let relays = self.relays.lock().unwrap();
        let usable = |hop: &&Hop| hop.relay.id != self.own && end.is_none_or(|end| end.relay.id != hop.relay.id);
        let mut usable: Vec<_> = relays.iter().filter(usable).cloned().collect();
        usable.sort_by_key(|hop| self.failed.contains(&hop.relay.id));
        usable.truncate(hops);
        if usable.len() == hops { Ok(usable) } else { Err(NoPath::TooFewRelays) }
    }

    fn end(&mut self, stem: &[NodeId], end: &End, _: Now) -> Result<Hop, NoPath> {
        let last = match end {
            End::Relay(hop) => Some(hop.clone()),
            End::Exit { .. } => self.relays.lock().unwrap().iter().rfind(|hop| hop.relay.id != self.own).cloned(),
        };
        last.filter(|hop| !stem.contains(&hop.relay.id)).ok_or(NoPath::TooFewRelays)
    }

    fn is_open(&self, _: &NodeId, _: u16) -> bool {
        true
    }

    fn handle_built(&mut self, _: NodeId, _: Now) -> bool {
        true
    }

    fn handle_failed(&mut self, guard: NodeId, _: Now) {
        self.failed.push(guard);
    }
}

/// One node, whose swarm runs by itself.
pub(crate) struct Node {
    pub(crate) circuits: Circuits,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) hop: Hop,
    pub(crate) peer: PeerId,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) struct Net {
    pub(crate) nodes: Vec<Node>,
    pub(crate) relays: Arc<Mutex<Vec<Hop>>>,
}

pub(crate) fn swarm_of<B: NetworkBehaviour>(keys: Keypair, behaviour: B) -> Swarm<B> {
    let built = SwarmBuilder::with_existing_identity(keys)
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap();
    let idle = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(Duration::from_secs(60));
    let mut swarm = built.with_behaviour(|_| Ok(behaviour)).unwrap().with_swarm_config(idle).build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    swarm
}

pub(crate) async fn address_of<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Vec<u8> {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address.to_vec();
        }
    }
}

pub(crate) fn id_of(peer: &PeerId) -> NodeId {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).unwrap()
}

pub(crate) fn core_config() -> CoreConfig {
    let exit = ExitPolicy::parse("accept 80").unwrap().with_private();
    CoreConfig { exit, spares: 0, connect: Duration::from_secs(5), ..CoreConfig::default() }
}

impl Net {
    pub(crate) async fn new(count: usize) -> Self {
        let mut net = Self { nodes: Vec::new(), relays: Arc::default() };
        for _ in 0..count {
            net.add(core_config()).await;
        }
        net
    }

    /// Another node, which the others know as a relay.
    pub(crate) async fn add(&mut self, core: CoreConfig) {
        let keys = Keypair::generate_ed25519();
        let peer = keys.public().to_peer_id();
        let (id, secret) = (id_of(&peer), [self.nodes.len() as u8 + 1; 32]);
        let config = Config { network: NETWORK, id, secret: Zeroizing::new(secret), core, allows_private: true };
        let paths = Ordered { relays: Arc::clone(&self.relays), own: id, failed: Vec::new() };
        let behaviour = Behaviour::new(config, Box::new(paths)).unwrap();
        let circuits = behaviour.circuits();
        let mut swarm = swarm_of(keys, behaviour);
        let addresses = vec![address_of(&mut swarm).await];
        let hop = Hop { relay: RelaySecret::new(id, &secret).public(), addresses };
        self.relays.lock().unwrap().push(hop.clone());
        let (give, events) = mpsc::channel(1024);
        let task = tokio::spawn(async move {
            loop {
                if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await {
                    // A test that wants no events lets them be.
                    let _full = give.try_send(event);
                }
            }
        });
        self.nodes.push(Node { circuits, events, hop, peer, task });
    }

    /// Serves streams that others begin at a node, in the background.
    pub(crate) fn serve(&mut self, at: usize) {
        let (_, never) = mpsc::channel(1);
        let mut events = std::mem::replace(&mut self.nodes[at].events, never);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::Inbound { request, .. } = event {
                    tokio::spawn(answer(request.accept()));
                }
            }
        });
    }
}

impl Node {
    /// The next event that `wanted` wants.
    pub(crate) async fn until<T>(&mut self, wanted: impl Fn(Event) -> Option<T>) -> T {
        let find = async {
            loop {
                if let Some(found) = wanted(self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap()
    }
}

/// What a served stream says to its request: `D` and a length asks for so many bytes, `U` for the hash of what follows.
async fn answer(mut stream: Stream) {
    let mut head = [0; 9];
    if stream.read_exact(&mut head).await.is_err() {
        return;
    }
    let len = u64::from_be_bytes(head[1..].try_into().unwrap());
    if head[0] == b'D' {
        let mut sent = 0;
        while sent < len {
            let chunk = &pattern()[..((len - sent) as usize).min(CHUNK)];
            if stream.write_all(chunk).await.is_err() {
                return;
            }
            sent += chunk.len() as u64;
        }
    } else {
        let mut buffer = vec![0; CHUNK];
        let (mut at, mut is_right) = (0, true);
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => {
                    is_right &= is_pattern(at, &buffer[..count]);
                    at += count as u64;
                }
                Err(_) => return,
            }
        }
        let _gone = stream.write_all(&[u8::from(is_right && at == len)]).await;
    }
    let _gone = stream.shutdown().await;
}

/// What is sent again and again; its length is prime, so a part that is lost shows.
pub(crate) const CHUNK: usize = 65_521;

pub(crate) fn pattern() -> &'static [u8] {
    static PATTERN: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| (0..CHUNK as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect());
    &PATTERN
}

fn is_pattern(at: u64, mut bytes: &[u8]) -> bool {
    let mut at = (at % CHUNK as u64) as usize;
    while !bytes.is_empty() {
        let (now, later) = bytes.split_at(bytes.len().min(CHUNK - at));
        if now != &pattern()[at..at + now.len()] {
            return false;
        }
        at = 0;
        bytes = later;
    }
    true
}

pub(crate) fn request(kind: u8, len: u64) -> Vec<u8> {
    [&[kind], len.to_be_bytes().as_slice()].concat()
}

/// Downloads from a served stream, and checks every byte; says how many came.
pub(crate) async fn download(mut stream: Stream) -> std::io::Result<u64> {
    let (mut buffer, mut at) = (vec![0; 64 * 1024], 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(at),
            count => {
                assert!(is_pattern(at, &buffer[..count]), "at {at}");
                at += count as u64;
            }
        }
    }
}

/// Uploads to a served stream; whether all came.
pub(crate) async fn upload(mut stream: Stream, len: u64) -> std::io::Result<bool> {
    let mut sent = 0;
    while sent < len {
        let chunk = &pattern()[..((len - sent) as usize).min(CHUNK)];
        stream.write_all(chunk).await?;
        sent += chunk.len() as u64;
    }
    stream.shutdown().await?;
    Ok(stream.read_u8().await? == 1)
}

pub(crate) fn host() -> Target {
    Target::Host("127.0.0.1".into(), 80)
}
