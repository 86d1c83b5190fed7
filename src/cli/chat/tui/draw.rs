//! The screen: a title, the messages, a bar with LAN, NET, MIX and the queue, the line; on the left, where there is room for it, the
//! conversations and people. Nothing is said by colour alone.

use ratatui::{
    Frame,
    layout::{Position, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Clear, Paragraph},
};
use unicode_segmentation::UnicodeSegmentation;

use super::{
    act,
    app::App,
    events,
    model::{Kind, Message, State, Status, Via},
    room::{Entry, Room},
    text::{Label, clip, width, wrap},
};
use crate::cli::output::duration;

/// From this width on there is a list on the left, of so many columns.
const WITH_SIDE: u16 = 64;
const SIDE: u16 = 22;
/// From this width on messages have their time.
const WITH_TIME: usize = 48;
/// Rows of one message that are shown, so that nobody can push the others away.
const MAX_ROWS: usize = 60;
const MAX_INPUT_ROWS: usize = 5;
const MAX_OFFERS: usize = 8;
const MAX_NAME: usize = 24;

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn reversed() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

impl App {
    /// The style with a colour, if there are colours.
    fn coloured(&self, style: Style, colour: Color) -> Style {
        if self.has_colour { style.fg(colour) } else { style }
    }

    fn side(&self) -> u16 {
        if self.size.0 >= WITH_SIDE { SIDE } else { 0 }
    }

    fn message_width(&self) -> usize {
        usize::from(self.size.0.saturating_sub(self.side()))
    }
}

/// The rows of the line, and where its cursor is.
fn input_rows(app: &App) -> (Vec<String>, (usize, usize)) {
    let columns = usize::from(app.size.0).max(4);
    let mut rows = vec![String::from("> ")];
    let mut used = 2;
    let mut cursor = (0, used);
    let texts = [app.input.before(), app.input.after()];
    for (at, text) in texts.into_iter().enumerate() {
        for cluster in text.graphemes(true) {
            let needed = width(cluster);
            if cluster == "\n" || used + needed >= columns {
                rows.push(String::from("  "));
                used = 2;
            }
            if cluster != "\n" {
                if let Some(row) = rows.last_mut() {
                    row.push_str(cluster);
                }
                used += needed;
            }
        }
        if at == 0 {
            cursor = (rows.len() - 1, used);
        }
    }
    (rows, cursor)
}

fn input_height(app: &App) -> usize {
    input_rows(app).0.len().min(MAX_INPUT_ROWS).min(usize::from(app.size.1) / 3).max(1)
}

/// Rows in which messages are shown.
pub(super) fn message_rows(app: &App) -> usize {
    usize::from(app.size.1).saturating_sub(2 + input_height(app))
}

/// Rows that an entry takes.
pub(super) fn height(app: &App, room: &Room, entry: &Entry) -> usize {
    entry_lines(app, room, entry).len()
}

/// How far the open conversation can be scrolled.
pub(super) fn max_scroll(app: &App) -> usize {
    let room = app.room(&app.current);
    let rows: usize = room.map_or(0, |room| room.entries.iter().map(|entry| height(app, room, entry)).sum());
    rows.saturating_sub(message_rows(app))
}

/// Draws all of it.
pub(super) fn draw(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < 20 || area.height < 5 {
        frame.render_widget(Paragraph::new("fog chat: more room, please"), area);
        return;
    }
    let input = u16::try_from(input_height(app)).unwrap_or(1);
    let rows = area.height.saturating_sub(2 + input);
    let side = app.side();
    frame.render_widget(Paragraph::new(title(app)).style(reversed()), Rect { height: 1, ..area });
    if side > 0 {
        let area = Rect { y: 1, width: side - 1, height: rows, ..area };
        frame.render_widget(Paragraph::new(side_lines(app, usize::from(rows))), area);
        let bars: Vec<_> = (0..rows).map(|_| Line::styled("│", dim())).collect();
        frame.render_widget(Paragraph::new(bars), Rect { x: side - 1, width: 1, ..area });
    }
    let messages = Rect { x: side, y: 1, width: area.width - side, height: rows };
    frame.render_widget(Paragraph::new(message_lines(app, usize::from(rows))), messages);
    draw_palette(app, frame, messages);
    let bar = Rect { y: 1 + rows, height: 1, ..area };
    frame.render_widget(Paragraph::new(clip(&status_bar(app), usize::from(area.width))).style(reversed()), bar);
    draw_input(app, frame, Rect { y: 2 + rows, height: input, ..area });
}

