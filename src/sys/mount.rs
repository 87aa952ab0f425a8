//! Mounts by the classic mount(2), which every kernel and qemu-user has; mount_setattr(2) is used where it is there,
//! for what only it can do. Nothing here allocates: a forked child calls it.

use std::ffi::CStr;
use std::fmt::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
pub use rustix::mount::MountFlags;
use rustix::mount::{self, MountPropagationFlags, UnmountFlags};

use super::process::last_error;

/// Mounts a new file system of type `kind`; `data` are its own options.
pub fn mount(kind: &CStr, target: &CStr, flags: MountFlags, data: &CStr) -> Result<(), Errno> {
    mount_named(kind, kind, target, flags, data)
}

/// The same under a name, which only people and /proc/self/mountinfo see.
pub fn mount_named(
    name: &CStr,
    kind: &CStr,
    target: &CStr,
    flags: MountFlags,
    data: &CStr,
) -> Result<(), Errno> {
    mount::mount(name, target, kind, flags, Some(data))
}

/// Shows what `source` names at `target` too, with the mounts below it.
pub fn bind(source: &CStr, target: &CStr) -> Result<(), Errno> {
    mount::mount_bind_recursive(source, target)
}

/// The same for what is below an open directory of another root; `path` begins with a slash.
pub fn bind_below(directory: &OwnedFd, path: &str, target: &CStr) -> Result<(), Errno> {
    bind(DescriptorPath::below(directory, path)?.as_c_str()?, target)
}

/// The path of an open descriptor, O_PATH or not, made without allocating. `/proc` must be mounted where it is used.
pub struct DescriptorPath(heapless::String<DESCRIPTOR_PATH_BYTES>);

const DESCRIPTOR_PATH_BYTES: usize = 128;

impl DescriptorPath {
    /// Of the descriptor itself.
    pub fn of(fd: &OwnedFd) -> Result<DescriptorPath, Errno> {
        DescriptorPath::below(fd, "")
    }

    fn below(fd: &OwnedFd, path: &str) -> Result<DescriptorPath, Errno> {
        let mut text = heapless::String::new();
        write!(text, "/proc/self/fd/{}{path}\0", fd.as_raw_fd()).map_err(|_| Errno::NAMETOOLONG)?;
        Ok(DescriptorPath(text))
    }

    /// For the kernel.
    pub fn as_c_str(&self) -> Result<&CStr, Errno> {
        CStr::from_bytes_with_nul(self.0.as_bytes()).map_err(|_| Errno::INVAL)
    }
}

/// What `restrict` forbids below a mount point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restriction {
    /// Writing.
    pub read_only: bool,
    /// Opening device nodes.
    pub no_devices: bool,
}

/// Adds restrictions to the mount at `target`, and to all mounts below it where the kernel has mount_setattr (Linux
/// 5.12); older kernels restrict the one at `target` alone.
pub fn restrict(target: &CStr, restriction: Restriction) -> Result<(), Errno> {
    match restrict_recursively(target, restriction) {
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => restrict_one(target, restriction),
        result => result,
    }
}

/// Adds restrictions to the one mount at `target` and keeps those that it has.
pub fn restrict_one(target: &CStr, restriction: Restriction) -> Result<(), Errno> {
    let present = rustix::fs::statvfs(target)?.f_flag;
    let mut flags = MountFlags::BIND;
    for (stat, flag) in [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        flags.set(flag, present.contains(stat));
    }
    flags.set(MountFlags::RDONLY, flags.contains(MountFlags::RDONLY) || restriction.read_only);
    flags.set(MountFlags::NODEV, flags.contains(MountFlags::NODEV) || restriction.no_devices);
    mount::mount_remount(target, flags, c"")
}

/// `struct mount_attr` (mount_setattr(2)).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn restrict_recursively(target: &CStr, restriction: Restriction) -> Result<(), Errno> {
    const AT_RECURSIVE: libc::c_uint = 0x8000;
    const MOUNT_ATTR_RDONLY: u64 = 1;
    const MOUNT_ATTR_NODEV: u64 = 4;
    let set = u64::from(restriction.read_only) * MOUNT_ATTR_RDONLY
        + u64::from(restriction.no_devices) * MOUNT_ATTR_NODEV;
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: the path ends in a zero, and the kernel reads as many bytes of `attributes` as the last argument says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            AT_RECURSIVE,
            &attributes as *const MountAttributes,
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Cuts all mounts of the namespace off from those of other namespaces: nothing mounted here shows elsewhere.
pub fn make_all_private() -> Result<(), Errno> {
    mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// Makes the working directory the root of the process, not of its mount namespace.
pub fn change_root_to_working_directory() -> Result<(), Errno> {
    rustix::process::chroot(c".")
}

/// Makes the working directory, which must be a mount point, the root of the mount namespace, with the old root stacked
/// on it: until that is detached, `..` from the new root leads into the old one (pivot_root(2), "pivot_root(".", ".")").
pub fn pivot_to_working_directory() -> Result<(), Errno> {
    rustix::process::pivot_root(c".", c".")
}

/// The same by moving the mount onto `/` and chroot: for a root that is the kernel's initial rootfs, which cannot be
/// pivoted away. `..` cannot lead out: the mount is the topmost on the namespace's root.
pub fn move_working_directory_to_root() -> Result<(), Errno> {
    mount::mount_move(c".", c"/")?;
    rustix::process::chroot(c".")
}

/// Takes away the mount at `target`, unless it is in use (EBUSY) or none (EINVAL).
pub fn unmount(target: &CStr) -> Result<(), Errno> {
    mount::unmount(target, UnmountFlags::NOFOLLOW)
}

/// Takes a mount and all below it out of the namespace, though in use.
pub fn detach(target: &CStr) -> Result<(), Errno> {
    mount::unmount(target, UnmountFlags::DETACH)
}
