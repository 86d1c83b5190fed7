//! The terminal interface on a pseudo-terminal, which Python opens, with a node that runs.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use fog_testnet::until;

use super::support::{Alone, PATIENCE, fog, ok};

/// Runs a program on a terminal of 130 × 40, with this one's input and output.
const TERMINAL: &str = r#"
import os, pty, sys
shell = ['/bin/sh', '-c', 'stty rows 40 cols 130; exec "$@"', 'sh']
sys.exit(os.waitstatus_to_exitcode(pty.spawn(shell + sys.argv[1:])))
"#;

struct Terminal {
    process: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn open(node: &Alone) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", TERMINAL]).arg(fog()).arg("--data-dir").arg(&node.dir).arg("chat");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FOG_")) {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3");
        let keys = process.stdin.take().expect("piped");
        let mut output = process.stdout.take().expect("piped");
        let shown = Arc::new(Mutex::new(String::new()));
        let screen = Arc::clone(&shown);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                screen.lock().expect("the screen").push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { process, keys, shown }
    }

    fn enter(&mut self, line: &str) {
        self.keys.write_all(format!("{line}\r").as_bytes()).expect("a key");
    }

    /// Waits until a word was drawn since the last time. A word: cells that stay as they are are not drawn again.
    #[track_caller]
    fn shows(&self, word: &str) {
        ok(until(&format!("{word} on the screen"), PATIENCE, || {
            let mut shown = self.shown.lock().expect("the screen");
            let at = shown.find(word).ok_or_else(|| format!("it shows {shown:?}"))?;
            shown.drain(..at + word.len());
            Ok(())
        }));
    }

    fn ends(&mut self) -> Option<i32> {
        let ended = until("the end of the interface", PATIENCE, || {
            self.process.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| "it runs".to_owned())
        });
        ok(ended).code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = self.process.kill();
    }
}

#[test]
fn people_talk_from_a_terminal_and_a_mistake_costs_nothing() {
    let (node, other) = (Alone::start(), Alone::start());
    let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", node.port, node.client().peer_id());
    other.run(&["--json", "connect", &address]).json();
    other.run(&["--json", "chat", "join", "#lobby"]).json();
    let mut terminal = Terminal::open(&node);
    terminal.shows("#lobby");

    other.run(&["--json", "chat", "send", "#lobby", "word-of-the-other"]).json();
    terminal.shows("word-of-the-other");
    terminal.enter("word-of-ours");
    ok(until("what was typed", PATIENCE, || {
        let lines = other.client().chat_history("#lobby").map_err(|e| e.to_string())?;
        let has_it = lines.iter().any(|line| line.text == "word-of-ours");
        has_it.then_some(()).ok_or_else(|| format!("{lines:?}"))
    }));

    terminal.enter("/jion #x");
    terminal.shows("/jion:");
    // The line stays, to be mended: it is cleared by Ctrl-U.
    terminal.enter("\u{15}/doctor");
    terminal.shows("processor:");
    terminal.enter("/ping @nobody-of-this-name");
    terminal.shows("`nobody-of-this-name`");

    let file = node.dir.with_extension("txt");
    terminal.enter(&format!("/export '{}'", file.display()));
    terminal.shows("plain");
    let written = fs::read_to_string(&file).expect("the export");
    assert!(written.contains("word-of-ours") && written.contains("word-of-the-other"), "{written}");
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    terminal.enter(&format!("/export '{}'", file.display()));
    terminal.shows("cannot");
    assert_eq!(fs::read_to_string(&file).expect("the export"), written, "nothing is overwritten");

    terminal.enter("/quit");
    assert_eq!(terminal.ends(), Some(0));
}
