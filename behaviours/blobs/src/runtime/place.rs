//! Where a fetched file goes: under its own name in the folder that was asked for, or under the name that was asked for. Nothing
//! that is there is overwritten.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use crate::{
    core::manifest::{FileName, MAX_NAME_BYTES},
    files::{FileError, at, sync_dir},
};

/// Names that are tried in a folder: `name`, `name (1)`, ….
const MAX_TRIES: u32 = 100;
const PART: &str = ".part";

/// A place for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// Where it is until all of it is there.
    pub(crate) part: PathBuf,
}

impl Place {
    fn of(path: PathBuf) -> Self {
        let mut part = path.clone().into_os_string();
        part.push(PART);
        Self { path, part: part.into() }
    }

    /// Where nothing is.
    fn is_free(&self) -> bool {
        fs::symlink_metadata(&self.path).is_err() && fs::symlink_metadata(&self.part).is_err()
    }
}

/// Finds a place: `out` itself, or in `out` if that is a folder. `Err` names what is there already.
pub(crate) fn find(out: &Path, name: &FileName) -> Result<Place, PathBuf> {
    if !out.is_dir() {
        let place = Place::of(out.to_owned());
        return if place.is_free() { Ok(place) } else { Err(place.path) };
    }
    let name = name.harmless();
    let mut places = (0..MAX_TRIES).map(|n| Place::of(out.join(numbered(name.as_str(), n))));
    places.find(Place::is_free).ok_or_else(|| out.join(name.as_str()))
}

/// The plain files that are where [`find`] would put one of this name and size: one of them may be it, from before.
pub(crate) fn standing(out: &Path, name: &FileName, size: u64) -> Vec<PathBuf> {
    let name = name.harmless();
    let paths = match out.is_dir() {
        true => (0..MAX_TRIES).map(|n| out.join(numbered(name.as_str(), n))).collect(),
        false => vec![out.to_owned()],
    };
    let fits = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == size);
    paths.into_iter().filter(fits).collect()
}

/// `a.b` as `a (1).b`, cut so that it still is a name with `.part` behind it.
fn numbered(name: &str, n: u32) -> String {
    let (stem, end) = match name.rfind('.') {
        Some(at) if at > 0 && name.len() - at <= 16 => name.split_at(at),
        _ => (name, ""),
    };
    let number = if n == 0 { String::new() } else { format!(" ({n})") };
    let mut stem = stem.to_owned();
    while stem.len() + number.len() + end.len() + PART.len() > MAX_NAME_BYTES {
        stem.pop();
    }
    format!("{stem}{number}{end}")
}

/// Makes the file that the fetch writes to; nothing may be there.
pub(crate) fn claim(place: &Place) -> Result<(), FileError> {
    at("create", &place.part, OpenOptions::new().write(true).create_new(true).open(&place.part).map(drop))
}

/// Gives the whole file its name, unless that is taken.
pub(crate) fn settle(place: &Place) -> Result<(), FileError> {
    let linked = match fs::hard_link(&place.part, &place.path) {
        Ok(()) => fs::remove_file(&place.part),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Not every file system has links.
        Err(_) if fs::symlink_metadata(&place.path).is_err() => fs::rename(&place.part, &place.path),
        Err(_) => Err(io::ErrorKind::AlreadyExists.into()),
    };
    at("rename", &place.path, linked)?;
    sync_dir(&place.path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> FileName {
        FileName::parse(name).unwrap()
    }

    #[test]
    fn in_a_folder_a_file_takes_the_first_free_name_and_elsewhere_the_one_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let find_name = |text: &str| find(dir.path(), &name(text)).unwrap().path.file_name().unwrap().to_owned();
        assert_eq!(find_name("a.txt"), "a.txt");
        fs::write(dir.path().join("a.txt"), "x").unwrap();
        fs::write(dir.path().join("a (1).txt.part"), "x").unwrap();
        assert_eq!(find_name("a.txt"), "a (2).txt");
        assert_eq!(find_name(".bashrc"), "_bashrc");
        fs::write(dir.path().join("a (2).txt"), "yy").unwrap();
        let standing = |size| standing(dir.path(), &name("a.txt"), size);
        assert_eq!((standing(1), standing(2)), (vec![dir.path().join("a.txt")], vec![dir.path().join("a (2).txt")]));
        let asked = dir.path().join("a.txt");
        assert_eq!(find(&asked, &name("b")), Err(asked));
        let free = dir.path().join("free");
        assert_eq!(find(&free, &name("b")).unwrap().path, free);
    }

    #[test]
    fn the_longest_name_has_room_for_its_ending() {
        for text in ["n".repeat(255), format!("{}.tar", "é".repeat(125)), ".profile".into(), "a.b.c".into()] {
            for n in [0, 7, 99] {
                let numbered = numbered(&text, n);
                assert!(numbered.len() + PART.len() <= MAX_NAME_BYTES);
                assert!(FileName::parse(&numbered).is_ok(), "{numbered}");
            }
        }
        assert_eq!(numbered("a.b.c", 3), "a.b (3).c");
        assert_eq!(numbered(".profile", 3), ".profile (3)");
    }

    #[test]
    fn nothing_is_overwritten_when_the_file_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let place = find(&dir.path().join("x"), &name("x")).unwrap();
        claim(&place).unwrap();
        assert!(claim(&place).is_err());
        fs::write(&place.part, "new").unwrap();
        fs::write(&place.path, "old").unwrap();
        assert_eq!(settle(&place).unwrap_err().io().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&place.path).unwrap(), b"old");
        fs::remove_file(&place.path).unwrap();
        settle(&place).unwrap();
        assert_eq!(fs::read(&place.path).unwrap(), b"new");
        assert!(!place.part.exists());
    }
}
