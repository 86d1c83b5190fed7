//! What happens in the swarm, as the wiring sees it: libp2p's events without what nobody here needs.

use std::time::Duration;

use libp2p::{
    Multiaddr, PeerId, autonat,
    core::ConnectedPoint,
    dcutr, gossipsub, identify, mdns, ping, relay,
    swarm::{ConnectionId, DialError, SwarmEvent},
    upnp,
};

use super::{behaviour::BehaviourEvent, contacts::Finder, gossip::Topic, transport::root_cause};

/// Something happened.
#[derive(Debug)]
pub(super) enum Event {
    /// We listen on one more address.
    Listening(Multiaddr),
    /// We listen on it no more.
    NotListening(Multiaddr),
    /// A connection was made.
    Connected {
        peer: PeerId,
        connection: ConnectionId,
        /// The other end.
        remote: Multiaddr,
        /// Where it came in; `None` if we dialled.
        inbound_at: Option<Multiaddr>,
    },
    /// A connection is gone.
    Disconnected {
        peer: PeerId,
        connection: ConnectionId,
        /// How many others there are to that peer.
        remaining: u32,
    },
    /// Nobody answered, or not who was expected.
    DialFailed {
        peer: Option<PeerId>,
        connection: ConnectionId,
        /// Whether every address was tried in vain, so that it is the other side's doing.
        unanswered: bool,
        reason: String,
    },
    /// Somebody's attempt to connect failed.
    InboundFailed,
    /// An address of ours works.
    Confirmed(Multiaddr),
    /// It works no more.
    Unconfirmed(Multiaddr),
    /// A peer said what it is.
    Identified { peer: PeerId, network: String, agent: String, addresses: Vec<Multiaddr>, protocols: Vec<String> },
    /// A round trip was measured.
    Pinged { peer: PeerId, rtt: Duration },
    /// A connection does not answer.
    Unresponsive(ConnectionId),
    /// Neighbours, and what found them.
    Found(Finder, Vec<(PeerId, Multiaddr)>),
    /// Neighbours that it finds no more.
    Lost(Finder, Vec<PeerId>),
    /// A gossip message that must be judged before it travels on.
    Gossip { topic: Topic, from: PeerId, id: gossipsub::MessageId, bytes: Vec<u8> },
    /// A peer that reads too slowly.
    Slow { peer: PeerId },
    /// The directory wants something.
    Directory(fog_directory::Event),
    /// Reputation wants something.
    Reputation(fog_reputation::Event),
    /// Kademlia tells something.
    Kad(fog_directory::KadEvent),
    /// The mixnet tells something.
    Mix(fog_mix::Event),
    /// Something became of a file.
    Blobs(fog_blobs::Event),
    /// Chat wants something.
    Chat(fog_chat::Event),
    /// Circuits tell something.
    Circuits(fog_circuits::Event),
}

