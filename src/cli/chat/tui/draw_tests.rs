//! The screen as people see it.

use crossterm::event::KeyCode;
use ratatui::{Terminal, backend::TestBackend};
use serde_json::json;

use super::{
    app::{App, LOBBY},
    app_tests::{answer, conversations, event, history, key, line, message, ready, status, typed},
    draw::draw,
    model::{Reply, Sent, State, What},
};

/// Draws, and checks that no cell holds what a terminal could obey.
pub(super) fn screen(app: &App) -> String {
    let (width, height) = app.size;
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(app, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width).max(1)).map(|row| {
        let mut text = String::new();
        let mut hidden = 0;
        for cell in row {
            let symbol = cell.symbol();
            let is_hostile = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            assert!(!symbol.contains(is_hostile), "{symbol:?}");
            // The second column of a wide character.
            if hidden == 0 {
                text.push_str(symbol);
                hidden = super::text::width(symbol).max(1);
            }
            hidden -= 1;
        }
        text.trim_end().to_owned() + "\n"
    });
    rows.collect()
}

fn sized(width: u16, height: u16) -> App {
    let mut app = ready();
    app.handle_resize(width, height);
    app
}

fn talk(app: &mut App) {
    let contacts = json!([{"name": "bo", "peer_id": "12D3", "verified": true, "policy": "mix", "blocked": false}]);
    answer(app, What::Contacts { is_asked_for: false }, Reply::Contacts(serde_json::from_value(contacts).unwrap()));
    let members =
        json!([{"peer_id": "p1", "name": "ana", "role": "member"}, {"peer_id": "p2", "name": "bo", "role": "member"}]);
    let what = What::Members { to: LOBBY.into(), is_asked_for: false };
    answer(app, what, Reply::Members(serde_json::from_value(members).unwrap()));
    let mut gap = message(
        "a2",
        "bo",
        2,
        "and after something that is missing, which is long enough to be broken into two rows",
        &[("bo", 1)],
    );
    gap["gap_before"] = json!(true);
    history(app, &[message("a1", "bo", 1, "morning all", &[]), gap]);
    for (text, state, reason) in
        [("hello", State::Read, None), ("away?", State::Failed, Some("no path to anybody in 24 h"))]
    {
        let asks = line(app, text);
        let sent = json!({"id": text, "state": "sent", "via": "lan", "reason": reason});
        let sent = Sent { state, ..serde_json::from_value(sent).unwrap() };
        answer(app, asks[0].what.clone(), Reply::Sent(sent));
    }
    conversations(app, &[(LOBBY, "open", 0), ("#dev", "password", 4), ("&ops", "group", 0), ("@bo", "direct", 1)]);
}

#[test]
fn a_conversation() {
    let mut app = sized(80, 24);
    talk(&mut app);
    typed(&mut app, "日本語, and one more");
    insta::assert_snapshot!("conversation_80x24", screen(&app));
}

#[test]
fn a_conversation_in_a_small_window() {
    let mut app = sized(40, 10);
    talk(&mut app);
    insta::assert_snapshot!("conversation_40x10", screen(&app));
}

#[test]
fn nobody_is_in_reach() {
    let mut app = sized(80, 24);
    status(&mut app, 0);
    insta::assert_snapshot!("alone_80x24", screen(&app));
    app.handle_resize(40, 10);
    insta::assert_snapshot!("alone_40x10", screen(&app));
}

#[test]
fn the_palette() {
    let mut app = sized(80, 24);
    talk(&mut app);
    typed(&mut app, "/");
    key(&mut app, KeyCode::Down);
    insta::assert_snapshot!("palette_80x24", screen(&app));
    app.handle_resize(40, 10);
    insta::assert_snapshot!("palette_40x10", screen(&app));
}

#[test]
fn every_kind_of_conversation_says_who_can_read_it() {
    let mut app = sized(80, 24);
    talk(&mut app);
    let title = |app: &App| screen(app).lines().next().unwrap_or_default().to_owned();
    assert!(title(&app).contains("readable by anyone"));
    for (to, says) in
        [("#dev", "sealed with a password"), ("&ops", "sealed for 3 members"), ("@bo", "sealed, verified")]
    {
        app.open(to);
        assert!(title(&app).contains(says), "{}", title(&app));
    }
    app.open("@eve");
    assert!(title(&app).contains("not verified"));
}

#[test]
fn without_colour_nothing_is_lost() {
    let mut with = sized(80, 24);
    talk(&mut with);
    let mut without = sized(80, 24);
    without.has_colour = false;
    talk(&mut without);
    assert_eq!(screen(&with), screen(&without));
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(&without, frame)).unwrap();
    let reset = ratatui::style::Color::Reset;
    assert!(terminal.backend().buffer().content().iter().all(|cell| cell.fg == reset && cell.bg == reset));
}

#[test]
fn a_hostile_peer_writes_only_into_its_own_rows() {
    let mut app = sized(80, 24);
    let mut hostile =
        message("x", "eve", 1, "\u{1b}]0;title\u{7}\u{1b}[2J\u{202e}evil\n12:00 → ana: I agree\n\u{9b}31m", &[]);
    hostile["name"] = json!("ana\u{200b}\r\n* node");
    hostile["warning"] = json!("\u{1b}c");
    event(&mut app, hostile);
    let mut namesake = message("y", "f00d", 1, "same name", &[("eve", 1)]);
    namesake["name"] = json!("ana\u{feff} * node");
    event(&mut app, namesake);
    event(&mut app, json!({"event": "notice", "to": "#x\u{1b}[A", "text": "\u{1b}[A"}));
    event(&mut app, message("long", "eve", 2, &"\n".repeat(8_000), &[("f00d", 1)]));
    conversations(&mut app, &[(LOBBY, "open", 0), ("#a\u{1b}[31m\u{202e}b", "open", 7)]);
    let text = screen(&app);
    assert!(text.contains("more rows"), "{text}");
    app.scroll = super::draw::max_scroll(&app);
    let text = screen(&app);
    insta::assert_snapshot!("hostile_80x24", text);
}

#[test]
fn every_size_can_be_drawn() {
    let mut app = sized(80, 24);
    talk(&mut app);
    typed(&mut app, "/join 日本語 a line that is longer than some of the windows in which it is going to be drawn");
    for width in 0..90 {
        for height in [0, 1, 2, 3, 4, 5, 6, 9, 24] {
            app.handle_resize(width, height);
            screen(&app);
        }
    }
}
