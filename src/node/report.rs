//! What the node tells: the JSON values of INTERFACE, shared by the local API and the command line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `fog status`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The node's libp2p peer id.
    pub peer_id: String,
    /// The program's version.
    pub version: String,
    /// The network's name.
    pub network: String,
    /// The network's id in hex.
    pub network_id: String,
    /// Seconds since the node started.
    pub uptime_s: u64,
    /// Where the node is in its life.
    pub state: State,
    /// The running epoch.
    pub epoch: EpochStatus,
    /// Connected peers.
    pub peers: PeerCounts,
    /// Known relays.
    pub relays: RelayCounts,
    /// Root of the relay snapshot that paths are drawn from, in hex.
    pub snapshot_root: String,
    /// Roles that are advertised now.
    pub roles: Vec<String>,
    /// Roles that were asked for but wait for the node to be reachable.
    pub roles_waiting: Vec<String>,
    /// Whether the relay snapshot is certified.
    pub certified: bool,
    /// What a false relay costs: `none` or `stake`.
    pub sybil_resistance: String,
    /// What multiplies points: `ifma`, `avx2` or `dalek`.
    pub x25519: String,
    /// The mixnet.
    pub mix: MixStatus,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Bounded things: used and greatest.
    pub limits: BTreeMap<String, Limit>,
    /// What the user should know: a clock that is off, lost loops, a full disk.
    pub warnings: Vec<String>,
}

/// The states of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Opening its store and sockets.
    Starting,
    /// Without a peer.
    Joining,
    /// With a peer.
    Ready,
    /// Shutting down.
    Stopping,
}

/// The running epoch.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EpochStatus {
    /// Its number.
    pub number: u32,
    /// Seconds until the next.
    pub ends_in_s: u64,
}

/// How many peers, by path.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PeerCounts {
    /// All of them.
    pub connected: usize,
    /// On the local network or this host.
    pub lan: usize,
    /// Over the internet without a relay between.
    pub direct: usize,
    /// Through a libp2p relay.
    pub relayed: usize,
}

/// How many relays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct RelayCounts {
    /// With a valid descriptor.
    pub known: usize,
    /// That carry traffic in this epoch.
    pub seated: usize,
}

/// The mixnet, as this node sees it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct MixStatus {
    /// Whether a path of the default length can be built now.
    pub ready: bool,
    /// Packets that came from peers.
    pub received: u64,
    /// Packets sent on to a next hop.
    pub forwarded: u64,
    /// Packets whose last hop was this node.
    pub delivered: u64,
    /// Packets of our own that left, cover included.
    pub sent: u64,
    /// Loop and drop packets that left.
    pub cover_sent: u64,
    /// Loops that came back.
    pub loops_returned: u64,
    /// Loops that were lost.
    pub loops_lost: u64,
    /// Relays that hold this node's slot as its mailboxes; none for a relay.
    pub mailboxes: Vec<String>,
    /// What was dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Packets that wait in the mixing pool.
    pub queue: usize,
}

/// Something with a bound.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Limit {
    /// In use.
    pub used: u64,
    /// The bound.
    pub max: u64,
}

/// A line of `fog peers`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its peer id.
    pub peer_id: String,
    /// The address that carries the connection.
    pub address: String,
    /// `lan`, `direct` or `relayed`.
    pub path: String,
    /// The last round trip; null until measured.
    pub rtt_ms: Option<f64>,
    /// What it says it is.
    pub agent: String,
    /// 0 is neutral. Misconduct takes from it, and half of that is forgiven in an hour: at −8 it is disconnected, at −16 banned.
    pub score: f64,
    /// For how long it is connected.
    pub connected_s: u64,
}

/// `fog id`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    /// The node's libp2p peer id.
    pub peer_id: String,
    /// Where it can be dialled, as far as it knows.
    pub addresses: Vec<String>,
    /// What to give to others: they can reach this node by it.
    pub invite: String,
}

/// `fog connect`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Connected {
    /// Who answered.
    pub peer_id: String,
    /// The round trip.
    pub rtt_ms: f64,
}

