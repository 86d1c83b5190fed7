//! What a local network is to be, before it is.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Faults that a node injects into its own links, for tests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// The fraction of mix packets that a link loses, from 0 to 1.
    pub loss: f64,
    /// How much later each packet arrives.
    pub delay_ms: u64,
    /// The fraction of packets that change places, from 0 to 1.
    pub reorder: f64,
    /// What its worker says that tasks gave: `right`, `wrong`, `colluding` or `copy`.
    pub results: String,
    /// Whether the node records what circuits bring.
    pub record: bool,
    /// The fraction of others' circuits that this relay drops.
    pub circuits: f64,
}

impl Default for Faults {
    fn default() -> Self {
        Self { loss: 0.0, delay_ms: 0, reorder: 0.0, results: "right".into(), record: false, circuits: 0.0 }
    }
}

/// How one node is to run; what is `None` is the program's default.
#[derive(Debug, Clone, Default)]
pub struct NodePlan {
    /// `--roles`
    pub roles: Option<String>,
    /// `--cover`
    pub cover: Option<String>,
    /// `--send-per-second`
    pub send_per_second: Option<f64>,
    /// Faults of its links; none unless a scenario asks.
    pub faults: Option<Faults>,
    /// The section `[worker]` of its fog.toml; without it the host counts as idle, whatever it does.
    pub worker: Option<String>,
    /// `--probe-root`
    pub probe_root: Option<PathBuf>,
    /// Through exits.
    pub exits: Exits,
}

/// How a node treats what leads out of the network; its roles say whether it is an exit.
#[derive(Debug, Clone, Default)]
pub struct Exits {
    /// `exit.policy`
    pub policy: Option<String>,
    /// `exit.private`: addresses of this host, for others as an exit and for its own programs.
    pub private: bool,
}

/// All nodes share one host, which is busy with them: each may use half of its processors, whoever uses it meanwhile.
pub const SHARED_HOST: &str = "\
run_on_batteries = true
battery_charge_min_pct = 0
max_temperature_c = 150
run_if_user_active = true
suspend_cpu_usage_pct = 0
suspend_memory_pressure_pct = 0
start_cpu_pressure_pct = 0
start_io_pressure_pct = 0
max_ncpus_pct = 50
network_wifi_only = false
run_if_metered = true
continue_after_s = 1
";

impl NodePlan {
    /// A relay with default settings.
    pub fn relay() -> Self {
        Self::default()
    }

    /// A node that carries nothing for others.
    pub fn client() -> Self {
        Self { roles: Some("none".into()), ..Self::default() }
    }

    /// A relay that is an exit to this host's ports that `policy` accepts.
    pub fn exit(policy: &str) -> Self {
        let exits = Exits { policy: Some(policy.into()), private: true };
        Self { roles: Some("mix,guard,exit,mailbox,directory,worker".into()), exits, ..Self::default() }
    }

    /// Its proxy asks exits for addresses of this host.
    #[must_use]
    pub fn with_private_exits(self) -> Self {
        Self { exits: Exits { private: true, ..self.exits }, ..self }
    }

    /// With this cover traffic.
    #[must_use]
    pub fn with_cover(self, cover: &str) -> Self {
        Self { cover: Some(cover.into()), ..self }
    }

    /// Whether it is a relay.
    pub fn is_relay(&self) -> bool {
        self.roles.as_deref() != Some("none")
    }
}

/// How a network is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program that every node runs.
    pub program: PathBuf,
    /// Where everything is kept: the network file, the data directories, the logs.
    pub dir: PathBuf,
    /// The nodes; the first one is the others' first contact.
    pub nodes: Vec<NodePlan>,
    /// Relays with stake that are not started: they may join later.
    pub spares: usize,
    /// The length of an epoch.
    pub epoch_seconds: u64,
    /// The mean delay at each mix.
    pub mean_delay_ms: u64,
    /// How long it may take until all are ready.
    pub ready_within: Duration,
}

impl Plan {
    /// A relay needs four others for a path of the default length.
    pub const RELAYS_FOR_A_PATH: usize = 5;
    /// Nodes on one machine at most: each is a process with sockets to all others.
    pub const MAX_NODES: usize = 64;
    /// Epochs of a testnet: short enough that a demo crosses some.
    pub const EPOCH_SECONDS: u64 = 60;
    /// The mean delay of a testnet; LAN mode has the same.
    pub const MEAN_DELAY_MS: u64 = 50;

    /// `relays` nodes with default settings that run `program`.
    pub fn new(program: impl Into<PathBuf>, dir: impl Into<PathBuf>, relays: usize) -> Self {
        Self {
            program: program.into(),
            dir: dir.into(),
            nodes: vec![NodePlan::relay(); relays],
            spares: 0,
            epoch_seconds: Self::EPOCH_SECONDS,
            mean_delay_ms: Self::MEAN_DELAY_MS,
            ready_within: Duration::from_secs(60),
        }
    }

    /// Refuses what cannot be.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let count = self.nodes.len();
        if count == 0 || count > Self::MAX_NODES {
            return Err(Error::Plan(format!("a testnet has 1 to {} nodes, not {count}", Self::MAX_NODES)));
        }
        if self.nodes.first().is_some_and(|first| !first.is_relay()) {
            return Err(Error::Plan("the first node is the first contact of the others: it must be a relay".into()));
        }
        Ok(())
    }
}
