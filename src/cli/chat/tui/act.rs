//! What a line does: commands become questions for the node. Pure.

use std::time::Duration;

use super::{
    app::App,
    commands::{self, COMMANDS, Command},
    model::{Action, Ask, State, Via, What},
    room::{Entry, Room},
    text::Label,
};
use crate::cli::output::duration;

/// Lines that `/search` and `/mentions` show.
const MAX_FOUND: usize = 20;

const HELP: &str = "Type to talk; / shows all commands, /help COMMAND one. Tab completes. Alt-A goes where something is unread, Alt-1…9 and \
Alt-↑↓ to a conversation, PgUp and PgDn through what was said, Ctrl-J begins a new line, Ctrl-C twice ends.
Your messages: · queued  → sent  ◇ in a mailbox or carried by another peer  ✓ delivered  ✓✓ read  ✗ failed, and why. Times are UTC.
Conversations: ○ open, readable by anyone  ● sealed  + unread  ! you are named";

impl App {
    /// Enter: says or does what stands in the line. A line with a mistake stays, to be mended.
    pub(super) fn submit(&mut self) -> Vec<Ask> {
        let line = self.input.text().to_owned();
        if line.trim().is_empty() {
            return Vec::new();
        }
        match commands::parse(line.trim_end()) {
            Ok(command) => {
                let has_secret = matches!(command, Command::Join { password: Some(_), .. });
                self.input.take(!has_secret);
                self.line_changed();
                self.run(command)
            }
            Err(mistake) => {
                self.note(&mistake);
                Vec::new()
            }
        }
    }

    pub(super) fn run_line(&mut self, line: &str) -> Vec<Ask> {
        commands::parse(line).map(|command| self.run(command)).unwrap_or_default()
    }

    fn run(&mut self, command: Command) -> Vec<Ask> {
        let action = match command {
            Command::Say(text) => return self.say(&text),
            Command::Join { room, password } => Action::Join { name: room, password },
            Command::Add { invite, name } => Action::AddContact { invite, name },
            Command::Connect(target) => Action::Connect { target },
            Command::Pause(id) => Action::Pause { id },
            Command::Nick(Some(name)) => Action::Nick { name },
            Command::Topic(Some(topic)) => {
                Action::Topic { to: self.current.clone(), topic: if topic == "-" { String::new() } else { topic } }
            }
            Command::Verify { name, is_same } => Action::Verify { name, verified: is_same.then_some(true) },
            Command::GroupCreate(name) => Action::CreateGroup { name },
            Command::GroupAccept(to) => Action::Accept { to },
            Command::GroupInvite(_) | Command::GroupRemove(_) | Command::GroupRole { .. } => {
                return self.group(command);
            }
            Command::Leave => Action::Leave { to: self.current.clone() },
            Command::Policy { name, policy } => Action::Policy { name, policy },
            Command::Block { name, blocked } => Action::Block { name, blocked },
            Command::Send { to, path } => Action::SendFile { to: to.unwrap_or_else(|| self.current.clone()), path },
            Command::Panic { is_confirmed: true } => Action::Panic {},
            other => return self.local(other),
        };
        vec![self.ask(What::Act(action))]
    }

    fn local(&mut self, command: Command) -> Vec<Ask> {
        let what = match command {
            Command::Message { to, text } => {
                let mut asks = self.open(&to);
                asks.extend(text.into_iter().flat_map(|text| self.say(&text)));
                return asks;
            }
            Command::Reply(text) => {
                let Some(to) = self.last_direct.clone() else {
                    self.note("nobody wrote to you alone yet: /msg @name");
                    return Vec::new();
                };
                let mut asks = self.open(&to);
                asks.extend(self.say(&text));
                return asks;
            }
            Command::OwnInvite => What::Identity,
            Command::Who => What::Members { to: self.current.clone(), is_asked_for: true },
            Command::Files => What::Files,
            Command::Get { id, out } => What::Get { id, out },
            Command::Contacts => What::Contacts { is_asked_for: true },
            Command::Peers => What::Peers,
            Command::Doctor => What::Doctor,
            Command::Ping(name) => {
                self.note(&format!("three pings to @{}", Label::new(&name)));
                What::Ping { name }
            }
            Command::Trace(name) => What::Trace { name },
            Command::Export(path) => What::Export { to: self.current.clone(), path },
            Command::Quit => What::Quit,
            Command::Retry => return self.retry(),
            Command::Why(id) => return self.why(id),
            other => {
                self.tell(other);
                return Vec::new();
            }
        };
        vec![self.ask(what)]
    }

    /// What needs no node.
    fn tell(&mut self, command: Command) {
        match command {
            Command::Help(None) => self.note(HELP),
            Command::Help(Some(name)) => match commands::find(name.trim_start_matches('/')) {
                Some(spec) => self.note(&format!("/{} {}: {}", spec.name, spec.usage, spec.help)),
                None => {
                    let names: Vec<_> = COMMANDS.iter().map(|spec| format!("/{}", spec.name)).collect();
                    self.note(&names.join(" "));
                }
            },
            Command::Mute => {
                let current = self.current.clone();
                if let Some(room) = self.room_mut(&current) {
                    room.is_muted = !room.is_muted;
                    let what = if room.is_muted { "muted: /mute again ends it" } else { "not muted any more" };
                    self.note(what);
                }
            }
            Command::Route(via) => self.route(via),
            Command::Expire(time) => self.expire(time),
            Command::Nick(_) => {
                let name = self.status.as_ref().map(|status| status.name.to_string()).unwrap_or_default();
                self.note(&format!("you are called {name}: /nick NAME changes it"));
            }
            Command::Topic(_) => {
                let topic = self.room(&self.current).and_then(|room| room.topic.clone());
                let said = topic
                    .map_or_else(|| "no topic: /topic TEXT says what it is about".into(), |topic| topic.to_string());
                self.note(&said);
            }
            Command::Unread => {
                let unread = self.rooms.iter().filter(|room| room.unread > 0);
                let unread: Vec<_> = unread.map(|room| format!("{} {}", Label::new(&room.to), room.unread)).collect();
                let said = if unread.is_empty() { "nothing is unread".to_owned() } else { unread.join("  ") };
                self.note(&said);
            }
            Command::Search(text) => self.find(&text),
            Command::Mentions => {
                let name = self.status.as_ref().map(|status| status.name.to_string()).unwrap_or_default();
                self.find(&name);
            }
            Command::Panic { .. } => {
                self.note("/panic yes destroys all messages, contacts and keys of the chat. Nothing brings them back.");
            }
            _ => {}
        }
    }

