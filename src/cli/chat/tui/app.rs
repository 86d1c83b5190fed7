//! The state of the interface: what it knows, and what a key does. Pure: a key or an event comes in, questions for the node come out.
//!
//! `commands.rs` says what a line means, `act.rs` does it, `events.rs` takes what the node says, `draw.rs` shows the whole.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    draw,
    input::Input,
    model::{Action, Ask, Contact, File, Kind, Member, Refusal, Status, What},
    palette::{self, Known, Palette},
    room::{Entry, MAX_ENTRIES, PAGE, Room},
    text::Label,
};

/// Where everybody starts, until the node says otherwise.
pub(super) const LOBBY: &str = "#lobby";
/// Conversations listed.
pub(super) const MAX_ROOMS: usize = 512;
/// Conversations whose scrollback is kept, a page of it each.
const MAX_OPEN: usize = 16;
/// How often the node is asked how it fares, and which conversations there are.
const STATUS_EVERY: Duration = Duration::from_secs(1);
const CONVERSATIONS_EVERY: Duration = Duration::from_secs(10);
/// Between two attempts to join the lobby.
pub(super) const JOIN_EVERY: Duration = Duration::from_secs(5);
/// The second Ctrl-C ends the program if it comes within this time.
const QUIT_WITHIN: Duration = Duration::from_secs(2);

/// The whole interface.
#[derive(Debug)]
pub(super) struct App {
    pub(super) has_colour: bool,
    pub(super) size: (u16, u16),
    pub(super) now: Duration,
    pub(super) status: Option<Status>,
    /// Whether the stream of events is there, and what is wrong if the node does not answer.
    pub(super) is_following: bool,
    pub(super) broken: Option<Refusal>,
    pub(super) rooms: Vec<Room>,
    /// The open conversation: one of `rooms`.
    pub(super) current: String,
    /// Conversations that were opened, the latest last.
    visited: VecDeque<String>,
    pub(super) contacts: Vec<Contact>,
    /// Members of the open conversation.
    pub(super) members: Vec<Member>,
    pub(super) files: Vec<File>,
    pub(super) transfers: BTreeMap<String, File>,
    pub(super) input: Input,
    pub(super) palette: Palette,
    pub(super) paths: Vec<String>,
    /// Rows below the shown ones.
    pub(super) scroll: usize,
    pub(super) number: u64,
    pub(super) last_direct: Option<String>,
    pub(super) has_conversations: bool,
    pub(super) wants_conversations: bool,
    pub(super) wants_read: bool,
    pub(super) is_status_asked: bool,
    pub(super) is_history_asked: bool,
    pub(super) has_explained: bool,
    pub(super) has_greeted: bool,
    /// Said after the screen is given back.
    pub(super) farewell: Option<&'static str>,
    next_status: Duration,
    next_conversations: Duration,
    pub(super) next_join: Duration,
    quit_until: Option<Duration>,
}

impl App {
    pub(super) fn new(has_colour: bool, size: (u16, u16)) -> Self {
        Self {
            has_colour,
            size,
            now: Duration::ZERO,
            status: None,
            is_following: false,
            broken: None,
            rooms: vec![Room::new(LOBBY)],
            current: LOBBY.to_owned(),
            visited: VecDeque::from([LOBBY.to_owned()]),
            contacts: Vec::new(),
            members: Vec::new(),
            files: Vec::new(),
            transfers: BTreeMap::new(),
            input: Input::default(),
            palette: Palette::default(),
            paths: Vec::new(),
            scroll: 0,
            number: 0,
            last_direct: None,
            has_conversations: false,
            wants_conversations: false,
            wants_read: false,
            is_status_asked: false,
            is_history_asked: false,
            has_explained: false,
            has_greeted: false,
            farewell: None,
            next_status: Duration::ZERO,
            next_conversations: Duration::ZERO,
            next_join: Duration::ZERO,
            quit_until: None,
        }
    }

