//! The name of the machine's present boot, by which a restart of the machine is told from a restart of the program.

/// 16 bytes that every boot draws anew; `None` where the system has no such name, and then only a stop in good order counts.
#[cfg(target_os = "linux")]
pub fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let hex: String = text.trim().chars().filter(|c| *c != '-').collect();
    data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

/// 16 bytes that every boot draws anew; `None` where the system has no such name, and then only a stop in good order counts.
#[cfg(not(target_os = "linux"))]
pub fn boot_id() -> Option<[u8; 16]> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn one_boot_has_one_name() {
        assert!(super::boot_id().is_some());
        assert_eq!(super::boot_id(), super::boot_id());
    }
}
