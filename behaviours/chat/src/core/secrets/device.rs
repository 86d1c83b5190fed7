//! A device: its Olm account, its peers, and the order of disk before wire.
//!
//! What would betray a secret is written before it is used: [`Output::Persist`] holds back everything behind it until the store says that
//! the batch is on disk. So a crash at any point finds a state that has not been overtaken by bytes on the wire, and no message key seals
//! two texts. A message goes out again as the same bytes, or under a new key, never as a new text under an old key.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{MessageId, NetworkId, Now, UnixMillis};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use vodozemac::{
    Curve25519PublicKey,
    olm::{Account, AccountPickle, OlmMessage, SessionConfig},
};
use zeroize::Zeroizing;

use super::{
    block::BlockList,
    bundle::{Bundle, DeviceId, PreKeyKind},
    frame::{Frame, Kind, MAX_BODY, MAX_FRAME},
    key::SecretKey,
    peer::{Peer, Pending, Sealed},
    reject::Reject,
    sessions::{Slot, digest, from_wire},
    vault::{Row, RowKind, Vault},
    words::Fingerprinted,
};

/// Peers that a device knows.
pub const MAX_PEERS: usize = 4096;
/// Outputs that wait for the store.
pub const MAX_OUTPUTS: usize = 4096;
/// Rows that wait for the store.
pub const MAX_ROWS: usize = 4 * MAX_OUTPUTS;
/// Longest Olm message on the wire: a frame, its padding, and what a pre-key message adds.
pub const MAX_WIRE: usize = MAX_FRAME + 512;
/// How long an acknowledgement waits for a frame to go with.
pub const ACK_DELAY: Duration = Duration::from_millis(200);
/// How long a fallback key is handed out. It opens sessions for as long again.
pub const FALLBACK_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// One-time keys that may be out at a time.
pub const MAX_ONE_TIME_KEYS: usize = 50;

const ACCOUNT: &[u8] = b"account";

/// What the core asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write these rows, and what the messages lead to, as one batch with `sync`; then call [`Device::handle_persisted`] with the number.
    /// Nothing else comes out before.
    Persist {
        /// The number of the batch.
        batch: u64,
        /// The rows.
        rows: Vec<Row>,
        /// What came. It is not kept here: after a crash before the batch is on the disk it comes again, after one behind it never.
        came: Vec<Came>,
    },
    /// Bring these bytes to a peer. Unless `id` is `None` (a bare acknowledgement), try again by [`Device::handle_resend`] until
    /// [`Output::Acknowledged`].
    Send {
        /// To whom.
        to: DeviceId,
        /// The message.
        id: Option<MessageId>,
        /// At most [`MAX_WIRE`] bytes.
        bytes: Vec<u8>,
    },
    /// A peer stored our message.
    Acknowledged {
        /// Which peer.
        to: DeviceId,
        /// Which message.
        id: MessageId,
    },
    /// What a person should know.
    Report(Report),
}

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// From whom: proved by its session.
    pub from: DeviceId,
    /// Chosen by the sender; comes once from one sender.
    pub id: MessageId,
    /// What it carries.
    pub kind: Kind,
    /// The plaintext.
    pub body: Zeroizing<Vec<u8>>,
}

/// What a person should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Somebody who was given our invite wrote for the first time.
    NewPeer(DeviceId),
    /// A message of this peer could not be read; a new session is on its way.
    Desynced(DeviceId),
    /// It could not, and there is no key to start a new session from: the peer's invite is needed again.
    NeedsInvite(DeviceId),
    /// Both sides read each other again; what was on its way has been sent anew.
    Healed(DeviceId),
    /// A one-time key has begun a session of this peer, and is gone.
    KeyUsed(DeviceId),
}

#[derive(Serialize, Deserialize)]
pub(super) struct SavedAccount {
    pub(super) account: AccountPickle,
    pub(super) fallback: Bundle,
    pub(super) rotate_at: u64,
    pub(super) next_seq: u64,
}

