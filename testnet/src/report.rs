//! What was shown, and how it is printed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing that was shown, or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// What was to be shown.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// What happened, in a sentence.
    pub detail: String,
    /// What was measured; units are in the names.
    pub figures: BTreeMap<String, Value>,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Check {
    /// Something that held.
    pub fn held(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok: true, detail: detail.into(), figures: BTreeMap::new() }
    }

    /// Something that did not.
    pub fn failed(name: &str, detail: impl Into<String>) -> Self {
        Self { ok: false, ..Self::held(name, detail) }
    }

    /// Held if nothing is wrong; else `wrong` says what is.
    pub fn judged(name: &str, wrong: &[String], detail: impl Into<String>) -> Self {
        if wrong.is_empty() { Self::held(name, detail) } else { Self::failed(name, wrong.join("; ")) }
    }

    /// From an attempt: an error is a check that failed.
    pub fn attempt(name: &str, attempt: impl FnOnce() -> Result<Self, crate::Error>) -> Self {
        let began = Instant::now();
        let check = attempt().unwrap_or_else(|error| Self::failed(name, error.to_string()));
        let seconds = round(began.elapsed());
        if seconds > 0.0 { check.with("seconds", seconds) } else { check }
    }

    /// With a figure.
    #[must_use]
    pub fn with(mut self, name: &str, figure: impl Into<Value>) -> Self {
        self.figures.insert(name.to_owned(), figure.into());
        self
    }
}

/// Seconds with one decimal: more would pretend to a precision that is not there.
pub(crate) fn round(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

impl Report {
    /// Whether everything held.
    pub fn ok(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }

    /// A table for people: a line for each check, its figures below it.
    pub fn table(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for check in &self.checks {
            let mark = if check.ok { "ok  " } else { "FAIL" };
            let _ = writeln!(text, "{mark}  {:width$}  {}", check.name, check.detail);
            let figures: Vec<_> =
                check.figures.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
            if !figures.is_empty() {
                let _ = writeln!(text, "      {:width$}  {}", "", figures.join(" · "));
            }
        }
        let held = self.checks.iter().filter(|check| check.ok).count();
        let _ = writeln!(text, "\n{held} of {} checks held", self.checks.len());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_check_that_failed_fails_the_report() {
        let mut report = Report { checks: vec![Check::held("a", "it held").with("ms", 3)] };
        assert!(report.ok());
        report.checks.push(Check::judged("b", &["it did not".into()], ""));
        assert!(!report.ok());
        assert!(report.table().contains("FAIL  b  it did not"), "{}", report.table());
        assert!(report.table().ends_with("1 of 2 checks held\n"));
    }

    #[test]
    fn a_report_without_checks_shows_nothing_and_so_does_not_hold() {
        assert!(!Report::default().ok());
    }
}
