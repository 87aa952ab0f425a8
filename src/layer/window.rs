//! The window: files that are written but not yet known to be on the disk.
//!
//! The kernel has been told to write each of them when it comes in here. Some later, when the window is full, its files are
//! handed to a few threads that fsync each, drop its pages and close it, while the next window fills. By then most pages are
//! on the disk, one journal commit serves the whole window, and the flushes that every fsync still sends to the disk are
//! merged because the threads send them side by side.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::sys::sync::sync_and_drop;

/// Content bytes after which a window is full.
pub const WINDOW_BYTES: u64 = 4 << 20;
/// Files and directories after which it is full. Two windows are open at a time, and two layers may be unpacked side by
/// side within a limit of 1024 descriptors.
const WINDOW_NODES: usize = 128;
/// Threads that sync. Debian minbase, 6,000 nodes: 1 thread sends 6,050 flushes to the disk, 4 send 4,100, 8 send 2,200,
/// 16 send 1,550, 32 send 1,170; a flush costs a tenth of a millisecond on a virtual disk and some on a memory card.
const SYNCERS: usize = 16;
/// They only call the kernel.
const STACK_BYTES: usize = 64 << 10;

/// Nodes on their way to the disk.
pub struct Window {
    filling: VecDeque<Pending>,
    filling_bytes: u64,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Pending {
    node: OwnedFd,
    path: Vec<u8>,
}

struct Shared {
    state: Mutex<State>,
    /// Told when there is work, or none will come.
    work: Condvar,
    /// Told when the queue or the last busy thread becomes idle.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Pending>,
    busy: usize,
    closed: bool,
    failure: Option<(Vec<u8>, io::Error)>,
}

impl Window {
    /// An empty window and its threads. Where no thread can be started, the caller's does the work.
    pub fn new() -> Window {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        let start = |_| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            builder.spawn(move || shared.sync_until_closed()).ok()
        };
        let threads = (0..SYNCERS).filter_map(start).collect();
        Window { filling: VecDeque::new(), filling_bytes: 0, shared, threads }
    }

    /// Takes in a file or directory that will not be changed any more; `bytes` of it may still be in the page cache.
    pub fn add(&mut self, node: OwnedFd, path: Vec<u8>, bytes: u64) -> Result<()> {
        self.filling.push_back(Pending { node, path });
        self.filling_bytes += bytes;
        if self.filling_bytes >= WINDOW_BYTES || self.filling.len() >= WINDOW_NODES {
            self.hand_over()?;
        }
        Ok(())
    }

    /// Waits until everything taken in survives a power cut.
    pub fn finish(mut self) -> Result<()> {
        self.hand_over()?;
        let mut state = self.shared.lock();
        while !state.queue.is_empty() || state.busy > 0 {
            state = self.shared.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.check()
    }

    /// Passes the full window on; waits while the one before is still queued.
    fn hand_over(&mut self) -> Result<()> {
        self.filling_bytes = 0;
        let mut state = self.shared.lock();
        while !state.queue.is_empty() {
            state = self.shared.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.queue, &mut self.filling);
        if self.threads.is_empty() {
            state.closed = true;
            drop(state);
            self.shared.sync_until_closed();
            return self.shared.lock().check();
        }
        self.shared.work.notify_all();
        state.check()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        // After an error nobody waits for the rest; after `finish` nothing is left.
        state.queue.clear();
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say; the panic has been reported.
            let _ = thread.join();
        }
    }
}

impl State {
    fn check(&mut self) -> Result<()> {
        match self.failure.take() {
            None => Ok(()),
            Some((path, error)) => {
                let path = String::from_utf8_lossy(&path);
                Err(Error::io(format!("sync {path:?}"), error))
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Syncs what is queued, and what will be, until the window is closed and the queue empty.
    fn sync_until_closed(&self) {
        let mut state = self.lock();
        loop {
            let Some(Pending { node, path }) = state.queue.pop_front() else {
                if state.closed {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.busy += 1;
            if state.queue.is_empty() {
                self.idle.notify_all();
            }
            drop(state);
            let result = sync_and_drop(&node);
            drop(node);
            state = self.lock();
            state.busy -= 1;
            if let Err(error) = result {
                state.failure.get_or_insert((path, error));
            }
            if state.busy == 0 && state.queue.is_empty() {
                self.idle.notify_all();
            }
        }
    }
}
