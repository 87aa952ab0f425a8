//! Directories for one test's containers, and the way to start them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vaquita::sys::process::Pid;

const APPLETS: &str = "sh cat echo id ls true false sleep env hostname stat stty tty mount mkdir mknod head wc pwd \
                       readlink touch ip kill dd sha256sum grep sed seq cut umask chroot test ps nice sort tty mkfifo";

pub struct Fixture {
    pub dir: PathBuf,
}

#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Fixture {
    /// A fresh directory with `lower` (busybox, passwd, group), `upper`, `work` and `mountpoint`.
    pub fn new(name: &str) -> Fixture {
        let name = format!("vaquita-container-{}-{name}", std::process::id());
        let fixture = Fixture { dir: std::env::temp_dir().join(name) };
        for directory in ["lower/bin", "lower/etc", "lower/tmp", "upper", "work", "mountpoint"] {
            fs::create_dir_all(fixture.dir.join(directory)).unwrap();
        }
        let busybox = std::env::var("VAQUITA_TEST_BUSYBOX").unwrap_or("/bin/busybox".into());
        fs::copy(busybox, fixture.lower("bin/busybox")).unwrap();
        for applet in APPLETS.split_whitespace() {
            let _ = symlink("busybox", fixture.lower("bin").join(applet));
        }
        fixture.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n");
        fixture.write("etc/group", "root:x:0:\nweb:x:34:\nadm:x:11:web\n");
        fixture
    }

    pub fn lower(&self, path: &str) -> PathBuf {
        self.dir.join("lower").join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.lower(path), text).unwrap();
        fs::set_permissions(self.lower(path), fs::Permissions::from_mode(0o644)).unwrap();
    }

    pub fn command(&self, words: &[&str], command: &[&str]) -> Command {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let mut contain = Command::new(std::env::current_exe().unwrap());
        contain.arg("contain");
        if !words.iter().any(|word| word.starts_with("lower=")) {
            contain.arg(format!("lower={}", path("lower")));
        }
        for name in ["upper", "work", "mountpoint"] {
            contain.arg(format!("{name}={}", path(name)));
        }
        contain.args(words).arg("--").args(command);
        contain
    }

    pub fn run(&self, words: &[&str], command: &[&str]) -> Outcome {
        self.run_with_input(words, command, b"")
    }

    pub fn run_with_input(&self, words: &[&str], command: &[&str], input: &[u8]) -> Outcome {
        let mut child = self.spawn(words, command);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn spawn(&self, words: &[&str], command: &[&str]) -> Child {
        let mut command = self.command(words, command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The engine started by a shell that first does something to its own process: `exec "$@"` is the engine, `$0` a file.
    pub fn shell(&self, script: &str, words: &[&str], command: &[&str]) -> Command {
        let contain = self.command(words, command);
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", script])
            .arg(self.lower("etc/passwd"))
            .arg(contain.get_program())
            .args(contain.get_args());
        shell
    }

    /// A field of /proc/self/status of a process in the container.
    pub fn status(&self, words: &[&str], field: &str) -> String {
        let outcome = self.run(words, &["cat", "/proc/self/status"]);
        let value =
            outcome.stdout.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        value.unwrap_or_else(|| panic!("no {field}: {outcome:?}")).to_string()
    }

    /// What a process writes, line by line.
    pub fn lines_of(&self, child: &mut Child) -> impl Iterator<Item = String> + use<> {
        BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap)
    }

    pub fn pid_of(&self, child: &Child) -> Pid {
        Pid::from_raw(child.id() as i32).unwrap()
    }

    pub fn number(&self, pid: Pid) -> i32 {
        pid.as_raw_nonzero().get()
    }

    /// The children of a process, from /proc.
    pub fn children(&self, pid: Pid) -> Vec<Pid> {
        let number = self.number(pid);
        let list = fs::read_to_string(format!("/proc/{number}/task/{number}/children"));
        let list = list.unwrap_or_default();
        list.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().unwrap())).collect()
    }

    /// The first child of a process, once it is there: an engine's container.
    pub fn container_of(&self, engine: &Child) -> Pid {
        let mut found = None;
        self.until("a child", || {
            found = self.children(self.pid_of(engine)).first().copied();
            found.is_some()
        });
        found.unwrap()
    }

    /// Tries until something has happened; fails after 30 seconds.
    pub fn until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let started = Instant::now();
        while !happened() {
            assert!(started.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Path::new(&self.dir));
    }
}
