//! Descriptors as a whole: which are open, which survive exec, and what stands in for 0, 1 and 2.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The first descriptor that is not standard input, output or error.
const FIRST_FREE: RawFd = 3;

/// A reference to a file or directory, whatever its mode (open(2), O_PATH).
pub fn open_path(path: &CStr) -> Result<OwnedFd, Errno> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    keep_clear_of_stdio(fd)
}

fn keep_clear_of_stdio(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() >= FIRST_FREE {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, FIRST_FREE)
}

/// Which of descriptors 0, 1 and 2 are closed (bit n for descriptor n), after putting the root directory in their
/// place: whatever is opened later then never lands there by chance. `/` is the one file that is always there.
pub fn occupy_stdio() -> Result<u8, Errno> {
    let mut closed = 0;
    for number in 0..FIRST_FREE {
        if !is_open(number) {
            closed |= 1 << number;
            let root = rustix::fs::open(c"/", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            // The lowest free descriptor is `number`: it stays open for the life of the process.
            std::mem::forget(root);
        }
    }
    Ok(closed)
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD reads no memory and takes any number.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Makes `fd` the process's descriptor `number` (0, 1 or 2), kept through exec.
pub fn put_at(fd: impl AsFd, number: RawFd) -> Result<(), Errno> {
    match number {
        0 => rustix::stdio::dup2_stdin(fd),
        1 => rustix::stdio::dup2_stdout(fd),
        _ => rustix::stdio::dup2_stderr(fd),
    }
}

/// Standard input, output or error; they are open after `occupy_stdio`.
pub fn standard(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: 0, 1 and 2 are held open for the whole life of the process (occupy_stdio; nothing here closes them).
    unsafe { BorrowedFd::borrow_raw(number.clamp(0, 2)) }
}

/// Closes every descriptor from 3 on but `keep`, in a forked child: by close_range(2) where there is one (Linux 5.9),
/// else one by one up to the limit of open files.
pub fn close_all_but(keep: &OwnedFd) {
    let keep = keep.as_raw_fd();
    let above = close_range(keep + 1, RawFd::MAX);
    if above && close_range(FIRST_FREE, keep - 1) {
        return;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.unwrap_or(MOST_CLOSED).min(MOST_CLOSED) as RawFd;
    for number in (FIRST_FREE..limit).filter(|number| *number != keep) {
        // SAFETY: as in close_range.
        unsafe { libc::close(number) };
    }
}

/// Where closing one by one ends (Linux, NR_OPEN's default).
const MOST_CLOSED: u64 = 1 << 20;

/// Whether the kernel did it; an empty range is done.
fn close_range(first: RawFd, last: RawFd) -> bool {
    if first > last {
        return true;
    }
    // SAFETY: reads no memory. The caller is a forked child that ends by exec or _exit, so whatever owns these numbers
    // belongs to the parent's frames and is never used nor dropped here.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
}
