//! What a device does with a message that came, and how a broken conversation heals.
//!
//! When no session opens a message of a peer, this side starts a new session from the peer's signed fallback key, of a generation above all
//! others, whose first message says so. The peer then seals all that is on its way anew, under that session. The same happens here as soon as
//! the peer answers in it. Nothing is lost, because messages are kept until they are acknowledged; nothing comes twice, because ids are
//! remembered. Healings wait longer each time, so that garbage in a peer's name cannot make two devices start sessions without end.

use fog_base::{MessageId, Now};
use vodozemac::{
    Curve25519PublicKey,
    olm::{OlmMessage, PreKeyMessage, SessionConfig},
};
use zeroize::Zeroizing;

use super::{
    bundle::{Bundle, DeviceId},
    device::{ACK_DELAY, Came, Device, MAX_PEERS, Output, Report, conversation},
    frame::{Frame, Kind, MAX_ACKS},
    peer::{Peer, Sealed},
    reject::Reject,
    sessions::Slot,
    vault::{Row, RowKind},
};

/// A message that a session opened.
struct Opened {
    text: Zeroizing<Vec<u8>>,
    session: String,
    /// It began the session, which is not yet among the peer's.
    began: Option<Slot>,
}

impl Device {
    /// Takes the bytes of a [`Output::Send`] of `from`. Who sent them need not be proved: a session that opens them proves it.
    pub fn handle_message(&mut self, from: DeviceId, bytes: &[u8], now: Now) -> Result<(), Reject> {
        self.check_running()?;
        self.check_peer(from)?;
        let (message, digest) = Self::parse(bytes)?;
        if let Some(peer) = self.peers.get_mut(&from)
            && let Some(id) = peer.seen.by_digest(&digest)
        {
            peer.acknowledge(id, now.mono + ACK_DELAY);
            return Err(Reject::Replayed);
        }
        let keys_before = self.account.stored_one_time_key_count();
        let opened = match self.open(from, &message) {
            Err(Reject::Undecryptable) => {
                self.heal(from, now);
                return Err(Reject::Undecryptable);
            }
            other => other?,
        };
        let mut rows = Vec::new();
        let is_key_used = self.account.stored_one_time_key_count() != keys_before;
        if is_key_used {
            self.save_account(&mut rows);
        }
        let taken = self.take(&mut rows, from, opened, digest, now);
        // A refused message may have used up a one-time key: that much is stored.
        let (outputs, refused) = match taken {
            Ok(outputs) => (outputs, Ok(())),
            Err(reject) => (Vec::new(), Err(reject)),
        };
        self.commit(rows, outputs);
        if is_key_used {
            self.commit(Vec::new(), [Output::Report(Report::KeyUsed(from))]);
        }
        refused
    }

    /// Opens a message with a session that exists, or with the one that it begins.
    fn open(&mut self, from: DeviceId, message: &OlmMessage) -> Result<Opened, Reject> {
        if let OlmMessage::PreKey(first) = message
            && !self.peers.get(&from).is_some_and(|peer| peer.sessions.contains(&first.session_id()))
        {
            return self.begin(from, first);
        }
        let peer = self.peers.get_mut(&from).ok_or(Reject::UnknownDevice)?;
        let (text, session) = peer.sessions.decrypt(message)?;
        Ok(Opened { text, session, began: None })
    }

    /// A session that a pre-key message begins.
    fn begin(&mut self, from: DeviceId, first: &PreKeyMessage) -> Result<Opened, Reject> {
        let known = self.peers.get(&from);
        let identity = known.map_or(first.identity_key(), |peer| Curve25519PublicKey::from_bytes(peer.identity()));
        let made = self.account.create_inbound_session(SessionConfig::version_2(), identity, first);
        // Keys that are gone, or not the peer's: the peer holds an old bundle. Healing brings it the new one.
        let made = made.map_err(|_| if known.is_some() { Reject::Undecryptable } else { Reject::UnknownDevice })?;
        let text = Zeroizing::new(made.plaintext);
        let generation = Frame::parse(&text)?.generation;
        let slot = Slot::inbound(made.session, generation, first);
        Ok(Opened { text, session: slot.id.clone(), began: Some(slot) })
    }

    /// Checks what a message is bound to, and takes what it carries. Nothing of the peer has changed when this refuses, but for the ratchet
    /// that opened the message.
    fn take(
        &mut self,
        rows: &mut Vec<Row>,
        from: DeviceId,
        opened: Opened,
        digest: [u8; 16],
        now: Now,
    ) -> Result<Vec<Output>, Reject> {
        let Opened { text, session, began } = opened;
        let frame = Frame::parse(&text)?;
        if frame.from != from || frame.to != self.id {
            return Err(Reject::WrongBinding);
        }
        let bundle = frame.bundle.map(|bytes| self.verify_bundle(bytes, now)).transpose()?;
        let mut outputs = Vec::new();
        if let Some(slot) = began {
            if self.meet(from, bundle.as_ref(), &slot)? {
                outputs.push(Output::Report(Report::NewPeer(from)));
            }
            let peer = self.peers.get_mut(&from).ok_or(Reject::UnknownDevice)?;
            if let Some(gone) = peer.sessions.add(slot) {
                self.vault.delete(rows, RowKind::Session, &conversation(from), gone.as_bytes());
            }
        }
        let peer = self.peers.get_mut(&from).ok_or(Reject::UnknownDevice)?;
        if let Some(bundle) = bundle {
            peer.renew(bundle)?;
        }
        if peer.opened() || frame.kind == Kind::Heal {
            outputs.push(Output::Report(Report::Healed(from)));
        }
        outputs.extend(self.take_acks(rows, from, &frame.acks));
        self.take_body(from, &frame, digest, now);
        self.save_peer(rows, from);
        self.touch(from, &session);
        outputs.extend(self.move_to_preferred(from, &session));
        Ok(outputs)
    }

