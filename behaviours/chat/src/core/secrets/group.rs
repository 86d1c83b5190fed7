//! Groups: Megolm sender keys. Each member writes with a session of its own, and tells its key to the members by Olm.
//!
//! A sending session belongs to one set of members, to at most 100 messages and to a day; then a new one begins. Who joins later gets the key of
//! a later session and so reads nothing older; who was removed gets no key of a session that began after the author knew of the removal. Megolm
//! does not heal by itself: a stolen sending key reads on until the session is replaced, which is why sessions are short.
//!
//! Body: `2 ‖ session key id (32) ‖ Megolm message`. Inside the message: `version 1 ‖ BLAKE3 of the envelope's header (32) ‖ text`; the header
//! names group, author and place in the history, so that a body cannot be moved to another envelope.
//!
//! Key share, the body of an Olm frame of kind GroupKey: `version 1 ‖ group id (32) ‖ members digest (32) ‖ began at, Unix ms (8) ‖ Megolm session
//! key (229 bytes, version 2 of Megolm's own format)`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fog_base::UnixMillis;
use serde::{Deserialize, Serialize};
use vodozemac::megolm::{
    ExportedSessionKey, GroupSession, GroupSessionPickle, InboundGroupSession, MegolmMessage, SessionConfig, SessionKey,
};
use zeroize::Zeroizing;

use super::{
    bundle::DeviceId,
    reject::Reject,
    room::Mode,
    vault::{Opened, Row, RowKind, Vault},
};
use crate::core::signature::{Claim, KeyCache, SIGNATURE};

/// Messages of one session.
pub const MAX_MESSAGES: u32 = 100;
/// How long a session writes.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long a session reads after it began: longer than anything travels.
pub const KEEP: Duration = Duration::from_secs(14 * 24 * 3600);
/// Reading sessions that are kept of one author, and of one group.
pub const MAX_RECEIVERS: (usize, usize) = (32, 8192);
/// Clocks may differ by this much.
const SKEW: Duration = Duration::from_secs(3600);

const VERSION: u8 = 1;
const PREFIX: usize = 1 + 32;
/// Bytes of a Megolm message's authenticator, which stands before its signature.
const MAC: usize = 32;

/// The id of a group, as [`crate::core::membership::GroupId`] has it.
pub type Group = [u8; 32];

/// The session that we write with, if there is one.
struct Sender {
    session: GroupSession,
    members: [u8; 32],
    began: UnixMillis,
}

/// A session that we read with.
struct Receiver {
    session: InboundGroupSession,
    members: [u8; 32],
    began: UnixMillis,
    /// Which messages were opened: bit n for message n.
    opened: u128,
}

impl Receiver {
    fn check_new(&self, index: u32) -> Result<(), Reject> {
        if self.opened.checked_shr(index).is_some_and(|bits| bits & 1 == 1) { Err(Reject::Replayed) } else { Ok(()) }
    }

    /// From its row: `author (32) ‖ members digest (32) ‖ began, Unix ms (8) ‖ opened (16) ‖ session key as Megolm exports it (165)`, at the
    /// first index that is not destroyed.
    fn restore(row: &[u8]) -> Option<(DeviceId, Self)> {
        let (author, rest) = row.split_first_chunk::<32>()?;
        let (members, rest) = rest.split_first_chunk::<32>()?;
        let (began, rest) = rest.split_first_chunk::<8>()?;
        let (opened, key) = rest.split_first_chunk::<16>()?;
        let key = ExportedSessionKey::from_bytes(key).ok()?;
        let session = InboundGroupSession::import(&key, SessionConfig::version_2());
        let (began, opened) = (UnixMillis(u64::from_be_bytes(*began)), u128::from_be_bytes(*opened));
        Some((DeviceId(*author), Self { session, members: *members, began, opened }))
    }
}

#[derive(Serialize, Deserialize)]
struct SavedSender {
    session: GroupSessionPickle,
    members: [u8; 32],
    began: u64,
}

