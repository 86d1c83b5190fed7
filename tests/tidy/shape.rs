//! What every crate and the repository must have.

use std::{fs, path::PathBuf};

use super::source::root;

/// Crates that are pure as a whole, and so have no `core/`.
const PURE: [&str; 3] = ["base", "sphinx", "x25519"];

fn crates() -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(root().join("behaviours"))
        .expect("behaviours/")
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    found.sort();
    assert!(found.len() >= 4, "{found:?}");
    found
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_protocol_has_its_specification_and_a_core_of_its_own() {
    for (name, dir) in crates() {
        assert!(dir.join("README.md").is_file(), "behaviours/{name} has no README.md");
        let lib = read(dir.join("src/lib.rs"));
        assert!(lib.contains("include_str!(\"../README.md\")"), "the README of {name} is not its crate documentation");
        let core = dir.join("src/core");
        assert!(PURE.contains(&name.as_str()) || core.is_dir(), "behaviours/{name} has no src/core/");
    }
}

#[test]
fn cores_deny_what_panics() {
    for (name, dir) in crates() {
        let lib = read(dir.join("src/lib.rs"));
        // Fixed loops over arrays of fixed length are all that x25519 is.
        let indexing = (name != "x25519").then_some("indexing_slicing");
        for lint in ["unwrap_used", "expect_used", "panic"].into_iter().chain(indexing) {
            assert!(lib.contains(&format!("clippy::{lint}")), "fog-{name} does not deny clippy::{lint}");
        }
    }
}

#[test]
fn every_crate_takes_lints_and_versions_from_the_workspace() {
    let members = crates().into_iter().map(|(_, dir)| dir).chain([root().to_owned(), root().join("testnet")]);
    let workspace: toml::Table = read(root().join("Cargo.toml")).parse().expect("Cargo.toml");
    for dir in members {
        let text = read(dir.join("Cargo.toml"));
        let manifest: toml::Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        if dir.ends_with("x25519") {
            assert_eq!(lints_but_unsafe(&manifest["lints"]), lints_but_unsafe(&workspace["workspace"]["lints"]));
        } else {
            let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
            assert_eq!(lints, Some(&toml::Value::Boolean(true)), "{}: [lints] workspace = true", dir.display());
        }
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (dep, value) in manifest.get(table).and_then(toml::Value::as_table).into_iter().flatten() {
                let inherited = value.get("workspace") == Some(&toml::Value::Boolean(true));
                assert!(inherited, "{}: {dep} does not take its version from the workspace", dir.display());
            }
        }
    }
}

/// The one crate that may say `unsafe` cannot inherit the lints, which forbid it. It has all the others, and denies some more
/// that are about `unsafe`.
fn lints_but_unsafe(lints: &toml::Value) -> Vec<(String, toml::Value)> {
    let tables = ["rust", "clippy"].into_iter().filter_map(|tool| lints.get(tool)?.as_table());
    let all = tables.flatten().map(|(lint, level)| (lint.clone(), level.clone()));
    all.filter(|(lint, _)| !lint.contains("unsafe")).collect()
}

/// One profile: another one would compile RocksDB once more.
#[test]
fn there_is_one_profile() {
    let manifest: toml::Table = read(root().join("Cargo.toml")).parse().expect("Cargo.toml");
    let profiles: Vec<_> = manifest["profile"].as_table().expect("[profile]").keys().cloned().collect();
    assert_eq!(profiles, ["release"]);
    for script in ["Makefile", "scripts/test.sh", "scripts/bench.sh"] {
        for line in read(root().join(script)).lines().filter(|line| !line.trim_start().starts_with('#')) {
            let builds = [
                "cargo build",
                "cargo run",
                "cargo test",
                "cargo check",
                "cargo clippy",
                "cargo nextest run",
                "cargo bench",
            ];
            if builds.iter().any(|command| line.contains(command)) {
                let release = line.contains("--release") || line.contains("--profile release");
                assert!(release, "{script}: not the release profile: {line}");
            }
        }
    }
}

/// Targets are listed by hand so that there is one integration binary; then a file can be forgotten.
#[test]
fn no_test_and_no_bench_is_forgotten() {
    let manifest = read(root().join("Cargo.toml"));
    for name in rust_files("benches") {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "Cargo.toml has no [[bench]] {name}");
    }
    for (root_file, dir) in [("tests/it.rs", "tests/it"), ("tests/tidy.rs", "tests/tidy")] {
        let text = read(root().join(root_file));
        for name in rust_files(dir) {
            assert!(text.contains(&format!("mod {name};")), "{root_file} does not name {dir}/{name}.rs");
        }
    }
}

fn rust_files(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(dir)).unwrap_or_else(|e| panic!("{dir}: {e}"));
    let names = entries.flatten().filter(|entry| entry.path().is_file());
    names.filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(".rs").map(str::to_owned)).collect()
}
