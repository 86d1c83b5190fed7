//! Passphrases: from a file that a variable names, or from a terminal; never from the command line, which others can read.

use std::{
    fmt, fs,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// The variable that names a file whose first line is the passphrase.
pub const VARIABLE: &str = "FOG_PASSPHRASE_FILE";
const SHORTEST: usize = 8;

/// A passphrase; prints nothing of itself.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes `text`, of at least eight bytes.
    pub fn new(text: Zeroizing<String>) -> Result<Self, PassphraseError> {
        if text.len() < SHORTEST { Err(PassphraseError::TooShort) } else { Ok(Self(text)) }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Why there is no passphrase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// Neither a file nor a terminal.
    #[error("a passphrase is needed, and there is no terminal to ask for it")]
    NotAvailable,
    /// The file cannot be read.
    #[error("the passphrase file `{path}` cannot be read: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Fewer than eight bytes.
    #[error("a passphrase has at least {SHORTEST} characters")]
    TooShort,
    /// It was typed differently the second time.
    #[error("the two passphrases differ")]
    Differ,
}

/// What a passphrase is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To open what was sealed with it.
    Open,
    /// To seal something new: asked for twice.
    Seal,
}

/// Where passphrases come from.
#[derive(Debug, Clone, Default)]
pub struct PassphraseSource {
    file: Option<PathBuf>,
}

impl PassphraseSource {
    /// From `file` if there is one, else from the terminal.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    /// From the file that [`VARIABLE`] names, else from the terminal.
    pub fn from_environment() -> Self {
        Self::new(std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from))
    }

    /// Whether a file is named: then whatever can be sealed is.
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file or asks for it; `what` says on the terminal what it opens or seals.
    pub fn get(&self, purpose: Purpose, what: &str) -> Result<Passphrase, PassphraseError> {
        if let Some(path) = &self.file {
            return from_file(path);
        }
        if !std::io::stdin().is_terminal() {
            return Err(PassphraseError::NotAvailable);
        }
        let first = ask(&format!("Passphrase for {what}: "))?;
        if purpose == Purpose::Seal && *ask("The same again: ")? != *first {
            return Err(PassphraseError::Differ);
        }
        Passphrase::new(first)
    }
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, PassphraseError> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|_| PassphraseError::NotAvailable)
}

fn from_file(path: &Path) -> Result<Passphrase, PassphraseError> {
    let failed = |reason: String| PassphraseError::File { path: path.to_owned(), reason };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| failed(error.to_string()))?);
    let line = text.lines().next().unwrap_or_default();
    Passphrase::new(Zeroizing::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_the_file_is_the_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        fs::write(&path, "correct horse\nbattery\n").unwrap();
        let source = PassphraseSource::new(Some(path.clone()));
        assert_eq!(source.get(Purpose::Open, "keys").unwrap().as_bytes(), b"correct horse");
        fs::write(&path, "short\n").unwrap();
        assert_eq!(source.get(Purpose::Open, "keys").unwrap_err(), PassphraseError::TooShort);
        fs::remove_file(&path).unwrap();
        assert!(matches!(source.get(Purpose::Open, "keys"), Err(PassphraseError::File { .. })));
    }

    #[test]
    fn a_passphrase_prints_nothing_of_itself() {
        let passphrase = Passphrase::new("correct horse".to_owned().into()).unwrap();
        assert_eq!(format!("{passphrase:?}"), "Passphrase(..)");
    }
}
