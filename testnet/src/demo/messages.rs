//! Messages through the mixnet: small and large, signed and anonymous, to relays and to a client behind its mailbox.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Stage, steady::Rate};
use crate::{Check, Client, Error, Message, Received, Sent, report::round, until};

const MIB: usize = 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(110);
const PINGS: u32 = 50;

/// A message with its way.
struct Route<'a> {
    name: &'static str,
    from: &'a Client,
    to: &'a Client,
    address: &'a str,
    anonymous: bool,
}

impl Route<'_> {
    /// Sends `body` and waits until the recipient has it. Yields how it went, or what is wrong.
    fn carry(&self, body: &str) -> Result<Sent, String> {
        let text = |e: Error| format!("{}: {e}", self.name);
        let message = Message {
            to: self.address.to_owned(),
            body: body.into(),
            anonymous: self.anonymous,
            wait: true,
            timeout: TIMEOUT,
        };
        let sent = self.from.send(&message).map_err(text)?;
        if !sent.acked {
            return Err(format!("{}: {} ({})", self.name, sent.state, sent.reason.clone().unwrap_or_default()));
        }
        let got = expect(self.to, body, Duration::from_secs(10)).map_err(text)?;
        let expected = (!self.anonymous).then(|| self.from.peer_id().to_owned());
        if got.from != expected {
            return Err(format!("{}: it says to be from {:?}, expected {expected:?}", self.name, got.from));
        }
        Ok(sent)
    }
}

/// Waits until `client` has a message with this text.
fn expect(client: &Client, text: &str, allowed: Duration) -> Result<Received, Error> {
    until("a message that was acknowledged", allowed, || {
        let arrived = client.receive().map_err(|e| e.to_string())?;
        let count = arrived.len();
        let found = arrived.into_iter().find(|message| message.text.as_deref() == Some(text));
        found.ok_or_else(|| format!("{count} other messages"))
    })
}

/// One byte each way between two relays, and between a relay and the client; signed and anonymous.
pub(super) fn one_byte(stage: &Stage) -> Result<Check, Error> {
    let nodes = &stage.testnet.nodes;
    let (first, last, client) =
        (nodes[0].client()?, nodes[stage.relays - 1].client()?, nodes[stage.client()].client()?);
    let invite = client.invite()?;
    let route = |name, from, to, address, anonymous| Route { name, from, to, address, anonymous };
    let routes = [
        route("relay to relay, anonymous", &first, &last, last.peer_id(), true),
        route("back, signed", &last, &first, first.peer_id(), false),
        route("relay to client, anonymous", &first, &client, &invite, true),
        route("relay to client, signed", &last, &client, &invite, false),
        route("client to relay, anonymous", &client, &last, last.peer_id(), true),
        route("client to relay, signed", &client, &first, first.peer_id(), false),
    ];
    let (mut wrong, mut latencies) = (Vec::new(), Vec::new());
    for route in &routes {
        match route.carry("1") {
            Ok(sent) => latencies.push(sent.latency_ms),
            Err(what) => wrong.push(what),
        }
    }
    latencies.sort_unstable();
    let detail =
        format!("{} messages of 1 byte through 4 hops each, acknowledged, the right sender or none", routes.len());
    Ok(Check::judged("one byte", &wrong, detail)
        .with("median_ms", latencies.get(latencies.len() / 2).copied())
        .with("max_ms", latencies.last().copied()))
}

