//! What is used where.

use super::source::{Source, find_word, sources};

/// The files for which `wrong` holds must be none.
fn forbid(what: &str, wrong: impl Fn(&Source) -> bool) {
    let found: Vec<_> = sources().into_iter().filter(wrong).map(|source| source.path).collect();
    assert!(found.is_empty(), "{what}: {found:#?}");
}

fn mentions(code: &str, word: &str) -> bool {
    find_word(code, word, 0).is_some()
}

#[test]
fn rocksdb_is_used_in_one_file() {
    forbid("rocksdb belongs to src/store/rocks.rs", |source| {
        source.path != "src/store/rocks.rs" && mentions(&source.code, "rocksdb")
    });
}

#[test]
fn cbor_is_read_and_written_in_one_file() {
    forbid("serde_cbor belongs to behaviours/base/src/codec.rs", |source| {
        source.path != "behaviours/base/src/codec.rs" && mentions(&source.code, "serde_cbor")
    });
}

#[test]
fn cores_know_no_network_no_runtime_no_clock_and_no_ambient_randomness() {
    for what in [
        "libp2p",
        "tokio",
        "Instant::now",
        "SystemTime::now",
        "rand::rng",
        "rand::random",
        "std::fs",
        "std::net::TcpStream",
    ] {
        forbid(&format!("`{what}` in a core"), |source| {
            source.is_core() && !source.is_test && mentions(&source.product, what)
        });
    }
}

#[test]
fn every_queue_has_a_bound() {
    for what in
        ["unbounded_channel", "mpsc::unbounded", "UnboundedSender", "std::sync::mpsc::channel", "mpsc::channel()"]
    {
        forbid(&format!("`{what}` has no bound"), |source| {
            !source.path.starts_with("tests/tidy/") && source.code.contains(what)
        });
    }
}

#[test]
fn unsafe_code_is_in_the_crate_made_for_it() {
    forbid("`unsafe` outside behaviours/x25519", |source| {
        !source.path.starts_with("behaviours/x25519/") && mentions(&source.code, "unsafe")
    });
}

/// Standard output is for data that a person or a script asked for: only what answers a command line may write there.
#[test]
fn only_the_command_line_and_the_tests_print_to_standard_output() {
    for what in ["println!", "print!", "io::stdout", "dbg!"] {
        forbid(&format!("`{what}` writes to standard output"), |source| {
            let allowed = source.is_test || source.path.starts_with("src/cli/");
            let word = what.trim_end_matches('!');
            let uses = |code: &str| match find_word(code, word, 0) {
                Some(_) if what.ends_with('!') => code
                    .match_indices(what)
                    .any(|(at, _)| !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')),
                found => found.is_some(),
            };
            !allowed && uses(&source.product)
        });
    }
}
