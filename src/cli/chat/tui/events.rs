//! What the node says: answers and events become state. Pure.

use std::{collections::BTreeSet, time::Duration};

use super::{
    app::{App, JOIN_EVERY, LOBBY},
    model::{
        Action, Ask, Contact, Conversation, Done, Event, File, Kind, Member, Message, NodeEvent, Refusal, Reply, What,
    },
    palette,
    room::{Entry, PAGE},
    text::{Clean, Label},
};

/// Transfers whose progress is shown.
const MAX_TRANSFERS: usize = 16;
/// Names in the greeting.
const MAX_GREETED: usize = 8;

impl App {
    /// Something came from outside.
    pub(super) fn handle_event(&mut self, event: Event) -> Vec<Ask> {
        match event {
            Event::Connected => {
                self.is_following = true;
                self.broken = None;
                self.wants_conversations = true;
                // What happened meanwhile is not in the stream.
                for room in &mut self.rooms {
                    room.is_stale |= room.is_loaded;
                }
                vec![self.ask(What::Contacts { is_asked_for: false })]
            }
            Event::Disconnected(why) => {
                self.is_following = false;
                self.broken = Some(why);
                Vec::new()
            }
            Event::Node(event) => self.node_event(event),
            Event::Progress(file) => {
                if self.transfers.len() < MAX_TRANSFERS || self.transfers.contains_key(&file.id) {
                    self.transfers.insert(file.id.clone(), file);
                }
                Vec::new()
            }
            Event::Answer { ask, reply } => {
                match &ask.what {
                    What::Status => self.is_status_asked = false,
                    What::History { .. } => self.is_history_asked = false,
                    What::Get { id, .. } => drop(self.transfers.remove(id)),
                    _ => {}
                }
                match reply {
                    Ok(reply) => self.reply(ask, reply),
                    Err(refusal) => self.refusal(&ask, refusal),
                }
            }
        }
    }

    fn node_event(&mut self, event: NodeEvent) -> Vec<Ask> {
        match event {
            NodeEvent::Message { to, message } => self.message(&to, message),
            NodeEvent::Retracted { to, id } => {
                if let Some(room) = self.room_mut(&to) {
                    room.retract(&id);
                }
            }
            NodeEvent::State(sent) => {
                let is_here = self.rooms.iter_mut().any(|room| room.state(&sent));
                if is_here && !self.has_explained && sent.state.mark() != "·" {
                    self.has_explained = true;
                    self.note("· queued  → sent  ◇ carried  ✓ delivered  ✓✓ read  ✗ failed, and why");
                }
            }
            NodeEvent::Members { to } => {
                self.wants_conversations = true;
                if to == self.current {
                    return vec![self.ask(What::Members { to, is_asked_for: false })];
                }
            }
            NodeEvent::Notice { to, text } => {
                let to = to.unwrap_or_else(|| self.current.clone());
                self.note_at(&to, &text);
            }
            NodeEvent::Other => {}
        }
        Vec::new()
    }

    fn message(&mut self, to: &str, message: Message) {
        let status = self.status.as_ref();
        let is_mine = status.is_some_and(|status| status.device == message.author);
        let my_name = status.map(|status| status.name.to_lowercase()).filter(|name| !name.is_empty());
        let is_mention = !is_mine && my_name.is_some_and(|name| message.text.to_lowercase().contains(&name));
        let is_seen = to == self.current && self.scroll == 0;
        // Their list tells the topics.
        self.wants_conversations |= self.room(to).is_none() || message.kind == "topic";
        let Some(room) = self.enter(to) else { return };
        let is_direct = room.kind == Kind::Direct;
        if !room.is_loaded && !is_seen {
            // The node counts what is unread where nothing is shown.
            room.is_mentioned |= is_mention && !room.is_muted;
            self.wants_conversations = true;
        } else {
            if !is_seen && !is_mine && room.unread == 0 {
                room.mark_new();
            }
            let is_new = room.message(message, is_mine);
            if is_new && !is_mine && !is_seen {
                room.unread = room.unread.saturating_add(1);
                room.is_mentioned |= is_mention && !room.is_muted;
            }
            self.wants_read |= is_new && !is_mine && to == self.current;
            if is_new && to == self.current {
                self.scroll_past(1);
            }
        }
        if is_direct && !is_mine {
            self.last_direct = Some(to.to_owned());
        }
    }

