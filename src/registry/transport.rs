//! Connections: names to addresses, TCP, and what ureq reads and writes.
//!
//! ureq's own connectors would cost a second buffer for each connection, threads for name look-ups and proxies that
//! are not offered here; this is the little that a device needs of them, and it names the host in every error.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::client::Options;
use crate::error::{Error, Kind};

/// One connection's buffer for what arrives; a TLS record has 16 KiB.
pub(super) const INPUT_BUFFER_BYTES: usize = 32 << 10;
/// One connection's buffer for what is sent: a request's head.
pub(super) const OUTPUT_BUFFER_BYTES: usize = 16 << 10;
/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 16;

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
        let found = (host.trim_start_matches('[').trim_end_matches(']'), port).to_socket_addrs();
        let mut addresses = self.empty();
        for address in
            found.map_err(|e| ours(Kind::Unavailable, format!("look up host {host}"), e))?
        {
            if addresses.len() < MAX_ADDRESSES {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
}

/// Opens connections for ureq.
#[derive(Debug)]
pub(super) struct Connect;

impl Connect {
    pub(super) fn new(_options: &Options) -> Connect {
        Connect
    }
}

impl Connector<()> for Connect {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<Connection>, ureq::Error> {
        if details.needs_tls() {
            return Err(ureq::Error::Other(Box::new(SpeaksPlain)));
        }
        let timeout = details.timeout.not_zero().map(|t| *t);
        let stream = dial(details.uri, &details.addrs, timeout)?;
        Ok(Some(Connection {
            stream,
            buffers: LazyBuffers::new(INPUT_BUFFER_BYTES, OUTPUT_BUFFER_BYTES),
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
    Err(ours(Kind::Unavailable, format!("connect to {host}:{port}"), last))
}

/// The host of a URL, IPv6 addresses in brackets, and its port.
pub(super) fn host_and_port(uri: &Uri) -> (&str, u16) {
    let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(default))
}

fn ours(kind: Kind, message: String, cause: io::Error) -> ureq::Error {
    ureq::Error::Other(Box::new(Error::new(kind, message).caused_by(cause)))
}

/// A connection with its buffers.
pub(super) struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
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
            self.stream.set_write_timeout(wanted)?;
            self.write_timeout = wanted;
        }
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output).map_err(|e| timed(e, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        let wanted = timeout.not_zero().map(|t| *t);
        if self.read_timeout != wanted {
            self.stream.set_read_timeout(wanted)?;
            self.read_timeout = wanted;
        }
        let count = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|e| timed(e, timeout))?,
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
        probe(&self.stream).unwrap_or(false)
    }
}

fn timed(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => ureq::Error::Io(error),
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
