//! Mains and batteries: `/sys/class/power_supply` (`Documentation/ABI/testing/sysfs-class-power`), read as UPower reads it.

use crate::core::harvest::{Battery, Power, Probe, Unknown};

use super::files::Root;

const SUPPLIES: &str = "/sys/class/power_supply";

/// Everything about power.
pub(super) struct Supplies {
    pub(super) power: Probe<Power>,
    pub(super) battery: Probe<Battery>,
    pub(super) temperature_c: Probe<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charge {
    Falls,
    Holds,
    Unclear,
}

/// One battery of the host; mice and headsets have theirs too, with `scope` Device.
struct Cell {
    charge: Charge,
    percent: Option<f64>,
    celsius: Option<f64>,
}

/// A look at all of them.
pub(super) fn supplies(root: &Root) -> Supplies {
    let names = match root.names(SUPPLIES) {
        Ok(names) => names,
        Err(why) => return Supplies { power: Err(why.clone()), battery: Err(why.clone()), temperature_c: Err(why) },
    };
    let mut lines = Vec::new();
    let mut cells = Vec::new();
    for name in names {
        let dir = format!("{SUPPLIES}/{name}");
        if root.text(&format!("{dir}/scope")).is_ok_and(|scope| scope == "Device") {
            continue;
        }
        match root.text(&format!("{dir}/type")).as_deref() {
            Ok("Battery" | "UPS") => cells.extend(cell(root, &dir)),
            Ok("Mains" | "USB" | "Wireless") => lines.push(line(root, &dir)),
            // A supply that does not say what it is may be a battery.
            Err(_) => cells.push(Cell { charge: Charge::Unclear, percent: None, celsius: None }),
            Ok(_) => {}
        }
    }
    let percents: Vec<_> = cells.iter().filter_map(|cell| cell.percent).collect();
    let no_battery = || {
        if cells.is_empty() {
            Unknown::absent("no battery is listed")
        } else {
            Unknown::unseen("the battery does not tell")
        }
    };
    let battery = (!percents.is_empty()).then(|| Battery {
        percent: percents.iter().sum::<f64>() / percents.len() as f64,
        discharging: cells.iter().any(|cell| cell.charge == Charge::Falls),
    });
    Supplies {
        power: power(&lines, &cells),
        battery: battery.ok_or_else(no_battery),
        temperature_c: cells.iter().filter_map(|cell| cell.celsius).reduce(f64::max).ok_or_else(no_battery),
    }
}

/// A line that delivers decides. Without one, what the batteries do; a line that says no is believed where they are unclear.
fn power(lines: &[Option<bool>], cells: &[Cell]) -> Probe<Power> {
    if cells.is_empty() {
        return Err(Unknown::absent("no battery is listed"));
    }
    if lines.contains(&Some(true)) {
        return Ok(Power::Mains);
    }
    if cells.iter().any(|cell| cell.charge == Charge::Falls) || lines.contains(&Some(false)) {
        return Ok(Power::Battery);
    }
    if cells.iter().all(|cell| cell.charge == Charge::Holds) {
        return Ok(Power::Mains);
    }
    Err(Unknown::unseen("there is a battery, and it does not tell whether it is used"))
}

/// Whether a line delivers: 0 no, 1 fixed voltage, 2 programmable.
fn line(root: &Root, dir: &str) -> Option<bool> {
    match root.number::<u8>(&format!("{dir}/online")) {
        Ok(0) => Some(false),
        Ok(1 | 2) => Some(true),
        _ => None,
    }
}

fn cell(root: &Root, dir: &str) -> Option<Cell> {
    if root.text(&format!("{dir}/present")).is_ok_and(|present| present == "0") {
        return None;
    }
    let charge = match root.text(&format!("{dir}/status")).as_deref() {
        Ok("Discharging") => Charge::Falls,
        Ok("Charging" | "Full" | "Not charging") => Charge::Holds,
        _ => Charge::Unclear,
    };
    let percent = root.number::<f64>(&format!("{dir}/capacity")).ok();
    let tenths = root.number::<f64>(&format!("{dir}/temp")).ok();
    Some(Cell {
        charge,
        percent: percent.filter(|percent| (0.0..=100.0).contains(percent)),
        celsius: tenths.map(|tenths| tenths / 10.0).filter(|celsius| (-40.0..=150.0).contains(celsius)),
    })
}
