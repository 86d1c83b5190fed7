//! The file of a backup: keys and rows, sealed with a passphrase.
//!
//! | bytes | field |
//! |---|---|
//! | 9 | `fogbackup` |
//! | 1 | version, 1 |
//! | 28 | Argon2id memory (KiB), passes, lanes (u32 each, big-endian), salt (16) |
//! | 16 | nonce prefix |
//! | … | frames: length (u32), then XChaCha20-Poly1305 of the frame under nonce prefix ‖ frame number (u64) |
//!
//! The bytes before the frames are the associated data of each, and the frame number is in the nonce, so that frames cannot be left out,
//! repeated, reordered or mixed between files. A frame is one byte for its kind and then: 0, the five secrets; 1, rows, each table (u8),
//! key and value with their lengths (u32); 2, the end, with the number of rows (u64). Without its end a file is torn.

use std::io::{self, Read, Write};

use zeroize::Zeroizing;

use crate::{
    keys::{
        Passphrase, Secrets,
        sealing::{Derivation, NONCE, SealError, SealKey, TAG, random},
    },
    store::{Row, Table},
};

const MAGIC: &[u8; 9] = b"fogbackup";
const VERSION: u8 = 1;
const PREFIX: usize = 16;
const HEADER: usize = 10 + Derivation::LEN + PREFIX;
/// A frame is closed when it has this much.
const FRAME: usize = 256 * 1024;
/// The largest frame that is read: one row of the largest value, and room around it.
const MAX_FRAME: usize = 16 * 1024 * 1024;
const KEYS: u8 = 0;
const ROWS: u8 = 1;
const END: u8 = 2;

/// Why a backup cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    /// Another file.
    #[error("it is not a backup")]
    NotOne,
    /// Made by a later program.
    #[error("it was made by a newer fog (backup version {0})")]
    Newer(u8),
    /// The passphrase does not open it, or it was changed.
    #[error("the passphrase does not open it, or it was changed")]
    Refused,
    /// Cut off, or followed by something else.
    #[error("it is damaged: it does not end where it should")]
    Torn,
    /// What was sealed is not what a backup holds.
    #[error("it holds what this fog cannot read")]
    Content,
    /// A row that is larger than any that a backup holds.
    #[error("a row of `{0}` is too large for a backup")]
    TooLarge(&'static str),
    /// Key derivation or randomness failed.
    #[error(transparent)]
    Seal(SealError),
    /// The disk said no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes a backup.
pub(super) struct Writer<W> {
    out: W,
    sealer: Sealer,
    rows: Zeroizing<Vec<u8>>,
    count: u64,
    bytes: u64,
}

struct Sealer {
    key: SealKey,
    header: [u8; HEADER],
    next: u64,
}

impl Sealer {
    fn nonce(&mut self) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        let prefix = self.header.iter().skip(HEADER - PREFIX).copied();
        for (to, from) in nonce.iter_mut().zip(prefix.chain(self.next.to_be_bytes())) {
            *to = from;
        }
        self.next += 1;
        nonce
    }
}

impl<W: Write> Writer<W> {
    /// Begins with the keys.
    pub(super) fn start(mut out: W, passphrase: &Passphrase, secrets: &Secrets) -> Result<Self, ArchiveError> {
        let derivation = Derivation::fresh().map_err(ArchiveError::Seal)?;
        let prefix = random::<PREFIX>().map_err(ArchiveError::Seal)?;
        let parts = [MAGIC.as_slice(), &[VERSION], &derivation.to_bytes(), &prefix].concat();
        let header: [u8; HEADER] = parts.try_into().map_err(|_| ArchiveError::Content)?;
        let key = SealKey::derive(passphrase, &derivation).map_err(ArchiveError::Seal)?;
        out.write_all(&header)?;
        let sealer = Sealer { key, header, next: 0 };
        let mut writer = Self { out, sealer, rows: new_rows(), count: 0, bytes: HEADER as u64 };
        let mut keys = Zeroizing::new(vec![KEYS]);
        for secret in secrets {
            keys.extend_from_slice(secret.as_slice());
        }
        writer.frame(&keys)?;
        Ok(writer)
    }

