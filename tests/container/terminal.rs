//! Containers on a terminal: the test holds the other side of the user's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use vaquita::sys::terminal::open_pair;

use crate::Test;
use crate::fixture::Fixture;

pub const TESTS: &[Test] = &[
    ("tty_is_a_terminal_of_the_container", tty_is_a_terminal_of_the_container),
    ("tty_size_follows_the_user_s", tty_size_follows_the_user_s),
    ("tty_keys_reach_the_container", tty_keys_reach_the_container),
    ("tty_mode_is_given_back", tty_mode_is_given_back),
    ("tty_output_is_written_to_the_end", tty_output_is_written_to_the_end),
    ("tty_without_one_of_the_user", tty_without_one_of_the_user),
];

/// What the user sees: the master of a pseudo-terminal whose slave the engine has as descriptors 0 to 2.
struct Screen {
    master: File,
    slave: OwnedFd,
    text: String,
}

impl Screen {
    fn new() -> Screen {
        let (master, slave) = open_pair().unwrap();
        Screen { master: master.into(), slave, text: String::new() }
    }

    fn start(&self, fixture: &Fixture, words: &[&str], command: &[&str]) -> Child {
        let side = || Stdio::from(self.slave.try_clone().unwrap());
        let mut engine = fixture.command(words, command);
        engine.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap()
    }

    fn read(&mut self, fixture: &Fixture, wanted: &str) {
        let mut buffer = [0; 4096];
        fixture.until(wanted, || {
            if let Ok(count) = self.master.read(&mut buffer) {
                self.text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            self.text.contains(wanted)
        });
    }

    fn resize(&self, rows: u16, columns: u16) {
        let stty = std::process::Command::new("stty")
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .stdin(Stdio::from(self.slave.try_clone().unwrap()))
            .status();
        assert!(stty.unwrap().success());
    }

    fn mode(&self) -> String {
        let stty = std::process::Command::new("stty")
            .arg("-g")
            .stdin(Stdio::from(self.slave.try_clone().unwrap()))
            .output();
        String::from_utf8(stty.unwrap().stdout).unwrap()
    }
}

fn tty_is_a_terminal_of_the_container(fixture: &Fixture) {
    let mut screen = Screen::new();
    let script = "/bin/tty; /bin/ls -l /proc/self/fd/2; /bin/stat -c %u:%g /dev/pts/0; /bin/stat -c %t:%T /dev/console; \
                  echo ok > /dev/tty; echo $TERM; exit 3";
    let mut engine = screen.start(fixture, &["tty", "stdin", "user=web"], &["sh", "-c", script]);
    assert_eq!(engine.wait().unwrap().code(), Some(3));
    screen.read(fixture, "xterm");
    for part in ["/dev/pts/0\r\n", "2 -> /dev/pts/0", "33:5\r\n", "88:0\r\n", "ok\r\n", "xterm\r\n"]
    {
        assert!(screen.text.contains(part), "{part:?} in {}", screen.text);
    }
}

fn tty_size_follows_the_user_s(fixture: &Fixture) {
    let mut screen = Screen::new();
    screen.resize(33, 111);
    let script = "trap '/bin/stty size; exit' WINCH; /bin/stty size; \
                  while :; do /bin/sleep 0.05; done";
    let mut engine = screen.start(fixture, &["tty", "stdin"], &["sh", "-c", script]);
    screen.read(fixture, "33 111");
    screen.resize(44, 99);
    // The engine is not in the foreground process group of this terminal, which would have sent it this.
    vaquita::sys::process::kill(fixture.pid_of(&engine), vaquita::sys::signal::SIGWINCH).unwrap();
    screen.read(fixture, "44 99");
    assert_eq!(engine.wait().unwrap().code(), Some(0));
}

/// Ctrl-C is a key like any other: the container's terminal makes it a signal.
fn tty_keys_reach_the_container(fixture: &Fixture) {
    let mut screen = Screen::new();
    let script = "trap 'echo interrupted; exit 9' INT; read line; echo got $line; echo go; \
                  while :; do /bin/sleep 0.05; done";
    let mut engine = screen.start(fixture, &["tty", "stdin"], &["sh", "-c", script]);
    screen.master.write_all(b"words\r").unwrap();
    screen.read(fixture, "got words");
    screen.read(fixture, "go\r\n");
    screen.master.write_all(b"\x03").unwrap();
    screen.read(fixture, "interrupted");
    assert_eq!(engine.wait().unwrap().code(), Some(9));
}

fn tty_mode_is_given_back(fixture: &Fixture) {
    let mut screen = Screen::new();
    let before = screen.mode();
    let trap = "trap 'exit 5' TERM; echo ready; while :; do /bin/sleep 0.05; done";
    for (script, signal, code) in [("exit 4", None, 4), (trap, Some(15), 5)] {
        let mut engine = screen.start(fixture, &["tty", "stdin"], &["sh", "-c", script]);
        if let Some(signal) = signal {
            screen.read(fixture, "ready");
            assert_ne!(screen.mode(), before);
            vaquita::sys::process::kill(fixture.pid_of(&engine), signal).unwrap();
        }
        assert_eq!(engine.wait().unwrap().code(), Some(code));
        assert_eq!(screen.mode(), before);
    }
    let mut engine = screen.start(fixture, &["tty", "stdin"], &["nosuch"]);
    assert_eq!(engine.wait().unwrap().code(), Some(127));
    assert_eq!(screen.mode(), before);
}

fn tty_output_is_written_to_the_end(fixture: &Fixture) {
    let outcome = fixture.run(&["tty"], &["seq", "1", "100000"]);
    assert_eq!(outcome.stdout.lines().count(), 100_000);
    assert!(outcome.stdout.ends_with("\r\n100000\r\n"));
}

fn tty_without_one_of_the_user(fixture: &Fixture) {
    let outcome = fixture.run(&["tty"], &["sh", "-c", "/bin/tty; exit 6"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (6, "/dev/pts/0\r\n"));
}
