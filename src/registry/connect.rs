//! From a URL to a connection: names to addresses, TCP, a proxy's tunnel, TLS.
//!
//! ureq's own connectors would cost a second buffer for each connection and threads for name look-ups; this is the little
//! that a device needs of them, and it names the host in every error. The whole has one deadline.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout};

use super::client::check_stop;
use super::location::Policy;
use super::options::Options;
use super::policy::Policies;
use super::proxy::{Proxy, Rules};
use super::transport::{Connection, Forward, Socket, Stream};
use super::trust::{self, Cause, Trust};
use crate::error::{Error, Kind, Result};

/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 16;
/// The largest head of a proxy's answer, in bytes.
const MAX_PROXY_HEAD_BYTES: usize = 16 << 10;

/// The server does not speak TLS where TLS was tried first.
#[derive(Debug)]
pub(super) struct SpeaksPlain;

impl fmt::Display for SpeaksPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server does not speak TLS")
    }
}

impl std::error::Error for SpeaksPlain {}

/// Looks names up with the C library (`/etc/hosts`, `/etc/resolv.conf`): the proxy's where there is one, which looks up the
/// server's.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) rules: Arc<Rules>,
}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let target = Target::of(uri);
        let proxy = target.proxy(&self.rules);
        let (host, port) = proxy.map_or((target.host, target.port), |p| (&p.host, p.port));
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

/// Where a URL leads.
struct Target<'a> {
    is_https: bool,
    /// IPv6 addresses in brackets.
    host: &'a str,
    port: u16,
    /// As the URL has it, with or without port.
    authority: &'a str,
}

impl<'a> Target<'a> {
    fn of(uri: &'a Uri) -> Target<'a> {
        let is_https = uri.scheme_str() != Some("http");
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        Target { is_https, host, port, authority }
    }

    fn proxy<'r>(&self, rules: &'r Rules) -> Option<&'r Proxy> {
        rules.find(self.is_https, self.host, self.port)
    }
}

/// Opens connections for ureq.
pub(super) struct Connect {
    policies: Arc<Policies>,
    rules: Arc<Rules>,
    trust: Trust,
    stop: Arc<AtomicBool>,
    stall_timeout: Duration,
    has_connected: Arc<AtomicBool>,
}

impl Connect {
    pub(super) fn new(
        options: &Options,
        policies: &Arc<Policies>,
        rules: &Arc<Rules>,
        has_connected: &Arc<AtomicBool>,
    ) -> Connect {
        Connect {
            policies: policies.clone(),
            rules: rules.clone(),
            trust: Trust::new(options),
            stop: options.stop.clone(),
            stall_timeout: options.stall_timeout,
            has_connected: has_connected.clone(),
        }
    }

    /// A connection to `target`, all done by `deadline`.
    fn open(
        &self,
        target: &Target,
        addresses: &[SocketAddr],
        deadline: Option<Instant>,
    ) -> Result<Connection, ureq::Error> {
        let proxy = target.proxy(&self.rules);
        let (host, port) = proxy.map_or((target.host, target.port), |p| (&p.host, p.port));
        let connecting = |cause: io::Error| {
            let what = if proxy.is_some() { "proxy " } else { "" };
            let message = format!("connect to {what}{host}:{port}");
            other(Error::new(Kind::Unavailable, message).caused_by(cause))
        };
        let tcp = dial(addresses, deadline).map_err(connecting)?;
        self.has_connected.store(true, Ordering::Relaxed);
        let mut socket =
            Socket::new(tcp, &self.stop, self.stall_timeout, deadline).map_err(connecting)?;
        match (target.is_https, proxy) {
            (false, None) => Ok(Connection::new(Stream::Plain(socket), None)),
            (false, Some(proxy)) => {
                let origin = format!("http://{}", target.authority);
                let authorization = proxy.authorization.clone();
                let forward = Forward { origin, authorization, is_at_head: true };
                Ok(Connection::new(Stream::Plain(socket), Some(forward)))
            }
            (true, proxy) => {
                if let Some(proxy) = proxy {
                    tunnel(&mut socket, target, proxy)
                        .map_err(|error| self.refused(target, error))?;
                }
                Ok(Connection::new(self.shake_hands(target, socket)?, None))
            }
        }
    }

