//! `fog testnet scenario FILE`: what is to be done to a network, and what must hold. The format is [`Scenario`], as TOML; those that come
//! with the program are in `scenarios/`.

mod epochs;
mod steps;

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;

pub use self::epochs::Epochs;
pub(crate) use self::epochs::common_certified_set;

use crate::{Check, Error, Faults, NodePlan, Plan, Report, Testnet};

/// The scenarios that come with the program: name and text.
const BUILT_IN: [(&str, &str); 7] = [
    ("churn", include_str!("../../scenarios/churn.toml")),
    ("faulty-links", include_str!("../../scenarios/faulty-links.toml")),
    ("idle", include_str!("../../scenarios/idle.toml")),
    ("recipient-killed", include_str!("../../scenarios/recipient-killed.toml")),
    ("relays-replaced", include_str!("../../scenarios/relays-replaced.toml")),
    ("steady-epochs", include_str!("../../scenarios/steady-epochs.toml")),
    ("relay-killed", include_str!("../../scenarios/relay-killed.toml")),
];

/// A network and what is done to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// Relays.
    pub nodes: usize,
    /// Nodes without roles, after the relays.
    #[serde(default)]
    pub clients: usize,
    /// The length of an epoch.
    #[serde(default = "default_epoch")]
    pub epoch_seconds: u64,
    /// The mean delay at each mix.
    #[serde(default = "default_delay")]
    pub mean_delay_ms: u64,
    /// Cover traffic of every node.
    pub cover: Option<String>,
    /// Packets per second of every node's own.
    pub send_per_second: Option<f64>,
    /// Faults of every node's links.
    pub faults: Option<Faults>,
    /// What is done, in this order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Messages are sent; all must be acknowledged and each delivered once.
    Send(Send),
    /// A node is killed, as `kill -9` does.
    Kill(usize),
    /// A node is asked to end, and must end with exit code 0 within 5 s.
    Stop(usize),
    /// A node is started again.
    Start(usize),
    /// All nodes must agree on the snapshot within so many seconds.
    AgreeWithinS(u64),
    /// The nodes are left alone and measured.
    Rest(Rest),
    /// Epochs of the network pass, and relays may be replaced meanwhile.
    Epochs(Epochs),
}

/// Messages.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// How many, over all senders.
    pub messages: usize,
    /// The first so many nodes send.
    pub senders: usize,
    /// The nodes that receive; without it all nodes that nothing is done to meanwhile.
    pub recipients: Option<Vec<usize>>,
    /// The size of each.
    #[serde(default = "default_bytes")]
    pub bytes: usize,
    /// Messages that one sender has under way at one time.
    #[serde(default = "default_in_flight")]
    pub in_flight: usize,
    /// When a sender gives a message up.
    #[serde(default = "default_timeout")]
    pub timeout_s: u64,
    /// What is done while they are under way.
    #[serde(default)]
    pub meanwhile: Vec<Meanwhile>,
}

/// Something that is done when a fraction of the messages was acknowledged.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meanwhile {
    /// The fraction, from 0 to 1.
    pub after: f64,
    /// A node to kill.
    pub kill: Option<usize>,
    /// A node to start again.
    pub start: Option<usize>,
}

/// A measurement of nodes that are left alone.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// For how long.
    pub seconds: u64,
    /// What a node may keep in memory.
    pub memory_mib: u64,
    /// What a node may take of one core, in the mean of all.
    pub cpu_percent: f64,
}

fn default_epoch() -> u64 {
    Plan::EPOCH_SECONDS
}

fn default_delay() -> u64 {
    Plan::MEAN_DELAY_MS
}

fn default_bytes() -> usize {
    64
}

fn default_in_flight() -> usize {
    8
}

fn default_timeout() -> u64 {
    120
}

impl Scenario {
    /// Reads a file, or one that comes with the program by its name.
    pub fn load(name_or_path: &str) -> Result<Self, Error> {
        let built_in = BUILT_IN.iter().find(|(name, _)| *name == name_or_path);
        let text = match built_in {
            Some((_, text)) => (*text).to_owned(),
            None => fs::read_to_string(name_or_path).map_err(Error::file("read", name_or_path))?,
        };
        Self::parse(&text).map_err(|error| Error::Plan(format!("{name_or_path}: {error}")))
    }

    /// From its text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let scenario: Self = toml::from_str(text).map_err(|e| Error::Plan(e.to_string().trim().to_owned()))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The names of those that come with the program, and what each shows.
    pub fn list() -> Result<Vec<(String, String)>, Error> {
        BUILT_IN.iter().map(|(_, text)| Self::parse(text).map(|scenario| (scenario.name, scenario.about))).collect()
    }