    /// Adds a row.
    pub(super) fn row(&mut self, table: Table, (key, value): &Row) -> Result<(), ArchiveError> {
        let lengths = [key.len(), value.len()].map(|length| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        if key.len() + value.len() > MAX_FRAME / 2 {
            return Err(ArchiveError::TooLarge(table.name()));
        }
        let [key_length, value_length] = lengths;
        self.rows.push(table as u8);
        for part in [&key_length, key.as_slice(), &value_length, value.as_slice()] {
            self.rows.extend_from_slice(part);
        }
        self.count += 1;
        if self.rows.len() >= FRAME { self.flush() } else { Ok(()) }
    }

    /// Ends the file; its size in bytes, and the sink.
    pub(super) fn finish(mut self) -> Result<(u64, W), ArchiveError> {
        self.flush()?;
        let end = [&[END], self.count.to_be_bytes().as_slice()].concat();
        self.frame(&end)?;
        Ok((self.bytes, self.out))
    }

    fn flush(&mut self) -> Result<(), ArchiveError> {
        if self.rows.len() > 1 {
            let rows = std::mem::replace(&mut self.rows, new_rows());
            self.frame(&rows)?;
        }
        Ok(())
    }

    fn frame(&mut self, text: &[u8]) -> Result<(), ArchiveError> {
        let nonce = self.sealer.nonce();
        let sealed = self.sealer.key.seal_with(&nonce, &self.sealer.header, text).map_err(ArchiveError::Seal)?;
        let length = u32::try_from(sealed.len()).map_err(|_| ArchiveError::Content)?;
        self.out.write_all(&length.to_be_bytes())?;
        self.out.write_all(&sealed)?;
        self.bytes += 4 + u64::from(length);
        Ok(())
    }
}

fn new_rows() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(vec![ROWS])
}

/// Reads a backup: gives each row to `each`, and returns the keys once everything was right.
pub(super) fn read(
    mut input: impl Read,
    passphrase: &Passphrase,
    mut each: impl FnMut(Table, Row) -> Result<(), ArchiveError>,
) -> Result<Secrets, ArchiveError> {
    let mut header = [0; HEADER];
    input.read_exact(&mut header).map_err(|_| ArchiveError::NotOne)?;
    let rest = header.strip_prefix(MAGIC).ok_or(ArchiveError::NotOne)?;
    let ([version], rest) = rest.split_first_chunk::<1>().ok_or(ArchiveError::NotOne)?;
    if *version != VERSION {
        return Err(ArchiveError::Newer(*version));
    }
    let (derivation, _) = rest.split_first_chunk::<{ Derivation::LEN }>().ok_or(ArchiveError::NotOne)?;
    let derivation = Derivation::from_bytes(derivation).map_err(|_| ArchiveError::Refused)?;
    let key = SealKey::derive(passphrase, &derivation).map_err(|_| ArchiveError::Refused)?;
    let mut sealer = Sealer { key, header, next: 0 };
    let (mut secrets, mut count) = (None, 0u64);
    loop {
        let frame = next_frame(&mut input, &mut sealer)?;
        match frame.split_first() {
            Some((&KEYS, rest)) if secrets.is_none() => secrets = Some(read_secrets(rest)?),
            Some((&ROWS, rest)) if secrets.is_some() => count += read_rows(rest, &mut each)?,
            Some((&END, rest)) => {
                let all_there = rest == count.to_be_bytes() && input.read(&mut [0])? == 0;
                return secrets.filter(|_| all_there).ok_or(ArchiveError::Torn);
            }
            _ => return Err(ArchiveError::Content),
        }
    }
}