    /// Many proxies make tunnels to port 443 only: to a host that may be spoken to in plain HTTP there is another way.
    fn refused(&self, target: &Target, error: Error) -> ureq::Error {
        let is_refusal = matches!(error.kind(), Kind::Invalid | Kind::Unavailable);
        match is_refusal && self.policies.of(target.authority) != Policy::Verified {
            true => ureq::Error::Other(Box::new(SpeaksPlain)),
            false => other(error),
        }
    }

    /// TLS over `socket`, after the handshake.
    fn shake_hands(&self, target: &Target, mut socket: Socket) -> Result<Stream, ureq::Error> {
        let policy = self.policies.of(target.authority);
        let doing = || format!("open TLS connection to {}:{}", target.host, target.port);
        let config = self.trust.config(target.authority, policy).map_err(other)?;
        let name = ServerName::try_from(bare(target.host).to_string()).map_err(|_| {
            other(Error::new(Kind::Invalid, format!("{}: not a valid host name", doing())))
        })?;
        let failed = |error| match trust::cause(error) {
            Cause::SpeaksPlain if policy != Policy::Verified => {
                ureq::Error::Other(Box::new(SpeaksPlain))
            }
            Cause::SpeaksPlain => other(Error::new(Kind::Invalid, doing()).caused_by(SpeaksPlain)),
            Cause::Is(error) => other(Error::new(error.kind(), doing()).caused_by(error)),
        };
        let mut session =
            ClientConnection::new(config, name).map_err(|e| failed(io::Error::other(e)))?;
        while session.is_handshaking() {
            let result = session.complete_io(&mut socket);
            check_stop(&self.stop).map_err(other)?;
            result.map_err(failed)?;
        }
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, socket))))
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
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.open(&Target::of(details.uri), &details.addrs, deadline).map(Some)
    }
}

/// A TCP connection to the first of `addresses` that takes one. Each gets an equal part of the time that is left.
fn dial(addresses: &[SocketAddr], deadline: Option<Instant>) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (tried, address) in addresses.iter().enumerate() {
        let result = match deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let part = left / (addresses.len() - tried) as u32;
                TcpStream::connect_timeout(address, part.max(Duration::from_millis(1)))
            }
            None => TcpStream::connect(address),
        };
        match result {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks a proxy for a tunnel to `target` (RFC 9110, section 9.3.6).
fn tunnel(socket: &mut Socket, target: &Target, proxy: &Proxy) -> Result<()> {
    let to = format!("{}:{}", target.host, target.port);
    let doing = || format!("connect to {to} through proxy {}:{}", proxy.host, proxy.port);
    let broken = |cause: io::Error| Error::new(Kind::Unavailable, doing()).caused_by(cause);
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes()).map_err(broken)?;
    // Byte by byte: what follows the head is the server's.
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_PROXY_HEAD_BYTES {
        match socket.read(&mut byte).map_err(broken)? {
            0 => break,
            _ => head.extend_from_slice(&byte),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split_ascii_whitespace();
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|status| status.parse().ok());
    let (kind, why) = match status.filter(|_| version.starts_with("HTTP/1.")) {
        Some(200..=299) if head.ends_with("\r\n\r\n") => return Ok(()),
        Some(407) => (Kind::Unauthorized, "it wants other credentials, or any".to_string()),
        Some(status @ 500..=599) => (Kind::Unavailable, format!("it answers {status}")),
        Some(status) => (Kind::Invalid, format!("it answers {status}")),
        None => (Kind::Unavailable, "its answer is not proper HTTP".to_string()),
    };
    Err(Error::new(kind, format!("{}: {why}", doing())))
}

fn other(error: Error) -> ureq::Error {
    ureq::Error::Other(Box::new(error))
}

/// An IPv6 address without its brackets; any other host as it is.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connect")
    }
}
