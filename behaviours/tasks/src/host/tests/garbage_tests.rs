//! Files that say nothing sensible.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// A laptop with everything.
fn everything() -> Tree {
    let tree = Tree::laptop(true, "Full\n");
    for (path, text) in [
        ("proc/self/cgroup", "0::/a\n4:memory:/x\n"),
        ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/a/memory.max", "8000000000\n"),
        ("sys/fs/cgroup/a/memory.current", "1000\n"),
        ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "8000000000"),
        ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1000"),
        ("sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "5"),
        ("sys/class/thermal/thermal_zone0/trip_point_0_type", "hot\n"),
        ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "95000\n"),
        ("sys/bus/usb/devices/1-2:1.0/bInterfaceClass", "03\n"),
        ("sys/bus/usb/devices/1-2:1.0/bInterfaceProtocol", "01\n"),
        ("sys/bus/usb/devices/1-2/urbnum", "7\n"),
        ("sys/kernel/irq/1/per_cpu_count", "1,2\n"),
        ("run/systemd/sessions/2", "ACTIVE=1\nCLASS=user\nTYPE=x11\n"),
        ("proc/net/route", "head\nwlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"),
        ("sys/class/net/wlan0/uevent", "DEVTYPE=wlan\n"),
        ("sys/class/net/wlan0/ifindex", "3\n"),
        ("run/NetworkManager/devices/3", "[device]\nconnection-uuid=abc\n"),
        ("etc/NetworkManager/system-connections/a", "[connection]\nuuid=abc\nmetered=2\n"),
        ("proc/5/stat", "5 (fog) S 1 1 1 0 -1 0 0 0 0 0 1 0 0 0 20 0 1 0 5 1000 10 0 0\n"),
    ] {
        tree.write(path, text);
    }
    tree.accessed("dev/pts/0", start().unix);
    tree
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    found.sort();
    found
}

/// Two samples, a look at input, and a decision.
fn look(tree: &Tree) -> (Signals, Signals) {
    let (mut host, mut own, now) = (tree.open(), OwnProcesses::new(tree.path()), start());
    let mut policy = Policy::new(Preferences::default());
    let first = host.sample(now);
    policy.handle_signals(first.clone(), own.sample(5, &[5], now), now);
    let now = now.plus(Duration::from_secs(1));
    policy.handle_input(host.input(now), now);
    let second = host.sample(now);
    policy.handle_signals(second.clone(), own.sample(5, &[5], now), now);
    policy.status();
    (first, second)
}

#[test]
fn a_host_that_tells_everything_has_no_unknowns_but_rates() {
    let (first, _) = look(&everything());
    assert_eq!(first.unknowns(), ["cpu: needs a second sample", "throttled: needs a second sample"]);
}

#[test]
fn a_file_of_garbage_costs_its_own_probe_at_most() {
    let tree = everything();
    let root = tree.path().to_owned();
    let paths = files(&root);
    assert!(paths.len() > 40, "{paths:?}");
    let long = "9".repeat(400_000);
    for path in paths {
        let before = fs::read(&path).expect("read");
        for garbage in [
            "".as_bytes(),
            b"\0\xff\xfe",
            b"\n\n\n",
            b"-1",
            b"18446744073709551616",
            b"NaN",
            b"inf",
            b"=:,\t",
            long.as_bytes(),
        ] {
            fs::write(&path, garbage).expect("written");
            let (first, _) = look(&tree);
            let lost = first.unknowns().len();
            assert!(lost <= 6, "{}: {:?}", path.display(), first.unknowns());
            assert!(
                first.battery.is_ok_and(|battery| (0.0..=100.0).contains(&battery.percent))
                    || path.starts_with(root.join("sys/class/power_supply"))
            );
        }
        // What a file is, is a directory now.
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("made");
        look(&tree);
        fs::remove_dir(&path).expect("removed");
        look(&tree);
        fs::write(&path, before).expect("written back");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn torn_and_changed_files_are_values_or_reasons_but_no_panic(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), any::<u8>(), any::<bool>()), 1..40)) {
        let tree = everything();
        let paths = files(tree.path());
        for (file, at, byte, cut) in changes {
            let path = file.get(&paths);
            let mut bytes = fs::read(path).expect("read");
            if bytes.is_empty() {
                continue;
            }
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            fs::write(path, bytes).expect("written");
        }
        let (first, second) = look(&tree);
        for signals in [first, second] {
            if let Ok(cpu) = signals.cpu { prop_assert!((0.0..=cpu.host_cpus).contains(&cpu.busy_cpus)) }
            if let Ok(memory) = signals.memory { prop_assert!(memory.available <= memory.total) }
            if let Ok(hottest) = signals.temperature { prop_assert!((0.0..150.0).contains(&hottest.celsius)) }
            if let Ok(cpus) = signals.usable_cpus { prop_assert!(cpus > 0.0) }
        }
    }
}