/// What was written to a group.
#[derive(Debug)]
pub struct Written {
    /// The body of the envelope. It leaves only when the batch with the rows that came with it is on disk.
    pub body: Vec<u8>,
}

/// A body that opened. Whoever has the session's key can have sealed it: it counts when `claim` holds.
#[derive(Debug)]
pub struct Unsealed {
    /// The plaintext.
    pub text: Zeroizing<Vec<u8>>,
    /// The signature of the session.
    pub claim: Claim,
    session: SessionName,
    index: u32,
}

/// A session: its Ed25519 key, and the device that told us of it.
type SessionName = ([u8; 32], DeviceId);

/// The keys of one group.
pub struct GroupKeys {
    group: Group,
    sender: Option<Sender>,
    receivers: BTreeMap<SessionName, Receiver>,
    /// Those whose rows are older than they.
    unsaved: BTreeSet<SessionName>,
}

impl GroupKeys {
    /// No keys yet.
    pub fn new(group: Group) -> Self {
        Self { group, sender: None, receivers: BTreeMap::new(), unsaved: BTreeSet::new() }
    }

    /// The keys that are stored of a group, from the rows that [`super::Device::restore`] gives back. Rows of other groups are left.
    pub fn restore(group: Group, rows: &[Opened]) -> Self {
        let mut keys = Self::new(group);
        for row in rows.iter().filter(|row| row.conversation == conversation(group)) {
            keys.take_row(row);
        }
        keys
    }

    fn take_row(&mut self, row: &Opened) -> Option<()> {
        if row.kind == RowKind::GroupSender {
            let saved: SavedSender = serde_json::from_slice(&row.value).ok()?;
            let session = GroupSession::from_pickle(saved.session);
            self.sender = Some(Sender { session, members: saved.members, began: UnixMillis(saved.began) });
        } else {
            let (author, receiver) = Receiver::restore(&row.value)?;
            let id = session_id(&receiver.session.session_id())?;
            self.receivers.insert((id, author), receiver);
        }
        Some(())
    }

    /// Whether the next message needs [`Self::begin`] first: there is no session, or it is of other members, used up, or old.
    pub fn needs_begin(&self, members: &[u8; 32], now: UnixMillis) -> bool {
        self.sender.as_ref().is_none_or(|sender| {
            sender.members != *members
                || sender.session.message_index() >= MAX_MESSAGES
                || now.since(sender.began) >= MAX_AGE
                || now < sender.began.minus(SKEW)
        })
    }

    /// Begins a session for the members of this digest: the key share to send to each of them, as the body of [`super::Kind::GroupKey`].
    /// The old session is destroyed in the same batch.
    pub fn begin(&mut self, vault: &mut Vault, rows: &mut Vec<Row>, members: [u8; 32], now: UnixMillis) -> Vec<u8> {
        let session = GroupSession::new(SessionConfig::version_2());
        let share = share(&self.group, &members, now, &session.session_key());
        self.sender = Some(Sender { session, members, began: now });
        self.save_sender(vault, rows);
        share
    }

    /// The key share for a member that lost it: from the next message on.
    pub fn share_again(&self) -> Option<Vec<u8>> {
        let sender = self.sender.as_ref()?;
        Some(share(&self.group, &sender.members, sender.began, &sender.session.session_key()))
    }

