//! Keys and events against the state: what is asked, what is kept, and that nothing of it panics.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proptest::prelude::*;
use serde_json::json;

use super::{
    app::{App, LOBBY},
    model::{Action, Ask, Conversation, Event, Message, NodeEvent, Refusal, Reply, Sent, State, Status, Via, What},
    room::{Entry, MAX_ENTRIES, PAGE},
};

pub(super) fn press(app: &mut App, code: KeyCode, modifiers: KeyModifiers) -> Vec<Ask> {
    app.handle_key(KeyEvent::new(code, modifiers))
}

pub(super) fn key(app: &mut App, code: KeyCode) -> Vec<Ask> {
    press(app, code, KeyModifiers::NONE)
}

pub(super) fn typed(app: &mut App, text: &str) -> Vec<Ask> {
    text.chars().flat_map(|c| key(app, KeyCode::Char(c))).collect()
}

/// Types a line and presses Enter.
pub(super) fn line(app: &mut App, text: &str) -> Vec<Ask> {
    typed(app, text);
    key(app, KeyCode::Esc);
    key(app, KeyCode::Enter)
}

pub(super) fn answer(app: &mut App, what: What, reply: Reply) -> Vec<Ask> {
    let ask = app.ask(what);
    app.handle_event(Event::Answer { ask, reply: Ok(reply) })
}

fn refuse(app: &mut App, what: What) -> Vec<Ask> {
    let ask = app.ask(what);
    app.handle_event(Event::Answer { ask, reply: Err(Refusal::new("no", "do that")) })
}

pub(super) fn event(app: &mut App, value: serde_json::Value) -> Vec<Ask> {
    app.handle_event(Event::Node(serde_json::from_value(value).unwrap()))
}

pub(super) fn status(app: &mut App, lan: u64) -> Vec<Ask> {
    let (device, name) = ("me00".into(), super::text::Label::new("ana"));
    let why = "no device answers on this network, and no address elsewhere is known.";
    let alone = (lan == 0).then(|| super::text::Label::new(why));
    let status = Status { device, name, lan, mix: true, alone, ..Status::default() };
    answer(app, What::Status, Reply::Status(status))
}

pub(super) fn conversations(app: &mut App, list: &[(&str, &str, u32)]) -> Vec<Ask> {
    let one = |(to, kind, unread): &(&str, &str, u32)| {
        serde_json::from_value::<Conversation>(
            json!({"to": to, "kind": kind, "unread": unread, "members": 3, "last_at": null}),
        )
        .unwrap()
    };
    answer(app, What::Conversations, Reply::Conversations(list.iter().map(one).collect()))
}

pub(super) fn message(id: &str, author: &str, seq: u64, text: &str, seen: &[(&str, u64)]) -> serde_json::Value {
    let clock: serde_json::Map<_, _> = seen.iter().map(|(author, seq)| ((*author).to_owned(), json!(seq))).collect();
    json!({"event": "message", "to": LOBBY, "id": id, "author": author, "name": author, "seq": seq, "clock": clock, "parents": [],
        "text": text, "state": "delivered", "via": "lan", "sent_at": "2026-11-21T20:15:00Z", "gap_before": false})
}

pub(super) fn history(app: &mut App, messages: &[serde_json::Value]) -> Vec<Ask> {
    let messages = messages.iter().map(|message| serde_json::from_value(message.clone()).unwrap()).collect();
    answer(app, What::History { to: LOBBY.into(), limit: PAGE }, Reply::History(messages))
}

/// In the lobby, with a node that answers.
pub(super) fn ready() -> App {
    let mut app = App::new(true, (80, 24));
    app.start();
    status(&mut app, 2);
    conversations(&mut app, &[(LOBBY, "open", 0), ("#dev", "password", 0), ("&ops", "group", 0), ("@bo", "direct", 0)]);
    history(&mut app, &[]);
    app
}

fn whats(asks: &[Ask]) -> Vec<&What> {
    asks.iter().map(|ask| &ask.what).collect()
}

fn ids(app: &App) -> Vec<String> {
    app.room(LOBBY).unwrap().messages().map(|message| message.id.clone()).collect()
}

#[test]
fn the_lobby_is_joined_without_a_question_asked() {
    let mut app = App::new(true, (80, 24));
    let asks = app.start();
    assert!(whats(&asks).contains(&&What::Status) && whats(&asks).contains(&&What::Conversations));
    assert!(status(&mut app, 0).is_empty(), "it is not known yet whether it is joined");
    let asks = conversations(&mut app, &[]);
    let join = Action::Join { name: LOBBY.into(), password: None };
    assert_eq!(whats(&asks), [&What::Act(join.clone())]);
    assert!(conversations(&mut app, &[]).is_empty(), "once in five seconds");
    app.tick(Duration::from_secs(6));
    assert_eq!(whats(&status(&mut app, 0)), [&What::Act(join)]);
    assert_eq!(app.current, LOBBY);
}

