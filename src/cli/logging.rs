//! Logs on standard error.

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Our own crates: a plain level is theirs, and other crates speak one level less.
const OURS: [&str; 6] = ["fog", "fog_base", "fog_directory", "fog_lan", "fog_mix", "fog_sphinx"];

/// Starts logging. A second call changes nothing.
pub(super) fn init(config: &Config, default: &str) {
    let filter = EnvFilter::new(directives(config.log_level.as_deref().unwrap_or(default)));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Human => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging had started already");
    }
}

fn directives(level: &str) -> String {
    let others = match level {
        "trace" => "debug",
        "debug" => "info",
        // A healthy node logs no warnings; Kademlia warns whenever it has no peer yet.
        "info" => "warn,libp2p_kad=error",
        "warn" | "error" => "error",
        other => return other.to_owned(),
    };
    OURS.iter().fold(others.to_owned(), |text, ours| format!("{text},{ours}={level}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_ours_and_directives_stay_as_they_are() {
        assert!(directives("debug").starts_with("info,fog=debug,"));
        assert_eq!(directives("off"), "off");
        assert_eq!(directives("fog=trace,libp2p=warn"), "fog=trace,libp2p=warn");
        for level in ["off", "error", "warn", "info", "debug", "trace"] {
            EnvFilter::try_new(directives(level)).unwrap();
        }
    }
}