    /// Seals a message, bound to the envelope's header. [`Reject::NoKey`] if [`Self::needs_begin`].
    pub fn seal(
        &mut self,
        vault: &mut Vault,
        rows: &mut Vec<Row>,
        members: &[u8; 32],
        now: UnixMillis,
        header: &[u8],
        text: &[u8],
    ) -> Result<Written, Reject> {
        if self.needs_begin(members, now) {
            return Err(Reject::NoKey);
        }
        let sender = self.sender.as_mut().ok_or(Reject::NoKey)?;
        let mut plain = Zeroizing::new(Vec::with_capacity(PREFIX + text.len()));
        plain.push(VERSION);
        plain.extend_from_slice(blake3::hash(header).as_bytes());
        plain.extend_from_slice(text);
        let id = session_id(&sender.session.session_id()).ok_or(Reject::BadKey)?;
        let mut body = vec![Mode::Group as u8];
        body.extend_from_slice(&id);
        body.extend_from_slice(&sender.session.encrypt(plain.as_slice()).to_bytes());
        self.save_sender(vault, rows);
        Ok(Written { body })
    }

    /// Takes a key share that came by Olm from `author`. The caller has checked that `author` is or was a member.
    pub fn handle_share(
        &mut self,
        vault: &mut Vault,
        rows: &mut Vec<Row>,
        author: DeviceId,
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<(), Reject> {
        let share = Share::parse(bytes).ok_or(Reject::Malformed)?;
        if share.group != self.group {
            return Err(Reject::WrongBinding);
        }
        if share.began > now.plus(SKEW) || now.since(share.began) >= KEEP {
            return Err(Reject::Expired);
        }
        let key = SessionKey::from_bytes(share.key).map_err(|_| Reject::BadKey)?;
        let session = InboundGroupSession::new(&key, SessionConfig::version_2());
        let id = session_id(&session.session_id()).ok_or(Reject::BadKey)?;
        if self.receivers.contains_key(&(id, author)) {
            return Err(Reject::Duplicate);
        }
        self.expire(vault, rows, now);
        self.make_room(vault, rows, author)?;
        let receiver = Receiver { session, members: share.members, began: share.began, opened: 0 };
        self.receivers.insert((id, author), receiver);
        self.unsaved.insert((id, author));
        self.save(vault, rows);
        Ok(())
    }

    /// Opens a body as one of `author`, and changes nothing. [`Reject::NoKey`] if the key share has not come: the message waits for it.
    pub fn unseal(
        &mut self,
        keys: &mut KeyCache,
        author: DeviceId,
        header: &[u8],
        body: &[u8],
    ) -> Result<Unsealed, Reject> {
        let (&mode, rest) = body.split_first().ok_or(Reject::Malformed)?;
        if mode != Mode::Group as u8 {
            return Err(Reject::WrongMode);
        }
        let (id, bytes) = rest.split_first_chunk::<32>().ok_or(Reject::Malformed)?;
        let session = (*id, author);
        let receiver = self.receivers.get_mut(&session).ok_or(Reject::NoKey)?;
        let message = MegolmMessage::from_bytes(bytes).map_err(|_| Reject::Malformed)?;
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE>().ok_or(Reject::Malformed)?;
        let (authentic, mac) = signed.split_last_chunk::<MAC>().ok_or(Reject::Malformed)?;
        let index = message.message_index();
        if index >= MAX_MESSAGES || message.mac() != mac {
            return Err(Reject::Malformed);
        }
        receiver.check_new(index)?;
        let claim = keys.claim(id, signed, signature).ok_or(Reject::BadSignature)?;
        // An export is kept by the session; from its cipher alone one cannot go on.
        let key = receiver.session.export_at(index).ok_or(Reject::KeyGone)?;
        let at = InboundGroupSession::import(&key, SessionConfig::version_2());
        let cipher = at.get_cipher_at(index).ok_or(Reject::KeyGone)?;
        // The whole authenticator, in constant time: the other function takes a type that cannot be made.
        cipher.verify_truncated_mac(authentic, mac).map_err(|_| Reject::Undecryptable)?;
        let plain = Zeroizing::new(cipher.decrypt(message.ciphertext()).map_err(|_| Reject::Undecryptable)?);
        let (&version, rest) = plain.split_first().ok_or(Reject::Malformed)?;
        let (bound, text) = rest.split_first_chunk::<32>().ok_or(Reject::Malformed)?;
        if version != VERSION || bound != blake3::hash(header).as_bytes() {
            return Err(Reject::WrongBinding);
        }
        Ok(Unsealed { text: Zeroizing::new(text.to_vec()), claim, session, index })
    }

    /// Takes a body whose signature holds: it opens no more. Then [`Self::save`], in one batch with what the text leads to.
    pub fn take(&mut self, unsealed: &Unsealed) -> Result<(), Reject> {
        let receiver = self.receivers.get_mut(&unsealed.session).ok_or(Reject::NoKey)?;
        receiver.check_new(unsealed.index)?;
        receiver.opened |= 1 << unsealed.index;
        // What was opened in one row from the beginning needs no key any more.
        receiver.session.advance_to(receiver.opened.trailing_ones());
        self.unsaved.insert(unsealed.session);
        Ok(())
    }

    /// Stores the sessions that changed.
    pub fn save(&mut self, vault: &mut Vault, rows: &mut Vec<Row>) {
        for (id, author) in std::mem::take(&mut self.unsaved) {
            if let Some(receiver) = self.receivers.get(&(id, author)) {
                self.save_receiver(vault, rows, author, &id, receiver);
            }
        }
    }

    /// Who told us of the session in which a body was written: its author, and whoever claims to be.
    pub fn authors_of(&self, body: &[u8]) -> Vec<DeviceId> {
        let Some(id) = body.get(1..).and_then(|rest| rest.first_chunk::<32>()) else { return Vec::new() };
        let of_session = (*id, DeviceId([0; 32]))..=(*id, DeviceId([0xff; 32]));
        self.receivers.range(of_session).map(|((_, author), _)| *author).collect()
    }

    /// Writes with the present session no more: the next message needs [`Self::begin`].
    pub fn forget_sender(&mut self) {
        self.sender = None;
    }

    /// Destroys the keys of sessions that began longer ago than anything travels.
    pub fn expire(&mut self, vault: &Vault, rows: &mut Vec<Row>, now: UnixMillis) {
        let conversation = conversation(self.group);
        self.receivers.retain(|(id, author), receiver| {
            let keep = now.since(receiver.began) < KEEP;
            if !keep {
                vault.delete(rows, RowKind::GroupReceiver, &conversation, &item(*author, id));
            }
            keep
        });
    }

    /// Room for one more session of `author`: its oldest goes if it has too many.
    fn make_room(&mut self, vault: &Vault, rows: &mut Vec<Row>, author: DeviceId) -> Result<(), Reject> {
        let of_author = || self.receivers.iter().filter(|((_, of), _)| *of == author);
        if of_author().count() >= MAX_RECEIVERS.0 {
            let oldest = of_author().min_by_key(|(_, receiver)| receiver.began).map(|(name, _)| *name);
            if let Some((id, author)) = oldest {
                self.receivers.remove(&(id, author));
                vault.delete(rows, RowKind::GroupReceiver, &conversation(self.group), &item(author, &id));
            }
        } else if self.receivers.len() >= MAX_RECEIVERS.1 {
            return Err(Reject::Full);
        }
        Ok(())
    }

    fn save_sender(&self, vault: &mut Vault, rows: &mut Vec<Row>) {
        let Some(sender) = &self.sender else { return };
        let saved = SavedSender { session: sender.session.pickle(), members: sender.members, began: sender.began.0 };
        let text = Zeroizing::new(serde_json::to_vec(&saved).unwrap_or_default());
        vault.put(rows, RowKind::GroupSender, &conversation(self.group), b"", &text);
    }

    fn save_receiver(&self, vault: &mut Vault, rows: &mut Vec<Row>, author: DeviceId, id: &[u8; 32], of: &Receiver) {
        let key = Zeroizing::new(of.session.export_at_first_known_index().to_bytes());
        let (began, opened) = (of.began.0.to_be_bytes(), of.opened.to_be_bytes());
        let parts = [author.0.as_slice(), &of.members, &began, &opened, &key];
        vault.put_parts(rows, RowKind::GroupReceiver, &conversation(self.group), &item(author, id), &parts);
    }
}

impl std::fmt::Debug for GroupKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupKeys").field("receivers", &self.receivers.len()).finish_non_exhaustive()
    }
}

