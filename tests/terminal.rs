//! A pull watched by a person: the binary on a pseudo-terminal, what it draws read by a small terminal.

#[allow(dead_code, reason = "each test program uses its part")]
mod hostile;
mod sandbox;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hostile::{Forged, Hostile, Layer, Tar};
use sandbox::Sandbox;
use vaquita::sys::terminal::open_pair;

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal whose other side a program has; it keeps lines and a cursor, scrolls, and knows the few commands that
/// the engine uses.
struct Screen {
    master: File,
    slave: OwnedFd,
    height: usize,
    lines: Vec<String>,
    row: usize,
    column: usize,
    raw: Vec<u8>,
    read: usize,
}

impl Screen {
    fn new(height: usize, width: usize) -> Screen {
        let (master, slave) = open_pair().unwrap();
        let stty = Command::new("stty")
            .args(["rows", &height.to_string(), "cols", &width.to_string()])
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .status();
        assert!(stty.unwrap().success());
        let (lines, raw) = (vec![String::new()], Vec::new());
        Screen { master: master.into(), slave, height, lines, row: 0, column: 0, raw, read: 0 }
    }

    /// Starts `vaquita` with this as its controlling terminal.
    fn start(&self, sandbox: &Sandbox, arguments: &[&str]) -> Child {
        let side = || Stdio::from(self.slave.try_clone().unwrap());
        Command::new("setsid")
            .arg("--ctty")
            .arg("--wait")
            .arg(sandbox.path("bin/vaquita"))
            .args(arguments)
            .env("TERM", "xterm")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap()
    }

    /// Reads what there is.
    fn take(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(count) = self.master.read(&mut buffer) {
            if count == 0 {
                break;
            }
            self.raw.extend_from_slice(&buffer[..count]);
        }
        while self.step() {}
    }

    /// Obeys the next character or command, if it is whole.
    fn step(&mut self) -> bool {
        let Some(&byte) = self.raw.get(self.read) else { return false };
        self.read += 1;
        match byte {
            b'\r' => self.column = 0,
            b'\n' => {
                self.row += 1;
                if self.row == self.lines.len() {
                    self.lines.push(String::new());
                }
            }
            0x1b => {
                let rest = &self.raw[self.read..];
                let Some(end) = rest.iter().position(u8::is_ascii_alphabetic) else {
                    self.read -= 1;
                    return false;
                };
                let number = std::str::from_utf8(&rest[..end]).unwrap().trim_start_matches('[');
                let number = number.parse().unwrap_or(0);
                self.read += end + 1;
                self.command(rest[end], number);
            }
            byte => {
                let line = &mut self.lines[self.row];
                line.extend(std::iter::repeat_n(' ', self.column.saturating_sub(line.len())));
                let end = (self.column + 1).min(line.len());
                line.replace_range(self.column..end, &char::from(byte).to_string());
                self.column += 1;
            }
        }
        true
    }

    fn command(&mut self, command: u8, number: usize) {
        match command {
            b'A' => {
                let top = self.lines.len().saturating_sub(self.height);
                assert!(self.row >= top + number, "up {number} leaves the screen");
                self.row -= number;
            }
            b'B' => {
                self.row += number;
                assert!(self.row < self.lines.len(), "down {number} leaves the lines");
            }
            b'K' => self.lines[self.row].truncate(self.column),
            b'J' => {
                self.lines[self.row].truncate(self.column);
                self.lines.truncate(self.row + 1);
            }
            other => panic!("a command that nobody needs: {:?}", char::from(other)),
        }
    }

    fn read_until(&mut self, wanted: &str) {
        let started = Instant::now();
        while !self.lines.iter().any(|line| line.contains(wanted)) {
            assert!(started.elapsed() < PATIENCE, "no {wanted:?} in {:#?}", self.lines);
            thread::sleep(Duration::from_millis(2));
            self.take();
        }
    }

    /// Reads until the program has ended, and all that it wrote.
    fn read_to_end(&mut self, child: &mut Child) -> ExitStatus {
        let started = Instant::now();
        loop {
            let ended = child.try_wait().unwrap();
            self.take();
            if let Some(status) = ended {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end: {:#?}", self.lines);
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn layer(seed: u32, bytes: usize) -> Layer {
    let name = format!("file{seed}");
    Layer::of(&Tar::default().member(b'0', &name, "", &noise(seed, bytes)).end())
}

#[test]
fn layers_are_redrawn_in_place() {
    for (rows, layers) in [(24, 3), (4, 9)] {
        let (sandbox, hostile) = (Sandbox::new(&format!("watched-{layers}")), Hostile::start());
        let image = Forged { layers: (0..layers).map(|seed| layer(seed, 300_000)).collect() };
        let reference = hostile.put_image("app", &image);
        let mut screen = Screen::new(rows, 80);
        let mut pull = screen.start(&sandbox, &["pull", &reference]);
        assert!(screen.read_to_end(&mut pull).success(), "{:#?}", screen.lines);
        let complete = screen.lines.iter().filter(|line| line.ends_with(": Pull complete"));
        assert_eq!(complete.count(), layers as usize, "{:#?}", screen.lines);
        let others: Vec<&String> =
            screen.lines.iter().filter(|line| !line.ends_with(": Pull complete")).collect();
        assert_eq!(others[0], "latest: Pulling from app", "{:#?}", screen.lines);
        assert!(others[1].starts_with("Digest: sha256:"), "{:#?}", screen.lines);
        assert!(others[2].starts_with("Status: Downloaded newer image for "));
        assert_eq!((others.len(), screen.column), (5, 0), "{:#?}", screen.lines);
    }
}

/// Passes connections on, but at most `limit` bytes of answers each; then it says nothing more.
fn stalling_proxy(target: String, limit: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&target).unwrap());
            let (mut questions, mut answers) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut questions, &mut server));
            thread::spawn(move || {
                let mut limited = (&mut answers).take(limit as u64);
                // Either side may have given up; then there is nothing to pass on.
                let _ = std::io::copy(&mut limited, &mut client);
                while limited.limit() == 0 {
                    thread::park();
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

#[test]
fn an_interrupted_pull_leaves_a_sane_terminal() {
    let (sandbox, hostile) = (Sandbox::new("interrupted"), Hostile::start());
    let image = Forged { layers: vec![layer(1, 1_000), layer(2, 1_000_000)] };
    let reference = hostile.put_image("app", &image);
    let (authority, name) = reference.split_once('/').unwrap();
    let proxy = stalling_proxy(authority.into(), 100_000);
    let mut screen = Screen::new(24, 80);
    let mut pull = screen.start(&sandbox, &["pull", &format!("{proxy}/{name}")]);
    screen.read_until(": Pull complete");
    screen.master.write_all(b"\x03").unwrap();
    assert!(!screen.read_to_end(&mut pull).success());
    let last = screen.lines.last().unwrap();
    assert!(["", "^C"].contains(&last.as_str()), "{:#?}", screen.lines);
    assert_eq!((screen.row, screen.column), (screen.lines.len() - 1, last.len()));
}
