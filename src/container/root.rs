//! The container's file system as steps: the overlay, the kernel's own file systems, devices, binds, and what is hidden.
//!
//! Everything but the overlay is mounted after the root was entered by chroot, so that no `..` and no link of the image
//! leads to the host; and every path that the image or the user has a say in goes through `sys::resolve`, which refuses
//! the links of /proc that would. The host's side of a bind is a descriptor that was opened before. Only when all is
//! mounted does pivot_root make the container's root that of the mount namespace: between pivot_root and the detaching
//! of the old root, which then lies on top of the new one, `..` would lead there.
//!
//! There is no device cgroup behind this, and a container has CAP_MKNOD, as under Docker. So device nodes work only
//! where this file puts them: the root, /dev and the binds of an unprivileged container are nodev, and each standard
//! device is a mount of its own.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::sys::mount::{MountFlags, Restriction};
use crate::sys::rooted::Device;

use super::command::c_string;
use super::step::{Mount, Step};
use super::{Bind, Host, Spec};

/// The most lower directories that overlayfs takes (OVL_MAX_STACK, fs/overlayfs/params.c).
const MAX_LOWERS: usize = 500;
/// The most binds, each of which holds a descriptor open during the start.
const MAX_BINDS: usize = 256;

/// Hidden from unprivileged containers (moby, oci/defaults.go, MaskedPaths).
const MASKED: [&CStr; 12] = [
    c"/proc/asound",
    c"/proc/acpi",
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/timer_list",
    c"/proc/timer_stats",
    c"/proc/sched_debug",
    c"/proc/scsi",
    c"/sys/firmware",
    c"/sys/devices/virtual/powercap",
];

/// Not writable by unprivileged containers (moby, oci/defaults.go, ReadonlyPaths).
const READ_ONLY: [&CStr; 5] =
    [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];

/// The devices of every container (runc, specconv.AllowedDevices), by their numbers in Documentation/admin-guide/devices.txt.
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];

/// Links in /dev (runc, setupDevSymlinks; setupPtmx).
const LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"/proc/kcore", c"/dev/core"),
    (c"pts/ptmx", c"/dev/ptmx"),
];

/// Mounts the layers and enters them. The directories are named by links in a tmpfs of their own: mount(2) takes one
/// page of options, too short for the paths of many layers, and the container's /proc/self/mountinfo then shows no
/// path of the host.
pub fn overlay_steps(spec: &Spec, steps: &mut Vec<Step>) -> Result<()> {
    let count = spec.lowers.len();
    if count == 0 || count > MAX_LOWERS {
        let message =
            format!("mount overlay of {count} layers: from 1 to {MAX_LOWERS} are possible");
        return Err(Error::new(Kind::Invalid, message));
    }
    let mountpoint = host_path(&spec.mountpoint)?;
    let private = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    steps.push(mount(c"tmpfs", mountpoint.clone(), private, "mode=700", false));
    steps.push(Step::ChangeDirectory(mountpoint.clone()));
    let mut names = Vec::with_capacity(count);
    for (number, lower) in spec.lowers.iter().enumerate() {
        names.push(number.to_string());
        steps.push(link(host_path(lower)?, c_string(number.to_string().as_bytes(), "link")?));
    }
    steps.push(link(host_path(&spec.upper)?, c"u".into()));
    steps.push(link(host_path(&spec.work)?, c"w".into()));
    let data = format!("lowerdir={},upperdir=u,workdir=w", names.join(":"));
    let flags = if spec.privileged { MountFlags::empty() } else { MountFlags::NODEV };
    steps.push(mount(c"overlay", mountpoint.clone(), flags, &data, false));
    steps.push(Step::ChangeDirectory(mountpoint));
    steps.push(Step::EnterRoot);
    Ok(())
}

/// Mounts the kernel's file systems and fills /dev, except where the user binds something of the host's (moby,
/// oci/defaults.go, and daemon/oci_linux.go, WithMounts).
pub fn system_steps(spec: &Spec, host: &Host, steps: &mut Vec<Step>) {
    const STRICT: MountFlags =
        MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
    let terminal_flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let sys_flags = if spec.privileged { STRICT } else { STRICT | MountFlags::RDONLY };
    let taken = |target: &str| spec.mounts.iter().any(|bind| bind.target == target);
    let mut system = |kind: &'static CStr, target: &CStr, flags, data: &str| {
        let optional = kind == c"mqueue";
        let below_dev = target.to_bytes().starts_with(b"/dev/") && taken("/dev");
        // The rest of the plan needs /proc; the user's is mounted on top.
        if kind == c"proc" || !below_dev && !taken(&target.to_string_lossy()) {
            steps.push(mount(kind, target.into(), flags, data, optional));
        }
    };
    system(c"proc", c"/proc", STRICT, "");
    system(c"sysfs", c"/sys", sys_flags, "");
    system(c"tmpfs", c"/dev", MountFlags::NOSUID | MountFlags::STRICTATIME, "mode=755,size=65536k");
    let data = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    system(c"devpts", c"/dev/pts", terminal_flags, data);
    system(c"tmpfs", c"/dev/shm", STRICT, "mode=1777,size=65536k");
    system(c"mqueue", c"/dev/mqueue", STRICT, "");
    if !taken("/dev") {
        device_steps(spec, host, steps);
    }
}

