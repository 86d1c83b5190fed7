//! `fog restore FILE`: a backup becomes a data directory. The whole file is checked before anything is written, and the keys come last, so
//! that a restore that was cut short leaves no node.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::{
    CliError, Context,
    archive::{self, ArchiveError},
    output::size,
};
use crate::{
    keys::{Keys, KeysError, Passphrase, PassphraseSource, Purpose, Secrets},
    store::{self, Batch, DataDirLock, Durability, Row, Table},
};

/// Bytes of rows in one commit.
const COMMIT: usize = 4 * 1024 * 1024;

/// What `fog restore` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The backup
    file: PathBuf,
}

/// Restores it.
pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), CliError> {
    let (config, file) = (&context.config, arguments.file.as_path());
    let passphrases = PassphraseSource::from_environment();
    let bytes = file.metadata().map_err(|error| unreadable(file, &error))?.len();
    let passphrase = passphrases.get(Purpose::Open, "the backup")?;
    // Everything is read once before anything is written.
    let secrets = read(file, &passphrase, |_, _| Ok(()))?;
    let _lock = DataDirLock::acquire(&config.data_dir)?;
    refuse_existing(&config.data_dir)?;
    let keys = Keys::from_secrets(secrets);
    let outcome = fill_store(&config.data_dir, &keys, file, &passphrase).and_then(|()| {
        // A backup does not hold what this identity has signed since.
        crate::node::mark_restored(&config.data_dir).map_err(|error| CliError::from(anyhow::Error::from(error)))?;
        let seal = (config.seal_keys || passphrases.has_file()).then_some(&passphrase);
        keys.create(&config.data_dir, seal).map_err(CliError::from)
    });
    if outcome.is_err() {
        // It was not there before, as was just checked.
        let _left_over = fs::remove_dir_all(store::directory(&config.data_dir));
    }
    outcome?;
    eprintln!("note: this is {} again; never run it in two places", keys.node_id());
    eprintln!(
        "note: in chat it is a new device with the contacts and rooms of the old one: groups must invite it again, and contacts whom it does not meet within a month or two of the backup give it a new invite"
    );
    if config.seal_keys || passphrases.has_file() {
        eprintln!("note: its keys are sealed with the same passphrase, which every start needs");
    }
    context.out.value(&json!({ "bytes": bytes }), |_| format!("{} restored\n", size(bytes)))
}

fn refuse_existing(data_dir: &Path) -> Result<(), CliError> {
    let keys = match Keys::open(data_dir, &PassphraseSource::default()) {
        Err(KeysError::None(_)) => false,
        // Whatever is wrong with them, they are there.
        _ => true,
    };
    let store = store::directory(data_dir);
    if keys {
        return Err(KeysError::Exist(data_dir.to_owned()).into());
    }
    if store.exists() {
        let message = format!("`{}` holds state already", store.display());
        return Err(CliError::failed(message, "use another --data-dir, or move this one away"));
    }
    Ok(())
}

fn fill_store(data_dir: &Path, keys: &Keys, file: &Path, passphrase: &Passphrase) -> Result<(), CliError> {
    let store = store::open(data_dir, keys.storage())?;
    let mut batch = Batch::new();
    let mut failed = None;
    let outcome = read(file, passphrase, |table, (key, value)| {
        batch.put(table, key, value);
        if batch.bytes() >= COMMIT
            && let Err(error) = store.commit(std::mem::take(&mut batch), Durability::Relaxed)
        {
            failed = Some(error);
            return Err(ArchiveError::Content);
        }
        Ok(())
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    outcome?;
    store.commit(batch, Durability::Synced)?;
    Ok(())
}

fn read(
    file: &Path,
    passphrase: &Passphrase,
    each: impl FnMut(Table, Row) -> Result<(), ArchiveError>,
) -> Result<Secrets, CliError> {
    let input = File::open(file).map_err(|error| unreadable(file, &error))?;
    archive::read(BufReader::new(input), passphrase, each).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::failed(
        format!("`{}` cannot be restored: {error}", file.display()),
        "name a file that `fog backup` wrote, and the passphrase that it was sealed with",
    )
}
