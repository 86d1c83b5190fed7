//! Rust files as the rules see them: comments and the insides of strings blanked, inline test modules cut off.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// A file of the repository.
pub(crate) struct Source {
    /// Its path inside the repository, with `/`.
    pub(crate) path: String,
    /// Its text; comments and the insides of strings and character literals are spaces or `_`.
    pub(crate) code: String,
    /// The same without inline `#[cfg(test)]` modules.
    pub(crate) product: String,
    /// Whether it is only compiled for tests.
    pub(crate) is_test: bool,
}

/// A function's name and its length in lines of code, signature included.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: usize,
}

/// The checkout that is tested: a test binary may have been built from another one.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> =
        LazyLock::new(|| std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this").into());
    &ROOT
}

/// Every Rust file of ours.
pub(crate) fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for top in ["src", "behaviours", "testnet", "tests", "benches", "fuzz"] {
        collect(&root().join(top), &mut paths);
    }
    paths.sort();
    let mut sources: Vec<_> = paths.iter().map(|path| Source::read(path)).collect();
    let tests: Vec<_> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        source.is_test |= tests.contains(&source.path);
    }
    assert!(sources.len() > 20, "only {} Rust files found: the rules look at the wrong place", sources.len());
    sources
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if entry.file_name() != "target" {
                collect(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let inside = path.strip_prefix(root()).expect("below the root");
        let parts: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let path = parts.join("/");
        let code = blank(&text);
        let product = without_test_modules(&code);
        let is_test = ["tests/", "benches/", "fuzz/"].iter().any(|top| path.starts_with(top))
            || path.contains("/tests/")
            || path.ends_with("/tests.rs")
            || path.ends_with("_tests.rs");
        Self { path, code, product, is_test }
    }

    /// Inside the pure part of a protocol crate.
    pub(crate) fn is_core(&self) -> bool {
        self.path.starts_with("behaviours/") && self.path.contains("/src/core/")
    }

    /// The functions of the product code.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = find_word(&self.product, "fn", from) {
            from = at + 2;
            let name: String =
                self.product[from..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.is_empty() {
                continue; // a function pointer's type
            }
            // The body's brace, unless a semicolon ends a signature without one.
            let Some(open) = self.product[from..].find(['{', ';']).map(|i| from + i) else { continue };
            if self.product[open..].starts_with(';') && !self.product[from..open].contains('[') {
                continue;
            }
            let Some(open) = self.product[open..].find('{').map(|i| open + i) else { continue };
            let Some(close) = closing(&self.product, open) else { continue };
            found.push(Function { name, lines: lines_of_code(&self.product[at..=close]) });
        }
        found
    }
}

/// The files of `#[cfg(test)] mod name;` in this one, wherever such a file may be.
fn test_modules(source: &Source) -> Vec<String> {
    let (dir, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let stem = file.trim_end_matches(".rs");
    let mut found = Vec::new();
    for (at, mark) in source.code.match_indices("#[cfg(test)]") {
        let item = source.code[at + mark.len()..]
            .trim_start()
            .trim_start_matches("pub(super) ")
            .trim_start_matches("pub(crate) ");
        let Some(name) = item.strip_prefix("mod ").and_then(|rest| rest.split_once([';', '{', ' '])) else { continue };
        found.extend([format!("{dir}/{}.rs", name.0), format!("{dir}/{stem}/{}.rs", name.0)]);
    }
    found
}

/// Lines that are neither empty nor only a comment.
pub(crate) fn lines_of_code(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// Where `word` stands as a word of its own, at or after `from`.
pub(crate) fn find_word(code: &str, word: &str, from: usize) -> Option<usize> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut start = from;
    while let Some(at) = code[start..].find(word).map(|i| start + i) {
        let before = code[..at].chars().next_back().is_some_and(part_of_name);
        let after = code[at + word.len()..].chars().next().is_some_and(part_of_name);
        if !before && !after {
            return Some(at);
        }
        start = at + word.len();
    }
    None
}

/// The brace that closes the one at `open`.
fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(open + i);
        }
    }
    None
}

fn without_test_modules(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let after = &rest[at + MARK.len()..];
        let item = after.find(['{', ';']).map(|i| at + MARK.len() + i);
        let Some(open) = item else { break };
        let end = if rest[open..].starts_with(';') { Some(open) } else { closing(rest, open) };
        let Some(end) = end else { break };
        kept.push_str(&rest[..at]);
        rest = &rest[end + 1..];
    }
    kept + rest
}

/// Blanks comments, and the insides of strings and character literals, and keeps every line break.
fn blank(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let keep = |c: char, with: char| if c == '\n' { '\n' } else { with };
    while i < bytes.len() {
        let rest = &bytes[i..];
        let skipped = if rest.starts_with(&['/', '/']) {
            rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
        } else if rest.starts_with(&['/', '*']) {
            block_comment(rest)
        } else {
            0
        };
        if skipped > 0 {
            out.extend(rest[..skipped].iter().map(|c| keep(*c, ' ')));
            i += skipped;
            continue;
        }
        let after_name = i > 0 && (bytes[i - 1].is_alphanumeric() || bytes[i - 1] == '_');
        let literal = match rest[0] {
            '"' => string(rest, 0),
            'r' if !after_name => raw_string(rest),
            'b' if !after_name && rest.get(1) == Some(&'r') => raw_string(&rest[1..]).map(|n| n + 1),
            '\'' => character(rest),
            _ => None,
        };
        match literal {
            Some(length) => {
                out.push('"');
                out.extend(rest[1..length - 1].iter().map(|c| keep(*c, '_')));
                out.push('"');
                i += length;
            }
            None => {
                out.push(rest[0]);
                i += 1;
            }
        }
    }
    out
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut i = 0;
    while i < rest.len() {
        if rest[i..].starts_with(&['/', '*']) {
            depth += 1;
            i += 2;
        } else if rest[i..].starts_with(&['*', '/']) {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    rest.len()
}

fn string(rest: &[char], open: usize) -> Option<usize> {
    let mut i = open + 1;
    while i < rest.len() {
        match rest[i] {
            '\\' => i += 2,
            '"' => return Some(i + 1),
            _ => i += 1,
        }
    }
    None
}

fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    (hashes + 2..rest.len()).find(|i| rest[*i..].starts_with(&end)).map(|i| i + end.len())
}

/// A character literal; a lifetime is none.
fn character(rest: &[char]) -> Option<usize> {
    match rest.get(1)? {
        '\\' => (3..rest.len().min(12)).find(|i| rest[*i] == '\'').map(|i| i + 1),
        _ => (rest.get(2) == Some(&'\'')).then_some(3),
    }
}

#[test]
fn comments_strings_and_test_modules_do_not_count() {
    let text = "/// doc\nfn a<'x>(s: &'x str) -> char {\n    // why\n    let b = \"}\\\"\"; /* } */\n\n    '}'\n}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
    let code = blank(text);
    let product = without_test_modules(&code);
    let source = Source { path: "src/x.rs".into(), code, product, is_test: false };
    assert_eq!(test_modules(&source), ["src/tests.rs", "src/x/tests.rs"]);
    let functions = source.functions();
    assert_eq!(functions.len(), 1);
    assert_eq!((functions[0].name.as_str(), functions[0].lines), ("a", 4));
    assert_eq!(lines_of_code(&source.product), 4);
    assert_eq!(blank("let x = r#\"a\"b\"#;"), "let x = \"______\";");
}
