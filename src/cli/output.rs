//! What goes to standard output: JSON values, or lines and tables for people.

use std::io::{self, Write};

use serde::Serialize;

use super::CliError;

/// Standard output, in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON was asked for.
    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// A value: as one line of JSON, or as `human` tells it.
    pub(super) fn value<T: Serialize>(self, value: &T, human: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        if !self.json {
            return self.text(&human(value));
        }
        let line = serde_json::to_string(value)
            .map_err(|error| CliError::failed(error.to_string(), "report this as a bug"))?;
        self.text(&(line + "\n"))
    }

    /// Text as it is.
    pub(super) fn text(self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| CliError::output(&error))
    }
}

/// Columns under their headings; the last one is as wide as it likes.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let heading = headings.map(str::to_owned);
    std::iter::once(&heading).chain(rows).map(line).collect()
}

/// Names and values, one a line.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    fields.iter().map(|(name, value)| format!("{name:width$}  {value}").trim_end().to_owned() + "\n").collect()
}

/// Text of a stranger, safe for a terminal: control characters (which could move the cursor or forge lines) become `�`.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A duration in the largest unit that leaves a number above one.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Bytes in the largest binary unit that leaves a number above one.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut shown = bytes;
    while shown >= 10 * 1024 && unit + 1 < UNITS.len() {
        shown /= 1024;
        unit += 1;
    }
    format!("{shown} {}", UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let rows = [
            ["a".to_owned(), "long cell".to_owned(), String::new()],
            ["bbb".to_owned(), "x".to_owned(), "y".to_owned()],
        ];
        assert_eq!(table(["one", "two", "three"], &rows), "one  two        three\na    long cell\nbbb  x          y\n");
        assert_eq!(fields(&[("a", "1".into()), ("bb", String::new())]), "a   1\nbb\n");
    }

    #[test]
    fn a_strangers_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\n\tc\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\n\tc\u{fffd}");
    }

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(
            (size(9_999), size(20 * 1024), size(5 << 30)),
            ("9999 B".into(), "20 KiB".into(), "5120 MiB".into())
        );
        assert_eq!((duration(100), duration(600), duration(500_000)), ("100 s".into(), "10 min".into(), "5 d".into()));
    }
}
