//! The client of an OCI distribution registry (distribution spec 1.1; Docker Registry v2).
//!
//! It turns references into verified manifests and blobs into streams, and owns ureq and rustls. It knows nothing of
//! what is on disk. A lost link is met within a question (`retry`), and within a blob by asking for the rest of it;
//! `Client::blob` takes an offset so that whoever stores the bytes can go on where an earlier process stood.
//!
//! A request flows: `resolve`/`blob` say what is wanted -> `client` sends it, over TLS or as the policy of the host
//! allows (`location`), follows redirects, and answers one 401 (`challenge`, `authorize`) -> `transport` dials and, for
//! https, shakes hands (`trust` says whom to believe, `tls` is the cryptography) -> `failure` turns whatever went wrong
//! into one line.

mod authorize;
mod blob;
mod challenge;
mod client;
mod failure;
mod location;
mod login;
mod options;
mod resolve;
mod retry;
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