fn draw_input(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let (rows, (row, column)) = input_rows(app);
    let first = (row + 1).saturating_sub(usize::from(area.height));
    let lines: Vec<_> = rows.into_iter().skip(first).take(usize::from(area.height)).map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines), area);
    let clamp = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
    let x = area.x.saturating_add(clamp(column)).min(area.right().saturating_sub(1));
    frame.set_cursor_position(Position { x, y: area.y + clamp(row - first) });
}

fn draw_palette(app: &App, frame: &mut Frame<'_>, above: Rect) {
    if !app.palette.is_open(app.input.text()) {
        return;
    }
    let shown = app.palette.offers.len().min(MAX_OFFERS).min(usize::from(above.height));
    let first = (app.palette.selected + 1).saturating_sub(shown);
    let columns = usize::from(above.width);
    let offers = app.palette.offers.iter().enumerate().skip(first).take(shown);
    let lines = offers.map(|(at, offer)| {
        let is_chosen = at == app.palette.selected;
        let name = clip(&format!("{} {}", if is_chosen { '>' } else { ' ' }, Label::new(&offer.shown)), columns);
        let room = columns.saturating_sub(width(&name) + 2);
        let help = if room > 8 { clip(&Label::new(&offer.help), room) } else { String::new() };
        Line::from(vec![
            Span::styled(name, if is_chosen { reversed() } else { bold() }),
            Span::raw("  "),
            Span::styled(help, dim()),
        ])
    });
    let lines: Vec<_> = lines.collect();
    let height = u16::try_from(lines.len()).unwrap_or(0);
    let area = Rect { y: above.bottom() - height, height, ..above };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines), area);
}

/// Where something is unread, the most urgent first.
fn unread(app: &App) -> String {
    let rooms = app.rooms.iter().filter(|room| room.unread > 0 && !room.is_muted && room.to != app.current);
    let mut rooms: Vec<_> = rooms.collect();
    rooms.sort_by_key(|room| !(room.is_mentioned || room.kind == Kind::Direct));
    let shown = rooms.iter().take(4).map(|room| format!("{}{}", clip(&Label::new(&room.to), 12), marks(room)));
    shown.collect::<Vec<_>>().join(" ")
}

fn marks(room: &Room) -> String {
    let mention = if room.is_mentioned { "!" } else { "" };
    if room.unread > 0 { format!("+{}{mention}", room.unread) } else { String::new() }
}

fn title(app: &App) -> String {
    let columns = usize::from(app.size.0);
    let Some(room) = app.room(&app.current) else { return String::new() };
    let sealed = match room.kind {
        Kind::Open if columns < usize::from(WITH_SIDE) => "open to anyone".to_owned(),
        Kind::Open => "open: readable by anyone".to_owned(),
        Kind::Password => "sealed with a password".to_owned(),
        Kind::Group => format!("sealed for {} members", room.members),
        Kind::Direct => {
            let name = room.to.trim_start_matches('@');
            let is_verified = app.contacts.iter().any(|contact| contact.name == name && contact.verified);
            if is_verified { "sealed, verified" } else { "sealed, not verified" }.to_owned()
        }
        Kind::Unknown => "not joined".to_owned(),
    };
    let muted = if room.is_muted { " · muted" } else { "" };
    let via = if room.via == Via::Auto { String::new() } else { format!(" · {} only", room.via.name()) };
    let expire = room.expire.map_or_else(String::new, |time| format!(" · for {}", duration(time.as_secs())));
    let topic = room.topic.as_ref().map_or_else(String::new, |topic| format!(" · {topic}"));
    let left = format!(" {} · {sealed}{muted}{via}{expire}{topic}", Label::new(&room.to));
    let unread = unread(app);
    let right = if unread.is_empty() {
        String::new()
    } else {
        clip(&format!(" Alt-A: {unread} "), columns.saturating_sub(width(&left)).max(columns / 4))
    };
    let left = clip(&left, columns.saturating_sub(width(&right)));
    let gap = columns.saturating_sub(width(&left) + width(&right));
    format!("{left}{}{right}", " ".repeat(gap))
}