/// What is left to do for /dev when the binds are there.
pub fn terminal_steps(spec: &Spec, steps: &mut Vec<Step>) {
    if spec.tty {
        steps.push(Step::OpenTerminal);
    }
    if !spec.privileged && !spec.mounts.iter().any(|bind| bind.target == "/dev") {
        steps.push(Step::ForbidDevices(c"/dev"));
    }
}

fn device_steps(spec: &Spec, host: &Host, steps: &mut Vec<Step>) {
    for (path, major, minor) in DEVICES {
        let device = Device { block: false, major, minor, mode: 0o666, uid: 0, gid: 0 };
        steps.push(Step::MakeDevice { path: path.into(), device, alone: !spec.privileged });
    }
    steps.extend(LINKS.iter().map(|(target, path)| link((*target).into(), (*path).into())));
    if !spec.privileged {
        return;
    }
    let known = |path: &CString| {
        DEVICES.iter().any(|(name, ..)| *name == path.as_c_str()) || path.as_c_str() == c"/dev/ptmx"
    };
    for (path, device) in host.devices.iter().filter(|(path, _)| !known(path)) {
        steps.push(Step::MakeDevice { path: path.clone(), device: *device, alone: false });
    }
}

/// The mounts below a root that cannot be pivoted away, and the tmpfs of `overlay_steps`, which is the last.
pub fn left_mounts(spec: &Spec, host: &Host) -> Result<Vec<CString>> {
    let mountpoint = spec.mountpoint.strip_prefix("/").unwrap_or(&spec.mountpoint);
    let mut mounts = host.initial_mounts.clone();
    mounts.push(c_string(mountpoint.as_os_str().as_bytes(), "path")?);
    Ok(mounts)
}

/// The user's binds, those above first, so that one inside another is not covered. The steps to take before the root
/// is entered, and those after.
pub fn bind_steps(spec: &Spec) -> Result<(Vec<Step>, Vec<Step>)> {
    if spec.mounts.len() > MAX_BINDS {
        let message = format!("{} mounts, the limit is {MAX_BINDS}", spec.mounts.len());
        return Err(Error::new(Kind::Invalid, message));
    }
    let depth = |bind: &Bind| bind.target.split('/').filter(|part| !part.is_empty()).count();
    let mut order: Vec<(usize, usize)> =
        spec.mounts.iter().enumerate().map(|(index, bind)| (depth(bind), index)).collect();
    order.sort_unstable();
    let binds = order.into_iter().filter_map(|(_, index)| spec.mounts.get(index));
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (source, bind) in binds.enumerate() {
        if !bind.target.starts_with('/') || bind.target.trim_matches('/').is_empty() {
            let message = format!(
                "mount on \"{}\": the target must be an absolute path other than /",
                bind.target
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        before.push(Step::OpenSource(host_path(&bind.source)?));
        let restriction = Restriction { read_only: bind.read_only, no_devices: !spec.privileged };
        let target = c_string(bind.target.trim_end_matches('/').as_bytes(), "mount target")?;
        after.push(Step::Bind { source, target, restriction });
    }
    Ok((before, after))
}

/// Hides and protects what belongs to the host's kernel.
pub fn masking_steps(spec: &Spec, steps: &mut Vec<Step>) {
    if !spec.privileged {
        steps.extend(READ_ONLY.map(Step::MakeReadOnly));
        steps.extend(MASKED.map(Step::Mask));
    }
}

fn mount(
    kind: &'static CStr,
    target: CString,
    flags: MountFlags,
    data: &str,
    optional: bool,
) -> Step {
    // Cannot be lost: the options are numbers and words of this file.
    let data = CString::new(data).unwrap_or_default();
    Step::Mount(Mount { kind, target, flags, data, optional })
}

fn link(target: CString, path: CString) -> Step {
    Step::Link { target, path }
}

/// An absolute path of the host for the kernel.
fn host_path(path: &Path) -> Result<CString> {
    if !path.is_absolute() {
        let message = format!("path \"{}\": must be absolute", path.display());
        return Err(Error::new(Kind::Invalid, message));
    }
    c_string(path.as_os_str().as_bytes(), "path")
}
