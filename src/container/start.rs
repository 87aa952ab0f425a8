//! The parent's side of a start: fork, and wait until the command runs or a step failed.

use std::os::fd::OwnedFd;

use crate::error::{Context, Error, Kind, Result};
use crate::sys::process::{self, ExecList, Namespace, Pid};
use crate::sys::signal::Signals;
use crate::sys::{channel, descriptor};

use super::enter::{Prepared, enter};
use super::failure::{REPORT_BYTES, Report, explain, unshare_error};
use super::plan::Plan;

/// What the child's process exits with when a step failed; nobody sees it, the report says more.
const FAILED: i32 = 125;

/// A container whose command runs.
pub struct Running {
    pub(super) pid: Pid,
    pub(super) signals: Signals,
    /// The master of its terminal.
    pub(super) master: Option<OwnedFd>,
    /// Whether the caller's standard input goes to its terminal.
    pub(super) stdin: bool,
}

/// Starts a container; when it returns, the command's exec has succeeded. From here until [`Running::wait`] returns the
/// calling thread's signals are blocked; the process should have no other thread that takes them.
///
/// The container is killed when the calling thread ends.
pub fn start(plan: &Plan) -> Result<Running> {
    let closed_stdio =
        descriptor::occupy_stdio().context(|| "open stdin, stdout and stderr".into())?;
    let signals = Signals::take().context(|| "block signals".into())?;
    let (ours, theirs) = channel::pair().context(|| "make socket pair".into())?;
    let mut prepared = Prepared {
        plan,
        arguments: ExecList::new(plan.command.arguments.clone()),
        environment: ExecList::new(plan.command.environment.clone()),
        sources: Vec::with_capacity(plan.sources),
        closed_stdio,
    };
    let mut ours = Some(ours);
    let pid = fork(&mut prepared, &mut ours, &theirs)?;
    drop(theirs);
    let mut master = None;
    match hear(plan, ours, &mut master) {
        Ok(()) => Ok(Running { pid, signals, master, stdin: plan.stdin }),
        Err(error) => {
            // Its error is what is told; the process is about to end, or was killed on the way.
            let _ = process::wait(pid, true);
            Err(error)
        }
    }
}

/// The caller's own namespace for children is restored, so that it can fork other programs and start other containers;
/// kernels before 5.8 cannot do that.
fn fork<'a>(
    prepared: &'a mut Prepared<'a>,
    ours: &mut Option<OwnedFd>,
    theirs: &'a OwnedFd,
) -> Result<Pid> {
    process::unshare(Namespace::Pid).map_err(|errno| unshare_error("pid", errno))?;
    let mut prepared = Some(prepared);
    let forked = process::fork(&mut || {
        if let Some(prepared) = prepared.take() {
            // Its own copy of the parent's end would hide that the parent is gone.
            drop(ours.take());
            enter(prepared, theirs);
        }
        FAILED
    });
    let _ = process::rejoin_pid_namespace();
    forked.context(|| "fork the container's first process".into())
}

/// Listens until the channel closes, which a successful exec does.
fn hear(plan: &Plan, channel: Option<OwnedFd>, master: &mut Option<OwnedFd>) -> Result<()> {
    // Cannot be none: only the child's copy was taken.
    let Some(channel) = channel else { return Ok(()) };
    loop {
        let mut record = [0_u8; REPORT_BYTES];
        let (length, descriptor) =
            channel::receive(&channel, &mut record).context(|| "hear from the container".into())?;
        match length {
            0 if plan.tty && master.is_none() => {
                return Err(Error::new(Kind::Internal, "start container: its process was killed"));
            }
            0 => return Ok(()),
            REPORT_BYTES => return Err(explain(plan, &Report::from_bytes(record))),
            _ => *master = descriptor,
        }
    }
}
