//! The steps from a fork to a container's command: data that a child can act on without allocating.
//!
//! Parent and child hold the same list. The child walks it (`enter`); if a step fails it sends the step's number, and
//! the parent has the words (`failure`). `Display` is those words; `{:#}` adds what tests look at.

use std::ffi::{CStr, CString};
use std::fmt;

use crate::sys::mount::{MountFlags, Restriction};
use crate::sys::process::Namespace;
use crate::sys::rooted::Device;

use super::account::Request;

/// One thing to do.
pub enum Step {
    /// Be killed when the parent ends.
    DieWithParent,
    /// Leave the caller's session and its controlling terminal.
    StartSession,
    /// Set the file mode creation mask.
    SetUmask(u32),
    /// Get a namespace.
    Unshare(Namespace),
    /// Cut the mounts off from the host's.
    MakeMountsPrivate,
    /// Keep hold of the host's root until `LeaveHost`.
    HoldHostRoot,
    /// Open a host path for a later `Bind`; they are used in the order in which they were opened.
    OpenSource(CString),
    /// Mount a new file system.
    Mount(Mount),
    /// Change to a directory of the host.
    ChangeDirectory(CString),
    /// Change to the command's working directory, which is made if missing.
    EnterWorkingDirectory(CString),
    /// Make a symbolic link.
    Link {
        /// What it says.
        target: CString,
        /// Where it is.
        path: CString,
    },
    /// Make the working directory, which is the overlay, the root of the child alone: from here on no path leads out.
    EnterRoot,
    /// Make a device node; where mknod is refused, show the host's.
    MakeDevice {
        /// Its path, the same on the host.
        path: CString,
        /// What it is.
        device: Device,
        /// Whether to mount it onto itself, so that a directory without devices can hold it.
        alone: bool,
    },
    /// Open the container's terminal and send the parent its master.
    OpenTerminal,
    /// Show the opened host path with this number.
    Bind {
        /// Among the `OpenSource` steps, from 0.
        source: usize,
        /// Where.
        target: CString,
        /// What is not allowed there.
        restriction: Restriction,
    },
    /// Make the container's root that of its mount namespace and let go of the host's.
    LeaveHost {
        /// The host's other mount points relative to its root, for a root that cannot be pivoted away.
        mounts: Vec<CString>,
        /// Whether it is such a root. Any other that refuses (a chroot, a shared parent) must not be covered instead: it
        /// would stay within reach.
        is_initial: bool,
    },
    /// Hide a file or directory of /proc or /sys; nothing if it is not there.
    Mask(&'static CStr),
    /// Forbid writing below a path, nothing if it is not there; for the root, to its own mount only.
    MakeReadOnly(&'static CStr),
    /// Forbid device nodes on the mount at a path.
    ForbidDevices(&'static CStr),
    /// Set the host name.
    SetHostname(CString),
    /// Bring `lo` up.
    BringLoopbackUp,
    /// Look the user up in the container.
    LookUpUser(Request),
    /// Put the container's standard descriptors in place.
    SetStdio {
        /// All three are the terminal.
        tty: bool,
        /// Standard input is the caller's.
        stdin: bool,
    },
    /// Close what was inherited, but for the standard descriptors: a link of /proc/self/fd would lead to the host.
    CloseDescriptors,
    /// Reduce the capability bounding set.
    BoundCapabilities(u64),
    /// Become the user that was looked up.
    ChangeUser,
    /// Reduce the capabilities in force.
    ReduceCapabilities(u64),
    /// Forbid new privileges.
    ForbidNewPrivileges,
    /// Signals as a new program expects them.
    ResetSignals,
    /// Become the command.
    Execute,
}

/// The arguments of mount(2).
pub struct Mount {
    /// File system type.
    pub kind: &'static CStr,
    /// Mount point, made if missing.
    pub target: CString,
    /// Per-mount flags.
    pub flags: MountFlags,
    /// The file system's own options.
    pub data: CString,
    /// Whether a kernel without this file system is good enough.
    pub optional: bool,
}

/// A path or name as it is shown.
fn show(text: &CStr) -> std::borrow::Cow<'_, str> {
    text.to_string_lossy()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = f.alternate();
        match self {
            Step::DieWithParent => f.write_str("tie the container to its parent"),
            Step::StartSession => f.write_str("start a session"),
            Step::SetUmask(mask) => write!(f, "set umask {mask:04o}"),
            Step::Unshare(namespace) => write!(f, "unshare {} namespace", name_of(*namespace)),
            Step::MakeMountsPrivate => f.write_str("make mounts private"),
            Step::HoldHostRoot => f.write_str("open the host's root"),
            Step::OpenSource(path) => write!(f, "open mount source \"{}\"", show(path)),
            Step::Mount(mount) => mount.fmt(f),
            Step::ChangeDirectory(path) | Step::EnterWorkingDirectory(path) => {
                write!(f, "change directory to \"{}\"", show(path))
            }
            Step::Link { target, path } => write!(f, "link {} to {}", show(path), show(target)),
            Step::EnterRoot => f.write_str("enter the container's root"),
            Step::MakeDevice { path, device, alone } => {
                write!(f, "make device \"{}\"", show(path))?;
                match detail {
                    true => show_device(f, device, *alone),
                    false => Ok(()),
                }
            }
            Step::OpenTerminal => f.write_str("open the container's terminal"),
            Step::Bind { source, target, restriction } => {
                write!(f, "bind mount on \"{}\"", show(target))?;
                match detail {
                    true => write!(f, " (source {source}{})", options(*restriction)),
                    false => Ok(()),
                }
            }
            Step::LeaveHost { .. } => f.write_str("detach the host's root"),
            Step::Mask(path) => write!(f, "mask \"{}\"", show(path)),
            Step::MakeReadOnly(path) => write!(f, "make \"{}\" read-only", show(path)),
            Step::ForbidDevices(path) => write!(f, "forbid devices on \"{}\"", show(path)),
            Step::SetHostname(name) => write!(f, "set host name \"{}\"", show(name)),
            Step::BringLoopbackUp => f.write_str("bring lo up"),
            Step::LookUpUser(_) => f.write_str("look up user"),
            Step::SetStdio { tty, stdin } => {
                f.write_str("set up stdin, stdout and stderr")?;
                match (detail, tty, stdin) {
                    (true, true, _) => f.write_str(" (terminal)"),
                    (true, false, true) => f.write_str(" (inherited)"),
                    _ => Ok(()),
                }
            }
            Step::CloseDescriptors => f.write_str("close inherited descriptors"),
            Step::BoundCapabilities(mask) if detail => write!(f, "bound capabilities ({mask:x})"),
            Step::BoundCapabilities(_) => f.write_str("bound capabilities"),
            Step::ChangeUser => f.write_str("change user"),
            Step::ReduceCapabilities(mask) if detail => write!(f, "set capabilities ({mask:x})"),
            Step::ReduceCapabilities(_) => f.write_str("set capabilities"),
            Step::ForbidNewPrivileges => f.write_str("set no_new_privs"),
            Step::ResetSignals => f.write_str("reset signals"),
            Step::Execute => f.write_str("execute the command"),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mount {} on \"{}\"", show(self.kind), show(&self.target))?;
        if !f.alternate() {
            return Ok(());
        }
        let names = [
            (MountFlags::RDONLY, "ro"),
            (MountFlags::NOSUID, "nosuid"),
            (MountFlags::NODEV, "nodev"),
            (MountFlags::NOEXEC, "noexec"),
        ];
        let mut all: Vec<&str> =
            names.iter().filter(|(flag, _)| self.flags.contains(*flag)).map(|(_, n)| *n).collect();
        let data = show(&self.data);
        all.extend(Some(data.as_ref()).filter(|data| !data.is_empty()));
        all.extend(self.optional.then_some("optional"));
        write!(f, " ({})", all.join(","))
    }
}

fn options(restriction: Restriction) -> String {
    let read_only = if restriction.read_only { ", ro" } else { "" };
    let no_devices = if restriction.no_devices { ", nodev" } else { "" };
    format!("{read_only}{no_devices}")
}

fn show_device(f: &mut fmt::Formatter<'_>, device: &Device, alone: bool) -> fmt::Result {
    let kind = if device.block { 'b' } else { 'c' };
    let alone = if alone { ", alone" } else { "" };
    write!(f, " ({kind} {}:{} {:o}{alone})", device.major, device.minor, device.mode)
}

/// The word for a namespace in messages.
pub fn name_of(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::Pid => "pid",
        Namespace::Mount => "mount",
        Namespace::Uts => "uts",
        Namespace::Ipc => "ipc",
        Namespace::Network => "network",
        Namespace::Cgroup => "cgroup",
    }
}
