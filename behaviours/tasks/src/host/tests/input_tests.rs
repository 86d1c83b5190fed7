//! Users who type.

use super::*;

fn ago(millis: u64) -> UnixMillis {
    UnixMillis(start().unix.0 - millis)
}

#[test]
fn a_key_on_the_laptop_freezes_at_the_next_look() {
    let tree = Tree::laptop(true, "Full\n");
    let (mut host, now) = (tree.open(), start());
    let mut policy = Policy::new(Preferences::default());
    assert_eq!(policy.handle_signals(host.sample(now), OwnLoad::default(), now), [Action::Slots(4)]);
    let now = now.plus(Duration::from_millis(25));
    assert_eq!(policy.handle_input(host.input(now), now), []);
    tree.keys(101);
    let now = now.plus(Duration::from_millis(25));
    assert_eq!(policy.handle_input(host.input(now), now), [Action::Freeze, Action::Slots(0)]);
    let later = now.plus(Duration::from_secs(42));
    assert_eq!(host.input(later), Ok(Input::Seen(Duration::from_secs(42))));
    assert_eq!(host.sample(later).input, Ok(Input::Seen(Duration::from_secs(42))));
}

#[test]
fn terminals_tell_of_the_time_before_the_start_too() {
    let tree = Tree::host(&[]);
    tree.accessed("dev/pts/0", ago(3_600_000));
    tree.accessed("dev/tty1", ago(100_000));
    tree.accessed("dev/pts/ptmx", ago(1_000));
    tree.accessed("dev/tty0", ago(1_000));
    tree.accessed("dev/tty", ago(1_000));
    tree.accessed("dev/ttyS0", ago(1_000));
    let (mut host, now) = (tree.open(), start());
    assert_eq!(host.sample(now).input, Ok(Input::Seen(Duration::from_secs(100))));
    let now = now.plus(Duration::from_secs(5));
    assert_eq!(host.input(now), Ok(Input::Seen(Duration::from_secs(105))));
    tree.accessed("dev/pts/0", ago(0));
    assert_eq!(host.input(now), Ok(Input::Seen(Duration::ZERO)));
    // A window that opens was just used; one that closes takes nothing back.
    let now = now.plus(Duration::from_secs(60));
    tree.accessed("dev/pts/7", UnixMillis(now.unix.0 - 2_000));
    assert_eq!(host.sample(now).input, Ok(Input::Seen(Duration::from_secs(2))));
    fs::remove_file(tree.path().join("dev/pts/7")).expect("removed");
    assert_eq!(host.sample(now).input, Ok(Input::Seen(Duration::from_secs(2))));
}

#[test]
fn an_access_time_in_the_future_is_no_input() {
    let tree = Tree::host(&[]);
    tree.accessed("dev/pts/0", UnixMillis(start().unix.0 + 86_400_000));
    assert_eq!(tree.open().sample(start()).input, Ok(Input::NoneFor(Duration::ZERO)));
}

#[test]
fn usb_keyboards_and_mice_are_counted_and_disks_are_not() {
    let interface = |name: &str, what: &str| format!("sys/bus/usb/devices/{name}/{what}");
    let tree = Tree::host(&[]);
    for (name, class, protocol) in
        [("1-2:1.0", "03", "01"), ("1-3:1.0", "03", "02"), ("1-4:1.0", "08", "50"), ("1-5:1.0", "03", "00")]
    {
        tree.write(&interface(name, "bInterfaceClass"), format!("{class}\n"));
        tree.write(&interface(name, "bInterfaceProtocol"), format!("{protocol}\n"));
    }
    let urbs = |device: &str, count: &str| tree.write(&interface(device, "urbnum"), count);
    ["1-2", "1-3", "1-4", "1-5"].iter().for_each(|device| urbs(device, "10\n"));
    let (mut host, now) = (tree.open(), start());
    let none = |seconds| Ok(Input::NoneFor(Duration::from_secs(seconds)));
    assert_eq!(host.sample(now).input, none(0));
    let now = now.plus(Duration::from_secs(5));
    urbs("1-4", "99\n");
    urbs("1-5", "99\n");
    assert_eq!(host.input(now), none(5));
    urbs("1-3", "");
    assert_eq!(host.input(now), none(5), "torn");
    urbs("1-3", "12\n");
    assert_eq!(host.input(now), Ok(Input::Seen(Duration::ZERO)));
    let now = now.plus(Duration::from_secs(7));
    urbs("1-2", "11\n");
    assert_eq!(host.input(now), Ok(Input::Seen(Duration::ZERO)));

    // A keyboard that is plugged in is found, and its past is not the user's present.
    let now = now.plus(Duration::from_secs(11));
    tree.write(&interface("2-1:1.0", "bInterfaceClass"), "03\n");
    tree.write(&interface("2-1:1.0", "bInterfaceProtocol"), "01\n");
    urbs("2-1", "5000\n");
    assert_eq!(host.sample(now).input, Ok(Input::Seen(Duration::from_secs(11))));
    urbs("2-1", "5001\n");
    assert_eq!(host.input(now), Ok(Input::Seen(Duration::ZERO)));
}

#[test]
fn the_small_file_of_an_interrupt_is_read_instead_of_the_table() {
    let tree = Tree::laptop(true, "Full\n");
    tree.write("sys/kernel/irq/1/per_cpu_count", "100,0\n");
    let (mut host, now) = (tree.open(), start());
    assert_eq!(host.sample(now).input, Ok(Input::NoneFor(Duration::ZERO)));
    tree.keys(500);
    assert_eq!(host.input(now), Ok(Input::NoneFor(Duration::ZERO)));
    tree.write("sys/kernel/irq/1/per_cpu_count", "100,1\n");
    assert_eq!(host.input(now), Ok(Input::Seen(Duration::ZERO)));
}

#[test]
fn a_desktop_without_a_visible_keyboard_is_not_taken_for_an_empty_chair() {
    let session =
        "# This is private data. Do not parse.\nUID=1000\nACTIVE=1\nSTATE=active\nREMOTE=0\nTYPE=wayland\nCLASS=user\n";
    let tree = Tree::host(&[("run/systemd/sessions/2", session), ("run/systemd/sessions/2.ref", "")]);
    tree.accessed("dev/tty1", ago(3_600_000));
    let (mut host, now) = (tree.open(), start());
    let signals = host.sample(now);
    assert!(is_unseen(&signals.input));
    let mut policy = Policy::new(Preferences::default());
    assert_eq!(policy.handle_signals(signals, OwnLoad::default(), now), []);
    assert_eq!(policy.reasons().first().map(Reason::code), Some("user_unseen"));

    // The greeter is nobody; a login by SSH has its terminal.
    tree.write("run/systemd/sessions/2", session.replace("CLASS=user", "CLASS=greeter"));
    assert!(tree.open().sample(now).input.is_ok());
    tree.write("run/systemd/sessions/2", session.replace("TYPE=wayland", "TYPE=tty"));
    assert!(tree.open().sample(now).input.is_ok());
    tree.write("run/systemd/sessions/2", session);
    tree.keys(1);
    assert!(tree.open().sample(now).input.is_ok(), "its keyboard is visible");
}