struct Share<'a> {
    group: Group,
    members: [u8; 32],
    began: UnixMillis,
    key: &'a [u8],
}

impl<'a> Share<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let (group, rest) = rest.split_first_chunk::<32>()?;
        let (members, rest) = rest.split_first_chunk::<32>()?;
        let (began, key) = rest.split_first_chunk::<8>()?;
        let began = UnixMillis(u64::from_be_bytes(*began));
        (version == VERSION).then_some(Self { group: *group, members: *members, began, key })
    }
}

/// The group that a key share is for: where the body of a [`super::Kind::GroupKey`] frame goes.
pub fn group_of_share(bytes: &[u8]) -> Option<Group> {
    Share::parse(bytes).map(|share| share.group)
}

fn share(group: &Group, members: &[u8; 32], began: UnixMillis, key: &SessionKey) -> Vec<u8> {
    let key = Zeroizing::new(key.to_bytes());
    [[VERSION].as_slice(), group, members, &began.0.to_be_bytes(), &key].concat()
}

/// Megolm names a session by its public key in base64 without padding: the 32 bytes.
fn session_id(base64: &str) -> Option<[u8; 32]> {
    vodozemac::base64_decode(base64).ok()?.try_into().ok()
}

fn conversation(group: Group) -> Vec<u8> {
    [b"group ".as_slice(), &group].concat()
}