    /// What is asked first.
    pub(super) fn start(&mut self) -> Vec<Ask> {
        let mut asks = self.tick(Duration::ZERO);
        asks.push(self.ask(What::Contacts { is_asked_for: false }));
        asks
    }

    /// A question whose answer belongs into the open conversation.
    pub(super) fn ask(&self, what: What) -> Ask {
        Ask { at: self.current.clone(), what }
    }

    pub(super) fn room(&self, to: &str) -> Option<&Room> {
        self.rooms.iter().find(|room| room.to == to)
    }

    pub(super) fn room_mut(&mut self, to: &str) -> Option<&mut Room> {
        self.rooms.iter_mut().find(|room| room.to == to)
    }

    /// The conversation, listed if there is room in the list: rooms, then groups, then people.
    pub(super) fn enter(&mut self, to: &str) -> Option<&mut Room> {
        if self.room(to).is_none() {
            if self.rooms.len() >= MAX_ROOMS {
                return None;
            }
            self.rooms.push(Room::new(to));
            let rank = |to: &str| (to != LOBBY, "#&@".find(to.chars().next().unwrap_or('@')));
            self.rooms.sort_by(|a, b| (rank(&a.to), &a.to).cmp(&(rank(&b.to), &b.to)));
        }
        self.room_mut(to)
    }

    /// Words of the program, where the person looks.
    pub(super) fn note(&mut self, text: &str) {
        let current = self.current.clone();
        self.note_at(&current, text);
    }

    pub(super) fn note_at(&mut self, to: &str, text: &str) {
        let to = if self.room(to).is_some() { to.to_owned() } else { self.current.clone() };
        if let Some(room) = self.room_mut(&to) {
            room.note(text);
        }
        if to == self.current {
            self.scroll_past(1);
        }
    }

    /// Keeps in place what is shown when the last `entries` came below it.
    pub(super) fn scroll_past(&mut self, entries: usize) {
        if self.scroll > 0
            && let Some(room) = self.room(&self.current)
        {
            let added: usize =
                room.entries.iter().rev().take(entries).map(|entry| draw::height(self, room, entry)).sum();
            self.scroll += added;
        }
    }

    /// What is being written stays in its conversation: in another one it could reach the wrong people.
    fn change_draft(&mut self, to: &str) {
        if self.current == to {
            return;
        }
        let draft = self.input.text().to_owned();
        if let Some(left) = self.room_mut(&self.current.clone()) {
            left.draft = draft;
        }
        let draft = self.room_mut(to).map(|room| std::mem::take(&mut room.draft)).unwrap_or_default();
        self.input.set(&draft);
    }

    /// Opens a conversation.
    pub(super) fn open(&mut self, to: &str) -> Vec<Ask> {
        if self.enter(to).is_none() {
            self.note("there are too many conversations: /leave some");
            return Vec::new();
        }
        if let Some(left) = self.room_mut(&self.current.clone()).filter(|room| room.to != to) {
            left.trim(PAGE);
        }
        self.change_draft(to);
        self.current = to.to_owned();
        self.scroll = 0;
        self.members.clear();
        self.visited.retain(|visited| visited != to);
        self.visited.push_back(to.to_owned());
        if self.visited.len() > MAX_OPEN
            && let Some(oldest) = self.visited.pop_front()
            && let Some(room) = self.room_mut(&oldest)
        {
            room.unload();
        }
        let mut asks = vec![self.ask(What::Members { to: to.to_owned(), is_asked_for: false })];
        let name = to.trim_start_matches('@').to_owned();
        let is_verified = self.contacts.iter().any(|contact| contact.name == name && contact.verified);
        let Some(room) = self.room_mut(to) else { return asks };
        let has_unread = room.unread > 0;
        if !room.is_loaded {
            room.unread_at_open = room.unread;
        }
        room.unread = 0;
        room.is_mentioned = false;
        if room.kind == Kind::Direct && !is_verified && !room.is_told {
            room.is_told = true;
            let name = Label::new(&name);
            room.note(&format!(
                "sealed for @{name}. To know that nobody stands between you, compare words: /verify @{name}"
            ));
        }
        let wants_history = !room.is_loaded || room.is_stale;
        if wants_history {
            asks.push(self.ask_history());
        }
        self.wants_read |= has_unread;
        asks
    }

