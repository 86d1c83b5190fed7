//! The swarm: TCP and QUIC with Noise and Yamux, names by DNS, relayed connections, and every protocol with its limits.

use std::{io, num::NonZeroUsize, sync::Arc, time::Duration};

use anyhow::Context as _;
use fog_base::Network;
use fog_directory::{Kad, KadConfig, Signer, core::council::Council};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, allow_block_list, autonat,
    connection_limits::{self, ConnectionLimits},
    dcutr, dns, gossipsub, identify, identity, mdns, memory_connection_limits, noise, ping, relay, swarm, tcp, upnp,
};
use rand::RngExt;

use super::{
    behaviour::Behaviour,
    gossip::{Copies, Topic},
    muxer, reachability,
};
use crate::{config::Config, keys::Keys};

/// Connections that are being made, each way.
const MAX_PENDING: u32 = 32;
/// A connection without any use of its own: peers stay, as paths need them at any time; `wiring.rs` lets the least useful go.
const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Substreams that one peer may be opening at a time.
const MAX_NEGOTIATING: usize = 32;
/// Nothing on gossip is larger (DESIGN §8).
const MAX_GOSSIP: usize = 16 * 1024;
/// Bytes of a message's id.
const MESSAGE_ID: usize = 20;
/// How long a message may wait for a slow peer. What is dropped there must be asked for, which costs both more than to wait.
const FORWARDED_WITHIN: Duration = Duration::from_secs(5);
/// In so many heartbeats a message is announced to so many peers outside the mesh.
const ANNOUNCED: (usize, usize) = (1, 2);
/// Descriptors are many, and what gossip loses the exchange brings: each travels to two peers, not to six (`gossip-ways` of the
/// simulator: 2.7 instead of 8.8 times the set's bytes).
const DESCRIPTOR_MESH: usize = 2;
/// How often a neighbour is asked for, after the first, faster queries. libp2p's mDNS cannot change it while it runs; the beacon is
/// the fast way.
const MDNS_INTERVAL: Duration = Duration::from_secs(10);
const MDNS_TTL: Duration = Duration::from_secs(120);
/// A QUIC connection on which nothing came for so long is gone; an idle one asks three times as often. Circuits through a relay that died stand still
/// until then. libp2p's own figures, 10 s and 5 s, notice it after 10 to 15 s, these after 4.5 to 6 s; two packets of 40 bytes in 1.5 s on an
/// idle connection are what they cost.
const QUIC_IDLE: Duration = Duration::from_millis(4_500);
const QUIC_KEEP_ALIVE: Duration = Duration::from_millis(1_500);
/// Of a handshake, the first packet and two repetitions (after 1 s and 3 s, RFC 9002) go out in it.
const QUIC_HANDSHAKE: Duration = Duration::from_secs(4);
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// AutoNAT waits 5 s by default, which is longer than a small network takes to form.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
const MAX_PROBES: usize = 10;
/// A relayed connection is to last for a conversation, not only for a hole punch (DESIGN §13).
const MAX_CIRCUIT: (Duration, u64) = (Duration::from_secs(30 * 60), 16 * 1024 * 1024);

/// The identify protocol's version text: peers with another one are of another network.
pub(super) fn network_name(network: &Network) -> String {
    network.id.protocol("id", 1)
}

/// The name of our Kademlia: who speaks it serves it.
pub(super) fn kad_name(network: &Network) -> String {
    network.id.protocol("kad", 1)
}

/// Builds the swarm; it does not listen yet.
pub(super) fn build(
    config: &Config,
    keys: &Keys,
    network: &Network,
    council: Option<Council>,
    (mix, circuits, chat, blobs, tasks): (
        fog_mix::Behaviour,
        fog_circuits::Behaviour,
        fog_chat::Behaviour,
        fog_blobs::Behaviour,
        fog_tasks::Behaviour,
    ),
    copies: &Copies,
) -> anyhow::Result<Swarm<Behaviour>> {
    let ours = Ours {
        directory: directory(config, keys, network, council),
        reputation: reputation(keys, network),
        lan: config.lan_beacon.then(|| lan(keys, network)),
        mix,
        circuits,
        chat,
        blobs,
        tasks,
        copies: copies.clone(),
    };
    let keypair = keypair(keys)?;
    let base = || -> anyhow::Result<_> {
        Ok(SwarmBuilder::with_existing_identity(keypair.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, muxer::Upgrade::default)?
            .with_quic_config(|mut quic| {
                quic.max_idle_timeout = u32::try_from(QUIC_IDLE.as_millis()).unwrap_or(u32::MAX);
                quic.keep_alive_interval = QUIC_KEEP_ALIVE;
                quic.handshake_timeout = QUIC_HANDSHAKE;
                quic
            }))
    };
    // The two builders have types of their own that cannot be named.
    macro_rules! finish {
        ($builder:expr) => {
            $builder
                .with_relay_client(noise::Config::new, muxer::Upgrade::default)?
                .with_behaviour(|keypair, relay_client| behaviour(config, network, keypair, (relay_client, ours)))
                .map_err(|error| anyhow::anyhow!("the swarm cannot be made: {error}"))?
                .with_swarm_config(|swarm: swarm::Config| {
                    swarm
                        .with_idle_connection_timeout(IDLE_TIMEOUT)
                        .with_max_negotiating_inbound_streams(MAX_NEGOTIATING)
                })
                .build()
        };
    }
    // Without a resolver configuration (a LAN without internet) names do not resolve, and everything else works.
    let has_resolver = !cfg!(unix) || std::fs::exists("/etc/resolv.conf").unwrap_or(false);
    if has_resolver && let Ok(builder) = base()?.with_dns() {
        return Ok(finish!(builder));
    }
    tracing::warn!("this host has no DNS configuration: names in addresses do not resolve");
    let none = dns::ResolverConfig::from_parts(None, Vec::new(), Vec::new());
    Ok(finish!(base()?.with_dns_config(none, dns::ResolverOpts::default())))
}

