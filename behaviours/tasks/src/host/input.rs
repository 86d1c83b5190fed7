//! The user's hands, without D-Bus and without rights: terminals, and how often keyboards and mice have spoken. What they say is never
//! read.
//!
//! * A terminal's access time moves when a program reads what was typed, in steps of eight seconds (`tty_update_time` of
//!   `drivers/tty/tty_io.c`); after eight seconds without input the first key moves it at once.
//! * Keyboards and touchpads of laptops have interrupts of their own (i8042, HID over I²C).
//! * USB keyboards and mice share theirs with disks, but each report completes a request, and the kernel counts a device's requests
//!   (`urbnum` of `drivers/usb/core/sysfs.c`).
//!
//! Not seen: Bluetooth, remote desktops, joysticks, and what happens outside of a container.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant, SystemTime},
};

use fog_base::Now;

use crate::core::harvest::{Input, Probe, Unknown};

use super::files::Root;

/// Keyboards and mice are looked for only so often; terminals at each sample.
const SEARCH_EVERY: Duration = Duration::from_secs(10);
const INTERRUPTS: &str = "/proc/interrupts";
const USB: &str = "/sys/bus/usb/devices";
const SESSIONS: &str = "/run/systemd/sessions";
/// What the interrupts of keyboards, touchpads and touch screens are called; the last are vendors' ACPI names of HID over I²C.
const CONTROLLERS: [&str; 13] =
    ["i8042", "hid-over-i2c", "ELAN", "SYNA", "ALPS", "ALP0", "WACF", "WCOM", "MSFT0", "DLL0", "CUST0", "GXTP", "FTCS"];

/// Something that changes when the user does something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Terminal(String),
    Interrupt(String),
    Usb(String),
}

/// Watches them.
#[derive(Debug)]
pub(super) struct Hands {
    sources: BTreeMap<Source, Option<u64>>,
    began: Instant,
    searched: Option<Instant>,
    /// A moment, and how long before it the last input was.
    last: Option<(Instant, Duration)>,
    desktop: bool,
}

impl Hands {
    pub(super) fn new(now: Now) -> Self {
        Self { sources: BTreeMap::new(), began: now.mono, searched: None, last: None, desktop: false }
    }

    /// Looks for terminals, and now and then for keyboards and mice; then as [`Self::poll`].
    pub(super) fn search(&mut self, root: &Root, now: Now) -> Probe<Input> {
        let mut found = terminals(root);
        if self.searched.is_none_or(|at| now.mono.saturating_duration_since(at) >= SEARCH_EVERY) {
            self.searched = Some(now.mono);
            self.desktop = desktop(root);
            found.extend(interrupts(root));
            found.extend(usb(root));
        } else {
            found.extend(self.sources.keys().filter(|source| !matches!(source, Source::Terminal(_))).cloned());
        }
        self.sources.retain(|source, _| found.contains(source));
        for source in found {
            if !self.sources.contains_key(&source) {
                let value = source.value(root, &mut None);
                if let (Source::Terminal(_), Some(value)) = (&source, value) {
                    self.was_used(value, now);
                }
                self.sources.insert(source, value);
            }
        }
        self.poll(root, now)
    }

    /// Whether something changed: the fast way, a read or a stat for each source.
    pub(super) fn poll(&mut self, root: &Root, now: Now) -> Probe<Input> {
        let mut interrupts = None;
        let mut changed = false;
        for (source, last) in &mut self.sources {
            let value = source.value(root, &mut interrupts);
            changed |= value.is_some() && last.is_some() && value != *last;
            *last = value.or(*last);
        }
        if changed {
            self.last = Some((now.mono, Duration::ZERO));
        }
        self.answer(now.mono)
    }

    fn answer(&self, now: Instant) -> Probe<Input> {
        let hands = self.sources.keys().any(|source| !matches!(source, Source::Terminal(_)));
        if self.desktop && !hands {
            return Err(Unknown::unseen("a desktop session is active, and no keyboard or mouse is visible"));
        }
        if self.sources.is_empty() {
            return Err(Unknown::absent("no terminal, keyboard or mouse is visible"));
        }
        Ok(match self.last {
            Some((at, before)) => Input::Seen(now.saturating_duration_since(at).saturating_add(before)),
            None => Input::NoneFor(now.saturating_duration_since(self.began)),
        })
    }

