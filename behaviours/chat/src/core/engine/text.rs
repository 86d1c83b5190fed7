//! Texts and names: what may be sent, and what becomes of the rest when it is shown.
//!
//! The attack: a text that moves the terminal's cursor, hides what stands before it, or reads backwards.

use fog_base::NodeId;

use super::card::MAX_NAME;
use crate::DeviceId;

/// The longest text, in bytes of UTF-8.
pub const MAX_TEXT: usize = 8_192;

/// Control characters but newline and tab, and the marks that override or isolate the direction of writing (Unicode TR 9), line and
/// paragraph separators, and what is invisible and joins nothing.
fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// What nobody sees, or which ends a line: two names that look alike would differ by it.
fn is_unseen(c: char) -> bool {
    matches!(c, '\n' | '\t' | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}')
        || matches!(c, '\u{200c}' | '\u{2061}'..='\u{2064}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}')
}

/// Whether a text may be sent.
pub fn is_clean(text: &str) -> bool {
    !text.chars().any(is_unsafe)
}

/// A text as it is shown: U+FFFD in the place of everything that may not be sent, and of bytes that are no UTF-8.
pub fn clean_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect()
}

/// A text of one line as it is shown.
pub(super) fn clean_line(bytes: &[u8]) -> String {
    clean_text(bytes).chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }).collect()
}

/// A name as it is shown: one line of at most 64 bytes, never empty, and no id: who calls itself what another is addressed by would get what
/// is sent to it.
pub fn clean_name(name: &str) -> String {
    let shown = name.trim().chars().map(|c| if is_unsafe(c) || is_unseen(c) { '\u{fffd}' } else { c });
    let mut clean = String::new();
    for c in shown {
        if clean.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        clean.push(c);
    }
    clean.truncate(clean.trim_end().len());
    let is_id = clean.parse::<NodeId>().is_ok() || clean.parse::<DeviceId>().is_ok();
    if clean.is_empty() || is_id { "somebody".to_owned() } else { clean }
}

/// Whether a name may be chosen.
pub(super) fn is_name(name: &str) -> bool {
    let is_clean =
        clean_name(name) == name && !name.contains(char::is_whitespace) && !name.starts_with(['@', '#', '&']);
    !name.is_empty() && name.len() <= MAX_NAME && is_clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_and_overrides_are_not_clean_and_are_shown_as_replacement() {
        for bad in ["\u{1b}[2J", "a\u{202e}b", "\u{9b}31m", "a\rb", "\u{2066}", "\u{7f}", "a\0b", "\u{200b}"] {
            assert!(!is_clean(bad), "{bad:?}");
            let shown = clean_text(bad.as_bytes());
            assert!(is_clean(&shown) && shown.contains('\u{fffd}'), "{bad:?}");
        }
        for good in ["", "two\nlines\tand a tab", "žluťoučký", "日本語", "👩‍👩‍👧"] {
            assert!(is_clean(good), "{good:?}");
            assert_eq!(clean_text(good.as_bytes()), good);
        }
        assert_eq!(clean_text(&[0xff, b'a']), "\u{fffd}a");
        for id in [NodeId([7; 32]).to_string(), DeviceId([7; 32]).to_string()] {
            assert!(clean_name(&format!(" {id}")) == "somebody" && !is_name(&id), "{id}");
        }
        for unseen in ["an\u{ad}a", "ana\u{3164}", "a\u{200c}na"] {
            assert!(!is_name(unseen) && clean_name(unseen).contains('\u{fffd}'), "{unseen:?}");
        }
        // Cut at a space, a name does not end with it.
        assert_eq!(clean_name(&format!("{} b", "a".repeat(MAX_NAME - 1))), "a".repeat(MAX_NAME - 1));
    }

    proptest! {
        #[test]
        fn a_name_is_one_clean_short_line_whatever_came(name in any::<String>()) {
            let clean = clean_name(&name);
            prop_assert!(!clean.is_empty() && clean.len() <= MAX_NAME && is_clean(&clean) && !clean.contains(['\n', '\t']));
            prop_assert_eq!(clean_name(&clean), clean);
        }
    }
}
