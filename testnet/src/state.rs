//! The state file of a network that runs: what `fog testnet up` prints, and what `down` needs to end it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{Error, Process};

const FILE: &str = "testnet.json";
/// What a node may take to end by itself; then it is killed.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// A network that runs, or ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Where it keeps everything.
    pub dir: PathBuf,
    /// Its network file.
    pub network: PathBuf,
    /// Its processes.
    pub nodes: Vec<NodeState>,
    /// How long it took until all were ready.
    pub ready_s: f64,
}

/// One process of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeState {
    /// From 0.
    pub index: usize,
    /// Who it is.
    pub peer_id: String,
    /// Its keys, its store, its log.
    pub data_dir: PathBuf,
    /// Where its API listens.
    pub api: String,
    /// Where its SOCKS proxy listens; null while nodes have none.
    pub socks: Option<String>,
    /// Its process.
    pub pid: u32,
    /// When that process began, in Unix seconds: with it, a pid that was used again is not taken for the node.
    pub started: u64,
    /// To start it again by hand.
    pub command: Vec<String>,
}

impl State {
    /// The network that was brought up in `dir`.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Error::Missing { dir: dir.to_owned() }),
            Err(e) => return Err(Error::file("read", path)(e)),
        };
        serde_json::from_str(&text).map_err(|e| Error::file("read", path)(e.into()))
    }

    /// Writes it whole or not at all.
    pub(crate) fn write(&self) -> Result<(), Error> {
        let path = self.dir.join(FILE);
        let unfinished = self.dir.join("testnet.json.new");
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file("write", &path)(e.into()))?;
        fs::write(&unfinished, text + "\n").map_err(Error::file("write", &unfinished))?;
        fs::rename(&unfinished, &path).map_err(Error::file("write", path))
    }

    /// Forgets it.
    pub(crate) fn remove(dir: &Path) -> Result<(), Error> {
        match fs::remove_file(dir.join(FILE)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", dir.join(FILE))(e)),
            _ => Ok(()),
        }
    }

    /// Those of its processes that still run.
    pub(crate) fn running(&self) -> Vec<Process> {
        self.nodes.iter().filter_map(NodeState::process).collect()
    }
}

impl NodeState {
    /// The process, if it still runs: the one that the state names, or one that was started again by hand in the same data directory
    /// and says so in its `node.json`.
    fn process(&self) -> Option<Process> {
        let named = Process::find(self.pid, self.started, &self.data_dir);
        named.or_else(|| {
            let again = crate::Client::open(self.index, &self.data_dir).ok()?;
            Process::find_in(again.pid(), &self.data_dir)
        })
    }
}

/// Ends the network in `dir`: every process that still is one of its nodes, and no other. Data directories stay. Yields how many
/// processes it ended.
pub fn down(dir: &Path) -> Result<usize, Error> {
    let state = State::read(dir)?;
    let mut processes = state.running();
    end_all(processes.iter_mut());
    State::remove(dir)?;
    Ok(processes.len())
}

/// Asks all of them to end before it waits for any. Yields how each ended.
pub(crate) fn end_all<'a>(processes: impl Iterator<Item = &'a mut Process>) -> Vec<crate::process::End> {
    let mut processes: Vec<_> = processes.collect();
    for process in &mut processes {
        process.ask_to_end();
    }
    thread::scope(|scope| {
        let waiting: Vec<_> = processes.into_iter().map(|process| scope.spawn(|| process.await_end(GRACE))).collect();
        waiting.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_back_and_a_missing_one_is_said_to_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(State::read(dir.path()), Err(Error::Missing { .. })));
        let node = NodeState {
            index: 0,
            peer_id: "12D3Koo".into(),
            data_dir: dir.path().join("node-0"),
            api: "http://127.0.0.1:1".into(),
            socks: None,
            pid: 1,
            started: 2,
            command: vec!["fog".into(), "run".into()],
        };
        let state = State { dir: dir.path().into(), network: dir.path().join("n"), nodes: vec![node], ready_s: 1.5 };
        state.write().unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), state);
    }

    #[test]
    fn down_never_touches_a_process_that_only_has_the_pid() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeState {
            index: 0,
            peer_id: String::new(),
            data_dir: dir.path().join("node-0"),
            api: String::new(),
            socks: None,
            pid: std::process::id(),
            started: 1,
            command: Vec::new(),
        };
        let state = State { dir: dir.path().into(), network: dir.path().into(), nodes: vec![node], ready_s: 0.0 };
        state.write().unwrap();
        assert_eq!(down(dir.path()).unwrap(), 0, "this test is not a node");
    }
}