/// 1 MiB each way between two relays and between a relay and the client, at once, with pings between two others beside them. Yields the
/// rate at which the client sent meanwhile.
pub(super) fn large_and_pings(stage: &Stage, rate: &mut Option<Rate>) -> Vec<Check> {
    let clients: Result<Vec<_>, Error> = stage.testnet.nodes.iter().map(crate::Node::client).collect();
    let (clients, invite) = match clients.and_then(|all| Ok((all[stage.client()].invite()?, all))) {
        Ok((invite, clients)) => (clients, invite),
        Err(error) => return vec![Check::failed("1 MiB", error.to_string())],
    };
    let client = &clients[stage.client()];
    let last = &clients[stage.relays - 1];
    let routes = [
        Route { name: "relay to relay", from: &clients[0], to: last, address: last.peer_id(), anonymous: true },
        Route { name: "back", from: last, to: &clients[0], address: clients[0].peer_id(), anonymous: false },
        Route { name: "relay to client", from: &clients[1], to: client, address: &invite, anonymous: true },
        Route {
            name: "client to relay",
            from: client,
            to: &clients[2],
            address: clients[2].peer_id(),
            anonymous: false,
        },
    ];
    thread::scope(|scope| {
        let pings = scope.spawn(|| Check::attempt("50 pings", || pings(&clients[3], &clients[4])));
        let busy = scope.spawn(|| sending_rate(client));
        let large = Check::attempt("1 MiB", || large(&routes));
        *rate = busy.join().ok().and_then(Result::ok);
        let pings = pings.join().unwrap_or_else(|_| Check::failed("50 pings", "the pinging thread panicked"));
        vec![large, pings]
    })
}

fn large(routes: &[Route<'_>]) -> Result<Check, Error> {
    let began = Instant::now();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = routes
            .iter()
            .enumerate()
            .map(|(number, route)| {
                // Different contents, so that one cannot be taken for another.
                let body: String = format!("{number} {} ", route.name).chars().cycle().take(MIB).collect();
                scope.spawn(move || route.carry(&body))
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("a sending thread panicked".into()))).collect()
    });
    let wrong: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err().cloned()).collect();
    let sent: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    let detail =
        format!("{} messages of 1 MiB at once, relays and client, both directions, bytes compared", routes.len());
    Ok(Check::judged("1 MiB", &wrong, detail)
        .with("packets", sent.iter().map(|sent| sent.packets).sum::<u64>())
        .with("retransmissions", sent.iter().map(|sent| sent.retransmissions).sum::<u64>())
        .with("slowest_ms", sent.iter().map(|sent| sent.latency_ms).max())
        .with("all_arrived_s", round(began.elapsed())))
}

/// How many packets the client sends in a window while it has a large message to send.
fn sending_rate(client: &Client) -> Result<Rate, Error> {
    let before = client.status()?.mix.sent;
    let began = Instant::now();
    thread::sleep(super::steady::WINDOW);
    let packets = client.status()?.mix.sent - before;
    Ok(Rate { packets, over: began.elapsed() })
}

fn pings(from: &Client, to: &Client) -> Result<Check, Error> {
    let lines = from.ping(to.peer_id(), PINGS, Duration::from_secs(10))?;
    let mut times: Vec<_> = lines.iter().filter_map(|line| line.rtt_ms).collect();
    times.sort_by(f64::total_cmp);
    let lost = PINGS as usize - times.len().min(PINGS as usize);
    let wrong = if lost == 0 { Vec::new() } else { vec![format!("{lost} of {PINGS} pings were lost")] };
    Ok(Check::judged("50 pings", &wrong, format!("{PINGS} round trips of 4 hops each way by reply block, none lost"))
        .with("lost", lost)
        .with("median_ms", times.get(times.len() / 2).map(|ms| ms.round()))
        .with("max_ms", times.last().map(|ms| ms.round())))
}

/// A message to the client while its process does not run: its mailbox keeps it, and the client finds it when it is back.
pub(super) fn client_away(stage: &mut Stage) -> Result<Check, Error> {
    let text = "kept while you were away";
    let index = stage.client();
    let invite = stage.testnet.nodes[index].client()?.invite()?;
    stage.testnet.nodes[index].stop();
    let sender = stage.testnet.nodes[1].client()?;
    let message =
        Message { to: invite, body: text.into(), anonymous: true, wait: false, timeout: Duration::from_secs(60) };
    let sent = sender.send(&message)?;
    let away = Instant::now();
    stage.testnet.nodes[index].start()?;
    expect(&stage.testnet.nodes[index].client()?, text, Duration::from_secs(30))?;
    let mut wrong = Vec::new();
    if sent.state != "stored" {
        wrong.push(format!("the sender was told `{}`, not `stored`", sent.state));
    }
    let detail = "its mailbox stored a message while it did not run, and handed it over when it came back";
    Ok(Check::judged("client away", &wrong, detail)
        .with("stored_ms", sent.latency_ms)
        .with("handed_over_s", round(away.elapsed())))
}