    pub(super) fn ask_history(&mut self) -> Ask {
        let to = self.current.clone();
        let limit = self.room_mut(&to).map_or(PAGE, |room| {
            room.is_stale = false;
            room.wanted = room.wanted.max(room.messages().count()).min(MAX_ENTRIES);
            room.wanted
        });
        self.is_history_asked = true;
        self.ask(What::History { to, limit })
    }

    /// Time passes. Call it twice a second.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Ask> {
        self.now = now;
        let mut asks = Vec::new();
        if now >= self.next_status && !self.is_status_asked {
            self.next_status = now + STATUS_EVERY;
            self.is_status_asked = true;
            asks.push(self.ask(What::Status));
        }
        if now >= self.next_conversations || self.wants_conversations {
            self.next_conversations = now + CONVERSATIONS_EVERY;
            self.wants_conversations = false;
            asks.push(self.ask(What::Conversations));
        }
        if self.room(&self.current).is_some_and(|room| room.is_stale) && !self.is_history_asked {
            asks.push(self.ask_history());
        }
        if self.wants_read && self.scroll == 0 {
            self.wants_read = false;
            asks.push(self.ask(What::Act(Action::Read { to: self.current.clone() })));
        }
        self.quit_until = self.quit_until.filter(|until| now < *until);
        asks
    }

    /// Whether the next Ctrl-C ends the program.
    pub(super) fn is_quitting(&self) -> bool {
        self.quit_until.is_some()
    }

    /// The terminal has another size.
    pub(super) fn handle_resize(&mut self, width: u16, height: u16) {
        self.size = (width, height);
        self.clamp_scroll();
    }

    /// There may be fewer rows now.
    pub(super) fn clamp_scroll(&mut self) {
        if self.scroll > 0 {
            self.scroll = self.scroll.min(draw::max_scroll(self));
        }
    }

    /// Text was pasted. A path that is dropped on an empty line is offered as a file.
    pub(super) fn handle_paste(&mut self, text: &str) -> Vec<Ask> {
        let text = text.trim_end_matches(['\n', '\r']);
        let bare = text.trim_start_matches(['\'', '"']).trim_start_matches("file://");
        let is_path =
            !text.contains('\n') && bare.get(1..).is_some_and(|rest| bare.starts_with('/') && rest.contains('/'));
        if self.input.text().is_empty() && is_path {
            self.input.insert("/send ");
        }
        self.input.insert(text);
        self.line_changed()
    }

    /// A key was pressed.
    pub(super) fn handle_key(&mut self, key: KeyEvent) -> Vec<Ask> {
        if key.kind == KeyEventKind::Release {
            return Vec::new();
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        // On a German keyboard AltGr is Control and Alt, and writes `@`.
        let alt = key.modifiers.contains(KeyModifiers::ALT) && !control;
        let is_text = !alt && (!control || key.modifiers.contains(KeyModifiers::ALT));
        if !(control && key.code == KeyCode::Char('c')) {
            self.quit_until = None;
        }
        match key.code {
            KeyCode::Char(c) if is_text => self.input.push(c),
            KeyCode::Char(c) if alt => return self.alt(c),
            KeyCode::Char('j') => self.input.insert("\n"),
            KeyCode::Char(c) => {
                if let Some(asks) = self.control(c) {
                    return asks;
                }
            }
            KeyCode::Enter if alt || key.modifiers.contains(KeyModifiers::SHIFT) => self.input.insert("\n"),
            KeyCode::Enter => return self.enter_key(),
            KeyCode::F(1) => return self.run_line("/help"),
            KeyCode::Up | KeyCode::Down if alt => return self.beside(key.code == KeyCode::Down),
            KeyCode::Up | KeyCode::Down | KeyCode::Esc | KeyCode::Tab | KeyCode::BackTab => {
                if self.choose(key.code) {
                    return Vec::new();
                }
            }
            KeyCode::PageUp => return self.page(true),
            KeyCode::PageDown => return self.page(false),
            _ => self.edit(key.code, control || alt),
        }
        self.line_changed()
    }

    fn edit(&mut self, code: KeyCode, by_word: bool) {
        match code {
            KeyCode::Left if by_word => self.input.back_word(),
            KeyCode::Right if by_word => self.input.forward_word(),
            KeyCode::Left => self.input.left(),
            KeyCode::Right => self.input.right(),
            KeyCode::Home => self.input.home(),
            KeyCode::End => self.input.end(),
            KeyCode::Backspace if by_word => self.input.kill_word(),
            KeyCode::Backspace => self.input.backspace(),
            KeyCode::Delete => self.input.delete(),
            _ => {}
        }
    }

    /// Keys with Control, as in readline. `None`: the line changed.
    fn control(&mut self, c: char) -> Option<Vec<Ask>> {
        match c {
            'a' => self.input.home(),
            'b' => self.input.left(),
            'd' if self.input.text().is_empty() => return Some(vec![self.ask(What::Quit)]),
            'd' => self.input.delete(),
            'e' => self.input.end(),
            'f' => self.input.right(),
            'h' => self.input.backspace(),
            'k' => self.input.kill_to_end(),
            'u' => self.input.kill_to_start(),
            'w' => self.input.kill_word(),
            'y' => self.input.yank(),
            'n' => return Some(self.beside(true)),
            'p' => return Some(self.beside(false)),
            'l' => return Some(vec![self.ask(What::Redraw)]),
            'c' if self.is_quitting() => return Some(vec![self.ask(What::Quit)]),
            'c' => {
                self.input.clear();
                self.quit_until = Some(self.now + QUIT_WITHIN);
            }
            _ => {}
        }
        None
    }

    fn alt(&mut self, c: char) -> Vec<Ask> {
        match c {
            'a' => return self.next_activity(),
            '1'..='9' => {
                let at = c.to_digit(10).unwrap_or(1) as usize - 1;
                let to = self.rooms.get(at).map(|room| room.to.clone());
                return to.map(|to| self.open(&to)).unwrap_or_default();
            }
            'b' => self.input.back_word(),
            'f' => self.input.forward_word(),
            _ => {}
        }
        self.line_changed()
    }

    /// Where something is unread: who names us or writes to us alone first. Without any, back to where we were before.
    fn next_activity(&mut self) -> Vec<Ask> {
        let unread = self.rooms.iter().filter(|room| room.unread > 0 && !room.is_muted && room.to != self.current);
        let urgent =
            |room: &&Room| (room.is_mentioned || room.kind == Kind::Direct, std::cmp::Reverse(room.to.clone()));
        let next = unread.max_by_key(urgent).map(|room| room.to.clone());
        let before = self.visited.iter().rev().find(|to| **to != self.current).cloned();
        match next.or(before) {
            Some(to) => self.open(&to),
            None => Vec::new(),
        }
    }

    /// The conversation below or above in the list.
    fn beside(&mut self, is_below: bool) -> Vec<Ask> {
        let count = self.rooms.len().max(1);
        let at = self.rooms.iter().position(|room| room.to == self.current).unwrap_or_default();
        let next = (at + if is_below { 1 } else { count - 1 }) % count;
        let to = self.rooms.get(next).map(|room| room.to.clone()).filter(|to| *to != self.current);
        to.map(|to| self.open(&to)).unwrap_or_default()
    }

    fn page(&mut self, is_up: bool) -> Vec<Ask> {
        let page = draw::message_rows(self).saturating_sub(1).max(1);
        let most = draw::max_scroll(self);
        self.scroll = if is_up { (self.scroll + page).min(most) } else { self.scroll.saturating_sub(page) };
        if !is_up && self.scroll == 0 {
            self.wants_read = true;
        }
        let current = self.current.clone();
        let is_at_top = is_up && self.scroll == most && !self.is_history_asked;
        let has_more = |room: &&mut Room| room.messages().count() >= room.wanted && room.wanted < MAX_ENTRIES;
        match self.room_mut(&current).filter(has_more) {
            Some(room) if is_at_top => {
                room.wanted += PAGE;
                vec![self.ask_history()]
            }
            _ => Vec::new(),
        }
    }

    /// Keys of the palette, or of the input's history. True if the line did not change.
    fn choose(&mut self, code: KeyCode) -> bool {
        let is_open = self.palette.is_open(self.input.text());
        match code {
            KeyCode::Esc => self.palette.is_closed = true,
            KeyCode::Up | KeyCode::BackTab if is_open => self.palette.up(),
            KeyCode::Down if is_open => self.palette.down(),
            KeyCode::Tab if is_open || self.palette.offers.len() == 1 => {
                self.accept();
                return false;
            }
            KeyCode::Tab => (self.palette.is_forced, self.palette.is_closed) = (true, false),
            KeyCode::Up => {
                self.input.older();
                return false;
            }
            KeyCode::Down => {
                self.input.newer();
                return false;
            }
            _ => {}
        }
        true
    }

    fn accept(&mut self) {
        if let Some(offer) = self.palette.chosen().cloned() {
            self.input.complete(offer.replaces, &offer.insert);
        }
    }

    fn enter_key(&mut self) -> Vec<Ask> {
        let line = self.input.text();
        let is_name = line.starts_with('/') && !line.contains(' ');
        let is_known = super::commands::find(line.trim_start_matches('/')).is_some();
        // Half a command, or an offer that was walked to: Enter takes the offer.
        if self.palette.is_open(line) && (self.palette.is_forced || self.palette.selected > 0 || (is_name && !is_known))
        {
            self.accept();
            return self.line_changed();
        }
        self.submit()
    }

    /// Offers what fits the line now.
    pub(super) fn line_changed(&mut self) -> Vec<Ask> {
        let known = self.known();
        self.palette.refresh(palette::offers(self.input.before(), &known));
        let wanted = palette::path(self.input.before()).map(str::to_owned);
        wanted.map(|prefix| vec![self.ask(What::Paths { prefix })]).unwrap_or_default()
    }

    pub(super) fn known(&self) -> Known {
        let people = self.contacts.iter().map(|contact| format!("@{}", contact.name));
        let members =
            self.members.iter().filter(|member| !member.name.is_empty()).map(|member| format!("@{}", member.name));
        let mut people: Vec<_> = people.chain(members).collect();
        people.sort();
        people.dedup();
        let rooms = self.rooms.iter().map(|room| room.to.clone()).filter(|to| !to.starts_with('@'));
        let messages =
            self.room(&self.current).into_iter().flat_map(|room| room.messages().rev().take(palette::MAX_OFFERS));
        let files = self
            .files
            .iter()
            .map(|file| (file.id.clone(), file.name.as_ref().map(ToString::to_string).unwrap_or_default()));
        Known {
            rooms: rooms.collect(),
            people,
            files: files.collect(),
            messages: messages
                .map(|message| (message.id.clone(), format!("{}: {}", message.name, Label::new(&message.text))))
                .collect(),
            paths: self.paths.clone(),
        }
    }

    /// How many entries are kept, of all conversations.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.rooms.iter().map(|room| room.entries.len()).sum()
    }

    pub(super) fn pending(&mut self, text: &str) -> u64 {
        self.number += 1;
        let (number, current) = (self.number, self.current.clone());
        if let Some(room) = self.room_mut(&current) {
            room.push(Entry::Pending { number, text: super::text::Clean::new(text), refused: None });
        }
        self.scroll = 0;
        number
    }
}
