//! The `/` commands: what there is, and how a line becomes one. Pure.

use std::time::Duration;

use super::{model::Via, text::Label};
use crate::cli::chat::expiry;

/// What an argument is, for completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arg {
    /// `@name`
    Person,
    /// `#room`
    Room,
    /// Any conversation, or a path.
    ToOrPath,
    Path,
    File,
    Message,
    Word(&'static [&'static str]),
    Free,
}

/// A command as the palette shows it.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) short: &'static str,
    pub(super) usage: &'static str,
    pub(super) help: &'static str,
    pub(super) args: &'static [Arg],
}

const fn spec(
    name: &'static str,
    short: &'static str,
    usage: &'static str,
    help: &'static str,
    args: &'static [Arg],
) -> Spec {
    Spec { name, short, usage, help, args }
}

const GROUP: Arg = Arg::Word(&["create", "invite", "accept", "remove", "role", "members", "leave"]);
const CONFIRM: Arg = Arg::Word(&["yes"]);

/// All commands, those of the first minute first.
pub(super) const COMMANDS: &[Spec] = &[
    spec("help", "h", "[command]", "what there is, and what the marks mean", &[Arg::Free]),
    spec("join", "j", "#room [password]", "join a room; open without a password", &[Arg::Room, Arg::Free]),
    spec("msg", "m", "@name [text]", "write to one person, sealed", &[Arg::Person, Arg::Free]),
    spec("reply", "r", "text", "answer whoever wrote to you last", &[Arg::Free]),
    spec("invite", "", "", "show the line by which others reach you", &[]),
    spec("add", "", "INVITE [name]", "add a contact by an invite", &[Arg::Free, Arg::Free]),
    spec("connect", "", "ADDRESS|INVITE", "connect to a peer", &[Arg::Free]),
    spec("who", "w", "", "who is here", &[]),
    spec("send", "", "[@name|#room] PATH", "send a file", &[Arg::ToOrPath, Arg::Path]),
    spec("files", "", "", "files that can be fetched", &[]),
    spec("get", "", "ID [PATH]", "fetch a file", &[Arg::File, Arg::Path]),
    spec("pause", "", "ID", "stop a fetch; what is here of it stays", &[Arg::File]),
    spec("resume", "", "ID", "go on with a fetch", &[Arg::File]),
    spec("verify", "", "@name [yes]", "compare safety words; `yes` if they are the same", &[Arg::Person, CONFIRM]),
    spec(
        "group",
        "g",
        "create NAME | invite|remove @name | accept &group | role @name admin|member",
        "closed groups",
        &[GROUP, Arg::Person, Arg::Word(&["admin", "member"])],
    ),
    spec("leave", "", "", "leave this conversation", &[]),
    spec("contacts", "", "", "your contacts", &[]),
    spec("topic", "", "[text | -]", "what this room or group is about; `-` takes it away", &[Arg::Free]),
    spec("nick", "", "[name]", "how you are called", &[Arg::Free]),
    spec(
        "route",
        "",
        "[auto|lan|direct|mix]",
        "which way messages from here go, while this runs",
        &[Arg::Word(Via::NAMES)],
    ),
    spec(
        "policy",
        "",
        "@name auto|mix",
        "`mix`: never other than through the mixnet",
        &[Arg::Person, Arg::Word(&["auto", "mix"])],
    ),
    spec(
        "expire",
        "",
        "[10m|2h|3d|off]",
        "give up what you write here if it is not there by then, while this runs",
        &[Arg::Word(&["10m", "1h", "1d", "off"])],
    ),
    spec("block", "", "@name", "hear nothing more from somebody", &[Arg::Person]),
    spec("unblock", "", "@name", "hear them again", &[Arg::Person]),
    spec("mute", "", "", "no marks for this conversation, or marks again", &[]),
    spec("unread", "", "", "where something is unread", &[]),
    spec("search", "", "text", "look for a text here", &[Arg::Free]),
    spec("mentions", "", "", "where you are named here", &[]),
    spec("why", "", "[id]", "why a message is where it is: its proof", &[Arg::Message]),
    spec("retry", "", "", "send again what failed here", &[]),
    spec("export", "", "PATH", "write all of this conversation to a new file", &[Arg::Path]),
    spec("ping", "", "@name", "how long the mixnet takes to somebody and back", &[Arg::Person]),
    spec("trace", "", "@name", "how far somebody is, and what is on its way to them", &[Arg::Person]),
    spec("peers", "", "", "the node's connections", &[]),
    spec("doctor", "", "", "what is wrong with this host, and how to mend it", &[]),
    spec("panic", "", "yes", "destroy all chat state, now", &[CONFIRM]),
    spec("quit", "q", "", "end; the node goes on", &[]),
];

