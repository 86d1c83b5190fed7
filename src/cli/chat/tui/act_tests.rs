//! Names, topics, what expires, and fetches that stop.

use std::time::Duration;

use serde_json::json;

use super::{
    app::{App, LOBBY},
    app_tests::{answer, event, line, message, ready},
    model::{Action, Conversation, Done, Reply, What},
    room::Entry,
};

/// What the one question of a line is.
fn asked(app: &mut App, text: &str) -> What {
    let mut asks = line(app, text);
    assert_eq!(asks.len(), 1, "{text}: {asks:?}");
    asks.remove(0).what
}

/// The last words of the program.
fn noted(app: &App) -> String {
    let notes = app.room(&app.current).unwrap().entries.iter().rev();
    let note = |entry: &Entry| if let Entry::Note(text) = entry { Some(text.to_string()) } else { None };
    notes.filter_map(note).next().unwrap_or_default()
}

#[test]
fn names_topics_and_fetches_are_questions_for_the_node() {
    let mut app = ready();
    assert_eq!(asked(&mut app, "/nick @ada"), What::Act(Action::Nick { name: "ada".into() }));
    let topic = |topic: &str| What::Act(Action::Topic { to: LOBBY.into(), topic: topic.into() });
    assert_eq!(asked(&mut app, "/topic poems and engines"), topic("poems and engines"));
    assert_eq!(asked(&mut app, "/topic -"), topic(""));
    assert_eq!(asked(&mut app, "/trace @bo"), What::Trace { name: "bo".into() });
    let pause = asked(&mut app, "/pause 12ab");
    assert_eq!(pause, What::Act(Action::Pause { id: "12ab".into() }));
    answer(&mut app, pause, Reply::Done(Done::default()));
    assert!(noted(&app).contains("/resume 12ab"), "{}", noted(&app));
    assert_eq!(asked(&mut app, "/resume 12ab"), What::Get { id: "12ab".into(), out: None });
    assert!(line(&mut app, "/nick").is_empty() && noted(&app).contains("called ana"), "{}", noted(&app));
}

#[test]
fn a_topic_is_read_when_one_is_said_and_shown() {
    let mut app = ready();
    assert!(line(&mut app, "/topic").is_empty() && noted(&app).starts_with("no topic"));
    let mut said = message("m1", "bo", 1, "set the topic: poems", &[]);
    said["kind"] = json!("topic");
    event(&mut app, said);
    let asks = app.tick(Duration::from_millis(500));
    assert!(asks.iter().any(|ask| ask.what == What::Conversations), "{asks:?}");
    let list = json!([{"to": LOBBY, "kind": "open", "unread": 0, "members": 3, "topic": "poems\u{1b}[2J"}]);
    let list: Vec<Conversation> = serde_json::from_value(list).unwrap();
    answer(&mut app, What::Conversations, Reply::Conversations(list));
    line(&mut app, "/topic");
    assert_eq!(noted(&app), "poems\u{fffd}[2J");
}

#[test]
fn what_expires_is_of_one_person_and_said_with_each_message() {
    let mut app = ready();
    assert!(line(&mut app, "/expire 1h").is_empty() && noted(&app).contains("does not expire"));
    line(&mut app, "/msg @bo");
    let lifetime = |app: &mut App| match asked(app, "hi") {
        What::Send { expire, .. } => expire,
        other => panic!("{other:?}"),
    };
    assert_eq!(lifetime(&mut app), None);
    line(&mut app, "/expire 2h");
    assert!(noted(&app).contains("within 2 h"), "{}", noted(&app));
    assert_eq!(lifetime(&mut app), Some(Duration::from_secs(7_200)));
    line(&mut app, "/expire");
    assert!(noted(&app).contains("within 2 h"), "it is told, and stays");
    line(&mut app, "/expire off");
    assert_eq!(lifetime(&mut app), None);
}