/// A line of `fog relays`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Relay {
    /// Its peer id.
    pub peer_id: String,
    /// What it offers.
    pub roles: Vec<String>,
    /// Its mix layer; null while every relay may stand anywhere.
    pub layer: Option<u8>,
    /// Whether it carries traffic in this epoch.
    pub seated: bool,
    /// Its weight in path selection.
    pub weight: u64,
    /// Its stake.
    pub stake: u64,
    /// The lower bound of its availability, by which relays are ranked; null while nothing is known of it.
    pub reputation: Option<f64>,
    /// The part of its packets that it carries, by the certified reports of the seats; null without a certified set.
    pub standing: Option<f64>,
    /// Where it can be dialled.
    pub addresses: Vec<String>,
    /// When its descriptor ends, RFC 3339.
    pub expires_at: String,
}

/// `fog relays snapshot`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// The epoch that it serves.
    pub epoch: u32,
    /// How many relays it has.
    pub relays: usize,
    /// Its root in hex.
    pub root: String,
    /// Whether relays signed it.
    pub certified: bool,
    /// How many did.
    pub signatures: usize,
    /// Their weight.
    pub signed_weight: u64,
    /// The weight of all.
    pub total_weight: u64,
}

/// `fog relays verify`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Seat {
    /// The relay.
    pub peer_id: String,
    /// The epoch whose certified set was looked at.
    pub epoch: u32,
    /// Whether its descriptor is under the certified root, its ticket is valid, and the certified seats follow from the set.
    pub proof_ok: bool,
    /// Whether it has a seat.
    pub seated: bool,
    /// Its mix layer; null where every relay may stand anywhere, and without a seat.
    pub layer: Option<u8>,
    /// What its ticket drew, in hex: the lowest are seated first. Null if the ticket is not valid.
    pub output: Option<String>,
}

/// A line of `fog reputation`: how likely a peer does as it should, by the evidence that this node has.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Reputation {
    /// Its peer id.
    pub peer_id: String,
    /// `correctness` (what it delivers is right), `availability` (it does what it took on) or `rating` (its reports are honest).
    pub kind: String,
    /// The expected probability.
    pub mean: f64,
    /// It is at least this, with 95 % certainty: what ranking uses.
    pub lower: f64,
    /// It is at most this, with 95 % certainty.
    pub upper: f64,
    /// The weight of all evidence; 1 is something usual, such as one loop. 0: nothing is known.
    pub evidence: f64,
    /// How many peers reported on it, believed or not.
    pub reports: usize,
}

/// The end of `fog mix send`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Sent {
    /// The message's id.
    pub id: String,
    /// `delivered`, `stored` or `failed`.
    pub state: String,
    /// Whether the recipient's node accepted it.
    pub acked: bool,
    /// Why it failed; null if it did not.
    pub reason: Option<String>,
    /// From the command to that state.
    pub latency_ms: u64,
    /// Packets of the message, first transmissions only.
    pub packets: u64,
    /// Packets sent again.
    pub retransmissions: u64,
    /// Relays on each path.
    pub hops: usize,
}

/// While `fog mix send` runs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SendProgress {
    /// Packets that were acknowledged.
    pub acknowledged: u64,
    /// Packets of the message.
    pub packets: u64,
}

/// A line of `fog mix recv`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Received {
    /// The message's id.
    pub id: String,
    /// Who signed it; null if nobody did.
    pub from: Option<String>,
    /// The message, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// The message in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base64: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// When it was complete, RFC 3339.
    pub received_at: String,
}

/// A line of `fog mix ping`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PingReply {
    /// Which ping, from 1.
    pub seq: u32,
    /// The round trip; null if it was lost.
    pub rtt_ms: Option<f64>,
    /// Relays on each path.
    pub hops: usize,
}

/// The last line of `fog mix ping`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PingSummary {
    /// Pings that were sent.
    pub sent: u32,
    /// Pings that came back.
    pub received: u32,
    /// The lost fraction, from 0 to 1.
    pub loss: f64,
    /// The shortest round trip.
    pub min_ms: Option<f64>,
    /// The median.
    pub median_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
}

/// What `fog run` tells while it runs, one JSON line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Lifecycle {
    /// The node listens on one more address.
    Listening {
        /// The multiaddress, with the node's peer id at its end.
        address: String,
    },
    /// It has a peer.
    Ready,
    /// It is shutting down.
    Stopping,
}
