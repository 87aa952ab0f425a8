//! Where a registry is: its name on the wire, how it may be spoken to, and where a redirect leads. Pure text.

use std::net::IpAddr;

/// The registry that people mean by `docker.io`, under the name that its service answers to.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// `host[:port]` to connect to for a registry named `registry` in a reference.
pub(super) fn wire_name(registry: &str) -> &str {
    if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry }
}

/// What is asked of the connection to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// TLS, and a certificate that a known authority vouches for.
    Verified,
    /// TLS or plain HTTP; a certificate counts only where the user gave an authority for it (Docker: loopback).
    Loopback,
    /// TLS with any certificate, or plain HTTP: the user said so (Docker: insecure-registries).
    Insecure,
}

/// The policy for `authority` (`host[:port]`); `insecure` lists what the user excepted, with or without port.
pub(super) fn policy(authority: &str, insecure: &[String]) -> Policy {
    // What a URL says of a user is no part of where it leads.
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    let host = host_of(authority);
    let excepted =
        |entry: &String| entry.eq_ignore_ascii_case(authority) || entry.eq_ignore_ascii_case(host);
    if insecure.iter().any(excepted) {
        return Policy::Insecure;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_loopback { Policy::Loopback } else { Policy::Verified }
}

/// The host without its port; an IPv6 address keeps its brackets.
pub(super) fn host_of(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => &authority[..colon],
        _ => authority,
    }
}

/// `scheme://authority` of a URL: two URLs with the same one may see the same credentials.
pub(super) fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |colon| colon + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |offset| start + offset);
    &url[..end]
}

/// Where `location` leads, seen from `base` (RFC 3986, section 5.2; dots in paths are left to the server).
pub(super) fn follow(base: &str, location: &str) -> String {
    let location = location.split('#').next().unwrap_or_default();
    let origin = origin(base);
    if location.split(['/', '?']).next().is_some_and(|first| first.ends_with(':')) {
        return location.to_string();
    }
    if location.starts_with("//") {
        let scheme = base.split("//").next().unwrap_or_default();
        return format!("{scheme}{location}");
    }
    if location.starts_with('/') {
        return format!("{origin}{location}");
    }
    let path = base[origin.len()..].split('?').next().unwrap_or_default();
    if location.starts_with('?') {
        return format!("{origin}{path}{location}");
    }
    let directory = path.rfind('/').map_or("/", |slash| &path[..=slash]);
    format!("{origin}{directory}{location}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_locations() {
        for (location, expected) in [
            ("https://b/y", "https://b/y"),
            ("ftp://b/y", "ftp://b/y"),
            ("//b:1/y?z", "https://b:1/y?z"),
            ("/y#part", "https://a:5/y"),
            ("y", "https://a:5/v2/y"),
            ("?y", "https://a:5/v2/x?y"),
        ] {
            assert_eq!(follow("https://a:5/v2/x?q=/w", location), expected);
        }
        assert_eq!(follow("http://a", "y"), "http://a/y");
    }

    #[test]
    fn origin_ends_before_the_path() {
        for (url, expected) in [
            ("https://a:5/x", "https://a:5"),
            ("http://a", "http://a"),
            ("http://a?x=/", "http://a"),
            ("http://[::1]:5/x", "http://[::1]:5"),
        ] {
            assert_eq!(origin(url), expected);
        }
    }

    #[test]
    fn only_loopback_and_exceptions_are_let_off() {
        let insecure = ["lan".to_string(), "store:5000".to_string()];
        for (authority, expected) in [
            ("127.0.0.1:5000", Policy::Loopback),
            ("127.9.9.9", Policy::Loopback),
            ("localhost:5000", Policy::Loopback),
            ("[::1]:5000", Policy::Loopback),
            ("[::1]", Policy::Loopback),
            ("128.0.0.1:5000", Policy::Verified),
            ("localhost.example.org", Policy::Verified),
            ("127.0.0.1.example.org", Policy::Verified),
            ("lan", Policy::Insecure),
            ("LAN:8080", Policy::Insecure),
            ("store:5000", Policy::Insecure),
            ("store:5001", Policy::Verified),
            ("registry-1.docker.io", Policy::Verified),
            ("localhost:1@evil.example", Policy::Verified),
            ("user@127.0.0.1:5000", Policy::Loopback),
        ] {
            assert_eq!(policy(authority, &insecure), expected, "{authority}");
        }
        assert_eq!(wire_name("docker.io"), "registry-1.docker.io");
    }
}