    /// A terminal that was not known before, and when it was last read from, in nanoseconds of Unix time. The future tells nothing.
    fn was_used(&mut self, at: u64, now: Now) {
        let Some(before) = now.unix.0.checked_mul(1_000_000).and_then(|now| now.checked_sub(at)) else { return };
        let before = Duration::from_nanos(before);
        let known = self.last.map(|(at, before)| now.mono.saturating_duration_since(at).saturating_add(before));
        if known.is_none_or(|known| before < known) {
            self.last = Some((now.mono, before));
        }
    }
}

impl Source {
    /// What it shows now. `interrupts` keeps the text of their file for the next source.
    fn value(&self, root: &Root, interrupts: &mut Option<String>) -> Option<u64> {
        match self {
            Self::Terminal(path) => {
                let read = fs::metadata(root.path(path)).and_then(|of| of.accessed()).ok()?;
                u64::try_from(read.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos()).ok()
            }
            Self::Usb(device) => root.number(&format!("{USB}/{device}/urbnum")).ok(),
            Self::Interrupt(number) => {
                // A small file where there is one: the whole table is long on large hosts.
                if let Ok(counts) = root.text(&format!("/sys/kernel/irq/{number}/per_cpu_count")) {
                    return sum(counts.split(','));
                }
                let table = interrupts.get_or_insert_with(|| root.text(INTERRUPTS).unwrap_or_default());
                let line = table.lines().find_map(|line| line.trim_start().strip_prefix(number)?.strip_prefix(':'))?;
                sum(line.split_whitespace().take_while(|word| word.bytes().all(|byte| byte.is_ascii_digit())))
            }
        }
    }
}

fn sum<'a>(counts: impl Iterator<Item = &'a str>) -> Option<u64> {
    counts.map(|count| count.trim().parse::<u64>().ok()).try_fold(0u64, |sum, count| Some(sum.wrapping_add(count?)))
}

fn digits(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Terminals of windows and logins, and virtual consoles; `tty0` is another name of one of them.
fn terminals(root: &Root) -> BTreeSet<Source> {
    let windows = root.names("/dev/pts").unwrap_or_default().into_iter().filter(|name| digits(name));
    let windows = windows.map(|name| format!("/dev/pts/{name}"));
    let consoles = root.names("/dev").unwrap_or_default().into_iter();
    let consoles = consoles.filter(|name| name.strip_prefix("tty").is_some_and(|rest| digits(rest) && rest != "0"));
    windows.chain(consoles.map(|name| format!("/dev/{name}"))).map(Source::Terminal).collect()
}

fn interrupts(root: &Root) -> BTreeSet<Source> {
    let table = root.text(INTERRUPTS).unwrap_or_default();
    let lines = table.lines().filter_map(|line| line.trim_start().split_once(':'));
    let names = |rest: &str| {
        let mut words = rest.split([' ', ',', '\t']);
        words.any(|word| CONTROLLERS.iter().any(|controller| word.starts_with(controller)))
    };
    let found = lines.filter(|(number, rest)| digits(number) && names(rest));
    found.map(|(number, _)| Source::Interrupt(number.to_owned())).collect()
}

/// Devices with an interface of class HID (3) that says it is a keyboard (1) or a mouse (2).
fn usb(root: &Root) -> BTreeSet<Source> {
    let names = root.names(USB).unwrap_or_default();
    let devices = names.iter().filter_map(|interface| {
        let (device, _) = interface.split_once(':')?;
        let number = |what: &str| root.text(&format!("{USB}/{interface}/{what}"));
        let hid = number("bInterfaceClass").is_ok_and(|class| class == "03");
        let hands = || number("bInterfaceProtocol").is_ok_and(|protocol| protocol == "01" || protocol == "02");
        (hid && hands()).then(|| Source::Usb(device.to_owned()))
    });
    devices.collect()
}

/// Whether somebody is logged in at a desktop of this host, as systemd-logind keeps it.
fn desktop(root: &Root) -> bool {
    let sessions = root.names(SESSIONS).unwrap_or_default();
    sessions.iter().any(|session| {
        let text = root.text(&format!("{SESSIONS}/{session}")).unwrap_or_default();
        let says = |line: &str| text.lines().any(|said| said == line);
        says("ACTIVE=1")
            && says("CLASS=user")
            && !says("REMOTE=1")
            && (says("TYPE=x11") || says("TYPE=wayland") || says("TYPE=mir"))
    })
}