    /// Checks that a peer may begin this session; true if the peer was a stranger.
    fn meet(&mut self, from: DeviceId, bundle: Option<&Bundle>, slot: &Slot) -> Result<bool, Reject> {
        if let Some(peer) = self.peers.get(&from) {
            return if peer.sessions.started.may_start(slot.generation) { Ok(false) } else { Err(Reject::Replayed) };
        }
        let bundle = bundle.ok_or(Reject::UnknownDevice)?;
        if bundle.device != from || bundle.identity != slot.peer_identity() {
            return Err(Reject::WrongBinding);
        }
        if self.peers.len() >= MAX_PEERS {
            return Err(Reject::Full);
        }
        self.peers.insert(from, Peer::new(*bundle, self.id));
        Ok(true)
    }

    fn take_acks(&mut self, rows: &mut Vec<Row>, from: DeviceId, acks: &[MessageId]) -> Vec<Output> {
        let Some(peer) = self.peers.get_mut(&from) else { return Vec::new() };
        let mut outputs = Vec::new();
        for id in acks {
            let Some(at) = peer.pending.iter().position(|pending| pending.id == *id) else { continue };
            let pending = peer.pending.remove(at);
            peer.was_told(pending.sealed.as_ref().and_then(|sealed| sealed.tells));
            self.vault.delete(rows, RowKind::Outbox, &conversation(from), &id.0);
            if pending.kind != Kind::Heal {
                outputs.push(Output::Acknowledged { to: from, id: *id });
            }
        }
        outputs
    }

    fn take_body(&mut self, from: DeviceId, frame: &Frame<'_>, digest: [u8; 16], now: Now) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let again = peer.seen.contains(&frame.id);
        peer.seen.insert(digest, frame.id);
        if frame.kind != Kind::Ack {
            let full = peer.acks.len() + 1 >= MAX_ACKS / 2;
            peer.acknowledge(frame.id, if full { now.mono } else { now.mono + ACK_DELAY });
        }
        self.touch_seen(from);
        if !again && matches!(frame.kind, Kind::Data | Kind::GroupKey) {
            let body = Zeroizing::new(frame.body.to_vec());
            self.came.push(Came { from, id: frame.id, kind: frame.kind, body });
        }
    }

    /// If the peer used the session that we write with, and it replaced an older one: what was sealed for the older one is sealed anew.
    fn move_to_preferred(&mut self, from: DeviceId, session: &str) -> Vec<Output> {
        let Some(peer) = self.peers.get_mut(&from) else { return Vec::new() };
        let generation = peer.sessions.generation();
        if peer.sessions.get(session).map(|slot| slot.generation) != generation {
            return Vec::new();
        }
        let older = |sealed: &Sealed| {
            peer.sessions.get(&sealed.place.session).is_none_or(|slot| Some(slot.generation) < generation)
        };
        let stale: Vec<_> = (0..peer.pending.len())
            .filter(|at| peer.pending.get(*at).and_then(|pending| pending.sealed.as_ref()).is_some_and(older))
            .collect();
        stale.into_iter().filter_map(|at| self.seal_anew(from, at).ok()).collect()
    }

    /// Starts a new session with a peer whose message no session opens.
    fn heal(&mut self, from: DeviceId, now: Now) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let news = !peer.broken;
        peer.broken = true;
        if !peer.may_heal(now.mono) {
            if news && peer.needs_invite() {
                self.commit(Vec::new(), [Output::Report(Report::NeedsInvite(from))]);
            }
            return;
        }
        // A healing that was not acknowledged is superseded.
        let mut rows = Vec::new();
        let superseded = peer.pending.iter().position(|pending| pending.kind == Kind::Heal);
        if let Some(old) = superseded.map(|at| peer.pending.remove(at)) {
            self.vault.delete(&mut rows, RowKind::Outbox, &conversation(from), &old.id.0);
        }
        let id = MessageId(self.vault.random());
        let Ok(gone) = self.start(from) else { return };
        if let Some(gone) = gone {
            self.vault.delete(&mut rows, RowKind::Session, &conversation(from), gone.as_bytes());
        }
        let Ok(send) = self.seal_new(&mut rows, from, id, Kind::Heal, b"") else { return };
        self.save_peer(&mut rows, from);
        let report = news.then_some(Output::Report(Report::Desynced(from)));
        self.commit(rows, report.into_iter().chain([send]));
    }
}
