//! From what the cores say to what the API tells.

use fog_base::NodeId;
use fog_tasks::{
    Ending, Outcome,
    core::{
        coordinator::{End, ReplicaView, Snapshot, TaskView, WorkerView},
        explain::{Explanation, Relaxation},
        harvest::Status,
        matcher::Reason,
        pay::Interval,
        worker::Load,
    },
};

use super::{driver::Driver, report};
use crate::node::inbox::rfc3339;

/// Text of a task beyond this is not in JSON: `fog task output` has all of it.
const MAX_TEXT: usize = 1024 * 1024;

/// A task; its text is told where its outcome is at hand.
pub(super) fn task(task: &TaskView, outcome: Option<&Outcome>) -> report::Task {
    let mut told = report::Task {
        id: task.id.to_string(),
        state: task.state.name().to_owned(),
        exit: None,
        ending: None,
        stdout: None,
        stdout_base64: None,
        stderr: None,
        output_hash: None,
        outputs: Vec::new(),
        replicas: task.replicas.iter().map(replica).collect(),
        verdict: None,
        credibility: None,
        placed_ms: task.placed_ms.map(|ms| ms as f64),
        total_ms: task.total_ms.map(|ms| ms as f64),
        price: task.price,
        fuel: None,
        reason: task.reason.clone(),
        work: data_encoding::HEXLOWER.encode(&task.work.0),
        submitted_at: rfc3339(task.submitted),
    };
    if let Some(End::Done { result, ending, fuel, credibility, by, .. }) = &task.end {
        told.output_hash = Some(data_encoding::HEXLOWER.encode(&result.0));
        told.fuel = Some(*fuel);
        told.credibility = Some(*credibility);
        told.verdict = Some(by.name().to_owned());
        (told.ending, told.exit) = ended(*ending);
    }
    if let Some(outcome) = outcome {
        if !outcome.detail.is_empty() {
            told.reason.get_or_insert_with(|| outcome.detail.clone());
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.get(..MAX_TEXT.min(bytes.len())).unwrap_or(bytes).to_vec());
        match text(&outcome.stdout) {
            Ok(stdout) => told.stdout = Some(stdout),
            Err(error) => told.stdout_base64 = Some(data_encoding::BASE64.encode(error.as_bytes())),
        }
        let stderr = outcome.stderr.get(..MAX_TEXT.min(outcome.stderr.len())).unwrap_or_default();
        told.stderr = Some(String::from_utf8_lossy(stderr).into_owned());
        let file =
            |(path, bytes): (&String, &Vec<u8>)| report::OutputFile { path: path.clone(), bytes: bytes.len() as u64 };
        told.outputs = outcome.outputs.iter().map(file).collect();
    }
    told
}

fn ended(ending: Ending) -> (Option<String>, Option<u32>) {
    let (name, exit) = match ending {
        Ending::Exit(code) => ("exit", Some(code)),
        Ending::Trap(_) => ("trap", None),
        Ending::OutOfFuel => ("out_of_fuel", None),
        Ending::OutputLimit => ("output_limit", None),
        Ending::BadModule => ("bad_module", None),
        Ending::Host(_) => ("host", None),
    };
    (Some(name.to_owned()), exit)
}

fn replica(replica: &ReplicaView) -> report::Replica {
    report::Replica {
        worker: replica.worker.to_string(),
        state: replica.state.to_owned(),
        fuel: replica.fuel,
        result_hash: replica.result.map(|hash| data_encoding::HEXLOWER.encode(&hash.0)),
        price: replica.paid.unwrap_or_default(),
        reason: None,
    }
}

/// What was earned and spent.
pub(super) fn accounts(driver: &Driver) -> (u64, u64) {
    (driver.worker.earned(), driver.coordinator.spent())
}