fn status_bar(app: &App) -> String {
    if let Some(broken) = &app.broken {
        return format!(" NODE GONE, trying again: {}", broken.message);
    }
    let Some(Status { lan, net, mix, queued, .. }) = &app.status else { return " asking the node …".to_owned() };
    let mut bar = format!(" LAN {lan} · NET {net} · MIX {} · queued {queued}", if *mix { "on" } else { "off" });
    for (id, file) in &app.transfers {
        let total = file.total_bytes.unwrap_or_default().max(1);
        let percent = u128::from(file.bytes) * 100 / u128::from(total);
        bar += &format!(" · get {} {percent} %", clip(&Label::new(id), 8));
    }
    if app.is_quitting() {
        return " Ctrl-C again ends; the node goes on".to_owned();
    }
    if app.scroll > 0 {
        bar += &format!(" · {} rows below: PgDn", app.scroll);
    }
    bar
}

fn side_lines(app: &App, rows: usize) -> Vec<Line<'static>> {
    let columns = usize::from(SIDE) - 1;
    let for_rooms = if app.members.is_empty() { rows } else { rows * 2 / 3 }.max(1);
    let at = app.rooms.iter().position(|room| room.to == app.current).unwrap_or_default();
    let first = (at + 1).saturating_sub(for_rooms);
    let mut lines = Vec::new();
    for room in app.rooms.iter().skip(first).take(for_rooms) {
        let is_current = room.to == app.current;
        let kind = match room.kind {
            Kind::Open => '○',
            Kind::Unknown => ' ',
            _ => '●',
        };
        let marks = marks(room);
        let name = clip(&Label::new(&room.to), columns.saturating_sub(4 + width(&marks)));
        let gap = " ".repeat(columns.saturating_sub(3 + width(&name) + width(&marks)));
        let style = match (is_current, room.unread > 0 && !room.is_muted) {
            (true, _) => reversed(),
            (_, true) => app.coloured(bold(), Color::Yellow),
            _ => Style::new(),
        };
        lines.push(Line::styled(format!("{}{kind} {name}{gap}{marks}", if is_current { '>' } else { ' ' }), style));
    }
    let left = rows.saturating_sub(lines.len());
    if left > 2 && !app.members.is_empty() {
        lines.push(Line::default());
        lines.push(Line::styled(format!(" {} here", app.members.len()), dim()));
        let names = app
            .members
            .iter()
            .take(left - 2)
            .map(|member| Line::from(clip(&format!("   {}", events::name(member)), columns)));
        lines.extend(names);
    }
    lines
}

/// The last rows of the open conversation, above what is scrolled past.
fn message_lines(app: &App, rows: usize) -> Vec<Line<'static>> {
    let Some(room) = app.room(&app.current) else { return Vec::new() };
    let mut below = if app.scroll == 0 { narration(app, room, rows) } else { Vec::new() };
    let wanted = rows + app.scroll;
    let mut lines: Vec<Line<'static>> = Vec::new();
    for entry in room.entries.iter().rev() {
        if lines.len() + below.len() >= wanted {
            break;
        }
        let mut entry = entry_lines(app, room, entry);
        entry.reverse();
        lines.append(&mut entry);
    }
    lines.reverse();
    lines.append(&mut below);
    let end = lines.len().saturating_sub(app.scroll);
    let start = end.saturating_sub(rows);
    lines.truncate(end);
    lines.drain(..start);
    lines
}

/// What a person should know where nothing is said: why nobody is there, and what to do.
fn narration(app: &App, room: &Room, rows: usize) -> Vec<Line<'static>> {
    let is_empty = room.messages().next().is_none();
    let is_alone = app.status.as_ref().is_some_and(|status| status.lan == 0 && status.net == 0);
    let why = app.status.as_ref().and_then(|status| status.alone.as_ref());
    let mut said = Vec::new();
    if is_empty && room.kind == Kind::Open {
        let to = Label::new(&room.to);
        said.push(format!(
            "This is {to}. It is open: whoever joins it reads it, and nothing in it is secret. Type to talk."
        ));
    } else if is_empty && room.kind != Kind::Unknown {
        said.push("Nothing was said here yet. Type to talk.".to_owned());
    }
    if app.broken.is_some() {
        said.push("The node does not answer. `fog run` starts it; this finds it again by itself.".to_owned());
    } else if is_alone && (rows < 8 || !is_empty) {
        said = vec!["Nobody is in reach: /invite, /connect, or wait.".to_owned()];
    } else if is_alone {
        said.push(why.map_or_else(|| "Nobody is in reach.".to_owned(), |why| format!("Nobody is in reach: {why}")));
        said.push("What to do: give somebody the line that /invite shows; or /connect ADDRESS; or wait, others are looked for all the time. \
`fog doctor` tells whether a firewall or missing multicast is in the way. What you write now is kept and sent later.".to_owned());
    }
    said.iter().flat_map(|said| note(said, app.message_width())).take(rows).collect()
}

