//! A device as its rows say it was, and the rows themselves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use fog_base::{MessageId as FrameId, Now, UnixMillis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::{
    Card, Chat, Config, FORWARD_RATE, OpenError, Rows, TICK, Timer,
    card::Claims,
    disk::Disk,
    pack::inbox,
    people::Person,
    talk::{Delivery, Record, Talk, Unpublished},
};
use crate::core::{
    carrier::Carrier,
    delivery::{State, Transport},
    id::{ConversationId, DeviceId, MessageId},
    limits::{Limits, Rates},
    membership::OpId,
    message::{KeyCache, Kind, Message},
    secrets::{
        Device, GroupKeys, SecretKey,
        vault::{Opened, ROW_KEY, RowKind, Vault},
    },
    seen::Seen,
    tag::TagBook,
};

const ACCOUNT: &[u8] = b"account";
pub(super) const PEOPLE: &[u8] = b"people";
/// What stands before a message in its row: how it came, and when.
const PREFIX: usize = 9;

/// A message of the store.
pub(super) struct Stored {
    pub(super) via: Option<Transport>,
    pub(super) message: Message,
}

impl Chat {
    /// The device of these rows, or a new one if there are none. `master` is the key of the key file, under which everything is sealed;
    /// the rows must be the last ones that were persisted: a backup holds none of them, and begins as a new device.
    pub fn open(
        config: Config,
        master: Zeroizing<[u8; 32]>,
        rows: Box<dyn Rows + Send>,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, OpenError> {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut vault = Vault::new(SecretKey::new(*master), ChaCha20Rng::from_rng(&mut rng));
        let mut disk = Disk::new(rows);
        let (opened, mut damaged) = read(&mut vault, &disk)?;
        let identity = opened.iter().find(|row| row.kind == RowKind::Identity);
        let identity: Option<[u8; 32]> = identity.and_then(|row| row.value.as_slice().try_into().ok());
        let (secrets, signing, others) = match identity {
            Some(signing) => {
                let (secrets, others, torn) =
                    Device::assemble(config.network, signing, vault, opened).map_err(|_| OpenError::Unreadable)?;
                damaged += torn;
                (secrets, signing, others)
            }
            None if damaged > 0 => return Err(OpenError::Unreadable),
            None => {
                let mut signing = Zeroizing::new([0; 32]);
                rng.fill_bytes(signing.as_mut_slice());
                let mut first = Vec::new();
                vault.put(&mut first, RowKind::Identity, ACCOUNT, b"identity", signing.as_slice());
                disk.write(first, true);
                (Device::begin_in(config.network, *signing, vault, now), *signing, Vec::new())
            }
        };
        let signing = SigningKey::from_bytes(&signing);
        let config = super::nick::named(config, &others);
        let mut chat = Self::with(config, signing, secrets, disk, rng, now)?;
        for _ in 0..damaged {
            chat.count(crate::core::reject::Reject::Sealed);
        }
        chat.restore(&others, now);
        chat.at(now.mono + TICK, Timer::Tick);
        chat.at(now.mono + super::absent::EACH, Timer::Absent);
        chat.settle(now);
        Ok(chat)
    }

    fn with(
        config: Config,
        signing: SigningKey,
        secrets: Device,
        disk: Disk,
        rng: ChaCha20Rng,
        now: Now,
    ) -> Result<Self, OpenError> {
        let device = DeviceId(signing.verifying_key().to_bytes());
        let (conversation, tag_key) = inbox(&config.network, device);
        let mut book = TagBook::default();
        book.add(conversation, tag_key, now.unix);
        let bundle = secrets.bundle();
        let claims = Claims {
            bundle: &bundle,
            node: config.node,
            name: &config.name,
            seal_key: config.seal_key,
            mailboxes: &[],
        };
        // A fallback key that expired while the node was away is replaced at the first timeout.
        let card = Card::sign(&config.network, &signing, &claims, UnixMillis(0)).map_err(|_| OpenError::Unreadable)?;
        Ok(Self {
            device,
            card,
            config,
            signing,
            secrets,
            disk,
            rng,
            book,
            inbox: conversation,
            mailboxes: Vec::new(),
            people: BTreeMap::new(),
            talks: BTreeMap::new(),
            seen: Seen::default(),
            limits: Limits::default(),
            forwards: Rates::new(FORWARD_RATE),
            keys: KeyCache::default(),
            links: BTreeMap::new(),
            fetching: BTreeSet::new(),
            buckets: BTreeSet::new(),
            is_mix_ready: false,
            carrier: Carrier::default(),
            requests: BTreeMap::new(),
            flights: BTreeMap::new(),
            waiting: BTreeMap::new(),
            short: BTreeMap::new(),
            given_up: BTreeSet::new(),
            mixing: BTreeMap::new(),
            owed: super::owed::Owed::default(),
            absent: super::absent::Absent::default(),
            publishing: BTreeMap::new(),
            parked: VecDeque::new(),
            successors: BTreeMap::new(),
            sources: BTreeMap::new(),
            timers: BTreeSet::new(),
            numbers: 0,
            drops: BTreeMap::new(),
            desynced: 0,
            healed: 0,
        })
    }

    fn restore(&mut self, others: &[Opened], now: Now) {
        for row in others.iter().filter(|row| row.kind == RowKind::Person) {
            match Person::restore(&self.config.network, &row.value) {
                Some(person) => {
                    if person.is_blocked {
                        self.secrets.block_list().block(person.card.device);
                    }
                    self.people.insert(person.card.device, person);
                }
                None => self.count(crate::core::reject::Reject::Malformed),
            }
        }
        for row in others.iter().filter(|row| row.kind == RowKind::Conversation) {
            match serde_json::from_slice::<Record>(&row.value) {
                Ok(record) if record.vault_name() == row.conversation => self.restore_talk(record, others, now),
                _ => self.count(crate::core::reject::Reject::Malformed),
            }
        }
        self.subscribe();
        self.restore_flights(now);
    }

    fn restore_talk(&mut self, record: Record, others: &[Opened], now: Now) {
        let (id, name) = (record.id, record.vault_name());
        let mut talk = Talk::new(record, self.config.network);
        if let Some(club) = &mut talk.club {
            club.keys = GroupKeys::restore(id.0, others);
            // The shares of the key may not have been handed to all before the end.
            club.keys.forget_sender();
        }
        self.book.add(id, talk.tag_key.clone(), now.unix);
        let mut messages = BTreeMap::new();
        let mut ops = Vec::new();
        let mut bare = BTreeSet::new();
        self.visit(RowKind::History, &name, |bytes, network| {
            let stored = parse_stored(bytes, network)?;
            let message = stored.message;
            if message.header().kind == Kind::MEMBERSHIP.0 {
                ops.push((message.header().lamport, message.id(), message.clone().trusted().body().to_vec()));
            }
            if message.is_bare() {
                bare.insert(message.id());
            }
            if message.header().kind == Kind::TOPIC.0 {
                talk.topics.insert((message.header().lamport, message.id()), message.header().author);
            }
            messages.insert((message.header().lamport, message.id()), message.without_body());
            Some(())
        });
        let mut proofs = Vec::new();
        self.visit(RowKind::Proof, &name, |bytes, _| {
            proofs.push(bytes.to_vec());
            Some(())
        });
        self.visit(RowKind::Delivery, &name, |bytes, _| {
            let (id, delivery): (MessageId, Delivery) = serde_json::from_slice(bytes).ok()?;
            talk.deliveries.insert(id, delivery);
            Some(())
        });
        for proof in proofs {
            let _known = talk.dag.handle_proof(&proof, &mut self.keys);
        }
        for ((lamport, message_id), message) in messages {
            let (author, sent_at) = (message.header().author, message.header().sent_at);
            let _taken = talk.dag.handle_message(&message.trusted(), None, now);
            if author == self.device {
                continue;
            }
            talk.delivered_to = talk.delivered_to.max(talk.dag.seen_seq(&message_id, &self.device));
            if bare.contains(&message_id) {
                continue;
            }
            talk.last_at = talk.last_at.max(Some(UnixMillis(sent_at)));
            if (lamport, message_id) > talk.record.read_to {
                talk.unread.insert(message_id);
            }
        }
        while talk.dag.poll_output().is_some() {}
        if !talk.is_shared() {
            talk.bare = bare;
        }
        restore_members(&mut talk, ops);
        if talk.is_shared() {
            self.forget_shown(&mut talk);
            let is_queued = |(_, delivery): &(&MessageId, &Delivery)| delivery.state() == State::Queued;
            let queued: Vec<_> = talk.deliveries.iter().filter(is_queued).map(|(id, _)| *id).collect();
            for id in queued {
                talk.unpublished.insert(id, Unpublished { attempts: 0, next: now.mono });
                self.timers.insert((now.mono, Timer::Publish(talk.record.id, id)));
            }
        }
        self.talks.insert(id, talk);
    }

    /// Rows of what members had shown before the process ended, and which were not removed yet.
    fn forget_shown(&mut self, talk: &mut Talk) {
        let name = talk.record.vault_name();
        let (dag, delivered_to) = (&talk.dag, talk.delivered_to);
        for (id, _) in talk.deliveries.extract_if(.., |id, _| dag.seq_of(id) <= delivered_to) {
            self.delete(RowKind::Delivery, &name, &id.0);
        }
    }

    /// What Olm has not been told to be acknowledged goes out again; what it knows no more was acknowledged.
    fn restore_flights(&mut self, now: Now) {
        let direct: Vec<_> = self.talks.values().filter(|talk| !talk.is_shared()).map(|talk| talk.record.id).collect();
        let peers: Vec<_> = self.secrets.peers().collect();
        for to in peers {
            for frame in self.secrets.pending(&to) {
                self.resume_flight(to, frame, now);
            }
        }
        // Behind them, as they have places in the window.
        for id in direct {
            self.restore_queue(id, now);
        }
    }

    fn restore_queue(&mut self, id: ConversationId, now: Now) {
        let Some(talk) = self.talks.get(&id) else { return };
        let Some(peer) = talk.record.peer else { return };
        let pending: BTreeSet<FrameId> = self.secrets.pending(&peer).into_iter().collect();
        let mut own: Vec<_> = talk.deliveries.iter().filter(|(_, delivery)| delivery.state() < State::Failed).collect();
        let place = |message: &MessageId| talk.dag.why(message).map(|why| why.seq);
        own.sort_by_key(|(message, _)| place(message));
        let own: Vec<_> = own.into_iter().map(|(message, delivery)| (*message, *delivery)).collect();
        let mut waiting = Vec::new();
        for (message, delivery) in own {
            match delivery.frame {
                None => waiting.push((message, delivery)),
                Some(frame) if pending.contains(&frame) => {}
                Some(_) => self.advance(id, message, State::Delivered, None, None),
            }
        }
        self.queue_again(peer, &waiting, now);
    }

    /// Visits the rows of one kind and conversation; what does not open or read is counted.
    fn visit(
        &mut self,
        kind: RowKind,
        conversation: &[u8],
        mut take: impl FnMut(&[u8], &fog_base::NetworkId) -> Option<()>,
    ) {
        let vault = self.secrets.vault_ref();
        let prefix = vault.row_key(kind, conversation, b"");
        let (mut damaged, network) = (0, self.config.network);
        self.disk.scan(prefix.get(..17).unwrap_or_default(), &mut |key, value| {
            let opened = vault.open_row(key, value).ok().flatten();
            damaged += u64::from(opened.and_then(|row| take(&row.value, &network)).is_none());
            true
        });
        for _ in 0..damaged {
            self.count(crate::core::reject::Reject::Sealed);
        }
    }

    /// A message of the store, or on its way there.
    pub(super) fn load(&self, talk: &Talk, id: &MessageId) -> Option<Stored> {
        let vault = self.secrets.vault_ref();
        let key = vault.row_key(RowKind::History, &talk.record.vault_name(), &id.0);
        let row = vault.open_row(&key, &self.disk.get(&key)?).ok()??;
        parse_stored(&row.value, &self.config.network)
    }

    /// The bytes of a message that a crash would leave: what may be shown to others.
    pub(super) fn load_stored(&self, talk: &Talk, id: &MessageId) -> Option<Vec<u8>> {
        let vault = self.secrets.vault_ref();
        let key = vault.row_key(RowKind::History, &talk.record.vault_name(), &id.0);
        let row = vault.open_row(&key, &self.disk.get_stored(&key)?).ok()??;
        row.value.get(PREFIX..).map(<[u8]>::to_vec)
    }

    /// Stores a message; one of ours must be on disk before it leaves.
    pub(super) fn store(&mut self, name: &[u8], id: &MessageId, via: Option<Transport>, bytes: &[u8], now: Now) {
        let how = [via.map_or(u8::MAX, |via| via as u8)];
        let mut rows = Vec::new();
        let parts = [how.as_slice(), &now.unix.0.to_be_bytes(), bytes];
        self.secrets.vault().put_parts(&mut rows, RowKind::History, name, &id.0, &parts);
        self.disk.write(rows, via.is_none());
    }

    pub(super) fn save_record(&mut self, id: ConversationId, is_synced: bool) {
        let Some(talk) = self.talks.get(&id) else { return };
        let text = Zeroizing::new(serde_json::to_vec(&talk.record).unwrap_or_default());
        self.put(RowKind::Conversation, &talk.record.vault_name(), b"", &text, is_synced);
    }

    pub(super) fn save_person(&mut self, device: DeviceId) {
        let Some(text) = self.people.get(&device).map(Person::save) else { return };
        self.put(RowKind::Person, PEOPLE, &device.0, &text, true);
    }

    /// Stores how far an own message is; what only advanced may be lost in a crash.
    pub(super) fn save_delivery(&mut self, id: ConversationId, message: &MessageId, is_synced: bool) {
        let Some(talk) = self.talks.get(&id) else { return };
        let name = talk.record.vault_name();
        match talk.deliveries.get(message) {
            Some(delivery) => {
                let text = serde_json::to_vec(&(message, delivery)).unwrap_or_default();
                self.put(RowKind::Delivery, &name, &message.0, &text, is_synced);
            }
            None => self.delete(RowKind::Delivery, &name, &message.0),
        }
    }

    pub(super) fn put(&mut self, kind: RowKind, name: &[u8], item: &[u8], text: &[u8], is_synced: bool) {
        let mut rows = Vec::new();
        self.secrets.vault().put(&mut rows, kind, name, item, text);
        self.disk.write(rows, is_synced);
    }

    pub(super) fn delete(&mut self, kind: RowKind, name: &[u8], item: &[u8]) {
        let mut rows = Vec::new();
        self.secrets.vault().delete(&mut rows, kind, name, item);
        self.disk.write(rows, false);
    }
}

/// Gives a vault the keys of all conversations; how many did not open. An error if none did.
pub(super) fn take_keys(
    vault: &mut Vault,
    scan: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> bool),
) -> Result<u64, OpenError> {
    let (mut keys, mut damaged) = (0u64, 0);
    scan(&mut |key, value| {
        let taken = vault.take_key(key, value).is_ok();
        keys += u64::from(taken);
        damaged += u64::from(!taken);
        true
    });
    if keys == 0 && damaged > 0 { Err(OpenError::Unreadable) } else { Ok(damaged) }
}

