//! What a wire, a disk and a log may hold of a conversation: neither a word of it nor a key. Hosts on a LAN, all of whose packets are kept;
//! each name, text and file has canaries in it, and each secret is read from the node's own files and looked for in all usual spellings.
//! Packets are kept by Python's raw sockets, which only root on Linux may open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use chacha20poly1305::{KeyInit, XChaCha20Poly1305, aead::Aead as _};
use data_encoding::{BASE32, BASE64, BASE64URL, HEXLOWER};
use fog::keys::{Keys, PassphraseSource, sealing::SealKey};
use fog_base::Network;
use fog_testnet::{Process, until};
use serde_json::Value;

use super::{
    namespaces::{Host, Lan, process_in},
    support::{PATIENCE, not_tried, ok, one_network_at_a_time},
};

const HOSTS: usize = 6;
const SETTINGS: [&str; 2] = ["--name", "canary-7d21-own-name"];
const TEXT: &str = "canary-7d21-text";
const PASSWORD: &str = "canary-7d21-password";
const ROOM: &str = "#canary-7d21-room";
const GROUP: &str = "canary-7d21-group";
const CONTACT: &str = "canary-7d21-contact";
const FILE: &str = "canary-7d21-file";
const CONTENT: &str = "canary-7d21-content";
/// What all of them begin with.
const CANARY: &[u8] = b"canary-7d21";

/// Writes every frame that leaves a port of the bridge to a file; when it is told to end, says how many the kernel dropped.
const CAPTURE: &str = r#"
import os, socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)
s.settimeout(0.1)
out = open(sys.argv[1], 'wb', 0)
print('ready', flush=True)
while not os.path.exists(sys.argv[1] + '.end'):
    try:
        frame, (port, _, kind, *_) = s.recvfrom(1 << 17)
    except TimeoutError:
        continue
    if kind == 4 and port.startswith('p'):
        out.write(frame)
print('dropped', struct.unpack('II', s.getsockopt(263, 6, 8))[1], flush=True)
"#;

struct Capture {
    packets: PathBuf,
    log: PathBuf,
    process: Process,
}

impl Capture {
    fn start(lan: &Lan, dir: &Path) -> Result<Self, String> {
        let (packets, log) = (dir.join("packets"), dir.join("capture.log"));
        let file = packets.display().to_string();
        let process = process_in(&lan.bridge(), Path::new("python3"), &["-c", CAPTURE, &file], &log);
        let mut capture = Self { packets, log, process };
        let ready = until("a capture", Duration::from_secs(10), || capture.says("ready"));
        ready.map(|_| capture).map_err(|e| e.to_string())
    }

    fn says(&mut self, word: &str) -> Result<String, String> {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let rest = said.lines().find_map(|line| line.strip_prefix(word)).map(str::to_owned);
        rest.ok_or_else(|| format!("it runs: {}; it says {said:?}", self.process.is_running()))
    }

    /// All that was kept. Nothing was missed.
    fn end(mut self) -> Vec<u8> {
        fs::write(self.packets.with_extension("end"), "").expect("a file");
        let dropped = ok(until("the end of the capture", PATIENCE, || self.says("dropped ")));
        assert_eq!(dropped, "0", "frames were missed");
        fs::read(&self.packets).expect("the packets")
    }
}

/// Byte strings that are looked for all at once, by their first eight bytes.
#[derive(Default)]
struct Needles(BTreeMap<[u8; 8], Vec<(Vec<u8>, String)>>);

impl Needles {
    fn add(&mut self, bytes: &[u8], what: &str) {
        let first = *bytes.first_chunk().expect("eight bytes at least");
        self.0.entry(first).or_default().push((bytes.to_vec(), what.to_owned()));
    }

    /// `text` as it is and in other spellings; of base64 and base32 what does not depend on the bytes around it.
    fn add_all(&mut self, text: &[u8], what: &str) {
        self.add(text, what);
        let hex = HEXLOWER.encode(text);
        self.add(hex.as_bytes(), &format!("{what} in hex"));
        self.add(hex.to_uppercase().as_bytes(), &format!("{what} in upper-case hex"));
        for (encoding, bits, name) in [(BASE64, 6, "base64"), (BASE64URL, 6, "base64url"), (BASE32, 5, "base32")] {
            for before in 0..if bits == 6 { 3 } else { 5 } {
                let all = encoding.encode(&[&vec![0; before], text].concat());
                // Digits that hold bits of the text alone.
                let (from, to) = ((before * 8usize).div_ceil(bits), (before + text.len()) * 8 / bits);
                let digits = all.get(from..to).expect("digits");
                self.add(digits.as_bytes(), &format!("{what} in {name}"));
                if bits == 5 {
                    self.add(digits.to_lowercase().as_bytes(), &format!("{what} in lower-case {name}"));
                }
            }
        }
    }

