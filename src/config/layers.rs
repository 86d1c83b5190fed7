//! Where settings come from: flags, `FOG_…` variables, a file. The first that names a key wins; nothing is skipped silently.
//!
//! A key has one name in all three: `send_per_second`, `FOG_SEND_PER_SECOND`, `--send-per-second`. Every value is text (or a list of texts)
//! until [`Layers::parse`] reads it, so that one rule and one error serve all three.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use toml::Value as Toml;

/// A setting: its name and what it takes.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The name in the file; with `limits.` or `faults.` before it for a key of a table.
    pub name: &'static str,
    /// What values it takes, for the hint of an error.
    pub takes: &'static str,
}

impl Key {
    /// The name of its variable.
    pub fn variable(&self) -> String {
        format!("FOG_{}", self.name.to_ascii_uppercase())
    }

    /// The name of its flag.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }

    /// Keys of a table stand in the file alone.
    fn in_table(&self) -> bool {
        self.name.contains('.')
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Variable,
    /// This file.
    File(PathBuf),
}

/// Why the settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A key that is not one.
    #[error("unknown key `{key}` in `{file}`")]
    UnknownKey {
        /// The key.
        key: String,
        /// The file that has it.
        file: PathBuf,
        /// The most similar key, if one is.
        meant: Option<&'static str>,
    },
    /// A value that its key does not take.
    #[error("{place}: `{value}` cannot be used")]
    BadValue {
        /// Flag, variable, or key and file.
        place: String,
        /// The value.
        value: String,
        /// What the key takes.
        takes: String,
    },
    /// The file cannot be read or is not TOML.
    #[error("`{file}`: {reason}")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong, in one line.
        reason: String,
    },
    /// Settings that do not go together.
    #[error("{message}")]
    Conflict {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
}

impl ConfigError {
    /// What to do about it, in one line.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownKey { meant: Some(meant), .. } => {
                format!("did you mean `{meant}`? fog.example.toml shows every key")
            }
            Self::UnknownKey { meant: None, .. } => "fog.example.toml shows every key".into(),
            Self::BadValue { takes, .. } => format!("it takes {takes}"),
            Self::File { .. } => "see that the file exists, is yours to read, and is TOML like fog.example.toml".into(),
            Self::Conflict { hint, .. } => hint.clone(),
        }
    }
}

#[derive(Debug, Clone)]
struct Setting {
    values: Vec<String>,
    origin: Origin,
}