impl Event {
    /// The event's part that matters; `None` if there is none.
    pub(super) fn of(event: SwarmEvent<BehaviourEvent>) -> Option<Self> {
        Some(match event {
            SwarmEvent::Behaviour(event) => return Self::of_behaviour(event),
            SwarmEvent::NewListenAddr { address, .. } => Self::Listening(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => Self::NotListening(address),
            SwarmEvent::ConnectionEstablished { peer_id: peer, connection_id: connection, endpoint, .. } => {
                match endpoint {
                    ConnectedPoint::Dialer { address: remote, .. } => {
                        Self::Connected { peer, connection, remote, inbound_at: None }
                    }
                    ConnectedPoint::Listener { local_addr, send_back_addr: remote } => {
                        Self::Connected { peer, connection, remote, inbound_at: Some(local_addr) }
                    }
                }
            }
            SwarmEvent::ConnectionClosed { peer_id: peer, connection_id: connection, num_established, .. } => {
                Self::Disconnected { peer, connection, remaining: num_established }
            }
            // It answered, which is all that Kademlia wanted to know.
            SwarmEvent::OutgoingConnectionError { error, .. } if fog_directory::is_felt(&error) => return None,
            SwarmEvent::OutgoingConnectionError { connection_id: connection, peer_id: peer, error } => {
                // Where another node answers, the peer was not asked: others may have named that address.
                let unanswered = matches!(error, DialError::Transport(_));
                Self::DialFailed { peer, connection, unanswered, reason: dial_reason(&error) }
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "an incoming connection failed");
                Self::InboundFailed
            }
            SwarmEvent::ExternalAddrConfirmed { address } => Self::Confirmed(address),
            SwarmEvent::ExternalAddrExpired { address } => Self::Unconfirmed(address),
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener reports an error");
                return None;
            }
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                tracing::warn!(?addresses, %error, "a listener closed");
                return None;
            }
            _ => return None,
        })
    }

    fn of_behaviour(event: BehaviourEvent) -> Option<Self> {
        Some(match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id: peer, info, .. }) => Self::Identified {
                peer,
                network: info.protocol_version,
                agent: info.agent_version,
                addresses: info.listen_addrs,
                protocols: info.protocols.iter().map(ToString::to_string).collect(),
            },
            BehaviourEvent::Identify(_) => return None,
            BehaviourEvent::Ping(ping::Event { peer, result: Ok(rtt), .. }) => Self::Pinged { peer, rtt },
            BehaviourEvent::Ping(ping::Event { result: Err(ping::Failure::Unsupported), .. }) => return None,
            // libp2p forgives one timeout; on a link that is dead the next failure is that no stream can be negotiated.
            BehaviourEvent::Ping(ping::Event { connection, result: Err(_), .. }) => Self::Unresponsive(connection),
            BehaviourEvent::MdnsV4(event) => of_mdns(Finder::MdnsV4, event),
            BehaviourEvent::MdnsV6(event) => of_mdns(Finder::MdnsV6, event),
            BehaviourEvent::Lan(fog_lan::Event::Found { peer, addresses }) => {
                Self::Found(Finder::Beacon, addresses.into_iter().map(|address| (peer, address)).collect())
            }
            BehaviourEvent::Lan(fog_lan::Event::Lost { peer }) => Self::Lost(Finder::Beacon, vec![peer]),
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source: from, message_id: id, message }) => {
                Self::Gossip { topic: Topic::of(&message.topic)?, from, id, bytes: message.data }
            }
            BehaviourEvent::Gossip(gossipsub::Event::SlowPeer { peer_id: peer, .. }) => Self::Slow { peer },
            BehaviourEvent::Gossip(_) => return None,
            BehaviourEvent::Directory(event) => Self::Directory(event),
            BehaviourEvent::Reputation(event) => Self::Reputation(event),
            BehaviourEvent::Mix(event) => Self::Mix(event),
            BehaviourEvent::Blobs(event) => Self::Blobs(event),
            BehaviourEvent::Chat(event) => Self::Chat(event),
            BehaviourEvent::Circuits(event) => Self::Circuits(event),
            BehaviourEvent::Kad(event) => Self::Kad(event),
            BehaviourEvent::AutonatClient(event) => return ignore_probe(&event),
            BehaviourEvent::Upnp(event) => return ignore_mapping(&event),
            BehaviourEvent::Dcutr(dcutr::Event { remote_peer_id, result }) => {
                tracing::debug!(peer = %remote_peer_id, punched = result.is_ok(), "hole punching");
                return None;
            }
            BehaviourEvent::RelayServer(relay::Event::ReservationReqAccepted { src_peer_id, .. }) => {
                tracing::debug!(peer = %src_peer_id, "relays for a peer behind NAT");
                return None;
            }
            _ => return None,
        })
    }
}

fn of_mdns(finder: Finder, event: mdns::Event) -> Event {
    match event {
        mdns::Event::Discovered(found) => Event::Found(finder, found),
        mdns::Event::Expired(lost) => Event::Lost(finder, lost.into_iter().map(|(peer, _)| peer).collect()),
    }
}

/// A confirmed address comes as an event of the swarm.
fn ignore_probe(event: &autonat::v2::client::Event) -> Option<Event> {
    tracing::debug!(address = %event.tested_addr, server = %event.server, works = event.result.is_ok(), "an address was probed");
    None
}

/// A mapped address comes as an event of the swarm.
fn ignore_mapping(event: &upnp::Event) -> Option<Event> {
    tracing::debug!(?event, "port mapping");
    None
}

/// Why nobody could be reached, in a few words.
pub(super) fn dial_reason(error: &DialError) -> String {
    match error {
        DialError::LocalPeerId { .. } => "that is this node itself".into(),
        DialError::WrongPeerId { obtained, .. } => format!("another node answers there: {obtained}"),
        DialError::NoAddresses => "no address is known".into(),
        DialError::Transport(errors) => match errors.first() {
            Some((_, error)) => root_cause(error),
            None => "no transport for that address".into(),
        },
        DialError::Denied { cause } => root_cause(cause),
        DialError::DialPeerConditionFalse(_) => "it is being dialled already".into(),
        DialError::Aborted => "the attempt was aborted".into(),
    }
}
