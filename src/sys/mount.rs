//! Mounts by the classic mount(2), which every kernel and qemu-user has; mount_setattr(2) is used where it is there,
//! for what only it can do. Nothing here allocates: a forked child calls it.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
pub use rustix::mount::MountFlags;
use rustix::mount::{self, MountPropagationFlags, UnmountFlags};

use super::process::last_error;

/// Mounts a new file system of type `kind`; `data` are its own options.
pub fn mount(kind: &CStr, target: &CStr, flags: MountFlags, data: &CStr) -> Result<(), Errno> {
    mount::mount(kind, target, kind, flags, Some(data))
}

/// Shows what `source` names at `target` too, with the mounts below it.
pub fn bind(source: &CStr, target: &CStr) -> Result<(), Errno> {
    mount::mount_bind_recursive(source, target)
}

/// The same for an open descriptor, O_PATH or not. `/proc` must be mounted.
pub fn bind_descriptor(source: &OwnedFd, target: &CStr) -> Result<(), Errno> {
    bind(descriptor_path(source, "").as_c_str()?, target)
}

/// The same for `path` below an open directory; `path` begins with a slash.
pub fn bind_below(directory: &OwnedFd, path: &str, target: &CStr) -> Result<(), Errno> {
    bind(descriptor_path(directory, path).as_c_str()?, target)
}

/// A path of bounded length that ends in a zero, made without allocating.
struct DescriptorPath(heapless::String<DESCRIPTOR_PATH_BYTES>);

const DESCRIPTOR_PATH_BYTES: usize = 128;

fn descriptor_path(fd: &OwnedFd, below: &str) -> DescriptorPath {
    use std::fmt::Write;
    use std::os::fd::AsRawFd;
    let mut path = heapless::String::new();
    // A path that does not fit lacks its final zero and is refused by as_c_str.
    let _ = write!(path, "/proc/self/fd/{}{below}\0", fd.as_raw_fd());
    DescriptorPath(path)
}

impl DescriptorPath {
    fn as_c_str(&self) -> Result<&CStr, Errno> {
        CStr::from_bytes_with_nul(self.0.as_bytes()).map_err(|_| Errno::NAMETOOLONG)
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

/// Makes the working directory, which must be a mount point, the root, with the old root stacked on it
/// (pivot_root(2), "pivot_root(".", ".")").
pub fn pivot_to_working_directory() -> Result<(), Errno> {
    rustix::process::pivot_root(c".", c".")
}

/// The same by moving the mount onto `/` and chroot: for a root that is the kernel's initial rootfs, which cannot be
/// pivoted away. `..` cannot lead out: the mount is the topmost on the namespace's root.
pub fn move_working_directory_to_root() -> Result<(), Errno> {
    mount::mount_move(c".", c"/")?;
    rustix::process::chroot(c".")
}

/// Takes a mount and all below it out of the namespace, though in use.
pub fn detach(target: &CStr) -> Result<(), Errno> {
    mount::unmount(target, UnmountFlags::DETACH)
}
