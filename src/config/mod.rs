//! The configuration files that Docker's users have: `daemon.json` and the client's `config.json`, under their keys.
//!
//! Reading them is all that is done here, but for the credentials, which `login` and `logout` also write. What a setting
//! means is for whoever it is meant for.

mod credentials;
mod daemon;
mod document;
mod helper;

pub use credentials::{ClientConfig, Credentials, server_key, server_name};
pub use daemon::{DEFAULT_CONFIG_FILE, DaemonConfig, Proxies};
