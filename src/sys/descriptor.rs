//! Descriptors as a whole: which are open, which survive exec, and what stands in for 0, 1 and 2.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::{Errno, FdFlags};

use super::process::last_error;

/// The first descriptor that is not standard input, output or error.
const FIRST_FREE: RawFd = 3;

/// A reference to a file or directory, whatever its mode (open(2), O_PATH).
pub fn open_path(path: &CStr) -> Result<OwnedFd, Errno> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    keep_clear_of_stdio(fd)
}

fn keep_clear_of_stdio(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
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

/// Marks every descriptor from 3 on to be closed by exec: by close_range(2) where there is one (Linux 5.11), else one
/// by one from `/proc/self/fd`, which must then be mounted.
pub fn close_all_on_exec() -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC closes nothing and reads no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_FREE as libc::c_uint,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 { Ok(()) } else { mark_listed(last_error()) }
}

fn mark_listed(refusal: Errno) -> Result<(), Errno> {
    const BUFFER_BYTES: usize = 2048;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let list = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty()).map_err(|_| refusal)?;
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut entries = RawDir::new(&list, &mut buffer);
    while let Some(entry) = entries.next() {
        let name = entry?;
        let name = name.file_name().to_str().unwrap_or_default();
        let Ok(number) = name.parse::<RawFd>() else { continue };
        if number >= FIRST_FREE {
            // SAFETY: the descriptor is open, `/proc/self/fd` lists it, and this process has one thread.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
    }
    Ok(())
}
