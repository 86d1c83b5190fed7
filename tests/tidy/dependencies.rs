//! Who depends on whom, from `cargo metadata` and `cargo tree`.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use super::source::root;

/// Of all platforms. A build has fetched the packages of one only: where others are missing, cargo fetches them.
fn metadata() -> Metadata {
    let ask = |options: &[&str]| {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        MetadataCommand::new().manifest_path(root().join("Cargo.toml")).other_options(options).exec()
    };
    ask(&["--locked", "--offline"]).or_else(|_| ask(&["--locked"])).expect("cargo metadata")
}

fn packages<'a>(metadata: &'a Metadata, name: &str) -> Vec<&'a Package> {
    metadata.packages.iter().filter(|package| package.name.as_str() == name).collect()
}

/// Our packages that depend on `name` for their product, not only for tests.
fn users(metadata: &Metadata, name: &str) -> Vec<String> {
    let uses = |package: &&Package| {
        package.dependencies.iter().any(|dep| dep.name == name && dep.kind != DependencyKind::Development)
    };
    metadata
        .workspace_packages()
        .iter()
        .filter(|package| uses(package))
        .map(|package| package.name.to_string())
        .collect()
}

#[test]
fn there_is_one_version_of_libp2p() {
    let metadata = metadata();
    for name in ["libp2p", "libp2p-core", "libp2p-swarm", "libp2p-identity", "rocksdb", "serde_cbor"] {
        let versions: Vec<_> = packages(&metadata, name).iter().map(|package| package.version.to_string()).collect();
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
    }
}

#[test]
fn no_openssl_and_no_dependency_from_git() {
    let metadata = metadata();
    for name in ["openssl", "openssl-sys", "native-tls"] {
        assert!(packages(&metadata, name).is_empty(), "{name} is in the tree");
    }
    let elsewhere: Vec<_> = metadata
        .packages
        .iter()
        .filter_map(|package| package.source.as_ref().map(|source| (&package.name, &source.repr)))
        .filter(|(_, source)| *source != "registry+https://github.com/rust-lang/crates.io-index")
        .collect();
    assert!(elsewhere.is_empty(), "not from crates.io: {elsewhere:?}");
}

#[test]
fn rocksdb_and_cbor_have_one_user_each() {
    let metadata = metadata();
    assert_eq!(users(&metadata, "rocksdb"), ["fog"]);
    assert_eq!(users(&metadata, "serde_cbor"), ["fog-base"]);
}

/// DESIGN §2: protocol crates do not import each other, with named exceptions.
#[test]
fn protocols_do_not_know_each_other() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("fog-sphinx", ["fog-x25519"].as_slice()),
        ("fog-mix", &["fog-sphinx"]),
        ("fog-services", &["fog-circuits"]),
        ("fog-chat", &["fog-blobs"]),
        ("fog-tasks", &["fog-blobs"]),
    ]);
    let metadata = metadata();
    let behaviours = root().join("behaviours");
    for package in metadata.workspace_packages() {
        let ours: BTreeSet<_> = package
            .dependencies
            .iter()
            .filter(|dep| dep.kind != DependencyKind::Development && dep.name.starts_with("fog"))
            .map(|dep| dep.name.as_str())
            .collect();
        if package.manifest_path.as_std_path().starts_with(&behaviours) {
            let may = allowed.get(package.name.as_str()).copied().unwrap_or_default();
            let wrong: Vec<_> = ours.iter().filter(|name| **name != "fog-base" && !may.contains(name)).collect();
            assert!(wrong.is_empty(), "{} depends on {wrong:?}", package.name);
        }
        match package.name.as_str() {
            "fog-base" | "fog-x25519" => assert!(ours.is_empty(), "{} depends on {ours:?}", package.name),
            "fog-testnet" => assert!(!ours.contains("fog"), "the testnet speaks to nodes as anybody does"),
            _ => {}
        }
    }
}

#[test]
fn libp2p_is_an_option_of_every_protocol_crate() {
    let metadata = metadata();
    let behaviours = root().join("behaviours");
    for package in metadata.workspace_packages() {
        if !package.manifest_path.as_std_path().starts_with(&behaviours) {
            continue;
        }
        for dep in &package.dependencies {
            let hard = dep.kind != DependencyKind::Development && !dep.optional;
            let network = dep.name.starts_with("libp2p") || dep.name == "tokio";
            assert!(!(hard && network), "{} always depends on {}", package.name, dep.name);
        }
    }
}

/// RocksDB is compiled once: what its build script is made of must not change between `cargo build`, which knows no
/// dev-dependencies, and `cargo test`, `clippy --all-targets` and `cargo bench`, which do.
#[test]
fn rocksdb_is_built_alike_for_the_program_and_for_its_tests() {
    let program = rocksdb_tree("normal,build");
    assert!(program.len() > 10, "RocksDB is not in the tree: {program:?}");
    assert_eq!(program, rocksdb_tree("normal,build,dev"));
}

fn rocksdb_tree(edges: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--workspace", "--no-dedupe", "--prefix", "depth"])
        .args(["--format", " {p} {f}", "--edges", edges])
        .current_dir(root())
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| {
        let (depth, package) = line.split_once(' ')?;
        Some((depth.parse::<usize>().ok()?, package))
    });
    let mut from = lines.skip_while(|(_, package)| !package.starts_with("librocksdb-sys ")).peekable();
    let top = from.peek().map_or(0, |(depth, _)| *depth);
    let first = from.next().into_iter();
    let below = from.take_while(|(depth, _)| *depth > top);
    first.chain(below).map(|(depth, package)| format!("{} {package}", depth - top)).collect()
}