/// The command of this name.
pub(super) fn find(name: &str) -> Option<&'static Spec> {
    COMMANDS.iter().find(|spec| spec.name == name || (spec.short == name && !name.is_empty()))
}

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Say(String),
    Help(Option<String>),
    Join { room: String, password: Option<String> },
    Message { to: String, text: Option<String> },
    Reply(String),
    OwnInvite,
    Add { invite: String, name: Option<String> },
    Connect(String),
    Who,
    Send { to: Option<String>, path: String },
    Files,
    Get { id: String, out: Option<String> },
    Pause(String),
    Topic(Option<String>),
    Nick(Option<String>),
    Expire(Option<Option<Duration>>),
    Trace(String),
    Verify { name: String, is_same: bool },
    GroupCreate(String),
    GroupInvite(String),
    GroupAccept(String),
    GroupRemove(String),
    GroupRole { who: String, role: &'static str },
    Leave,
    Contacts,
    Route(Option<Via>),
    Policy { name: String, policy: &'static str },
    Block { name: String, blocked: bool },
    Mute,
    Unread,
    Search(String),
    Mentions,
    Why(Option<String>),
    Retry,
    Export(String),
    Ping(String),
    Peers,
    Doctor,
    Panic { is_confirmed: bool },
    Quit,
}

/// The words of a command; the last one asked for may be all the rest.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start();
        let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn owned(&mut self) -> Option<String> {
        self.next().map(str::to_owned)
    }

    /// The one word that there is, if any. `None` if there are more: somebody meant something else.
    fn only(mut self) -> Option<Option<String>> {
        let word = self.owned();
        self.rest().is_none().then_some(word)
    }

    fn rest(self) -> Option<String> {
        let rest = self.0.trim();
        (!rest.is_empty()).then(|| rest.to_owned())
    }
}

/// A person's name, without the `@` that people write before it.
fn person(word: &str) -> String {
    word.strip_prefix('@').unwrap_or(word).to_owned()
}

fn marked(mark: char, word: &str) -> String {
    if word.starts_with(mark) { word.to_owned() } else { format!("{mark}{word}") }
}

/// A path as people paste it: in quotes, with escaped spaces, or as a `file://` address.
fn path(text: &str) -> String {
    let text = text.strip_prefix("file://").unwrap_or(text);
    let quoted = |mark| text.strip_prefix(mark).and_then(|text| text.strip_suffix(mark));
    quoted('\'').or_else(|| quoted('"')).map_or_else(|| text.replace("\\ ", " "), str::to_owned)
}

/// What a line means. `Err` says how the command is used.
pub(super) fn parse(line: &str) -> Result<Command, String> {
    let Some(command) = line.strip_prefix('/') else { return Ok(Command::Say(line.to_owned())) };
    // `//` says something that begins with a slash.
    if command.starts_with('/') {
        return Ok(Command::Say(command.to_owned()));
    }
    let mut words = Words(command);
    let name = words.next().unwrap_or_default();
    let spec = find(name).ok_or_else(|| {
        format!("there is no command /{}: / shows all, and //text says what begins with /", Label::new(name))
    })?;
    arguments(spec.name, words).ok_or_else(|| format!("usage: /{} {}", spec.name, spec.usage))
}

fn arguments(name: &str, mut words: Words<'_>) -> Option<Command> {
    Some(match name {
        "help" => Command::Help(words.owned()),
        "join" => Command::Join { room: marked('#', words.next()?), password: words.rest() },
        "msg" => Command::Message { to: marked('@', words.next()?), text: words.rest() },
        "reply" => Command::Reply(words.rest()?),
        "invite" => Command::OwnInvite,
        "add" => Command::Add { invite: words.owned()?, name: words.next().map(person) },
        "connect" => Command::Connect(words.owned()?),
        "who" => Command::Who,
        "send" => {
            let is_to = words.0.trim_start().starts_with(['@', '#', '&']);
            let to = if is_to { words.owned() } else { None };
            Command::Send { to, path: path(&words.rest()?) }
        }
        "files" => Command::Files,
        "get" => Command::Get { id: words.owned()?, out: words.rest().map(|text| path(&text)) },
        "pause" => Command::Pause(words.only()??),
        "resume" => Command::Get { id: words.only()??, out: None },
        "topic" => Command::Topic(words.rest()),
        "nick" => Command::Nick(words.only()?.map(|name| person(&name))),
        "trace" => Command::Trace(person(&words.only()??)),
        "expire" => Command::Expire(match words.only()?.as_deref() {
            None => None,
            Some("off") => Some(None),
            Some(time) => Some(Some(expiry::parse(time).ok()?)),
        }),
        "verify" => Command::Verify { name: person(words.next()?), is_same: confirmed(words)? },
        "group" => return group(words),
        "leave" => Command::Leave,
        "contacts" => Command::Contacts,
        "route" => match words.next() {
            None => Command::Route(None),
            Some(name) => Command::Route(Some(Via::parse(name)?)),
        },
        "policy" => Command::Policy { name: person(words.next()?), policy: one_of(&["auto", "mix"], words.next()?)? },
        "block" => Command::Block { name: person(words.next()?), blocked: true },
        "unblock" => Command::Block { name: person(words.next()?), blocked: false },
        "mute" => Command::Mute,
        "unread" => Command::Unread,
        "search" => Command::Search(words.rest()?),
        "mentions" => Command::Mentions,
        "why" => Command::Why(words.owned()),
        "retry" => Command::Retry,
        "export" => Command::Export(path(&words.rest()?)),
        "ping" => Command::Ping(person(words.next()?)),
        "peers" => Command::Peers,
        "doctor" => Command::Doctor,
        "panic" => Command::Panic { is_confirmed: confirmed(words)? },
        "quit" => Command::Quit,
        _ => return None,
    })
}

