//! Advisory locks between processes: flock(2), which a crash releases.

use std::fs::File;
use std::io;

use rustix::fs::{FlockOperation, flock};

/// How a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With others who share it; waits for an exclusive holder.
    Shared,
    /// Alone; waits for everybody else.
    Exclusive,
    /// Alone and now, or not at all.
    TryExclusive,
    /// With others who share it and now, or not at all: finds out whether somebody holds it alone.
    TryShared,
}

/// Takes the lock; `false` if one of the `Try` modes found it held. It ends when `file` and its duplicates are closed.
pub fn lock(file: &File, mode: Mode) -> io::Result<bool> {
    let operation = match mode {
        Mode::Shared => FlockOperation::LockShared,
        Mode::Exclusive => FlockOperation::LockExclusive,
        Mode::TryExclusive => FlockOperation::NonBlockingLockExclusive,
        Mode::TryShared => FlockOperation::NonBlockingLockShared,
    };
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
    }
}