#[test]
fn a_line_is_sent_and_its_state_only_advances() {
    let mut app = ready();
    let asks = line(&mut app, "hello");
    let what = What::Send { number: 1, to: LOBBY.into(), text: "hello".into(), via: Via::Auto, expire: None };
    assert_eq!(whats(&asks), [&what]);
    // The node's event may come before its answer: the message is there once.
    event(&mut app, message("m1", "me00", 1, "hello", &[]));
    let sent = |state| Sent { id: "m1".into(), state, ..Sent::default() };
    answer(&mut app, what, Reply::Sent(sent(State::Queued)));
    assert_eq!(ids(&app), ["m1"]);
    for (state, shown) in [("read", State::Read), ("sent", State::Read), ("failed", State::Read)] {
        event(&mut app, json!({"event": "state", "id": "m1", "state": state, "via": null, "reason": null}));
        assert_eq!(app.room(LOBBY).unwrap().messages().next().unwrap().state, Some(shown));
    }
}

#[test]
fn what_the_node_refuses_stays_with_its_reason_and_can_be_sent_again() {
    let mut app = ready();
    let asks = line(&mut app, "hello");
    refuse(&mut app, asks[0].what.clone());
    let is_refused =
        |entry: &Entry| matches!(entry, Entry::Pending { refused: Some(reason), .. } if reason == "no – do that");
    assert!(app.room(LOBBY).unwrap().entries.iter().any(is_refused));
    let asks = line(&mut app, "/retry");
    assert!(matches!(&asks[0].what, What::Send { text, .. } if text == "hello"));
    assert!(!app.room(LOBBY).unwrap().entries.iter().any(is_refused));
}

#[test]
fn a_node_that_is_slow_once_is_not_gone_for_ever() {
    let mut app = ready();
    app.handle_event(Event::Connected);
    refuse(&mut app, What::Status);
    assert!(app.broken.is_some());
    status(&mut app, 2);
    assert!(app.broken.is_none());
    app.handle_event(Event::Disconnected(Refusal::default()));
    status(&mut app, 2);
    assert!(app.broken.is_some(), "its events do not come");
}

#[test]
fn who_left_the_lobby_is_not_brought_back() {
    let mut app = ready();
    let asks = line(&mut app, "/leave");
    answer(&mut app, asks[0].what.clone(), Reply::Done(Default::default()));
    app.rooms[0].kind = Default::default();
    app.tick(Duration::from_secs(60));
    assert!(!conversations(&mut app, &[]).iter().any(|ask| matches!(ask.what, What::Act(Action::Join { .. }))));
}

#[test]
fn the_nodes_order_is_asked_for_when_a_message_does_not_belong_last() {
    let mut app = ready();
    event(&mut app, message("a1", "a", 1, "one", &[]));
    app.tick(Duration::from_secs(1));
    event(&mut app, message("b1", "b", 1, "two", &[("a", 1)]));
    let asks = app.tick(Duration::from_secs(2));
    assert!(!asks.iter().any(|ask| matches!(ask.what, What::History { .. })), "its author saw what is last");
    event(&mut app, message("c1", "c", 1, "aside", &[("a", 1)]));
    let asks = app.tick(Duration::from_secs(3));
    assert!(asks.iter().any(|ask| matches!(ask.what, What::History { .. })));
    // One more comes before the history that was asked for.
    event(&mut app, message("d1", "d", 1, "late", &[("b", 1), ("c", 1)]));
    let order =
        [message("a1", "a", 1, "one", &[]), message("c1", "c", 1, "aside", &[]), message("b1", "b", 1, "two", &[])];
    history(&mut app, &order);
    assert_eq!(ids(&app), ["a1", "c1", "b1", "d1"]);
    event(&mut app, json!({"event": "retracted", "to": LOBBY, "id": "c1"}));
    assert_eq!(ids(&app), ["a1", "b1", "d1"]);
}

#[test]
fn alt_a_goes_to_who_writes_to_us_alone_first() {
    let mut app = ready();
    conversations(&mut app, &[(LOBBY, "open", 0), ("#dev", "password", 9), ("@bo", "direct", 1)]);
    let asks = press(&mut app, KeyCode::Char('a'), KeyModifiers::ALT);
    assert_eq!(app.current, "@bo");
    assert!(asks.iter().any(|ask| matches!(&ask.what, What::History { to, .. } if to == "@bo")));
    assert!(
        app.tick(Duration::from_secs(1)).iter().any(|ask| ask.what == What::Act(Action::Read { to: "@bo".into() }))
    );
    press(&mut app, KeyCode::Char('a'), KeyModifiers::ALT);
    assert_eq!(app.current, "#dev");
    press(&mut app, KeyCode::Char('a'), KeyModifiers::ALT);
    assert_eq!(app.current, "@bo", "nothing is unread: back");
}

