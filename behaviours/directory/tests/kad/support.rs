//! Nodes in real swarms on loopback TCP, wired as the program wires them, and hostile peers that speak libp2p's plain Kademlia.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use fog_base::{
    DropReason, Epoch, EpochSchedule, NetworkId, NodeId, UnixMillis,
    relay::{Role, Roles},
};
use fog_directory::{
    Address, Behaviour, Config, Descriptor, Event, Facts, Kad, KadConfig, KadEvent, Net, Signer, Transport,
    core::kad_record,
};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, identity,
    kad::{self, Record, RecordKey, store::MemoryStore},
    noise,
    swarm::{NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
    tcp, yamux,
};
use schnorrkel::{ExpansionMode, MiniSecretKey};
use tokio::task::JoinHandle;

pub(crate) const NETWORK: NetworkId = NetworkId([8; 32]);
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(3600))
}

#[expect(clippy::disallowed_methods, reason = "real swarms run on the real clock")]
pub(crate) fn unix() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

pub(crate) fn epoch() -> Epoch {
    schedule().at(unix())
}

fn mix_key(seed: u8) -> [u8; 32] {
    curve25519_dalek::MontgomeryPoint::mul_base_clamped([seed; 32]).to_bytes()
}

pub(crate) fn facts(n: u8) -> Facts {
    Facts {
        addresses: vec![Address { ip: [127, 0, 0, 1].into(), transport: Transport::Tcp, port: 1 }],
        roles: Roles::NONE.with(Role::Mix),
        mix_keys: [mix_key(n), mix_key(n.wrapping_add(100))],
        seal_key: mix_key(n),
        circuit_key: None,
        capacity: u32::from(n),
        mix_versions: vec![1],
        family: None,
        exit_policy: None,
    }
}

/// A descriptor of a relay that does not run, signed for `network` some seconds ago.
pub(crate) fn descriptor(network: &NetworkId, n: u8, capacity: u8, seconds_ago: u64) -> Descriptor {
    let identity = SigningKey::from_bytes(&[n; 32]);
    let vrf = MiniSecretKey::from_bytes(&[n; 32]).unwrap().expand_to_keypair(ExpansionMode::Uniform);
    let now = unix();
    let seq = now.0 - seconds_ago * 1000;
    let facts = Facts { capacity: u32::from(capacity), ..facts(n) };
    Descriptor::sign(
        (&identity, &vrf),
        (network, &schedule()),
        (&facts, &Default::default()),
        (epoch(), seq),
        now,
        &[1; 32],
    )
    .unwrap()
}

pub(crate) fn key(descriptor: &Descriptor) -> RecordKey {
    RecordKey::new(&kad_record::key(&NETWORK, descriptor.relay(), descriptor.epoch()))
}

pub(crate) fn node_id(peer: &PeerId) -> NodeId {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).unwrap()
}

fn transported<B: NetworkBehaviour>(
    keypair: identity::Keypair,
    make: impl FnOnce(&identity::Keypair) -> B,
) -> Swarm<B> {
    SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|keypair| make(keypair))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

fn identify(keypair: &identity::Keypair) -> identify::Behaviour {
    identify::Behaviour::new(identify::Config::new("/test/1".into(), keypair.public()).with_hide_listen_addrs(true))
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, ip: &str) -> Multiaddr {
    swarm.listen_on(format!("/ip4/{ip}/tcp/0").parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            swarm.add_external_address(address.clone());
            return address;
        }
    }
}

/// A node as the program composes it.
#[derive(NetworkBehaviour)]
pub(crate) struct Node {
    pub(crate) kad: Kad,
    identify: identify::Behaviour,
    pub(crate) directory: Behaviour,
}

/// What a node noted of its peers.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) misbehaved: BTreeMap<NodeId, usize>,
    pub(crate) flooding: BTreeMap<NodeId, usize>,
    pub(crate) looked_up: Vec<(NodeId, bool)>,
    pub(crate) dials_failed: usize,
}

/// A swarm with its notes.
pub(crate) struct Running {
    pub(crate) swarm: Swarm<Node>,
    pub(crate) address: Multiaddr,
    pub(crate) notes: Notes,
}

/// Every loopback /16 counts as a network.
fn loopback_net(address: &Address) -> Option<Net> {
    match address.ip {
        std::net::IpAddr::V4(ip) => Some(Net::V4([ip.octets()[0], ip.octets()[1]])),
        std::net::IpAddr::V6(_) => None,
    }
}

