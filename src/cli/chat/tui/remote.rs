//! The node behind its local API.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task};

use super::{
    model::{Action, Event, File, Node, NodeEvent, Refusal, Reply, What},
    text::Clean,
};
use crate::{
    cli::{
        CliError,
        chat::{explain, people, told},
        client::Client,
        doctor,
    },
    config::Config,
    node::chat::report::Line,
    platform,
};

/// How long a question may take: the node answers from memory, and sends later.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connecting takes as long as the network does; joining derives a key from the password, and a file is hashed before it is offered.
const LONG: Duration = Duration::from_secs(60);
/// What `/ping` sends.
const PINGS: u32 = 3;
/// Between two attempts to follow the events.
const AGAIN: Duration = Duration::from_secs(1);
/// Entries of a folder that are looked at and offered.
const MAX_LOOKED_AT: usize = 5_000;
const MAX_PATHS: usize = 200;

/// A node reached through its API. Each question has a thread of the runtime's bounded pool.
pub(super) struct Remote {
    config: Config,
    /// A node that was started again has another port and token: then this is another client.
    client: Arc<Mutex<Arc<Client>>>,
}

impl Remote {
    /// The node of the configured data directory.
    pub(super) fn open(config: &Config) -> Result<Self, CliError> {
        let client = Arc::new(Client::open(config)?);
        Ok(Self { config: config.clone(), client: Arc::new(Mutex::new(client)) })
    }
}

