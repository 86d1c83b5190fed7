//! A thousand generated modules in two processes: the same results, to the unit of fuel.

use std::{collections::BTreeMap, fmt::Write};

use arbitrary::Unstructured;
use fog_tasks::{Ending, HostEnd, Outcome, sandbox::Job};

use super::support::{Tested, config};
use crate::common::{import, job};

pub(crate) const TESTS: &[(&str, fn())] =
    &[("any_module_has_one_result", any_module_has_one_result), ("floats_have_one_result", floats_have_one_result)];

const MODULES: usize = 500;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Runs each in two processes; the outcomes of the first.
fn compare(jobs: &[Job]) -> Vec<Outcome> {
    let (one, other) = (Tested::new(config("task-process", 1)), Tested::new(config("task-process", 1)));
    let mut outcomes = Vec::new();
    for (at, job) in jobs.iter().enumerate() {
        let (first, second) = (one.run(job), other.run(job));
        if first.ending.is_deterministic() {
            assert_eq!(first, second, "module {at}");
        }
        outcomes.push(first);
    }
    outcomes
}

fn any_module_has_one_result() {
    let jobs: Vec<_> = (0..).filter_map(|seed| generated(&bytes(seed, 8192))).take(MODULES * 13 / 10).collect();
    let outcomes = compare(&jobs);
    let count = |is: fn(Ending) -> bool| outcomes.iter().filter(|outcome| is(outcome.ending)).count();
    let bad: Vec<_> = outcomes.iter().filter(|outcome| outcome.ending == Ending::BadModule).collect();
    assert!(bad.len() < MODULES / 10, "{} bad, such as {}", bad.len(), bad[0].detail);
    // Some call themselves until the stack ends, which is no result.
    assert!(count(Ending::is_deterministic) >= MODULES);
    let deep = Ending::Host(HostEnd::StackOverflow);
    assert!(outcomes.iter().all(|outcome| outcome.ending.is_deterministic() || outcome.ending == deep));
    assert!(count(|ending| matches!(ending, Ending::Exit(0))) > MODULES / 20);
    assert!(count(|ending| matches!(ending, Ending::Trap(_))) > MODULES / 20);
}

/// A module of wasm-smith that runs something when it is instantiated, made a command.
fn generated(bytes: &[u8]) -> Option<Job> {
    let config = wasm_smith::Config {
        max_imports: 0,
        min_memories: 1,
        max_memories: 1,
        max_tables: 4,
        max_memory32_bytes: 16 << 20,
        min_funcs: 1,
        allow_start_export: true,
        memory64_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        reference_types_enabled: false,
        threads_enabled: false,
        relaxed_simd_enabled: false,
        wide_arithmetic_enabled: false,
        custom_page_sizes_enabled: false,
        ..wasm_smith::Config::default()
    };
    let module = wasm_smith::Module::new(config, &mut Unstructured::new(bytes)).ok()?.to_bytes();
    let mut job = job(as_command(&module)?);
    job.work.limits.fuel = 5_000_000;
    Some(job)
}

/// Adds a `_start` that does nothing, and exports it and the memory, and nothing else. `None` without a start function.
fn as_command(module: &[u8]) -> Option<Vec<u8>> {
    let (head, mut rest) = module.split_at(8);
    let mut sections = BTreeMap::new();
    while let Some((id, body)) = rest.split_first() {
        let (len, body) = number(body);
        let (body, next) = body.split_at(len);
        if *id != 0 {
            sections.insert(*id, body.to_vec());
        }
        rest = next;
    }
    if !sections.contains_key(&8) {
        return None;
    }
    let types = append(&mut sections, 1, &[0x60, 0, 0]);
    let mut index = Vec::new();
    leb(types, &mut index);
    let function = append(&mut sections, 3, &index);
    append(&mut sections, 10, &[2, 0, 0x0b]);
    let mut exports = vec![2, 6];
    exports.extend(b"memory\x02\x00\x06_start\x00");
    leb(function, &mut exports);
    sections.insert(7, exports);
    let mut module = head.to_vec();
    // In the order of the format: tags stand behind memories, the count of data before the code.
    for id in [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11] {
        let Some(body) = sections.get(&id) else { continue };
        module.push(id);
        leb(body.len(), &mut module);
        module.extend(body);
    }
    Some(module)
}