impl Running {
    /// A node whose loopback addresses all count as one network's are counted on the internet, or are exempt.
    pub(crate) async fn start(counts_networks: bool) -> Self {
        let mut swarm = transported(identity::Keypair::generate_ed25519(), |keypair| {
            let secret = keypair.clone().try_into_ed25519().unwrap().secret();
            let identity = SigningKey::from_bytes(secret.as_ref().try_into().unwrap());
            let vrf = MiniSecretKey::from_bytes(&[7; 32]).unwrap().expand_to_keypair(ExpansionMode::Uniform);
            let signer = Signer { identity: Arc::new(identity), vrf: Arc::new(vrf) };
            let mut config = KadConfig::new(NETWORK, schedule(), 64);
            if counts_networks {
                config.net = loopback_net;
            }
            Node {
                kad: Kad::new(keypair.public().to_peer_id(), config),
                identify: identify(keypair),
                directory: Behaviour::new(Config::new(NETWORK, schedule()), signer, None, [1; 32]),
            }
        });
        let address = listen(&mut swarm, "127.0.0.1").await;
        swarm.behaviour_mut().kad.serve(true);
        Self { swarm, address, notes: Notes::default() }
    }

    /// A node that is relay `n`.
    pub(crate) async fn relay(n: u8) -> Self {
        let mut node = Self::start(false).await;
        node.swarm.behaviour_mut().directory.set_facts(Some((epoch(), facts(n))));
        node
    }

    pub(crate) fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    pub(crate) fn dial(&mut self, address: &Multiaddr) {
        self.swarm.dial(address.clone()).unwrap();
    }

    pub(crate) fn root(&self) -> [u8; 32] {
        self.swarm.behaviour().directory.snapshot(epoch()).root()
    }

    pub(crate) fn relays(&self) -> usize {
        self.swarm.behaviour().directory.relays().len()
    }

    pub(crate) fn table(&mut self) -> Vec<PeerId> {
        self.swarm.behaviour_mut().kad.routed()
    }

    pub(crate) fn refused(&self, reason: DropReason) -> u64 {
        self.swarm.behaviour().kad.drops().get(reason)
    }

    /// Everything that bad records must leave as it is.
    pub(crate) fn holdings(&mut self) -> ([u8; 32], usize, usize) {
        (self.root(), self.relays(), self.swarm.behaviour_mut().kad.records())
    }

    /// Gives the node a descriptor as if a peer had brought it.
    pub(crate) fn learn(&mut self, descriptor: &Descriptor) {
        let behaviour = self.swarm.behaviour_mut();
        behaviour.directory.handle_record(NodeId([1; 32]), descriptor.as_bytes()).unwrap();
        let kept = behaviour.directory.relays().get(descriptor.relay()).unwrap().clone();
        behaviour.kad.keep(kept);
    }

    /// What the program's wiring does.
    fn handle(&mut self, event: SwarmEvent<NodeEvent>) {
        let behaviour = self.swarm.behaviour_mut();
        match event {
            SwarmEvent::Behaviour(NodeEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                let kad = NETWORK.protocol("kad", 1);
                let serves = info.protocols.iter().any(|name| name.as_ref() == kad);
                behaviour.kad.handle_identified(&peer_id, serves, &info.listen_addrs);
            }
            SwarmEvent::Behaviour(NodeEvent::Directory(Event::Persist { relay, .. } | Event::Forget { relay })) => {
                match behaviour.directory.relays().get(relay).cloned() {
                    Some(descriptor) => behaviour.kad.keep(descriptor),
                    None => behaviour.kad.forget(relay),
                }
            }
            SwarmEvent::Behaviour(NodeEvent::Kad(KadEvent::Record { from, bytes })) => {
                let outcome = behaviour.directory.handle_record(from, &bytes);
                if outcome.is_err_and(|reject| reject.is_misbehaviour()) {
                    *self.notes.misbehaved.entry(from).or_default() += 1;
                }
            }
            SwarmEvent::Behaviour(NodeEvent::Kad(KadEvent::Misbehaved { peer })) => {
                *self.notes.misbehaved.entry(peer).or_default() += 1;
            }
            SwarmEvent::Behaviour(NodeEvent::Kad(KadEvent::Flooding { peer })) => {
                *self.notes.flooding.entry(peer).or_default() += 1;
            }
            SwarmEvent::Behaviour(NodeEvent::Kad(KadEvent::LookedUp { relay, found })) => {
                self.notes.looked_up.push((relay, found));
            }
            SwarmEvent::OutgoingConnectionError { error, .. } if !fog_directory::is_felt(&error) => {
                self.notes.dials_failed += 1;
            }
            _ => {}
        }
    }
}

