//! `fog worker`

use clap::Subcommand;
use serde::Serialize;

use super::{
    CliError, Context, TIMEOUT,
    client::Client,
    output::{fields, printable, table},
};
use crate::node::tasks::report::{Battery, Receipt, Topology, Worker};

/// What can be done with this node as a worker.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Whether this node works for others now, and why not
    Status,
    /// Take no tasks from now on; those that are here stand still
    Pause,
    /// Work again
    Resume,
    /// The workers that this node knows, and what it has there
    Topology,
    /// What was promised by the hour, and what the other side signed of it
    Receipts,
}

#[derive(Serialize)]
struct Empty {}

pub(super) fn run(context: &Context, command: &Command) -> Result<(), CliError> {
    let client = Client::open(&context.config)?;
    let timeout = context.timeout(TIMEOUT);
    let worker: Worker = match command {
        Command::Status => client.get("/v1/worker", timeout)?,
        Command::Pause => client.post("/v1/worker/pause", &Empty {}, timeout)?,
        Command::Resume => client.post("/v1/worker/resume", &Empty {}, timeout)?,
        Command::Topology => {
            let topology: Vec<Topology> = client.get("/v1/worker/topology", timeout)?;
            return context.out.value(&topology, |snapshots| newest(snapshots));
        }
        Command::Receipts => {
            let receipts: Vec<Receipt> = client.get("/v1/worker/receipts", timeout)?;
            return context.out.value(&receipts, |receipts| list(receipts));
        }
    };
    context.out.value(&worker, describe)
}

fn describe(worker: &Worker) -> String {
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".into());
    let reasons = if worker.reasons.is_empty() { "-".into() } else { printable(&worker.reasons.join("; ")) };
    fields(&[
        ("state", worker.state.clone()),
        ("eligible", if worker.eligible { "yes" } else { "no" }.into()),
        ("reasons", reasons),
        ("running", format!("{} of {} slots, {} waiting", worker.running, worker.slots, worker.queued)),
        ("speed", format!("{:.2} Gfuel/s a slot", worker.speed as f64 / 1e9)),
        (
            "cpu",
            or_unknown(
                worker
                    .cpu
                    .as_ref()
                    .map(|cpu| format!("{:.0} % by others, {:.0} % by this node", cpu.others_pct, cpu.own_pct)),
            ),
        ),
        ("battery", worker.battery.as_ref().map_or_else(|| "-".into(), battery)),
        ("hottest", or_unknown(worker.thermal.as_ref().and_then(|heat| Some(format!("{:.0} °C", heat.celsius?))))),
        ("user idle", or_unknown(worker.user_idle_s.map(|seconds| format!("{seconds} s")))),
        ("earned", format!("{} micro-credits", worker.earned)),
        ("spent", format!("{} micro-credits", worker.spent)),
        ("not known", printable(&worker.unknown.join("; "))),
    ])
}

fn battery(battery: &Battery) -> String {
    let used = match battery.on_battery {
        Some(true) => "in use",
        Some(false) => "not in use",
        None => "there",
    };
    battery.percent.map_or_else(|| used.into(), |percent| format!("{used}, at {percent:.0} %"))
}

fn newest(snapshots: &[Topology]) -> String {
    let Some(newest) = snapshots.last() else { return "nothing is known yet\n".into() };
    let rows: Vec<_> = newest
        .workers
        .iter()
        .map(|worker| {
            [
                worker.worker.clone(),
                if worker.connected { "yes" } else { "-" }.into(),
                worker.busy.to_string(),
                worker.slots.to_string(),
                format!("{:.4}", worker.credibility),
                format!("{:.4}", worker.availability),
                if worker.shunned { "yes" } else { "-" }.into(),
            ]
        })
        .collect();
    format!("{}, {} open tasks, {} earlier looks\n", newest.at, newest.open_tasks, snapshots.len() - 1)
        + &table(["WORKER", "CONNECTED", "BUSY", "SLOTS", "CREDIBILITY", "AVAILABILITY", "SHUNNED"], &rows)
}

fn list(receipts: &[Receipt]) -> String {
    if receipts.is_empty() {
        return "nothing was earned or spent yet\n".into();
    }
    let rows: Vec<[String; 6]> = receipts
        .iter()
        .map(|it| {
            let [vouchers, amount, proved] = [it.vouchers, it.amount, it.proved].map(|number| number.to_string());
            [it.hour.clone(), it.side.clone(), vouchers, amount, proved, it.peer.clone()]
        })
        .collect();
    table(["HOUR", "SIDE", "VOUCHERS", "AMOUNT", "PROVED", "PEER"], &rows)
}
