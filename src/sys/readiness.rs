//! Waiting for several descriptors at once, and moving bytes without waiting for one.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

/// Which of the descriptors of `wait_ready` can go on.
pub type Ready = [bool; READY_MAX];
/// How many descriptors `wait_ready` takes.
pub const READY_MAX: usize = 5;

/// What `wait_ready` waits for on a descriptor.
#[derive(Clone, Copy)]
pub enum Want<'a> {
    /// Nothing: the place is empty.
    Nothing,
    /// Data, the end of the stream, or an error.
    Read(BorrowedFd<'a>),
    /// Room for at least a page of data, or an error.
    Write(BorrowedFd<'a>),
}

/// Waits until one of the descriptors can go on (poll(2)); no time limit.
pub fn wait_ready(wants: [Want; READY_MAX]) -> Result<Ready, Errno> {
    let mut polled = heapless::Vec::<PollFd, READY_MAX>::new();
    let mut places = heapless::Vec::<usize, READY_MAX>::new();
    for (place, want) in wants.iter().enumerate() {
        let fd = match *want {
            Want::Nothing => continue,
            Want::Read(fd) => PollFd::from_borrowed_fd(fd, PollFlags::IN),
            Want::Write(fd) => PollFd::from_borrowed_fd(fd, PollFlags::OUT),
        };
        // Cannot overflow: there are as many places as wants.
        let _ = (polled.push(fd), places.push(place));
    }
    retry_on_intr(|| poll(&mut polled, None))?;
    let mut ready = [false; READY_MAX];
    for (fd, &place) in polled.iter().zip(&places) {
        if let Some(slot) = ready.get_mut(place) {
            *slot = !fd.revents().is_empty();
        }
    }
    Ok(ready)
}

/// Reads what is there; `Ok(0)` is the end, which a terminal whose other side is closed tells as EIO.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    match retry_on_intr(|| rustix::io::read(&fd, &mut *buffer)) {
        Err(Errno::IO) => Ok(0),
        result => result,
    }
}

/// Writes some of `bytes`; returns how many.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    retry_on_intr(|| rustix::io::write(&fd, bytes))
}
