//! How each host may be spoken to, with what the user excepted by ranges of addresses.

use std::net::ToSocketAddrs;
use std::sync::Mutex;

use super::client::locked;
use super::location::{self, Policy};
use super::network::{Network, address_of};

/// The user's exceptions, and what names were found to mean.
pub(super) struct Policies {
    insecure: Vec<String>,
    networks: Vec<Network>,
    looked_up: Mutex<Vec<(String, bool)>>,
}

impl Policies {
    /// `insecure`: `host`, `host:port` or `address/bits`.
    pub(super) fn new(insecure: Vec<String>) -> Policies {
        let networks = insecure.iter().filter_map(|entry| Network::parse(entry)).collect();
        Policies { insecure, networks, looked_up: Mutex::default() }
    }

    /// The policy for `authority` (`host[:port]`). A name is looked up, once, if there are ranges: as in Docker's engine
    /// one that means an address of a range is excepted.
    pub(super) fn of(&self, authority: &str) -> Policy {
        match location::policy(authority, &self.insecure) {
            Policy::Verified if self.is_in_range(authority) => Policy::Insecure,
            policy => policy,
        }
    }

    fn is_in_range(&self, authority: &str) -> bool {
        if self.networks.is_empty() {
            return false;
        }
        let authority = authority.rsplit('@').next().unwrap_or(authority);
        let host = location::host_of(authority);
        if let Some(address) = address_of(host) {
            return self.networks.iter().any(|network| network.contains(&address));
        }
        if let Some((_, known)) = locked(&self.looked_up).iter().find(|(name, _)| name == host) {
            return *known;
        }
        let found = (host, 0).to_socket_addrs().is_ok_and(|mut addresses| {
            addresses.any(|found| self.networks.iter().any(|n| n.contains(&found.ip())))
        });
        locked(&self.looked_up).push((host.to_string(), found));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excepts_ranges() {
        let insecure = ["10.0.0.0/8", "lan:5000", "127.0.0.0/8"].map(str::to_string);
        let policies = Policies::new(insecure.to_vec());
        for (authority, expected) in [
            ("10.1.2.3:5000", Policy::Insecure),
            ("11.1.2.3:5000", Policy::Verified),
            ("lan:5000", Policy::Insecure),
            ("[fd00::1]", Policy::Verified),
            ("10.1.2.3@evil.invalid", Policy::Verified),
            ("no-such-host.invalid:5000", Policy::Verified),
            ("127.0.0.1:5", Policy::Loopback),
        ] {
            assert_eq!(policies.of(authority), expected, "{authority}");
        }
        assert_eq!(locked(&policies.looked_up).len(), 2, "only names are looked up");
    }
}
