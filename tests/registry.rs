//! The registry client against a hostile server in this process, and against Debian's docker-registry.

#[path = "registry/account.rs"]
mod account;
#[path = "registry/debian.rs"]
mod debian;
#[path = "registry/hostile.rs"]
mod hostile;
#[path = "registry/link.rs"]
mod link;
#[path = "registry/mirror.rs"]
mod mirror;
#[path = "registry/proxy.rs"]
mod proxy;
#[path = "registry/referrers.rs"]
mod referrers;
#[path = "registry/server.rs"]
mod server;
#[path = "registry/tls.rs"]
mod tls;