/// Words of the program. No row of a peer begins in the first column with such a star.
fn note(text: &str, columns: usize) -> impl Iterator<Item = Line<'static>> {
    let lines = wrap(text, columns.saturating_sub(2)).into_iter().enumerate();
    lines.map(|(at, line)| Line::styled(format!("{} {line}", if at == 0 { '*' } else { ' ' }), dim()))
}

fn shown_name(room: &Room, message: &Message) -> String {
    let name = clip(&message.name, MAX_NAME);
    let id = Label::new(&message.author).chars().take(4).collect::<String>();
    // Names are not unique: namesakes are told apart by their keys.
    match (name.is_empty(), room.is_ambiguous(&message.name)) {
        (true, _) => format!("~{id}"),
        (_, true) => format!("{name}~{id}"),
        _ => name,
    }
}

fn entry_lines(app: &App, room: &Room, entry: &Entry) -> Vec<Line<'static>> {
    let columns = app.message_width();
    match entry {
        Entry::Message(message) => said(app, room, message),
        Entry::Pending { text, refused, .. } => {
            let name = app.status.as_ref().map(|status| status.name.clone()).unwrap_or_default();
            let state = if refused.is_some() { State::Failed } else { State::Queued };
            let reason = refused.as_ref().map(|refused| Label::new(refused));
            let message = Message { name, text: text.clone(), state: Some(state), reason, ..Message::default() };
            said(app, room, &message)
        }
        Entry::Note(text) => note(text, columns).collect(),
        Entry::New => vec![Line::styled(clip(&format!("── new {}", "─".repeat(columns)), columns), dim())],
    }
}

fn said(app: &App, room: &Room, message: &Message) -> Vec<Line<'static>> {
    let columns = app.message_width();
    let is_wide = columns >= WITH_TIME;
    let state = message.state.unwrap_or_default();
    let is_mine =
        app.status.as_ref().is_some_and(|status| status.device == message.author) || message.author.is_empty();
    let mark = if is_mine { state.mark() } else { "" };
    let time = if is_wide { act::time(message.sent_at.as_deref()) + " " } else { String::new() };
    let name = shown_name(room, message);
    let indent = width(&time) + 3;
    let mut lines = Vec::new();
    if message.gap_before {
        lines.push(Line::styled(clip("┄ messages are missing here; they are being fetched ┄", columns), dim()));
    }
    let via = message
        .via
        .as_ref()
        .filter(|_| is_mine && state != State::Failed)
        .map(|via| format!(" ({via})"))
        .unwrap_or_default();
    let body = wrap(&format!("{name}: {}{via}", &*message.text), columns.saturating_sub(indent));
    let hidden = body.len().saturating_sub(MAX_ROWS);
    for (at, line) in body.into_iter().take(MAX_ROWS).enumerate() {
        let rest = line.strip_prefix(&*name).filter(|_| at == 0).map(str::to_owned);
        let style = app.coloured(bold(), if is_mine { Color::Cyan } else { Color::Green });
        let text = match rest {
            Some(rest) => vec![Span::styled(name.clone(), style), Span::raw(rest)],
            None => vec![Span::raw(line)],
        };
        let head = if at == 0 { format!("{time}{mark:<2} ") } else { " ".repeat(indent) };
        lines.push(Line::from([vec![Span::styled(head, dim())], text].concat()));
    }
    let under = |text: String| wrap(&text, columns.saturating_sub(indent)).into_iter();
    let mut notes = Vec::new();
    if hidden > 0 {
        notes.extend(under(format!("… {hidden} more rows: `fog chat history` has them all")));
    }
    if state == State::Failed && is_mine {
        let reason = message.reason.as_ref().map_or("no reason given", |reason| reason);
        notes.extend(under(format!("✗ failed: {reason} – /retry sends it again")));
    }
    notes.extend(message.warning.iter().flat_map(|warning| under(format!("! {warning}"))));
    let style = app.coloured(bold(), Color::Red);
    lines.extend(notes.into_iter().map(|note| Line::styled(format!("{}{note}", " ".repeat(indent)), style)));
    lines
}
