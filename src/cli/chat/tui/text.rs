//! Text of strangers, made safe for a terminal and measured.
//!
//! The attack: a name or a message that holds terminal escapes (moving the cursor, setting the clipboard), bidirectional overrides or
//! invisible characters (a name that reads as another's), or heaps of combining marks that run over the neighbouring lines. Whatever a
//! peer can choose becomes [`Clean`] or [`Label`] where it is read, and nothing else is drawn.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Deserializer};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Characters of a text that are kept. A message has at most 8,192 bytes; what is longer did not come as a message.
const MAX_TEXT: usize = 8_192;
/// Columns of a name, a room or a reason.
const MAX_LABEL: usize = 120;
/// Marks that may be stacked on one character: enough for every living script.
const MAX_MARKS: usize = 4;
const REPLACEMENT: char = '\u{fffd}';

/// Text of several lines that is safe to draw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Clean(String);

/// Text of one line that is safe to draw and hides nothing: names, rooms, reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(String);

impl Clean {
    /// Keeps newlines; a tab becomes a space.
    pub(super) fn new(text: &str) -> Self {
        Self(clean(text, true))
    }
}

impl Label {
    /// Line breaks and tabs become spaces, invisible characters go.
    pub(super) fn new(text: &str) -> Self {
        Self(clip(&clean(text, false), MAX_LABEL))
    }
}

impl Deref for Clean {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Deref for Label {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Clean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for Clean {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

/// What a character turns into.
enum Fate {
    Keep,
    Drop,
    Break,
    Replace,
}

fn fate(c: char, before: char, is_text: bool) -> Fate {
    match c {
        '\n' | '\t' | '\u{2028}' | '\u{2029}' => Fate::Break,
        '\r' => Fate::Drop,
        // Embeddings, overrides and isolates turn what follows around; Hangul fillers are letters that cannot be seen.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Fate::Replace,
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' => Fate::Replace,
        c if c.is_control() => Fate::Replace,
        // The joiners shape scripts such as Devanagari and Persian. Elsewhere they glue emoji together, and terminals do not agree how wide
        // the result is.
        '\u{200c}' | '\u{200d}' if is_text && ('\u{600}'..'\u{2000}').contains(&before) => Fate::Keep,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' => Fate::Drop,
        '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' => Fate::Drop,
        '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' => Fate::Drop,
        _ => Fate::Keep,
    }
}

fn clean(text: &str, is_text: bool) -> String {
    let mut out = String::new();
    let (mut before, mut marks) = (' ', 0);
    for c in text.chars().take(MAX_TEXT) {
        let kept = match fate(c, before, is_text) {
            Fate::Keep => c,
            Fate::Drop => continue,
            Fate::Break if is_text && c != '\t' => '\n',
            Fate::Break => ' ',
            Fate::Replace => REPLACEMENT,
        };
        marks = if kept.width() == Some(0) { marks + 1 } else { 0 };
        // A mark needs a character to sit on.
        if marks > MAX_MARKS || (marks > 0 && matches!(before, ' ' | '\n')) {
            continue;
        }
        out.push(kept);
        before = kept;
    }
    out
}

/// Columns that a text of one line takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text, cut to so many columns; an ellipsis shows that it was.
pub(super) fn clip(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for cluster in text.graphemes(true) {
        used += width(cluster);
        if used + 1 > columns {
            break;
        }
        out.push_str(cluster);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// The text in lines of at most so many columns (one character may take three), broken between words where that is possible.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let (mut line, mut used) = (String::new(), 0);
        for word in paragraph.split_inclusive(' ') {
            let needed = width(word.trim_end());
            if used + needed > columns && used > 0 && needed <= columns {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                used = 0;
            }
            for piece in word.graphemes(true).flat_map(|cluster| pieces(cluster, columns)) {
                let needed = width(piece);
                // A space at the end of a row needs no room.
                if used + needed > columns && piece == " " {
                    continue;
                }
                if used + needed > columns {
                    lines.push(std::mem::take(&mut line));
                    used = 0;
                }
                line.push_str(piece);
                used += needed;
            }
        }
        lines.push(line);
    }
    lines
}

/// A cluster, or its characters if it is wider than a row: marks that take room can be heaped without end.
fn pieces(cluster: &str, columns: usize) -> Vec<&str> {
    if width(cluster) <= columns {
        vec![cluster]
    } else {
        cluster.split("").filter(|piece| !piece.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_strangers_text_cannot_steer_the_terminal() {
        assert_eq!(&*Clean::new("a\x1b]52;c;AAAA\x07b\r\nc\td\u{9b}2J"), "a\u{fffd}]52;c;AAAA\u{fffd}b\nc d\u{fffd}2J");
        assert_eq!(&*Label::new("ana\n12:00 bob hello"), "ana 12:00 bob hello");
    }

    #[test]
    fn a_name_hides_nothing_and_turns_nothing_around() {
        assert_eq!(&*Label::new("a\u{200b}n\u{feff}a\u{200d}\u{e0041}"), "ana");
        assert_eq!(&*Label::new("\u{202e}ana\u{3164}"), "\u{fffd}ana\u{fffd}");
        assert_eq!(width(&Label::new(&"w".repeat(500))), MAX_LABEL);
    }

    #[test]
    fn marks_are_stacked_only_so_high() {
        let zalgo: String = std::iter::once('e').chain(std::iter::repeat_n('\u{301}', 100)).collect();
        assert_eq!(Clean::new(&zalgo).chars().count(), 1 + MAX_MARKS);
        assert_eq!(&*Clean::new(" \u{301}\n\u{301}a"), " \na");
    }

    #[test]
    fn joiners_stay_where_a_script_needs_them() {
        assert_eq!(&*Clean::new("می\u{200c}خواهم"), "می\u{200c}خواهم");
        assert_eq!(&*Clean::new("👩\u{200d}👧"), "👩👧");
    }

    #[test]
    fn lines_break_between_words_and_keep_every_letter() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("日本語", 4), ["日本", "語"]);
        assert_eq!(wrap("a\n\nb", 10), ["a", "", "b"]);
        assert_eq!(wrap("/invite, or /connect", 14), ["/invite, or", "/connect"]);
        // One cluster of three columns.
        assert_eq!(wrap("\u{1000}\u{11937}\u{1056}", 2).len(), 2);
    }

    proptest! {
        #[test]
        fn what_is_clean_stays_clean_and_fits(text in "\\PC{0,40}|[\\x00-\\x20\\u{202a}-\\u{2069}a-c]{0,60}", columns in 4usize..40) {
            let clean = Clean::new(&text);
            prop_assert!(!clean.chars().any(|c| c != '\n' && c.is_control()));
            prop_assert_eq!(&Clean::new(&clean), &clean);
            for line in wrap(&clean, columns) {
                prop_assert!(width(&line) <= columns.max(2), "{line:?}");
            }
            prop_assert!(width(&clip(&Label::new(&text), columns)) <= columns);
        }
    }
}