fn item(author: DeviceId, id: &[u8; 32]) -> Vec<u8> {
    [author.0, *id].concat()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::core::secrets::key::SecretKey;

    const GROUP: Group = [5; 32];
    const ANA: DeviceId = DeviceId([1; 32]);

    /// A member, its vault and its disk.
    struct Member {
        keys: GroupKeys,
        vault: Vault,
        disk: BTreeMap<[u8; super::super::vault::ROW_KEY], Vec<u8>>,
    }

    impl Member {
        fn new() -> Self {
            let vault = Vault::new(SecretKey::new([1; 32]), ChaCha20Rng::from_seed([1; 32]));
            Self { keys: GroupKeys::new(GROUP), vault, disk: BTreeMap::new() }
        }

        fn write(&mut self, rows: Vec<Row>) {
            for row in rows {
                match row.value {
                    Some(value) => self.disk.insert(row.key, value),
                    None => self.disk.remove(&row.key),
                };
            }
        }

        fn restart(&mut self) {
            let rows: Vec<_> = self.disk.iter().map(|(key, value)| (*key, value.clone())).collect();
            let rows = Vault::new(SecretKey::new([1; 32]), ChaCha20Rng::from_seed([2; 32])).open(&rows).unwrap();
            self.keys = GroupKeys::restore(GROUP, &rows);
        }

        fn begin(&mut self, members: u8, now: UnixMillis) -> Vec<u8> {
            let mut rows = Vec::new();
            let share = self.keys.begin(&mut self.vault, &mut rows, [members; 32], now);
            self.write(rows);
            share
        }

        fn seal(&mut self, members: u8, now: UnixMillis, text: &[u8]) -> Result<Vec<u8>, Reject> {
            let mut rows = Vec::new();
            let sealed = self.keys.seal(&mut self.vault, &mut rows, &[members; 32], now, b"header", text);
            self.write(rows);
            sealed.map(|written| written.body)
        }

        fn share(&mut self, share: &[u8], now: UnixMillis) -> Result<(), Reject> {
            let mut rows = Vec::new();
            let outcome = self.keys.handle_share(&mut self.vault, &mut rows, ANA, share, now);
            self.write(rows);
            outcome
        }

        fn open(&mut self, body: &[u8]) -> Result<Vec<u8>, Reject> {
            self.open_as(ANA, b"header", body)
        }

        fn open_as(&mut self, author: DeviceId, header: &[u8], body: &[u8]) -> Result<Vec<u8>, Reject> {
            let unsealed = self.keys.unseal(&mut KeyCache::default(), author, header, body)?;
            if !unsealed.claim.holds() {
                return Err(Reject::BadSignature);
            }
            self.keys.take(&unsealed)?;
            let mut rows = Vec::new();
            self.keys.save(&mut self.vault, &mut rows);
            self.write(rows);
            Ok(unsealed.text.to_vec())
        }
    }

    fn now() -> UnixMillis {
        UnixMillis(1_800_000_000_000)
    }

    #[test]
    fn members_read_each_message_once_in_any_order() {
        let (mut ana, mut bo) = (Member::new(), Member::new());
        bo.share(&ana.begin(1, now()), now()).unwrap();
        let bodies: Vec<_> = (0..5u8).map(|n| ana.seal(1, now(), &[n]).unwrap()).collect();
        for n in [3, 0, 4, 1, 2] {
            assert_eq!(bo.open(&bodies[n]), Ok(vec![n as u8]));
            assert_eq!(bo.open(&bodies[n]), Err(Reject::Replayed));
            bo.restart();
            assert_eq!(bo.open(&bodies[n]), Err(Reject::Replayed), "also after a restart");
        }
    }

    #[test]
    fn a_session_ends_with_its_members_its_messages_and_its_day() {
        let mut ana = Member::new();
        assert_eq!(ana.seal(1, now(), b"x"), Err(Reject::NoKey));
        ana.begin(1, now());
        assert_eq!(ana.seal(2, now(), b"x"), Err(Reject::NoKey), "other members");
        for _ in 0..MAX_MESSAGES {
            ana.seal(1, now(), b"x").unwrap();
        }
        assert_eq!(ana.seal(1, now(), b"x"), Err(Reject::NoKey), "used up");
        ana.begin(1, now());
        assert!(ana.seal(1, now().plus(MAX_AGE).minus(Duration::from_millis(1)), b"x").is_ok());
        assert_eq!(ana.seal(1, now().plus(MAX_AGE), b"x"), Err(Reject::NoKey), "a day");
    }

    #[test]
    fn late_joiners_read_nothing_older_and_removed_members_nothing_newer() {
        let (mut ana, mut bo, mut late) = (Member::new(), Member::new(), Member::new());
        bo.share(&ana.begin(1, now()), now()).unwrap();
        let older = ana.seal(1, now(), b"older").unwrap();
        // Somebody joined, and bo was removed: the key goes to the new set.
        late.share(&ana.begin(2, now()), now()).unwrap();
        let newer = ana.seal(2, now(), b"newer").unwrap();
        assert_eq!(late.open(&newer), Ok(b"newer".to_vec()));
        assert_eq!(late.open(&older), Err(Reject::NoKey));
        assert_eq!(bo.open(&older), Ok(b"older".to_vec()));
        assert_eq!(bo.open(&newer), Err(Reject::NoKey));
        // A key that is told again opens what comes, and nothing that was.
        let mut lost = Member::new();
        lost.share(&ana.keys.share_again().unwrap(), now()).unwrap();
        assert_eq!(lost.open(&newer), Err(Reject::KeyGone));
        let next = ana.seal(2, now(), b"next").unwrap();
        assert_eq!(lost.open(&next), Ok(b"next".to_vec()));
    }

    #[test]
    fn a_restart_from_any_state_on_disk_uses_no_key_twice() {
        let mut ana = Member::new();
        ana.begin(1, now());
        let mut bodies = Vec::new();
        for n in 0..10u8 {
            let before = ana.disk.clone();
            // Sealed, and lost before it was written: the bytes never left.
            let mut rows = Vec::new();
            ana.keys.seal(&mut ana.vault, &mut rows, &[1; 32], now(), b"header", b"lost").unwrap();
            ana.disk = before;
            ana.restart();
            bodies.push(ana.seal(1, now(), &[n]).unwrap());
            ana.restart();
        }
        let indexes: std::collections::BTreeSet<_> =
            bodies.iter().map(|body| MegolmMessage::from_bytes(&body[33..]).unwrap().message_index()).collect();
        assert_eq!(indexes.len(), bodies.len());
    }

    #[test]
    fn a_thief_of_the_disk_reads_nothing_that_was_read_before() {
        let (mut ana, mut bo) = (Member::new(), Member::new());
        bo.share(&ana.begin(1, now()), now()).unwrap();
        let bodies: Vec<_> = (0..3u8).map(|n| ana.seal(1, now(), &[n]).unwrap()).collect();
        bo.open(&bodies[0]).unwrap();
        bo.open(&bodies[1]).unwrap();
        bo.restart();
        for receiver in bo.keys.receivers.values_mut() {
            receiver.opened = 0;
        }
        assert_eq!(bo.open(&bodies[1]), Err(Reject::KeyGone));
        assert!(bo.open(&bodies[2]).is_ok());
    }

    #[test]
    fn bodies_are_bound_to_their_author_envelope_and_kind() {
        let (mut ana, mut bo) = (Member::new(), Member::new());
        bo.share(&ana.begin(1, now()), now()).unwrap();
        let body = ana.seal(1, now(), b"x").unwrap();
        let mut open = |author, header: &[u8], body: &[u8]| bo.open_as(author, header, body).map(|_| ());
        assert_eq!(open(DeviceId([2; 32]), b"header", &body), Err(Reject::NoKey));
        assert_eq!(open(ANA, b"another header", &body), Err(Reject::WrongBinding));
        assert_eq!(open(ANA, b"header", &[&[0], &body[1..]].concat()), Err(Reject::WrongMode));
        for at in 0..body.len() {
            let mut bad = body.clone();
            bad[at] ^= 1;
            assert!(open(ANA, b"header", &bad).is_err(), "byte {at}");
            assert!(open(ANA, b"header", &body[..at]).is_err(), "{at} bytes");
        }
        assert_eq!(open(ANA, b"header", &body), Ok(()), "none of that used the key up");
    }

    #[test]
    fn shares_are_checked_and_bounded() {
        let (mut ana, mut bo) = (Member::new(), Member::new());
        let share = ana.begin(1, now());
        assert_eq!((group_of_share(&share), share.len()), (Some(GROUP), 73 + 229));
        assert_eq!(bo.share(&share[..100], now()), Err(Reject::BadKey));
        assert_eq!(bo.share(b"", now()), Err(Reject::Malformed));
        assert_eq!(bo.share(&share, now().plus(KEEP)), Err(Reject::Expired));
        assert_eq!(bo.share(&share, now().minus(SKEW * 2)), Err(Reject::Expired), "from the future");
        assert_eq!(bo.share(&share, now()), Ok(()));
        assert_eq!(bo.share(&share, now()), Err(Reject::Duplicate));
        let mut other = share.clone();
        other[1] ^= 1;
        assert_eq!(bo.share(&other, now()), Err(Reject::WrongBinding));
        for _ in 0..MAX_RECEIVERS.0 + 5 {
            bo.share(&ana.begin(1, now()), now()).unwrap();
        }
        assert_eq!(bo.keys.receivers.len(), MAX_RECEIVERS.0);
        assert_eq!(bo.disk.len(), MAX_RECEIVERS.0 + 1, "and the conversation's key");
        let mut rows = Vec::new();
        bo.keys.expire(&bo.vault, &mut rows, now().plus(KEEP));
        bo.write(rows);
        assert_eq!((bo.keys.receivers.len(), bo.disk.len()), (0, 1));
    }
}