#[test]
fn a_message_elsewhere_is_counted_and_a_mention_marked() {
    let mut app = ready();
    line(&mut app, "/msg @bo");
    event(&mut app, message("a1", "b", 1, "hey Ana", &[]));
    event(&mut app, message("a1", "b", 1, "hey Ana", &[]));
    let lobby = app.room(LOBBY).unwrap();
    assert_eq!((lobby.unread, lobby.is_mentioned), (1, true));
    assert_eq!(lobby.entries.iter().filter(|entry| **entry == Entry::New).count(), 1);
}

#[test]
fn tab_completes_commands_names_and_paths() {
    let mut app = ready();
    typed(&mut app, "/jo");
    key(&mut app, KeyCode::Tab);
    assert_eq!(app.input.text(), "/join ");
    typed(&mut app, "#d");
    key(&mut app, KeyCode::Tab);
    assert_eq!(app.input.text(), "/join #dev ");
    app.input.clear();
    let contacts = json!([{"name": "bo"}, {"name": "bea\u{1b}[2J"}]);
    answer(
        &mut app,
        What::Contacts { is_asked_for: false },
        Reply::Contacts(serde_json::from_value(contacts).unwrap()),
    );
    typed(&mut app, "hi @b");
    key(&mut app, KeyCode::Tab);
    assert_eq!(app.input.text(), "hi @bo ", "a name that is not what it seems is not offered");
    app.input.clear();
    let asks = typed(&mut app, "/send /tm");
    assert_eq!(asks.last().map(|ask| &ask.what), Some(&What::Paths { prefix: "/tm".into() }));
    answer(&mut app, What::Paths { prefix: "/tm".into() }, Reply::Paths(vec!["/tmp/".into()]));
    key(&mut app, KeyCode::Tab);
    assert_eq!(app.input.text(), "/send /tmp/");
}

#[test]
fn enter_on_half_a_command_completes_it_and_a_mistake_stays_in_the_line() {
    let mut app = ready();
    typed(&mut app, "/ver");
    assert!(key(&mut app, KeyCode::Enter).is_empty());
    assert_eq!(app.input.text(), "/verify ");
    app.input.clear();
    line(&mut app, "/policy @bo never");
    assert_eq!(app.input.text(), "/policy @bo never");
    assert!(matches!(app.room(LOBBY).unwrap().entries.back(), Some(Entry::Note(text)) if text.starts_with("usage:")));
}

#[test]
fn a_dropped_path_is_offered_as_a_file_and_a_paste_cannot_run_commands() {
    let mut app = ready();
    app.handle_paste("'/home/ana/a b.txt'\n");
    let asks = key(&mut app, KeyCode::Enter);
    let action = Action::SendFile { to: LOBBY.into(), path: "/home/ana/a b.txt".into() };
    assert_eq!(whats(&asks), [&What::Act(action)]);
    assert!(app.handle_paste("one\n/panic yes\n\u{1b}[201~").is_empty());
    let asks = key(&mut app, KeyCode::Enter);
    assert!(matches!(&asks[0].what, What::Send { text, .. } if text == "one\n/panic yes\n\u{fffd}[201~"));
}

#[test]
fn a_password_is_not_kept_in_the_history_of_the_line() {
    let mut app = ready();
    line(&mut app, "first");
    line(&mut app, "/join #dev secret");
    key(&mut app, KeyCode::Up);
    assert_eq!(app.input.text(), "first");
}

