//! The event loop's part in tasks: it publishes offers, has fog-blobs share and fetch files, and tells reputation.

use std::{collections::BTreeMap, time::Duration};

use fog_base::{MessageId, NodeId, Now, record::RecordError};
use fog_blobs::{Event as Blob, TaskId};
use fog_mix::{
    core::{
        endpoint::{Delivery, Kind, ReplyBlock, Send},
        outgoing::Address,
    },
    wire::Application,
};
use fog_reputation::{Kind as Evident, Observation, Outcome};
use fog_tasks::core::{
    offer::{Offer, OfferError},
    pay::Verdict,
    standing::Prior,
};
use tokio::sync::{mpsc, oneshot};

use super::driver::Want;
use crate::node::{
    behaviour::peer_id, clock, event_loop::EventLoop, gossip::Topic, reputation::Evidence, wiring::Action,
};

/// What a right result weighs at least, and what a wrong one does: enough that a few of them end a worker.
const SMALL: f64 = 0.05;
const WRONG: f64 = 4.0;
const FAILED: f64 = 0.5;
/// Micro-credits of one unit of evidence, and the most that one verdict weighs.
const UNIT: f64 = 10_000.0;
const MOST: f64 = 1.0;
/// How long a message of a task may take through the mixnet; the coordinator says it again before.
const MIX_TIMEOUT: Duration = Duration::from_secs(60);

/// What tasks want of the event loop, and what they wait for.
#[derive(Debug)]
pub(in crate::node) struct Wants {
    pub(in crate::node) queue: mpsc::Receiver<Want>,
    sharing: BTreeMap<TaskId, oneshot::Sender<Option<Vec<u8>>>>,
    fetching: BTreeMap<TaskId, oneshot::Sender<bool>>,
}

impl Wants {
    pub(super) fn new(queue: mpsc::Receiver<Want>) -> Self {
        Self { queue, sharing: BTreeMap::new(), fetching: BTreeMap::new() }
    }

    /// Takes what became of a file, if it is a task's; hands it back if not.
    pub(in crate::node) fn handle_blob(&mut self, event: Blob) -> Option<Blob> {
        match event {
            Blob::Shared { task, ref manifest, .. } => match self.sharing.remove(&task) {
                Some(reply) => drop(reply.send(Some(manifest.clone()))),
                None => return Some(event),
            },
            Blob::Done { task, .. } => match self.fetching.remove(&task) {
                Some(reply) => drop(reply.send(true)),
                None => return Some(event),
            },
            Blob::Failed { task, ref reason } => {
                tracing::debug!(%reason, "a file of a task");
                match (self.sharing.remove(&task), self.fetching.remove(&task)) {
                    (Some(reply), _) => drop(reply.send(None)),
                    (None, Some(reply)) => drop(reply.send(false)),
                    (None, None) => return Some(event),
                }
            }
            Blob::Progress { task, .. } if self.fetching.contains_key(&task) => {}
            event => return Some(event),
        }
        None
    }
}

impl EventLoop {
    /// Does what tasks want.
    pub(in crate::node) fn on_want(&mut self, want: Want) {
        let now = clock::now();
        match want {
            Want::Publish(bytes) => self.perform(vec![Action::Publish { topic: Topic::Offers, bytes }], now),
            Want::Share { path, is_sealed, reply } => {
                let blobs = &mut self.swarm.behaviour_mut().blobs;
                let task = if is_sealed { blobs.share_with_all(&path) } else { blobs.share_open(&path) };
                self.wants.sharing.insert(task, reply);
            }
            Want::Fetch { manifest, path, from, reply } => {
                let sources = peer_id(from).into_iter().collect();
                let task = self.swarm.behaviour_mut().blobs.fetch_from_all(&manifest, path, sources);
                self.wants.fetching.insert(task, reply);
            }
            Want::Mix { message, to, blocks, body } => self.mix_task(message, to, blocks, body),
            Want::Answer { block, piece } => self.swarm.behaviour_mut().mix.answer(block, piece),
            Want::Unshare(manifest) => {
                if let Ok(manifest) = fog_blobs::Manifest::decode(&manifest) {
                    self.swarm.behaviour_mut().blobs.unshare(manifest.blob.id());
                }
            }
            Want::Verdict { worker, verdict, value } => {
                let learned = observations(worker, verdict, value, now);
                self.perform(learned.into_iter().map(|one| Action::Learn(Evidence::Observation(one))).collect(), now);
            }
        }
    }

