//! `fog chat file`

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{CliError, Client, Context, TIMEOUT, printable, table};
use crate::{
    api::{FileGet, FilePause, FileSend},
    cli::{output::size, progress::Progress},
    node::chat::report::{File, FileDone, FileProgress},
};

/// Hashing a large file takes a while.
const SENDING: std::time::Duration = std::time::Duration::from_secs(3600);

/// What can be done with files.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Offer a file in a conversation; it stays where it is
    Send {
        /// `@name`, `@PEER`, `#room` or `&group`
        to: String,
        /// The file
        path: PathBuf,
    },
    /// List the files of all conversations
    List,
    /// Stop a fetch; what is here of it stays, and `get` goes on with it
    Pause {
        /// The id that `list` shows
        id: String,
    },
    /// Fetch a file; the same command goes on where an earlier one stopped
    Get {
        /// The id that `list` shows
        id: String,
        /// A folder, or a path where nothing is yet [default: here]
        #[arg(long, value_name = "PATH")]
        out: Option<PathBuf>,
    },
}

pub(super) fn run(context: &Context, client: &Client, command: Command) -> Result<(), CliError> {
    match command {
        Command::Send { to, path } => {
            let timeout = context.timeout(SENDING);
            let file = FileSend { to, path: absolute(&path)? };
            let sent: FileDone = client.post("/v1/chat/files", &file, timeout)?;
            context.out.value(&sent, |sent| format!("offered {} as {}\n", size(sent.bytes), sent.id))
        }
        Command::List => {
            let files: Vec<File> = client.get("/v1/chat/files", context.timeout(TIMEOUT))?;
            context.out.value(&files, |files| list(files))
        }
        Command::Pause { id } => {
            let paused: FileProgress =
                client.post("/v1/chat/files/pause", &FilePause { id }, context.timeout(TIMEOUT))?;
            context
                .out
                .value(&paused, |at| format!("paused: {} of {} are here\n", size(at.bytes), size(at.total_bytes)))
        }
        Command::Get { id, out } => get(context, client, id, out.as_deref()),
    }
}

fn get(context: &Context, client: &Client, id: String, out: Option<&Path>) -> Result<(), CliError> {
    let request = FileGet { id, out: Some(absolute(out.unwrap_or_else(|| Path::new(".")))?) };
    let mut progress = Progress::start();
    let (mut is_done, mut last) = (false, None);
    let ended = client.stream("/v1/chat/files/get", &request, context.config.timeout, |line| {
        let wrong =
            |error: serde_json::Error| CliError::failed(error.to_string(), "are `fog` and the node of one version?");
        if line.get("total_bytes").is_none() {
            let done: FileDone = serde_json::from_value(line).map_err(wrong)?;
            is_done = true;
            return context.out.value(&done, |done| {
                format!("{}: {} from {} peers in {:.1} s\n", done.path, size(done.bytes), done.sources, done.seconds)
            });
        }
        let told: FileProgress = serde_json::from_value(line).map_err(wrong)?;
        let told = last.insert(told);
        if context.out.is_json() {
            return context.out.value(told, |_| String::new());
        }
        progress.show(|| format!("{} of {} from {} peers", size(told.bytes), size(told.total_bytes), told.sources));
        Ok(())
    });
    ended.map_err(|error| if error.is_timed_out() { late(last.as_ref()) } else { error })?;
    if is_done {
        return Ok(());
    }
    Err(CliError::failed("the node stopped before the file was here", "the same command goes on with it"))
}

/// Time is up, and how far the fetch is.
fn late(last: Option<&FileProgress>) -> CliError {
    let is_coming = last.filter(|last| last.sources > 0);
    let message = match is_coming {
        Some(last) => format!("{} of {} are here", size(last.bytes), size(last.total_bytes)),
        None => "nobody who was asked sends the file".to_owned(),
    };
    let hint = match is_coming {
        Some(_) => "the node goes on with it: the same command follows it, and `--timeout` waits longer",
        None => {
            "its sender may be away, or have changed, moved or removed it; the node goes on asking, and the same command follows it"
        }
    };
    CliError::timed_out(message, hint)
}

fn absolute(path: &Path) -> Result<String, CliError> {
    let failed = |error: std::io::Error| CliError::usage(format!("`{}`: {error}", path.display()), "name a path");
    let absolute = std::path::absolute(path).map_err(failed)?;
    let text =
        absolute.to_str().ok_or_else(|| CliError::usage("the path is not UTF-8", "rename it, or name another"))?;
    Ok(text.to_owned())
}

fn list(files: &[File]) -> String {
    let rows: Vec<_> = files
        .iter()
        .map(|file| {
            [printable(&file.name), size(file.total_bytes), printable(&file.from), printable(&file.to), file.id.clone()]
        })
        .collect();
    table(["NAME", "SIZE", "FROM", "TO", "ID"], &rows)
}
