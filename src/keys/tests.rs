//! Keys on disk: made once, refused when damaged, exposed, incomplete or sealed with another passphrase.

use super::*;

fn plain() -> PassphraseSource {
    PassphraseSource::new(None)
}

fn source(dir: &Path, text: &str) -> PassphraseSource {
    let path = dir.join("passphrase.txt");
    fs::write(&path, text).unwrap();
    PassphraseSource::new(Some(path))
}

#[test]
fn keys_are_made_once_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let made = Keys::open_or_create(dir.path(), &plain(), false).unwrap();
    let read = Keys::open_or_create(dir.path(), &plain(), false).unwrap();
    assert_eq!(made.secrets(), read.secrets());
    assert_eq!(made.node_id(), read.node_id());
    assert_eq!(made.seal_public(), read.seal_public());
    assert_eq!(made.vrf().public, read.vrf().public);
    let entries: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(entries, ["keys"], "nothing unfinished is left");
    assert!(!inspect(dir.path()).unwrap(), "not sealed");
}

#[test]
fn two_sets_of_keys_share_nothing() {
    let (one, other) = (Keys::generate().unwrap(), Keys::generate().unwrap());
    let all: std::collections::BTreeSet<_> = one.secrets().iter().chain(other.secrets()).map(|s| **s).collect();
    assert_eq!(all.len(), 10);
}

#[test]
fn a_missing_key_is_named_and_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    Keys::open_or_create(dir.path(), &plain(), false).unwrap();
    fs::remove_file(dir.path().join("keys/seal.key")).unwrap();
    let error = Keys::open_or_create(dir.path(), &plain(), false).unwrap_err();
    assert!(matches!(&error, KeysError::Missing { missing, .. } if missing == "seal.key"), "{error}");
    assert!(!dir.path().join("keys/seal.key").exists());
    assert!(matches!(Keys::generate().unwrap().create(dir.path(), None), Err(KeysError::Exist(_))));
}

#[test]
fn every_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    Keys::open_or_create(dir.path(), &plain(), false).unwrap();
    let path = dir.path().join("keys/identity.key");
    let good = fs::read(&path).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        assert!(matches!(Keys::open(dir.path(), &plain()), Err(KeysError::File { .. })), "bit {bit}");
    }
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(Keys::open(dir.path(), &plain()), Err(KeysError::File { .. })), "length {length}");
    }
}

#[test]
fn a_file_under_another_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Keys::open_or_create(dir.path(), &plain(), false).unwrap();
    let keys = dir.path().join("keys");
    fs::copy(keys.join("slot.key"), keys.join("identity.key")).unwrap();
    let error = Keys::open(dir.path(), &plain()).unwrap_err();
    assert!(matches!(error, KeysError::File { reason: FileError::WrongKind, .. }), "{error}");
}

#[test]
fn sealed_keys_open_with_their_passphrase_alone() {
    let dir = tempfile::tempdir().unwrap();
    let made = Keys::open_or_create(dir.path(), &source(dir.path(), "correct horse"), false).unwrap();
    assert!(inspect(dir.path()).unwrap(), "sealed");
    let read = Keys::open(dir.path(), &source(dir.path(), "correct horse")).unwrap();
    assert_eq!(made.secrets(), read.secrets());
    let wrong = Keys::open(dir.path(), &source(dir.path(), "correct house"));
    assert!(matches!(wrong, Err(KeysError::WrongPassphrase(_))));
    for secret in made.secrets() {
        for kind in KeyKind::ALL {
            let bytes = fs::read(dir.path().join("keys").join(kind.file_name())).unwrap();
            assert!(!bytes.windows(32).any(|window| window == secret.as_slice()), "a secret lies open");
        }
    }
}

#[cfg(unix)]
#[test]
fn files_that_others_can_read_are_refused_with_the_command_that_closes_them() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    Keys::open_or_create(dir.path(), &plain(), false).unwrap();
    let file = dir.path().join("keys/vrf.key");
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    chmod(&file, 0o640);
    let error = Keys::open(dir.path(), &plain()).unwrap_err();
    assert_eq!(error.to_string(), format!("others can read `{}` (mode 0640)", file.display()));
    assert_eq!(error.hint(), format!("chmod 600 '{}'", file.display()));
    chmod(&file, 0o600);
    chmod(&dir.path().join("keys"), 0o711);
    assert!(matches!(Keys::open(dir.path(), &plain()), Err(KeysError::Exposed { wanted: 0o700, .. })));
    chmod(&dir.path().join("keys"), 0o700);
    Keys::open(dir.path(), &plain()).unwrap();
}

#[test]
fn an_unfinished_creation_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("keys.new")).unwrap();
    fs::write(dir.path().join("keys.new/identity.key"), b"torn").unwrap();
    fs::create_dir(dir.path().join("keys")).unwrap();
    Keys::open_or_create(dir.path(), &plain(), false).unwrap();
    assert!(!dir.path().join("keys.new").exists());
}

#[test]
fn debug_prints_the_node_and_nothing_secret() {
    let keys = Keys::generate().unwrap();
    assert_eq!(format!("{keys:?}"), format!("Keys {{ node: {}, .. }}", keys.node_id()));
}