/// The core of one device.
pub struct Device {
    pub(super) network: NetworkId,
    signing: SigningKey,
    pub(super) id: DeviceId,
    pub(super) account: Account,
    pub(super) fallback: Bundle,
    pub(super) rotate_at: u64,
    pub(super) next_seq: u64,
    pub(super) peers: BTreeMap<DeviceId, Peer>,
    blocked: BlockList,
    pub(super) vault: Vault,
    /// What the next batch will hold; sessions among it are sealed when it goes, once for all that happened.
    rows: Vec<Row>,
    dirty: BTreeSet<(DeviceId, String)>,
    dirty_seen: BTreeSet<DeviceId>,
    pub(super) came: Vec<Came>,
    /// What waits for the next batch, and what may go.
    held: VecDeque<Output>,
    released: VecDeque<Output>,
    waiting: Option<u64>,
    next_batch: u64,
    failed: bool,
}

impl Device {
    /// A new device with the Ed25519 key of `signing`, whose rows are sealed under `master`. Its account is the first batch.
    pub fn new(network: NetworkId, signing: [u8; 32], master: SecretKey, seed: [u8; 32], now: Now) -> Self {
        Self::begin_in(network, signing, Vault::new(master, ChaCha20Rng::from_seed(seed)), now)
    }

    /// The same, with a vault that others write to as well.
    pub fn begin_in(network: NetworkId, signing: [u8; 32], vault: Vault, now: Now) -> Self {
        let mut device = Self::with(network, signing, vault, Account::new(), None);
        device.rotate_fallback(now);
        device
    }

    pub(super) fn with(
        network: NetworkId,
        signing: [u8; 32],
        vault: Vault,
        account: Account,
        saved: Option<(Bundle, u64, u64)>,
    ) -> Self {
        let signing = SigningKey::from_bytes(&signing);
        let id = DeviceId(signing.verifying_key().to_bytes());
        let identity = account.curve25519_key().to_bytes();
        let none = Bundle { device: id, identity, pre_key: [0; 32], kind: PreKeyKind::Fallback, seq: 0, expires: 0 };
        let (fallback, rotate_at, next_seq) = saved.unwrap_or((none, 0, 1));
        Self {
            network,
            signing,
            id,
            account,
            fallback,
            rotate_at,
            next_seq,
            peers: BTreeMap::new(),
            blocked: BlockList::default(),
            vault,
            rows: Vec::new(),
            dirty: BTreeSet::new(),
            dirty_seen: BTreeSet::new(),
            came: Vec::new(),
            held: VecDeque::new(),
            released: VecDeque::new(),
            waiting: None,
            next_batch: 0,
            failed: false,
        }
    }

    /// The device's id.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// The signed fallback key: what an invite carries.
    pub fn bundle(&self) -> Vec<u8> {
        self.fallback.sign(&self.network, &self.signing)
    }

    /// The next bundle counts as newer than all before, though its key is the same.
    pub fn renew_bundle(&mut self) {
        self.fallback.seq = self.next_seq;
        self.next_seq += 1;
        let mut rows = Vec::new();
        self.save_account(&mut rows);
        self.commit(rows, []);
    }

    /// `count` signed one-time keys, to be handed to one person each through mailbox or mixnet. Come out behind their batch, so the caller
    /// must not give them away before [`Self::handle_persisted`].
    pub fn one_time_bundles(&mut self, count: usize) -> Result<Vec<Vec<u8>>, Reject> {
        self.check_running()?;
        let room = MAX_ONE_TIME_KEYS.saturating_sub(self.account.stored_one_time_key_count());
        if count > room {
            return Err(Reject::Full);
        }
        let made = self.account.generate_one_time_keys(count);
        self.account.mark_keys_as_published();
        let bundles = made.created.into_iter().map(|key| {
            let seq = self.next_seq;
            self.next_seq += 1;
            let kind = PreKeyKind::OneTime;
            Bundle { pre_key: key.to_bytes(), kind, seq, ..self.fallback }.sign(&self.network, &self.signing)
        });
        let bundles = bundles.collect();
        let mut rows = Vec::new();
        self.save_account(&mut rows);
        self.commit(rows, []);
        Ok(bundles)
    }

    /// Takes a peer's bundle, from an invite, a mailbox or the mixnet.
    pub fn handle_bundle(&mut self, bytes: &[u8], now: Now) -> Result<DeviceId, Reject> {
        self.check_running()?;
        let bundle = Bundle::verify(bytes, &self.network, now.unix)?;
        self.check_peer(bundle.device)?;
        let known = self.peers.len();
        match self.peers.get_mut(&bundle.device) {
            Some(peer) => peer.renew(bundle)?,
            None if known >= MAX_PEERS => return Err(Reject::Full),
            None => {
                self.peers.insert(bundle.device, Peer::new(bundle, self.id));
            }
        }
        let mut rows = Vec::new();
        self.save_peer(&mut rows, bundle.device);
        self.commit(rows, []);
        Ok(bundle.device)
    }

