//! What the host reaches others by, and whether that costs. NetworkManager tells the second by D-Bus only; what its files and those of
//! systemd-networkd say is used, and else it is not known.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::core::harvest::{Link, Probe, Unknown};

use super::files::Root;

/// Profiles are searched for the one in use only so often.
const SEARCH_EVERY: Duration = Duration::from_secs(60);
const PROFILES: [&str; 2] = ["/etc/NetworkManager/system-connections", "/run/NetworkManager/system-connections"];
/// What phones that share their connection send as the vendor option (43) of DHCP.
const ANDROID_METERED: &str = "414e44524f49445f4d455445524544";

/// Remembers which profile is in use.
#[derive(Debug, Default)]
pub(super) struct Network {
    searched: Option<(String, Instant, Probe<bool>)>,
}

impl Network {
    /// The interface of the default route decides.
    pub(super) fn sample(&mut self, root: &Root, now: Instant) -> (Probe<Link>, Probe<bool>) {
        let interface = match default_route(root) {
            Ok(interface) => interface,
            Err(why) => return (Err(why.clone()), Err(why)),
        };
        let link = link(root, &interface);
        let metered = if link == Ok(Link::Mobile) { Ok(true) } else { self.metered(root, &interface, now) };
        (link, metered)
    }

    fn metered(&mut self, root: &Root, interface: &str, now: Instant) -> Probe<bool> {
        if let Some((known, at, answer)) = &self.searched
            && known == interface
            && now.saturating_duration_since(*at) < SEARCH_EVERY
        {
            return answer.clone();
        }
        let answer = metered(root, interface);
        self.searched = Some((interface.to_owned(), now, answer.clone()));
        answer
    }
}

/// The interface of the route to everywhere with the least metric (proc(5), `/proc/net/route`).
fn default_route(root: &Root) -> Probe<String> {
    const UP: u32 = 1;
    let text = root.text("/proc/net/route")?;
    let routes = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let &[interface, destination, _, flags, _, _, metric, mask, ..] = fields.as_slice() else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let everywhere = destination == "00000000" && mask == "00000000" && flags & UP != 0;
        (everywhere && !interface.contains('/') && !interface.starts_with('.'))
            .then_some((metric.parse::<u32>().ok()?, interface))
    });
    let best = routes.min_by_key(|(metric, _)| *metric);
    best.map(|(_, interface)| interface.to_owned()).ok_or_else(|| Unknown::absent("no default route of IPv4"))
}

fn link(root: &Root, interface: &str) -> Probe<Link> {
    let uevent = root.text(&format!("/sys/class/net/{interface}/uevent")).unwrap_or_default();
    let starts = |names: &[&str]| names.iter().any(|name| interface.starts_with(name));
    let kind = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
    if kind == Some("wwan") || starts(&["wwan", "ppp", "rmnet"]) {
        return Ok(Link::Mobile);
    }
    if kind == Some("wlan") || root.path(&format!("/sys/class/net/{interface}/wireless")).is_dir() {
        return Ok(Link::Wifi);
    }
    if kind == Some("wireguard") || starts(&["tun", "wg"]) {
        return Err(Unknown::unseen(format!("{interface} is a tunnel")));
    }
    Ok(Link::Cable)
}

fn metered(root: &Root, interface: &str) -> Probe<bool> {
    let index = root.number::<u32>(&format!("/sys/class/net/{interface}/ifindex"))?;
    let lease = root.text(&format!("/run/systemd/netif/leases/{index}")).unwrap_or_default();
    if let Some(vendor) = lease.lines().find_map(|line| line.strip_prefix("VENDOR_SPECIFIC=")) {
        return Ok(vendor.to_ascii_lowercase().contains(ANDROID_METERED));
    }
    let Ok(device) = root.text(&format!("/run/NetworkManager/devices/{index}")) else {
        return Err(Unknown::absent("no file tells whether the network is metered"));
    };
    let Some(uuid) = keys(&device).remove("connection-uuid") else {
        return Err(Unknown::unseen("NetworkManager tells it by D-Bus only"));
    };
    for dir in PROFILES {
        for name in root.names(dir).unwrap_or_default() {
            let Ok(profile) = root.text(&format!("{dir}/{name}")) else { continue };
            let profile = keys(&profile);
            if profile.get("uuid") == Some(&uuid) {
                return match profile.get("metered").copied() {
                    Some("1") => Ok(true),
                    Some("2") => Ok(false),
                    _ => Err(Unknown::unseen("NetworkManager guesses it, and tells by D-Bus only")),
                };
            }
        }
    }
    Err(Unknown::unseen("NetworkManager's profile cannot be read"))
}

/// The keys of a key file, whatever their group: those that are asked for are in one only.
fn keys(text: &str) -> HashMap<&str, &str> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim(), value.trim())).collect()
}
