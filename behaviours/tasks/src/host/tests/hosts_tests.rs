//! Whole hosts, and what the probes make of them.

use super::*;

fn second(now: Now, seconds: u64) -> Now {
    now.plus(Duration::from_secs(seconds))
}

#[test]
fn a_laptop_on_mains_works_and_one_that_is_unplugged_gives_its_tasks_back() {
    let tree = Tree::laptop(true, "Charging\n");
    let (mut host, now) = (tree.open(), start());
    let signals = host.sample(now);
    assert_eq!(signals.power, Ok(Power::Mains));
    assert_eq!(signals.battery, Ok(Battery { percent: 77.0, discharging: false }), "the mouse's does not count");
    assert_eq!(signals.battery_temperature_c, Ok(31.5));
    assert_eq!(signals.input, Ok(Input::NoneFor(Duration::ZERO)));
    let mut policy = Policy::new(Preferences::default());
    assert_eq!(policy.handle_signals(signals, OwnLoad::default(), now), [Action::Slots(4)]);

    tree.write("sys/class/power_supply/AC/online", "0\n");
    tree.write("sys/class/power_supply/BAT0/status", "Discharging\n");
    let now = second(now, 1);
    let actions = policy.handle_signals(host.sample(now), OwnLoad::default(), now);
    assert_eq!(actions, [Action::Freeze, Action::Vacate, Action::Slots(0)]);
    assert_eq!(policy.status().reasons[0], "on battery");
}

#[test]
fn mains_and_battery_are_told_apart_as_drivers_report_them() {
    let power = |tree: &Tree| tree.open().sample(start()).power;
    assert_eq!(power(&Tree::laptop(false, "Discharging\n")), Ok(Power::Battery));
    assert_eq!(power(&Tree::laptop(false, "Unknown\n")), Ok(Power::Battery), "the line says no");
    assert_eq!(power(&Tree::laptop(true, "Discharging\n")), Ok(Power::Mains), "a weak charger is one");
    assert_eq!(power(&Tree::laptop(true, "Not charging\n")), Ok(Power::Mains));

    let battery = |status: &str| {
        Tree::host(&[("sys/class/power_supply/b/type", "Battery"), ("sys/class/power_supply/b/status", status)])
    };
    assert_eq!(power(&battery("Full")), Ok(Power::Mains));
    assert_eq!(power(&battery("Discharging")), Ok(Power::Battery));
    assert!(is_unseen(&power(&battery("Unknown"))));
    assert!(is_unseen(&power(&battery(""))));
    let gone = battery("Discharging");
    gone.write("sys/class/power_supply/b/present", "0");
    assert!(is_absent(&power(&gone)));

    let usb_c = battery("Charging");
    usb_c.write("sys/class/power_supply/ucsi/type", "USB");
    usb_c.write("sys/class/power_supply/ucsi/online", "0");
    assert_eq!(power(&usb_c), Ok(Power::Battery), "a line that says no");
    usb_c.write("sys/class/power_supply/ucsi/online", "2");
    assert_eq!(power(&usb_c), Ok(Power::Mains));

    let ups =
        Tree::host(&[("sys/class/power_supply/u/type", "UPS"), ("sys/class/power_supply/u/status", "Discharging")]);
    assert_eq!(power(&ups), Ok(Power::Battery));
    assert!(is_absent(&power(&Tree::host(&[]))));
}

#[test]
fn a_hot_machine_is_known_by_its_hottest_zone_and_by_its_counters() {
    let tree = Tree::laptop(true, "Full\n");
    for (at, count) in [(0, "5"), (1, "5"), (2, "9"), (3, "9")] {
        tree.write(&format!("sys/devices/system/cpu/cpu{at}/thermal_throttle/package_throttle_count"), count);
        tree.write(&format!("sys/devices/system/cpu/cpu{at}/topology/physical_package_id"), (at / 2).to_string());
    }
    tree.write("sys/devices/system/cpu/cpufreq/x", "");
    tree.write("sys/class/thermal/thermal_zone0/trip_point_0_type", "passive\n");
    tree.write("sys/class/thermal/thermal_zone0/trip_point_0_temp", "40000\n");
    tree.write("sys/class/thermal/thermal_zone0/trip_point_1_type", "critical\n");
    tree.write("sys/class/thermal/thermal_zone0/trip_point_1_temp", "60000\n");
    let (mut host, now) = (tree.open(), start());
    let signals = host.sample(now);
    let hottest = Temperature { celsius: 52.0, zone: "x86_pkg_temp".into(), headroom: Some(15.0) };
    assert_eq!(signals.temperature, Ok(hottest));
    assert!(is_unseen(&signals.throttled), "needs a second sample");
    assert_eq!(host.sample(now).throttled, Ok(false));

    tree.write("sys/devices/system/cpu/cpu2/thermal_throttle/package_throttle_count", "10");
    tree.write("sys/class/thermal/thermal_zone1/temp", "97000\n");
    let signals = host.sample(now);
    assert_eq!(signals.throttled, Ok(true));
    let mut policy = Policy::new(Preferences::default());
    policy.handle_signals(signals, OwnLoad::default(), now);
    let codes: Vec<_> = policy.reasons().iter().map(Reason::code).collect();
    assert_eq!(codes, ["too_hot", "throttled"]);
    assert_eq!(host.sample(now).throttled, Ok(false));

    // A sensor that is switched off says absolute zero, or nothing.
    tree.write("sys/class/thermal/thermal_zone1/temp", "-274000\n");
    assert_eq!(host.sample(now).temperature.map(|hottest| hottest.celsius), Ok(45.0));
    fs::remove_file(tree.path().join("sys/class/thermal/thermal_zone0/temp")).expect("removed");
    assert!(is_unseen(&host.sample(now).temperature));
}

