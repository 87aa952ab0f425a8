//! Connections: names to addresses, TCP, and what ureq reads and writes.
//!
//! ureq's own connectors would cost a second buffer for each connection, threads for name look-ups and proxies that
//! are not offered here; this is the little that a device needs of them, and it names the host in every error.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::client::check_stop;
use super::location::{self, Policy};
use super::options::Options;
use super::trust::{self, Cause, Trust};
use crate::error::{Error, Kind};

/// One connection's buffer for what arrives; a TLS record has 16 KiB.
pub(super) const INPUT_BUFFER_BYTES: usize = 32 << 10;
/// One connection's buffer for what is sent: a request's head.
pub(super) const OUTPUT_BUFFER_BYTES: usize = 16 << 10;
/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 16;
/// How often a read looks whether it shall end.
const STOP_CHECK: Duration = Duration::from_millis(250);

/// The server does not speak TLS where TLS was tried first.
#[derive(Debug)]
pub(super) struct SpeaksPlain;

impl fmt::Display for SpeaksPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server does not speak TLS")
    }
}

impl std::error::Error for SpeaksPlain {}

/// Looks names up with the C library (`/etc/hosts`, `/etc/resolv.conf`).
#[derive(Debug)]
pub(super) struct Lookup;

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let (host, port) = host_and_port(uri);
        let found = (bare(host), port).to_socket_addrs();
        let mut addresses = self.empty();
        let found = found.map_err(|cause| {
            other(Error::new(Kind::Unavailable, format!("look up host {host}")).caused_by(cause))
        })?;
        // The name is trusted as loopback is; where no file says what it means, a name server must not.
        let is_local = bare(host).eq_ignore_ascii_case("localhost");
        for address in found.filter(|address| !is_local || address.ip().is_loopback()) {
            if addresses.len() < MAX_ADDRESSES {
                addresses.push(address);
            }
        }
        if is_local && addresses.is_empty() {
            addresses.push((Ipv4Addr::LOCALHOST, port).into());
        }
        Ok(addresses)
    }
}

/// Opens connections for ureq.
pub(super) struct Connect {
    insecure: Vec<String>,
    trust: Trust,
    stop: Arc<AtomicBool>,
    has_connected: Arc<AtomicBool>,
}

impl Connect {
    pub(super) fn new(options: &Options, has_connected: &Arc<AtomicBool>) -> Connect {
        Connect {
            insecure: options.insecure.clone(),
            trust: Trust::new(options.ca_files.clone()),
            stop: options.stop.clone(),
            has_connected: has_connected.clone(),
        }
    }

    /// TLS over `stream`, after the handshake.
    fn shake_hands(
        &self,
        uri: &Uri,
        mut stream: TcpStream,
        timeout: Option<Duration>,
    ) -> Result<Stream, ureq::Error> {
        let (host, port) = host_and_port(uri);
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        let policy = location::policy(authority, &self.insecure);
        let doing = || format!("open TLS connection to {host}:{port}");
        let config = self.trust.config(authority, policy).map_err(other)?;
        let name = ServerName::try_from(bare(host).to_string()).map_err(|_| {
            other(Error::new(Kind::Invalid, format!("{}: not a valid host name", doing())))
        })?;
        let failed = |error| match trust::cause(error) {
            Cause::SpeaksPlain if policy != Policy::Verified => {
                ureq::Error::Other(Box::new(SpeaksPlain))
            }
            Cause::SpeaksPlain => other(Error::new(Kind::Invalid, doing()).caused_by(SpeaksPlain)),
            Cause::Is(error) => other(Error::new(error.kind(), doing()).caused_by(error)),
        };
        stream.set_read_timeout(timeout)?;
        stream.set_write_timeout(timeout)?;
        let mut session =
            ClientConnection::new(config, name).map_err(|e| failed(io::Error::other(e)))?;
        while session.is_handshaking() {
            session.complete_io(&mut stream).map_err(failed)?;
        }
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, stream))))
    }
}

impl Connector<()> for Connect {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<Connection>, ureq::Error> {
        let timeout = details.timeout.not_zero().map(|t| *t);
        let stream = dial(details.uri, &details.addrs, timeout)?;
        self.has_connected.store(true, Ordering::Relaxed);
        let stream = match details.needs_tls() {
            true => self.shake_hands(details.uri, stream, timeout)?,
            false => Stream::Plain(stream),
        };
        Ok(Some(Connection {
            stream,
            buffers: LazyBuffers::new(INPUT_BUFFER_BYTES, OUTPUT_BUFFER_BYTES),
            stop: self.stop.clone(),
            read_timeout: None,
            write_timeout: None,
        }))
    }
}

/// A TCP connection to the first of `addresses` that takes one. Each gets an equal part of the time.
fn dial(
    uri: &Uri,
    addresses: &[SocketAddr],
    timeout: Option<Duration>,
) -> Result<TcpStream, ureq::Error> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let tried = match timeout {
            Some(whole) => TcpStream::connect_timeout(address, whole / addresses.len() as u32),
            None => TcpStream::connect(address),
        };
        match tried.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    let (host, port) = host_and_port(uri);
    Err(other(Error::new(Kind::Unavailable, format!("connect to {host}:{port}")).caused_by(last)))
}

/// The host of a URL, IPv6 addresses in brackets, and its port.
pub(super) fn host_and_port(uri: &Uri) -> (&str, u16) {
    let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(default))
}

fn other(error: Error) -> ureq::Error {
    ureq::Error::Other(Box::new(error))
}

/// An IPv6 address without its brackets; any other host as it is.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(session) => &session.sock,
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
    stop: Arc<AtomicBool>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        let wanted = timeout.not_zero().map(|t| *t);
        if self.write_timeout != wanted {
            self.stream.socket().set_write_timeout(wanted)?;
            self.write_timeout = wanted;
        }
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output).map_err(|e| timed(e, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        let longest = timeout.not_zero().map(|t| *t).unwrap_or(Duration::MAX);
        let wanted = Some(longest.min(STOP_CHECK));
        if self.read_timeout != wanted {
            self.stream.socket().set_read_timeout(wanted)?;
            self.read_timeout = wanted;
        }
        let start = Instant::now();
        let count = loop {
            check_stop(&self.stop).map_err(other)?;
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(count) => break count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_timeout(&e) && start.elapsed() < longest => {}
                Err(e) => return Err(timed(e, timeout)),
            }
        };
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
        probe(self.stream.socket()).unwrap_or(false)
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
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

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connect")
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
