//! Facts about the machine that a plan depends on.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use crate::sys;
use crate::sys::rooted::Device;

/// What was found out about the machine. `Host::probe` fills it; tests write it out.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Whether the caller may make containers.
    pub is_root: bool,
    /// The device nodes below /dev, for privileged containers.
    pub devices: Vec<(CString, Device)>,
    /// Whether the root is the kernel's initial rootfs, which cannot be pivoted away.
    pub is_initial: bool,
    /// The mount points other than `/`, without their first slash, if the root is the initial one; else none.
    pub initial_mounts: Vec<CString>,
}

/// The most device nodes taken from the host.
const MAX_DEVICES: usize = 4096;

impl Host {
    /// Looks at this machine. What cannot be read (no /proc, no /dev) counts as empty; devices are looked for only if
    /// `privileged`.
    pub fn probe(privileged: bool) -> Host {
        let initial = sys::host::root_is_initial();
        Host {
            is_root: sys::host::is_root(),
            devices: if privileged { devices() } else { Vec::new() },
            is_initial: initial,
            initial_mounts: if initial { mount_points() } else { Vec::new() },
        }
    }
}

fn mount_points() -> Vec<CString> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let fields = text.split(|byte| *byte == b'\n').filter_map(|line| {
        line.split(|byte| *byte == b' ').nth(4).map(unescape).filter(|path| path.len() > 1)
    });
    fields.filter_map(|path| CString::new(path.get(1..)?).ok()).collect()
}

/// Undoes the octal escapes of proc_pid_mountinfo(5): `\040` is a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(|_| byte == b'\\') {
            Some(code) => {
                text.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                text.push(byte);
                rest = after;
            }
        }
    }
    text
}

/// Every node below /dev but those that a container has of its own: terminals, /dev/shm and the like (moby,
/// oci/devices_linux.go, HostDevices).
fn devices() -> Vec<(CString, Device)> {
    const OWN: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
    let mut found = Vec::new();
    let mut directories = vec![std::path::PathBuf::from("/dev")];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && !OWN.iter().any(|own| name == *own) {
                directories.push(path);
            } else if name != "console" && found.len() < MAX_DEVICES {
                let device = sys::rooted::device_of(&path);
                let path = CString::new(path.into_os_string().into_vec()).ok();
                found.extend(path.zip(device));
            }
        }
    }
    found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undoes_escapes() {
        for (field, text) in [
            ("/a", "/a"),
            (r"/a\040b\134", "/a b\\"),
            (r"/\04", r"/\04"),
            (r"/\999", r"/\999"),
            ("/040", "/040"),
        ] {
            assert_eq!(unescape(field.as_bytes()), text.as_bytes());
        }
    }
}
