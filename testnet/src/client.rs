//! A client of one node's local API: what `fog` itself does on its command line, for many requests at once.
//!
//! Only the fields that the testnet reads are named here; a node may answer with more.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use ureq::{Agent, http};

use crate::Error;

/// A status or a list is answered at once, or something is wrong.
const QUICK: Duration = Duration::from_secs(10);
/// What a request that the node itself limits may take longer than that limit.
const MARGIN: Duration = Duration::from_secs(10);

/// Asks one running node.
#[derive(Debug, Clone)]
pub struct Client {
    index: usize,
    api: String,
    token: String,
    peer_id: String,
    pid: u32,
    socks: Option<String>,
    agent: Agent,
}

#[derive(Deserialize)]
struct NodeFile {
    api: String,
    token: String,
    peer_id: String,
    pid: u32,
    #[serde(default)]
    socks: Option<String>,
}

/// Of `fog status`.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// `starting`, `joining`, `ready` or `stopping`.
    pub state: String,
    /// Connected peers.
    pub peers: Connected,
    /// Known relays.
    pub relays: Relays,
    /// Root of the relay snapshot.
    pub snapshot_root: String,
    /// The mixnet.
    pub mix: Mix,
    /// The running epoch.
    pub epoch: EpochNow,
}

/// `fog relays snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    /// The epoch that it serves.
    pub epoch: u32,
    /// How many relays it has.
    pub relays: usize,
    /// Its root.
    pub root: String,
    /// Whether relays signed it.
    pub certified: bool,
    /// How many did.
    pub signatures: usize,
    /// Their weight.
    pub signed_weight: u64,
    /// The weight of all.
    pub total_weight: u64,
}

/// `fog relays verify`.
#[derive(Debug, Clone, Deserialize)]
pub struct Seat {
    /// Whether ticket and seat are valid.
    pub proof_ok: bool,
    /// Whether it has a seat.
    pub seated: bool,
}

/// A line of `fog relays`.
#[derive(Debug, Clone, Deserialize)]
struct Relay {
    peer_id: String,
    seated: bool,
}

/// Of `status.peers`.
#[derive(Debug, Clone, Deserialize)]
pub struct Connected {
    /// All of them.
    pub connected: usize,
}

/// Of `status.relays`.
#[derive(Debug, Clone, Deserialize)]
pub struct Relays {
    /// With a valid descriptor.
    pub known: usize,
}

/// Of `status.epoch`.
#[derive(Debug, Clone, Deserialize)]
pub struct EpochNow {
    /// Its number.
    pub number: u32,
    /// Seconds until the next.
    pub ends_in_s: u64,
}

/// Of `status.mix`.
#[derive(Debug, Clone, Deserialize)]
pub struct Mix {
    /// Whether a path can be built now.
    pub ready: bool,
    /// Packets sent on to a next hop.
    pub forwarded: u64,
    /// Packets of the node's own that left, cover included.
    pub sent: u64,
    /// Cover that left.
    pub cover_sent: u64,
    /// Drops by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// A line of `fog reputation`.
#[derive(Debug, Clone, Deserialize)]
pub struct Reputation {
    /// Whose.
    pub peer_id: String,
    /// `correctness`, `availability` or `rating`.
    pub kind: String,
    /// The expected probability.
    pub mean: f64,
    /// Its lower bound.
    pub lower: f64,
    /// Its upper bound.
    pub upper: f64,
    /// The weight of the evidence.
    pub evidence: f64,
}

/// A message to send.
#[derive(Debug, Clone)]
pub struct Message {
    /// Peer id or invite.
    pub to: String,
    /// What it says.
    pub body: String,
    /// Whether the sender stays unnamed.
    pub anonymous: bool,
    /// Whether a mailbox's receipt is not enough.
    pub wait: bool,
    /// When the node is to give up.
    pub timeout: Duration,
}

/// The end of `fog mix send`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sent {
    /// `delivered`, `stored` or `failed`.
    pub state: String,
    /// Whether the recipient's node accepted it.
    pub acked: bool,
    /// Why it failed.
    pub reason: Option<String>,
    /// From the command to that state.
    pub latency_ms: u64,
    /// First transmissions.
    pub packets: u64,
    /// Later ones.
    pub retransmissions: u64,
}

