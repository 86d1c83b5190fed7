//! Task processes, as a node has them: what they give, what they survive, and what becomes of their runs when they do not.
//!
//! The processes are this very program, so it brings its own `main`, which knows as much of the usual one's command line as
//! `cargo test` and `cargo nextest` need.

#![cfg_attr(not(feature = "sandbox"), allow(dead_code))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

#[cfg(all(feature = "sandbox", target_os = "linux"))]
#[path = "common/mod.rs"]
mod common;
#[cfg(all(feature = "sandbox", target_os = "linux"))]
mod pool {
    pub(crate) mod determinism;
    pub(crate) mod lives;
    pub(crate) mod support;
    pub(crate) mod zoo;
}

#[cfg(not(all(feature = "sandbox", target_os = "linux")))]
fn main() {}

#[cfg(all(feature = "sandbox", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = args.first().and_then(|role| pool::support::play(role)) {
        return code;
    }
    let mut tests: Vec<(&str, fn())> = Vec::new();
    tests.extend(pool::zoo::TESTS);
    tests.extend(pool::lives::TESTS);
    tests.extend(pool::determinism::TESTS);
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let names: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-') && *arg != "terse").collect();
    tests.retain(|(name, _)| {
        names.is_empty()
            || names.iter().any(|asked| if has("--exact") { *asked == name } else { name.contains(*asked) })
    });
    // None is ignored.
    if has("--ignored") {
        tests.clear();
    }
    if has("--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return std::process::ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, test) in &tests {
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    println!("\ntest result: {} passed; {failed} failed", tests.len() - failed);
    if failed == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