    /// A secret: also one half of it is not to be found.
    fn add_secret(&mut self, secret: &[u8], what: &str) {
        assert_eq!(secret.len(), 32, "{what}");
        assert!(secret.iter().collect::<BTreeSet<_>>().len() > 8, "{what} is random");
        for (half, name) in secret.chunks(16).zip(["first", "second"]) {
            self.add_all(half, &format!("{name} half of {what}"));
        }
    }

    fn found_in(&self, bytes: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, window) in bytes.windows(8).enumerate() {
            let Some(candidates) = window.first_chunk().and_then(|first| self.0.get(first)) else { continue };
            for (needle, what) in candidates.iter().filter(|(needle, _)| bytes[at..].starts_with(needle)) {
                let around = &bytes[at.saturating_sub(100)..(at + needle.len() + 40).min(bytes.len())];
                found.insert(format!("{what}: {}", String::from_utf8_lossy(around).escape_debug()));
            }
        }
        found
    }

    /// What is in a directory, by file; `is_home` names files that hold a secret because they are made for it.
    fn found_under(&self, dir: &Path, is_home: &dyn Fn(&Path) -> bool) -> BTreeMap<PathBuf, BTreeSet<String>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                all.append(&mut self.found_under(&path, is_home));
            } else if !is_home(&path) {
                let found = self.found_in(&fs::read(&path).expect("a file"));
                if !found.is_empty() {
                    all.insert(path, found);
                }
            }
        }
        all
    }
}

/// The secrets of a node, read as the node reads them.
fn secrets(data_dir: &Path) -> Vec<(String, Vec<u8>)> {
    let keys = Keys::open(data_dir, &PassphraseSource::from_environment()).expect("the keys");
    let names = ["identity", "seal", "vrf", "slot", "storage"];
    let mut all: Vec<_> =
        names.map(String::from).into_iter().zip(keys.secrets().iter().map(|key| key.to_vec())).collect();
    let sealed = fs::read(data_dir.join("chat.key")).expect("chat's key");
    let chat = SealKey::new(keys.storage().clone()).open(b"fog chat.key v1", &sealed).expect("chat's key");
    all.push(("chat".into(), chat.to_vec()));
    // As fog-mix's `keystore.rs` has them.
    for entry in fs::read_dir(data_dir.join("mixkeys")).expect("mix keys").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(epoch) = name.strip_suffix(".key").and_then(|epoch| epoch.parse::<u32>().ok()) else { continue };
        let bytes = fs::read(entry.path()).expect("a mix key");
        let (nonce, sealed) = bytes[24..].split_first_chunk::<24>().expect("a nonce");
        let payload = chacha20poly1305::aead::Payload { msg: sealed, aad: &epoch.to_be_bytes() };
        let cipher = XChaCha20Poly1305::new((&**keys.storage()).into());
        all.push((format!("mix {epoch}"), cipher.decrypt(nonce.into(), payload).expect("a mix key")));
    }
    assert!(all.len() >= 7, "{} keys in {}", all.len(), data_dir.display());
    all
}

fn chat(host: &Host, args: &[&str]) -> Value {
    host.run(&[&["chat"], args].concat()).json()
}

fn wait_for(host: &Host, to: &str, text: &str) -> String {
    ok(until(&format!("{text} in {to}"), PATIENCE, || {
        let ended = host.run(&["chat", "history", to]);
        if ended.code != Some(0) {
            return Err(ended.stderr);
        }
        let line =
            ended.json_lines().into_iter().find(|line| line["text"].as_str().is_some_and(|own| own.contains(text)));
        line.and_then(|line| line["id"].as_str().map(str::to_owned)).ok_or(ended.stdout)
    }))
}

