//! Chat through a node's local API.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Client, Error};

const SOON: Duration = Duration::from_secs(30);
/// A history of tens of thousands of lines, from a node that is busy.
const WHOLE_HISTORY: Duration = Duration::from_secs(120);

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ChatSent {
    /// In hex.
    pub id: String,
    /// `queued`, `sent`, `carried`, `delivered`, `read` or `failed`.
    pub state: String,
    /// The way that it took.
    pub via: Option<String>,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
}

/// A line of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ChatLine {
    /// In hex.
    pub id: String,
    /// The device that wrote it.
    pub author: String,
    /// Its number among its author's.
    pub seq: u32,
    /// The newest of each author that this one's author knew, itself included.
    pub clock: BTreeMap<String, u32>,
    /// `text`, `topic`, `membership`, `file` or `other`.
    pub kind: String,
    /// What it says.
    pub text: String,
    /// What it waits for, or how far it is.
    pub state: String,
    /// Whether something before it is missing.
    pub gap_before: bool,
}

/// A file that was offered or fetched.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ChatFile {
    /// The message.
    pub id: String,
    /// Where it is.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Peers that sent a part.
    pub sources: u64,
}

impl Client {
    fn first<T: DeserializeOwned>(&self, path: &str, body: &Value, limit: Duration) -> Result<T, Error> {
        let values: Vec<T> = self.post(path, body, limit)?;
        values.into_iter().next().ok_or_else(|| self.refused(path, "an empty answer".into()))
    }

    /// Enters a room; with a password one that is closed by it.
    pub fn chat_join(&self, room: &str, password: Option<&str>) -> Result<(), Error> {
        self.first::<Value>("/v1/chat/rooms", &json!({ "name": room, "password": password }), SOON).map(drop)
    }

    /// Creates a group, `&name`.
    pub fn chat_group(&self, name: &str) -> Result<(), Error> {
        self.first::<Value>("/v1/chat/groups", &json!({ "name": name }), SOON).map(drop)
    }

    /// Invites a contact into a group.
    pub fn chat_invite(&self, group: &str, contact: &str) -> Result<(), Error> {
        self.first::<Value>("/v1/chat/groups/invite", &json!({ "group": group, "peer": contact }), SOON).map(drop)
    }

    /// Adds somebody by their invite.
    pub fn chat_contact(&self, invite: &str, name: &str) -> Result<(), Error> {
        self.first::<Value>("/v1/chat/contacts", &json!({ "invite": invite, "name": name }), SOON).map(drop)
    }

    /// Sends a message; waits so long until it was delivered, if at all.
    pub fn chat_send(&self, to: &str, text: &str, via: &str, wait: Option<Duration>) -> Result<ChatSent, Error> {
        let limit = wait.unwrap_or(SOON);
        let body = json!({ "to": to, "text": text, "via": via, "wait": wait.is_some(), "timeout_s": limit.as_secs() });
        self.first("/v1/chat/messages", &body, limit)
    }

    /// Says what a room or group is about.
    pub fn chat_topic(&self, to: &str, topic: &str) -> Result<ChatSent, Error> {
        self.first("/v1/chat/topic", &json!({ "to": to, "topic": topic }), SOON)
    }

    /// What a conversation is about, if somebody said so.
    pub fn chat_topic_of(&self, to: &str) -> Result<Option<String>, Error> {
        let all: Vec<Value> = self.list_within("/v1/chat/conversations", SOON)?;
        let found = all.iter().find(|one| one["to"] == to);
        Ok(found.and_then(|one| one["topic"].as_str()).map(str::to_owned))
    }

    /// A conversation, oldest first.
    pub fn chat_history(&self, to: &str) -> Result<Vec<ChatLine>, Error> {
        let to = to.replace('#', "%23").replace('&', "%26");
        self.list_within(&format!("/v1/chat/history?to={to}"), WHOLE_HISTORY)
    }

    /// What happens from now on, for so long or until the node ends: `each` gets every event.
    pub fn chat_events(&self, limit: Duration, each: &mut dyn FnMut(&Value)) -> Result<(), Error> {
        self.follow("/v1/chat/events", limit, each)
    }

    /// Offers a file.
    pub fn chat_file_send(&self, to: &str, path: &Path) -> Result<ChatFile, Error> {
        let body = json!({ "to": to, "path": path.display().to_string() });
        self.first("/v1/chat/files", &body, Duration::from_secs(300))
    }

    /// Fetches a file into a folder.
    pub fn chat_file_get(&self, id: &str, out: &Path) -> Result<ChatFile, Error> {
        let body = json!({ "id": id, "out": out.display().to_string() });
        let lines: Vec<Value> = self.post("/v1/chat/files/get", &body, Duration::from_secs(300))?;
        let last = lines.into_iter().last().unwrap_or_default();
        serde_json::from_value(last).map_err(|error| self.refused("POST /v1/chat/files/get", error.to_string()))
    }
}