    fn route(&mut self, via: Option<Via>) {
        let current = self.current.clone();
        let Some(room) = self.room_mut(&current) else { return };
        room.via = via.unwrap_or(room.via);
        let said = match room.via {
            Via::Auto => "auto: messages from here take the best way that the contact's policy allows",
            Via::Lan => "lan: messages from here go over this network alone, or not at all",
            Via::Direct => "direct: messages from here go over direct connections alone, or not at all",
            Via::Mix => "mix: messages from here go through the mixnet alone, or not at all",
        };
        self.note(said);
    }

    fn expire(&mut self, time: Option<Option<Duration>>) {
        let current = self.current.clone();
        if !current.starts_with('@') {
            self.note("what is said in rooms and groups does not expire: members bring it to each other");
            return;
        }
        let Some(room) = self.room_mut(&current) else { return };
        room.expire = time.unwrap_or(room.expire);
        let said = match room.expire.map(|time| duration(time.as_secs())) {
            Some(time) => format!("messages from here are given up if they are not there within {time}"),
            None => "messages from here are tried for 7 days".to_owned(),
        };
        self.note(&said);
    }

    fn find(&mut self, text: &str) {
        let wanted = text.to_lowercase();
        let current = self.room(&self.current).into_iter();
        let messages = current.flat_map(|room| room.messages().rev());
        let fits = messages.filter(|message| !wanted.is_empty() && message.text.to_lowercase().contains(&wanted));
        let mut found: Vec<_> = fits
            .take(MAX_FOUND)
            .map(|message| {
                format!("{} {}: {}", time(message.sent_at.as_deref()), message.name, Label::new(&message.text))
            })
            .collect();
        found.reverse();
        let said = if found.is_empty() {
            "not found in what is loaded here: PgUp loads more".to_owned()
        } else {
            found.join("\n")
        };
        self.note(&said);
    }

    fn group(&mut self, command: Command) -> Vec<Ask> {
        let group = self.current.clone();
        if !group.starts_with('&') {
            self.note("open a group first: its name begins with &");
            return Vec::new();
        }
        let action = match command {
            Command::GroupInvite(peer) => Action::Invite { group, peer },
            Command::GroupRemove(peer) => Action::Remove { group, peer },
            Command::GroupRole { who, role } => Action::Role { group, peer: who, role },
            _ => return Vec::new(),
        };
        vec![self.ask(What::Act(action))]
    }

    fn say(&mut self, text: &str) -> Vec<Ask> {
        let number = self.pending(text);
        let (via, expire) = self.room(&self.current).map_or((Via::Auto, None), |room| (room.via, room.expire));
        vec![self.ask(What::Send { number, to: self.current.clone(), text: text.to_owned(), via, expire })]
    }

    /// Sends again what the node refused or could not deliver, the latest first.
    fn retry(&mut self) -> Vec<Ask> {
        let current = self.current.clone();
        let failed = |entry: &Entry| match entry {
            Entry::Pending { text, refused: Some(_), .. } => Some(text.to_string()),
            Entry::Message(message) if message.state == Some(State::Failed) => Some(message.text.to_string()),
            _ => None,
        };
        let find = |room: &mut Room| {
            let (at, text) =
                room.entries.iter().enumerate().rev().find_map(|(at, entry)| Some((at, failed(entry)?)))?;
            if matches!(room.entries.get(at), Some(Entry::Pending { .. })) {
                room.entries.remove(at);
            }
            Some(text)
        };
        match self.room_mut(&current).and_then(find) {
            Some(text) => self.say(&text),
            None => {
                self.note("nothing failed here");
                Vec::new()
            }
        }
    }

    fn why(&mut self, id: Option<String>) -> Vec<Ask> {
        let room = self.room(&self.current);
        let found = room.and_then(|room| {
            room.messages()
                .rev()
                .map(|message| &message.id)
                .find(|known| id.as_ref().is_none_or(|id| known.starts_with(id)))
        });
        match found.cloned().or(id) {
            Some(id) => vec![self.ask(What::Why { id })],
            None => {
                self.note("there is no message here");
                Vec::new()
            }
        }
    }
}

/// Hours and minutes of an RFC 3339 time, as they stand there: UTC.
pub(super) fn time(sent_at: Option<&str>) -> String {
    let Some(sent_at) = sent_at else { return " ".repeat(5) };
    let is_time = |time: &&str| {
        time.bytes().enumerate().all(|(at, byte)| if at == 2 { byte == b':' } else { byte.is_ascii_digit() })
    };
    sent_at.get(11..16).filter(is_time).unwrap_or("--:--").to_owned()
}
