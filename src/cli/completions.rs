//! `fog completions SHELL`

use clap::Args;
use clap_complete::Shell;
use serde_json::json;

use super::{CliError, output::Output};

/// What `fog completions` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Whose completions
    shell: Shell,
}

/// Prints them.
pub(super) fn run(out: Output, arguments: &Arguments, mut command: clap::Command) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "fog", &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    out.value(&json!({ "completions": text }), |_| text.clone())
}
