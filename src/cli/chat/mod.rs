//! `fog chat`: without a subcommand the terminal interface.

mod contacts;
mod expiry;
mod files;
mod groups;
mod people;
mod tui;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{self, Read},
    time::Duration,
};

use clap::{Args, Subcommand};

use super::{
    CliError, Context, TIMEOUT,
    client::Client,
    output::{printable, table},
};
use crate::{
    api::{ChatMessage, Named, Room, Topic, Whither},
    node::{
        chat::report::{Conversation, Destroyed, Line, News, Sent, Target, Why},
        command::Failure,
    },
};

/// The longest password of a room.
const MAX_PASSWORD: u64 = 1024;

/// What `fog chat` takes.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

impl Arguments {
    /// Whether the terminal interface is asked for.
    pub(super) fn is_interface(&self) -> bool {
        self.command.is_none()
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send a message to `@name`, `@PEER`, `#room` or `&group`
    Send(Send),
    /// Print a conversation, oldest first, in causal order
    History(History),
    /// List the conversations
    Conversations,
    /// Enter a room: `'#room'`, open to all, or closed by a password
    Join(Join),
    /// Leave a room or a group
    Leave {
        /// `#room` or `&group`
        to: String,
    },
    /// Groups: closed, with members
    #[command(subcommand)]
    Group(groups::Command),
    #[command(flatten)]
    Members(groups::Members),
    /// People whose invite you have
    #[command(subcommand)]
    Contact(contacts::Command),
    /// Files in conversations
    #[command(subcommand)]
    File(files::Command),
    /// Show what a room or group is about, or say it
    Topic {
        /// `#room` or `&group`
        to: String,
        /// One line; `''` takes the topic away
        topic: Option<String>,
    },
    /// Show how you are called, or choose it
    Nick {
        /// Without spaces
        name: Option<String>,
    },
    /// How far somebody is: connection, ways, mailboxes, and what is on its way to them
    Trace {
        /// A contact's name, a node or a device
        name: String,
    },
    /// The causal proof of a message
    Why {
        /// The message's id
        id: String,
    },
    /// Destroy all chat keys and state, at once and for good
    Panic,
}

#[derive(Debug, Args)]
struct Send {
    /// `@name`, `@PEER`, `#room` or `&group`
    to: String,
    /// The message
    text: String,
    /// Which way it may take; a contact's policy is never widened by it
    #[arg(long, value_name = "WAY", value_parser = ["auto", "lan", "direct", "mix"])]
    via: Option<String>,
    /// Wait until it was delivered or has failed; in a room or a group, until others took it to pass it on, or
    /// mailboxes of a member have it
    #[arg(long)]
    wait: bool,
    /// To one person: give it up if it is not there by then, as in 10m, 2h or 3d [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = expiry::parse)]
    expire: Option<Duration>,
}

#[derive(Debug, Args)]
struct History {
    /// `@name`, `@PEER`, `#room` or `&group`
    to: String,
    /// Only the newest N
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Stay, and print what comes, until Ctrl-C
    #[arg(long)]
    follow: bool,
}

#[derive(Debug, Args)]
struct Join {
    /// `#room`
    name: String,
    /// The room's password; `-` reads it from standard input, where other users of this host cannot see it
    #[arg(long, value_name = "P")]
    password: Option<String>,
}

/// Does it.
pub(super) fn run(context: &Context, arguments: Arguments) -> Result<(), CliError> {
    let client = Client::open(&context.config)?;
    let timeout = context.timeout(TIMEOUT);
    let Some(command) = arguments.command else { return tui::run(&context.config) };
    match command {
        Command::Send(arguments) => send(context, &client, arguments),
        Command::History(arguments) => history(context, &client, &arguments),
        Command::Conversations => {
            let conversations: Vec<Conversation> = client.get("/v1/chat/conversations", timeout)?;
            context.out.value(&conversations, |conversations| list(conversations))
        }
        Command::Join(arguments) => {
            let password = arguments.password.map(password).transpose()?;
            let joined: Target =
                client.post("/v1/chat/rooms", &Room { name: arguments.name, password: password.clone() }, timeout)?;
            context.out.value(&joined, |joined| match password {
                Some(_) => format!("in {}: who knows the password can read it\n", joined.to),
                None => format!("in {}: it is open, anybody can read it\n", joined.to),
            })
        }
        Command::Leave { to } => done(context, &client.post("/v1/chat/leave", &Whither { to }, timeout)?, "left"),
        Command::Group(groups::Command::Create { name }) => {
            done(context, &client.post("/v1/chat/groups", &Named { name }, timeout)?, "created")
        }
        Command::Group(groups::Command::Accept { group }) => {
            let target = client.post("/v1/chat/groups/accept", &Whither { to: group }, timeout)?;
            done(context, &target, "joined")
        }
        Command::Group(groups::Command::Members(members)) | Command::Members(members) => {
            groups::run(context, &client, members)
        }
        Command::File(command) => files::run(context, &client, command),
        Command::Contact(command) => contacts::run(context, &client, command),
        Command::Topic { to, topic } => self::topic(context, &client, to, topic),
        Command::Nick { name } => people::nick(context, &client, name),
        Command::Trace { name } => people::trace(context, &client, &name),
        Command::Why { id } => {
            let why: Why = client.get_with("/v1/chat/why", &[("id", &id)], timeout)?;
            context.out.value(&why, explain)
        }
        Command::Panic => {
            let destroyed: Destroyed = client.post("/v1/chat/panic", &serde_json::json!({}), timeout)?;
            context.out.value(&destroyed, |_| "all chat keys and messages of this node are destroyed\n".into())
        }
    }
}

fn done(context: &Context, target: &Target, what: &str) -> Result<(), CliError> {
    context.out.value(target, |target| format!("{what}: {}\n", target.to))
}

fn send(context: &Context, client: &Client, arguments: Send) -> Result<(), CliError> {
    let timeout = context.timeout(TIMEOUT);
    let Send { to, text, via, wait, expire } = arguments;
    let expire_s = expire.map(|time| time.as_secs());
    let is_direct = to.starts_with('@');
    let message = ChatMessage { to, text, via, wait, timeout_s: Some(timeout.as_secs()), expire_s };
    let sent: Sent = client.post("/v1/chat/messages", &message, timeout)?;
    context.out.value(&sent, |sent| {
        let via = sent.via.as_ref().map_or_else(String::new, |via| format!(" via {via}"));
        let reason = sent.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        format!("{}{via}{reason}: {}\n", sent.state, sent.id)
    })?;
    match sent.state.as_str() {
        "failed" => Err(CliError::failed(
            format!("the message was not delivered: {}", sent.reason.unwrap_or_else(|| "no reason given".into())),
            "`fog chat history` shows it; `fog status` shows what this node can reach",
        )),
        "delivered" | "read" => Ok(()),
        "sent" | "carried" if !is_direct => Ok(()),
        state if wait => Err(CliError::timed_out(
            format!("the message is {state}, and nobody has acknowledged it yet"),
            "it goes on being sent while the node runs; `--timeout` waits longer",
        )),
        _ => Ok(()),
    }
}

fn history(context: &Context, client: &Client, arguments: &History) -> Result<(), CliError> {
    let limit = arguments.limit.map(|limit| limit.to_string());
    let mut query = vec![("to", arguments.to.as_str())];
    query.extend(limit.iter().map(|limit| ("limit", limit.as_str())));
    let mut shown = BTreeSet::new();
    // What standard output took is read, unless it is less than what is unread; what is followed is all printed.
    let mut print = |lines: Vec<Line>, is_all: bool| -> Result<Target, CliError> {
        for line in &lines {
            if arguments.follow && !shown.insert(line.id.clone()) {
                continue;
            }
            context.out.value(line, told)?;
        }
        mark_read(context, client, &arguments.to, (!is_all).then_some(lines.len()))
    };
    let read = || client.get_with::<Vec<Line>>("/v1/chat/history", &query, context.timeout(TIMEOUT));
    if !arguments.follow {
        return print(read()?, false).map(drop);
    }
    super::end_on_signal()?;
    // The stream is opened first, so that nothing falls between it and what is read.
    let (known, print) = (RefCell::new(None), RefCell::new(print));
    let opened = || {
        *known.borrow_mut() = Some((print.borrow_mut())(read()?, false)?.to);
        Ok(())
    };
    client.follow("/v1/chat/events", opened, |line| match serde_json::from_value(line) {
        Ok(News::Message(line)) if line.to == arguments.to || Some(&line.to) == known.borrow().as_ref() => {
            (print.borrow_mut())(vec![*line], true).map(drop)
        }
        _ => Ok(()),
    })?;
    Err(client.stopped())
}

/// Marks a conversation read, unless more of it is unread than the lines that were printed, if these are not all; how it is called.
fn mark_read(context: &Context, client: &Client, to: &str, printed: Option<usize>) -> Result<Target, CliError> {
    let timeout = context.timeout(TIMEOUT);
    if let Some(printed) = printed {
        let conversations: Vec<Conversation> = client.get("/v1/chat/conversations", timeout)?;
        if let Some(one) = conversations.into_iter().find(|one| one.to == to && one.unread as usize > printed) {
            return Ok(Target { to: one.to });
        }
    }
    client.post("/v1/chat/read", &Whither { to: to.to_owned() }, timeout)
}

/// A line of a conversation, safe for a terminal.
fn told(line: &Line) -> String {
    let gap = if line.gap_before { "      … something before this is missing here\n" } else { "" };
    let warning = line.warning.as_ref().map_or_else(String::new, |warning| format!("  [{warning}]"));
    let state = match line.state.as_str() {
        "delivered" | "read" => String::new(),
        state => format!("  ({})", line.reason.as_deref().unwrap_or(state)),
    };
    let (name, text) = (printable(&line.name), printable(&line.text).replace('\n', "\n      "));
    format!("{gap}{} {name}: {text}{state}{warning}\n", line.sent_at)
}

fn topic(context: &Context, client: &Client, to: String, topic: Option<String>) -> Result<(), CliError> {
    let timeout = context.timeout(TIMEOUT);
    if let Some(topic) = topic {
        let sent: Sent = client.post("/v1/chat/topic", &Topic { to, topic }, timeout)?;
        return context.out.value(&sent, |sent| format!("{}: {}\n", sent.state, sent.id));
    }
    let conversations: Vec<Conversation> = client.get("/v1/chat/conversations", timeout)?;
    let found = conversations.into_iter().find(|one| one.to == to);
    let found = found.ok_or_else(|| {
        Failure::missing(format!("`{to}` is not known"), "`fog chat conversations` shows what is known")
    })?;
    context.out.value(&found, |found| {
        found.topic.as_ref().map_or_else(|| "it has no topic\n".to_owned(), |topic| format!("{}\n", printable(topic)))
    })
}

fn list(conversations: &[Conversation]) -> String {
    let rows: Vec<_> = conversations
        .iter()
        .map(|one| {
            let last = one.last_at.clone().unwrap_or_else(|| "-".into());
            [printable(&one.to), one.kind.clone(), one.unread.to_string(), one.members.to_string(), last]
        })
        .collect();
    table(["TO", "KIND", "UNREAD", "MEMBERS", "LAST"], &rows)
}

/// The proof of a message, for a person.
fn explain(why: &Why) -> String {
    let mut text = format!(
        "message {}\n  in {}, signed by {}\n  number {} of its author there, depth {}; it is {}\n",
        why.id,
        printable(&why.to),
        why.author,
        why.seq,
        why.lamport,
        why.standing
    );
    for predecessor in &why.predecessors {
        let known = if predecessor.known { "which is here" } else { "which is missing here" };
        text += &format!("  comes after {}, {known}\n", predecessor.id);
    }
    for (author, seq) in &why.clock {
        text += &format!("  its author knew of {author} up to number {seq}\n");
    }
    text
}

fn password(text: String) -> Result<String, CliError> {
    if text != "-" {
        return Ok(text);
    }
    let mut read = String::new();
    io::stdin().lock().take(MAX_PASSWORD + 2).read_to_string(&mut read).map_err(|error| {
        CliError::failed(format!("the password cannot be read: {error}"), "write it to standard input, as UTF-8")
    })?;
    Ok(read.trim_end_matches(['\r', '\n']).to_owned())
}