    fn reply(&mut self, ask: Ask, reply: Reply) -> Vec<Ask> {
        match (ask.what, reply) {
            (What::Status, Reply::Status(status)) => {
                self.status = Some(status);
                self.broken = self.broken.take().filter(|_| !self.is_following);
                return self.join_lobby();
            }
            (_, Reply::Conversations(conversations)) => return self.conversations(&conversations),
            (What::Contacts { is_asked_for }, Reply::Contacts(contacts)) => {
                self.contacts = contacts;
                if is_asked_for {
                    self.show_contacts(&ask.at);
                }
            }
            (_, Reply::Files(files)) => self.show_files(&ask.at, files),
            (_, Reply::Peers(peers)) => {
                let line = |peer: &super::model::Peer| {
                    let rtt = peer.rtt_ms.map_or_else(|| "not measured".to_owned(), |rtt| format!("{rtt:.0} ms"));
                    format!("{} {} {rtt}", peer.peer_id, peer.path)
                };
                self.list(&ask.at, "no connections: /connect ADDRESS", peers.iter().map(line));
            }
            (_, Reply::Identity(invite)) => {
                let said =
                    "Give this to whoever wants to reach you; they type /add and it. `fog id` prints it for copying.";
                self.note_at(&ask.at, &format!("{said}\n{invite}"));
            }
            (What::History { to, .. }, Reply::History(history)) => {
                if let Some(room) = self.room_mut(&to) {
                    room.replace(history);
                }
                self.clamp_scroll();
            }
            (What::Members { to, is_asked_for }, Reply::Members(members)) => {
                self.show_members(&to, members, is_asked_for)
            }
            (What::Send { number, to, .. }, Reply::Sent(sent)) => {
                let status = self.status.clone().unwrap_or_default();
                let mine = Message { author: status.device, name: status.name, ..Message::default() };
                if let Some(room) = self.room_mut(&to) {
                    room.taken(number, &sent, mine);
                }
            }
            (What::Act(action), Reply::Done(done)) => return self.done(&ask.at, action, done),
            (_, Reply::Told(text)) => self.note_at(&ask.at, &text),
            (_, Reply::Got(file)) => {
                let path = file.path.unwrap_or_default();
                self.note_at(&ask.at, &format!("fetched and verified: {path} ({} bytes)", file.bytes));
            }
            (What::Paths { prefix }, Reply::Paths(paths)) if palette::path(self.input.before()) == Some(&*prefix) => {
                self.paths = paths;
                let known = self.known();
                self.palette.refresh(palette::offers(self.input.before(), &known));
            }
            _ => {}
        }
        Vec::new()
    }

    fn join_lobby(&mut self) -> Vec<Ask> {
        let is_joined = self.room(LOBBY).is_some_and(|room| room.kind != Kind::Unknown);
        if !self.has_conversations || is_joined || self.now < self.next_join {
            return Vec::new();
        }
        self.next_join = self.now + JOIN_EVERY;
        vec![self.ask(What::Act(Action::Join { name: LOBBY.to_owned(), password: None }))]
    }

    fn conversations(&mut self, conversations: &[Conversation]) -> Vec<Ask> {
        self.has_conversations = true;
        for conversation in conversations {
            if let Some(room) = self.enter(&conversation.to) {
                room.update(conversation);
            }
        }
        let listed: BTreeSet<_> = conversations.iter().map(|conversation| conversation.to.as_str()).collect();
        let (current, at_end) = (self.current.clone(), self.scroll == 0);
        let waits = |entry: &Entry| matches!(entry, Entry::Pending { .. });
        self.rooms.retain(|room| {
            listed.contains(room.to.as_str())
                || room.to == current
                || room.to == LOBBY
                || room.entries.iter().any(waits)
        });
        let mut has_unread = false;
        if let Some(room) = self.room_mut(&current).filter(|_| at_end) {
            has_unread = std::mem::take(&mut room.unread) > 0;
        }
        self.wants_read |= has_unread;
        let mut asks = self.join_lobby();
        let is_member = listed.contains(current.as_str());
        if is_member && self.room(&current).is_some_and(|room| !room.is_loaded) && !self.is_history_asked {
            asks.extend(self.open(&current));
        }
        asks
    }

