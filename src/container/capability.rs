//! Capabilities as the user names them, and the set that a container gets: masks, bit n for capability n.

use crate::error::{Error, Kind, Result};

/// Every capability of Linux 5.9 and later by number (linux/capability.h), without its `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All of them, and those that a newer kernel may add.
pub const ALL: u64 = u64::MAX;

/// What an ordinary container gets: the fourteen of Docker (moby, oci/caps/defaults.go): CHOWN, DAC_OVERRIDE, FOWNER,
/// FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
pub const DEFAULT: u64 = 0xa804_25fb;

/// The set for `--cap-add` and `--cap-drop` (moby, oci/caps/utils.go, TweakCapabilities): ALL among the added is
/// everything but the dropped; ALL among the dropped is nothing but the added; else what is added and dropped stays.
pub fn resolve(add: &[String], drop: &[String]) -> Result<u64> {
    let (added, dropped) = (mask_of(add)?, mask_of(drop)?);
    let except = |names: &[String], mask: u64| if names_all(names) { 0 } else { mask };
    if names_all(add) {
        return Ok(ALL & !except(drop, dropped));
    }
    if names_all(drop) {
        return Ok(added);
    }
    Ok(DEFAULT & !dropped | added)
}

fn names_all(names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case("ALL"))
}

fn mask_of(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |mask, name| Ok(mask | bit(name)?))
}

/// One name, in any case, with or without `CAP_`.
fn bit(name: &str) -> Result<u64> {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(ALL);
    }
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let number = NAMES.iter().position(|known| *known == bare);
    number
        .map(|number| 1 << number)
        .ok_or_else(|| Error::new(Kind::Invalid, format!("invalid capability: \"{name}\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_docker_s() {
        let names = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP \
                     NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE";
        let names: Vec<String> = names.split_whitespace().map(str::to_string).collect();
        assert_eq!(mask_of(&names).unwrap(), DEFAULT);
    }

    #[test]
    fn adds_and_drops_as_docker_does() {
        const NET_ADMIN: u64 = 1 << 12;
        const CHOWN: u64 = 1;
        for (add, drop, expected) in [
            ("", "", DEFAULT),
            ("NET_ADMIN", "", DEFAULT | NET_ADMIN),
            ("cap_net_admin", "CAP_CHOWN", (DEFAULT | NET_ADMIN) & !CHOWN),
            ("", "all", 0),
            ("NET_ADMIN", "ALL", NET_ADMIN),
            ("ALL", "CHOWN", ALL & !CHOWN),
            ("ALL", "ALL", ALL),
            ("CHOWN", "CHOWN", DEFAULT),
        ] {
            let list = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
            assert_eq!(resolve(&list(add), &list(drop)).unwrap(), expected, "+{add} -{drop}");
        }
        let error = resolve(&["NET_ADMIM".into()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "invalid capability: \"NET_ADMIM\"");
    }
}
