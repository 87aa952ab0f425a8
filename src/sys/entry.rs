//! What a directory holds: names, and all that a tar says of a node. Nothing here follows a symlink.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, RawDir, SeekFrom};
use rustix::io::Errno;

use super::node::{Attributes, Mtime, Xattr};

/// Entries of a directory are read in pieces of this size.
const BUFFER_BYTES: usize = 16 << 10;
/// The most that the names, or one value, of a node's attributes can take (xattr(7)).
const MAX_XATTR_BYTES: usize = 64 << 10;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Fifo,
    /// Major and minor.
    CharacterDevice(u32, u32),
    /// Major and minor.
    BlockDevice(u32, u32),
    Socket,
}

/// A node, without its content and its extended attributes.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Owner, permissions, time.
    pub attributes: Attributes,
    /// Length of a file in bytes.
    pub size: u64,
    /// What the file system has kept for it, in bytes: less than `size` if there are holes.
    pub allocated: u64,
    /// The same for all names of one node of a file system.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
}

/// The node called `name` in `dir`.
#[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // the fields' types differ between targets
pub fn entry_at(dir: BorrowedFd, name: &[u8]) -> io::Result<Entry> {
    let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let numbers = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::CharacterDevice => EntryKind::CharacterDevice(numbers.0, numbers.1),
        FileType::BlockDevice => EntryKind::BlockDevice(numbers.0, numbers.1),
        FileType::Socket => EntryKind::Socket,
        FileType::Unknown => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mtime = Mtime { seconds: stat.st_mtime as i64, nanoseconds: stat.st_mtime_nsec as u32 };
    let mode = stat.st_mode as u32 & 0o7777;
    Ok(Entry {
        kind,
        attributes: Attributes { mode, uid: stat.st_uid, gid: stat.st_gid, mtime },
        size: stat.st_size as u64,
        allocated: stat.st_blocks as u64 * 512,
        inode: stat.st_ino as u64,
        links: stat.st_nlink as u64,
    })
}

/// The names in an open directory, sorted by their bytes.
pub fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    fs::seek(dir, SeekFrom::Start(0))?;
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
    let mut names = Vec::new();
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.to_vec()),
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The target of the symlink called `name`.
pub fn link_target(dir: BorrowedFd, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// The extended attributes of an open file or directory, sorted by name.
pub fn xattrs(node: BorrowedFd) -> io::Result<Vec<Xattr>> {
    collect_xattrs(&mut |buffer| fs::flistxattr(node, buffer), &mut |name, buffer| {
        fs::fgetxattr(node, name, buffer)
    })
}

/// The same of a node that is not to be opened. The way leads through /proc; without it there are none.
pub fn xattrs_at(dir: BorrowedFd, name: &[u8]) -> io::Result<Vec<Xattr>> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = CString::new(path)?;
    let found = collect_xattrs(&mut |buffer| fs::llistxattr(&path, buffer), &mut |name, buffer| {
        fs::lgetxattr(&path, name, buffer)
    });
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found,
    }
}

/// Puts the value of the attribute of that name into a buffer and gives its length.
type GetXattr<'a> = &'a mut dyn FnMut(&[u8], &mut [u8]) -> Result<usize, Errno>;

fn collect_xattrs(
    list: &mut dyn FnMut(&mut [u8]) -> Result<usize, Errno>,
    get: GetXattr,
) -> io::Result<Vec<Xattr>> {
    let text = match filled(list) {
        // A file system that knows no attributes.
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        result => result?,
    };
    let mut found = Vec::new();
    for name in text.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match filled(&mut |buffer| get(name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Gone meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What a call puts into its buffer. Nearly always that is little, or nothing: a large buffer is made only when asked for.
fn filled(call: &mut dyn FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(count) => Ok(small.get(..count).unwrap_or_default().to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; MAX_XATTR_BYTES];
            let count = call(&mut large)?;
            large.truncate(count);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

/// A piece of a file that is not a hole: where it starts and how long it is, in bytes.
pub type Extent = (u64, u64);

/// The first piece with data at or after `offset`, as far as the file system tells holes (lseek(2), SEEK_DATA); `None` if
/// there is only a hole up to the end.
pub fn next_extent(file: &File, offset: u64, size: u64) -> io::Result<Option<Extent>> {
    let start = match fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) if start >= size => return Ok(None),
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not tell.
        Err(Errno::INVAL) if offset < size => return Ok(Some((offset, size - offset))),
        Err(Errno::INVAL) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = fs::seek(file, SeekFrom::Hole(start))?.min(size);
    Ok((end > start).then_some((start, end - start)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{file, node};
    use std::io::{Seek, Write};
    use std::os::fd::AsFd;

    #[test]
    fn describes_what_is_there() {
        let path = std::env::temp_dir().join(format!("vaquita-entry-{}", std::process::id()));
        fs_err::create_dir_all(path.join("b")).unwrap();
        let dir = file::open_directory(&path).unwrap();
        let mut sparse = file::create_file_at(dir.as_fd(), b"sparse").unwrap();
        sparse.seek(io::SeekFrom::Start(8 << 20)).unwrap();
        sparse.write_all(b"end").unwrap();
        node::make_symlink(b"target", dir.as_fd(), b"a").unwrap();
        node::make_fifo(dir.as_fd(), b"c").unwrap();
        node::make_link(dir.as_fd(), b"sparse", dir.as_fd(), b"d").unwrap();

        assert_eq!(names(&dir).unwrap(), [&b"a"[..], b"b", b"c", b"d", b"sparse"]);
        let kind = |name: &[u8]| entry_at(dir.as_fd(), name).unwrap().kind;
        assert_eq!((kind(b"a"), kind(b"b")), (EntryKind::Symlink, EntryKind::Directory));
        assert_eq!((kind(b"c"), kind(b"d")), (EntryKind::Fifo, EntryKind::File));
        assert_eq!(link_target(dir.as_fd(), b"a").unwrap(), b"target");
        let (one, two) = (entry_at(dir.as_fd(), b"d"), entry_at(dir.as_fd(), b"sparse"));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!((one.inode, one.links, one.size), (two.inode, 2, (8 << 20) + 3));
        // tmpfs and ext4 keep pages and blocks; some file systems know no holes at all.
        if two.allocated < 1 << 20 {
            let (start, length) = next_extent(&sparse, 0, two.size).unwrap().unwrap();
            assert_eq!((start + length, start > 7 << 20), (two.size, true));
            assert_eq!(next_extent(&sparse, two.size, two.size).unwrap(), None);
        }
        if node::set_xattr(sparse.as_fd(), b"user.b", b"2\0").is_ok() {
            node::set_xattr(sparse.as_fd(), b"user.a", &[7; 1000]).unwrap();
            let expected = [(b"user.a".to_vec(), vec![7; 1000]), (b"user.b".into(), b"2\0".into())];
            let user = |(name, _): &Xattr| name.starts_with(b"user.");
            for found in [xattrs(sparse.as_fd()), xattrs_at(dir.as_fd(), b"sparse")] {
                let found: Vec<Xattr> = found.unwrap().into_iter().filter(user).collect();
                assert_eq!(found, expected);
            }
        }
        fs_err::remove_dir_all(&path).unwrap();
    }
}