/// This node as a worker.
pub(super) fn worker(status: Option<Status>, load: Load, (earned, spent): (u64, u64), speed: u64) -> report::Worker {
    let Some(status) = status else {
        return report::Worker {
            eligible: false,
            reasons: vec!["this node does not have the role of a worker".into()],
            state: "none".into(),
            slots: 0,
            running: 0,
            queued: 0,
            speed,
            cpu: None,
            battery: None,
            thermal: None,
            user_idle_s: None,
            unknown: Vec::new(),
            earned,
            spent,
        };
    };
    // Some are handed to task processes ahead of their turn.
    let running = load.running.min(usize::try_from(status.slots).unwrap_or(usize::MAX));
    report::Worker {
        eligible: status.eligible,
        reasons: status.reasons,
        state: status.state.to_owned(),
        slots: status.slots,
        running,
        queued: load.waiting + (load.running - running),
        speed,
        cpu: status.cpu.map(|cpu| report::Cpu {
            others_pct: cpu.others_pct,
            own_pct: cpu.own_pct,
            load_1min: cpu.load_1min,
        }),
        battery: status.battery.map(|battery| report::Battery {
            on_battery: battery.on_battery,
            percent: battery.percent,
            temperature_c: battery.temperature_c,
        }),
        thermal: status.thermal.map(|thermal| report::Thermal {
            celsius: thermal.celsius,
            zone: thermal.zone,
            throttled: thermal.throttled,
        }),
        user_idle_s: status.user_idle_s,
        unknown: status.unknown,
        earned,
        spent,
    }
}

/// Which workers fit, and what would change it.
pub(super) fn explanation(explained: Explanation) -> report::Explanation {
    let reasons = |reasons: &[Reason]| reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let rejected =
        |(worker, why): &(NodeId, Vec<Reason>)| report::Rejected { worker: worker.to_string(), reason: reasons(why) };
    let relaxation = |relaxation: &Relaxation| report::Relaxation {
        change: relaxation.changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        more: relaxation.more,
    };
    report::Explanation {
        matches: explained.matches.len(),
        workers: explained.matches.iter().map(ToString::to_string).collect(),
        unknown: explained.unknown.iter().map(rejected).collect(),
        rejected: explained.rejected.iter().map(rejected).collect(),
        relaxations: explained.relaxations.iter().map(relaxation).collect(),
    }
}

/// A look at the workers.
pub(super) fn topology(snapshot: &Snapshot) -> report::Topology {
    let worker = |worker: &WorkerView| report::TopologyWorker {
        worker: worker.worker.to_string(),
        connected: worker.connected,
        rtt_ms: worker.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        slots: worker.slots,
        busy: worker.busy,
        shunned: worker.broken,
        credibility: worker.credibility,
        availability: worker.availability,
    };
    report::Topology {
        at: rfc3339(snapshot.at),
        reason: snapshot.reason.to_owned(),
        about: snapshot.worker.map(|worker| worker.to_string()),
        open_tasks: snapshot.open_tasks,
        waiting_tasks: snapshot.waiting_tasks,
        workers: snapshot.workers.iter().map(worker).collect(),
    }
}

/// What this node earned and spent, the newest first.
pub(super) fn receipts(driver: &Driver) -> Vec<report::Receipt> {
    let earned = driver.worker.accounts().map(|(peer, interval, account)| {
        let amount = account.total();
        receipt("earned", (peer, interval), account.number(), (amount, amount), account.voucher())
    });
    let spent = driver.coordinator.accounts().map(|(peer, interval, account)| {
        let amounts = (account.cumulative, account.acknowledged);
        receipt("spent", (peer, interval), account.number, amounts, &account.receipt)
    });
    let mut all: Vec<_> = earned.chain(spent).collect();
    all.sort_by(|one, other| other.hour.cmp(&one.hour));
    all
}

fn receipt(
    side: &str,
    (peer, interval): (NodeId, Interval),
    vouchers: u64,
    (amount, proved): (u64, u64),
    record: &[u8],
) -> report::Receipt {
    report::Receipt {
        peer: peer.to_string(),
        hour: rfc3339(interval.begin()),
        side: side.into(),
        vouchers,
        amount,
        proved,
        record: data_encoding::HEXLOWER.encode(record),
    }
}
