//! A place of its own for each test: a fresh data root and run root, the built binary, and the fixture scripts.
//!
//! Everything lies in one directory below cargo's target directory (or `VAQUITA_TEST_DIR`, for machines where that
//! is on a file system that overlayfs cannot write to), and goes with the value: mounts first, then files.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod refusal;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use vaquita::engine::{Deltas, Engine, Event};
use vaquita::reference::Reference;

/// The longest that one command may take before it counts as hung.
const COMMAND_SECONDS: &str = "120";

/// A directory with the roots of one vaquita.
pub struct Sandbox {
    directory: PathBuf,
}

/// What a command came to.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    /// A fresh one; `name` must differ between the tests of one program.
    pub fn new(name: &str) -> Sandbox {
        let id = Command::new("id").arg("-u").output().expect("id");
        assert_eq!(id.stdout, b"0\n", "these tests mount and change owners: run them as root");
        let parent =
            std::env::var("VAQUITA_TEST_DIR").unwrap_or(env!("CARGO_TARGET_TMPDIR").into());
        let directory = Path::new(&parent).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(directory.join("bin")).expect("create the sandbox");
        let sandbox = Sandbox { directory };
        let wrapper = format!(
            "#!/bin/sh\nexec {:?} --data-root {:?} --run-root {:?} \"$@\"\n",
            binary(),
            sandbox.data_root(),
            sandbox.path("run"),
        );
        fs::write(sandbox.path("bin/vaquita"), wrapper).expect("write the wrapper");
        succeed(Command::new("chmod").arg("755").arg(sandbox.path("bin/vaquita")));
        sandbox
    }

    /// Pulls, and holds what is told of layers to be about layers that are under way. What was told.
    pub fn watched_pull(&self, name: &str) -> Vec<Event> {
        let (mut told, mut layers, mut progress) = (Vec::new(), Vec::new(), 0);
        let engine = Engine::open(&self.data_root(), &self.path("run"), Default::default());
        let name = Reference::parse(name).expect("a reference");
        let mut watch = |event: Event| {
            match &event {
                Event::LayerStarted { layer } => layers.push(layer.clone()),
                Event::LayerProgress { layer, done_bytes, total_bytes } => {
                    assert!(layers.contains(layer), "{event:?}: of {layers:?}");
                    assert!(done_bytes <= total_bytes, "{event:?}");
                    progress += 1;
                }
                Event::LayerDone { layer } => layers.retain(|other| other != layer),
                _ => {}
            }
            told.push(event);
        };
        let engine = engine.expect("open the engine");
        engine.pull(&name, &Engine::platform(), Deltas::default(), &mut watch).expect("pull");
        assert!(layers.is_empty(), "not done: {layers:?}");
        assert!(progress > 0, "no progress was told: {told:?}");
        told
    }

    /// A file or directory in it.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.directory.join(relative)
    }

    /// Where vaquita keeps what lasts.
    pub fn data_root(&self) -> PathBuf {
        self.path("data")
    }

    /// A shell command with `vaquita` in its PATH, working on this sandbox's roots.
    pub fn shell(&self, script: &str, variables: &[(String, String)]) -> Outcome {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("timeout");
        command.args(["-k", "5", COMMAND_SECONDS, "sh", "-c", script]).current_dir(&self.directory);
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        run(&mut command)
    }

    /// `vaquita ARGUMENTS` on this sandbox's roots.
    pub fn vaquita(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", COMMAND_SECONDS]).arg(self.path("bin/vaquita")).args(arguments);
        run(&mut command)
    }

    /// Every file below the data root in one line each: path, mode, owner, size, and SHA-256 or target. Times are left
    /// out: a failed command may well have touched a directory.
    pub fn listing(&self) -> Vec<String> {
        let mut lines = Vec::new();
        list(&self.data_root(), Path::new(""), &mut lines);
        lines.sort();
        lines
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = |line: &&str| {
            line.split(' ')
                .nth(1)
                .is_some_and(|point| Path::new(point).starts_with(&self.directory))
        };
        for line in mounts.lines().rev().filter(below) {
            let _ =
                Command::new("umount").args(["-l", line.split(' ').nth(1).unwrap_or("")]).output();
        }
        let _ = Command::new("rm").args(["-rf", "--one-file-system"]).arg(&self.directory).output();
    }
}

fn list(root: &Path, relative: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(relative)).into_iter().flatten().flatten() {
        let relative = relative.join(entry.file_name());
        let path = root.join(&relative);
        let status = fs::symlink_metadata(&path).expect("a file that was just listed");
        let kind = status.file_type();
        let content = match kind {
            _ if kind.is_symlink() => {
                format!("-> {}", fs::read_link(&path).unwrap_or_default().display())
            }
            _ if kind.is_file() => sha256(&fs::read(&path).expect("read a listed file")),
            _ if kind.is_char_device() || kind.is_block_device() => {
                format!("device {}", status.rdev())
            }
            _ => String::new(),
        };
        let size = if kind.is_dir() { 0 } else { status.len() };
        let (uid, gid) = (status.uid(), status.gid());
        lines.push(format!(
            "{} {:o} {uid}:{gid} {size} {content}",
            relative.display(),
            status.mode()
        ));
        if kind.is_dir() {
            list(root, &relative, lines);
        }
    }
}

/// The program under test: cargo's, or what VAQUITA names, such as a target's static binary.
pub fn binary() -> PathBuf {
    std::env::var_os("VAQUITA").map_or(env!("CARGO_BIN_EXE_vaquita").into(), PathBuf::from)
}

/// Runs it to its end with nothing on its standard input. A signal counts as 128 and its number, as in a shell.
pub fn run(command: &mut Command) -> Outcome {
    use std::os::unix::process::ExitStatusExt;
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("run {command:?}: {e}"));
    let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
    Outcome {
        code: code.unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs what must succeed and gives what it printed, without the last newline.
pub fn succeed(command: &mut Command) -> String {
    let outcome = run(command);
    assert_eq!(outcome.code, 0, "{command:?}: {}{}", outcome.stdout, outcome.stderr);
    outcome.stdout.trim_end().to_string()
}

/// A script of `tests/fixtures`.
pub fn fixture(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name))
}

/// SHA-256 in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A real registry on loopback that ends with this value.
pub struct Registry {
    directory: PathBuf,
    /// host:port
    pub address: String,
}

impl Registry {
    /// Starts one with its storage in `directory`; `tls` gives it a certificate by an authority made for it.
    pub fn start(directory: PathBuf, tls: bool) -> Registry {
        // Not through a pipe: the registry inherits it and `output` would wait for its end.
        let mut command = fixture("registry");
        command.arg("start").arg(&directory).stdout(Stdio::null());
        let status = if tls { command.arg("--tls").status() } else { command.status() };
        assert!(status.is_ok_and(|status| status.success()), "start a registry in {directory:?}");
        let address =
            fs::read_to_string(directory.join("address")).expect("the registry's address");
        Registry { address: address.trim().into(), directory }
    }

    /// The certificate of the authority that it answers with.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = fixture("registry").arg("stop").arg(&self.directory).status();
    }
}
