//! Signals as data: the parent of a container reads them from a descriptor instead of being interrupted.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::process::last_error;

pub use libc::{SIGCHLD, SIGKILL, SIGWINCH};

/// The highest signal number on the targets of this engine.
const LAST: i32 = 64;

/// Not taken: what cannot be, what tells of a fault of the process itself, and what is no request: a broken pipe and
/// urgent data.
const LEFT_ALONE: [i32; 11] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGPIPE,
    libc::SIGURG,
];

/// The calling thread's signals, blocked and readable from a descriptor. Dropped, it gives the old mask back.
///
/// Signals sent to the process reach the descriptor only if no other thread takes them: a process that uses this
/// has one thread, or all its others block them too.
pub struct Signals {
    queue: OwnedFd,
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks every signal that can be forwarded, SIGCHLD and SIGWINCH among them. An ignored SIGCHLD, which some
    /// init scripts leave behind, would lose exit codes, so it is put back to its default.
    pub fn take() -> Result<Signals, Errno> {
        set_default(libc::SIGCHLD);
        let mut set = empty_set();
        for signal in (1..=LAST).filter(|signal| !LEFT_ALONE.contains(signal)) {
            // SAFETY: `set` is an initialised set; numbers that the C library keeps for itself are refused, no more.
            unsafe { libc::sigaddset(&mut set, signal) };
        }
        let mut before = empty_set();
        // SAFETY: both pointers are to initialised sets of this function.
        let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before) };
        if result != 0 {
            return Err(Errno::from_raw_os_error(result));
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            let error = last_error();
            restore(&before);
            return Err(error);
        }
        // SAFETY: signalfd has just made this descriptor and nothing else knows it.
        Ok(Signals { queue: unsafe { OwnedFd::from_raw_fd(fd) }, before })
    }

    /// The next signal that arrived, if one has.
    pub fn next(&self) -> Option<i32> {
        const RECORD_BYTES: usize = size_of::<libc::signalfd_siginfo>();
        let mut record = [0_u8; RECORD_BYTES];
        match rustix::io::read(&self.queue, &mut record[..]) {
            Ok(RECORD_BYTES) => {
                let number = [record[0], record[1], record[2], record[3]];
                Some(u32::from_ne_bytes(number) as i32)
            }
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given and cannot fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn restore(mask: &libc::sigset_t) {
    // SAFETY: `mask` is an initialised set; no old one is asked for. It cannot fail for SIG_SETMASK.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

fn set_default(signal: i32) {
    // SAFETY: SIG_DFL is no function pointer; numbers that cannot be set are refused, no more.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Every signal at its default and none blocked: how a program expects to start. For a forked child.
pub fn reset_all() {
    for signal in (1..=LAST).filter(|&signal| signal != libc::SIGKILL && signal != libc::SIGSTOP) {
        set_default(signal);
    }
    restore(&empty_set());
}
