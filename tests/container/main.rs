//! Real containers, as root: each test starts this same program as `contain ...`, which runs one container in the
//! foreground as the engine does. Arguments of the test run are parts of the names of the tests to run.
//!
//! The root file system is a static busybox: /bin/busybox, or what VAQUITA_TEST_BUSYBOX names, so that the same tests
//! run under qemu-user.

mod contain;
mod fixture;

use fixture::{Fixture, Outcome};

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("contain") => contain::contain(&arguments[1..]),
        _ => run_tests(&arguments),
    }
}

type Test = (&'static str, fn(&Fixture));

const TESTS: &[Test] = &[("runs_busybox", runs_busybox)];

fn run_tests(filters: &[String]) -> std::process::ExitCode {
    if !vaquita::sys::host::is_root() {
        println!("container tests skipped: they need root");
        return std::process::ExitCode::SUCCESS;
    }
    let wanted = |name: &str| {
        let mut words = filters.iter().filter(|filter| !filter.starts_with('-')).peekable();
        words.peek().is_none() || words.any(|word| name.contains(word.as_str()))
    };
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let fixture = Fixture::new(name);
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&fixture)));
        println!("test {name} ... {}", if passed.is_ok() { "ok" } else { "FAILED" });
        failed += u8::from(passed.is_err());
    }
    println!("\n{failed} failed");
    std::process::ExitCode::from(failed)
}

fn runs_busybox(fixture: &Fixture) {
    let outcome = fixture.run(&[], &["sh", "-c", "echo hello; id; cat /proc/self/mountinfo; ls -la /dev / /proc/self/fd; cat /proc/self/status; env"]);
    println!("{outcome:?}");
    println!("{}", outcome.stdout);
}
