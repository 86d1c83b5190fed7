//! The functions of the virtual WASI over memories that hold anything, called with anything: none panics, each answers within what its
//! fuel pays for, and what a pointer outside of the memory gets is an error. Also replays the corpus of the fuzz target.

#![cfg(feature = "sandbox")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "common/fuzz.rs"]
mod fuzz;

use std::{fs, path::PathBuf};

use fog_tasks::sandbox::wasi::{CALL_FUEL, Errno, FUNCTIONS, Fault, Guest, Stop};
use fuzz::{fuzz_wasi, seeds, system};
use proptest::prelude::*;

fn folder() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../fuzz/corpus/tasks_wasi")
}

#[test]
fn the_corpus_of_tasks_wasi_is_handled() {
    let inputs: Vec<_> =
        fs::read_dir(folder()).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() >= 5, "{} inputs", inputs.len());
    inputs.iter().for_each(|input| fuzz_wasi(input));
}

/// Where the format has changed, `FOG_WRITE_SEEDS=1` writes them anew.
#[test]
fn the_corpus_has_the_seeds_of_the_present_format() {
    for (name, bytes) in seeds() {
        let path = folder().join(&name);
        if std::env::var_os("FOG_WRITE_SEEDS").is_some() {
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).is_ok_and(|there| there == bytes), "{name} is not the seed that it should be");
    }
}

/// A pointer is one that leads out of the memory, whichever argument it is.
#[test]
fn every_pointer_of_every_function_is_checked() {
    const BAD: u64 = 0xffff_fff0;
    let pointers: &[(&str, &[u64])] = &[
        ("args_get", &[BAD, BAD]),
        ("args_sizes_get", &[BAD, 0]),
        ("args_sizes_get", &[0, BAD]),
        ("clock_res_get", &[0, BAD]),
        ("clock_time_get", &[0, 0, BAD]),
        ("environ_get", &[BAD, BAD]),
        ("environ_sizes_get", &[BAD, 0]),
        ("fd_fdstat_get", &[1, BAD]),
        ("fd_filestat_get", &[3, BAD]),
        ("fd_filestat_get", &[0, BAD]),
        ("fd_pread", &[4, BAD, 1, 0, 0]),
        ("fd_pread", &[4, 0, 0, 0, BAD]),
        ("fd_prestat_dir_name", &[3, BAD, 1]),
        ("fd_prestat_get", &[3, BAD]),
        ("fd_pwrite", &[5, BAD, 1, 0, 0]),
        ("fd_pwrite", &[5, 0, 0, 0, BAD]),
        ("fd_read", &[0, BAD, 1, 0]),
        ("fd_read", &[0, 0, 0, BAD]),
        ("fd_readdir", &[3, BAD, 64, 0, 0]),
        ("fd_readdir", &[3, 0, 64, 0, BAD]),
        ("fd_seek", &[4, 0, 0, BAD]),
        ("fd_tell", &[4, BAD]),
        ("fd_write", &[1, BAD, 1, 0]),
        ("fd_write", &[1, 0, 0, BAD]),
        ("path_create_directory", &[3, BAD, 20]),
        ("path_filestat_get", &[3, 0, BAD, 20, 0]),
        ("path_filestat_set_times", &[3, 0, BAD, 20, 0, 0, 0]),
        ("path_open", &[3, 0, BAD, 20, 0, 0, 0, 0, 0]),
        ("path_open", &[3, 0, 0, 1, 0, 0, 0, 0, BAD]),
        ("path_readlink", &[3, BAD, 20, 0, 0, 0]),
        ("path_remove_directory", &[3, BAD, 20]),
        ("path_rename", &[3, BAD, 20, 3, 0, 1]),
        ("path_unlink_file", &[3, BAD, 20]),
        ("poll_oneoff", &[BAD, 0, 1, 0]),
        ("poll_oneoff", &[0, BAD, 1, 0]),
        ("poll_oneoff", &[0, 0, 1, BAD]),
        ("random_get", &[BAD, 17]),
    ];
    for (name, arguments) in pointers {
        let (mut wasi, mut memory) = system();
        let mut fuel = 1_000_000;
        let function = FUNCTIONS.iter().find(|function| function.name == *name).unwrap();
        let answer = function.call(&mut wasi, &mut Guest { memory: &mut memory, fuel: &mut fuel }, arguments);
        assert_eq!(answer, Err(Fault::Errno(Errno::FAULT)), "{name} {arguments:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Of all functions, with arguments that are anything or small.
    #[test]
    fn any_call_is_answered(
        fill in any::<u8>(),
        calls in prop::collection::vec((0..FUNCTIONS.len(), prop::collection::vec(prop_oneof![any::<u64>(), 0..300u64], 9)), 1..40),
    ) {
        let (mut wasi, mut memory) = system();
        memory[4096..].fill(fill);
        for (at, arguments) in calls {
            let mut fuel = 200_000;
            let answer = FUNCTIONS[at].call(&mut wasi, &mut Guest { memory: &mut memory, fuel: &mut fuel }, &arguments);
            prop_assert!(fuel <= 200_000 - CALL_FUEL);
            if answer == Err(Fault::Stop(Stop::OutOfFuel)) {
                prop_assert_eq!(fuel, 0);
            }
        }
        let written = wasi.into_written();
        let files: usize = written.outputs.values().map(Vec::len).sum();
        prop_assert!(written.stdout.len() <= 10_000 && written.stderr.len() <= 10_000 && files <= 10_000);
    }
}
