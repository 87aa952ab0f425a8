//! Making, moving and describing the nodes of a file system, relative to an open directory.
//!
//! Names are single components: `sys::beneath` finds the directory first. Nothing here follows a symlink.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::fault;

/// Owner, permissions and time of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-user-ID, set-group-ID and sticky: 0o7777 at most.
    pub mode: u32,
    /// Owner; not `u32::MAX`, which the kernel takes for "leave it".
    pub uid: u32,
    /// Group; not `u32::MAX`.
    pub gid: u32,
    /// Last modification.
    pub mtime: Mtime,
}

/// A time of last modification since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mtime {
    /// Whole seconds.
    pub seconds: i64,
    /// Under 10^9.
    pub nanoseconds: u32,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// The character device 0:0: overlayfs's mark for "not in this directory any more" (overlayfs.rst, "whiteouts").
    Whiteout,
    /// Any other: device, FIFO, socket.
    Other,
}

/// An extended attribute: name with its namespace, and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What `name` in `dir` is, or `None` when it is not there.
pub fn kind_at(dir: BorrowedFd, name: &[u8]) -> io::Result<Option<NodeKind>> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(kind_of(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn kind_of(stat: &Stat) -> NodeKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::CharacterDevice if stat.st_rdev == 0 => NodeKind::Whiteout,
        _ => NodeKind::Other,
    }
}

/// When the open file or directory was last modified.
#[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // the fields' types differ between targets
pub fn mtime(node: BorrowedFd) -> io::Result<Mtime> {
    let stat = fs::fstat(node)?;
    Ok(Mtime { seconds: stat.st_mtime as i64, nanoseconds: stat.st_mtime_nsec as u32 })
}

/// Sets the time of last modification of an open file or directory; the time of last access becomes the same.
pub fn set_mtime(node: BorrowedFd, mtime: Mtime) -> io::Result<()> {
    Ok(fs::futimens(node, &timestamps(mtime))?)
}

fn timestamps(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets everything on an open file or directory. The order matters: a change of owner clears set-user-ID and capabilities.
pub fn set_attributes(
    node: BorrowedFd,
    attributes: &Attributes,
    xattrs: &[Xattr],
) -> io::Result<()> {
    let Attributes { mode, uid, gid, mtime } = *attributes;
    fs::fchown(node, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    fs::fchmod(node, Mode::from_raw_mode(mode as _))?;
    for (name, value) in xattrs {
        accept_unsupported(set_xattr(node, name, value))?;
    }
    set_mtime(node, mtime)
}

/// Attributes of a kind that the file system or kernel does not know, such as another system's security labels, are left
/// out, as Docker and GNU tar leave them out.
fn accept_unsupported(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// The same on a node that is not to be opened: a symlink (which has no permissions of its own), a FIFO, a device.
pub fn set_attributes_at(
    dir: BorrowedFd,
    name: &[u8],
    attributes: &Attributes,
    xattrs: &[Xattr],
    symlink: bool,
) -> io::Result<()> {
    let Attributes { mode, uid, gid, mtime } = *attributes;
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fs::chownat(dir, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
    if !symlink {
        fs::chmodat(dir, name, Mode::from_raw_mode(mode as _), AtFlags::empty())?;
    }
    for (key, value) in xattrs {
        // The kernel gives attributes of the user's namespace to files and directories only (xattr(7)).
        if !key.starts_with(b"user.") {
            accept_unsupported(set_xattr_at(dir, name, key, value))?;
        }
    }
    Ok(fs::utimensat(dir, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets an extended attribute of an open file or directory (fsetxattr(2)).
pub fn set_xattr(node: BorrowedFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(fs::fsetxattr(node, name, value, XattrFlags::empty())?)
}

/// Removes an extended attribute of an open file or directory (fremovexattr(2)).
pub fn remove_xattr(node: BorrowedFd, name: &[u8]) -> io::Result<()> {
    Ok(fs::fremovexattr(node, name)?)
}

/// The largest value that an extended attribute can have (xattr(7)).
const MAX_XATTR_BYTES: usize = 64 << 10;

/// The value of an extended attribute of an open file or directory, or `None` when it has none of that name.
pub fn xattr(node: BorrowedFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(MAX_XATTR_BYTES);
    match fs::fgetxattr(node, name, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// There is no lsetxattr relative to a directory before Linux 6.13: the way leads through /proc.
fn set_xattr_at(dir: BorrowedFd, name: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = CString::new(path)?;
    Ok(fs::lsetxattr(path, key, value, XattrFlags::empty())?)
}

/// Makes a symlink.
pub fn make_symlink(target: &[u8], dir: BorrowedFd, name: &[u8]) -> io::Result<()> {
    Ok(fs::symlinkat(target, dir, name)?)
}

/// Makes a hard link to `from`; a symlink is linked itself, not what it points to.
pub fn make_link(
    from_dir: BorrowedFd,
    from: &[u8],
    dir: BorrowedFd,
    name: &[u8],
) -> io::Result<()> {
    Ok(fs::linkat(from_dir, from, dir, name, AtFlags::empty())?)
}

/// Makes a FIFO with permissions 0600.
pub fn make_fifo(dir: BorrowedFd, name: &[u8]) -> io::Result<()> {
    Ok(fs::mknodat(dir, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?)
}

/// Makes a character device with permissions 0600; 0:0 is an overlayfs whiteout.
pub fn make_character_device(
    dir: BorrowedFd,
    name: &[u8],
    major: u32,
    minor: u32,
) -> io::Result<()> {
    let device = fs::makedev(major, minor);
    let mode = Mode::from_raw_mode(0o600);
    Ok(fs::mknodat(dir, name, FileType::CharacterDevice, mode, device)?)
}

/// Moves a node within one file system, over what `new_name` is if that is possible (rename(2)).
pub fn rename(
    dir: BorrowedFd,
    name: &[u8],
    new_dir: BorrowedFd,
    new_name: &[u8],
) -> io::Result<()> {
    fault::before("rename in a stage")?;
    fs::renameat(dir, name, new_dir, new_name)?;
    fault::after("rename in a stage");
    Ok(())
}

/// Removes a node that is not a directory.
pub fn remove(dir: BorrowedFd, name: &[u8]) -> io::Result<()> {
    Ok(fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Sets the length of a file.
pub fn set_length(file: &std::fs::File, bytes: u64) -> io::Result<()> {
    Ok(fs::ftruncate(file.as_fd(), bytes)?)
}

/// Whether this process may do what only root may: set owners, make devices.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
