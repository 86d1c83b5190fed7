//! What must survive: a killed relay, a killed recipient, a second process on one data directory.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::Stage;
use crate::{Batch, Check, Error, Message, Node, Recipient, report::round, until};

/// In the demo; the 1,000 are sent by the scenario `relay-killed`.
const MESSAGES: usize = 200;
const SENDERS: usize = 4;

/// The relay that is killed: neither a sender nor a recipient of the batch.
pub(super) fn victim(stage: &Stage) -> usize {
    stage.relays - 2
}

/// `kill -9` of a relay while four senders have messages under way: all acknowledged, each delivered once.
pub(super) fn relay_killed(stage: &mut Stage) -> Result<Check, Error> {
    let victim = victim(stage);
    let others = |node: &&Node| node.index != victim && node.index < stage.relays;
    let nodes = || stage.testnet.nodes.iter().filter(others);
    let batch = Batch {
        tag: "relay-killed".into(),
        senders: nodes().take(SENDERS).map(Node::client).collect::<Result<_, _>>()?,
        recipients: nodes().map(Recipient::new).collect::<Result<_, _>>()?,
        messages: MESSAGES,
        bytes: 64,
        in_flight: 8,
        anonymous: true,
        timeout: Duration::from_secs(90),
    };
    let done = AtomicUsize::new(0);
    let node = &mut stage.testnet.nodes[victim];
    let outcome = thread::scope(|scope| {
        let sending = scope.spawn(|| batch.send(&done));
        while done.load(Ordering::Relaxed) < MESSAGES / 4 && !sending.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        node.kill();
        sending.join().unwrap_or_default()
    });
    let counted = batch.count(Duration::from_secs(10))?;
    let wrong = outcome.wrong(&counted, MESSAGES);
    let detail = format!("{MESSAGES} messages from {SENDERS} senders, all acknowledged, each delivered once");
    Ok(Check::judged("relay killed", &wrong, detail)
        .with("acknowledged", outcome.acknowledged)
        .with("delivered_once", counted.once)
        .with("retransmissions", outcome.retransmissions)
        .with("median_ms", outcome.median_ms())
        .with("max_ms", outcome.max_ms()))
}

/// A message that was acknowledged is in the recipient's inbox even if its process was killed right after.
pub(super) fn inbox_survives(stage: &mut Stage) -> Result<Check, Error> {
    let text = "acknowledged means kept";
    let sender = stage.testnet.nodes[0].client()?;
    let node = &mut stage.testnet.nodes[stage.relays - 1];
    let to = node.client()?.peer_id().to_owned();
    let message = Message { to, body: text.into(), anonymous: true, wait: true, timeout: Duration::from_secs(60) };
    let sent = sender.send(&message)?;
    node.kill();
    if !sent.acked {
        let why = sent.reason.unwrap_or(sent.state);
        return Ok(Check::failed("inbox survives kill -9", format!("the message was not acknowledged: {why}")));
    }
    node.start()?;
    let inbox = node.client()?.receive()?;
    let copies = inbox.iter().filter(|message| message.text.as_deref() == Some(text)).count();
    let wrong = if copies == 1 { Vec::new() } else { vec![format!("the message is there {copies} times")] };
    let detail = "a message that was acknowledged right before kill -9 was there after the restart, once";
    Ok(Check::judged("inbox survives kill -9", &wrong, detail))
}

/// The killed relay comes back, and all agree again.
pub(super) fn heals(stage: &mut Stage) -> Result<Check, Error> {
    let began = Instant::now();
    let victim = victim(stage);
    stage.testnet.nodes[victim].start()?;
    stage.testnet.wait_until_ready(Duration::from_secs(60))?;
    let detail = "the killed relay was started again, and all nodes agree on one snapshot";
    Ok(Check::held("network heals", detail).with("agreed_s", round(began.elapsed())))
}

/// A second process on a data directory is told which process has it.
pub(super) fn second_process(stage: &Stage) -> Result<Check, Error> {
    let node = &stage.testnet.nodes[0];
    let pid = node.client()?.pid();
    let command = node.command();
    let [program, args @ ..] = command.as_slice() else {
        return Err(Error::Plan("a node without a command".into()));
    };
    let mut second = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Start { program: program.into(), source })?;
    let ended = until("the end of the second process", Duration::from_secs(20), || {
        second.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| "it runs".to_owned())
    });
    let status = match ended {
        Ok(status) => status,
        Err(error) => {
            // It must not stay, whatever it does to the first one's data.
            let _ = second.kill();
            let _ = second.wait();
            return Err(error);
        }
    };
    let said = second.stderr.take().map(std::io::read_to_string).and_then(Result::ok).unwrap_or_default();
    let mut wrong = Vec::new();
    if status.code() != Some(1) {
        wrong.push(format!("exit code {:?}, expected 1", status.code()));
    }
    if !said.contains(&pid.to_string()) {
        wrong.push(format!("it does not name process {pid}: {}", said.trim()));
    }
    node.client()?.status()?;
    Ok(Check::judged("second process refused", &wrong, format!("it names process {pid}, which has the directory")))
}

/// In a network without an attacker, nothing is ever malformed, forged or damaged. What was dropped for other reasons (the relay that was
/// killed) is told.
pub(super) fn nothing_damaged(stage: &mut Stage) -> Result<Check, Error> {
    // Not `replayed`: a node that was killed answers a reply block again when its mailbox pushes the same packet again.
    const NEVER: [&str; 4] = ["malformed", "unknown_version", "bad_mac", "bad_payload"];
    let statuses = stage.testnet.statuses().map_err(Error::Plan)?;
    let mut wrong = Vec::new();
    let mut forwarded = 0;
    for (index, status) in &statuses {
        forwarded += status.mix.forwarded;
        for reason in NEVER {
            let count = status.mix.dropped.get(reason).copied();
            if count != Some(0) {
                wrong.push(format!("node {index} dropped {count:?} packets as {reason}"));
            }
        }
    }
    let detail = "no relay met a packet that was malformed, forged or damaged";
    let mut check = Check::judged("no packet was damaged", &wrong, detail).with("packets_forwarded", forwarded);
    let mut others: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in statuses.iter().flat_map(|(_, status)| &status.mix.dropped) {
        *others.entry(reason).or_default() += count;
    }
    for (reason, count) in others.into_iter().filter(|(_, count)| *count > 0) {
        check = check.with(&format!("dropped_{reason}"), count);
    }
    Ok(check)
}
