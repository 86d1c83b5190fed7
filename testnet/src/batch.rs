//! Many messages at once between nodes, and the count of what arrived: each acknowledged, each delivered once, no other.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Client, Deadline, Error, Message, Node};

/// After every message was acknowledged, this long no second copy may arrive.
const SETTLES: Duration = Duration::from_secs(2);

/// Messages to send.
#[derive(Debug)]
pub struct Batch {
    /// What tells this batch's messages from others'.
    pub tag: String,
    /// Who sends.
    pub senders: Vec<Client>,
    /// Who receives.
    pub recipients: Vec<Recipient>,
    /// How many messages, over all senders.
    pub messages: usize,
    /// The size of each, at least what the tag and the number need.
    pub bytes: usize,
    /// Messages that one sender has under way at one time.
    pub in_flight: usize,
    /// Whether the senders stay unnamed.
    pub anonymous: bool,
    /// When a node gives a message up.
    pub timeout: Duration,
}

/// A node that gets messages of a batch. It may be killed and started again while the batch runs, so it is found by its directory.
#[derive(Debug, Clone)]
pub struct Recipient {
    index: usize,
    data_dir: PathBuf,
    peer_id: String,
    address: String,
}

impl Recipient {
    /// `node`, addressed by its peer id if it is a relay, else by its invite.
    pub fn new(node: &Node) -> Result<Self, Error> {
        let client = node.client()?;
        let peer_id = client.peer_id().to_owned();
        let address = if node.plan.is_relay() { peer_id.clone() } else { client.invite()? };
        Ok(Self { index: node.index, data_dir: node.data_dir.clone(), peer_id, address })
    }
}

/// What became of them.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Acknowledged by the recipient's node.
    pub acknowledged: usize,
    /// Why the others were not, each reason once for each message.
    pub failures: Vec<String>,
    /// From the request to the acknowledgement, sorted.
    pub latencies_ms: Vec<u64>,
    /// Packets that were sent again.
    pub retransmissions: u64,
    /// From the first request to the last acknowledgement.
    pub took: Duration,
}

/// What arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Messages that arrived once.
    pub once: usize,
    /// Messages that arrived more than once.
    pub more: usize,
    /// Messages that did not arrive.
    pub never: usize,
}

impl Batch {
    /// The text of message `number`.
    fn text(&self, number: usize) -> String {
        let head = format!("{} {number} ", self.tag);
        let missing = self.bytes.saturating_sub(head.len());
        head + &"x".repeat(missing)
    }

    /// Sends all of them and waits for each one's end. `done` counts acknowledgements while it runs.
    pub fn send(&self, done: &AtomicUsize) -> Outcome {
        let began = Instant::now();
        let shared = (AtomicUsize::new(0), Mutex::new(Outcome::default()));
        let (next, outcome) = (&shared.0, &shared.1);
        thread::scope(|scope| {
            for (sender, client) in self.senders.iter().enumerate() {
                for _ in 0..self.in_flight {
                    scope.spawn(move || self.work(sender, client, next, done, outcome));
                }
            }
        });
        let mut outcome = shared.1.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome.took = began.elapsed();
        outcome.latencies_ms.sort_unstable();
        outcome
    }