/// Settings by key, each from the strongest layer that names it.
#[derive(Debug, Clone, Default)]
pub struct Layers(BTreeMap<&'static str, Setting>);

impl Layers {
    /// Adds a value from the command line. Flags are added first.
    pub fn flag(&mut self, key: Key, values: impl IntoIterator<Item = String>) -> &mut Self {
        self.add(key.name, values.into_iter().collect(), Origin::Flag)
    }

    /// Adds the variables of all `keys`; lists are separated by commas. An empty variable counts as not set.
    pub fn variables(&mut self, keys: &[Key], lookup: &dyn Fn(&str) -> Option<String>) -> &mut Self {
        for key in keys.iter().filter(|key| !key.in_table()) {
            if let Some(text) = lookup(&key.variable()).filter(|text| !text.is_empty()) {
                self.add(key.name, text.split(',').map(|part| part.trim().to_owned()).collect(), Origin::Variable);
            }
        }
        self
    }

    /// Adds the text of a file; each key in it must be one of `keys`.
    pub fn file(&mut self, keys: &[Key], file: &Path, text: &str) -> Result<&mut Self, ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            let line =
                error.span().map_or(1, |span| text.get(..span.start).map_or(1, |before| before.lines().count().max(1)));
            ConfigError::File { file: file.to_owned(), reason: format!("line {line}: {}", one_line(error.message())) }
        })?;
        self.table(keys, file, "", &table)?;
        Ok(self)
    }

    fn table(&mut self, keys: &[Key], file: &Path, prefix: &str, table: &toml::Table) -> Result<(), ConfigError> {
        for (name, value) in table {
            let name = format!("{prefix}{name}");
            if let (Toml::Table(inner), true) =
                (value, prefix.is_empty() && keys.iter().any(|k| k.name.starts_with(&format!("{name}."))))
            {
                self.table(keys, file, &format!("{name}."), inner)?;
                continue;
            }
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                return Err(ConfigError::UnknownKey {
                    meant: most_similar(&name, keys),
                    key: name,
                    file: file.to_owned(),
                });
            };
            let origin = Origin::File(file.to_owned());
            let values = texts(value).ok_or_else(|| bad_value(*key, &origin, &one_line(&value.to_string())))?;
            self.add(key.name, values, origin);
        }
        Ok(())
    }

    fn add(&mut self, name: &'static str, values: Vec<String>, origin: Origin) -> &mut Self {
        self.0.entry(name).or_insert(Setting { values, origin });
        self
    }

    /// Where the value of a key came from.
    pub fn origin(&self, key: Key) -> Option<&Origin> {
        self.0.get(key.name).map(|setting| &setting.origin)
    }

    /// The value of a key, read by `read`; `None` if nobody named the key.
    pub fn parse<T>(&self, key: Key, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, ConfigError> {
        let Some(setting) = self.0.get(key.name) else {
            return Ok(None);
        };
        // A comma in a variable made it look like a list: it is one value again here.
        let text = setting.values.join(",");
        read(&text).map(Some).ok_or_else(|| bad_value(key, &setting.origin, &text))
    }

    /// The values of a key that takes a list.
    pub fn parse_list<T>(&self, key: Key, read: impl Fn(&str) -> Option<T>) -> Result<Option<Vec<T>>, ConfigError> {
        let Some(setting) = self.0.get(key.name) else {
            return Ok(None);
        };
        let read = |text: &String| read(text).ok_or_else(|| bad_value(key, &setting.origin, text));
        setting.values.iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// A path; one in a file is relative to that file's directory.
    pub fn path(&self, key: Key) -> Result<Option<PathBuf>, ConfigError> {
        let path = self.parse(key, |text| (!text.is_empty()).then(|| PathBuf::from(text)))?;
        Ok(path.map(|path| match self.origin(key) {
            Some(Origin::File(file)) => file.parent().map_or_else(|| path.clone(), |dir| dir.join(&path)),
            _ => path,
        }))
    }
}

/// An error about the value of `key`.
pub(super) fn bad_value(key: Key, origin: &Origin, value: &str) -> ConfigError {
    let place = match origin {
        Origin::Flag => key.flag(),
        Origin::Variable => key.variable(),
        Origin::File(file) => format!("`{}` in `{}`", key.name, file.display()),
    };
    ConfigError::BadValue { place, value: value.to_owned(), takes: key.takes.to_owned() }
}

fn texts(value: &Toml) -> Option<Vec<String>> {
    let scalar = |value: &Toml| match value {
        Toml::String(text) => Some(text.clone()),
        Toml::Integer(number) => Some(number.to_string()),
        Toml::Float(number) => Some(number.to_string()),
        Toml::Boolean(truth) => Some(truth.to_string()),
        Toml::Datetime(_) | Toml::Array(_) | Toml::Table(_) => None,
    };
    match value {
        Toml::Array(values) => values.iter().map(scalar).collect(),
        value => Some(vec![scalar(value)?]),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The key with the fewest changed letters, if a third of them at most differ.
fn most_similar(name: &str, keys: &[Key]) -> Option<&'static str> {
    let nearest = keys.iter().map(|key| (distance(name, key.name), key.name)).min()?;
    (nearest.0 * 3 <= name.chars().count()).then_some(nearest.1)
}

/// Levenshtein's distance, by rows.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = i;
        let mut last = i + 1;
        let mut next = vec![last];
        for (y, above) in b.chars().zip(row.iter().skip(1)) {
            last = (before + usize::from(x != y)).min(above + 1).min(last + 1);
            before = *above;
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("the command line"),
            Self::Variable => f.write_str("the environment"),
            Self::File(file) => write!(f, "`{}`", file.display()),
        }
    }
}