    /// What the safety words of a peer stand for; with `None`, our own.
    pub fn fingerprinted(&self, peer: Option<&DeviceId>) -> Option<Fingerprinted> {
        match peer {
            None => Some(Fingerprinted::from(&self.fallback)),
            Some(id) => self.peers.get(id).map(|peer| Fingerprinted { device: *id, identity: peer.identity() }),
        }
    }

    /// Whom not to hear; the caller stores the list.
    pub fn block_list(&mut self) -> &mut BlockList {
        &mut self.blocked
    }

    /// Who is not heard.
    pub fn blocked(&self) -> &BlockList {
        &self.blocked
    }

    /// Where rows are sealed: for the cores of groups.
    pub fn vault(&mut self) -> &mut Vault {
        &mut self.vault
    }

    /// The same, to read.
    pub fn vault_ref(&self) -> &Vault {
        &self.vault
    }

    /// The peers that are known.
    pub fn peers(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.peers.keys().copied()
    }

    /// Whether the peer's keys are known.
    pub fn knows(&self, peer: &DeviceId) -> bool {
        self.peers.contains_key(peer)
    }

    /// The number of the one-time key that is held of a peer.
    #[cfg(test)]
    pub(crate) fn one_time_seq(&self, peer: &DeviceId) -> Option<u64> {
        self.peers.get(peer)?.one_time().map(|bundle| bundle.seq)
    }

    /// Whether one more peer can be known.
    pub fn has_room(&self) -> bool {
        self.peers.len() < MAX_PEERS
    }

    /// Whether there is no session with the peer, and nothing on its way to it.
    pub fn is_idle(&self, peer: &DeviceId) -> bool {
        self.peers.get(peer).is_none_or(|peer| peer.sessions.is_empty() && peer.pending.is_empty())
    }

    /// Forgets the keys of a peer that [is idle](Self::is_idle), with the key of the conversation with it.
    pub fn forget(&mut self, peer: &DeviceId) {
        if self.is_idle(peer) && self.peers.remove(peer).is_some() {
            let (mut rows, name) = (Vec::new(), conversation(*peer));
            self.vault.delete(&mut rows, RowKind::Peer, &name, b"");
            self.vault.destroy(&mut rows, &name);
            self.commit(rows, []);
        }
    }

    /// Seals a message and stores it; it is sent when the batch is on disk. [`Reject::Full`] while 32 messages wait for acknowledgement.
    pub fn handle_send(&mut self, to: DeviceId, id: MessageId, kind: Kind, body: &[u8]) -> Result<(), Reject> {
        self.check_running()?;
        self.check_peer(to)?;
        if body.len() > MAX_BODY {
            return Err(Reject::TooLong);
        }
        let peer = self.peers.get_mut(&to).ok_or(Reject::UnknownDevice)?;
        if peer.pending.iter().any(|pending| pending.id == id) {
            return Err(Reject::Duplicate);
        }
        peer.check_room()?;
        let mut rows = Vec::new();
        self.start_if_needed(to)?;
        let send = self.seal_new(&mut rows, to, id, kind, body)?;
        self.save_peer(&mut rows, to);
        self.commit(rows, [send]);
        Ok(())
    }

    /// Whether [`Self::handle_send`] would find the window full.
    pub fn has_window(&mut self, to: &DeviceId) -> bool {
        self.peers.get_mut(to).is_none_or(|peer| peer.check_room().is_ok())
    }

    /// How much of the window is used: frames that are not acknowledged, and the places that the oldest of them holds up.
    pub fn used_window(&self, to: &DeviceId) -> usize {
        self.peers.get(to).map_or(0, |peer| peer.used_window())
    }

