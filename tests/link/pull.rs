//! A pull that a test can interrupt, and what must be true when it has ended.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{Outcome, Sandbox};

/// The longest silence that a pull bears: long for a machine that is busy, short for a test.
const READ_TIMEOUT_MS: &str = "1500";
/// What it waits after a first failure; each further one doubles it.
const FIRST_WAIT_MS: &str = "40";

/// A started command; killed if it is dropped.
pub struct Running {
    child: Option<Child>,
    shown: String,
}

impl Running {
    /// `vaquita ARGUMENTS` on the sandbox's roots, with short time-outs.
    pub fn start(sandbox: &Sandbox, arguments: &[&str]) -> Running {
        // What a shell puts into the background ignores SIGINT, and so does all that it starts.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(sandbox.path("bin/vaquita"));
        command.env("VAQUITA_READ_TIMEOUT_MS", READ_TIMEOUT_MS);
        command.env("VAQUITA_FIRST_WAIT_MS", FIRST_WAIT_MS);
        // What is large goes back to the kernel, as with the C library of what is shipped.
        command.env("MALLOC_MMAP_THRESHOLD_", "131072");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("start vaquita");
        Running { child: Some(child), shown: format!("{arguments:?}") }
    }

    /// Sends a signal and waits for the end.
    pub fn end_by(self, signal: Signal) -> Outcome {
        let child = self.child.as_ref().expect("it was not waited for yet");
        kill_process(Pid::from_child(child), signal).expect("a child of this program");
        self.finish(Duration::from_secs(20))
    }

    /// Waits for the end; panics if it takes longer than `limit`.
    pub fn finish(self, limit: Duration) -> Outcome {
        self.finish_and_weigh(limit).0
    }

    /// The same, and the most memory that it was seen to take on the way, in bytes.
    pub fn finish_and_weigh(mut self, limit: Duration) -> (Outcome, u64) {
        let started = Instant::now();
        let mut peak_bytes = 0;
        let child = self.child.as_mut().expect("it was not waited for yet");
        while child.try_wait().expect("a child of this program").is_none() {
            assert!(started.elapsed() < limit, "{} hangs: {limit:?} are over", self.shown);
            peak_bytes = peak_bytes.max(memory_bytes(child.id()));
            std::thread::sleep(Duration::from_millis(5));
        }
        let child = self.child.take().expect("it is there");
        let output = child.wait_with_output().expect("read what it printed");
        let signal = output.status.signal().map(|signal| 128 + signal);
        let outcome = Outcome {
            code: output.status.code().or(signal).unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        (outcome, peak_bytes)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The memory of a process but for what it maps of files, which is 20 times as large here as in what is shipped; 0 if the
/// process has gone (RssAnon, proc_pid_status(5)).
fn memory_bytes(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0) << 10
}

/// Names in a directory of the store, sorted; none if it is not there.
pub fn names(sandbox: &Sandbox, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(sandbox.data_root().join(directory));
    let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.into_iter().flatten().flatten().map(name).collect();
    names.sort();
    names
}

/// Asserts that the store holds the image whole and nothing half-made.
pub fn assert_whole(sandbox: &Sandbox, reference: &str, image: &str, context: &str) {
    let inspected = sandbox.vaquita(&["inspect", reference]);
    assert!(
        inspected.code == 0 && inspected.stdout.contains(image),
        "{context}: {reference} is not {image}: {inspected:?}"
    );
    assert_eq!(names(sandbox, "stages"), [""; 0], "{context}: left in stages/");
    assert_eq!(names(sandbox, "quarantine"), [""; 0], "{context}: put into quarantine/");
    assert_sound(sandbox, context);
}

/// Asserts that `vaquita check --deep` finds nothing wrong.
pub fn assert_sound(sandbox: &Sandbox, context: &str) {
    let checked = sandbox.vaquita(&["check", "--deep"]);
    assert_eq!(checked.code, 0, "{context}: {checked:?}");
}

/// Asserts a failure as people should see it: status 1, one line that names `about` and says more than that.
pub fn assert_clear_error(outcome: &Outcome, about: &[&str], context: &str) {
    assert_eq!(outcome.code, 1, "{context}: {outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{context}: lines of {outcome:?}");
    assert_eq!(outcome.stdout, "", "{context}: {outcome:?}");
    let line = &outcome.stderr;
    assert!(about.iter().any(|word| line.contains(word)), "{context}: {about:?} in {line}");
    assert!(!line.contains("panicked"), "{context}: {line}");
}
