//! The fault hook: where a test may end the process, or let a system call fail, at a chosen step.
//!
//! `before` and `after` stand around every call by which the store changes what others see, or makes it durable: mkdir,
//! rename, unlink, write and fsync. With the feature `fault` (off in what is shipped, where nothing of this is left) the
//! environment says what happens; each of the two is a point that counts:
//!
//! ```text
//! VAQUITA_FAULT=7          SIGKILL at the seventh point that is reached
//! VAQUITA_FAULT=ENOSPC:7   the seventh call fails with that error; also EIO
//! VAQUITA_FAULT=count      `report` tells how many points, and how many calls, were reached
//! VAQUITA_FAULT=trace      each point is named on standard error as it is reached
//! ```

#[cfg(not(feature = "fault"))]
mod hook {
    /// Nothing.
    #[inline(always)]
    pub fn before(_call: &'static str) -> std::io::Result<()> {
        Ok(())
    }

    /// Nothing.
    #[inline(always)]
    pub fn after(_call: &'static str) {}

    /// Nothing.
    #[inline(always)]
    pub fn report() {}
}

#[cfg(feature = "fault")]
mod hook {
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    enum Plan {
        Nothing,
        Count,
        Trace,
        Kill(usize),
        Fail(Errno, usize),
    }

    static REACHED: AtomicUsize = AtomicUsize::new(0);
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    static PLAN: OnceLock<Plan> = OnceLock::new();

    fn plan() -> &'static Plan {
        PLAN.get_or_init(|| match std::env::var("VAQUITA_FAULT").as_deref() {
            Err(_) => Plan::Nothing,
            Ok("count") => Plan::Count,
            Ok("trace") => Plan::Trace,
            Ok(text) => match text.split_once(':') {
                Some(("ENOSPC", number)) => Plan::Fail(Errno::NOSPC, parse(number)),
                Some(("EIO", number)) => Plan::Fail(Errno::IO, parse(number)),
                _ => Plan::Kill(parse(text)),
            },
        })
    }

    fn parse(number: &str) -> usize {
        number.parse().unwrap_or_else(|_| panic!("VAQUITA_FAULT: {number:?} is no number"))
    }

    /// A point before a call; an error is the one that the call is to fail with.
    pub fn before(call: &'static str) -> io::Result<()> {
        point("before", call);
        let number = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
        match plan() {
            Plan::Fail(errno, at) if *at == number => Err((*errno).into()),
            _ => Ok(()),
        }
    }

    /// A point after a call that succeeded.
    pub fn after(call: &'static str) {
        point("after", call);
    }

    fn point(when: &str, call: &str) {
        let number = REACHED.fetch_add(1, Ordering::SeqCst) + 1;
        match plan() {
            Plan::Trace => eprintln!("fault point {number}: {when} {call}"),
            Plan::Kill(at) if *at == number => loop {
                // Cannot fail; the signal may take an instant to arrive.
                let _ = kill_process(getpid(), Signal::KILL);
            },
            _ => {}
        }
    }

    /// Says how many points were reached, if that was asked.
    pub fn report() {
        if let Plan::Count | Plan::Trace = plan() {
            let load = |number: &AtomicUsize| number.load(Ordering::SeqCst);
            eprintln!("fault points: {} {}", load(&REACHED), load(&CALLS));
        }
    }
}

pub use hook::{after, before, report};
