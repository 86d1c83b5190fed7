//! Devices with a disk each, for the tests.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use fog_base::{MessageId, NetworkId, Now, UnixMillis};
use vodozemac::olm::OlmMessage;

use super::bundle::DeviceId;
use super::{
    device::{Came, Device, Output, Report},
    frame::Kind,
    key::SecretKey,
    reject::Reject,
    sessions::from_wire,
    vault::ROW_KEY,
};

pub(super) const NETWORK: NetworkId = NetworkId([7; 32]);

pub(super) type Disk = BTreeMap<[u8; ROW_KEY], Vec<u8>>;

pub(super) fn start() -> Now {
    Now { mono: Instant::now(), unix: UnixMillis(1_800_000_000_000) }
}

pub(super) fn id(n: u64) -> MessageId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    MessageId(bytes)
}

/// Where in a ratchet a message was sealed, as anybody sees it.
pub(super) fn key_of(wire: &[u8]) -> ([u8; 32], u64) {
    let message = match from_wire(wire).unwrap() {
        OlmMessage::Normal(message) => message,
        OlmMessage::PreKey(message) => message.message().clone(),
    };
    (message.ratchet_key().to_bytes(), message.chain_index())
}

/// A device, its disk, and what came out of it.
pub(super) struct Node {
    pub(super) device: Device,
    pub(super) key: u8,
    pub(super) disk: Disk,
    pub(super) sent: Vec<(DeviceId, Option<MessageId>, Vec<u8>)>,
    pub(super) history: Vec<(DeviceId, MessageId, Vec<u8>)>,
    pub(super) acknowledged: Vec<MessageId>,
    pub(super) reports: Vec<Report>,
    /// What each message key sealed; it must never be two texts.
    pub(super) keys: HashMap<([u8; 32], u64), Vec<u8>>,
    /// Disks as they were before each batch, with the number of wires that had left by the next one.
    pub(super) disks: Vec<(Disk, usize)>,
    pub(super) wires: Vec<Vec<u8>>,
}

impl Node {
    pub(super) fn new(key: u8, now: Now) -> Self {
        let device = Device::new(NETWORK, [key; 32], SecretKey::new([key; 32]), [key; 32], now);
        let mut node = Self {
            device,
            key,
            disk: Disk::new(),
            sent: Vec::new(),
            history: Vec::new(),
            acknowledged: Vec::new(),
            reports: Vec::new(),
            keys: HashMap::new(),
            disks: Vec::new(),
            wires: Vec::new(),
        };
        node.run();
        node
    }

    pub(super) fn id(&self) -> DeviceId {
        self.device.id()
    }

    /// Does what the device asks for, until it asks for nothing.
    pub(super) fn run(&mut self) {
        while let Some(output) = self.device.poll_output() {
            match output {
                Output::Persist { batch, rows, came } => {
                    self.disks.push((self.disk.clone(), self.wires.len()));
                    assert!(self.device.poll_output().is_none(), "nothing passes a batch");
                    for row in rows {
                        match row.value {
                            Some(value) => self.disk.insert(row.key, value),
                            None => self.disk.remove(&row.key),
                        };
                    }
                    for Came { from, id, kind, body } in came {
                        assert_eq!(kind, Kind::Data);
                        let is_new = !self.history.iter().any(|(author, known, _)| (*author, *known) == (from, id));
                        assert!(is_new, "what came with a batch comes with no other one");
                        self.history.push((from, id, body.to_vec()));
                    }
                    self.device.handle_persisted(batch);
                }
                Output::Send { to, id, bytes } => {
                    let before = self.keys.insert(key_of(&bytes), bytes.clone());
                    assert!(before.is_none_or(|before| before == bytes), "a message key sealed two texts");
                    self.wires.push(bytes.clone());
                    self.sent.push((to, id, bytes));
                }
                Output::Acknowledged { id, .. } => self.acknowledged.push(id),
                Output::Report(report) => self.reports.push(report),
            }
        }
    }

    /// Loses everything that is not on disk.
    pub(super) fn crash(&mut self) {
        self.device = restored(self.key, &self.disk);
        self.sent.clear();
        self.resend();
    }

    pub(super) fn send(&mut self, to: DeviceId, n: u64) -> Result<(), Reject> {
        self.device.handle_send(to, id(n), Kind::Data, &n.to_be_bytes())?;
        self.run();
        Ok(())
    }

    /// Sends everything again that waits for an acknowledgement.
    pub(super) fn resend(&mut self) {
        let peers: Vec<_> = self.device.peers.keys().copied().collect();
        for peer in peers {
            for message in self.device.pending(&peer) {
                // A peer without a session or a key to start one has to be heard first.
                let _outcome = self.device.handle_resend(peer, message);
            }
        }
        self.run();
    }

    pub(super) fn receive(&mut self, from: DeviceId, bytes: &[u8], now: Now) -> Result<(), Reject> {
        let outcome = self.device.handle_message(from, bytes, now);
        self.run();
        outcome
    }

    pub(super) fn flush(&mut self, now: Now) {
        self.device.handle_timeout(now);
        self.run();
    }

    pub(super) fn texts(&self) -> Vec<u64> {
        self.history.iter().map(|(_, _, body)| u64::from_be_bytes(body.as_slice().try_into().unwrap())).collect()
    }
}

pub(super) fn restored(key: u8, disk: &Disk) -> Device {
    let rows: Vec<_> = disk.iter().map(|(key, value)| (*key, value.clone())).collect();
    Device::restore(NETWORK, [key; 32], SecretKey::new([key; 32]), [key.wrapping_add(100); 32], &rows).unwrap().0
}

/// Two devices of which the first has the second's invite.
pub(super) fn pair(now: Now) -> (Node, Node) {
    let (mut a, b) = (Node::new(1, now), Node::new(2, now));
    a.device.handle_bundle(&b.device.bundle(), now).unwrap();
    a.run();
    (a, b)
}

/// Two devices that have each other's invites.
pub(super) fn mutual(now: Now) -> (Node, Node) {
    let (a, mut b) = pair(now);
    b.device.handle_bundle(&a.device.bundle(), now).unwrap();
    b.run();
    (a, b)
}

/// Carries everything both ways until nothing moves; acknowledgements included.
pub(super) fn settle(a: &mut Node, b: &mut Node, now: &mut Now) {
    for _ in 0..100 {
        *now = now.plus(Duration::from_secs(1));
        carry(a, b, *now);
        carry(b, a, *now);
        a.flush(*now);
        b.flush(*now);
        let quiet = |node: &Node| node.sent.is_empty() && node.device.poll_timeout().is_none();
        if quiet(a) && quiet(b) {
            return;
        }
    }
    panic!("never quiet");
}

/// Carries what `from` sent to `to`. Refusals are the devices' own business.
pub(super) fn carry(from: &mut Node, to: &mut Node, now: Now) {
    for (_, _, bytes) in std::mem::take(&mut from.sent) {
        let _refused = to.receive(from.id(), &bytes, now);
    }
}