    fn check(&self) -> Result<(), Error> {
        let total = self.nodes + self.clients;
        let complain = |text: String| Err(Error::Plan(text));
        let mut named = BTreeSet::new();
        for step in &self.steps {
            match step {
                Step::Send(send) => {
                    if send.messages == 0 || send.senders == 0 || send.in_flight == 0 || send.senders > total {
                        return complain("`send` needs messages, in_flight, and from 1 to all nodes as senders".into());
                    }
                    named.extend(send.recipients.iter().flatten());
                    for action in &send.meanwhile {
                        if action.kill.is_some() == action.start.is_some() || !(0.0..=1.0).contains(&action.after) {
                            return complain("`meanwhile` has `after` from 0 to 1 and either `kill` or `start`".into());
                        }
                        if action.kill.is_some_and(|node| node < send.senders) {
                            return complain("a sender that is killed cannot know what was acknowledged".into());
                        }
                        named.extend(action.kill);
                        named.extend(action.start);
                    }
                }
                Step::Kill(node) | Step::Stop(node) | Step::Start(node) => {
                    named.insert(*node);
                }
                Step::AgreeWithinS(_) | Step::Rest(_) | Step::Epochs(_) => {}
            }
        }
        match named.into_iter().find(|node| *node >= total) {
            Some(node) => complain(format!("there is no node {node}: they are 0 to {}", total.saturating_sub(1))),
            None if self.steps.is_empty() => complain("a scenario without steps shows nothing".into()),
            None => Ok(()),
        }
    }

    fn plan(&self, program: &Path, dir: &Path) -> Plan {
        let mut plan = Plan::new(program, dir, self.nodes);
        plan.nodes.extend(std::iter::repeat_n(NodePlan::client(), self.clients));
        for node in &mut plan.nodes {
            node.cover.clone_from(&self.cover);
            node.send_per_second = self.send_per_second;
            node.faults = self.faults.clone();
        }
        let spares = |step: &Step| if let Step::Epochs(epochs) = step { epochs.spares() } else { 0 };
        plan.spares = self.steps.iter().map(spares).sum();
        plan.epoch_seconds = self.epoch_seconds;
        plan.mean_delay_ms = self.mean_delay_ms;
        plan
    }

    /// Does it to a network of `program` in `dir`. `tell` gets a line at each step, `shown` each check when it was made.
    pub fn run(
        &self,
        program: &Path,
        dir: &Path,
        tell: &mut dyn FnMut(&str),
        shown: &mut dyn FnMut(&Check),
    ) -> Result<Report, Error> {
        let mut report = Report::default();
        let mut show = |check: Check| {
            shown(&check);
            report.checks.push(check);
        };
        tell(&format!("{}: {}", self.name, self.about));
        match Testnet::up(&self.plan(program, dir), tell) {
            Ok(mut testnet) => {
                let detail = format!("{} processes agree on one snapshot", testnet.nodes.len());
                show(Check::held("network", detail).with("ready_s", crate::report::round(testnet.ready)));
                for (number, step) in self.steps.iter().enumerate() {
                    tell(&format!("step {} of {}", number + 1, self.steps.len()));
                    show(step.run(number, &mut testnet));
                }
                testnet.down()?;
            }
            Err(error) => show(Check::failed("network", error.to_string())),
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_parses_and_has_its_files_name() {
        let listed = Scenario::list().unwrap();
        for ((file, _), (name, about)) in BUILT_IN.iter().zip(listed) {
            assert_eq!(*file, name);
            assert!(about.len() > 20, "{about}");
        }
    }

    #[test]
    fn a_scenario_that_names_a_node_that_is_not_there_is_refused() {
        let text = "name = 'x'\nabout = 'y'\nnodes = 4\n[[steps]]\nkill = 4\n";
        assert!(Scenario::parse(text).unwrap_err().to_string().contains("no node 4"));
        assert!(Scenario::parse(&text.replace("kill = 4", "kill = 3")).is_ok());
        assert!(Scenario::parse(&text.replace("kill", "kil")).unwrap_err().to_string().contains("kil"));
    }

    #[test]
    fn a_killed_sender_is_refused() {
        let text = "name = 'x'\nabout = 'y'\nnodes = 6\n[[steps]]\nsend = { messages = 9, senders = 2, \
                    meanwhile = [{ after = 0.5, kill = 1 }] }\n";
        assert!(Scenario::parse(text).unwrap_err().to_string().contains("sender"));
    }
}
