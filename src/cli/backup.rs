//! `fog backup FILE`: keys and private state, sealed with a passphrase. Works beside a running node.
//!
//! What comes back by itself (descriptors, bookkeeping) is left out, and so are the mix keys of epochs: a backup that held them would
//! undo their destruction.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::PathBuf,
};

use clap::Args;
use serde_json::json;

use super::{
    CliError, Context,
    archive::{ArchiveError, Writer},
    output::size,
    progress::Progress,
};
use crate::{
    keys::{Keys, PassphraseSource, Purpose},
    node::{chat::kept, services::SERVICE},
    platform::files,
    store::{self, Table},
};

/// What a backup holds: tables, and which of their rows. Of services what they are, not what they did: their introduction points, made anew
/// elsewhere, would run again what was sent to them since. Of chat whom its person knows and the rooms, and nothing else: a restored node is a new
/// device, or it would fork its history.
const KEPT: [(Table, &[u8]); 6] = [
    (Table::Outbox, &[]),
    (Table::Inbox, &[]),
    (Table::Seen, &[]),
    (Table::Slots, &[]),
    (Table::Services, &[SERVICE]),
    (Table::Contacts, &[]),
];

/// What `fog backup` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The file to write; it must not exist
    file: PathBuf,
}

/// Writes the backup.
pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), CliError> {
    let data_dir = &context.config.data_dir;
    let passphrases = PassphraseSource::from_environment();
    let keys = Keys::open(data_dir, &passphrases)?;
    let file = &arguments.file;
    let failed = |error: &dyn std::fmt::Display| {
        CliError::failed(
            format!("`{}` cannot be written: {error}", file.display()),
            "name a file that does not exist, on a disk with room",
        )
    };
    if file.exists() {
        return Err(failed(&"it exists"));
    }
    let passphrase = passphrases.get(Purpose::Seal, "the backup")?;
    let created = files::create_private_file(file).map_err(|error| failed(&error))?;
    let bytes = write(context, &keys, created, &passphrase).map_err(|error| {
        // Half a backup helps nobody.
        let _left_over = fs::remove_file(file);
        match error {
            Problem::Archive(error) => failed(&error),
            Problem::Other(error) => error,
        }
    })?;
    context.out.value(&json!({ "bytes": bytes }), |_| format!("{} in `{}`\n", size(bytes), file.display()))
}

enum Problem {
    Archive(ArchiveError),
    Other(CliError),
}

impl From<ArchiveError> for Problem {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

fn write(context: &Context, keys: &Keys, file: File, passphrase: &crate::keys::Passphrase) -> Result<u64, Problem> {
    let mut progress = Progress::start();
    let mut writer = Writer::start(BufWriter::new(file), passphrase, keys.secrets())?;
    let data_dir = &context.config.data_dir;
    // A node that never ran has keys and no state.
    if store::directory(data_dir).exists() {
        let other = |error: store::StoreError| Problem::Other(error.into());
        let store = store::open_to_read(data_dir, keys.storage()).map_err(other)?;
        for (table, prefix) in KEPT {
            for row in store.scan(table, prefix).map_err(other)? {
                writer.row(table, &row)?;
            }
            progress.show(|| format!("{} is written", table.name()));
        }
        match kept::rows(data_dir, keys, &store) {
            Ok(rows) => rows.iter().try_for_each(|row| writer.row(Table::Contacts, row))?,
            // The keys must be saved all the more.
            Err(error) => eprintln!("warning: contacts and rooms of chat are not in the backup: {error:#}"),
        }
    }
    let (bytes, out) = writer.finish()?;
    let synced = out.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|mut file| {
        file.flush()?;
        file.sync_all()
    });
    synced.map_err(ArchiveError::Io)?;
    Ok(bytes)
}
