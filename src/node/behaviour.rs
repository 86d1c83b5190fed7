//! The protocols that the node speaks: fields and nothing else. `transport.rs` makes them, `event.rs` names what they tell.

use libp2p::{
    allow_block_list, autonat, connection_limits, dcutr, gossipsub, identify, mdns, memory_connection_limits, ping,
    relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    upnp,
};

/// The behaviour of a node's swarm.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// Refuses connections beyond the configured number. First, as it is the cheapest to say no.
    pub(super) limits: connection_limits::Behaviour,
    /// Refuses connections while memory is short.
    pub(super) memory: memory_connection_limits::Behaviour,
    /// Refuses banned peers.
    pub(super) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    /// Finds peers on the internet. Before all that count connections: it ends its feelers as soon as they are made.
    pub(super) kad: fog_directory::Kad,
    /// Tells peers apart by network, and tells them our addresses.
    pub(super) identify: identify::Behaviour,
    /// Round-trip times, and whether a connection still lives.
    pub(super) ping: ping::Behaviour,
    /// Finds neighbours without any server, on IPv4.
    pub(super) mdns_v4: Toggle<mdns::tokio::Behaviour>,
    /// The same on IPv6: libp2p's mDNS speaks one of the two.
    pub(super) mdns_v6: Toggle<mdns::tokio::Behaviour>,
    /// Finds neighbours of this network, sooner and on both.
    pub(super) lan: Toggle<fog_lan::Behaviour>,
    /// Carries descriptors, what is certified of them, reports and proofs.
    pub(super) gossip: gossipsub::Behaviour,
    /// Asks others whether our addresses work.
    pub(super) autonat_client: autonat::v2::client::Behaviour,
    /// Tells others whether theirs do.
    pub(super) autonat_server: autonat::v2::server::Behaviour,
    /// Asks the router for a port.
    pub(super) upnp: Toggle<upnp::tokio::Behaviour>,
    /// Reaches peers behind NAT through others.
    pub(super) relay_client: relay::client::Behaviour,
    /// Lets others reach peers behind NAT through us.
    pub(super) relay_server: relay::Behaviour,
    /// Turns relayed connections into direct ones.
    pub(super) dcutr: dcutr::Behaviour,
    /// Who the relays are.
    pub(super) directory: fog_directory::Behaviour,
    /// What peers proved about each other.
    pub(super) reputation: fog_reputation::Behaviour,
    /// Files.
    pub(super) blobs: fog_blobs::Behaviour,
    /// Rooms, groups and direct messages.
    pub(super) chat: fog_chat::Behaviour,
    /// Fog compute.
    pub(super) tasks: fog_tasks::Behaviour,
    /// Onion circuits.
    pub(super) circuits: fog_circuits::Behaviour,
    /// Messages through relays.
    pub(super) mix: fog_mix::Behaviour,
}

pub(super) use fog_mix::{node_id, peer_id};
