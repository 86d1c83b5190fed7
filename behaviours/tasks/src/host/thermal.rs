//! Heat: `/sys/class/thermal` (`Documentation/driver-api/thermal/sysfs-api.rst`), and how often processors were slowed down by theirs
//! (`/sys/devices/system/cpu/cpu*/thermal_throttle`, on Intel's).

use crate::core::harvest::{Probe, Temperature, Unknown};

use super::files::Root;

const ZONES: &str = "/sys/class/thermal";
const CPUS: &str = "/sys/devices/system/cpu";

#[derive(Debug)]
struct Zone {
    dir: String,
    name: String,
    /// Degrees Celsius of its lowest `hot` or `critical` trip point.
    trip: Option<f64>,
}

/// The places where heat is measured. What does not change is read once.
#[derive(Debug)]
pub(super) struct Heat {
    zones: Probe<Vec<Zone>>,
    counters: Vec<String>,
    throttles: Option<u64>,
}

impl Heat {
    pub(super) fn new(root: &Root) -> Self {
        Self { zones: zones(root), counters: counters(root), throttles: None }
    }

    /// The hottest zone. Zones that cannot be read now, or say what no chip has, do not count.
    pub(super) fn temperature(&self, root: &Root) -> Probe<Temperature> {
        let zones = self.zones.as_ref().map_err(Clone::clone)?;
        let mut hottest: Option<Temperature> = None;
        let mut headroom: Option<f64> = None;
        for zone in zones {
            let Ok(celsius) = degrees(root, &format!("{}/temp", zone.dir)) else { continue };
            if let Some(trip) = zone.trip {
                headroom = Some(headroom.map_or(trip - celsius, |least| least.min(trip - celsius)));
            }
            if hottest.as_ref().is_none_or(|hottest| celsius > hottest.celsius) {
                hottest = Some(Temperature { celsius, zone: zone.name.clone(), headroom: None });
            }
        }
        let hottest = hottest.map(|hottest| Temperature { headroom, ..hottest });
        hottest.ok_or_else(|| match zones.is_empty() {
            true => Unknown::absent("no thermal zone is listed"),
            false => Unknown::unseen("no thermal zone tells its temperature"),
        })
    }

    /// Whether a processor was slowed down since the last call.
    pub(super) fn throttled(&mut self, root: &Root) -> Probe<bool> {
        if self.counters.is_empty() {
            return Err(Unknown::absent("processors do not count when they are slowed down"));
        }
        let counts = self.counters.iter().map(|path| root.number::<u64>(path));
        let now = counts.sum::<Result<u64, Unknown>>().inspect_err(|_| self.throttles = None)?;
        let last = self.throttles.replace(now).ok_or_else(|| Unknown::unseen("needs a second sample"))?;
        Ok(now > last)
    }
}

fn degrees(root: &Root, path: &str) -> Probe<f64> {
    let celsius = root.number::<f64>(path)? / 1000.0;
    // Disabled sensors say 0 or absolute zero.
    if celsius > 0.0 && celsius < 150.0 { Ok(celsius) } else { Err(super::files::misunderstood(path)) }
}

fn zones(root: &Root) -> Probe<Vec<Zone>> {
    const TRIPS: usize = 16;
    let names = root.names(ZONES)?;
    let zones = names.iter().filter(|name| name.starts_with("thermal_zone")).map(|name| {
        let dir = format!("{ZONES}/{name}");
        let trip = |at: usize| {
            let kind = root.text(&format!("{dir}/trip_point_{at}_type")).ok()?;
            matches!(kind.as_str(), "hot" | "critical")
                .then(|| degrees(root, &format!("{dir}/trip_point_{at}_temp")).ok())?
        };
        let trip = (0..TRIPS).filter_map(trip).reduce(f64::min);
        Zone { name: root.text(&format!("{dir}/type")).unwrap_or_else(|_| name.clone()), dir, trip }
    });
    Ok(zones.collect())
}

/// One counter for each package: all its processors show the same.
fn counters(root: &Root) -> Vec<String> {
    let mut packages = Vec::new();
    let mut counters = Vec::new();
    for name in root.names(CPUS).unwrap_or_default() {
        if name.strip_prefix("cpu").is_none_or(|rest| rest.parse::<u32>().is_err()) {
            continue;
        }
        let counter = format!("{CPUS}/{name}/thermal_throttle/package_throttle_count");
        let package = root.text(&format!("{CPUS}/{name}/topology/physical_package_id")).unwrap_or_default();
        if !packages.contains(&package) && root.number::<u64>(&counter).is_ok() {
            packages.push(package);
            counters.push(counter);
        }
    }
    counters
}