/// A room, a group, direct messages on all ways, and a file.
fn converse(hosts: &[Host], dir: &Path) {
    let invite = |host: &Host| host.run(&["id"]).json()["invite"].as_str().expect("an invite").to_owned();
    let text = |what: &str| format!("{TEXT} {what} {TEXT}");
    let (ada, bob, eve) = (&hosts[0], &hosts[1], &hosts[2]);
    for (index, host) in [ada, bob, eve].into_iter().enumerate() {
        chat(host, &["join", ROOM, "--password", PASSWORD]);
        for (other, peer) in [ada, bob, eve].into_iter().enumerate().filter(|(other, _)| *other != index) {
            chat(host, &["contact", "add", &invite(peer), "--name", &format!("{CONTACT}-{other}")]);
        }
    }
    chat(ada, &["send", ROOM, &text("room")]);
    [bob, eve].into_iter().for_each(|host| drop(wait_for(host, ROOM, "room")));
    let group = format!("&{GROUP}");
    chat(ada, &["group", "create", GROUP]);
    for other in [1, 2] {
        chat(ada, &["group", "invite", &group, &format!("{CONTACT}-{other}")]);
    }
    chat(ada, &["send", &group, &text("group")]);
    let (to_ada, to_bob) = (format!("@{CONTACT}-0"), format!("@{CONTACT}-1"));
    for (from, to, via) in
        [(ada, &to_bob, "auto"), (bob, &to_ada, "direct"), (ada, &to_bob, "mix"), (bob, &to_ada, "mix")]
    {
        let sent = chat(from, &["send", to, &text(via), "--via", via, "--wait"]);
        assert!(matches!(sent["state"].as_str(), Some("delivered" | "read")), "{sent}");
    }
    let file = dir.join(FILE);
    fs::write(&file, CONTENT.repeat(20_000)).expect("a file");
    let offered = bob.run(&["chat", "file", "send", ROOM, &file.display().to_string()]);
    assert_eq!(offered.code, Some(0), "{offered:?}");
    let id = wait_for(eve, ROOM, FILE);
    let out = dir.join("out");
    fs::create_dir(&out).expect("a directory");
    let fetched = eve.run(&["chat", "file", "get", &id, "--out", &out.display().to_string()]);
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    // Eve comes to all that is in the group by its members.
    wait_for(bob, &group, "group");
}

#[test]
fn wire_disk_and_logs_hold_no_word_of_a_conversation_and_no_key() {
    let what = "a capture of chat on a LAN";
    let _alone = one_network_at_a_time();
    let lan = match Lan::new(HOSTS, |host| vec![format!("10.99.0.{host}/24")]) {
        Ok(lan) => lan,
        Err(why) => return not_tried(what, &why),
    };
    let scratch = tempfile::tempdir().expect("a directory");
    let capture = match Capture::start(&lan, scratch.path()) {
        Ok(capture) => capture,
        Err(why) => return not_tried(what, &why),
    };
    let nodes = scratch.path().join("nodes");
    fs::create_dir(&nodes).expect("a directory");
    let settings = [&SETTINGS[..], &["--log-level", "debug"]].concat();
    let start = |host| Host::start(lan.host(host), nodes.join(format!("host-{host}")), &settings);
    let hosts: Vec<_> = (0..HOSTS).map(start).collect();
    let met = until("six hosts that know each other and a mixnet", PATIENCE, || {
        hosts.iter().try_for_each(|host| {
            let status = host.status()?;
            let is_met = status["peers"]["connected"] == HOSTS - 1 && status["mix"]["ready"] == true;
            is_met.then_some(()).ok_or_else(|| status.to_string())
        })
    });
    ok(met);
    converse(&hosts, scratch.path());
    let ids: Vec<_> =
        hosts.iter().map(|host| host.run(&["id"]).json()["peer_id"].as_str().expect("an id").to_owned()).collect();
    // What was only queued for the disk is there.
    thread::sleep(Duration::from_millis(500));
    let data_dirs: Vec<_> = hosts.iter().map(|host| host.data_dir.clone()).collect();
    drop(hosts);
    let packets = capture.end();

    let mut needles = Needles::default();
    needles.add_all(CANARY, "a canary");
    let room = fog_chat::core::secrets::Room::with_password(&Network::lan().id, ROOM, PASSWORD).expect("a room");
    needles.add_secret(room.key().expect("a key").expose(), "the room's key");
    let mut count = 1;
    for (host, data_dir) in data_dirs.iter().enumerate() {
        for (name, secret) in secrets(data_dir) {
            needles.add_secret(&secret, &format!("key `{name}` of host {host}"));
            count += 1;
        }
    }
    // That this would find something: the ids, which are no secret, are on the wire (in mDNS) and on the disk.
    let mut control = Needles::default();
    ids.iter().for_each(|id| control.add(id.as_bytes(), id));
    let on_the_wire = control.found_in(&packets);
    assert!(ids.iter().all(|id| on_the_wire.iter().any(|found| found.starts_with(id))), "what is on the wire is found");
    assert!(control.found_under(&nodes, &|_| false).len() >= HOSTS, "what is on the disk is found");

    eprintln!("chat on the wire: {} bytes of packets, {count} keys", packets.len());
    assert_eq!(needles.found_in(&packets), BTreeSet::new(), "on the wire");
    let is_home = |path: &Path| path.parent().is_some_and(|dir| dir.ends_with("keys"));
    assert_eq!(needles.found_under(&nodes, &is_home), BTreeMap::new(), "on the disk or in a log");
}
