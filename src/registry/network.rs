//! Ranges of addresses as `insecure-registries` and NO_PROXY name them: `10.0.0.0/8` (RFC 4632). Pure text.

use std::net::IpAddr;

/// Addresses that begin with the same bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// `address/bits`.
    pub(super) fn parse(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
        (bits <= width(&address)).then_some(Network { address, bits })
    }

    pub(super) fn contains(&self, address: &IpAddr) -> bool {
        let shift = width(&self.address) - self.bits;
        let prefix = |address: &IpAddr| number(address).checked_shr(shift).unwrap_or(0);
        self.address.is_ipv4() == address.is_ipv4() && prefix(&self.address) == prefix(address)
    }
}

fn width(address: &IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(*address).into(),
        IpAddr::V6(address) => (*address).into(),
    }
}

/// The address that a host of a URL is, with or without brackets; `None` for a name.
pub(super) fn address_of(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.9.9.9", "::a01:203"),
            ("192.168.1.7/32", "192.168.1.7", "192.168.1.6"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "fe80::1", "1.2.3.4"),
            ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(network.contains(&inside.parse().unwrap()), "{network:?} {inside}");
            assert!(!network.contains(&outside.parse().unwrap()), "{network:?} {outside}");
        }
        for text in ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "x/8", "10.0.0.0/", "/8", ""]
        {
            assert_eq!(Network::parse(text), None, "{text}");
        }
        assert_eq!(address_of("[::1]"), "::1".parse().ok());
        assert_eq!((address_of("10.0.0.1"), address_of("a.b")), ("10.0.0.1".parse().ok(), None));
    }
}
