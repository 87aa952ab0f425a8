//! A bad link: a proxy on loopback in front of a registry, which does to each answer what a test says and counts the
//! bytes that it passes on.
//!
//! As much of HTTP as a registry's GET needs. A policy decides the fate of each answer from what was asked, so that the
//! same seed gives the same faults however threads are scheduled.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod pull;

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Passed on at a time: what is counted is this much ahead of the client at most, beside the sockets' buffers.
const CHUNK_BYTES: usize = 16 << 10;
/// The send buffer of a connection, so that bytes in flight are few beside the limits that tests hold.
const SEND_BUFFER_BYTES: usize = 32 << 10;
/// Bytes after which the proxy looks whether the client keeps up; looking is slow where there are many sockets.
const PACE_BYTES: u64 = 256 << 10;
/// Nothing more is passed on while the client has this much to read.
const UNREAD_BYTES: u64 = 64 << 10;
/// A stalled connection is closed after this long if the client never gives up.
const LONGEST_STALL: Duration = Duration::from_secs(120);

/// What happens to one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// No answer: the connection ends.
    Close,
    /// An error of the server instead, with `Retry-After` seconds if given.
    Status(u16, Option<u32>),
    /// The connection ends after so many bytes of the body, with a reset or without.
    Cut { after: u64, reset: bool },
    /// Silence after so many bytes of the body, the connection open.
    Stall { after: u64 },
    /// The byte at this place of the body is another.
    Corrupt { at: u64 },
    /// A whole answer, whose head says that these bytes of the body are all.
    Truncate { to: u64 },
    /// So many bytes a second.
    Slow { bytes_per_second: u64 },
}

/// What a policy decides from.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The path, without a query.
    pub path: String,
    /// The hex digest, if it is a blob.
    pub blob: Option<String>,
    /// How often this path was asked for before.
    pub times_before: u64,
    /// The first byte asked for.
    pub start: u64,
}

/// An answer of which bytes were passed on.
#[derive(Clone, Debug)]
pub struct Passed {
    pub asked: Asked,
    pub fault: Fault,
    /// Bytes of the body that went into the client's connection.
    pub bytes: u64,
    /// The proxy has nothing more to do with it, or is silent.
    pub is_over: bool,
}

type Policy = Arc<dyn Fn(&Asked) -> Fault + Send + Sync>;

/// The proxy; its threads end with the test program.
pub struct Link {
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    state: Mutex<State>,
    changed: Condvar,
    ignores_ranges: AtomicBool,
    keeps_pace: AtomicBool,
}

struct State {
    policy: Policy,
    /// Connections to close as soon as they come.
    closing: u32,
    times: HashMap<String, u64>,
    passed: Vec<Passed>,
    /// Counts the resets, so that answers from before one are not taken for later ones.
    resets: u64,
}

/// Which entry of `passed`, after which reset.
#[derive(Clone, Copy)]
struct Entry {
    resets: u64,
    index: usize,
}

