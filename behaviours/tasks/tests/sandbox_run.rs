//! Runs in this process: programs as a C compiler makes them, and modules that do one thing wrong.

#![cfg(feature = "sandbox")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{command, import, job, nothing, program, quiet, with_args, with_inputs, with_stdin};
use fog_tasks::{
    Ending, HostEnd, Outcome, Trap,
    sandbox::{Job, Runner, Stream},
};

fn run(job: &Job) -> Outcome {
    Runner::new().unwrap().run(job, quiet())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn hashes() -> String {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/modules");
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    names.sort();
    let line = |path: &PathBuf| {
        let hash = blake3::hash(&fs::read(path).unwrap()).to_hex();
        format!("{hash}  {}\n", path.file_name().unwrap().display())
    };
    names.iter().map(line).collect()
}

#[test]
fn the_modules_are_what_their_hashes_say() {
    assert_eq!(hashes(), include_str!("modules/HASHES"));
}

#[test]
#[ignore = "writes the hashes, when the modules have changed"]
fn write_the_hashes() {
    fs::write(PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/modules/HASHES"), hashes())
        .unwrap();
}

#[test]
fn a_program_gets_its_arguments_its_environment_and_its_input() {
    let mut job = with_stdin(with_args(job(program!("hello")), &["one", "two words"]), b"typed\n");
    job.work.env = vec![("NAME".into(), "fog".into()), ("EMPTY".into(), String::new())];
    let said = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let heard = Arc::clone(&said);
    let log = Arc::new(move |stream, bytes: &[u8]| {
        let mut said = heard.lock().unwrap();
        if stream == Stream::Out { said.0.extend_from_slice(bytes) } else { said.1.extend_from_slice(bytes) }
    });
    let outcome = Runner::new().unwrap().run(&job, log);
    assert_eq!(outcome.ending, Ending::Exit(2));
    let expected = "arg 0: module\narg 1: one\narg 2: two words\nenv: NAME=fog\nenv: EMPTY=\ntyped\n";
    assert_eq!(text(&outcome.stdout), expected);
    assert_eq!(text(&outcome.stderr), "hello from fog\n");
    assert_eq!(*said.lock().unwrap(), (outcome.stdout, outcome.stderr));
}

#[test]
fn inputs_are_read_and_outputs_are_gathered() {
    let big = vec![b'x'; 100_000];
    let job = with_inputs(job(program!("copy")), &[("a", b"first\n"), ("big", &big)]);
    let outcome = run(&job);
    assert_eq!(outcome.ending, Ending::Exit(0), "{}", text(&outcome.stderr));
    assert_eq!(text(&outcome.stdout), "a 6\nbig 100000\n");
    let paths: Vec<_> = outcome.outputs.keys().map(String::as_str).collect();
    assert_eq!(paths, ["a", "big", "joined/all"]);
    assert_eq!(outcome.outputs["big"], big);
    assert_eq!(outcome.outputs["joined/all"].len(), 100_006);
}

#[test]
fn what_is_computed_is_right() {
    let primes = run(&with_args(job(program!("primes")), &["0", "10000"]));
    assert_eq!(text(&primes.stdout), "1229 primes, the largest is 9973\n");
    let tile = run(&with_args(job(program!("mandelbrot")), &["-2", "-1.25", "2.5", "64", "100"]));
    assert_eq!(tile.ending, Ending::Exit(0));
    assert!(tile.outputs["tile.pgm"].starts_with(b"P5\n64 64\n255\n"));
    assert_eq!(tile.outputs["tile.pgm"].len(), 13 + 64 * 64);
    let floats = run(&job(program!("floats")));
    let printed: Vec<_> = text(&floats.stdout).lines().collect();
    let expected = ["0.69314668056025253", "inf -inf nan -0", "1.4142135623730951 0.8414709848078965 13780.612339822"];
    for (line, expected) in printed.iter().zip(expected) {
        assert!(line.replace("-nan", "nan").starts_with(expected), "{line}");
    }
    // The one that every host gives.
    assert_eq!(printed[3], "7ff8000000000000");
}

#[test]
fn time_and_randomness_are_the_seeds() {
    let one = run(&job(program!("clock")));
    assert_eq!(one.ending, Ending::Exit(0));
    assert!(text(&one.stdout).contains("slept 3600 s"), "{}", text(&one.stdout));
    assert!(text(&one.stdout).starts_with("year 2025"), "{}", text(&one.stdout));
    assert_eq!(run(&job(program!("clock"))), one);
    let mut other = job(program!("clock"));
    other.work.seed = [8; 32];
    assert_ne!(run(&other).stdout, one.stdout);
}

#[test]
fn the_hosts_files_do_not_exist() {
    let outcome = run(&with_inputs(job(program!("tour")), &[("note", b"note")]));
    assert_eq!(text(&outcome.stdout), include_str!("modules/tour.txt"));
    assert_eq!(outcome.ending, Ending::Exit(0));
    assert_eq!(outcome.outputs.keys().collect::<Vec<_>>(), ["append", "dir/deeper", "file"]);
    assert_eq!(outcome.outputs["append"], b"onetwo");
}

#[test]
fn memory_ends_where_the_work_says() {
    let said = |limit: u64| {
        let mut job = job(program!("memory"));
        job.work.limits.memory_bytes = limit;
        let outcome = run(&job);
        assert_eq!(outcome.ending, Ending::Exit(0), "{}", outcome.detail);
        text(&outcome.stdout).split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let small = said(16 << 20);
    assert!((10..16).contains(&small), "{small}");
    assert_eq!(said(32 << 20), small + 16);
    let mut job = job(program!("memory"));
    job.work.limits.memory_bytes = 65536;
    let outcome = run(&job);
    assert_eq!(outcome.ending, Ending::BadModule);
    assert!(outcome.detail.contains("needs 131072 bytes of memory"), "{}", outcome.detail);
}

/// Every trap that the interface names, and that its fuel is the same twice.
#[test]
fn each_trap_has_its_name() {
    let table = r#"(table 2 funcref) (elem (i32.const 0) $other) (type $nothing (func)) (func $other (param i32))"#;
    let cases = [
        ("", "unreachable", Trap::Unreachable),
        ("", "(drop (i32.load (i32.const -1)))", Trap::Memory),
        ("", "(memory.fill (i32.const 65535) (i32.const 0) (i32.const 2))", Trap::Memory),
        (table, "(call_indirect (type $nothing) (i32.const 2))", Trap::Table),
        (table, "(call_indirect (type $nothing) (i32.const 1))", Trap::Table),
        (table, "(call_indirect (type $nothing) (i32.const 0))", Trap::Signature),
        ("", "(drop (i32.div_u (i32.const 1) (i32.const 0)))", Trap::DivisionByZero),
        ("", "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", Trap::IntegerOverflow),
        ("", "(drop (i32.trunc_f32_s (f32.const nan)))", Trap::Conversion),
    ];
    let mut runner = Runner::new().unwrap();
    for (more, body, trap) in cases {
        let job = job(command(more, body));
        let outcome = runner.run(&job, quiet());
        assert_eq!(outcome.ending, Ending::Trap(trap), "{body}: {}", outcome.detail);
        assert!(!outcome.detail.is_empty());
        assert_eq!(runner.run(&job, quiet()), outcome);
    }
    let mut at_start = job(wat::parse_str(
        r#"(module (memory (export "memory") 1) (data (i32.const 65536) "x") (func (export "_start")))"#,
    )
    .unwrap());
    assert_eq!(runner.run(&at_start, quiet()).ending, Ending::Trap(Trap::Memory));
    at_start = job(wat::parse_str(
        r#"(module (memory (export "memory") 1) (func $f unreachable) (start $f) (func (export "_start")))"#,
    )
    .unwrap());
    assert_eq!(runner.run(&at_start, quiet()).ending, Ending::Trap(Trap::Unreachable));
}

/// What is no command at all, each with one clear reason; the runner serves on.
#[test]
fn what_is_no_command_is_refused_with_the_reason() {
    let text = |source: &str| wat::parse_str(source).unwrap();
    let memory = r#"(memory (export "memory") 1)"#;
    let cases = [
        (b"garbage".to_vec(), "not a valid module"),
        (vec![], "not a valid module"),
        (text(&format!("(module {memory})")), "no function `_start`"),
        (text(&format!(r#"(module {memory} (func (export "_start") (param i32)))"#)), "no function `_start`"),
        (text(r#"(module (func (export "_start")))"#), "no memory"),
        (
            text(r#"(module (memory 1) (func (export "_start")) (global (export "memory") i32 (i32.const 0)))"#),
            "no memory",
        ),
        (command(r#"(import "env" "secret" (func))"#, ""), "env::secret, which no worker has"),
        (
            command(r#"(import "wasi_snapshot_preview1" "path_openat" (func))"#, ""),
            "wasi_snapshot_preview1::path_openat",
        ),
        (command(r#"(import "wasi_snapshot_preview1" "fd_close" (func))"#, ""), "of another type"),
        (
            text(
                r#"(module (import "env" "memory" (memory 1)) (export "memory" (memory 0)) (func (export "_start")))"#,
            ),
            "env::memory",
        ),
        (command("(table 300000 funcref)", ""), "minimum element size of 300000"),
        (
            command("(table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)", ""),
            "the module is too large",
        ),
        (command("(memory 1)", ""), "not a valid module"),
        (command("(memory i64 1)", ""), "not a valid module"),
        (text(r#"(module (memory (export "memory") 1 1 shared) (func (export "_start")))"#), "not a valid module"),
    ];
    let mut runner = Runner::new().unwrap();
    for (module, reason) in cases {
        let outcome = runner.run(&job(module), quiet());
        assert_eq!(outcome.ending, Ending::BadModule, "{reason}: {}", outcome.detail);
        assert!(outcome.detail.contains(reason), "{reason}: {}", outcome.detail);
    }
    assert_eq!(runner.run(&job(nothing()), quiet()).ending, Ending::Exit(0));
}

/// What eats without end is ended, by what is a limit everywhere if there is one.
#[test]
fn what_has_no_end_is_ended() {
    let mut runner = Runner::new().unwrap();
    let mut ends = |more: &str, body: &str, change: fn(&mut Job)| {
        let mut job = job(command(more, body));
        change(&mut job);
        runner.run(&job, quiet())
    };
    let all = ends("", "(loop br 0)", |job| job.work.limits.fuel = 1_000_000);
    assert_eq!((all.ending, all.fuel), (Ending::OutOfFuel, 1_000_000));
    let deadline = |job: &mut Job| (job.work.limits.fuel, job.wall) = (u64::MAX, Duration::from_millis(100));
    assert_eq!(ends("", "(loop br 0)", deadline).ending, Ending::Host(HostEnd::Deadline));
    let deep = ends("(func $f call $f)", "call $f", |_| ());
    assert_eq!((deep.ending, deep.hash()), (Ending::Host(HostEnd::StackOverflow), None));
    // Growing fails at the limit, which is told to the module, and costs no more than asking.
    let grow = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 100)) (i32.const -1))))
        (if (i32.ne (memory.size) (i32.const 1001)) (then unreachable))
        (if (i32.ne (memory.grow (i32.const 65535)) (i32.const -1)) (then unreachable))
        (if (i32.ne (memory.grow (i32.const -1)) (i32.const -1)) (then unreachable))";
    assert_eq!(ends("", grow, |job| job.work.limits.memory_bytes = 1024 * 65536).ending, Ending::Exit(0));
    let tables = "(loop (br_if 0 (i32.ne (table.grow 0 (ref.null func) (i32.const 1000)) (i32.const -1))))
        (if (i32.gt_u (table.size) (i32.const 262144)) (then unreachable))";
    assert_eq!(ends("(table 1 funcref)", tables, |_| ()).ending, Ending::Exit(0));
    // Bulk operations and calls of the host are paid for by the byte.
    let fill = "(loop (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536)) br 0)";
    let random = "(loop (drop (call $random_get (i32.const 0) (i32.const 65536))) br 0)";
    for (more, body) in [(String::new(), fill), (import("random_get", "i32 i32"), random)] {
        let outcome = ends(&more, body, |job| job.work.limits.fuel = 100_000_000);
        assert_eq!((outcome.ending, outcome.fuel), (Ending::OutOfFuel, 100_000_000));
    }
    let idle = "(loop (drop (call $sched_yield)) br 0)";
    assert_eq!(ends(&import("sched_yield", ""), idle, |_| ()).ending, Ending::OutOfFuel);
}

#[test]
fn output_beyond_the_limit_ends_the_run_with_what_fits() {
    let write = import("fd_write", "i32 i32 i32 i32");
    let data = r#"(data (i32.const 0) "\10\00\00\00\00\04\00\00")"#;
    for (fd, limit) in [(1, 1024 * 10 + 5), (2, 1024 * 10)] {
        let body =
            format!("(loop (drop (call $fd_write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8))) br 0)");
        let mut job = job(wat::parse_str(format!(
            r#"(module {write} (memory (export "memory") 1) {data} (func (export "_start") {body}))"#
        ))
        .unwrap());
        job.work.limits.output_bytes = limit;
        let outcome = run(&job);
        assert_eq!(outcome.ending, Ending::OutputLimit);
        assert_eq!(outcome.stdout.len() + outcome.stderr.len(), 10 * 1024);
        assert!(outcome.hash().is_some());
    }
}

#[test]
fn an_exit_code_is_kept_whole() {
    let exit = |code: u32| {
        let body = format!("(call $proc_exit (i32.const {code})) unreachable");
        run(&job(command(&import("proc_exit", "i32"), &body))).ending
    };
    assert_eq!([exit(0), exit(3), exit(u32::MAX)], [Ending::Exit(0), Ending::Exit(3), Ending::Exit(u32::MAX)]);
}

#[test]
fn bytes_that_the_work_does_not_name_are_not_run() {
    let mut other = job(nothing());
    other.module = Arc::new(program!("hello"));
    let mut input = with_inputs(job(nothing()), &[("a", b"1")]);
    input.inputs[0].1 = Arc::new(b"2".to_vec());
    let mut stdin = with_stdin(job(nothing()), b"1");
    stdin.stdin = Arc::new(Vec::new());
    for job in [other, input, stdin] {
        assert_eq!(run(&job).ending, Ending::Host(HostEnd::Unstaged));
    }
}

#[test]
fn more_modules_than_are_kept_still_run() {
    let mut runner = Runner::new().unwrap();
    for round in 0..2 {
        for number in 0..70 {
            let body = format!("(drop (i32.const {number}))");
            assert_eq!(runner.run(&job(command("", &body)), quiet()).ending, Ending::Exit(0), "{round} {number}");
        }
    }
}