#[test]
fn a_headless_container_works_within_its_control_group() {
    let tree = Tree::host(&[
        ("proc/self/cgroup", "0::/a/b\n"),
        ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/a/memory.max", "1000000000\n"),
        ("sys/fs/cgroup/a/memory.current", "400000000\n"),
        ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ("sys/fs/cgroup/a/b/memory.current", "400000000\n"),
    ]);
    let (mut host, now) = (tree.open(), start());
    let signals = host.sample(now);
    assert_eq!(signals.usable_cpus, Ok(1.5));
    assert_eq!(signals.memory, Ok(Memory { total: 1_000_000_000, available: 600_000_000 }));
    assert!(is_absent(&signals.power) && is_absent(&signals.battery) && is_absent(&signals.temperature));
    assert!(is_absent(&signals.input) && is_absent(&signals.link) && is_absent(&signals.throttled));
    let mut policy = Policy::new(Preferences::default());
    assert_eq!(policy.handle_signals(signals, OwnLoad::default(), now), [Action::Slots(1)]);
    assert!(policy.status().unknown.contains(&"user: no terminal, keyboard or mouse is visible".to_owned()));
    assert_eq!(policy.status().user_idle_s, None);
}

#[test]
fn control_groups_of_version_1_limit_too() {
    let tree = Tree::host(&[
        ("proc/self/cgroup", "4:memory:/x\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/../outside\n"),
        ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "500000000"),
        ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "600000000"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "7000000000"),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1"),
        ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
    ]);
    let signals = tree.open().sample(start());
    assert_eq!(signals.memory, Ok(Memory { total: 500_000_000, available: 0 }));
    assert_eq!(signals.usable_cpus, Ok(4.0));
}

#[test]
fn load_memory_and_pressure_are_read_as_the_kernel_writes_them() {
    let tree = Tree::host(&[]);
    let (mut host, now) = (tree.open(), start());
    let signals = host.sample(now);
    assert!(is_unseen(&signals.cpu), "needs a second sample");
    assert_eq!(signals.memory, Ok(Memory { total: 8_192_000_000, available: 6_144_000_000 }));
    assert_eq!(signals.pressure, Pressure { cpu: Ok(1.5), memory: Ok(0.25), io: Ok(3.0) });
    assert_eq!(signals.load_1min, Ok(0.42));
    tree.stat(100, 300);
    let quarter = Ok(CpuUse { busy_cpus: 1.0, host_cpus: 4.0 });
    assert_eq!(host.sample(now).cpu, quarter);
    assert_eq!(host.sample(now).cpu, quarter, "no tick has passed");
    tree.stat(90, 400);
    assert!(is_unseen(&host.sample(now).cpu), "backwards");
    tree.stat(490, 400);
    assert_eq!(host.sample(now).cpu, Ok(CpuUse { busy_cpus: 4.0, host_cpus: 4.0 }));
}