    fn work(&self, sender: usize, client: &Client, next: &AtomicUsize, done: &AtomicUsize, outcome: &Mutex<Outcome>) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.messages {
                return;
            }
            // Spread over the recipients; nobody writes to himself.
            let others: Vec<_> = self.recipients.iter().filter(|to| to.peer_id != client.peer_id()).collect();
            let result = match others.get((number + sender) % others.len().max(1)) {
                Some(to) => client.send(&Message {
                    to: to.address.clone(),
                    body: self.text(number),
                    anonymous: self.anonymous,
                    wait: true,
                    timeout: self.timeout,
                }),
                None => Err(Error::Plan("a batch needs a recipient that is not its sender".into())),
            };
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(sent) if sent.acked => {
                    outcome.acknowledged += 1;
                    outcome.latencies_ms.push(sent.latency_ms);
                    outcome.retransmissions += sent.retransmissions;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(sent) => outcome.failures.push(sent.reason.unwrap_or(sent.state)),
                Err(error) => outcome.failures.push(error.to_string()),
            }
        }
    }

    /// Counts what the recipients got, until every message is there or `allowed` is over, and then for a moment more, so that a second
    /// copy is seen.
    pub fn count(&self, allowed: Duration) -> Result<Counted, Error> {
        let mut arrivals: BTreeMap<usize, usize> = BTreeMap::new();
        let deadline = Deadline::after(allowed);
        while arrivals.len() < self.messages && !deadline.passed() {
            self.drain(&mut arrivals)?;
            thread::sleep(Duration::from_millis(100));
        }
        let settled = Deadline::after(SETTLES);
        while !settled.passed() {
            self.drain(&mut arrivals)?;
            thread::sleep(Duration::from_millis(200));
        }
        let once = arrivals.values().filter(|count| **count == 1).count();
        Ok(Counted { once, more: arrivals.len() - once, never: self.messages - arrivals.len() })
    }

    fn drain(&self, arrivals: &mut BTreeMap<usize, usize>) -> Result<(), Error> {
        for recipient in &self.recipients {
            for message in Client::open(recipient.index, &recipient.data_dir)?.receive()? {
                let text = message.text.unwrap_or_default();
                let number = text.strip_prefix(&self.tag).and_then(|rest| rest.trim_start().split(' ').next());
                if let Some(number) = number.and_then(|number| number.parse().ok()).filter(|n| *n < self.messages) {
                    *arrivals.entry(number).or_default() += 1;
                }
            }
        }
        Ok(())
    }
}

impl Outcome {
    /// The median latency.
    pub fn median_ms(&self) -> Option<u64> {
        self.latencies_ms.get(self.latencies_ms.len() / 2).copied()
    }

    /// The longest latency.
    pub fn max_ms(&self) -> Option<u64> {
        self.latencies_ms.last().copied()
    }

    /// What is wrong with it and with what was counted, for a batch of `messages`.
    pub fn wrong(&self, counted: &Counted, messages: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.acknowledged != messages {
            let first = self.failures.first().map_or("no reason", String::as_str);
            wrong.push(format!("{} of {messages} acknowledged (the first failure: {first})", self.acknowledged));
        }
        if counted.more > 0 {
            wrong.push(format!("{} delivered more than once", counted.more));
        }
        if counted.never > 0 {
            wrong.push(format!("{} never delivered", counted.never));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(acknowledged: usize) -> Outcome {
        Outcome { acknowledged, failures: vec!["no route".into()], ..Outcome::default() }
    }

    #[test]
    fn a_batch_is_right_only_if_each_message_was_acknowledged_and_came_once() {
        let all = Counted { once: 10, more: 0, never: 0 };
        assert_eq!(outcome(10).wrong(&all, 10), Vec::<String>::new());
        assert!(outcome(9).wrong(&all, 10)[0].contains("9 of 10 acknowledged (the first failure: no route)"));
        assert_eq!(outcome(10).wrong(&Counted { once: 9, more: 1, never: 0 }, 10), ["1 delivered more than once"]);
        assert_eq!(outcome(10).wrong(&Counted { once: 9, more: 0, never: 1 }, 10), ["1 never delivered"]);
    }

    #[test]
    fn a_message_has_its_size_and_its_number() {
        let batch = Batch {
            tag: "t".into(),
            senders: Vec::new(),
            recipients: Vec::new(),
            messages: 1,
            bytes: 10,
            in_flight: 1,
            anonymous: false,
            timeout: Duration::ZERO,
        };
        assert_eq!(batch.text(7), "t 7 xxxxxx");
        assert_eq!(batch.count(Duration::ZERO).unwrap(), Counted { once: 0, more: 0, never: 1 });
    }
}
