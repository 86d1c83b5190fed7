//! The mixnet in this node: what it is started with, and what its events and the commands for it lead to.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use fog_base::{
    Epoch, MessageId, Network, NodeId, codec,
    relay::{NoPath, PathRequest, PathSelector, RelayHop, Role},
};
use fog_directory::{Snapshot, core::delay_vrf};
use fog_mix::{
    core::{
        Write, cover,
        delay::Delays,
        endpoint::{self, Audience, Delivery, Restored, Secrets},
        mailbox::MailboxLimits,
        outgoing::Address,
    },
    runtime::{
        faults::Faults,
        keystore::KeyStoreConfig,
        start::{Config as MixConfig, Limits},
    },
    wire::Application,
};
use rand::{Rng, RngExt};
use tokio::sync::{mpsc, oneshot};

use super::{
    chat, clock,
    command::{Failure, MixPing, MixSend, MixSendEvent},
    event_loop::EventLoop,
    inbox::Inbox,
    report::PingReply,
    traffic::{DEFAULT_HOPS, Traffic},
};
use crate::{
    config::{Config, Cover},
    invite::{self, Invite},
    keys::Keys,
    platform,
    store::{Batch, Durability, Store, StoreError, Table, Writer},
};

/// Where the mailboxes in use are kept, as CBOR.
const MAILBOXES_KEY: &[u8] = b"mailboxes";
const MAX_MAILBOXES: usize = 1024;
/// Answers of the store that may wait for the event loop.
const STORED_QUEUE: usize = 1024;
/// What a slot of two messages takes, by which its limit in bytes becomes one in packets.
const SLOT_PACKET: u64 = 2048;

/// The store has answered.
#[derive(Debug)]
pub(super) enum Stored {
    /// A message that arrived, of this size.
    Message(MessageId, u64, bool),
    /// Mailbox entries.
    Entries(u64, bool),
    /// The record of what this node signs.
    Record(bool),
    /// A batch of chat.
    Chat(u64, bool),
}

/// What the mixnet needs of the node while it runs.
#[derive(Debug)]
pub(super) struct Mixnet {
    pub(super) traffic: Traffic,
    pub(super) inbox: Inbox,
    pub(super) mailboxes: Vec<NodeId>,
    answers: mpsc::Sender<Stored>,
}

impl Mixnet {
    /// With the answers of the store, which the event loop reads.
    pub(super) fn new(inbox: Inbox, mailboxes: Vec<NodeId>) -> (Self, mpsc::Receiver<Stored>) {
        let (answers, stored) = mpsc::channel(STORED_QUEUE);
        (Self { traffic: Traffic::default(), inbox, mailboxes, answers }, stored)
    }
}

/// The mailboxes that an earlier run used.
pub fn stored_mailboxes(store: &dyn Store) -> Result<Vec<NodeId>, StoreError> {
    let bytes = store.get(Table::Meta, MAILBOXES_KEY)?;
    Ok(bytes.and_then(|bytes| codec::decode(&bytes, MAX_MAILBOXES).ok()).unwrap_or_default())
}

/// Starts the mixnet's threads.
pub(super) fn start(
    config: &Config,
    keys: &Arc<Keys>,
    network: &Network,
    store: &dyn Store,
    inbox: &Inbox,
) -> anyhow::Result<fog_mix::Behaviour> {
    let restored = Restored { seen: inbox.seen(clock::now().unix)?, mailboxes: stored_mailboxes(store)? };
    let (network_id, vrf) = (network.id, Arc::clone(keys));
    let faults = config.faults;
    let mix = MixConfig {
        endpoint: endpoint::Config {
            me: keys.node_id(),
            network: network.id,
            schedule: network.schedule(),
            delays: Delays { mean: network.mean_delay, max: network.max_delay() },
            send_per_second: config.send_per_second,
            cover: match config.cover {
                Cover::None => cover::Cover::None,
                Cover::Loops => cover::Cover::Loops,
                Cover::Full => cover::Cover::Full,
            },
            loops_per_second: config.loops_per_second,
            hops: DEFAULT_HOPS,
            offers_roles: !config.roles.is_empty(),
        },
        secrets: Secrets {
            identity: keys.identity().clone(),
            seal: keys.seal_secret().clone(),
            slot: keys.slot().clone(),
        },
        restored,
        stored: store.scan(Table::Slots, &[])?,
        roles: config.roles,
        workers: config.mix_workers,
        limits: limits(config),
        keys: KeyStoreConfig {
            directory: config.data_dir.join("mixkeys"),
            boot_id: platform::boot_id(),
            storage_key: keys.storage().clone(),
        },
        delay_salt: Arc::new(move |epoch| delay_vrf::own_salt(vrf.vrf(), &network_id, epoch)),
        faults: faults.any().then_some(Faults { loss: faults.loss, delay: faults.delay, reorder: faults.reorder }),
        paths: Arc::new(Paths::default()),
        seed: random(),
    };
    fog_mix::Behaviour::new(mix).context("the mixnet cannot be started")
}