#[test]
fn a_mobile_network_and_one_that_costs_are_known_by_files() {
    let route = |interface: &str, metric: u32| {
        format!("{interface}\t00000000\t0102A8C0\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n")
    };
    let routes = |lines: &[String]| {
        format!("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n{}", lines.concat())
    };
    let tree = Tree::host(&[
        ("sys/class/net/wlan0/uevent", "DEVTYPE=wlan\nINTERFACE=wlan0\nIFINDEX=3\n"),
        ("sys/class/net/wlan0/ifindex", "3\n"),
        ("sys/class/net/eth0/uevent", "INTERFACE=eth0\n"),
        ("sys/class/net/eth0/ifindex", "2\n"),
    ]);
    let ask = || {
        let signals = tree.open().sample(start());
        (signals.link, signals.metered)
    };
    tree.write("proc/net/route", routes(&[]));
    assert!(is_absent(&ask().0));
    tree.write("proc/net/route", routes(&[route("wlan0", 600), route("eth0", 100)]));
    assert_eq!(ask().0, Ok(Link::Cable));
    assert!(is_absent(&ask().1));
    tree.write("proc/net/route", routes(&[route("wlan0", 600), route("wwan0", 700)]));
    assert_eq!(ask().0, Ok(Link::Wifi));
    tree.write("run/NetworkManager/devices/3", "[device]\nmanaged=true\nconnection-uuid=abc\n");
    assert!(is_unseen(&ask().1));
    tree.write("etc/NetworkManager/system-connections/home.nmconnection", "[connection]\nuuid=xyz\nmetered=1\n");
    tree.write("etc/NetworkManager/system-connections/phone.nmconnection", "[connection]\nuuid=abc\nmetered=2\n");
    assert_eq!(ask().1, Ok(false));
    tree.write("run/systemd/netif/leases/3", "ADDRESS=192.168.2.7\nVENDOR_SPECIFIC=414e44524f49445f4d455445524544\n");
    assert_eq!(ask(), (Ok(Link::Wifi), Ok(true)));
    tree.write("proc/net/route", routes(&[route("wwan0", 700)]));
    assert_eq!(ask(), (Ok(Link::Mobile), Ok(true)));
    tree.write("proc/net/route", routes(&[route("tun0", 1)]));
    assert!(is_unseen(&ask().0));
    tree.write("proc/net/route", routes(&[route("../../../etc", 1)]));
    assert!(is_absent(&ask().0));
}

/// A version 2 TZif file (RFC 9636) with one type and what follows as a POSIX rule.
fn tzif(rule: &str) -> Vec<u8> {
    let mut block = b"TZif2".to_vec();
    block.extend([0; 15]);
    for count in [0u32, 0, 0, 0, 1, 4] {
        block.extend(count.to_be_bytes());
    }
    block.extend([0, 0, 0, 0, 0, 0]);
    block.extend(b"UTC\0");
    let mut file = [block.clone(), block].concat();
    file.extend(format!("\n{rule}\n").bytes());
    file
}

#[test]
fn the_time_is_that_of_the_hosts_zone() {
    let tree = Tree::host(&[]);
    let at = |tree: &Tree, unix| {
        let now = Now { unix: UnixMillis(unix), ..start() };
        tree.open().sample(now).local_time
    };
    let winter = 1_768_464_000_000;
    let summer = winter + 181 * 86_400_000;
    let time = |weekday, minute| Ok(LocalTime { weekday, minute });
    assert_eq!(at(&tree, winter), time(Weekday::Thursday, 480), "UTC without a zone");
    tree.write("etc/localtime", tzif("CET-1CEST,M3.5.0,M10.5.0/3"));
    assert_eq!(at(&tree, winter), time(Weekday::Thursday, 540));
    assert_eq!(at(&tree, summer), time(Weekday::Wednesday, 600));
    tree.write("etc/localtime", tzif("PST8"));
    assert_eq!(at(&tree, winter), time(Weekday::Thursday, 0));
    tree.write("etc/localtime", "neither a zone nor anything");
    assert!(is_unseen(&at(&tree, winter)));
}

#[test]
fn what_tasks_use_is_counted_once_also_when_they_end() {
    let stat = |ticks: u64, of_ended: u64, pages: u64| {
        format!("7 (fog) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 {of_ended} 0 20 0 1 0 5 1000 {pages} 0 0\n")
    };
    let tree = Tree::new(&[("proc/7/stat", &stat(100, 0, 10)), ("proc/8/stat", &stat(1000, 0, 20))]);
    let mut own = OwnProcesses::new(tree.path());
    let now = start();
    let first = own.sample(7, &[8, 9], now);
    assert_eq!(first.cpus, 0.0);
    assert!(first.resident > 0 && first.resident.is_multiple_of(20), "the task's pages, not the node's");
    tree.write("proc/7/stat", stat(110, 0, 10));
    tree.write("proc/8/stat", stat(1190, 0, 20));
    let used = own.sample(7, &[8, 9], second(now, 1)).cpus;
    assert!((1.9..2.1).contains(&used), "{used}");
    fs::remove_file(tree.path().join("proc/8/stat")).expect("removed");
    tree.write("proc/7/stat", stat(120, 1200, 10));
    let used = own.sample(7, &[8], second(now, 2)).cpus;
    assert!((0.1..0.3).contains(&used), "{used}");
    assert_eq!(own.sample(77, &[], second(now, 3)), OwnLoad::default());
}