#[test]
fn ctrl_c_twice_ends_and_panic_asks_once_more() {
    let mut app = ready();
    let control_c = |app: &mut App| press(app, KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(control_c(&mut app).is_empty());
    app.tick(Duration::from_secs(3));
    assert!(control_c(&mut app).is_empty(), "too late for the second");
    assert_eq!(whats(&control_c(&mut app)), [&What::Quit]);
    assert!(line(&mut app, "/panic").is_empty());
    let asks = line(&mut app, "/panic yes");
    assert_eq!(whats(&asks), [&What::Act(Action::Panic {})]);
    let asks = answer(&mut app, asks[0].what.clone(), Reply::Done(Default::default()));
    assert_eq!((whats(&asks), app.entries()), (vec![&What::Quit], 0));
}

#[test]
fn the_scrollback_is_bounded_and_what_is_read_stays_in_place() {
    let mut app = ready();
    for at in 0..40 {
        event(&mut app, message(&format!("m{at}"), "b", at, "text", &[("b", at)]));
    }
    key(&mut app, KeyCode::PageUp);
    let before = app.scroll;
    event(&mut app, message("next", "b", 41, "one\ntwo", &[("b", 40)]));
    assert_eq!(app.scroll, before + 2);
    for at in 50..MAX_ENTRIES as u64 + 100 {
        event(&mut app, message(&format!("m{at}"), "b", at, "text", &[("b", at)]));
    }
    assert_eq!(app.room(LOBBY).unwrap().entries.len(), MAX_ENTRIES);
    line(&mut app, "/msg @bo");
    assert!(app.room(LOBBY).unwrap().entries.len() <= PAGE);
}

fn any_key() -> impl Strategy<Value = KeyEvent> {
    let code = prop_oneof![
        6 => any::<char>().prop_map(KeyCode::Char),
        6 => "[a-z/@# 1-9]".prop_map(|text| KeyCode::Char(text.chars().next().unwrap())),
        4 => Just(KeyCode::Enter),
        6 => proptest::sample::select(vec![
            KeyCode::Tab, KeyCode::BackTab, KeyCode::Up, KeyCode::Down, KeyCode::Left, KeyCode::Right, KeyCode::Home, KeyCode::End,
            KeyCode::PageUp, KeyCode::PageDown, KeyCode::Backspace, KeyCode::Delete, KeyCode::Esc, KeyCode::F(1), KeyCode::Null,
        ]),
    ];
    (code, 0u8..8).prop_map(|(code, modifiers)| KeyEvent::new(code, KeyModifiers::from_bits_truncate(modifiers)))
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![Just(LOBBY.to_owned()), "[@#&][a-c]", "\\PC{0,6}", "[\\x00-\\x20\\u{202a}-\\u{202e}a]{0,6}"]
}

fn any_event() -> impl Strategy<Value = Event> {
    let line = (any_name(), any_name(), any_name(), 0u64..9, any::<bool>(), "(?s).{0,60}");
    let message = line.prop_map(|(to, id, author, seq, gap_before, text)| NodeEvent::Message {
        to,
        message: Message {
            id,
            name: super::text::Label::new(&author),
            author,
            seq,
            gap_before,
            text: super::text::Clean::new(&text),
            ..Message::default()
        },
    });
    let other = (any_name(), any_name(), 0usize..4).prop_map(|(to, text, which)| match which {
        0 => NodeEvent::Notice { to: Some(to), text: super::text::Clean::new(&text) },
        1 => NodeEvent::Members { to },
        2 => NodeEvent::State(Sent { id: text, state: State::Failed, ..Sent::default() }),
        _ => NodeEvent::Retracted { to, id: text },
    });
    let list = proptest::collection::vec((any_name(), 0u32..3), 0..6).prop_map(|list| {
        let of = |(to, unread)| Conversation { to, kind: Default::default(), unread, members: 1, topic: None };
        let list = list.into_iter().map(of);
        Event::Answer {
            ask: Ask { at: LOBBY.into(), what: What::Conversations },
            reply: Ok(Reply::Conversations(list.collect())),
        }
    });
    prop_oneof![6 => message.prop_map(Event::Node), 3 => other.prop_map(Event::Node), 1 => list]
}

#[derive(Debug, Clone)]
enum Step {
    Key(KeyEvent),
    Event(Box<Event>),
    Paste(String),
    Resize(u16, u16),
    Refuse(usize),
    Tick,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_key().prop_map(Step::Key),
        8 => any_event().prop_map(|event| Step::Event(Box::new(event))),
        1 => "(?s).{0,40}".prop_map(Step::Paste),
        1 => (0u16..120, 0u16..40).prop_map(|(width, height)| Step::Resize(width, height)),
        1 => (0usize..9).prop_map(Step::Refuse),
        1 => Just(Step::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn nothing_that_is_typed_or_heard_panics_or_steers_the_terminal(steps in proptest::collection::vec(any_step(), 1..80)) {
        let mut app = ready();
        let mut asked = Vec::new();
        for (at, step) in steps.into_iter().enumerate() {
            let asks = match step {
                Step::Key(key) => app.handle_key(key),
                Step::Event(event) => app.handle_event(*event),
                Step::Paste(text) => app.handle_paste(&text),
                Step::Resize(width, height) => { app.handle_resize(width, height); Vec::new() }
                Step::Refuse(which) if which < asked.len() => {
                    let ask: Ask = asked.swap_remove(which);
                    app.handle_event(Event::Answer { ask, reply: Err(Refusal::new("no", "")) })
                }
                Step::Refuse(_) => Vec::new(),
                Step::Tick => app.tick(Duration::from_millis(500 * at as u64)),
            };
            asked.extend(asks);
            prop_assert!(app.room(&app.current).is_some(), "{} is not listed", app.current);
            super::draw_tests::screen(&app);
        }
    }
}
