//! Getting file content to the disk and out of the page cache, piece by piece.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::Advice;

use super::fault;

/// Starts writing the dirty pages of a range to the disk and does not wait (sync_file_range(2)); `len` 0 means to the end.
///
/// This promises nothing about durability: it makes a later fsync short. Where the kernel lacks it, nothing happens.
pub fn start_writeback(file: &File, offset: u64, len: u64) {
    // A failure shows up in the fsync that must follow.
    let _ = sync_range(file, offset, len, libc::SYNC_FILE_RANGE_WRITE);
}

/// Writes the dirty pages of a range and waits for them, without a flush of the disk's own cache: afterwards the pages
/// are clean and can be dropped. Where the kernel lacks it, nothing happens.
pub fn wait_writeback(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    match sync_range(file, offset, len, all) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result,
    }
}

fn sync_range(file: &File, offset: u64, len: u64, flags: u32) -> io::Result<()> {
    let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else {
        return Err(io::Error::from_raw_os_error(libc::EOVERFLOW));
    };
    // SAFETY: sync_file_range takes a descriptor and plain numbers; `file` keeps the descriptor open during the call.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives the clean, unmapped pages of a range back to the kernel (posix_fadvise(2) DONTNEED); `len` 0 means to the end.
/// A hint: pages that are dirty or mapped stay.
pub fn drop_cache(file: BorrowedFd, offset: u64, len: u64) {
    // A hint that a file system does not take is no error.
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(len), Advice::DontNeed);
}

/// `f_type` of btrfs (statfs(2)).
const BTRFS: u64 = 0x9123_683E;

/// Whether an fsync of a directory may leave behind what was set on the nodes in it that cannot be opened. On btrfs, a symlink
/// that an earlier fsync of the directory found just made, before its owner and time were set, is not looked at again by the
/// next: after a power cut it is root's, and as old as its making. The others commit all that came before.
#[allow(clippy::unnecessary_cast)] // the field's type differs between targets
pub fn directories_sync_alone(dir: BorrowedFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(dir)?.f_type as u64 & 0xFFFF_FFFF == BTRFS)
}

/// After a success all of the file system survives a power cut, other people's files with it (syncfs(2)).
pub fn sync_file_system(dir: BorrowedFd) -> io::Result<()> {
    fault::before("syncfs")?;
    rustix::fs::syncfs(dir)?;
    fault::after("syncfs");
    Ok(())
}

/// After a success the file's content and length survive a power cut.
pub fn sync_data(file: &File) -> io::Result<()> {
    fault::before("fdatasync")?;
    rustix::fs::fdatasync(file)?;
    fault::after("fdatasync");
    Ok(())
}

/// After a success the file's (or directory's) content and attributes survive a power cut, and its pages are dropped.
pub fn sync_and_drop(file: impl AsFd) -> io::Result<()> {
    fault::before("fsync of a layer's file")?;
    rustix::fs::fsync(file.as_fd())?;
    fault::after("fsync of a layer's file");
    drop_cache(file.as_fd(), 0, 0);
    Ok(())
}
