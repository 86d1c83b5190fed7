//! How long things may be (DESIGN §2).

use super::source::{lines_of_code, sources};

const FILE: usize = 500;
const FUNCTION: usize = 70;
const BEHAVIOUR: usize = 250;
const EVENT_LOOP: usize = 150;

#[test]
fn no_file_has_more_than_500_lines_of_code() {
    let long: Vec<_> = sources()
        .iter()
        .map(|source| (lines_of_code(&source.product), source.path.clone()))
        .filter(|(lines, _)| *lines > FILE)
        .collect();
    assert!(long.is_empty(), "lines of code over {FILE}: {long:#?}");
}

#[test]
fn no_function_has_more_than_70_lines() {
    let mut long = Vec::new();
    for source in sources() {
        for function in source.functions() {
            if function.lines > FUNCTION {
                long.push(format!("{}: fn {} has {}", source.path, function.name, function.lines));
            }
        }
    }
    assert!(long.is_empty(), "lines over {FUNCTION}: {long:#?}");
}

#[test]
fn behaviours_and_the_event_loop_hold_no_logic() {
    let mut long = Vec::new();
    for source in sources() {
        let budget = match source.path.rsplit('/').next() {
            Some("behaviour.rs") => BEHAVIOUR,
            Some("event_loop.rs") => EVENT_LOOP,
            _ => continue,
        };
        let lines = lines_of_code(&source.product);
        if lines > budget {
            long.push(format!("{}: {lines} lines, at most {budget}", source.path));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}
