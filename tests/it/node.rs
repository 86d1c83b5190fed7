//! One node: its keys, its directory, its life.

use std::{
    fs,
    io::Write,
    net::{TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fog_testnet::until;
use rand::{RngExt as _, SeedableRng};

use super::support::{Alone, PATIENCE, fog, ok, run, run_in};

#[test]
fn a_node_keeps_its_identity_over_restarts_and_its_files_are_private() {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path().join("data");
    let first = Alone::start_in(&dir);
    let id = first.run(&["--json", "id"]).json()["peer_id"].clone();
    assert!(id.as_str().is_some_and(|id| id.starts_with("12D3Koo")), "{id}");
    assert_eq!(first.node_file()["peer_id"], id);
    assert_eq!(first.node_file()["pid"], first.process.pid());
    #[cfg(unix)]
    for (path, mode) in [("node.json", 0o600), ("keys", 0o700)] {
        assert_eq!(mode_of(&dir.join(path)), mode, "{path}");
    }
    drop(first); // killed
    let offline = run_in(&dir, &["--json", "id"]).json();
    assert_eq!(offline["peer_id"], id, "`fog id` works without a running node");
    assert!(offline["invite"].as_str().is_some_and(|invite| invite.starts_with("fog1")), "{offline}");
    let again = Alone::start_in(&dir);
    assert_eq!(again.node_file()["peer_id"], id);
}

#[cfg(unix)]
fn mode_of(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o777
}

#[cfg(unix)]
#[test]
fn key_files_that_others_may_read_are_refused_with_the_command_that_helps() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path().join("data");
    drop(Alone::start_in(&dir));
    let key = fs::read_dir(dir.join("keys")).expect("keys").flatten().next().expect("a key").path();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
    run_in(&dir, &["run", "--no-mdns"]).refused(1).says("chmod").says(&key.display().to_string());
}

#[test]
fn a_damaged_or_missing_key_is_an_error_and_nothing_is_made_in_its_place() {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path().join("data");
    drop(Alone::start_in(&dir));
    let key = dir.join("keys/identity.key");
    let mut damaged = fs::read(&key).expect("the key");
    *damaged.last_mut().expect("a byte") ^= 1;
    fs::write(&key, &damaged).expect("written");
    run_in(&dir, &["run", "--no-mdns"]).refused(1).says("identity.key");
    assert_eq!(fs::read(&key).expect("the key"), damaged);
    fs::remove_file(&key).expect("removed");
    run_in(&dir, &["run", "--no-mdns"]).refused(1).says("identity");
    assert!(!key.exists(), "a new identity was made");
}

#[test]
fn a_second_process_is_told_which_process_has_the_directory() {
    let node = Alone::start();
    let pid = node.process.pid().to_string();
    run_in(&node.dir, &["run", "--no-mdns"]).refused(1).says(&pid);
    ok(node.client().status());
}

#[cfg(unix)]
#[test]
fn asked_to_end_a_node_ends_with_0_within_five_seconds_and_removes_node_json() {
    for signal in ["TERM", "INT"] {
        let scratch = tempfile::tempdir().expect("a directory");
        let dir = scratch.path().join("data");
        let mut child = Command::new(fog())
            .args([
                "--data-dir",
                &dir.display().to_string(),
                "--json",
                "run",
                "--no-mdns",
                "--listen",
                "/ip4/127.0.0.1/tcp/0",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program");
        ok(until("node.json", PATIENCE, || dir.join("node.json").exists().then_some(()).ok_or_else(String::new)));
        let asked = Instant::now();
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().expect("kill");
        assert!(kill.success());
        let ended = until("the end", PATIENCE, || child.try_wait().map_err(|e| e.to_string())?.ok_or_else(String::new));
        assert_eq!(ok(ended).code(), Some(0), "SIG{signal}");
        assert!(asked.elapsed() < Duration::from_secs(5), "SIG{signal}: {:?}", asked.elapsed());
        assert!(!dir.join("node.json").exists());
        let mut told = String::new();
        std::io::Read::read_to_string(&mut child.stdout.take().expect("piped"), &mut told).expect("read");
        let events: Vec<serde_json::Value> =
            told.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
        assert!(events.iter().any(|event| event["event"] == "listening"), "{told}");
        assert_eq!(events.last().map(|event| event["event"].clone()), Some("stopping".into()), "{told}");
    }
}

#[test]
fn what_cannot_be_reached_is_said_in_one_line() {
    let node = Alone::start();
    let stranger = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    let bad = node.run(&["connect", "not-an-address"]);
    assert!(matches!(bad.code, Some(1 | 2)), "{bad:?}");
    assert!(bad.stderr.contains("not-an-address"), "{bad:?}");
    let port = fog_testnet::free_port().expect("a port");
    let closed = node.run(&["--timeout", "10", "connect", &format!("/ip4/127.0.0.1/tcp/{port}/p2p/{stranger}")]);
    assert!(matches!(closed.code, Some(1 | 4)), "{closed:?}");
    closed.refused(closed.code.unwrap_or_default());
    // Alone there is no path, and a path is never made shorter than it was asked to be.
    node.run(&["mix", "send", stranger, "hello"]).refused(1).says("relay");
    let nobody = node.run(&["mix", "send", "nobody-i-know", "hello"]);
    assert!(matches!(nobody.code, Some(1 | 2)), "{nobody:?}");
}

#[test]
fn garbage_at_every_port_leaves_a_node_as_it_was() {
    let node = Alone::start();
    let memory = node.process.usage().expect("running").memory_bytes;
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut garbage = vec![0u8; 64 * 1024];
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for round in 0..100usize {
        random.fill(garbage.as_mut_slice());
        if round % 3 == 0 {
            // A valid beginning, then garbage.
            garbage[..20].copy_from_slice(b"\x13/multistream/1.0.0\n");
        }
        let mut tcp = TcpStream::connect(("127.0.0.1", node.port)).expect("it listens");
        // The node may close at any moment; that is its right.
        let _ = tcp.write_all(&garbage[..1 + round * 600]);
        let _ = udp.send_to(&garbage[..1 + round * 12], ("127.0.0.1", node.port));
    }
    let status = ok(node.client().status());
    assert_eq!(status.state, "joining");
    let grown = node.process.usage().expect("running").memory_bytes.saturating_sub(memory);
    assert!(grown < 32 << 20, "it grew by {} MiB", grown >> 20);
    let other = Alone::start();
    let address = format!("/ip4/127.0.0.1/tcp/{}", node.port);
    let connected = other.run(&["--json", "connect", &address]).json();
    assert_eq!(connected["peer_id"], node.node_file()["peer_id"], "it still takes a connection");
}

#[test]
fn a_backup_restores_the_identity_elsewhere_and_only_with_its_passphrase() {
    let node = Alone::start();
    let scratch = tempfile::tempdir().expect("a directory");
    let file = |name: &str| scratch.path().join(name);
    let passphrase = |text: &str| {
        let path = file("passphrase");
        fs::write(&path, text).expect("written");
        path
    };
    let run = |data_dir: &Path, passphrase: &Path, args: &[&str]| {
        let mut command = Command::new(fog());
        command.arg("--data-dir").arg(data_dir).arg("--json").args(args).env("FOG_PASSPHRASE_FILE", passphrase);
        super::support::run(&mut command)
    };
    let backup = file("backup").display().to_string();
    let right = passphrase("correct horse battery");
    let service = ["--json", "service", "add", "--target", "127.0.0.1:9", "--name", "web"];
    let address = node.run(&service).json()["address"].clone();
    let other = Alone::start();
    let invite = other.run(&["--json", "id"]).json()["invite"].as_str().expect("an invite").to_owned();
    node.run(&["--json", "chat", "contact", "add", &invite, "--name", "ana"]).json();
    node.run(&["--json", "chat", "contact", "verify", "ana", "--yes"]).json();
    node.run(&["--json", "chat", "join", "#harbour"]).json();
    let contacts = node.run(&["--json", "chat", "contact", "list"]).json();
    let made = run(&node.dir, &right, &["backup", &backup]).json();
    assert_eq!(made["bytes"].as_u64(), fs::metadata(&backup).ok().map(|file| file.len()), "{made}");
    run(&node.dir, &right, &["backup", &backup]).refused(1).says("exists");
    let contents = fs::read(&backup).expect("the backup");
    let token = node.node_file()["peer_id"].as_str().expect("an id").to_owned();
    assert!(!contents.windows(token.len()).any(|part| part == token.as_bytes()), "it tells whose it is");

    let elsewhere = file("elsewhere");
    run(&elsewhere, &passphrase("another passphrase"), &["restore", &backup]).refused(1);
    assert!(!elsewhere.join("keys").exists());
    let right = passphrase("correct horse battery");
    run(&elsewhere, &right, &["restore", &backup]).json();
    assert_eq!(run(&elsewhere, &right, &["id"]).json()["peer_id"], node.node_file()["peer_id"]);
    run(&elsewhere, &right, &["restore", &backup]).refused(1).says("keys");
    let restored = Alone::start_with(&elsewhere, &[format!("FOG_PASSPHRASE_FILE={}", right.display())]);
    let services = restored.run(&["--json", "service", "list"]).json();
    assert_eq!((&services[0]["address"], &services[0]["name"]), (&address, &"web".into()), "{services}");
    assert_eq!(
        (&restored.run(&["--json", "chat", "contact", "list"]).json(), contacts[0]["name"].as_str()),
        (&contacts, Some("ana"))
    );
    let rooms = restored.run(&["--json", "chat", "conversations"]).json().to_string();
    assert!(rooms.contains("#harbour"), "{rooms}");
}

/// What was asked for is never replaced by something else, and every backend serves a node.
#[test]
fn the_x25519_backend_can_be_forced_and_must_exist() {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path().join("data");
    drop(Alone::start_in(&dir));
    let forced = |name: &str, args: &[&str]| {
        run(Command::new("env").arg(format!("FOG_X25519={name}")).arg(fog()).arg("--data-dir").arg(&dir).args(args))
    };
    forced("abacus", &["run", "--no-mdns"]).refused(1).says("FOG_X25519=abacus").says("dalek");
    let ended = forced("dalek", &["--json", "doctor"]);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&ended.stdout).expect("JSON");
    let processor = checks.iter().find(|check| check["check"] == "processor");
    assert!(processor.is_some_and(|check| check["detail"].to_string().contains("dalek")), "{checks:?}");
    // A running node is asked, whatever the environment of the question.
    let node = Alone::start_in(&dir);
    assert_ne!(node.run(&["--json", "status"]).json()["x25519"], "");
    let ended = forced("abacus", &["--json", "doctor"]);
    assert!(!ended.stdout.contains("abacus"), "{ended:?}");
}

#[test]
fn the_doctor_names_a_fix_for_whatever_is_wrong() {
    let node = Alone::start();
    let checks = |ended: &super::support::Ended| -> Vec<serde_json::Value> {
        serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
    };
    let healthy = checks(&node.run(&["--json", "doctor"]));
    assert!(healthy.len() >= 6, "{healthy:?}");
    for check in &healthy {
        let fixed = check["ok"] == true || check["fix"].as_str().is_some_and(|fix| !fix.is_empty());
        assert!(fixed && check["detail"].is_string() && check["check"].is_string(), "{check}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let key = node.dir.join("keys/identity.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
        let ended = node.run(&["--json", "doctor"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let found = checks(&ended);
        let wrong = found.iter().find(|check| check["ok"] == false && check["check"] == "keys");
        assert!(wrong.is_some_and(|check| check["fix"].to_string().contains("chmod")), "{found:?}");
    }
}
