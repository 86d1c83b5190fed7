//! Files between two processes on loopback: one is killed and goes on.
#![expect(clippy::disallowed_methods, reason = "processes are waited for on the real clock")]

#[path = "common/process.rs"]
mod process;

use std::{
    fs,
    time::{Duration, Instant},
};

use process::{Process, film, play, role};

/// Not a test: the other process of the test below.
#[test]
#[ignore = "a process of another test"]
fn process_of_a_test() {
    let Some(role) = role() else { return };
    let is_known = tokio::runtime::Runtime::new().unwrap().block_on(play(&role));
    assert!(is_known, "{role}");
}

#[test]
fn a_fetch_that_was_killed_goes_on_from_its_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (file, a, b) = (film(dir.path(), 160), dir.path().join("a"), dir.path().join("b"));
    fs::create_dir_all(&b).unwrap();
    let mut source = Process::start(&format!("source {} {} 40000000", file.display(), a.display()));
    let role = format!("fetch {} {}", b.display(), source.line());
    let mut killed = Process::start(&role);
    // The first checkpoint is after 64 MiB.
    let begun = Instant::now();
    let has_checkpoint = || {
        let names = fs::read_dir(b.join("blobs")).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| name.to_string_lossy().ends_with(".have"))
    };
    while !has_checkpoint() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert!(b.join("film.mkv.part").exists(), "it was killed midway");
    let mut fetch = Process::start(&role);
    let [_, _, _, had] = fetch.numbers();
    fetch.0.wait().unwrap();
    source.end();
    assert!(had as u64 >= 64 << 20, "{had} bytes were there");
    assert!(fs::read(b.join("film.mkv")).unwrap() == fs::read(file).unwrap());
    assert!(!b.join("film.mkv.part").exists());
}
