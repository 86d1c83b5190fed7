//! The command line without a running node: usage, configuration, files.

use std::{fs, path::Path};

use super::support::{Ended, run_in};

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn in_new_dir(args: &[&str]) -> Ended {
    run_in(&scratch().path().join("data"), args)
}

#[test]
fn an_unknown_flag_or_command_is_wrong_usage() {
    for args in [["run", "--no-such-flag"].as_slice(), &["frobnicate"], &["mix", "send"], &["run", "--cover", "thick"]]
    {
        let ended = in_new_dir(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{args:?}");
    }
}

#[test]
fn commands_that_need_a_node_say_that_none_is_running() {
    let commands = [
        ["status"].as_slice(),
        &["peers"],
        &["connect", "/ip4/127.0.0.1/tcp/1"],
        &["relays"],
        &["relays", "snapshot"],
        &["mix", "recv"],
        &["mix", "ping", "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"],
        &["mix", "send", "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp", "hello"],
    ];
    for args in commands {
        in_new_dir(args).refused(3).says("fog run");
    }
}

#[test]
fn an_unknown_key_in_the_file_is_named_with_the_file() {
    let dir = scratch();
    let file = dir.path().join("my.toml");
    fs::write(&file, "colour = \"grey\"\n").expect("written");
    let ended = run_in(&dir.path().join("data"), &["--config", &file.display().to_string(), "run"]);
    assert!(matches!(ended.code, Some(1 | 2)), "{ended:?}");
    ended.says("colour").says("my.toml");
}

#[test]
fn a_bad_value_names_the_key_and_what_it_takes() {
    let dir = scratch();
    let file = dir.path().join("my.toml");
    fs::write(&file, "[limits]\nconnections = \"many\"\n").expect("written");
    let ended = run_in(&dir.path().join("data"), &["--config", &file.display().to_string(), "run"]);
    assert!(matches!(ended.code, Some(1 | 2)), "{ended:?}");
    ended.says("connections").says("a number from 1");
}

#[test]
fn a_network_file_is_created_once_and_a_changed_one_is_refused() {
    let dir = scratch();
    let (data, file) = (dir.path().join("data"), dir.path().join("net.json"));
    let path = file.display().to_string();
    let create = ["--json", "network", "create", &path, "--epoch-seconds", "60", "--mean-delay-ms", "20"];
    let created = run_in(&data, &create).json();
    assert_eq!(created["id"].as_str().map(str::len), Some(64), "{created}");
    run_in(&data, &create).refused(1).says("net.json");
    let text = fs::read_to_string(&file).expect("the file");
    fs::write(&file, text.replace("60", "61")).expect("written");
    run_in(&data, &["run", "--network", &path]).refused(1).says("signature");
}

#[test]
fn parameters_that_do_not_fit_make_no_network() {
    let dir = scratch();
    let file = dir.path().join("net.json").display().to_string();
    let ended = run_in(dir.path(), &["network", "create", &file, "--epoch-seconds", "60", "--mean-delay-ms", "5000"]);
    assert!(matches!(ended.code, Some(1 | 2)), "{ended:?}");
    ended.says("mean delay");
    assert!(!Path::new(&file).exists());
}

#[test]
fn a_missing_network_file_is_named() {
    let ended = in_new_dir(&["run", "--network", "/nowhere/net.json"]);
    ended.refused(1).says("/nowhere/net.json");
}

#[test]
fn faults_are_refused_in_lan_mode() {
    let dir = scratch();
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("created");
    fs::write(data.join("fog.toml"), "[faults]\nloss = 0.5\n").expect("written");
    run_in(&data, &["run", "--no-mdns"]).refused(1).says("faults");
}

#[test]
fn an_api_that_others_could_reach_is_refused() {
    let ended = in_new_dir(&["run", "--no-mdns", "--api", "0.0.0.0:0"]);
    assert!(matches!(ended.code, Some(1 | 2)), "{ended:?}");
    ended.says("loopback");
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = in_new_dir(&["completions", shell]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("snapshot"), "{shell}: no word of `relays snapshot`");
    }
}

#[test]
fn a_pipe_that_closes_is_no_error() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(super::support::fog())
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked") && !said.contains("error"), "{said}");
}

#[test]
fn a_network_whose_stakes_no_node_can_add_is_not_created() {
    let dir = scratch();
    let file = dir.path().join("net.json");
    let [one, other] = [
        "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp",
        "12D3KooWHjJ5MnW1y8QahpMMA41cEDBszQQdXbVtd98U3PX2ufYF",
    ]
    .map(|peer| format!("{peer}={}", u64::MAX));
    let shown = file.display().to_string();
    let ended = run_in(&dir.path().join("data"), &["network", "create", &shown, "--relay", &one, &other]);
    ended.refused(2).says("64 bits").says("smaller");
    assert!(!file.exists());
    assert_eq!(run_in(&dir.path().join("data"), &["network", "create", &shown, "--relay", &one]).code, Some(0));
}