/// Adds an entry to a section; its index there.
fn append(sections: &mut BTreeMap<u8, Vec<u8>>, id: u8, entry: &[u8]) -> usize {
    let old = sections.remove(&id).unwrap_or_else(|| vec![0]);
    let (count, entries) = number(&old);
    let mut body = Vec::new();
    leb(count + 1, &mut body);
    body.extend(entries);
    body.extend(entry);
    sections.insert(id, body);
    count
}

fn number(bytes: &[u8]) -> (usize, &[u8]) {
    let len = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let value = bytes[..len].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    (value, &bytes[len..])
}

fn leb(mut value: usize, to: &mut Vec<u8>) {
    while value > 0x7f {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Random expressions of floats, NaNs of any payload among them, whose bits go to standard output; then some growing of memory, and
/// perhaps a trap.
fn floats_have_one_result() {
    let jobs: Vec<_> =
        (0..MODULES as u64).map(|seed| job(wat::parse_str(expressions(&bytes(seed, 4096))).unwrap())).collect();
    let outcomes = compare(&jobs);
    assert!(outcomes.iter().all(|outcome| outcome.ending.is_deterministic()));
    let nan = |outcome: &&Outcome| {
        outcome.stdout.chunks(8).any(|bits| bits.try_into().is_ok_and(|bits| f64::from_le_bytes(bits).is_nan()))
    };
    assert!(outcomes.iter().filter(nan).count() > 50);
    assert!(outcomes.iter().filter(|outcome| matches!(outcome.ending, Ending::Trap(_))).count() > 10);
}

fn expressions(bytes: &[u8]) -> String {
    const UNARY: [&str; 5] = ["sqrt", "ceil", "nearest", "trunc", "floor"];
    const BINARY: [&str; 7] = ["add", "sub", "mul", "div", "min", "max", "copysign"];
    let mut bytes = bytes.iter().copied();
    let mut next = move || bytes.next().unwrap_or(0);
    let mut body = String::new();
    for place in 0..64 {
        let mut value = constant(&mut next);
        for _ in 0..next() % 8 {
            value = match next() % 4 {
                0 => format!("(f64.{} {value})", UNARY[usize::from(next()) % UNARY.len()]),
                1 => format!("(f64.promote_f32 (f32.demote_f64 {value}))"),
                2 => format!(
                    "(f64.{} {value} (f64.load (i32.const {})))",
                    BINARY[usize::from(next()) % 7],
                    next() % 64 * 8
                ),
                _ => format!("(f64.{} {value} {})", BINARY[usize::from(next()) % 7], constant(&mut next)),
            };
        }
        writeln!(body, "(f64.store (i32.const {}) {value})", place * 8).unwrap();
    }
    writeln!(body, "(i64.store (i32.const 0) (i64.extend_i32_u (memory.grow (i32.const {}))))", u32::from(next()) * 9)
        .unwrap();
    body += "(i32.store (i32.const 600) (i32.const 0)) (i32.store (i32.const 604) (i32.const 512))
        (drop (call $fd_write (i32.const 1) (i32.const 600) (i32.const 1) (i32.const 608)))";
    if next() % 8 == 0 {
        body += "(drop (i32.trunc_f64_s (f64.load (i32.const 8)))) (drop (i32.div_u (i32.const 1) (memory.grow (i32.const 0)))) unreachable";
    }
    let import = import("fd_write", "i32 i32 i32 i32");
    format!(r#"(module {import} (memory (export "memory") 1) (func (export "_start") {body}))"#)
}

fn constant(next: &mut impl FnMut() -> u8) -> String {
    match next() % 5 {
        0 => format!("(f64.const nan:0x{:x})", (u64::from(next()) << 44) | u64::from(next()) | 1),
        1 => format!("(f64.const -nan:0x{:x})", (u64::from(next()) << 40) | 1),
        2 => ["(f64.const inf)", "(f64.const -inf)", "(f64.const -0)", "(f64.const 0)"][usize::from(next()) % 4].into(),
        3 => format!("(f64.const 0x1.{:02x}p{})", next(), i32::from(next()) * 8 - 1020),
        _ => format!("(f64.const {}.{})", i32::from(next()) - 128, next()),
    }
}
