//! What the parent does while a container runs: pass on signals, keys and output, and learn how it ended.
//!
//! One loop around poll(2), no threads. Signals come from a descriptor, so nothing interrupts anything, and every way
//! out of the loop gives the user's terminal its old mode back.

use std::os::fd::{AsFd, BorrowedFd};

use crate::error::{Context, Result};
use crate::sys::process::{self, Ended, Pid};
use crate::sys::readiness::{self, Want};
use crate::sys::signal::{SIGCHLD, SIGWINCH};
use crate::sys::terminal::{self, Raw};
use crate::sys::{Errno, descriptor};

use super::start::Running;

/// How much is under way in each direction: no more than a pipe takes without blocking once poll calls it writable
/// (pipe(7), PIPE_BUF).
const BUFFER_BYTES: usize = 4096;
/// What a shell adds to the number of the signal that ended a process.
const KILLED_BY_SIGNAL: u8 = 128;

impl Running {
    /// The process ID of the container's process 1, in the caller's namespace.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Passes on signals and the terminal until the container has ended and its terminal's output is written; returns
    /// the exit code, or 128 and the signal's number. If the caller is process 1 of the machine, orphans are reaped
    /// meanwhile.
    pub fn wait(mut self) -> Result<u8> {
        let master = self.master.take();
        let _raw = match (&master, self.stdin) {
            (Some(_), true) => {
                Raw::enter(descriptor::standard(0)).context(|| "set terminal to raw mode".into())?
            }
            _ => None,
        };
        let ended = match &master {
            Some(master) => self.relay_terminal(master.as_fd()),
            None => self.relay_signals(),
        }?;
        Ok(match ended {
            Ended::Exited(code) => code,
            Ended::Killed(signal) => KILLED_BY_SIGNAL.saturating_add(signal),
        })
    }

    fn relay_signals(&self) -> Result<Ended> {
        let mut found = collect(self.pid)?;
        loop {
            if let Some(ended) = found {
                return Ok(ended);
            }
            let nothing = Want::Nothing;
            let wants = [Want::Read(self.signals.as_fd()), nothing, nothing, nothing, nothing];
            readiness::wait_ready(wants).context(|| "wait for the container".into())?;
            found = self.take_signals(None, None)?;
        }
    }

    /// Output is written until the last process that has the terminal is gone; the end of process 1 kills all others.
    fn relay_terminal(&self, master: BorrowedFd) -> Result<Ended> {
        let mut output = Flow::new(master, descriptor::standard(1));
        let mut input = Flow::new(descriptor::standard(0), master);
        input.open = self.stdin;
        resize(master);
        let mut ended = collect(self.pid)?;
        loop {
            if ended.is_some() && output.is_done() {
                break;
            }
            let signals = Want::Read(self.signals.as_fd());
            let [output_in, output_out] = output.wants();
            let [input_in, input_out] = input.wants();
            let wants = [signals, output_in, output_out, input_in, input_out];
            let ready = readiness::wait_ready(wants).context(|| "wait for the container".into())?;
            if ready[0] {
                ended = self.take_signals(Some(master), ended)?;
                // What is typed now has no reader.
                input.open &= ended.is_none();
            }
            output.go_on(ready[1], ready[2]);
            input.go_on(ready[3], ready[4]);
        }
        // Cannot be none: the loop ends only after it was set.
        Ok(ended.unwrap_or(Ended::Killed(0)))
    }

    /// Handles every signal that has arrived; tells how the container ended if it has.
    /// `ended` is what is known already: whoever was collected has left a SIGCHLD behind, and no child.
    fn take_signals(
        &self,
        master: Option<BorrowedFd>,
        mut ended: Option<Ended>,
    ) -> Result<Option<Ended>> {
        while let Some(signal) = self.signals.next() {
            match (signal, master) {
                (SIGCHLD, _) if ended.is_some() => {}
                (SIGCHLD, _) => ended = collect(self.pid)?,
                (SIGWINCH, Some(master)) => resize(master),
                (SIGWINCH, None) => {}
                // It may have ended this instant; once it is collected its number may be another's.
                (signal, _) if ended.is_none() => drop(process::kill(self.pid, signal)),
                _ => {}
            }
        }
        Ok(ended)
    }
}

/// Also called once before any signal: process 1 of a machine may have orphans that ended before it took signals.
fn collect(container: Pid) -> Result<Option<Ended>> {
    let context = || "wait for the container".to_string();
    if !process::is_init() {
        return process::wait(container, false).context(context);
    }
    let mut ended = None;
    loop {
        match process::reap() {
            Ok(Some((pid, how))) if pid == container => ended = Some(how),
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(ended),
            Err(errno) => return Err(errno).context(context),
        }
    }
}

/// The size of the user's terminal for the container's.
fn resize(master: BorrowedFd) {
    // A terminal that cannot be resized keeps its size.
    let _ = terminal::inherit_size(master);
}

/// One direction of a relay: a buffer that is either read into or written from.
struct Flow<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    buffer: [u8; BUFFER_BYTES],
    start: usize,
    end: usize,
    open: bool,
}

impl<'a> Flow<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Flow<'a> {
        Flow { from, to, buffer: [0; BUFFER_BYTES], start: 0, end: 0, open: true }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn is_done(&self) -> bool {
        !self.open && self.is_empty()
    }

    fn wants(&self) -> [Want<'a>; 2] {
        match (self.is_empty(), self.open) {
            (false, _) => [Want::Nothing, Want::Write(self.to)],
            (true, true) => [Want::Read(self.from), Want::Nothing],
            (true, false) => [Want::Nothing, Want::Nothing],
        }
    }

    fn go_on(&mut self, readable: bool, writable: bool) {
        if readable {
            match readiness::read(self.from, &mut self.buffer) {
                Ok(0) => self.open = false,
                Ok(count) => (self.start, self.end) = (0, count),
                Err(Errno::AGAIN) => {}
                Err(_) => self.open = false,
            }
        }
        if writable {
            let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
            match readiness::write(self.to, rest) {
                Ok(count) => self.start += count,
                Err(Errno::AGAIN) => {}
                // Nobody reads any more: what is left goes nowhere, and the other side must not block for it.
                Err(_) => self.start = self.end,
            }
        }
    }
}