    fn done(&mut self, at: &str, action: Action, done: Done) -> Vec<Ask> {
        self.wants_conversations |= !matches!(action, Action::Read { .. });
        let to = done.to.unwrap_or_default();
        match action {
            Action::Join { name, .. } => {
                let to = if to.is_empty() { name } else { to };
                // The lobby is joined without being asked for: it does not take the person away.
                let is_known = self.room(&to).is_some_and(|room| room.kind != Kind::Unknown);
                if to != LOBBY || self.current == to || is_known {
                    return self.open(&to);
                }
            }
            Action::CreateGroup { name } => {
                let to = if to.is_empty() { format!("&{name}") } else { to };
                let asks = self.open(&to);
                self.note("a group of your own, sealed for its members: /group invite @name");
                return asks;
            }
            Action::Leave { to } => {
                self.rooms.retain(|room| room.to != to || room.to == LOBBY);
                if to == LOBBY {
                    self.next_join = Duration::MAX;
                }
                let asks = if self.current == to { self.open(LOBBY) } else { Vec::new() };
                self.note(&format!("left {}", Label::new(&to)));
                return asks;
            }
            Action::Verify { name, verified } => {
                let name = Label::new(&name);
                let said = match (verified, done.words) {
                    (None, Some(words)) => format!(
                        "Read these words to each other, over the phone or in person:\n{}\nThe same at both ends? /verify @{name} yes",
                        all_words(&words)
                    ),
                    _ => format!("@{name} is verified"),
                };
                self.note_at(at, &said);
                return vec![self.ask(What::Contacts { is_asked_for: false })];
            }
            Action::Panic {} => {
                self.rooms.clear();
                self.input.forget();
                self.farewell = Some("All chat state is destroyed.");
                return vec![self.ask(What::Quit)];
            }
            Action::Read { .. } => {}
            action => {
                self.note_at(at, &confirmation(&action, done.id, done.peer_id));
                return vec![
                    self.ask(What::Contacts { is_asked_for: false }),
                    self.ask(What::Members { to: self.current.clone(), is_asked_for: false }),
                ];
            }
        }
        Vec::new()
    }

    fn refusal(&mut self, ask: &Ask, refusal: Refusal) -> Vec<Ask> {
        let hint = if refusal.hint.is_empty() { String::new() } else { format!(" – {}", refusal.hint) };
        let said = format!("{}{hint}", refusal.message);
        match &ask.what {
            What::Send { number, to, .. } => {
                if let Some(room) = self.room_mut(to) {
                    room.refused(*number, said);
                }
            }
            // Asked again by themselves; the bar shows that the node is gone.
            What::Status => self.broken = Some(refusal),
            What::Conversations
            | What::Contacts { is_asked_for: false }
            | What::Paths { .. }
            | What::Members { is_asked_for: false, .. } => {}
            What::Act(Action::Read { .. }) => {}
            What::History { to, .. } => {
                // A conversation without messages may not exist yet.
                if let Some(room) = self.room_mut(to).filter(|room| room.wanted > PAGE) {
                    room.wanted -= PAGE;
                }
            }
            _ => self.note_at(&ask.at, &said),
        }
        Vec::new()
    }

    fn show_members(&mut self, to: &str, members: Vec<Member>, is_asked_for: bool) {
        let names: Vec<_> = members.iter().map(name).collect();
        if is_asked_for {
            let line = |member: &Member| format!("{} {}", name(member), member.role).trim_end().to_owned();
            self.list(to, "nobody is known here yet", members.iter().map(line));
        } else if !self.has_greeted && to == LOBBY && members.len() > 1 {
            self.has_greeted = true;
            let shown = names.iter().take(MAX_GREETED).cloned().collect::<Vec<_>>().join(" ");
            self.note_at(to, &format!("{} people here: {shown} – type to talk, /msg @name to talk alone", names.len()));
        }
        if to == self.current {
            self.members = members;
        }
    }

