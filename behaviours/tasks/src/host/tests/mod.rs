//! Synthetic hosts: a directory with the files that the probes look for.

mod garbage_tests;
mod hosts_tests;
mod input_tests;

use std::{
    fs::{self, FileTimes},
    path::Path,
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use fog_base::{Now, UnixMillis};
use tempfile::TempDir;

use super::{Host, OwnProcesses};
use crate::core::harvest::*;

/// A directory that looks like a host's root.
pub(super) struct Tree(TempDir);

impl Tree {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(TempDir::new().expect("a directory"));
        files.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    /// With `/proc` as every host has it, four processors and eight GB.
    pub(super) fn host(files: &[(&str, &str)]) -> Self {
        let tree = Self::new(&[
            ("proc/meminfo", "MemTotal:        8000000 kB\nMemFree:          500000 kB\nMemAvailable:    6000000 kB\n"),
            ("proc/loadavg", "0.42 0.30 0.20 1/234 5678\n"),
            (
                "proc/pressure/cpu",
                "some avg10=1.50 avg60=1.00 avg300=0.50 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            ),
            (
                "proc/pressure/memory",
                "some avg10=0.25 avg60=0.00 avg300=0.00 total=1\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n",
            ),
            ("proc/pressure/io", "some avg10=3.00 avg60=0.00 avg300=0.00 total=1\n"),
        ]);
        tree.stat(0, 0);
        files.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    /// A laptop whose line delivers or not, with a keyboard that has spoken `keys` times.
    pub(super) fn laptop(online: bool, status: &str) -> Self {
        let tree = Self::host(&[
            ("sys/class/power_supply/AC/type", "Mains\n"),
            ("sys/class/power_supply/AC/online", if online { "1\n" } else { "0\n" }),
            ("sys/class/power_supply/BAT0/type", "Battery\n"),
            ("sys/class/power_supply/BAT0/present", "1\n"),
            ("sys/class/power_supply/BAT0/capacity", "77\n"),
            ("sys/class/power_supply/BAT0/temp", "315\n"),
            ("sys/class/power_supply/BAT0/status", status),
            ("sys/class/power_supply/hidpp_battery_0/type", "Battery\n"),
            ("sys/class/power_supply/hidpp_battery_0/scope", "Device\n"),
            ("sys/class/power_supply/hidpp_battery_0/status", "Discharging\n"),
            ("sys/class/power_supply/hidpp_battery_0/capacity", "3\n"),
            ("sys/class/thermal/thermal_zone0/type", "acpitz\n"),
            ("sys/class/thermal/thermal_zone0/temp", "45000\n"),
            ("sys/class/thermal/thermal_zone1/type", "x86_pkg_temp\n"),
            ("sys/class/thermal/thermal_zone1/temp", "52000\n"),
        ]);
        tree.keys(100);
        tree
    }

    pub(super) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a file's directory")).expect("made");
        fs::write(path, text).expect("written");
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// `/proc/stat` of four processors after so many busy and idle ticks.
    pub(super) fn stat(&self, busy: u64, idle: u64) {
        let cpu = "cpu0 1 1 1 1\ncpu1 1 1 1 1\ncpu2 1 1 1 1\ncpu3 1 1 1 1\n";
        self.write("proc/stat", format!("cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n{cpu}intr 1 2 3\nctxt 1\n"));
    }

    /// How often the laptop's keyboard has spoken.
    pub(super) fn keys(&self, count: u64) {
        let table = format!(
            "            CPU0       CPU1\n   0:  12 0 IO-APIC   2-edge      timer\n   1:  {count} 0 IO-APIC   1-edge      i8042\n  \
             NMI:  0 0   Non-maskable interrupts\n"
        );
        self.write("proc/interrupts", table);
    }

    /// When something was read last.
    pub(super) fn accessed(&self, path: &str, at: UnixMillis) {
        self.write(path, "");
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at.0);
        let file = fs::File::options().write(true).open(self.path().join(path)).expect("opened");
        file.set_times(FileTimes::new().set_accessed(at)).expect("set");
    }

    pub(super) fn open(&self) -> Host {
        Host::new(self.path(), self.path(), start())
    }
}

/// The same at each call: 2026-01-15, a Thursday, 08:00 UTC.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]
pub(super) fn start() -> Now {
    static START: LazyLock<Instant> = LazyLock::new(|| Instant::now() + Duration::from_secs(86_400));
    Now { mono: *START, unix: UnixMillis(1_768_464_000_000) }
}

pub(super) fn is_absent<T>(probe: &Probe<T>) -> bool {
    matches!(probe, Err(Unknown::Absent(_)))
}

pub(super) fn is_unseen<T>(probe: &Probe<T>) -> bool {
    matches!(probe, Err(Unknown::Unseen(_)))
}

/// `cargo test -p fog-tasks --features host this_machine -- --nocapture` prints it.
#[test]
#[expect(clippy::disallowed_methods, reason = "a real host has a real clock")]
fn this_machine_says_what_it_knows() {
    let now = || {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        Now { mono: Instant::now(), unix: UnixMillis(unix.as_millis() as u64) }
    };
    let root = Path::new("/");
    let (mut host, mut own) = (Host::new(root, root, now()), OwnProcesses::new(root));
    let mut policy = Policy::new(Preferences::default());
    host.sample(now());
    own.sample(std::process::id(), &[], now());
    let (mut signals, mut sampled) = (host.sample(now()), Duration::ZERO);
    // How busy it is, a host says of the time between two samples, in hundredths of a second: some pass here.
    let begin = Instant::now();
    while signals.cpu.is_err() && begin.elapsed() < Duration::from_secs(5) {
        let begin = Instant::now();
        signals = host.sample(now());
        sampled = begin.elapsed();
    }
    let load = own.sample(std::process::id(), &[], now());
    let begin = Instant::now();
    let input = host.input(now());
    println!("a sample takes {sampled:?}, input alone {:?}", begin.elapsed());
    println!("{signals:#?}\n{load:?}\n{input:?}");
    println!("{:?}", policy.handle_signals(signals.clone(), load, now()));
    println!("{:#?}", policy.status());
    if cfg!(target_os = "linux") {
        assert!(signals.memory.is_ok_and(|memory| memory.available <= memory.total));
        assert!(signals.disk_free.is_ok());
        assert!(load.cpus >= 0.0);
    }
    assert_eq!(policy.is_eligible(), policy.reasons().is_empty());
}