impl Link {
    /// A proxy in front of the registry at `upstream` that passes everything.
    pub fn start(upstream: &str) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("its address").to_string();
        let state = State {
            policy: Arc::new(|_| Fault::Pass),
            closing: 0,
            times: HashMap::new(),
            passed: Vec::new(),
            resets: 0,
        };
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            ignores_ranges: AtomicBool::new(false),
            keeps_pace: AtomicBool::new(false),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = serving.clone();
                // A client that hangs up, or is killed, is what the tests want.
                std::thread::spawn(move || drop(shared.serve(client)));
            }
        });
        Link { address, shared }
    }

    /// Forgets what was asked and passed, and decides by `policy` from now on; the next `closing` connections are
    /// closed as they come.
    pub fn reset(&self, closing: u32, policy: impl Fn(&Asked) -> Fault + Send + Sync + 'static) {
        let mut state = self.shared.lock();
        state.policy = Arc::new(policy);
        state.closing = closing;
        state.times.clear();
        state.passed.clear();
        state.resets += 1;
    }

    /// Sends no faster than the client reads, so that what was passed on is what it has seen.
    pub fn keep_pace(&self) {
        self.shared.keeps_pace.store(true, Ordering::Relaxed);
    }

    /// Answers as servers do that do not know `Range`.
    pub fn ignore_ranges(&self, ignores: bool) {
        self.shared.ignores_ranges.store(ignores, Ordering::Relaxed);
    }

    /// All answers since the last reset.
    pub fn passed(&self) -> Vec<Passed> {
        self.shared.lock().passed.clone()
    }

    /// Bytes of the blob that were passed on since the last reset.
    pub fn bytes_of(&self, blob: &str) -> u64 {
        let state = self.shared.lock();
        let of_blob = |passed: &&Passed| passed.asked.blob.as_deref() == Some(blob);
        state.passed.iter().filter(of_blob).map(|passed| passed.bytes).sum()
    }

    /// Waits until `is_reached` says so of what was passed; false when that takes longer than `limit`.
    pub fn wait(&self, limit: Duration, is_reached: impl Fn(&[Passed]) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.shared.lock();
        while !is_reached(&state.passed) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// A head: its first line, and the lines below.
struct Head {
    first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// `None` at the end of the connection.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let mut head = Head { first: String::new(), fields: Vec::new() };
        if from.read_line(&mut head.first)? == 0 {
            return Ok(None);
        }
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => {
                    head.fields.push((name.trim().to_lowercase(), value.trim().into()));
                }
                None => return Ok(Some(head)),
            }
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn drop_field(&mut self, name: &str) {
        self.fields.retain(|(known, _)| known != name);
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let fields: String =
            self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        to.write_all(format!("{}\r\n{fields}\r\n", self.first.trim_end()).as_bytes())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection of the client, with as many questions as it asks there.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        {
            let mut state = self.lock();
            if state.closing > 0 {
                state.closing -= 1;
                return Ok(());
            }
        }
        rustix::net::sockopt::set_socket_send_buffer_size(&client, SEND_BUFFER_BYTES)?;
        client.set_nodelay(true)?;
        let mut reader = BufReader::new(client.try_clone()?);
        // What a handshake of TLS begins with: the client learns that this is plain HTTP, as from any such server.
        if reader.fill_buf()?.first() == Some(&0x16) {
            return client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        }
        while let Some(question) = Head::read(&mut reader)? {
            if !self.answer(question, &mut client)? {
                break;
            }
        }
        Ok(())
    }

    /// Asks upstream and passes the answer on; true if the connection can be used again.
    fn answer(&self, mut question: Head, client: &mut TcpStream) -> io::Result<bool> {
        if self.ignores_ranges.load(Ordering::Relaxed) {
            question.drop_field("range");
        }
        let (entry, fault) = self.decide(&question);
        let whole = self.pass(entry, fault, question, client);
        self.change(entry, |passed| passed.is_over = true);
        whole
    }

    fn decide(&self, question: &Head) -> (Entry, Fault) {
        let path = question.first.split(' ').nth(1).unwrap_or("");
        let path = path.split('?').next().unwrap_or("").to_string();
        let blob = path.rsplit_once("/blobs/sha256:").map(|(_, hex)| hex.to_string());
        let range = question.field("range").and_then(|range| range.strip_prefix("bytes="));
        let start = range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0);
        let mut state = self.lock();
        let times = state.times.entry(path.clone()).or_default();
        let asked = Asked { path, blob, times_before: *times, start };
        *times += 1;
        let fault = (state.policy)(&asked);
        state.passed.push(Passed { asked, fault, bytes: 0, is_over: false });
        (Entry { resets: state.resets, index: state.passed.len() - 1 }, fault)
    }

    /// Changes an entry, unless a reset has forgotten it.
    fn change(&self, entry: Entry, change: impl Fn(&mut Passed)) {
        let mut state = self.lock();
        if state.resets == entry.resets {
            state.passed.get_mut(entry.index).map(change);
        }
        self.changed.notify_all();
    }

    fn pass(
        &self,
        entry: Entry,
        fault: Fault,
        question: Head,
        client: &mut TcpStream,
    ) -> io::Result<bool> {
        match fault {
            Fault::Close => return Ok(false),
            Fault::Status(status, retry_after) => {
                return refuse(client, status, retry_after).map(|()| true);
            }
            _ => {}
        }
        let head_only = question.first.starts_with("HEAD ");
        let (mut head, mut body) = self.ask(question)?;
        let length = head.field("content-length").and_then(|length| length.parse().ok());
        let length: u64 = length.ok_or(io::ErrorKind::InvalidData)?;
        if let Fault::Truncate { to } = fault {
            head.drop_field("content-length");
            head.fields.push(("content-length".into(), to.min(length).to_string()));
        }
        head.write(client)?;
        let end = match fault {
            _ if head_only => 0,
            Fault::Cut { after, .. } | Fault::Stall { after } => after.min(length),
            Fault::Truncate { to } => to.min(length),
            _ => length,
        };
        let mut at = 0;
        let mut chunk = vec![0; CHUNK_BYTES];
        while at < end {
            let count = chunk.len().min((end - at) as usize);
            let bytes = &mut chunk[..count];
            body.read_exact(bytes)?;
            damage(fault, at, bytes);
            if at % PACE_BYTES == 0 && self.keeps_pace.load(Ordering::Relaxed) {
                keep_pace(client);
            }
            client.write_all(bytes)?;
            at += count as u64;
            self.change(entry, |passed| passed.bytes = at);
            if let Fault::Slow { bytes_per_second } = fault {
                std::thread::sleep(Duration::from_secs_f64(count as f64 / bytes_per_second as f64));
            }
        }
        match fault {
            Fault::Stall { .. } => {
                self.change(entry, |passed| passed.is_over = true);
                client.set_read_timeout(Some(LONGEST_STALL))?;
                // Until the client gives up.
                client.read(&mut [0]).map(|_| false)
            }
            Fault::Cut { reset, .. } => {
                if reset {
                    // Closed with nothing to linger for: the client sees a reset.
                    rustix::net::sockopt::set_socket_linger(&*client, Some(Duration::ZERO))?;
                }
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// The registry's answer, its head made fit for the client. HTTP/1.0, so that no body comes in chunks.
    fn ask(&self, mut question: Head) -> io::Result<(Head, BufReader<TcpStream>)> {
        question.first = question.first.replace("HTTP/1.1", "HTTP/1.0");
        question.drop_field("connection");
        let mut upstream = TcpStream::connect(&self.upstream)?;
        question.write(&mut upstream)?;
        let mut body = BufReader::with_capacity(CHUNK_BYTES, upstream);
        let mut head = Head::read(&mut body)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        head.first = head.first.replace("HTTP/1.0", "HTTP/1.1");
        head.drop_field("connection");
        if self.ignores_ranges.load(Ordering::Relaxed) {
            head.drop_field("accept-ranges");
        }
        Ok((head, body))
    }
}

/// Waits until the client has read nearly all that it was sent, so that what was passed on is what it has seen: sockets
/// would take in megabytes.
fn keep_pace(client: &TcpStream) {
    while unread(client).is_some_and(|bytes| bytes > UNREAD_BYTES) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes in the receive queue of the other end, which is on this machine; `None` when it is gone (proc(5), net/tcp).
fn unread(client: &TcpStream) -> Option<u64> {
    let (near, far) = (client.local_addr().ok()?.port(), client.peer_addr().ok()?.port());
    let ends = format!("0100007F:{far:04X} 0100007F:{near:04X}");
    let sockets = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let socket = sockets.lines().find(|line| line.contains(&ends))?;
    let (_, unread) = socket.split_whitespace().nth(4)?.split_once(':')?;
    u64::from_str_radix(unread, 16).ok()
}

fn damage(fault: Fault, start: u64, bytes: &mut [u8]) {
    if let Fault::Corrupt { at } = fault
        && let Some(byte) = at.checked_sub(start).and_then(|at| bytes.get_mut(at as usize))
    {
        *byte ^= 0x55;
    }
}

fn refuse(client: &mut TcpStream, status: u16, retry_after: Option<u32>) -> io::Result<()> {
    let document = r#"{"errors":[{"code":"UNAVAILABLE","message":"the link is bad"}]}"#;
    let retry_after =
        retry_after.map_or(String::new(), |after| format!("Retry-After: {after}\r\n"));
    let length = document.len();
    let head = format!("HTTP/1.1 {status} Bad\r\nContent-Length: {length}\r\n{retry_after}\r\n");
    client.write_all((head + document).as_bytes())
}

/// Seeded randomness (SplitMix64): the same numbers for the same seed and the same words.
pub struct Random(u64);

impl Random {
    /// From a seed and what else tells apart, such as a path.
    pub fn new(seed: u64, words: &str) -> Random {
        let mix = |state: u64, byte| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Random(words.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// The seed of this run, printed: `SEED` from the environment, or one of the clock.
pub fn seed() -> u64 {
    let of_clock = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.expect("a clock after 1970").as_nanos() as u64
    };
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(of_clock);
    println!("SEED={seed}");
    seed
}
