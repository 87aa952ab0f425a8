//! Connections: what ureq reads and writes, with limits on silence, on next to nothing, and on how long to go on when the
//! caller has gone.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::client::check_stop;
use crate::error::{Error, Kind};
use crate::sys::socket;

/// One connection's buffer for what arrives; a TLS record has 16 KiB.
pub(super) const INPUT_BUFFER_BYTES: usize = 32 << 10;
/// One connection's buffer for what is sent: a request's head.
pub(super) const OUTPUT_BUFFER_BYTES: usize = 16 << 10;
/// How often a wait on a socket looks whether it shall end.
const STOP_CHECK: Duration = Duration::from_millis(250);
/// An answer that brings less than this in `Options::stall_timeout` has stalled. The slowest links that images come over
/// bring ten times as much.
const STALL_BYTES: u64 = 4 << 10;

/// A socket that gives up when its time is over, when it brings next to nothing, or when the caller has gone.
pub(super) struct Socket {
    tcp: TcpStream,
    stop: Arc<AtomicBool>,
    pace: Pace,
    /// The longest silence.
    silence: Duration,
    /// When whatever is under way must be done.
    deadline: Option<Instant>,
}

/// What the kernel may take in before it is read. After a crash it has been paid for and is fetched again, so it is less
/// than the kernel would give; at 100 ms from the registry it still allows 5 MB/s on each connection.
const RECEIVE_BUFFER_BYTES: usize = 512 << 10;

impl Socket {
    /// Everything on it has to be done at `deadline`, until `release`.
    pub(super) fn new(
        tcp: TcpStream,
        stop: &Arc<AtomicBool>,
        stall_timeout: Duration,
        deadline: Option<Instant>,
    ) -> io::Result<Socket> {
        tcp.set_nodelay(true)?;
        socket::set_receive_buffer(tcp.as_fd(), RECEIVE_BUFFER_BYTES)?;
        tcp.set_read_timeout(Some(STOP_CHECK))?;
        tcp.set_write_timeout(Some(STOP_CHECK))?;
        let pace = Pace { longest: stall_timeout, waited: Duration::ZERO, bytes: 0 };
        Ok(Socket { tcp, stop: stop.clone(), pace, silence: Duration::MAX, deadline })
    }

    /// The set-up is done: from now on silence and pace count.
    fn release(&mut self) {
        self.deadline = None;
    }