fn next_frame(input: &mut impl Read, sealer: &mut Sealer) -> Result<Zeroizing<Vec<u8>>, ArchiveError> {
    let torn = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Torn,
        _ => ArchiveError::Io(error),
    };
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(torn)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME + TAG {
        return Err(ArchiveError::Torn);
    }
    let mut sealed = vec![0; length];
    input.read_exact(&mut sealed).map_err(torn)?;
    let nonce = sealer.nonce();
    sealer.key.open_with(&nonce, &sealer.header, &sealed).map_err(|_| ArchiveError::Refused)
}

fn read_secrets(bytes: &[u8]) -> Result<Secrets, ArchiveError> {
    let mut secrets: Secrets = Default::default();
    if bytes.len() != secrets.len() * 32 {
        return Err(ArchiveError::Content);
    }
    for (secret, bytes) in secrets.iter_mut().zip(bytes.chunks_exact(32)) {
        secret.copy_from_slice(bytes);
    }
    Ok(secrets)
}

fn read_rows(
    mut bytes: &[u8],
    each: &mut impl FnMut(Table, Row) -> Result<(), ArchiveError>,
) -> Result<u64, ArchiveError> {
    let mut count = 0;
    while let Some((number, rest)) = bytes.split_first() {
        let table = Table::ALL.into_iter().find(|table| *table as u8 == *number).ok_or(ArchiveError::Content)?;
        let (key, rest) = field(rest).ok_or(ArchiveError::Content)?;
        let (value, rest) = field(rest).ok_or(ArchiveError::Content)?;
        each(table, (key.to_vec(), value.to_vec()))?;
        bytes = rest;
        count += 1;
    }
    Ok(count)
}

fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text.to_owned().into()).unwrap()
    }

    fn rows() -> Vec<(Table, Row)> {
        let row = |n: u8, length| (Table::ALL[usize::from(n) % Table::ALL.len()], (vec![n; 9], vec![n; length]));
        vec![row(2, 10), row(3, 300 * 1024), row(3, 0), row(4, 1 << 20)]
    }

    fn archive(keys: &Keys) -> Vec<u8> {
        let mut writer = Writer::start(Vec::new(), &passphrase("correct horse"), keys.secrets()).unwrap();
        for (table, row) in rows() {
            writer.row(table, &row).unwrap();
        }
        let (bytes, out) = writer.finish().unwrap();
        assert_eq!(bytes, out.len() as u64);
        out
    }

    fn open(bytes: &[u8], text: &str) -> Result<(Secrets, Vec<(Table, Row)>), ArchiveError> {
        let mut rows = Vec::new();
        let secrets = read(bytes, &passphrase(text), |table, row| {
            rows.push((table, row));
            Ok(())
        })?;
        Ok((secrets, rows))
    }

    #[test]
    fn keys_and_rows_come_back_with_the_passphrase_alone() {
        let keys = Keys::generate().unwrap();
        let bytes = archive(&keys);
        let (secrets, found) = open(&bytes, "correct horse").unwrap();
        assert!(secrets == *keys.secrets() && found == rows());
        assert!(matches!(open(&bytes, "correct house"), Err(ArchiveError::Refused)));
    }

    #[test]
    fn a_torn_changed_or_lengthened_backup_is_refused() {
        let bytes = archive(&Keys::generate().unwrap());
        for length in [0, 5, HEADER, HEADER + 3, HEADER + 100, bytes.len() / 2, bytes.len() - 29, bytes.len() - 1] {
            let outcome = open(&bytes[..length], "correct horse");
            assert!(matches!(outcome, Err(ArchiveError::NotOne | ArchiveError::Torn)), "{length}");
        }
        for at in [0, 9, 12, 40, HEADER, HEADER + 50, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(open(&changed, "correct horse").is_err(), "{at}");
        }
        assert!(matches!(open(&[bytes, vec![0]].concat(), "correct horse"), Err(ArchiveError::Torn)));
    }
}