fn keypair(keys: &Keys) -> anyhow::Result<identity::Keypair> {
    let mut secret = zeroize::Zeroizing::new(keys.identity().to_bytes());
    identity::Keypair::ed25519_from_bytes(secret.as_mut_slice()).context("the identity key is not an Ed25519 key")
}

/// The protocols of Fog.
struct Ours {
    directory: fog_directory::Behaviour,
    reputation: fog_reputation::Behaviour,
    lan: Option<fog_lan::Behaviour>,
    mix: fog_mix::Behaviour,
    circuits: fog_circuits::Behaviour,
    chat: fog_chat::Behaviour,
    blobs: fog_blobs::Behaviour,
    tasks: fog_tasks::Behaviour,
    copies: Copies,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn behaviour(
    config: &Config,
    network: &Network,
    keypair: &identity::Keypair,
    (relay_client, ours): (relay::client::Behaviour, Ours),
) -> Result<Behaviour, BoxError> {
    let me = keypair.public().to_peer_id();
    let memory = usize::try_from(config.limits.memory_mib.saturating_mul(1024 * 1024)).unwrap_or(usize::MAX);
    let gossip = gossip(network, ours.copies)?;
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits(config)),
        memory: memory_connection_limits::Behaviour::with_max_bytes(memory),
        blocked: allow_block_list::Behaviour::default(),
        kad: Kad::new(me, kad(config, network)),
        identify: identify::Behaviour::new(
            identify::Config::new(network_name(network), keypair.public())
                .with_agent_version(concat!("fog/", env!("CARGO_PKG_VERSION")).into())
                // Only proved addresses are told: loopback and link-local ones never leave the host.
                .with_hide_listen_addrs(true),
        ),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
        mdns_v4: mdns(config, me, false).into(),
        mdns_v6: mdns(config, me, true).into(),
        lan: ours.lan.into(),
        gossip,
        autonat_client: autonat::v2::client::Behaviour::new(
            rand::make_rng::<rand::rngs::StdRng>(),
            autonat::v2::client::Config::default().with_probe_interval(PROBE_INTERVAL).with_max_candidates(MAX_PROBES),
        ),
        autonat_server: autonat::v2::server::Behaviour::default(),
        upnp: (!listens_on_loopback_only(&config.listen)).then(upnp::tokio::Behaviour::default).into(),
        relay_client,
        relay_server: relay_server(me),
        dcutr: dcutr::Behaviour::new(me),
        directory: ours.directory,
        reputation: ours.reputation,
        mix: ours.mix,
        circuits: ours.circuits,
        chat: ours.chat,
        blobs: ours.blobs,
        tasks: ours.tasks,
    })
}

fn limits(config: &Config) -> ConnectionLimits {
    let limits = &config.limits;
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established(Some(limits.connections))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
}

fn directory(config: &Config, keys: &Keys, network: &Network, council: Option<Council>) -> fog_directory::Behaviour {
    let bounds = fog_directory::Config {
        max_relays: config.limits.relays,
        staked: network.genesis.iter().map(|(relay, _)| *relay).collect(),
        ..fog_directory::Config::new(network.id, network.schedule())
    };
    let signer = Signer { identity: Arc::new(keys.identity().clone()), vrf: Arc::new(keys.vrf().clone()) };
    fog_directory::Behaviour::new(bounds, signer, council, random_seed())
}

