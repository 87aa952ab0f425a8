//! Memory for the windows of decoders that work side by side.
//!
//! How much of its output a decoder has to keep is for the stream to say. A zstd frame may name 8 MiB, and encoders that
//! stream, podman's and buildkit's among them, do so whatever comes. So a decoder takes all that a frame needs where the
//! frame begins, after it has let go what the frame before needed: nobody waits who holds something, and those who hold
//! something come to their end. Whoever is alone gets in, whatever he needs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// How often a wait looks whether it shall end.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// The memory for all windows.
pub struct Windows {
    limit_bytes: u64,
    taken_bytes: Mutex<u64>,
    given_back: Condvar,
    stop: Arc<AtomicBool>,
}

impl Windows {
    /// So many bytes; a wait for some of them ends when `stop` is set.
    pub fn new(limit_bytes: u64, stop: Arc<AtomicBool>) -> Windows {
        Windows { limit_bytes, taken_bytes: Mutex::new(0), given_back: Condvar::new(), stop }
    }

    /// What one decoder will take, as yet nothing.
    pub fn room(&self) -> Room<'_> {
        Room { windows: self, bytes: 0 }
    }

    fn taken(&self) -> MutexGuard<'_, u64> {
        self.taken_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one decoder has taken; given back when it is dropped.
pub struct Room<'a> {
    windows: &'a Windows,
    bytes: u64,
}

impl Room<'_> {
    /// Gives back what was taken before, and takes `bytes` as soon as there is room for them. `Kind::Cancelled`: that was
    /// no longer wanted.
    pub fn take(&mut self, bytes: u64) -> Result<()> {
        let windows = self.windows;
        let mut taken = windows.taken();
        *taken -= std::mem::take(&mut self.bytes);
        windows.given_back.notify_all();
        while *taken > 0 && *taken + bytes > windows.limit_bytes {
            if windows.stop.load(Ordering::Relaxed) {
                return Err(Error::new(Kind::Cancelled, "stopped"));
            }
            let waited = windows.given_back.wait_timeout(taken, STOP_CHECK);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken += bytes;
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *self.windows.taken() -= self.bytes;
        self.windows.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn those_who_fit_get_in() {
        let windows = Windows::new(9, Arc::default());
        let (mut one, mut two) = (windows.room(), windows.room());
        one.take(100).unwrap();
        one.take(8).unwrap();
        two.take(1).unwrap();
        assert_eq!(*windows.taken(), 9);
        drop(one);
        two.take(9).unwrap();
        drop(two);
        assert_eq!(*windows.taken(), 0);
    }

    #[test]
    fn others_wait_until_there_is_room() {
        let windows = Windows::new(9, Arc::default());
        let mut one = windows.room();
        one.take(8).unwrap();
        let (sender, receiver) = channel();
        thread::scope(|scope| {
            scope.spawn(|| sender.send(windows.room().take(2)));
            assert!(receiver.recv_timeout(2 * STOP_CHECK).is_err(), "it does not wait");
            one.take(7).unwrap();
            receiver.recv().unwrap().unwrap();
        });
    }

    /// Each holds some and wants more than the others leave: who gave back what it had gets it in the end.
    #[test]
    fn nobody_waits_for_ever() {
        let windows = Windows::new(9, Arc::default());
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut room = windows.room();
                    (0..2000).for_each(|round| room.take(1 + round % 9).unwrap());
                });
            }
        });
        assert_eq!(*windows.taken(), 0);
    }

    #[test]
    fn a_wait_ends_when_all_is_to_end() {
        let windows = Windows::new(9, Arc::default());
        let mut one = windows.room();
        one.take(9).unwrap();
        windows.stop.store(true, Ordering::Relaxed);
        assert_eq!(windows.room().take(1).unwrap_err().kind(), Kind::Cancelled);
        assert_eq!(*windows.taken(), 9);
    }
}
