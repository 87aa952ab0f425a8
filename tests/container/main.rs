//! Real containers, as root: each test starts this same program as `contain ...`, which runs one container in the
//! foreground as the engine does. Arguments of the test run are parts of the names of the tests to run; `bench` times
//! starts instead.
//!
//! The root file system is a static busybox: /bin/busybox, or what VAQUITA_TEST_BUSYBOX names, so that the same tests
//! run under qemu-user. Scripts name programs by path: busybox's shell would run its own as /proc/self/exe, which is
//! qemu there.

mod contain;
mod filesystem;
mod fixture;
mod process;
mod terminal;

use std::process::ExitCode;
use std::time::Instant;

use fixture::Fixture;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("contain") => contain::contain(&arguments[1..]),
        Some("bench") => bench(),
        _ => run_tests(&arguments),
    }
}

/// A test by name.
type Test = (&'static str, fn(&Fixture));

fn run_tests(filters: &[String]) -> ExitCode {
    if !vaquita::sys::host::is_root() {
        println!("container tests skipped: they need root");
        return ExitCode::SUCCESS;
    }
    let words: Vec<&String> = filters.iter().filter(|filter| !filter.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(*word));
    let all = process::TESTS.iter().chain(filesystem::TESTS).chain(terminal::TESTS);
    let mut failed = 0;
    for (name, test) in all.filter(|(name, _)| wanted(name)) {
        let fixture = Fixture::new(name);
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&fixture)));
        println!("test {name} ... {}", if passed.is_ok() { "ok" } else { "FAILED" });
        failed += u8::from(passed.is_err());
    }
    println!("{failed} failed");
    ExitCode::from(failed)
}

/// Prints the least and the median time of starting `true`, the process of the engine included.
fn bench() -> ExitCode {
    const ROUNDS: usize = 100;
    let fixture = Fixture::new("bench");
    for words in [&[][..], &["net-none"], &["tty"]] {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let started = Instant::now();
            assert_eq!(fixture.run(words, &["true"]).code, 0);
            times.push(started.elapsed());
        }
        times.sort();
        println!("{words:?}: least {:?}, median {:?}", times[0], times[ROUNDS / 2]);
    }
    ExitCode::SUCCESS
}