fn reputation(keys: &Keys, network: &Network) -> fog_reputation::Behaviour {
    let config = fog_reputation::Config {
        // Their sequence numbers are Unix milliseconds, and none is used twice.
        provable: vec![fog_directory::core::descriptor::KIND],
        ..fog_reputation::Config::new(network.id, network.schedule())
    };
    fog_reputation::Behaviour::new(config, Arc::new(keys.identity().clone()), random_seed())
}

#[expect(clippy::disallowed_methods, reason = "randomness enters the node here")]
fn random_seed() -> [u8; 32] {
    rand::rng().random()
}

/// Every message is signed by whom its content names, so gossipsub adds neither sender nor signature: that a node passes something on
/// first says nothing of who made it.
fn gossip(network: &Network, copies: Copies) -> Result<gossipsub::Behaviour, BoxError> {
    let descriptors = Topic::Descriptors.ident(&network.id).hash();
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix(network.id.protocol("gossip", 1))
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .validate_messages()
        // One message has one id, whoever publishes it: what several nodes pass on travels once.
        .message_id_fn(move |message| {
            copies.count();
            let hash = blake3::hash(&message.data);
            gossipsub::MessageId::from(hash.as_bytes().first_chunk::<MESSAGE_ID>().copied().unwrap_or_default())
        })
        .max_transmit_size(MAX_GOSSIP)
        .heartbeat_interval(Duration::from_secs(1))
        .forward_queue_duration(FORWARDED_WITHIN)
        .history_gossip(ANNOUNCED.0)
        .gossip_lazy(ANNOUNCED.1)
        .mesh_n_low_for_topic(DESCRIPTOR_MESH, descriptors.clone())
        .mesh_n_for_topic(DESCRIPTOR_MESH, descriptors.clone())
        .mesh_n_high_for_topic(2 * DESCRIPTOR_MESH, descriptors.clone())
        .mesh_outbound_min_for_topic(DESCRIPTOR_MESH / 2, descriptors)
        .build()?;
    let mut gossip = gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, config)?;
    // Other topics are of no use here; those that somebody else subscribes to are bounded by gossipsub itself.
    for topic in Topic::ALL {
        gossip.subscribe(&topic.ident(&network.id))?;
    }
    Ok(gossip)
}

fn lan(keys: &Keys, network: &Network) -> fog_lan::Behaviour {
    fog_lan::Behaviour::new(fog_lan::Config::new(network.id), Arc::new(keys.identity().clone()), random_seed())
}

fn mdns(config: &Config, me: PeerId, enable_ipv6: bool) -> Option<mdns::tokio::Behaviour> {
    let settings = mdns::Config { ttl: MDNS_TTL, query_interval: MDNS_INTERVAL, enable_ipv6 };
    let made = config.mdns.then(|| mdns::tokio::Behaviour::new(settings, me))?;
    made.inspect_err(
        |error: &io::Error| tracing::warn!(%error, "mDNS is off: the system does not tell of its interfaces"),
    )
    .ok()
}

fn kad(config: &Config, network: &Network) -> KadConfig {
    // Half of the connections are for others than those that its queries dial.
    let connections = usize::try_from(config.limits.connections / 2).unwrap_or(usize::MAX);
    KadConfig { max_relays: config.limits.relays, ..KadConfig::new(network.id, network.schedule(), connections) }
}

fn relay_server(me: PeerId) -> relay::Behaviour {
    let (max_circuit_duration, max_circuit_bytes) = MAX_CIRCUIT;
    let config = relay::Config { max_circuit_duration, max_circuit_bytes, ..relay::Config::default() };
    let mut server = relay::Behaviour::new(me, config);
    server.set_status(Some(relay::Status::Disable));
    server
}

pub(super) fn listens_on_loopback_only(listen: &[Multiaddr]) -> bool {
    listen.iter().all(|address| reachability::ip(address).is_some_and(|ip| ip.is_loopback()))
}

/// Listens everywhere it is told to; one family of addresses that the host lacks is no failure as long as another one works.
pub(super) fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[Multiaddr]) -> anyhow::Result<usize> {
    let mut failed = None;
    let mut count = 0;
    for address in addresses {
        match swarm.listen_on(address.clone()) {
            Ok(_) => count += 1,
            Err(error) => {
                tracing::debug!(%address, %error, "cannot listen");
                let unspecified = reachability::ip(address).is_some_and(|ip| ip.is_unspecified());
                if !unspecified {
                    anyhow::bail!("cannot listen on {address}: {}", root_cause(&error));
                }
                failed = Some((address, root_cause(&error)));
            }
        }
    }
    match failed {
        Some((address, error)) if NonZeroUsize::new(count).is_none() => {
            anyhow::bail!("cannot listen on {address}: {error}")
        }
        _ => Ok(count),
    }
}

/// The innermost error's text: libp2p wraps each by several that say nothing.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