    /// Tries until it is not for time that `attempt` fails, or time is over.
    fn patiently(
        &mut self,
        attempt: &mut dyn FnMut(&mut TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            check_stop(&self.stop)?;
            match attempt(&mut self.tcp) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_timeout(&e) => {}
                result => return result,
            }
            let now = Instant::now();
            let is_late = self.deadline.is_some_and(|deadline| now >= deadline);
            if is_late || now.saturating_duration_since(start) >= self.silence {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A server that sends a byte now and then is never silent, and would never be late.
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let start = Instant::now();
        let count = self.patiently(&mut |tcp| tcp.read(buffer))?;
        self.pace.note(start.elapsed(), count)?;
        Ok(count)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(&mut |tcp| tcp.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How much came in the time that was spent waiting for it; the caller's own time does not count.
struct Pace {
    longest: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn note(&mut self, waited: Duration, bytes: usize) -> Result<(), Error> {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let is_slow = self.waited >= self.longest && self.bytes < STALL_BYTES;
        if is_slow {
            let seconds = self.waited.as_secs();
            let message = format!("the server sends less than {STALL_BYTES} bytes in {seconds} s");
            return Err(Error::new(Kind::Unavailable, message));
        }
        if self.bytes >= STALL_BYTES {
            self.restart();
        }
        Ok(())
    }

    fn restart(&mut self) {
        (self.waited, self.bytes) = (Duration::ZERO, 0);
    }
}

/// What carries a connection.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Stream {
    fn socket(&mut self) -> &mut Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(session) => &mut session.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(session) => session.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(session) => session.write_all(bytes).and_then(|()| session.flush()),
        }
    }
}

/// A connection with its buffers.
pub(super) struct Connection {
    stream: Stream,
    buffers: LazyBuffers,
    forward: Option<Forward>,
}

/// How requests are put to a proxy that forwards them, rather than a tunnel (RFC 9112, section 3.2.2).
pub(super) struct Forward {
    /// `http://host[:port]` to put before the path.
    pub(super) origin: String,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
    /// Whether the next bytes are those of a request's head.
    pub(super) is_at_head: bool,
}

impl Forward {
    /// The head with the whole URL, and with what the proxy wants to see.
    fn rewrite(&self, head: &[u8]) -> Option<Vec<u8>> {
        let method_end = head.iter().position(|byte| *byte == b' ')? + 1;
        let line_end = head.windows(2).position(|pair| pair == b"\r\n")? + 2;
        let (method, path) = head.get(..line_end)?.split_at_checked(method_end)?;
        let mut rewritten = [method, self.origin.as_bytes(), path].concat();
        if let Some(authorization) = &self.authorization {
            rewritten.extend_from_slice(b"Proxy-Authorization: ");
            rewritten.extend_from_slice(authorization.as_bytes());
            rewritten.extend_from_slice(b"\r\n");
        }
        rewritten.extend_from_slice(head.get(line_end..)?);
        Some(rewritten)
    }
}

impl Connection {
    /// A connection that is set up.
    pub(super) fn new(mut stream: Stream, forward: Option<Forward>) -> Connection {
        stream.socket().release();
        let buffers = LazyBuffers::new(INPUT_BUFFER_BYTES, OUTPUT_BUFFER_BYTES);
        Connection { stream, buffers, forward }
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        let socket = self.stream.socket();
        socket.silence = longest(&timeout);
        socket.pace.restart();
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        let head = self.forward.as_ref().filter(|forward| forward.is_at_head);
        let rewritten = head.and_then(|forward| forward.rewrite(output));
        let output = rewritten.as_deref().unwrap_or(output);
        let written = self.stream.write_all(output).map_err(|e| timed(e, timeout));
        if let Some(forward) = &mut self.forward {
            forward.is_at_head = false;
        }
        written
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        self.stream.socket().silence = longest(&timeout);
        if let Some(forward) = &mut self.forward {
            forward.is_at_head = true;
        }
        let read = self.stream.read(self.buffers.input_append_buf());
        let count = read.map_err(|e| timed(e, timeout))?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// An idle connection is good if nothing can be read from it: neither an end nor a stray byte.
    fn is_open(&mut self) -> bool {
        let probe = |stream: &TcpStream| -> io::Result<bool> {
            stream.set_nonblocking(true)?;
            let peeked = stream.peek(&mut [0]);
            stream.set_nonblocking(false)?;
            Ok(peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock))
        };
        probe(&self.stream.socket().tcp).unwrap_or(false)
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

fn longest(timeout: &NextTimeout) -> Duration {
    timeout.not_zero().map_or(Duration::MAX, |t| *t)
}

fn timed(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match is_timeout(&error) {
        true => ureq::Error::Timeout(timeout.reason),
        false => ureq::Error::Io(error),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_slow_link_from_a_stalled_one() {
        let stalled = |reads: &[(u64, usize)]| {
            let (longest, waited) = (Duration::from_secs(10), Duration::ZERO);
            let mut pace = Pace { longest, waited, bytes: 0 };
            reads.iter().any(|(ms, bytes)| pace.note(Duration::from_millis(*ms), *bytes).is_err())
        };
        for (reads, expected) in [
            (&[(9_999, 1), (1, 4_095)][..], false),
            (&[(9_999, 1), (1, 4_094)], true),
            (&[(9_999, 4_096), (9_999, 1)], false),
            (&[(5_000, 1), (5_000, 1)], true),
            (&[(10_000, 4_096), (10_000, 4_096), (10_000, 4_096)], false),
            (&[(60_000, 0)], true),
            (&[], false),
        ] {
            assert_eq!(stalled(reads), expected, "{reads:?}");
        }
    }

    #[test]
    fn rewrites_heads_for_a_proxy() {
        let forward = |authorization: Option<&str>| Forward {
            origin: "http://r:5".into(),
            authorization: authorization.map(str::to_string),
            is_at_head: true,
        };
        let head = b"GET /v2/ HTTP/1.1\r\nHost: r:5\r\n\r\n";
        for (authorization, expected) in [
            (None, "GET http://r:5/v2/ HTTP/1.1\r\nHost: r:5\r\n\r\n"),
            (
                Some("Basic x"),
                "GET http://r:5/v2/ HTTP/1.1\r\nProxy-Authorization: Basic x\r\nHost: r:5\r\n\r\n",
            ),
        ] {
            let rewritten = forward(authorization).rewrite(head).unwrap();
            assert_eq!(String::from_utf8(rewritten).unwrap(), expected);
        }
        for odd in [&b""[..], b"GET", b"\r\n \r\n", b"GET / HTTP/1.1"] {
            assert_eq!(forward(None).rewrite(odd), None, "{odd:?}");
        }
    }
}