/// Opens everything but histories; how many rows did not open. An error if nothing of the device itself opens.
fn read(vault: &mut Vault, disk: &Disk) -> Result<(Vec<Opened>, u64), OpenError> {
    let mut damaged = take_keys(vault, |visit| disk.scan(&[RowKind::ConversationKey as u8], visit))?;
    let mut opened = Vec::new();
    let kinds = [
        RowKind::Account,
        RowKind::Peer,
        RowKind::Session,
        RowKind::Outbox,
        RowKind::Seen,
        RowKind::GroupSender,
        RowKind::GroupReceiver,
        RowKind::Identity,
        RowKind::Conversation,
        RowKind::Person,
        RowKind::Name,
    ];
    for kind in kinds {
        disk.scan(&[kind as u8], &mut |key: &[u8], value| {
            if key.len() == ROW_KEY {
                match vault.open_row(key, value) {
                    Ok(row) => opened.extend(row),
                    Err(_) => damaged += 1,
                }
            }
            true
        });
    }
    Ok((opened, damaged))
}

/// Who is in a group, as an invite and its messages (lamport, id, body) say, and what was brought to them.
fn restore_members(talk: &mut Talk, mut ops: Vec<(u64, MessageId, Vec<u8>)>) {
    let Some(club) = &mut talk.club else { return };
    let brought = talk.record.brought.iter();
    club.brought = brought.filter_map(|(member, seq)| Some((member.parse().ok()?, *seq))).collect();
    for op in talk.record.told_ops.values().filter_map(|op| BASE64.decode(op.as_bytes()).ok()) {
        let _known = club.group.insert(&op);
    }
    // What was written before the restart waited long enough for gossip.
    club.aged = talk.record.own_seq;
    ops.sort();
    for (_, message, body) in &ops {
        if let Some(body) = super::groups::OpBody::parse(body) {
            let _known = club.group.insert(body.op);
            club.ops.entry(OpId(*blake3::hash(body.op).as_bytes())).or_insert(*message);
        }
    }
}

fn parse_stored(bytes: &[u8], network: &fog_base::NetworkId) -> Option<Stored> {
    let (prefix, message) = bytes.split_first_chunk::<PREFIX>()?;
    let via = prefix.first().and_then(|via| Transport::ALL.get(usize::from(*via)).copied());
    Message::parse(message, network).ok().map(|message| Stored { via, message })
}
