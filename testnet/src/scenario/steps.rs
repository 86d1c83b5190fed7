//! How each step of a scenario is done and judged.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Rest, Send, Step};
use crate::{Batch, Check, Error, Node, Process, Recipient, Testnet, report::round};

/// A node that is asked to end must have ended.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// After all are acknowledged, the last ones are still being counted.
const COUNTED_WITHIN: Duration = Duration::from_secs(15);

impl Step {
    pub(super) fn run(&self, number: usize, testnet: &mut Testnet) -> Check {
        match self {
            Self::Send(send) => Check::attempt("send", || send.run(number, testnet)),
            Self::Kill(node) => {
                testnet.nodes[*node].kill();
                Check::held("kill", format!("node {node} was killed"))
            }
            Self::Stop(node) => stop(&mut testnet.nodes[*node]),
            Self::Start(node) => Check::attempt("start", || {
                testnet.nodes[*node].start()?;
                Ok(Check::held("start", format!("node {node} runs again")))
            }),
            Self::AgreeWithinS(seconds) => Check::attempt("agree", || {
                testnet.wait_until_ready(Duration::from_secs(*seconds))?;
                Ok(Check::held("agree", "all nodes are ready and agree on one snapshot"))
            }),
            Self::Rest(rest) => Check::attempt("rest", || rest.run(testnet)),
            Self::Epochs(epochs) => Check::attempt("epochs", || epochs.run(testnet)),
        }
    }
}

fn stop(node: &mut Node) -> Check {
    let (took, code) = node.stop();
    let wrong = match code {
        Some(0) if took <= ENDS_WITHIN => Vec::new(),
        _ => vec![format!("node {} took {:.1} s, exit code {code:?}", node.index, took.as_secs_f64())],
    };
    Check::judged("stop", &wrong, format!("node {} ended with exit code 0", node.index)).with("seconds", round(took))
}

impl Send {
    fn run(&self, number: usize, testnet: &mut Testnet) -> Result<Check, Error> {
        let touched: Vec<_> = self.meanwhile.iter().flat_map(|action| [action.kill, action.start]).flatten().collect();
        let receives = |node: &Node| match &self.recipients {
            Some(named) => named.contains(&node.index),
            None => node.process().is_some() && !touched.contains(&node.index),
        };
        let nodes = &testnet.nodes;
        let batch = Batch {
            tag: format!("step-{number}"),
            senders: nodes.iter().take(self.senders).map(Node::client).collect::<Result<_, _>>()?,
            recipients: nodes.iter().filter(|node| receives(node)).map(Recipient::new).collect::<Result<_, _>>()?,
            messages: self.messages,
            bytes: self.bytes,
            in_flight: self.in_flight,
            anonymous: true,
            timeout: Duration::from_secs(self.timeout_s),
        };
        let done = AtomicUsize::new(0);
        let (outcome, actions) = thread::scope(|scope| {
            let sending = scope.spawn(|| batch.send(&done));
            let actions = self.act(testnet, &done, || sending.is_finished());
            (sending.join().unwrap_or_default(), actions)
        });
        actions?;
        let counted = batch.count(COUNTED_WITHIN)?;
        let wrong = outcome.wrong(&counted, self.messages);
        let rate = self.messages as f64 / outcome.took.as_secs_f64().max(0.001);
        let detail =
            format!("{} messages of {} bytes, all acknowledged, each delivered once", self.messages, self.bytes);
        Ok(Check::judged("send", &wrong, detail)
            .with("acknowledged", outcome.acknowledged)
            .with("delivered_once", counted.once)
            .with("retransmissions", outcome.retransmissions)
            .with("median_ms", outcome.median_ms())
            .with("max_ms", outcome.max_ms())
            .with("messages_per_s", (rate * 10.0).round() / 10.0))
    }

    /// Does what is to be done meanwhile, each when its fraction of the messages was acknowledged, or at the end.
    fn act(&self, testnet: &mut Testnet, done: &AtomicUsize, over: impl Fn() -> bool) -> Result<(), Error> {
        let mut actions: Vec<_> = self.meanwhile.iter().collect();
        actions.sort_by(|a, b| a.after.total_cmp(&b.after));
        for action in actions {
            let wanted = (self.messages as f64 * action.after) as usize;
            while done.load(Ordering::Relaxed) < wanted && !over() {
                thread::sleep(Duration::from_millis(5));
            }
            if let Some(node) = action.kill {
                testnet.nodes[node].kill();
            }
            if let Some(node) = action.start {
                testnet.nodes[node].start()?;
            }
        }
        Ok(())
    }
}

impl Rest {
    /// A time is what is measured here, so this is no wait for a condition.
    fn run(&self, testnet: &Testnet) -> Result<Check, Error> {
        let usages =
            || -> Vec<_> { testnet.nodes.iter().filter_map(|node| node.process().and_then(Process::usage)).collect() };
        let (began, before) = (Instant::now(), usages());
        thread::sleep(Duration::from_secs(self.seconds));
        let (after, seconds) = (usages(), began.elapsed().as_secs_f64());
        let used: u64 =
            before.iter().zip(&after).map(|(before, after)| after.cpu_ms.saturating_sub(before.cpu_ms)).sum();
        let percent = used as f64 / 10.0 / seconds / after.len().max(1) as f64;
        let memory = after.iter().map(|usage| usage.memory_bytes).max().unwrap_or(0) >> 20;
        let mut wrong = Vec::new();
        if memory == 0 || memory > self.memory_mib {
            wrong.push(format!("a node keeps {memory} MiB, at most {} allowed", self.memory_mib));
        }
        if percent > self.cpu_percent {
            wrong.push(format!("a node takes {percent:.2} % of a core, at most {} allowed", self.cpu_percent));
        }
        Ok(Check::judged("rest", &wrong, format!("{} nodes left alone for {} s", after.len(), self.seconds))
            .with("memory_max_mib", memory)
            .with("cpu_percent_mean", (percent * 100.0).round() / 100.0))
    }
}
