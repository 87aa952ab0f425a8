//! Directories for one test's containers, and the way to start them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const APPLETS: &str = "sh cat echo id ls true false sleep env hostname stat stty tty mount mkdir mknod head wc pwd \
                       readlink touch ip kill dd sha256sum grep sed seq cut umask chroot test ps nice sort";

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
            symlink("busybox", fixture.lower("bin").join(applet)).unwrap();
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Path::new(&self.dir));
    }
}