    fn show_files(&mut self, at: &str, files: Vec<File>) {
        let line = |file: &File| {
            let name = file.name.as_ref().or(file.path.as_ref());
            let total = file.total_bytes.unwrap_or(file.bytes);
            format!(
                "{} {} ({total} bytes): /get {}",
                Label::new(&file.id),
                name.map_or("", |name| name),
                Label::new(&file.id)
            )
        };
        self.list(at, "no files yet: /send PATH offers one", files.iter().map(line));
        self.files = files;
    }

    fn list(&mut self, at: &str, none: &str, lines: impl Iterator<Item = String>) {
        let lines: Vec<_> = lines.collect();
        let said = if lines.is_empty() { none.to_owned() } else { lines.join("\n") };
        self.note_at(at, &said);
    }

    fn show_contacts(&mut self, at: &str) {
        let line = |contact: &Contact| {
            let verified = if contact.verified { "verified" } else { "not verified" };
            let blocked = if contact.blocked { ", blocked" } else { "" };
            format!("@{} {verified}, {}{blocked}", Label::new(&contact.name), contact.policy)
        };
        let lines: Vec<_> = self.contacts.iter().map(line).collect();
        self.list(at, "no contacts yet: /add INVITE, and /invite shows yours", lines.into_iter());
    }
}

/// How a member is shown.
pub(super) fn name(member: &Member) -> String {
    if member.name.is_empty() {
        let id = member.peer_id.as_deref().unwrap_or("?");
        return Label::new(&format!("@…{}", id.get(id.len().saturating_sub(6)..).unwrap_or(id))).to_string();
    }
    Label::new(&format!("@{}", member.name)).to_string()
}

/// Words as one line for each side, or one for all.
fn all_words(words: &serde_json::Value) -> Clean {
    match words {
        serde_json::Value::String(words) => Clean::new(words),
        serde_json::Value::Array(lists) => {
            let is_nested = lists.iter().any(serde_json::Value::is_array);
            let lines: Vec<_> = lists.iter().map(|list| all_words(list).to_string()).collect();
            Clean::new(&lines.join(if is_nested { "\n" } else { " " }))
        }
        _ => Clean::default(),
    }
}

fn confirmation(action: &Action, id: Option<Label>, peer: Option<Label>) -> String {
    let name = |name: &str| Label::new(name.trim_start_matches('@'));
    match action {
        Action::Invite { peer, .. } => format!("invited @{}", name(peer)),
        Action::Accept { to } => format!("you take up the invitation into {}", name(to)),
        Action::Remove { peer, .. } => format!("removed @{}: what is said from now on is not for them", name(peer)),
        Action::Role { peer, role, .. } => format!("@{} is now {role}", name(peer)),
        Action::AddContact { name: Some(added), .. } => {
            format!("added @{}: /msg @{} writes to them", name(added), name(added))
        }
        Action::AddContact { .. } => "added: /contacts shows the name".to_owned(),
        Action::Policy { name: who, policy: "mix" } => {
            format!("messages to @{} go through the mixnet or not at all", name(who))
        }
        Action::Policy { name: who, policy } => format!("@{}: {policy}", name(who)),
        Action::Block { name: who, blocked: true } => format!("@{} is blocked: /unblock ends it", name(who)),
        Action::Block { name: who, .. } => format!("@{} is heard again", name(who)),
        Action::SendFile { path, .. } => {
            format!("offered {} {}", Label::new(path), id.map(|id| format!("({id})")).unwrap_or_default())
        }
        Action::Topic { topic, .. } if topic.is_empty() => "there is no topic any more".to_owned(),
        Action::Topic { .. } => "the topic is set".to_owned(),
        Action::Nick { name: own } => format!("you are called {} from now on", name(own)),
        Action::Pause { id } => format!("stopped: /resume {} goes on with it", name(id)),
        Action::Connect { .. } => format!("connected to {}", peer.unwrap_or_default()),
        _ => "done".to_owned(),
    }
}
