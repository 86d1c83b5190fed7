//! Tasks and workers as JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A task that this node submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// 32 hex digits.
    pub id: String,
    /// `offered`, `placed`, `staging`, `running`, `verifying`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// The module's exit code, if it exited.
    pub exit: Option<u32>,
    /// How the run ended: `exit`, `trap`, `out_of_fuel`, `output_limit` or `bad_module`.
    pub ending: Option<String>,
    /// What it wrote to standard output; `null` in lists, and where it is not UTF-8.
    pub stdout: Option<String>,
    /// The same where it is not UTF-8, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// What it wrote to standard error, read as UTF-8.
    pub stderr: Option<String>,
    /// The hash of ending, fuel and all output.
    pub output_hash: Option<String>,
    /// Files under `/out`.
    pub outputs: Vec<OutputFile>,
    /// Who runs, or ran it.
    pub replicas: Vec<Replica>,
    /// Why the result is believed, or is not yet.
    pub verdict: Option<String>,
    /// How sure the result is, from 0 to 1.
    pub credibility: Option<f64>,
    /// From submission until a worker had agreed.
    pub placed_ms: Option<f64>,
    /// From submission until the end.
    pub total_ms: Option<f64>,
    /// What was paid for it, in micro-credits.
    pub price: u64,
    /// Units of fuel of one run.
    pub fuel: Option<u64>,
    /// Why it is not done.
    pub reason: Option<String>,
    /// What is computed: the hash of module, inputs and limits.
    pub work: String,
    /// RFC 3339.
    pub submitted_at: String,
}

/// A file that a task wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputFile {
    /// Its path under `/out`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// One execution of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Replica {
    /// The node that runs it.
    pub worker: String,
    /// Where it is.
    pub state: String,
    /// What it used.
    pub fuel: Option<u64>,
    /// What it gave.
    pub result_hash: Option<String>,
    /// Micro-credits that it was paid.
    pub price: u64,
    /// Why it gave nothing.
    pub reason: Option<String>,
}

/// A task that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// 32 hex digits.
    pub id: String,
}

/// Files that were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// The task.
    pub id: String,
    /// The folder.
    pub dir: String,
    /// What is in it now.
    pub files: Vec<OutputFile>,
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// The node that runs it.
    pub worker: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// What it wrote, read as UTF-8.
    pub text: String,
}

/// Which offers fit a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Workers that fit.
    pub matches: usize,
    /// Who they are.
    pub workers: Vec<String>,
    /// Those that may, and what is not known of them.
    pub unknown: Vec<Rejected>,
    /// Those that do not, and why.
    pub rejected: Vec<Rejected>,
    /// What to ask less of, cheapest first.
    pub relaxations: Vec<Relaxation>,
}

/// A worker that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rejected {
    /// Its node.
    pub worker: String,
    /// Why, in words.
    pub reason: String,
}

/// A way to find more workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Relaxation {
    /// What to change, in words.
    pub change: String,
    /// How many more workers fit then.
    pub more: usize,
}

/// This node as a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Whether it takes tasks now.
    pub eligible: bool,
    /// Why not, in words.
    pub reasons: Vec<String>,
    /// `eligible`, `suspended`, `vacating` or `stopped`; `none` if the node is no worker.
    pub state: String,
    /// Tasks that may run at once.
    pub slots: u32,
    /// Tasks that run.
    pub running: usize,
    /// Tasks that wait.
    pub queued: usize,
    /// Units of fuel per second of a slot, as measured by what ran; 0 until something did.
    pub speed: u64,
    /// The processors; `null` where the host does not tell.
    pub cpu: Option<Cpu>,
    /// Power; `null` without a battery, and where the host does not tell.
    pub battery: Option<Battery>,
    /// Heat; `null` where the host does not tell.
    pub thermal: Option<Thermal>,
    /// Seconds since the host's user last did something.
    pub user_idle_s: Option<u64>,
    /// What the host does not say, and why.
    pub unknown: Vec<String>,
    /// Micro-credits that others owe this node, and that it owes them.
    pub earned: u64,
    /// What it spent.
    pub spent: u64,
}

/// The processors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cpu {
    /// What others use, smoothed over ten seconds, in percent of all processors.
    pub others_pct: f64,
    /// What this node and its tasks use.
    pub own_pct: f64,
    /// The load average of a minute.
    pub load_1min: Option<f64>,
}

/// Power.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Battery {
    /// Whether the host is on it.
    pub on_battery: Option<bool>,
    /// Charge in percent.
    pub percent: Option<f64>,
    /// Degrees Celsius.
    pub temperature_c: Option<f64>,
}

/// Heat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Thermal {
    /// Degrees Celsius of the hottest place.
    pub celsius: Option<f64>,
    /// How the host calls it.
    pub zone: Option<String>,
    /// Whether a processor was slowed down by its heat.
    pub throttled: Option<bool>,
}

/// What this node knew of workers and tasks at some moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Topology {
    /// RFC 3339.
    pub at: String,
    /// Why it was noted: `worker_new`, `worker_gone`, `worker_failed`, or `asked` for how it is now, which comes last.
    pub reason: String,
    /// About whom.
    pub about: Option<String>,
    /// Tasks that have not ended.
    pub open_tasks: usize,
    /// Those that wait for a worker.
    pub waiting_tasks: usize,
    /// The workers, those that are busy first; at most 256.
    pub workers: Vec<TopologyWorker>,
}

/// A worker in a topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyWorker {
    /// Its node.
    pub worker: String,
    /// Whether there is a connection; a node's own worker needs none.
    pub connected: bool,
    /// To it and back.
    pub rtt_ms: Option<f64>,
    /// Slots that it offers.
    pub slots: usize,
    /// Executions that it has of this node.
    pub busy: usize,
    /// Whether it is left alone for a while, as it failed.
    pub shunned: bool,
    /// How likely its next result is right, from 0 to 1.
    pub credibility: f64,
    /// How likely it ends what it takes on, from 0 to 1.
    pub availability: f64,
}

/// What one side promised to the other in an hour, and what the other side signed of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The other node.
    pub peer: String,
    /// When the hour began; RFC 3339.
    pub hour: String,
    /// `earned` by this node's worker, or `spent` for this node's tasks.
    pub side: String,
    /// The number of the last voucher.
    pub vouchers: u64,
    /// Micro-credits that they promise together.
    pub amount: u64,
    /// How much of that the record proves.
    pub proved: u64,
    /// What the peer signed, as hex digits: its last voucher if it was earned, its last acknowledgement if it was spent. Empty if none came.
    pub record: String,
}

/// Tasks that were placed together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Batch {
    /// The tasks, in the order of the file.
    pub ids: Vec<String>,
    /// The points from which one was chosen, by their objectives.
    pub pareto: Vec<Objectives>,
    /// The one that was chosen.
    pub chosen: Option<Objectives>,
    /// Which worker gets each task, in the order of the file.
    pub placement: Vec<Option<String>>,
    /// How long placing took.
    pub placed_ms: f64,
}

/// What a placement of many tasks costs; less is better in each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Objectives {
    /// Until the last task ends, in seconds.
    pub makespan_s: f64,
    /// Micro-credits.
    pub price: f64,
    /// Joules.
    pub energy_j: f64,
    /// Tasks that are expected to fail.
    pub unreliability: f64,
    /// Bytes that must be moved.
    pub moved_bytes: f64,
}
