//! What names a file: it travels inside an encrypted message, and whoever has it can fetch and read the file.

use fog_base::codec::{self, CodecError};
use serde::{Deserialize, Serialize};

use super::{
    blob::{Blob, BlobId},
    seal::Key,
};

/// The longest encoded manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 512;
/// The longest file name, in bytes: what Linux, macOS and Windows all take.
pub const MAX_NAME_BYTES: usize = 255;
const VERSION: u8 = 1;

/// Why a text is not a [`FileName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Empty, or longer than [`MAX_NAME_BYTES`].
    #[error("a file name has 1 to {MAX_NAME_BYTES} bytes")]
    Length,
    /// A character that separates paths, means something to a shell of Windows, is invisible, or changes how others read.
    #[error("a file name cannot have the character {0:?}")]
    Character(char),
    /// `.`, `..`, a name of a device on Windows, or a space or dot at the end, or a space at the start.
    #[error("not a file name on every system")]
    Reserved,
}

/// A name that is one component of a path on every system, and prints as it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// A name, if it is one.
    pub fn parse(name: &str) -> Result<Self, BadName> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(BadName::Length);
        }
        if let Some(bad) = name.chars().find(|c| !is_allowed(*c)) {
            return Err(BadName::Character(bad));
        }
        let stem = name.split('.').next().unwrap_or_default().trim_end().to_uppercase();
        let numbered = |device: &str| {
            let number = stem.strip_prefix(device).unwrap_or_default();
            let mut digits = number.chars();
            matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
        };
        let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$");
        let edges = name.starts_with(' ') || name.ends_with([' ', '.']);
        if edges || device || numbered("COM") || numbered("LPT") {
            return Err(BadName::Reserved);
        }
        Ok(Self(name.to_owned()))
    }

    /// The nearest name to `text`: what is not allowed becomes `_`.
    pub fn nearest(text: &str) -> Self {
        let mut name: String = text.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect();
        while name.len() >= MAX_NAME_BYTES {
            name.pop();
        }
        Self::parse(&name).unwrap_or_else(|_| Self(format!("_{}", name.trim_end_matches([' ', '.']))))
    }

    /// The name under which a file that came is saved: dots and hyphens at its beginning, which hide a file or make it look like an
    /// option of a command, become `_`.
    pub fn harmless(&self) -> Self {
        let rest = self.0.trim_start_matches(['.', '-']);
        Self("_".repeat(self.0.len() - rest.len()) + rest)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Not path separators, not what Windows refuses, no controls, no invisible or direction-changing formats (Unicode's
/// `Bidi_Control`, `Default_Ignorable_Code_Point`s that are common in spoofed names, line separators).
fn is_allowed(c: char) -> bool {
    let invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}'
        | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !invisible && !matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
}

impl TryFrom<String> for FileName {
    type Error = BadName;
    fn try_from(name: String) -> Result<Self, BadName> {
        Self::parse(&name)
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

/// A file that somebody offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What to fetch.
    pub blob: Blob,
    /// How it is called.
    pub name: FileName,
    /// What decrypts it; without one its bytes are what they are, and the same content has the same id everywhere.
    pub key: Option<Key>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    version: u8,
    id: BlobId,
    size: u64,
    name: FileName,
    key: Option<Key>,
}

impl Manifest {
    /// As bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let Self { blob, name, key } = self;
        let body = Body { version: VERSION, id: blob.id(), size: blob.size(), name: name.clone(), key: key.clone() };
        codec::encode(&body, MAX_MANIFEST_BYTES)
    }

    /// From bytes, with every field checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let body: Body = codec::decode(bytes, MAX_MANIFEST_BYTES)?;
        let blob = Blob::new(body.id, body.size).filter(|_| body.version == VERSION).ok_or(CodecError::Invalid)?;
        Ok(Self { blob, name: body.name, key: body.key })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest(name: &str) -> Manifest {
        let blob = Blob::new(BlobId([7; 32]), 16 << 30).unwrap();
        Manifest { blob, name: FileName::parse(name).unwrap(), key: Some(Key::from_random([8; 32])) }
    }

    #[test]
    fn a_manifest_survives_the_round_trip() {
        for manifest in [manifest(&"n".repeat(MAX_NAME_BYTES)), Manifest { key: None, ..manifest("a b.tar.gz") }] {
            assert_eq!(Manifest::decode(&manifest.encode().unwrap()), Ok(manifest));
        }
    }

    #[test]
    fn the_layout_is_that_of_the_readme() {
        let head =
            [&[0xa5, 0, 1, 1, 0x58, 32][..], &[7; 32], &[2, 0x1b, 0, 0, 0, 4, 0, 0, 0, 0, 3, 0x61, b'x', 4]].concat();
        assert_eq!(manifest("x").encode().unwrap(), [&head[..], &[0x58, 32], &[8; 32]].concat());
        assert_eq!(Manifest { key: None, ..manifest("x") }.encode().unwrap(), [&head[..], &[0xf6]].concat());
    }

    #[test]
    fn a_manifest_of_another_version_size_or_length_is_refused() {
        let bytes = manifest("x").encode().unwrap();
        assert!(Manifest::decode(&[bytes.clone(), vec![0]].concat()).is_err());
        assert!(Manifest::decode(&bytes[..bytes.len() - 1]).is_err());
        let body = |version, size, name: &str| Body {
            version,
            id: BlobId([0; 32]),
            size,
            name: FileName(name.into()),
            key: None,
        };
        let refused = |body| Manifest::decode(&codec::encode(&body, 4_096).unwrap()).is_err();
        assert!(!refused(body(1, 5, "x")));
        assert!(refused(body(2, 5, "x")));
        assert!(refused(body(1, u64::MAX, "x")));
        assert!(refused(body(1, 5, "../x")));
        assert!(refused(body(1, 5, &"x".repeat(600))));
    }

    #[test]
    fn names_that_are_paths_devices_or_tricks_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "/etc/passwd",
            "C:x",
            "x\0",
            "x\n",
            "\u{1b}[2J",
            "nul",
            "NUL.txt",
            "com1",
            "LPT9.x",
            "x.",
            "x ",
            " x",
            "photo\u{202e}gpj.exe",
            "a\u{200b}b",
            "aux",
            "CON .txt",
            "\u{9b}31m",
        ] {
            assert!(FileName::parse(name).is_err(), "{name:?}");
            assert!(FileName::parse(FileName::nearest(name).as_str()).is_ok(), "{name:?}");
        }
        for name in ["x", ".profile", "Ünïcode 漢字 👍🏽.txt", "com", "com10", "nulls", "a..b"] {
            assert_eq!(FileName::parse(name).unwrap().as_str(), name);
            assert_eq!(FileName::nearest(name).as_str(), name);
        }
    }

    #[test]
    fn a_saved_name_hides_nothing_and_is_no_option() {
        for (name, saved) in [
            (".bashrc", "_bashrc"),
            ("-rf", "_rf"),
            ("..a", "__a"),
            (".-x.txt", "__x.txt"),
            ("a.-b", "a.-b"),
            ("-", "_"),
        ] {
            assert_eq!(FileName::parse(name).unwrap().harmless().as_str(), saved);
        }
    }

    proptest! {
        #[test]
        fn a_harmless_name_is_a_name(text in "[.-]{0,4}.{0,20}") {
            let name = FileName::nearest(&text).harmless();
            prop_assert!(!name.as_str().starts_with(['.', '-']));
            prop_assert_eq!(FileName::parse(name.as_str()), Ok(name));
        }

        #[test]
        fn the_nearest_name_is_a_name(text in prop_oneof![".*", "[. ]{0,5}", ".{0,400}"]) {
            let name = FileName::nearest(&text);
            prop_assert_eq!(FileName::parse(name.as_str()), Ok(name));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _outcome = Manifest::decode(&bytes);
        }
    }
}
