//! What the fuzz target `tasks_wasi` does with an input, shared with the test that replays its corpus. An input is a list of calls: the
//! number of a function, then for each argument a byte that says how it is made, and its bytes; between them, writes into the memory.

#![allow(dead_code, unreachable_pub, clippy::indexing_slicing)]

use std::sync::Arc;

use fog_tasks::sandbox::wasi::{FUNCTIONS, Fault, Guest, Setup, Wasi};

const MEMORY: usize = 65536;

/// A system with two inputs, one of which is open as 4, a file under `/out`, open as 5, and a memory that holds some paths.
pub fn system() -> (Wasi, Vec<u8>) {
    let mut wasi = Wasi::new(Setup {
        args: vec!["module".into(), "one".into()],
        env: vec![("NAME".into(), "value".into())],
        stdin: Arc::new(b"standard input".to_vec()),
        inputs: vec![("a".into(), Arc::new(b"first".to_vec())), ("b".into(), Arc::new(vec![7; 3000]))],
        output_bytes: 10_000,
        seed: [1; 32],
        log: Arc::new(|_, _| ()),
    });
    let mut memory = vec![0; MEMORY];
    let paths: &[&[u8]] =
        &[b"in/a", b"out/file", b"out/dir", b"out/dir/deep", b".", b"..", b"/etc/passwd", b"out/dir/../file"];
    for (at, path) in paths.iter().enumerate() {
        memory[256 + at * 32..][..path.len()].copy_from_slice(path);
    }
    // Two vectors at 16: 8 bytes at 1024 and 300 at 2048.
    for (at, word) in [1024u32, 8, 2048, 300].into_iter().enumerate() {
        memory[16 + at * 4..][..4].copy_from_slice(&word.to_le_bytes());
    }
    const ALL: u64 = (1 << 28) - 1;
    for (path, len, how, rights) in [(256, 4, 0, 1 << 1), (288, 8, 1, ALL)] {
        call(&mut wasi, &mut memory, "path_open", &[3, 0, path, len, how, rights, 0, 0, 512]);
    }
    (wasi, memory)
}

fn call(wasi: &mut Wasi, memory: &mut [u8], name: &str, arguments: &[u64]) {
    let function = FUNCTIONS.iter().find(|function| function.name == name);
    let answer = function.map(|function| function.call(wasi, &mut Guest { memory, fuel: &mut 1_000_000 }, arguments));
    assert_eq!(answer, Some(Ok(())), "{name}");
}

/// Does the calls of an input.
pub fn fuzz_wasi(data: &[u8]) {
    let (mut wasi, mut memory) = system();
    let mut bytes = data.iter().copied();
    let mut fuel = 3_000_000;
    while let Some(number) = bytes.next() {
        if number >= 200 {
            // Into the memory.
            let at = usize::from(bytes.next().unwrap_or(0)) * 16;
            let len = usize::from(number - 200);
            memory[at..].iter_mut().zip(bytes.by_ref().take(len)).for_each(|(to, from)| *to = from);
            continue;
        }
        let function = &FUNCTIONS[usize::from(number) % FUNCTIONS.len()];
        let arguments: Vec<u64> = (0..function.arguments)
            .map(|_| {
                let (how, value) = (bytes.next().unwrap_or(0), u64::from(bytes.next().unwrap_or(0)));
                match how % 5 {
                    0 => value,
                    1 => value * 16,
                    2 => value * 0x0101_0101_0101_0101,
                    3 => (MEMORY as u64).wrapping_sub(value),
                    _ => 1 << (value % 64),
                }
            })
            .collect();
        let before = fuel;
        let answer = function.call(&mut wasi, &mut Guest { memory: &mut memory, fuel: &mut fuel }, &arguments);
        assert!(fuel < before);
        if let Err(Fault::Stop(_)) = answer {
            break;
        }
    }
    let written = wasi.into_written();
    let files: usize = written.outputs.values().map(Vec::len).sum();
    assert!(written.stdout.len() <= 10_000 && written.stderr.len() <= 10_000 && files <= 10_000);
    for path in written.outputs.keys() {
        assert!(path.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{path}");
    }
}

/// Inputs to start from: each function once with plausible arguments, and a sequence of them.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut seeds: Vec<_> = FUNCTIONS
        .iter()
        .enumerate()
        .map(|(at, function)| {
            let mut seed = vec![at as u8];
            for argument in 0..function.arguments {
                // A descriptor first, then pointers to paths, vectors and room.
                seed.extend(if argument == 0 { [0, 3 + (at % 3) as u8] } else { [1, [16, 1, 1, 64][argument % 4]] });
            }
            if function.name != "proc_exit" {
                all.extend_from_slice(&seed);
            }
            (function.name.to_owned(), seed)
        })
        .collect();
    seeds.push(("all".into(), all));
    seeds
}
