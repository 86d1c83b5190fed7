//! The input line: editing by the keys of readline, and its history. Pure.

use std::collections::VecDeque;

use unicode_segmentation::UnicodeSegmentation;

use super::text::Clean;

/// Bytes of a message (fog-chat refuses longer ones).
pub(super) const MAX_INPUT: usize = 8_192;
const MAX_HISTORY: usize = 200;

/// A line being written.
#[derive(Debug, Default)]
pub(super) struct Input {
    text: String,
    /// In bytes, between two characters.
    cursor: usize,
    history: VecDeque<String>,
    /// The entry of the history that is shown; what was being written waits in `draft`.
    recalled: Option<usize>,
    draft: String,
    killed: String,
}

impl Input {
    /// What stands there.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What stands before the cursor.
    pub(super) fn before(&self) -> &str {
        self.text.get(..self.cursor).unwrap_or_default()
    }

    /// What stands after the cursor.
    pub(super) fn after(&self) -> &str {
        self.text.get(self.cursor..).unwrap_or_default()
    }

    /// Replaces all; the cursor goes to the end.
    pub(super) fn set(&mut self, text: &str) {
        self.clear();
        self.insert(text);
    }

    /// Empties the line.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.cursor = 0;
        self.recalled = None;
    }

    /// Takes what was written and keeps it in the history if `is_kept` (a password is not).
    pub(super) fn take(&mut self, is_kept: bool) -> String {
        let text = std::mem::take(&mut self.text);
        self.clear();
        if is_kept && !text.trim().is_empty() && self.history.back() != Some(&text) {
            self.history.push_back(text.clone());
            if self.history.len() > MAX_HISTORY {
                self.history.pop_front();
            }
        }
        text
    }

    /// Forgets everything that was ever written.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Writes at the cursor; what a terminal could obey or what does not fit is left out.
    pub(super) fn insert(&mut self, text: &str) {
        let text = Clean::new(text);
        let room = MAX_INPUT.saturating_sub(self.text.len());
        let end = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let fitting = text.get(..end).unwrap_or_default();
        self.text.insert_str(self.cursor, fitting);
        self.cursor += fitting.len();
    }

    /// Writes one character at the cursor. A mark joins the character before it.
    pub(super) fn push(&mut self, c: char) {
        let joins = unicode_width::UnicodeWidthChar::width(c) == Some(0) && !c.is_control();
        if joins && !self.before().is_empty() && self.text.len() + c.len_utf8() <= MAX_INPUT {
            let cleaned = Clean::new(&format!("{}{c}", self.before()));
            let after = self.after().to_owned();
            self.cursor = cleaned.len();
            self.text = format!("{cleaned}{after}");
        } else {
            self.insert(c.encode_utf8(&mut [0; 4]));
        }
    }

    /// Replaces the last `bytes` before the cursor.
    pub(super) fn complete(&mut self, bytes: usize, with: &str) {
        let start = self.cursor.saturating_sub(bytes);
        if self.text.is_char_boundary(start) {
            self.remove(start, self.cursor);
            self.insert(with);
        }
    }

    fn remove(&mut self, from: usize, to: usize) -> String {
        let removed: String = self.text.drain(from..to).collect();
        self.cursor = from;
        removed
    }

    fn char_left(&self) -> usize {
        self.cursor - self.before().graphemes(true).next_back().map_or(0, str::len)
    }

    fn char_right(&self) -> usize {
        self.cursor + self.after().graphemes(true).next().map_or(0, str::len)
    }

    fn word_left(&self) -> usize {
        let words = self.before().trim_end();
        words
            .rfind(char::is_whitespace)
            .map_or(0, |at| at + words.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8))
    }

    fn word_right(&self) -> usize {
        let after = self.after();
        let skipped = after.len() - after.trim_start().len();
        let word = after.trim_start().find(char::is_whitespace).unwrap_or(after.trim_start().len());
        self.cursor + skipped + word
    }

    fn line_start(&self) -> usize {
        self.before().rfind('\n').map_or(0, |at| at + 1)
    }

    fn line_end(&self) -> usize {
        self.cursor + self.after().find('\n').unwrap_or(self.after().len())
    }

    pub(super) fn left(&mut self) {
        self.cursor = self.char_left();
    }

    pub(super) fn right(&mut self) {
        self.cursor = self.char_right();
    }

    pub(super) fn back_word(&mut self) {
        self.cursor = self.word_left();
    }

    pub(super) fn forward_word(&mut self) {
        self.cursor = self.word_right();
    }

    pub(super) fn home(&mut self) {
        self.cursor = self.line_start();
    }

    pub(super) fn end(&mut self) {
        self.cursor = self.line_end();
    }

    pub(super) fn backspace(&mut self) {
        self.remove(self.char_left(), self.cursor);
    }

    pub(super) fn delete(&mut self) {
        self.remove(self.cursor, self.char_right());
    }

    pub(super) fn kill_word(&mut self) {
        self.killed = self.remove(self.word_left(), self.cursor);
    }

    pub(super) fn kill_to_start(&mut self) {
        self.killed = self.remove(self.line_start(), self.cursor);
    }

    pub(super) fn kill_to_end(&mut self) {
        self.killed = self.remove(self.cursor, self.line_end());
    }

    pub(super) fn yank(&mut self) {
        let killed = self.killed.clone();
        self.insert(&killed);
    }

    /// Shows an older line.
    pub(super) fn older(&mut self) {
        let next = match self.recalled {
            None => self.history.len().checked_sub(1),
            Some(at) => at.checked_sub(1),
        };
        if let Some(next) = next {
            if self.recalled.is_none() {
                self.draft = self.text.clone();
            }
            self.recall(next);
        }
    }

    /// Shows a newer line, and in the end what was being written.
    pub(super) fn newer(&mut self) {
        match self.recalled {
            Some(at) if at + 1 < self.history.len() => self.recall(at + 1),
            Some(_) => {
                let draft = std::mem::take(&mut self.draft);
                self.set(&draft);
            }
            None => {}
        }
    }

    fn recall(&mut self, at: usize) {
        let line = self.history.get(at).cloned().unwrap_or_default();
        self.set(&line);
        self.recalled = Some(at);
    }
}