    /// Sends something to a worker's node through the mixnet. A worker to which that does not lead now is asked again by the coordinator, or
    /// given up.
    fn mix_task(&mut self, id: MessageId, node: NodeId, blocks: usize, body: Vec<u8>) {
        let relay = self.sending_snapshot().and_then(|snapshot| snapshot.find(node));
        let Some(seal_key) = relay.map(|relay| relay.hop.seal_key) else {
            return tracing::debug!(%node, "the mixnet does not lead to a worker now");
        };
        let to = Address { node, seal_key, mailboxes: Vec::new() };
        let kind = Kind::Asking(Application::Tasks, blocks);
        self.swarm.behaviour_mut().mix.send(Send { id, to, body, hops: None, kind, timeout: MIX_TIMEOUT });
    }

    /// Something for this node's worker came through the mixnet. It is not written down: whoever asks repeats what is not answered.
    pub(in crate::node) fn on_task_delivery(&mut self, delivery: Delivery, blocks: Vec<ReplyBlock>) {
        let taken = self.tasks.handle_request(blocks, delivery.body);
        self.swarm.behaviour_mut().mix.accepted(delivery.message, taken);
    }

    /// Whether an offer that gossip brought is one; if so the driver gets it, with what others say of its worker.
    pub(in crate::node) fn judge_offer(&self, bytes: &[u8], now: Now) -> fog_directory::Acceptance {
        match Offer::verify(bytes, &self.network.id, now.unix) {
            Ok(offer) => {
                let worker = offer.record().signer();
                // What this node saw itself is in the coordinator's own records.
                let reputation = self.swarm.behaviour().reputation.reputation();
                let heard = reputation.heard(worker, Evident::Correctness, now.unix);
                match self.tasks.handle_offer(bytes.to_vec(), worker, prior(&heard)) {
                    true => fog_directory::Acceptance::Accept,
                    false => fog_directory::Acceptance::Ignore,
                }
            }
            // Clocks differ, and gossip repeats: neither is an offence.
            Err(OfferError::Record(RecordError::TooEarly | RecordError::Expired)) => fog_directory::Acceptance::Ignore,
            Err(_) => fog_directory::Acceptance::Reject,
        }
    }
}

/// Evidence as counts of results: what a wrong one weighs is one of them.
fn prior(heard: &fog_reputation::Evidence) -> Prior {
    Prior { good: heard.good(), bad: heard.bad() / WRONG }
}

/// What a verdict says of a worker. A wrong result weighs the same whatever it was worth; a right one more, the more it was.
fn observations(worker: NodeId, verdict: Verdict, value: u64, now: Now) -> Vec<Observation> {
    let observed = |kind, outcome, weight| Observation { peer: worker, kind, outcome, weight, at: now.unix };
    let worth = (value as f64 / UNIT).clamp(SMALL, MOST);
    match verdict {
        Verdict::Good => {
            vec![
                observed(Evident::Correctness, Outcome::Good, worth),
                observed(Evident::Availability, Outcome::Good, worth),
            ]
        }
        Verdict::Wrong => vec![observed(Evident::Correctness, Outcome::Bad, WRONG)],
        Verdict::Failed => vec![observed(Evident::Availability, Outcome::Bad, FAILED)],
    }
}

#[cfg(test)]
mod tests {
    use fog_base::{NodeId, UnixMillis};
    use fog_tasks::core::standing::{MAX_HEARSAY, Standings};

    use super::*;

    #[test]
    fn a_wrong_result_that_others_report_is_one_and_praise_makes_nobody_believed_alone() {
        let (now, worker) = (UnixMillis(1_800_000_000_000), NodeId([1; 32]));
        let heard = prior(&fog_reputation::Evidence::new(3.0, 2.0 * WRONG, now));
        assert_eq!((heard.good, heard.bad), (3.0, 2.0));
        let mut standings = Standings::new(NodeId([0; 32]));
        let newcomer = standings.credibility(worker, now);
        standings.set_prior(worker, prior(&fog_reputation::Evidence::new(10.0 * MAX_HEARSAY, 0.0, now)));
        assert_eq!(standings.credibility(worker, now), newcomer);
        assert!(standings.expected(worker, now) > newcomer);
    }
}