#[expect(clippy::disallowed_methods, reason = "randomness enters the node here")]
fn random<const N: usize>() -> [u8; N] {
    rand::rng().random()
}

fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    let mib = |n: u64| usize::try_from(n.saturating_mul(1 << 20)).unwrap_or(usize::MAX);
    Limits {
        link_rate: f64::from(limits.link_packets_per_second),
        link_burst: f64::from(limits.link_packet_burst),
        total_rate: f64::from(limits.packets_per_second),
        pool: limits.mixing_pool,
        mailbox: MailboxLimits {
            bytes: mib(limits.mailbox_mib),
            packets_per_slot: mib(limits.mailbox_slot_mib) / usize::try_from(SLOT_PACKET).unwrap_or(2048),
            ..MailboxLimits::default()
        },
    }
}

/// The snapshots of the running epoch and the next, as one source of paths.
#[derive(Debug, Default)]
pub(super) struct Paths(BTreeMap<Epoch, Snapshot>);

impl Paths {
    pub(super) fn new(snapshots: &BTreeMap<Epoch, Snapshot>) -> Self {
        Self(snapshots.clone())
    }
}

impl PathSelector for Paths {
    fn path(&self, request: &PathRequest<'_>, rng: &mut dyn Rng) -> Result<Vec<RelayHop>, NoPath> {
        self.0.get(&request.epoch).ok_or(NoPath::UnknownRelay(request.last))?.path(request, rng)
    }

    fn measuring_path(
        &self,
        request: &PathRequest<'_>,
        measured: &dyn Fn(&NodeId) -> u32,
        rng: &mut dyn Rng,
    ) -> Result<Vec<RelayHop>, NoPath> {
        let snapshot = self.0.get(&request.epoch).ok_or(NoPath::UnknownRelay(request.last))?;
        snapshot.measuring_path(request, measured, rng)
    }

    fn relay(&self, epoch: Epoch, id: NodeId) -> Option<RelayHop> {
        self.0.get(&epoch)?.relay(epoch, id)
    }

    fn with_role(&self, epoch: Epoch, role: Role) -> Vec<NodeId> {
        self.0.get(&epoch).map_or_else(Vec::new, |snapshot| snapshot.with_role(epoch, role))
    }
}

impl EventLoop {
    /// What the mixnet tells, other than its keys, floods and loops, which the wiring passes on.
    pub(super) fn on_mix(&mut self, event: fog_mix::Event) {
        let now = clock::now();
        match event {
            fog_mix::Event::Deliver(mut delivery) => {
                match std::mem::replace(&mut delivery.audience, Audience::Person) {
                    Audience::Person => self.store_message(delivery),
                    Audience::Chat => self.on_chat_delivery(delivery),
                    Audience::Application(Application::Services, blocks) => self.on_services_delivery(delivery, blocks),
                    Audience::Application(Application::Tasks, blocks) => self.on_task_delivery(delivery, blocks),
                }
            }
            fog_mix::Event::Answer(Application::Services, message, bytes) => self.on_services_answer(message, bytes),
            fog_mix::Event::Answer(Application::Tasks, message, bytes) => self.tasks.handle_answer(message, bytes),
            fog_mix::Event::Persist(token, writes) => self.store_entries(token, writes),
            fog_mix::Event::Sent(news) if self.on_chat_mixed(&news) || self.on_services_sent(&news) => {}
            fog_mix::Event::Sent(news) => self.mixnet.traffic.handle_sent(news, now.mono),
            fog_mix::Event::SendRefused(message, _)
                if self.on_chat_unmixable(message) || self.on_services_unsent(message) => {}
            fog_mix::Event::SendRefused(message, why) => self.mixnet.traffic.handle_send_refused(&message, &why),
            fog_mix::Event::Pong(ping, rtt) => self.mixnet.traffic.handle_pong(ping, rtt),
            fog_mix::Event::PingRefused(ping, why) => self.mixnet.traffic.handle_ping_refused(ping, &why),
            fog_mix::Event::Mailboxes(relays) => self.keep_mailboxes(relays),
            fog_mix::Event::Stopped => {
                tracing::error!("the mixnet has failed: the node stops");
                self.shutdown.cancel();
            }
            fog_mix::Event::Keys(_) | fog_mix::Event::Flooding(_) | fog_mix::Event::Loop(_) => {}
        }
    }

    /// The store has answered.
    pub(super) fn on_stored(&mut self, stored: Stored) {
        let behaviour = self.swarm.behaviour_mut();
        match stored {
            Stored::Message(message, size, ok) => {
                self.mixnet.inbox.stored(size, ok);
                behaviour.mix.accepted(message, ok);
            }
            Stored::Entries(token, ok) => behaviour.mix.persisted(token, ok),
            Stored::Record(ok) => behaviour.directory.recorded(ok),
            Stored::Chat(number, ok) => self.on_chat_stored(number, ok),
        }
    }

