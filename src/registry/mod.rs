//! The client of an OCI distribution registry (distribution spec 1.1; Docker Registry v2).
//!
//! It turns references into verified manifests and blobs into streams, and owns ureq and rustls. It knows nothing of
//! what is on disk. A lost link is met within a question (`retry`), and within a blob by asking for the rest of it;
//! `Client::blob` takes an offset so that whoever stores the bytes can go on where an earlier process stood.
//!
//! What refers to a manifest, deltas among it, is found by `referrers`, whether the registry keeps such lists or not.
//!
//! A request flows: `resolve`/`blob` say what is wanted -> `client` sends it, to a `mirror` first where there is one, over
//! TLS or as the `policy` of the host allows, follows redirects, and answers one 401 (`challenge`, `authorize`) ->
//! `connect` dials, through a `proxy` if the rules say so, and, for https, shakes hands (`trust` says whom to believe,
//! `tls` is the cryptography) -> `transport` reads and writes within limits of time -> `failure` turns whatever went wrong
//! into one line.

mod authorize;
mod blob;
mod challenge;
mod client;
mod connect;
mod failure;
mod identity;
mod location;
mod login;
mod mirror;
mod network;
mod options;
mod policy;
mod proxy;
mod referrers;
mod resolve;
mod retry;
mod session;
mod tls;
mod transport;
mod trust;
mod upload;

pub use crate::config::Credentials;
pub use client::Client;
pub use options::{OnWait, Options};
pub use resolve::Resolved;
pub use retry::Waiting;
pub use upload::{Push, Uploaded};

/// Reads `text` as every header value that registries answer with: for `tests/fuzz` alone.
#[cfg(fuzzing)]
pub fn read_header(text: &str) {
    challenge::parse(text);
    retry::parse_retry_after(text, 1_700_000_000);
    blob::content_range_start(text);
    location::policy(text, &[]);
    let leads = location::follow("https://registry.test/v2/a/blobs/uploads/?x=y", text);
    location::origin(&leads);
    location::follow(text, "next");
}
