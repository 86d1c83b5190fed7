//! `node.json`: how the command line finds the node that runs on a data directory, and the token that lets it in.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{keys::sealing, platform::files};

const NAME: &str = "node.json";

/// The content of `node.json`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFile {
    /// Where the API answers: `http://127.0.0.1:PORT`.
    pub api: String,
    /// What a request must carry.
    pub token: String,
    /// The node's peer id.
    pub peer_id: String,
    /// The node's process.
    pub pid: u32,
    /// Where programs reach services and exits, if it has a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socks: Option<String>,
}

impl fmt::Debug for NodeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api, token: _, peer_id, pid, socks: _ } = self;
        f.debug_struct("NodeFile").field("api", api).field("peer_id", peer_id).field("pid", pid).finish_non_exhaustive()
    }
}

impl NodeFile {
    /// For a node of this process, with a fresh token.
    pub fn new(api: std::net::SocketAddr, peer_id: String) -> io::Result<Self> {
        let secret: [u8; 32] = sealing::random().map_err(io::Error::other)?;
        let token = data_encoding::HEXLOWER.encode(&secret);
        Ok(Self { api: format!("http://{api}"), token, peer_id, pid: std::process::id(), socks: None })
    }

    /// Reads the file of a data directory; `None` if there is none.
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(data_dir.join(NAME)) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the file, closed to others, in one step; it is removed when the guard is dropped.
    pub fn publish(self, data_dir: &Path) -> io::Result<NodeFileGuard> {
        let path = data_dir.join(NAME);
        files::replace(&path, (serde_json::to_string(&self)? + "\n").as_bytes())?;
        Ok(NodeFileGuard { path, file: self })
    }
}

/// Removes `node.json` when the node ends.
#[derive(Debug)]
pub struct NodeFileGuard {
    path: PathBuf,
    file: NodeFile,
}

impl NodeFileGuard {
    /// What was written.
    pub fn file(&self) -> &NodeFile {
        &self.file
    }
}

impl Drop for NodeFileGuard {
    fn drop(&mut self) {
        // A stale file does no harm: its port does not answer, or not to this token.
        let _left_over = files::remove_if_there(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_closed_to_others_and_gone_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(NodeFile::read(dir.path()).unwrap(), None);
        let file = NodeFile::new(([127, 0, 0, 1], 7).into(), "12D3".into()).unwrap();
        assert!(!format!("{file:?}").contains(&file.token), "the token is no one's to log");
        let guard = file.clone().publish(dir.path()).unwrap();
        assert_eq!(NodeFile::read(dir.path()).unwrap(), Some(file));
        assert_eq!(crate::platform::exposure(&dir.path().join(NAME)).unwrap(), None);
        drop(guard);
        assert_eq!(NodeFile::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn each_start_has_a_token_of_its_own() {
        let token = || NodeFile::new(([127, 0, 0, 1], 7).into(), String::new()).unwrap().token;
        let (one, other) = (token(), token());
        assert!(one != other && one.len() == 64);
    }
}