    fn store_message(&mut self, delivery: Delivery) {
        let message = delivery.message;
        let Some((committed, size)) = self.mixnet.inbox.put(delivery, clock::now().unix) else {
            return self.swarm.behaviour_mut().mix.accepted(message, false);
        };
        self.answer(committed, move |ok| Stored::Message(message, size, ok));
    }

    fn store_entries(&mut self, token: u64, writes: Vec<Write>) {
        let mut batch = Batch::new();
        for Write { key, value } in writes {
            match value {
                Some(value) => batch.put(Table::Slots, key, value),
                None => batch.delete(Table::Slots, key),
            };
        }
        // A receipt says that the packet is stored, also after a loss of power.
        match self.store.submit(batch, Durability::Synced) {
            Ok(committed) => self.answer(committed, move |ok| Stored::Entries(token, ok)),
            Err(_) => self.swarm.behaviour_mut().mix.persisted(token, false),
        }
    }

    pub(super) fn answer(
        &self,
        committed: oneshot::Receiver<Result<(), StoreError>>,
        answer: impl FnOnce(bool) -> Stored + Send + 'static,
    ) {
        let answers = self.mixnet.answers.clone();
        tokio::spawn(async move {
            let outcome = committed.await;
            if let Ok(Err(error)) = &outcome {
                tracing::warn!(%error, "the store does not take what arrives");
            }
            // The loop has ended: nobody needs the answer.
            let _ended = answers.send(answer(matches!(outcome, Ok(Ok(()))))).await;
        });
    }

    fn keep_mailboxes(&mut self, relays: Vec<NodeId>) {
        if let Ok(bytes) = codec::encode(&relays, MAX_MAILBOXES) {
            let mut batch = Batch::new();
            batch.put(Table::Meta, MAILBOXES_KEY, bytes);
            // They are chosen again after a restart if this is lost.
            let _queued = self.store.submit(batch, Durability::Synced);
        }
        self.mixnet.mailboxes = relays;
    }

    pub(super) fn mix_send(&mut self, send: MixSend, events: mpsc::Sender<Result<MixSendEvent, Failure>>) {
        match self.address(&send.to) {
            Ok(to) => {
                let send = self.mixnet.traffic.send(MessageId(random()), to, send, events, clock::now().mono);
                self.swarm.behaviour_mut().mix.send(send);
            }
            Err(failure) => drop(events.try_send(Err(failure))),
        }
    }

    pub(super) fn mix_ping(&mut self, ping: &MixPing, events: &mpsc::Sender<Result<PingReply, Failure>>) {
        let rate = self.config.send_per_second;
        let pings = self.address(&ping.to).and_then(|to| self.mixnet.traffic.ping(&to, ping, events, rate));
        match pings {
            Ok(pings) => pings.into_iter().for_each(|ping| self.swarm.behaviour_mut().mix.ping(ping)),
            Err(failure) => drop(events.try_send(Err(failure))),
        }
    }

    /// Whom a text names: a relay's id, an invite or a contact's name.
    fn address(&self, text: &str) -> Result<Address, Failure> {
        const HINT: &str = "`fog relays` lists relays, `fog chat contact list` contacts; others are reached by the invite that their `fog id` prints";
        if Invite::is_invite(text) {
            let invite = self.invite(text)?;
            let mailboxes = invite.mailboxes.iter().map(|mailbox| (mailbox.relay, mailbox.slot)).collect();
            return Ok(Address { node: invite.node, seal_key: invite.seal_key, mailboxes });
        }
        let Ok(node) = text.parse::<NodeId>() else {
            let contact = self.swarm.behaviour().chat.chat().contact_address(text);
            let unknown = || Failure::usage(format!("`{text}` is no id of a relay, no invite and no contact"), HINT);
            return contact.map(chat::mix_address).ok_or_else(unknown);
        };
        let relay = self.sending_snapshot().and_then(|snapshot| snapshot.find(node));
        let relay = relay.ok_or_else(|| Failure::failed(format!("{node} is not a relay of this epoch"), HINT))?;
        Ok(Address { node, seal_key: relay.hop.seal_key, mailboxes: Vec::new() })
    }

    /// The mailboxes that an invite names.
    pub(super) fn invite_mailboxes(&self) -> Vec<invite::Mailbox> {
        mailboxes(&self.keys, &self.mixnet.mailboxes)
    }
}

/// The node's slot at each of its mailboxes.
pub fn mailboxes(keys: &Keys, relays: &[NodeId]) -> Vec<invite::Mailbox> {
    let slot = keys.slot().verifying_key().to_bytes();
    relays.iter().take(invite::MAX_MAILBOXES).map(|relay| invite::Mailbox { relay: *relay, slot }).collect()
}

/// Opens the inbox.
pub(super) fn open_inbox(config: &Config, store: &Arc<dyn Store>, writer: &Writer) -> Result<Inbox, StoreError> {
    Inbox::open(Arc::clone(store), writer.clone(), config.limits.inbox_mib.saturating_mul(1 << 20))
}