/// `yes` or nothing; anything else is a mistake.
fn confirmed(mut words: Words<'_>) -> Option<bool> {
    match words.next() {
        None => Some(false),
        Some("yes") => Some(true),
        Some(_) => None,
    }
}

fn one_of(known: &'static [&'static str], word: &str) -> Option<&'static str> {
    known.iter().find(|known| **known == word).copied()
}

fn group(mut words: Words<'_>) -> Option<Command> {
    Some(match words.next()? {
        "create" => Command::GroupCreate(words.next()?.trim_start_matches('&').to_owned()),
        "invite" => Command::GroupInvite(person(words.next()?)),
        "accept" => Command::GroupAccept(format!("&{}", words.next()?.trim_start_matches('&'))),
        "remove" | "kick" => Command::GroupRemove(person(words.next()?)),
        "role" => Command::GroupRole { who: person(words.next()?), role: one_of(&["admin", "member"], words.next()?)? },
        "members" | "list" => Command::Who,
        "leave" => Command::Leave,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_understood_and_named_once() {
        for spec in COMMANDS {
            let line = format!("/{} @a invite b c", spec.name);
            assert!(!parse(&line).is_err_and(|error| error.contains("no command")), "{line}");
            assert_eq!(COMMANDS.iter().filter(|other| other.name == spec.name || other.short == spec.name).count(), 1);
        }
    }

    #[test]
    fn lines_become_commands() {
        let join =
            |password: Option<&str>| Command::Join { room: "#dev".into(), password: password.map(str::to_owned) };
        assert_eq!(parse("/j dev"), Ok(join(None)));
        assert_eq!(parse("/join #dev  two words "), Ok(join(Some("two words"))));
        assert_eq!(parse("/m ana hi there"), Ok(Command::Message { to: "@ana".into(), text: Some("hi there".into()) }));
        assert_eq!(parse("/send &g '/tmp/a b'"), Ok(Command::Send { to: Some("&g".into()), path: "/tmp/a b".into() }));
        assert_eq!(parse("/send file:///tmp/a\\ b"), Ok(Command::Send { to: None, path: "/tmp/a b".into() }));
        assert_eq!(parse("/group accept &club"), Ok(Command::GroupAccept("&club".into())));
        assert_eq!(parse("/group role @bo admin"), Ok(Command::GroupRole { who: "bo".into(), role: "admin" }));
        assert_eq!(parse("/export '/tmp/a b'"), Ok(Command::Export("/tmp/a b".into())));
        assert_eq!(parse("/ping @bo"), Ok(Command::Ping("bo".into())));
        assert_eq!(parse("/topic all about it"), Ok(Command::Topic(Some("all about it".into()))));
        assert_eq!(parse("/expire 2h"), Ok(Command::Expire(Some(Some(Duration::from_secs(7_200))))));
        assert_eq!(parse("/expire off"), Ok(Command::Expire(Some(None))));
        assert_eq!(parse("/resume ab"), Ok(Command::Get { id: "ab".into(), out: None }));
        assert_eq!(parse("//join"), Ok(Command::Say("/join".into())));
        assert_eq!(parse("/panic"), Ok(Command::Panic { is_confirmed: false }));
    }

    #[test]
    fn a_mistake_says_how_it_is_done() {
        assert!(parse("/jion #x").unwrap_err().contains("no command /jion"));
        assert_eq!(parse("/policy @a never").unwrap_err(), "usage: /policy @name auto|mix");
        assert!(parse("/panic now").is_err() && parse("/group").is_err() && parse("/route by-pigeon").is_err());
        assert!(parse("/nick two words").is_err() && parse("/expire 2h later").is_err());
        assert!(parse("/expire soon").is_err() && parse("/pause").is_err() && parse("/trace").is_err());
    }
}