    /// Sends a message again that was not acknowledged: the same bytes, or sealed anew where the recipient may have lost their key.
    pub fn handle_resend(&mut self, to: DeviceId, id: MessageId) -> Result<(), Reject> {
        self.check_running()?;
        self.check_peer(to)?;
        let peer = self.peers.get_mut(&to).ok_or(Reject::UnknownDevice)?;
        let at = peer.pending.iter().position(|pending| pending.id == id).ok_or(Reject::Expired)?;
        if peer.is_stale(at) {
            self.start_if_needed(to)?;
            let send = self.seal_anew(to, at)?;
            let mut rows = Vec::new();
            self.save_peer(&mut rows, to);
            self.commit(rows, [send]);
        } else if let Some(pending) = peer.pending.get_mut(at) {
            pending.sendings = pending.sendings.saturating_add(1);
            let bytes = pending.sealed.as_ref().map(|sealed| sealed.wire.clone()).unwrap_or_default();
            self.commit(Vec::new(), [Output::Send { to, id: Some(id), bytes }]);
        }
        Ok(())
    }

    /// Sends the same bytes again, however often: somebody keeps them for the recipient, whose keys have not moved on.
    pub fn handle_repeat(&mut self, to: DeviceId, id: MessageId) -> Result<(), Reject> {
        let pending = self.peers.get_mut(&to).map(|peer| &mut peer.pending).into_iter().flatten();
        pending.filter(|pending| pending.id == id).for_each(|pending| pending.sendings = 1);
        self.handle_resend(to, id)
    }

    /// The messages that a peer has not acknowledged, in the order of sending. After a restart, one that is not among them was acknowledged
    /// or given up: an [`Output::Acknowledged`] is not repeated.
    pub fn pending(&self, to: &DeviceId) -> Vec<MessageId> {
        self.peers.get(to).map_or_else(Vec::new, |peer| peer.pending.iter().map(|pending| pending.id).collect())
    }

    /// What a message carries that a peer has not acknowledged.
    pub fn body(&self, to: &DeviceId, id: MessageId) -> Option<(Kind, &[u8])> {
        let pending = self.peers.get(to)?.pending.iter().find(|pending| pending.id == id)?;
        Some((pending.kind, &pending.body))
    }

    /// Gives a message up: it is not sent again, and its place in the window is free.
    pub fn handle_give_up(&mut self, to: DeviceId, id: MessageId) -> Result<(), Reject> {
        self.check_running()?;
        let peer = self.peers.get_mut(&to).ok_or(Reject::UnknownDevice)?;
        let at = peer.pending.iter().position(|pending| pending.id == id).ok_or(Reject::Expired)?;
        peer.pending.remove(at);
        let mut rows = Vec::new();
        self.vault.delete(&mut rows, RowKind::Outbox, &conversation(to), &id.0);
        self.commit(rows, []);
        Ok(())
    }

    /// The store has batch `batch` on disk.
    pub fn handle_persisted(&mut self, batch: u64) {
        if self.waiting == Some(batch) {
            self.waiting = None;
        }
    }

    /// The store failed: nothing leaves this device any more, and nothing is taken. Only a restart from what is stored helps.
    pub fn handle_store_failed(&mut self) {
        self.failed = true;
        self.held.clear();
        self.came.clear();
        self.released.clear();
    }

