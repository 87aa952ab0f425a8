//! What every refusal must look like: one line on standard error that names the object and the cause, the right exit
//! status, and a store that is afterwards, file for file, what it was before.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::{Outcome, Sandbox, fixture, succeed};

/// A sandbox whose store holds the image `keep:1`.
pub fn stocked(name: &str) -> Sandbox {
    let sandbox = Sandbox::new(name);
    let archive = keep_archive(&sandbox);
    let loaded = sandbox.vaquita(&["load", "-q", "-i", &archive.display().to_string()]);
    assert_eq!((loaded.code, loaded.stderr.as_str()), (0, ""), "load the image to keep");
    sandbox
}

/// The archive of `keep:1`, made in the sandbox: a busybox.
pub fn keep_archive(sandbox: &Sandbox) -> PathBuf {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let archive = sandbox.path("keep.tar");
    let bytes = BYTES.get_or_init(|| {
        succeed(fixture("busybox").arg(&archive).args(["-", "-", "--name", "keep:1"]));
        fs::read(&archive).expect("the archive")
    });
    fs::write(&archive, bytes).expect("write the archive");
    archive
}

/// Asserts that the command fails with `code`, in one line that holds all of `words`, and leaves the store alone.
pub fn refuses(sandbox: &Sandbox, arguments: &[&str], code: i32, words: &[&str]) {
    let before = sandbox.listing();
    assert!(before.len() > 5, "the store holds something to damage");
    let outcome = sandbox.vaquita(arguments);
    assert_one_line(&outcome, arguments, code, words);
    let after = sandbox.listing();
    let gone: Vec<&String> = before.iter().filter(|line| !after.contains(line)).collect();
    let come: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(
        gone.is_empty() && come.is_empty(),
        "{arguments:?} changed the store: - {gone:#?} + {come:#?}"
    );
}

pub fn assert_one_line(outcome: &Outcome, arguments: &[&str], code: i32, words: &[&str]) {
    let context = format!("{arguments:?}: {outcome:?}");
    assert_eq!(outcome.code, code, "exit status of {context}");
    assert_eq!(outcome.stderr.lines().count(), 1, "lines on standard error of {context}");
    assert_eq!(outcome.stdout, "", "standard output of {context}");
    for word in words {
        assert!(
            outcome.stderr.to_lowercase().contains(&word.to_lowercase()),
            "{word:?} in {context}"
        );
    }
}
