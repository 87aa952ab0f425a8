//! What a client is told: whom to believe, whom to be, how long to wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::retry::Waiting;
use crate::config::{ClientConfig, Credentials, DaemonConfig, Proxies};

/// Time to reach a host and to finish the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest silence in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The time in which an answer has to bring `transport::STALL_BYTES`; longer than a silence may be, so that a server which
/// thinks before it sends is not blamed twice.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Where Docker keeps certificates for single registries, and where we do.
const CERTIFICATE_DIRECTORIES: &[&str] = &["/etc/docker/certs.d", "/etc/vaquita/certs.d"];
/// The attempts at one question, as Docker's `max-download-attempts`.
const MAX_ATTEMPTS: u32 = 5;
/// The wait after a first failure.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Environment variables, in milliseconds, for links where the defaults are wrong, and for tests.
const READ_TIMEOUT_VARIABLE: &str = "VAQUITA_READ_TIMEOUT_MS";
const FIRST_WAIT_VARIABLE: &str = "VAQUITA_FIRST_WAIT_MS";

/// How to reach registries.
#[derive(Clone)]
pub struct Options {
    /// Certificate authorities (PEM) to believe instead of the system's.
    pub ca_files: Vec<PathBuf>,
    /// `host[:port]` or `address/bits` that may be spoken to over plain HTTP or with any certificate, as Docker's
    /// `insecure-registries`.
    pub insecure: Vec<String>,
    /// URLs of registries to ask for Docker Hub's images before Docker Hub, as Docker's `registry-mirrors`.
    pub mirrors: Vec<String>,
    /// Proxies that go before those that the environment names.
    pub proxies: Proxies,
    /// Directories with authorities and client certificates for single registries (`<host[:port]>/*.crt`, and `*.cert` with
    /// its `*.key`, of which the first is shown).
    pub certificate_directories: Vec<PathBuf>,
    /// Whom to be.
    pub credentials: Vec<Credentials>,
    /// Where to look for whom to be where none of these fits; anonymous where that knows nothing, either.
    pub client_config: Option<ClientConfig>,
    /// The `User-Agent` header; printable ASCII.
    pub user_agent: String,
    /// Time to reach a host and to finish the TLS handshake.
    pub connect_timeout: Duration,
    /// The longest silence in the middle of an answer.
    pub read_timeout: Duration,
    /// How long an answer may bring next to nothing, however often a byte comes.
    pub stall_timeout: Duration,
    /// How often to fail at one question, or at one blob without any bytes between, before giving up.
    pub max_attempts: u32,
    /// The longest wait after a first failure; each further one doubles it.
    pub first_wait: Duration,
    /// Set by whoever no longer wants what was asked for: within a fraction of a second every wait and every read ends
    /// with `Kind::Cancelled`. Looking a name up and connecting are finished first.
    pub stop: Arc<AtomicBool>,
    /// Told, each second, while the client waits to ask again.
    pub on_wait: Option<OnWait>,
}

/// Whom to tell of a wait; called from the thread that waits.
pub type OnWait = Arc<dyn Fn(&Waiting) + Send + Sync>;

impl Default for Options {
    fn default() -> Options {
        Options {
            ca_files: Vec::new(),
            insecure: Vec::new(),
            mirrors: Vec::new(),
            proxies: Proxies::default(),
            certificate_directories: CERTIFICATE_DIRECTORIES.iter().map(PathBuf::from).collect(),
            credentials: Vec::new(),
            client_config: None,
            user_agent: concat!("vaquita/", env!("CARGO_PKG_VERSION")).to_string(),
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: READ_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
            max_attempts: MAX_ATTEMPTS,
            first_wait: FIRST_WAIT,
            stop: Arc::default(),
            on_wait: None,
        }
    }
}

impl Options {
    /// The defaults, changed by what an installation sets.
    pub fn of(config: &DaemonConfig) -> Options {
        Options {
            insecure: config.insecure_registries.clone(),
            mirrors: config.registry_mirrors.clone(),
            proxies: config.proxies.clone(),
            max_attempts: config.max_download_attempts.unwrap_or(MAX_ATTEMPTS),
            read_timeout: milliseconds(READ_TIMEOUT_VARIABLE).unwrap_or(READ_TIMEOUT),
            first_wait: milliseconds(FIRST_WAIT_VARIABLE).unwrap_or(FIRST_WAIT),
            ..Options::default()
        }
    }
}

/// A time from the environment; what is no number says nothing.
fn milliseconds(variable: &str) -> Option<Duration> {
    let value = std::env::var(variable).ok()?.parse().ok()?;
    Some(Duration::from_millis(value))
}