fn current(client: &Mutex<Arc<Client>>) -> Arc<Client> {
    Arc::clone(&client.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Node for Remote {
    async fn ask(&self, what: What, progress: mpsc::Sender<Event>) -> Result<Reply, Refusal> {
        let client = current(&self.client);
        let config = self.config.clone();
        let asked = task::spawn_blocking(move || match what {
            What::Paths { prefix } => Ok(Reply::Paths(paths(&prefix))),
            what => ask(&config, &client, what, &progress).map_err(|error| refusal(&error)),
        });
        asked.await.unwrap_or_else(|error| {
            Err(Refusal::new(&format!("the question was lost: {error}"), "report this as a bug"))
        })
    }

    fn follow(&self, events: mpsc::Sender<Event>) {
        let (config, shared) = (self.config.clone(), Arc::clone(&self.client));
        // It waits on a socket for as long as the program runs; a thread of the pool would hold up the end.
        thread::spawn(move || {
            while !events.is_closed() {
                let opened = || offer(&events, Event::Connected);
                let ended = current(&shared).follow("/v1/chat/events", opened, |line| {
                    // An event that is not understood is of a newer node.
                    serde_json::from_value(line).map_or(Ok(()), |event: NodeEvent| offer(&events, Event::Node(event)))
                });
                let why = match ended {
                    Ok(()) => Refusal::new("it ended the stream of events", ""),
                    Err(error) => refusal(&error),
                };
                if offer(&events, Event::Disconnected(why)).is_err() {
                    return;
                }
                thread::sleep(AGAIN);
                if let Ok(client) = Client::open(&config) {
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
                }
            }
        });
    }
}

/// Hands an event over; an error when nobody listens any more.
fn offer(events: &mpsc::Sender<Event>, event: Event) -> Result<(), CliError> {
    events.blocking_send(event).map_err(|_| CliError::reader_gone())
}

fn refusal(error: &CliError) -> Refusal {
    let (message, hint) = error.parts();
    Refusal::new(message, hint)
}

fn ask(config: &Config, client: &Client, what: What, progress: &mpsc::Sender<Event>) -> Result<Reply, CliError> {
    Ok(match what {
        What::Status => Reply::Status(client.get("/v1/chat/status", PATIENCE)?),
        What::Conversations => Reply::Conversations(client.get("/v1/chat/conversations", PATIENCE)?),
        What::Contacts { .. } => Reply::Contacts(client.get("/v1/chat/contacts", PATIENCE)?),
        What::Files => Reply::Files(client.get("/v1/chat/files", PATIENCE)?),
        What::Peers => Reply::Peers(client.get("/v1/peers", PATIENCE)?),
        What::Identity => {
            let identity: Value = client.get("/v1/id", PATIENCE)?;
            Reply::Identity(Clean::new(identity.get("invite").and_then(Value::as_str).unwrap_or_default()))
        }
        What::History { to, limit } => {
            let limit = limit.to_string();
            Reply::History(client.get_with("/v1/chat/history", &[("to", &to), ("limit", &limit)], PATIENCE)?)
        }
        What::Members { to, .. } => Reply::Members(client.get_with("/v1/chat/members", &[("to", &to)], PATIENCE)?),
        What::Why { id } => {
            let why = client.get_with("/v1/chat/why", &[("id", &id)], PATIENCE)?;
            Reply::Told(Clean::new(&explain(&why)))
        }
        What::Doctor => Reply::Told(Clean::new(&doctor::report(config, &client.get("/v1/status", PATIENCE)?))),
        What::Trace { name } => {
            let trace = client.get_with("/v1/chat/trace", &[("name", &name)], PATIENCE)?;
            Reply::Told(Clean::new(people::told(&trace).trim_end()))
        }
        What::Ping { name } => Reply::Told(Clean::new(&ping(client, &name)?)),
        What::Export { to, path } => Reply::Told(Clean::new(&export(client, &to, &absolute(&path))?)),
        What::Send { to, text, via, expire, .. } => {
            let body = json!({ "to": to, "text": text, "via": via, "expire_s": expire.map(|time| time.as_secs()) });
            Reply::Sent(client.post("/v1/chat/messages", &body, PATIENCE)?)
        }
        What::Act(action) => {
            let done: Value = act(client, &here(action))?;
            // What it did is known; only some answers name more.
            Reply::Done(serde_json::from_value(done).unwrap_or_default())
        }
        What::Get { id, out } => {
            let out = out.map(|out| absolute(&out));
            let mut last = File::default();
            client.stream("/v1/chat/files/get", &json!({ "id": id, "out": out }), None, |line| {
                last = parse(line)?;
                // Progress that finds no room is followed by more.
                let _full = progress.try_send(Event::Progress(last.clone()));
                Ok(())
            })?;
            Reply::Got(last)
        }
        What::Paths { .. } | What::Redraw | What::Quit => {
            return Err(CliError::failed("not a question for the node", "report this as a bug"));
        }
    })
}

/// Round trips through the mixnet, as lines.
fn ping(client: &Client, name: &str) -> Result<String, CliError> {
    let mut lines = Vec::new();
    client.stream("/v1/mix/ping", &json!({ "to": name, "count": PINGS }), None, |line| {
        let Some(seq) = line.get("seq") else { return Ok(()) };
        let ms = line.get("rtt_ms").and_then(Value::as_f64);
        lines.push(ms.map_or_else(|| format!("{seq}: lost"), |ms| format!("{seq}: {ms:.0} ms there and back")));
        Ok(())
    })?;
    Ok(lines.join("\n"))
}

/// Writes a conversation to a file that is new, and that nobody else reads.
fn export(client: &Client, to: &str, path: &str) -> Result<String, CliError> {
    let lines: Vec<Line> = client.get_with("/v1/chat/history", &[("to", to)], LONG)?;
    let text: String = lines.iter().map(told).collect();
    platform::files::create_synced(Path::new(path), text.as_bytes()).map_err(|error| {
        let is_there = error.kind() == io::ErrorKind::AlreadyExists;
        if !is_there {
            // What was written of it is not all.
            let _gone = fs::remove_file(path);
        }
        let hint = if is_there { "name a file that is not there yet" } else { "name another place, with room" };
        CliError::failed(format!("`{path}` cannot be written: {error}"), hint)
    })?;
    Ok(format!("{} messages are in `{path}`, in plain text", lines.len()))
}

fn act<T: DeserializeOwned>(client: &Client, action: &Action) -> Result<T, CliError> {
    let (path, timeout) = match action {
        Action::Join { .. } => ("/v1/chat/rooms", LONG),
        Action::Leave { .. } => ("/v1/chat/leave", PATIENCE),
        Action::CreateGroup { .. } => ("/v1/chat/groups", PATIENCE),
        Action::Invite { .. } => ("/v1/chat/groups/invite", PATIENCE),
        Action::Accept { .. } => ("/v1/chat/groups/accept", PATIENCE),
        Action::Remove { .. } => ("/v1/chat/groups/remove", PATIENCE),
        Action::Role { .. } => ("/v1/chat/groups/role", PATIENCE),
        Action::AddContact { .. } => ("/v1/chat/contacts", PATIENCE),
        Action::Verify { .. } => ("/v1/chat/contacts/verify", PATIENCE),
        Action::Policy { .. } => ("/v1/chat/contacts/policy", PATIENCE),
        Action::Block { .. } => ("/v1/chat/contacts/block", PATIENCE),
        Action::Read { .. } => ("/v1/chat/read", PATIENCE),
        Action::SendFile { .. } => ("/v1/chat/files", LONG),
        Action::Topic { .. } => ("/v1/chat/topic", PATIENCE),
        Action::Nick { .. } => ("/v1/chat/nick", PATIENCE),
        Action::Pause { .. } => ("/v1/chat/files/pause", PATIENCE),
        Action::Connect { .. } => ("/v1/connect", LONG),
        Action::Panic {} => ("/v1/chat/panic", LONG),
    };
    client.post(path, action, timeout)
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, CliError> {
    serde_json::from_value(value).map_err(|error| {
        CliError::failed(format!("the node's answer cannot be read: {error}"), "are both of one version?")
    })
}

/// The node may run in another folder: paths are made whole here.
fn here(action: Action) -> Action {
    match action {
        Action::SendFile { to, path } => Action::SendFile { to, path: absolute(&path) },
        action => action,
    }
}

fn home(path: &str) -> Option<PathBuf> {
    let rest = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    std::env::home_dir().map(|home| home.join(rest.trim_start_matches('/')))
}

fn absolute(path: &str) -> String {
    let path = home(path).unwrap_or_else(|| path.into());
    std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned()
}

/// Files and folders whose path begins with `prefix`, folders with a slash at the end. `~` is the home folder.
fn paths(prefix: &str) -> Vec<String> {
    let (folder, name) = prefix.rsplit_once('/').map_or(("", prefix), |(folder, name)| (folder, name));
    let looked_in = home(folder).unwrap_or_else(|| match folder {
        "" => if prefix.starts_with('/') { "/" } else { "." }.into(),
        folder => folder.into(),
    });
    let entries = fs::read_dir(looked_in).into_iter().flatten().flatten();
    let fits = entries.take(MAX_LOOKED_AT).filter_map(|entry| {
        let found = entry.file_name().into_string().ok()?;
        let is_hidden = found.starts_with('.') && !name.starts_with('.');
        // A name that would change when it is drawn is not offered.
        if !found.starts_with(name) || is_hidden || *super::text::Label::new(&found) != *found {
            return None;
        }
        let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
        let folder = prefix.strip_suffix(name).unwrap_or_default();
        Some(format!("{folder}{found}{slash}"))
    });
    let mut paths: Vec<_> = fits.take(MAX_PATHS).collect();
    paths.sort();
    paths
}
