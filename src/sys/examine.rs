//! Looking at the nodes of a tree without changing them: what they are, whose, and which extended attributes they have.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, RawDir};
use rustix::io::Errno;

use super::node::{Attributes, Mtime};

/// What `fs::listxattr` may give for one node (xattr(7), XATTR_LIST_MAX).
const MAX_XATTR_LIST_BYTES: usize = 64 << 10;
/// Entries are read in pieces of this size.
const BUFFER_BYTES: usize = 8192;

/// A node, as lstat(2) shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: FactKind,
    /// Owner, permissions, time.
    pub attributes: Attributes,
    /// The inode's number: equal for two names of one file.
    pub inode: u64,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactKind {
    /// A regular file and its length in bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symlink.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A character device, major and minor; 0:0 is a whiteout of overlayfs.
    CharacterDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A socket, or what the kernel may invent.
    Other,
}

/// What `name` in `dir` is, itself; `None` when it is not there.
#[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // the fields' types differ between targets
pub fn facts_at(dir: BorrowedFd, name: &[u8]) -> io::Result<Option<Facts>> {
    let stat = match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        found => found?,
    };
    let device = stat.st_rdev as fs::Dev;
    let (major, minor) = (fs::major(device), fs::minor(device));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FactKind::File(stat.st_size as u64),
        FileType::Directory => FactKind::Directory,
        FileType::Symlink => FactKind::Symlink,
        FileType::Fifo => FactKind::Fifo,
        FileType::CharacterDevice => FactKind::CharacterDevice(major, minor),
        FileType::BlockDevice => FactKind::BlockDevice(major, minor),
        _ => FactKind::Other,
    };
    let mtime = Mtime { seconds: stat.st_mtime as i64, nanoseconds: stat.st_mtime_nsec as u32 };
    let attributes = Attributes {
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime,
    };
    Ok(Some(Facts { kind, attributes, inode: stat.st_ino as u64 }))
}

/// Gives `each` every name in a directory but `.` and `..`, in no order, until it says no.
pub fn names(dir: BorrowedFd, each: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") && !each(name) {
            break;
        }
    }
    Ok(())
}

/// The names of the extended attributes of an open file or directory; none where there is no such thing.
pub fn xattr_names(node: BorrowedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut list = Vec::with_capacity(MAX_XATTR_LIST_BYTES);
    match fs::flistxattr(node, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let names = list.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// Whether the extended attribute `key` of an open file or directory is `value`; `None` if its file system has no
/// attributes of that kind.
pub fn has_xattr(node: BorrowedFd, key: &[u8], value: &[u8]) -> io::Result<Option<bool>> {
    match super::node::xattr(node, key) {
        Ok(found) => Ok(Some(found.as_deref() == Some(value))),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same for a node that is not to be opened.
pub fn has_xattr_at(
    dir: BorrowedFd,
    name: &[u8],
    key: &[u8],
    value: &[u8],
) -> io::Result<Option<bool>> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    // One byte more than it should have: what is longer differs.
    let mut found = Vec::with_capacity(value.len() + 1);
    match fs::lgetxattr(&path[..], key, rustix::buffer::spare_capacity(&mut found)) {
        Ok(_) => Ok(Some(found == value)),
        Err(Errno::NODATA | Errno::RANGE) => Ok(Some(false)),
        Err(Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The target of a symlink, as it is written.
pub fn link_target(dir: BorrowedFd, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}
