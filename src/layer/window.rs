//! The window: files that are written but not yet known to be on the disk.
//!
//! The kernel has been told to write each of them when it comes in here. Some later, when the window is full, its files are
//! handed to a few threads that fsync each, drop its pages and close it, while the next window fills. By then most pages are
//! on the disk, one journal commit serves the whole window, and the flushes that every fsync still sends to the disk are
//! merged because the threads send them side by side.
//!
//! A window may end with a checkpoint: it is written when everything of that window is on the disk, side by side with
//! the syncs of the next one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::checkpoint::{Encoded, Slots};
use crate::error::{Context, Error, Result};
use crate::sys::sync::sync_and_drop;

/// Content bytes after which a window is full.
pub const WINDOW_BYTES: u64 = 4 << 20;
/// Files and directories after which it is full; a checkpoint adds some 20. Two windows are open at a time, and three
/// layers may be unpacked side by side within a limit of 1024 descriptors.
const WINDOW_NODES: usize = 96;
/// Threads that sync. Debian minbase, 6,000 nodes: 1 thread sends 6,050 flushes to the disk, 4 send 4,100, 8 send 2,200,
/// 16 send 1,550, 32 send 1,170; a flush costs a tenth of a millisecond on a virtual disk and some on a memory card.
const SYNCERS: usize = 16;
/// They only call the kernel.
const STACK_BYTES: usize = 64 << 10;

/// Nodes on their way to the disk.
pub struct Window {
    filling: VecDeque<Job>,
    filling_bytes: u64,
    /// What is true once the window before the one that fills is on the disk.
    checkpoint: Option<Encoded>,
    /// A checkpoint may be in the slots, or on its way there.
    has_checkpoints: bool,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

enum Job {
    Sync { node: OwnedFd, path: Vec<u8> },
    Publish(Encoded),
}

struct Shared {
    state: Mutex<State>,
    slots: Option<Slots>,
    /// Told when there is work, or none will come.
    work: Condvar,
    /// Told when nothing is queued or being done.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    busy: usize,
    closed: bool,
    failure: Option<(Vec<u8>, io::Error)>,
}

impl Window {
    /// An empty window and its threads. Where no thread can be started, the caller's does the work.
    pub fn new(slots: Option<Slots>) -> Window {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            slots,
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        let start = |_| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            builder.spawn(move || shared.work_until_closed()).ok()
        };
        let threads = (0..SYNCERS).filter_map(start).collect();
        let filling = VecDeque::new();
        let has_checkpoints = shared.slots.is_some();
        Window { filling, filling_bytes: 0, checkpoint: None, has_checkpoints, shared, threads }
    }

    /// Takes in a file or directory that has to reach the disk as it is now, at least; `bytes` of it may still be in the
    /// page cache.
    pub fn add(&mut self, node: OwnedFd, path: Vec<u8>, bytes: u64) {
        self.filling.push_back(Job::Sync { node, path });
        self.filling_bytes += bytes;
    }

    /// Whether enough has been taken in to be handed over.
    pub fn is_full(&self) -> bool {
        self.filling_bytes >= WINDOW_BYTES || self.filling.len() >= WINDOW_NODES
    }

    /// Ends the window: it is synced while the next one fills. Waits for the one before, whose checkpoint is written now;
    /// `checkpoint` waits for this one.
    pub fn end(&mut self, checkpoint: Option<Encoded>) -> Result<()> {
        self.filling_bytes = 0;
        let mut state = self.shared.wait_until_idle();
        state.check()?;
        self.has_checkpoints |= self.checkpoint.is_some();
        state.queue.extend(self.checkpoint.take().map(Job::Publish));
        state.queue.append(&mut self.filling);
        self.checkpoint = checkpoint;
        if self.threads.is_empty() {
            state.closed = true;
            drop(state);
            self.shared.work_until_closed();
            return self.shared.lock().check();
        }
        drop(state);
        self.shared.work.notify_all();
        Ok(())
    }

    /// Waits until everything taken in survives a power cut.
    pub fn finish(mut self) -> Result<()> {
        self.end(None)?;
        self.shared.wait_until_idle().check()
    }

    /// Takes all checkpoints away, durably, also those on their way: what they say is not true any more.
    pub fn clear_checkpoints(&mut self) -> Result<()> {
        self.checkpoint = None;
        let Some(slots) = self.shared.slots.as_ref().filter(|_| self.has_checkpoints) else {
            return Ok(());
        };
        self.shared.wait_until_idle().check()?;
        self.has_checkpoints = false;
        slots.clear().context(|| "take back the checkpoint".into())
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

    fn wait_until_idle(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while !state.queue.is_empty() || state.busy > 0 {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Does what is queued, and what will be, until the window is closed and the queue empty.
    fn work_until_closed(&self) {
        let mut state = self.lock();
        loop {
            let Some(job) = state.queue.pop_front() else {
                if state.closed {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.busy += 1;
            drop(state);
            let result = self.carry_out(job);
            state = self.lock();
            state.busy -= 1;
            if let Err(failure) = result {
                state.failure.get_or_insert(failure);
            }
            if state.busy == 0 && state.queue.is_empty() {
                self.idle.notify_all();
            }
        }
    }

    fn carry_out(&self, job: Job) -> Result<(), (Vec<u8>, io::Error)> {
        match (job, &self.slots) {
            (Job::Sync { node, path }, _) => sync_and_drop(&node).map_err(|error| (path, error)),
            (Job::Publish(checkpoint), Some(slots)) => {
                slots.write(&checkpoint).map_err(|error| (b"checkpoint".to_vec(), error))
            }
            (Job::Publish(_), None) => Ok(()),
        }
    }
}
