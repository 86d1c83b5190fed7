//! `fog completions SHELL`

use clap::Args;
use clap_complete::Shell;

use super::{CliError, output::Output};

/// What `fog completions` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Whose completions
    shell: Shell,
}

/// Prints them.
pub(super) fn run(arguments: &Arguments, mut command: clap::Command) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "fog", &mut text);
    Output::new(false).text(&String::from_utf8_lossy(&text))
}