    /// Sends acknowledgements whose time has come, and replaces the fallback key when it is old.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.check_running().is_err() {
            return;
        }
        if now.unix.as_secs() >= self.rotate_at {
            self.rotate_fallback(now);
        }
        let due = |peer: &Peer| peer.ack_at.is_some_and(|at| at <= now.mono);
        let due: Vec<_> = self.peers.iter().filter(|(_, peer)| due(peer)).map(|(id, _)| *id).collect();
        for id in due {
            // A session that cannot seal keeps its acknowledgements; the peer asks again by sending again.
            let _outcome = self.send_acks(id);
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(|peer| peer.ack_at).min()
    }

    /// When the fallback key is to be replaced.
    pub fn rotates_at(&self) -> UnixMillis {
        UnixMillis(self.rotate_at.saturating_mul(1000))
    }

    /// The next thing to do; `None` while a batch is on its way to the disk. What happens meanwhile goes into the next batch.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.waiting.is_some() || self.failed {
            return None;
        }
        if self.released.is_empty() {
            std::mem::swap(&mut self.released, &mut self.held);
            for (peer, session) in std::mem::take(&mut self.dirty) {
                self.seal_session(peer, &session);
            }
            for peer in std::mem::take(&mut self.dirty_seen) {
                self.seal_seen(peer);
            }
            if !self.rows.is_empty() {
                let (batch, rows) = (self.next_batch, std::mem::take(&mut self.rows));
                self.next_batch += 1;
                self.waiting = Some(batch);
                return Some(Output::Persist { batch, rows, came: std::mem::take(&mut self.came) });
            }
        }
        self.released.pop_front()
    }

    fn seal_session(&mut self, peer: DeviceId, session: &str) {
        let slot = self.peers.get_mut(&peer).and_then(|peer| peer.sessions.get_mut(session));
        let Some(slot) = slot else { return };
        let text = slot.save();
        self.vault.put(&mut self.rows, RowKind::Session, &conversation(peer), session.as_bytes(), &text);
    }

    fn seal_seen(&mut self, id: DeviceId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (changed, gone) = peer.seen.unsaved();
        for (group, bytes) in changed {
            self.vault.put(&mut self.rows, RowKind::Seen, &conversation(id), &group.to_be_bytes(), &bytes);
        }
        for group in gone {
            self.vault.delete(&mut self.rows, RowKind::Seen, &conversation(id), &group.to_be_bytes());
        }
    }

    pub(super) fn check_running(&self) -> Result<(), Reject> {
        if self.failed {
            Err(Reject::StoreFailed)
        } else if self.held.len() + self.came.len() >= MAX_OUTPUTS || self.rows.len() >= MAX_ROWS {
            Err(Reject::Full)
        } else {
            Ok(())
        }
    }

    pub(super) fn check_peer(&self, peer: DeviceId) -> Result<(), Reject> {
        if self.blocked.contains(&peer) {
            Err(Reject::Blocked)
        } else if peer == self.id {
            Err(Reject::WrongBinding)
        } else {
            Ok(())
        }
    }

    /// These rows are written before any of these outputs comes out.
    pub(super) fn commit(&mut self, rows: Vec<Row>, then: impl IntoIterator<Item = Output>) {
        self.rows.extend(rows);
        self.held.extend(then);
    }

    /// The session is written with the next batch, as it then is.
    pub(super) fn touch(&mut self, peer: DeviceId, session: &str) {
        self.dirty.insert((peer, session.to_owned()));
    }

    fn rotate_fallback(&mut self, now: Now) {
        self.account.generate_fallback_key();
        let made = self.account.fallback_key().into_values().next();
        self.account.mark_keys_as_published();
        let Some(key) = made else { return };
        let lifetime = FALLBACK_LIFETIME.as_secs();
        self.rotate_at = now.unix.as_secs().saturating_add(lifetime);
        let expires = self.rotate_at.saturating_add(lifetime);
        let kind = PreKeyKind::Fallback;
        self.fallback = Bundle { pre_key: key.to_bytes(), kind, seq: self.next_seq, expires, ..self.fallback };
        self.next_seq += 1;
        let mut rows = Vec::new();
        self.save_account(&mut rows);
        self.commit(rows, []);
    }

    /// Starts a session with a peer that there is none with.
    fn start_if_needed(&mut self, to: DeviceId) -> Result<(), Reject> {
        let peer = self.peers.get_mut(&to).ok_or(Reject::UnknownDevice)?;
        if peer.sessions.preferred().is_some() {
            return Ok(());
        }
        self.start(to).map(|_| ())
    }

    /// Starts a session of the next generation; the id of the one that had to go for it.
    pub(super) fn start(&mut self, to: DeviceId) -> Result<Option<String>, Reject> {
        let peer = self.peers.get_mut(&to).ok_or(Reject::UnknownDevice)?;
        let bundle = peer.take_pre_key().ok_or(Reject::NoKey)?;
        let identity = Curve25519PublicKey::from_bytes(bundle.identity);
        let pre_key = Curve25519PublicKey::from_bytes(bundle.pre_key);
        let session = self.account.create_outbound_session(SessionConfig::version_2(), identity, pre_key);
        let generation = peer.sessions.started.next();
        Ok(peer.sessions.add(Slot::outbound(session.map_err(|_| Reject::BadKey)?, generation)))
    }

    /// Seals and stores a new message.
    pub(super) fn seal_new(
        &mut self,
        rows: &mut Vec<Row>,
        to: DeviceId,
        id: MessageId,
        kind: Kind,
        body: &[u8],
    ) -> Result<Output, Reject> {
        let sealed = self.seal(to, id, kind, body)?;
        let bytes = sealed.wire.clone();
        let peer = self.peers.get_mut(&to).ok_or(Reject::UnknownDevice)?;
        let number = peer.next_number;
        peer.next_number += 1;
        let pending = Pending { number, id, kind, body: body.to_vec(), sealed: Some(sealed), sendings: 1 };
        pending.save(&mut self.vault, rows, &conversation(to));
        peer.pending.push(pending);
        Ok(Output::Send { to, id: Some(id), bytes })
    }

    /// Seals the message at `at` once more, under a new key.
    pub(super) fn seal_anew(&mut self, to: DeviceId, at: usize) -> Result<Output, Reject> {
        let peer = self.peers.get_mut(&to).ok_or(Reject::UnknownDevice)?;
        let pending = peer.pending.get(at).ok_or(Reject::Expired)?;
        let (id, kind, body) = (pending.id, pending.kind, Zeroizing::new(pending.body.clone()));
        let sealed = self.seal(to, id, kind, &body)?;
        let bytes = sealed.wire.clone();
        let peer = self.peers.get_mut(&to).ok_or(Reject::UnknownDevice)?;
        let pending = peer.pending.get_mut(at).ok_or(Reject::Expired)?;
        pending.sealed = Some(sealed);
        pending.sendings = pending.sendings.saturating_add(1);
        Ok(Output::Send { to, id: Some(id), bytes })
    }

    fn seal(&mut self, to: DeviceId, id: MessageId, kind: Kind, body: &[u8]) -> Result<Sealed, Reject> {
        let Self { peers, fallback, network, signing, id: from, dirty, .. } = self;
        let peer = peers.get_mut(&to).ok_or(Reject::UnknownDevice)?;
        let told = peer.told();
        let slot = peer.sessions.preferred().ok_or(Reject::UnknownDevice)?;
        let tells = slot.needs_bundle() || told.is_none_or(|seq| seq < fallback.seq);
        let bundle = tells.then(|| fallback.sign(network, signing));
        let acks = std::mem::take(&mut peer.acks);
        peer.ack_at = None;
        let (from, generation) = (*from, slot.generation);
        let frame = Frame { kind, from, to, generation, id, acks, bundle: bundle.as_deref(), body }.encode();
        let (wire, place) = slot.encrypt(&frame)?;
        dirty.insert((to, slot.id.clone()));
        Ok(Sealed { wire, place, tells: tells.then_some(fallback.seq) })
    }

    pub(super) fn send_acks(&mut self, to: DeviceId) -> Result<(), Reject> {
        let id = MessageId(self.vault.random());
        let bytes = self.seal(to, id, Kind::Ack, b"")?.wire;
        self.commit(Vec::new(), [Output::Send { to, id: None, bytes }]);
        Ok(())
    }

    pub(super) fn save_account(&mut self, rows: &mut Vec<Row>) {
        let saved = SavedAccount {
            account: self.account.pickle(),
            fallback: self.fallback,
            rotate_at: self.rotate_at,
            next_seq: self.next_seq,
        };
        let text = Zeroizing::new(serde_json::to_vec(&saved).unwrap_or_default());
        self.vault.put(rows, RowKind::Account, ACCOUNT, b"", &text);
    }

    pub(super) fn save_peer(&mut self, rows: &mut Vec<Row>, id: DeviceId) {
        let Some(text) = self.peers.get_mut(&id).and_then(Peer::unsaved) else { return };
        self.vault.put(rows, RowKind::Peer, &conversation(id), b"", &text);
    }

    /// What was seen of a peer is written with the next batch.
    pub(super) fn touch_seen(&mut self, peer: DeviceId) {
        self.dirty_seen.insert(peer);
    }

    pub(super) fn verify_bundle(&self, bytes: &[u8], now: Now) -> Result<Bundle, Reject> {
        Bundle::verify(bytes, &self.network, now.unix)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<(OlmMessage, [u8; 16]), Reject> {
        if bytes.len() > MAX_WIRE {
            return Err(Reject::TooLong);
        }
        Ok((from_wire(bytes)?, digest(bytes)))
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("id", &self.id).field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}

/// The name of the conversation with a peer in the vault.
pub(super) fn conversation(peer: DeviceId) -> Vec<u8> {
    [b"direct ".as_slice(), &peer.0].concat()
}
