//! What modules try, and how it ends: with one clear reason, within the deadline, and with a process that serves on.

use std::time::Duration;

use fog_tasks::{
    Content, Ending, HostEnd, Outcome,
    sandbox::{Busy, Job, PoolConfig, RunId, Runner},
};

use super::support::{Tested, config, endless};
use crate::common::{command, import, job, nothing, program, quiet, with_args, with_inputs, with_stdin};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_process_gives_what_a_run_here_gives", a_process_gives_what_a_run_here_gives),
    ("what_never_ends_is_ended", what_never_ends_is_ended),
    ("a_module_that_takes_too_long_to_compile_is_given_up", a_module_that_takes_too_long_to_compile_is_given_up),
    ("garbage_is_no_module", garbage_is_no_module),
    ("a_module_of_100_mb_is_refused", a_module_of_100_mb_is_refused),
    ("what_the_host_has_not_is_no_result", what_the_host_has_not_is_no_result),
    ("large_inputs_and_outputs_arrive_whole", large_inputs_and_outputs_arrive_whole),
];

fn a_process_gives_what_a_run_here_gives() {
    let tested = Tested::new(config("task-process", 1));
    let mut runner = Runner::new().unwrap();
    let jobs = [
        with_stdin(with_args(job(program!("hello")), &["a"]), b"typed"),
        with_inputs(job(program!("copy")), &[("one", b"1"), ("two", b"22")]),
        with_args(job(program!("primes")), &["0", "1000"]),
        with_inputs(job(program!("tour")), &[("note", b"note")]),
        job(program!("clock")),
        job(program!("floats")),
        job(program!("memory")),
        job(nothing()),
        job(command("", "unreachable")),
        job(command(r#"(import "env" "f" (func))"#, "")),
    ];
    for job in jobs {
        let there = tested.run(&job);
        assert_eq!(there, runner.run(&job, quiet()));
        assert!(there.hash().is_some());
    }
}

fn what_never_ends_is_ended() {
    let tested = Tested::new(config("task-process", 1));
    let flood = |fd: u32| {
        let body =
            format!("(loop (drop (call $fd_write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8))) br 0)");
        let write = import("fd_write", "i32 i32 i32 i32");
        let data = r#"(data (i32.const 0) "\10\00\00\00\00\04\00\00")"#;
        let text = format!(r#"(module {write} (memory (export "memory") 1) {data} (func (export "_start") {body}))"#);
        job(wat::parse_str(text).unwrap())
    };
    let grow =
        "(loop (drop (memory.grow (i32.const 1))) (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) br 0)";
    let cases: [(Job, Ending); 6] = [
        (endless(Duration::from_millis(200)), Ending::Host(HostEnd::Deadline)),
        (job(command("", "(loop br 0)")), Ending::OutOfFuel),
        (job(command("(func $f call $f)", "call $f")), Ending::Host(HostEnd::StackOverflow)),
        (job(command("", grow)), Ending::OutOfFuel),
        (flood(1), Ending::OutputLimit),
        (flood(2), Ending::OutputLimit),
    ];
    for (job, ending) in cases {
        assert_eq!(tested.run(&job).ending, ending);
        tested.still_serves();
    }
}

/// Each is small to send and large to compile.
fn bombs() -> Vec<Vec<u8>> {
    let one = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 77)) (i32.xor (local.get 0) (i32.const 5))))";
    let huge = format!("(local i32) {}", one.repeat(500_000));
    let blocks = format!(
        "(local i32) {} {} {}",
        "(block ".repeat(900),
        {
            let table = (0..900).map(|label| label.to_string()).collect::<Vec<_>>().join(" ");
            format!("(if (local.get 0) (then (br_table {table} (local.get 0))))").repeat(3000)
        },
        ")".repeat(900)
    );
    let many =
        (0..150_000).map(|at| format!("(func (param i32) (result i32) (i32.add (local.get 0) (i32.const {at})))"));
    vec![command("", &huge), command("", &blocks), command(&many.collect::<String>(), "")]
}

fn a_module_that_takes_too_long_to_compile_is_given_up() {
    let tested = Tested::new(PoolConfig { compile: Duration::from_millis(300), ..config("task-process", 1) });
    for (at, bomb) in bombs().into_iter().enumerate() {
        let outcome = tested.run(&job(bomb));
        assert_eq!(outcome.ending, Ending::Host(HostEnd::Compile), "bomb {at}: {}", outcome.detail);
        assert_eq!(outcome.hash(), None);
        assert_eq!(outcome.detail, "compiling it took too long");
        tested.still_serves();
    }
    // Of a process that has too little memory for it, the same.
    let tested = Tested::new(PoolConfig { memory_bytes: 90 << 20, ..config("task-process", 1) });
    let outcome = tested.run(&job(bombs().remove(0)));
    assert_eq!(outcome.ending, Ending::Host(HostEnd::Compile), "{}", outcome.detail);
    tested.still_serves();
}

fn garbage_is_no_module() {
    let tested = Tested::new(config("task-process", 1));
    let mut bytes = nothing();
    for round in 0..200usize {
        // Anything, and a module with one byte that is another.
        let any: Vec<u8> =
            (0..round).flat_map(|at| blake3::hash(&[at as u8, round as u8]).as_bytes().to_vec()).collect();
        assert_eq!(tested.run(&job(any)).ending, Ending::BadModule);
        let at = round * 7 % bytes.len();
        bytes[at] ^= 1 << (round % 8);
        assert!(tested.run(&job(bytes.clone())).ending.is_deterministic());
        bytes[at] ^= 1 << (round % 8);
    }
    tested.still_serves();
}

fn a_module_of_100_mb_is_refused() {
    let tested = Tested::new(config("task-process", 1));
    let refused = tested.pool.start(RunId(1), job(vec![0; 100_000_000])).unwrap_err();
    assert!(matches!(refused, Busy::Work(_)), "{refused}");
    // One of a size that is allowed, and is no module.
    assert_eq!(tested.run(&job(vec![0; 30_000_000])).ending, Ending::BadModule);
    tested.still_serves();
}

fn what_the_host_has_not_is_no_result() {
    let tested = Tested::new(PoolConfig { memory_bytes: 256 << 20, ..config("task-process", 1) });
    let mut hungry = job(program!("memory"));
    hungry.work.limits.memory_bytes = 1 << 30;
    hungry.work.limits.fuel = u64::MAX;
    let Outcome { ending, detail, .. } = tested.run(&hungry);
    assert_eq!(ending, Ending::Host(HostEnd::NoResources), "{detail}");
    tested.still_serves();
    // Inputs that it cannot hold.
    let big = vec![1; 300 << 20];
    let mut staged = with_inputs(job(nothing()), &[("big", &big)]);
    staged.work.inputs[0].content = Content::of(&big);
    let Outcome { ending, detail, .. } = tested.run(&staged);
    assert_eq!(ending, Ending::Host(HostEnd::NoResources), "{detail}");
    tested.still_serves();
}

fn large_inputs_and_outputs_arrive_whole() {
    let tested = Tested::new(config("task-process", 1));
    let big: Vec<u8> = (0..20_000_000u32).map(|at| (at >> 7) as u8).collect();
    let mut copied = with_inputs(job(program!("copy")), &[("big", &big)]);
    copied.work.limits.output_bytes = 64 << 20;
    copied.work.limits.fuel = 100_000_000_000;
    let outcome = tested.run(&copied);
    assert_eq!(outcome.ending, Ending::Exit(0), "{}", outcome.detail);
    assert_eq!(outcome.outputs["big"], big);
    assert_eq!(outcome.outputs["joined/all"], big);
}