/// Drives all nodes until `done`.
pub(crate) async fn drive(nodes: &mut [Running], mut done: impl FnMut(&mut [Running]) -> bool) {
    let work = async {
        // Some conditions come true without an event of ours.
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while !done(nodes) {
            let events = nodes.iter_mut().enumerate().map(|(i, node)| {
                let event = async move { (i, node.swarm.select_next_some().await) };
                Box::pin(event)
            });
            tokio::select! {
                ((i, event), ..) = futures::future::select_all(events) => nodes[i].handle(event),
                _ = tick.tick() => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("what is awaited happens in time");
}

/// Drives one node for a while.
pub(crate) async fn drive_for(nodes: &mut [Running], time: Duration) {
    let mut ticks = time.as_millis() / 50;
    drive(nodes, |_| {
        ticks = ticks.saturating_sub(1);
        ticks == 0
    })
    .await;
}

/// libp2p's Kademlia without any of our rules.
#[derive(NetworkBehaviour)]
pub(crate) struct Plain {
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

/// A peer that does what it is told to, on its own task.
pub(crate) struct Peer {
    pub(crate) peer: PeerId,
    pub(crate) address: Multiaddr,
    pub(crate) task: JoinHandle<()>,
}

/// What a plain peer knows and does.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) ip: Option<&'static str>,
    pub(crate) keypair: Option<identity::Keypair>,
    /// What it answers.
    pub(crate) records: Vec<Record>,
    /// Whom it names.
    pub(crate) table: Vec<(PeerId, Multiaddr)>,
    /// Whom it dials.
    pub(crate) dial: Option<(PeerId, Multiaddr)>,
    /// What it puts there.
    pub(crate) puts: Vec<Record>,
    /// How many lookups it starts there.
    pub(crate) floods: usize,
    /// What it says of its address, if not the truth.
    pub(crate) claims: Option<Multiaddr>,
}

impl Peer {
    pub(crate) async fn start(script: Script) -> Self {
        let keypair = script.keypair.clone().unwrap_or_else(identity::Keypair::generate_ed25519);
        let mut swarm = transported(keypair, |keypair| {
            let me = keypair.public().to_peer_id();
            let mut config = kad::Config::new(StreamProtocol::try_from_owned(NETWORK.protocol("kad", 1)).unwrap());
            config.set_periodic_bootstrap_interval(None).set_max_packet_size(64 * 1024);
            let mut kad = kad::Behaviour::with_config(me, MemoryStore::new(me), config);
            kad.set_mode(Some(kad::Mode::Server));
            Plain { kad, identify: identify(keypair) }
        });
        let address = listen(&mut swarm, script.ip.unwrap_or("127.0.0.1")).await;
        if let Some(claimed) = &script.claims {
            swarm.remove_external_address(&address);
            swarm.add_external_address(claimed.clone());
        }
        let peer = *swarm.local_peer_id();
        let task = tokio::spawn(run(swarm, script));
        Self { peer, address, task }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(mut swarm: Swarm<Plain>, script: Script) {
    let kad = &mut swarm.behaviour_mut().kad;
    for record in script.records {
        kad::store::RecordStore::put(kad.store_mut(), record).unwrap();
    }
    for (peer, address) in script.table {
        kad.add_address(&peer, address);
    }
    if let Some((peer, address)) = script.dial.clone() {
        let opts = DialOpts::peer_id(peer).addresses(vec![address]).build();
        swarm.dial(opts).unwrap();
    }
    loop {
        if let SwarmEvent::ConnectionEstablished { peer_id, num_established, .. } = swarm.select_next_some().await
            && script.dial.as_ref().is_some_and(|(peer, _)| *peer == peer_id)
            && num_established.get() == 1
        {
            let kad = &mut swarm.behaviour_mut().kad;
            for record in script.puts.clone() {
                kad.put_record_to(record, std::iter::once(peer_id), kad::Quorum::One);
            }
            let (_, address) = script.dial.clone().unwrap();
            kad.add_address(&peer_id, address);
            for _ in 0..script.floods {
                kad.get_closest_peers(PeerId::random());
            }
        }
    }
}

pub(crate) fn record(key: RecordKey, value: &[u8]) -> Record {
    Record { key, value: value.to_vec(), publisher: None, expires: None }
}