/// A message that came.
#[derive(Debug, Clone, Deserialize)]
pub struct Received {
    /// Who signed it; `None` if nobody did.
    pub from: Option<String>,
    /// If it is UTF-8.
    #[serde(default)]
    pub text: Option<String>,
    /// Its size.
    pub bytes: u64,
}

/// A line of `fog mix ping`.
#[derive(Debug, Clone, Deserialize)]
pub struct PingLine {
    /// `None` if it was lost.
    pub rtt_ms: Option<f64>,
}

impl Client {
    /// The client of the node whose data directory this is, from its `node.json`.
    pub fn open(index: usize, data_dir: &Path) -> Result<Self, Error> {
        let path: PathBuf = data_dir.join("node.json");
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let file: NodeFile = serde_json::from_str(&text).map_err(|e| Error::Api {
            index,
            request: "node.json".into(),
            detail: e.to_string(),
        })?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(QUICK))
            .proxy(None)
            .max_redirects(0)
            .build();
        let (api, token) = (file.api, file.token);
        Ok(Self { index, api, token, peer_id: file.peer_id, pid: file.pid, socks: file.socks, agent: config.into() })
    }

    /// Where the API listens.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// Who the node is.
    pub fn peer_id(&self) -> &str {
        &self.peer_id
    }

    /// The process that wrote `node.json`.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where the SOCKS proxy listens, if there is one.
    pub fn socks(&self) -> Option<&str> {
        self.socks.as_deref()
    }

    /// `fog status`
    pub fn status(&self) -> Result<Status, Error> {
        self.get("/v1/status")
    }

    /// `fog reputation`
    pub fn reputation(&self) -> Result<Vec<Reputation>, Error> {
        self.list("/v1/reputation")
    }

    /// `fog relays snapshot`
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        self.get("/v1/relays/snapshot")
    }

    /// The ids of `fog relays`.
    pub fn relays(&self) -> Result<Vec<String>, Error> {
        let relays: Vec<Relay> = self.list("/v1/relays")?;
        Ok(relays.into_iter().map(|relay| relay.peer_id).collect())
    }

    /// `fog relays verify`
    pub fn verify_seat(&self, peer: &str) -> Result<Seat, Error> {
        self.get(&format!("/v1/relays/{peer}/seat"))
    }

    /// Whether a relay has a seat now, by `fog relays`.
    pub fn is_seated(&self, peer: &str) -> Result<bool, Error> {
        let relays: Vec<Relay> = self.list("/v1/relays")?;
        Ok(relays.iter().any(|relay| relay.peer_id == peer && relay.seated))
    }

    /// What `fog id` prints as `invite`.
    pub fn invite(&self) -> Result<String, Error> {
        let id: Value = self.get("/v1/id")?;
        let invite = id.get("invite").and_then(Value::as_str);
        invite.map(str::to_owned).ok_or_else(|| self.refused("GET /v1/id", "no invite in the answer".into()))
    }

    /// `fog mix send`, to its end.
    pub fn send(&self, message: &Message) -> Result<Sent, Error> {
        let request = json!({
            "to": message.to,
            "text": message.body,
            "anonymous": message.anonymous,
            "wait": message.wait,
            "timeout_s": message.timeout.as_secs(),
        });
        let lines: Vec<Value> = self.post("/v1/mix/send", &request, message.timeout)?;
        let last = lines.into_iter().next_back().unwrap_or(Value::Null);
        serde_json::from_value(last.clone()).map_err(|_| self.refused("POST /v1/mix/send", explain(&last)))
    }

    /// `fog mix recv`: what was not read yet.
    pub fn receive(&self) -> Result<Vec<Received>, Error> {
        self.post("/v1/mix/recv", &json!({}), QUICK)
    }

    /// `fog mix ping -c count`
    pub fn ping(&self, to: &str, count: u32, each: Duration) -> Result<Vec<PingLine>, Error> {
        let request = json!({ "to": to, "count": count, "timeout_s": each.as_secs() });
        let lines: Vec<Value> = self.post("/v1/mix/ping", &request, each * count)?;
        let pings = lines.into_iter().filter(|line| line.get("seq").is_some());
        pings
            .map(|line| serde_json::from_value(line).map_err(|e| self.refused("POST /v1/mix/ping", e.to_string())))
            .collect()
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Error> {
        self.list_within(path, QUICK)
    }

    pub(crate) fn list_within<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<Vec<T>, Error> {
        let request = self.agent.get(format!("{}{path}", self.api)).header("Authorization", self.bearer());
        let sent = request.config().timeout_global(Some(limit)).build().call();
        self.lines(&format!("GET {path}"), sent)
    }

    /// Reads lines as they come, until the node ends them or `limit` is over.
    pub(crate) fn follow(&self, path: &str, limit: Duration, each: &mut dyn FnMut(&Value)) -> Result<(), Error> {
        let request = self.agent.get(format!("{}{path}", self.api)).header("Authorization", self.bearer());
        let sent = request.config().timeout_global(Some(limit)).build().call();
        let response = sent.map_err(|e| self.refused(path, e.to_string()))?;
        let reader = BufReader::new(response.into_body().into_with_config().limit(u64::MAX).reader());
        for line in reader.lines().map_while(Result::ok) {
            if !line.trim().is_empty() {
                each(&serde_json::from_str(&line).map_err(|e| self.refused(path, e.to_string()))?);
            }
        }
        Ok(())
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let values: Vec<T> = self.list(path)?;
        values.into_iter().next().ok_or_else(|| self.refused(path, "an empty answer".into()))
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &Value, limit: Duration) -> Result<Vec<T>, Error> {
        let request = self.agent.post(format!("{}{path}", self.api)).header("Authorization", self.bearer());
        let sent = request.config().timeout_global(Some(limit + MARGIN)).build().send_json(body);
        self.lines(&format!("POST {path}"), sent)
    }

    /// The JSON values of an answer: one, or one per line.
    fn lines<T: DeserializeOwned>(
        &self,
        request: &str,
        sent: Result<http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Vec<T>, Error> {
        let mut response = sent.map_err(|e| self.refused(request, e.to_string()))?;
        if !response.status().is_success() {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            let detail = serde_json::from_str(&text).map_or(text, |value| explain(&value));
            return Err(self.refused(request, format!("{}: {detail}", response.status())));
        }
        let reader = BufReader::new(response.into_body().into_with_config().limit(u64::MAX).reader());
        let mut values = Vec::new();
        for line in reader.lines() {
            let line = line.map_err(|e| self.refused(request, e.to_string()))?;
            if line.trim().is_empty() {
                continue;
            }
            let value: Value = serde_json::from_str(&line).map_err(|e| self.refused(request, e.to_string()))?;
            if value.get("error").is_some() {
                return Err(self.refused(request, explain(&value)));
            }
            match value {
                Value::Array(items) => values.extend(items),
                value => values.push(value),
            }
        }
        let parsed = values.into_iter().map(serde_json::from_value).collect::<Result<_, _>>();
        parsed.map_err(|e| self.refused(request, e.to_string()))
    }

    pub(crate) fn refused(&self, request: &str, detail: String) -> Error {
        Error::Api { index: self.index, request: request.to_owned(), detail }
    }
}

/// An error body of the API in one line.
fn explain(value: &Value) -> String {
    let part = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    match (part("error"), part("hint")) {
        ("", _) => value.to_string(),
        (error, "") => error.to_owned(),
        (error, hint) => format!("{error} ({hint})"),
    }
}
